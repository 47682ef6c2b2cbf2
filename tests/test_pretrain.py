"""pretrain: what it writes, what it refuses, and that a run cut short ends as one that was not."""

from __future__ import annotations

import builtins
import itertools
import json
import logging
import math
import signal

import pytest
import torch

import fastssl
from fastssl import methods
from fastssl.data.sources import DatasetSource, ImageFolder
from fastssl.training import checkpoint
from fastssl.training.metrics import Metrics, read_metrics
from fastssl.training.pretrain import pretrain
from fastssl.training.schedules import warmup_cosine

TINY = "test_resnet"  # timm's, 0.4 million parameters
FIRST = "conv1.0.weight"
SETTINGS = {"backbone": TINY, "batch_size": 4, "input_size": 32, "stem": "standard", "device": "cpu", "progress": False}


def weights(result):
    return result.backbone.state_dict()


def assert_same_weights(a, b):
    assert weights(a).keys() == weights(b).keys()
    differing = [name for name in weights(a) if not torch.equal(weights(a)[name], weights(b)[name])]
    assert not differing


@pytest.fixture(scope="module")
def whole_run(photos, tmp_path_factory):
    """Four epochs at a stretch."""
    return pretrain(photos, tmp_path_factory.mktemp("whole"), epochs=4, **SETTINGS)


def test_a_run_leaves_its_checkpoint_weights_metrics_and_settings(whole_run, photos):
    assert whole_run.steps == 4 * (23 // 4)
    assert math.isfinite(whole_run.loss) and whole_run.images_per_second > 0
    assert whole_run.loader_stats["images"] == whole_run.steps * 4
    config = json.loads((whole_run.out / "config.json").read_text())
    assert (config["backbone"], config["epochs"], config["seed"]) == (TINY, 4, 0)
    rows = read_metrics(whole_run.metrics)
    assert [row["step"] for row in rows] == list(range(1, whole_run.steps + 1))
    assert {row["epoch"] for row in rows} == {0, 1, 2, 3}
    assert list((whole_run.out / "tensorboard").glob("events.*"))
    fresh = fastssl.models.backbones.create(TINY, stem="standard", input_size=32)
    fresh.load_state_dict(torch.load(whole_run.weights, weights_only=True))
    assert torch.equal(fresh.state_dict()[FIRST], weights(whole_run)[FIRST])
    assert not list(whole_run.out.glob(".*")), "temporary files remain"


def test_training_changes_the_network_and_the_seed_decides_how(whole_run, photos, tmp_path):
    again = pretrain(photos, tmp_path / "again", epochs=4, max_steps=1, **SETTINGS)
    other = pretrain(photos, tmp_path / "other", epochs=4, max_steps=1, seed=1, **SETTINGS)
    assert not torch.equal(weights(again)[FIRST], weights(whole_run)[FIRST])
    assert not torch.equal(weights(again)[FIRST], weights(other)[FIRST])


def test_two_epochs_and_two_more_are_four_epochs(whole_run, photos, tmp_path):
    pretrain(photos, tmp_path, epochs=4, max_steps=10, **SETTINGS)
    resumed = pretrain(photos, tmp_path, epochs=4, **SETTINGS)
    assert_same_weights(resumed, whole_run)
    assert resumed.loss == whole_run.loss


def test_a_run_stopped_within_an_epoch_goes_on_exactly(whole_run, photos, tmp_path):
    pretrain(photos, tmp_path, epochs=4, max_steps=7, **SETTINGS)
    pretrain(photos, tmp_path, epochs=4, max_steps=8, threads=1, **SETTINGS)
    resumed = pretrain(photos, tmp_path, epochs=4, threads=3, **SETTINGS)
    assert_same_weights(resumed, whole_run)


class Interrupting(ImageFolder):
    """A folder that presses Ctrl-C when so many targets have been asked for."""

    def __init__(self, root, after):
        super().__init__(root)
        self.after, self.count = after, 0

    def target(self, index):
        self.count += 1
        if self.count == self.after:
            signal.raise_signal(signal.SIGINT)
        return super().target(index)


@pytest.mark.parametrize("after", [1, 40])
def test_ctrl_c_saves_and_the_next_call_goes_on_exactly(after, whole_run, photos, tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="checkpoint"):
        pretrain(Interrupting(photos, after), tmp_path, epochs=4, **SETTINGS)
    assert signal.getsignal(signal.SIGINT) is handler
    assert read_metrics(tmp_path / "metrics.csv")[-1]["step"] < whole_run.steps
    assert_same_weights(pretrain(photos, tmp_path, epochs=4, **SETTINGS), whole_run)


def test_rows_written_after_the_checkpoint_do_not_stand_there_twice(whole_run, photos, tmp_path):
    pretrain(photos, tmp_path, epochs=4, max_steps=7, **SETTINGS)
    with open(tmp_path / "metrics.csv", "a") as file:  # as by a crash in step 10
        file.write("8,1,4.0,0.1,100\n9,1,4.0,0.1,100\n10,1,4.")
    pretrain(photos, tmp_path, epochs=4, **SETTINGS)
    ours, theirs = read_metrics(tmp_path / "metrics.csv"), read_metrics(whole_run.metrics)
    assert [(row["step"], row["loss"]) for row in ours] == [(row["step"], row["loss"]) for row in theirs]


def test_a_finished_run_is_not_trained_further(whole_run, photos):
    again = pretrain(photos, whole_run.out, epochs=4, **SETTINGS)
    assert again.steps == whole_run.steps and again.images_per_second == 0 and again.loss == whole_run.loss
    assert_same_weights(again, whole_run)


def test_resuming_with_other_settings_names_them(whole_run, photos, make_folder):
    with pytest.raises(ValueError, match=r"batch_size=4 there, 8 here; epochs=4 there, 5 here.*lr="):
        pretrain(photos, whole_run.out, epochs=5, **{**SETTINGS, "batch_size": 8})
    with pytest.raises(ValueError, match=r"images='23 images, .*24 images"):
        pretrain(make_folder({"a": 24}), whole_run.out, epochs=4, **SETTINGS)


def test_resume_false_begins_anew(whole_run, photos, tmp_path):
    pretrain(photos, tmp_path, epochs=4, max_steps=2, seed=5, **SETTINGS)
    assert_same_weights(pretrain(photos, tmp_path, epochs=4, resume=False, **SETTINGS), whole_run)
    assert len(read_metrics(tmp_path / "metrics.csv")) == whole_run.steps


def test_a_damaged_checkpoint_is_named(photos, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match=r"checkpoint\.pt cannot be read.*resume=False"):
        pretrain(photos, tmp_path, epochs=1, **SETTINGS)


def test_an_error_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), checkpoint.atomic_write(path) as file:
        file.write(b"new")
        raise RuntimeError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_the_callers_random_state_is_left_alone(photos, tmp_path):
    before = torch.get_rng_state()
    pretrain(photos, tmp_path, epochs=1, max_steps=1, **SETTINGS)
    assert torch.equal(torch.get_rng_state(), before)


def test_bfloat16_trains_on_the_cpu_too(photos, tmp_path):
    result = pretrain(photos, tmp_path, epochs=1, precision="bfloat16", max_steps=2, **SETTINGS)
    assert math.isfinite(result.loss) and weights(result)[FIRST].dtype == torch.float32


def test_a_map_style_data_set_is_taken(photos, tmp_path):
    folder = ImageFolder(photos)
    samples = [(folder.path(i), folder.target(i)) for i in range(8)]
    assert pretrain(DatasetSource(samples), tmp_path, epochs=1, **SETTINGS).steps == 2


def test_a_loss_that_is_not_finite_stops_the_run(photos, tmp_path):
    with pytest.raises(FloatingPointError, match=r"step \d+ \(epoch 0, learning rate .*smaller lr"):
        pretrain(photos, tmp_path, epochs=30, lr=1e30, **SETTINGS)
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"batch_size": 1}, "batch_size=1 leaves an image nothing"),
        ({"batch_size": 64}, "more than the 23 images of the data; write batch_size=23"),
        ({"epochs": 0}, "epochs=0"),
        ({"checkpoint_every": 0}, "checkpoint_every=0"),
        ({"max_steps": -1}, "max_steps=-1"),
        ({"input_size": 0}, "input_size=0"),
        ({"lr": -0.1}, "lr=-0.1"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"method": "simsalabim"}, "'simsalabim' is unknown; write one of 'simclr'"),
        ({"precision": "float64"}, "precision='float64'"),
        ({"backbone": "resnet19"}, "resnet19"),
        ({"on_error": "ignore"}, "on_error='ignore'"),
        ({"threads": 0}, "threads=0"),
    ],
)
def test_wrong_arguments_are_named(wrong, message, photos, tmp_path):
    with pytest.raises(ValueError, match=message):
        pretrain(photos, tmp_path, **{**SETTINGS, "epochs": 1, **wrong})


def test_unreadable_images_are_named_or_replaced(make_folder, tmp_path):
    folder = make_folder({"a": 8})
    (folder / "a" / "a_003.jpg").write_bytes(b"no image")
    with pytest.raises(fastssl.DecodeError, match=r"a_003\.jpg"):
        pretrain(folder, tmp_path / "raise", epochs=1, **SETTINGS)
    result = pretrain(folder, tmp_path / "replace", epochs=1, on_error="replace", **SETTINGS)
    assert result.steps == 2 and len(result.unreadable) == 1 and "a_003.jpg" in result.unreadable[0]


def test_without_tensorboard_one_line_says_what_to_install(tmp_path, monkeypatch, caplog):
    actual = builtins.__import__

    def without(name, *rest, **options):
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return actual(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with caplog.at_level(logging.WARNING), Metrics(tmp_path) as metrics:
        metrics.write({"step": 1, "epoch": 0, "loss": 1.5, "lr": 0.1, "images_per_second": 9.0})
    (record,) = caplog.records
    assert "pip install tensorboard" in record.getMessage()
    assert read_metrics(tmp_path / "metrics.csv") == [
        {"step": 1, "epoch": 0, "loss": 1.5, "lr": 0.1, "images_per_second": 9.0}
    ]


def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine():
    rates = [warmup_cosine(step, warmup_steps=10, total_steps=110) for step in range(110)]
    assert rates[:11] == pytest.approx([(step + 1) / 11 for step in range(11)])
    assert rates[60] == pytest.approx(0.5)
    assert all(a > b > 0 for a, b in itertools.pairwise(rates[10:]))
    assert warmup_cosine(0, warmup_steps=0, total_steps=1) == 1.0


def test_simclr_leaves_blur_out_for_small_images_only():
    (small, _), (large, _) = methods.SimCLR.recipe(64), methods.SimCLR.recipe(65)
    assert small.blur is None and large.blur is not None
    assert small.jitter.brightness == 0.4 and large.jitter.brightness == 0.8


def test_simclr_is_nt_xent_of_the_projections_of_both_views():
    torch.manual_seed(0)
    backbone = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    model = methods.SimCLR(backbone, 3, temperature=0.5)
    views = [torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8)]
    z = torch.nn.functional.normalize(model.head(backbone(torch.cat(views))).detach().double(), dim=1)
    similarity = (z @ z.T / 0.5).exp()
    terms = [
        -math.log(similarity[i, (i + 4) % 8] / (similarity[i].sum() - similarity[i, i])) for i in range(8)
    ]  # equation 1
    assert model(views).item() == pytest.approx(sum(terms) / 8, rel=1e-5)  # float32 against float64
