"""The command line, as a user calls it."""

from __future__ import annotations

import re

import pytest

from fastssl import cli
from fastssl.embedding import Embeddings
from fastssl.training.metrics import read_metrics

TINY = ["--backbone", "test_resnet", "--input-size", "32", "--batch-size", "4", "--device", "cpu", "--quiet"]


@pytest.fixture(autouse=True)
def small_demo(monkeypatch):
    monkeypatch.setattr(cli, "_SHAPES_PER_CLASS", 3)
    monkeypatch.setattr(cli, "_SPEED_SECONDS", 0.05)


def run(*arguments, expect=0):
    assert cli.main([str(argument) for argument in arguments]) == expect


def test_pretrain_then_embed(photos, tmp_path, capsys):
    run("pretrain", photos, "--out", tmp_path / "run", "--epochs", 1, *TINY)
    said = capsys.readouterr().out
    assert "Step 5" in said and str(tmp_path / "run" / "checkpoint.pt") in said
    run("embed", tmp_path / "run", photos, "--out", tmp_path / "features.npz", "--device", "cpu")
    said = capsys.readouterr().out
    assert "23 images" in said and re.search(r"k-NN accuracy, .* the 20 nearest of the others: \d+\.\d %", said)
    assert len(Embeddings.load(tmp_path / "features.npz")) == 23


def test_the_same_command_goes_on_with_a_run(photos, tmp_path, capsys):
    command = ["pretrain", photos, "--out", tmp_path, "--epochs", 2, *TINY]
    run(*command, "--max-steps", 3)
    run(*command)
    assert len(read_metrics(tmp_path / "metrics.csv")) == 10
    run(*command)
    assert "nothing left to do" in capsys.readouterr().out


def test_demo_without_data_draws_trains_measures_and_reports(tmp_path, capsys):
    run("demo", "--out", tmp_path, "--epochs", 1, *TINY)
    said = capsys.readouterr().out
    for pattern in (
        r"Images: 30 to train on and \d+ held out, 10 classes",
        r"Loader alone: [\d,]+ images/s",
        r"k-NN accuracy, untrained: \d+\.\d % \(chance: 10\.0 %\)",
        r"k-NN accuracy, trained:   \d+\.\d % \([+-]\d+\.\d points\)",
        r"Report: .*report\.html \(\d+ kB",
    ):
        assert re.search(pattern, said), pattern
    text = (tmp_path / "report.html").read_text()
    assert text.count("<section>") == 5 and "untrained" in text


def test_demo_holds_images_of_class_folders_out(photos, tmp_path, capsys):
    run("demo", photos, "--out", tmp_path, "--epochs", 1, *TINY)
    said = capsys.readouterr().out
    assert "19 to train on and 4 held out, 3 classes" in said
    assert "k-NN accuracy, trained:" in said
    assert (tmp_path / "report.html").exists()


def test_demo_takes_a_train_and_a_val_folder(photos, make_folder, tmp_path, capsys):
    root = make_folder({"a": 5, "b": 5}, name="set/train").parent
    make_folder({"a": 2, "b": 2}, name="set/val", seed=1)
    run("demo", root, "--out", tmp_path / "out", "--epochs", 1, *TINY)
    assert "10 to train on and 4 held out, 2 classes" in capsys.readouterr().out


def test_demo_of_a_flat_folder_says_why_there_is_no_accuracy(make_folder, tmp_path, capsys):
    run("demo", make_folder({"": 9}), "--out", tmp_path / "out", "--epochs", 1, *TINY)
    said = capsys.readouterr().out
    assert "9 to train on, no class folders" in said and "No k-NN accuracy: no labels" in said
    text = (tmp_path / "out" / "report.html").read_text()
    assert "Nearest neighbours" in text and "k-NN accuracy" not in text


def test_demo_goes_on_where_one_image_cannot_be_read(make_folder, tmp_path, capsys):
    folder = make_folder({"a": 8, "b": 8})
    (folder / "a" / "a_002.jpg").write_bytes(b"no image")
    (folder / "b" / "b_002.jpg").write_bytes(b"")
    run("demo", folder, "--out", tmp_path / "out", "--epochs", 1, *TINY)
    captured = capsys.readouterr()
    assert "Could not read" in captured.err and "00" in captured.err
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["pretrain", "absent", "--out", "OUT"], "there is no folder 'absent'"),
        (["pretrain", "PHOTOS", "--out", "OUT", "--batch-size", "8", "--backbone", "resnet19"], "resnet19"),
        (["pretrain", "PHOTOS", "--out", "OUT"], "batch_size=256 is more than the 23 images"),
        (["pretrain", "PHOTOS", "--out", "OUT", "--batch-size", "8", "--device", "abacus"], "abacus"),
        (["embed", "absent", "PHOTOS"], "there is no absent"),
        (["demo", "absent", "--out", "OUT"], "there is no folder 'absent'"),
        (["demo", "PHOTOS/cat/cat_000.jpg", "--out", "OUT"], "is a file"),
    ],
)
def test_errors_are_one_line_that_names_the_argument(arguments, message, photos, tmp_path, capsys):
    run(*(part.replace("PHOTOS", str(photos)).replace("OUT", str(tmp_path)) for part in arguments), expect=1)
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err
    assert captured.err.startswith(f"fastssl {arguments[0]}: ")


def test_ctrl_c_says_how_to_go_on(monkeypatch, photos, tmp_path, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt("stopped after step 3")

    monkeypatch.setattr(cli, "pretrain", interrupted)
    run("pretrain", photos, "--out", tmp_path, expect=130)
    assert "stopped after step 3. The same command goes on from there." in capsys.readouterr().err


def test_help_names_the_commands_and_a_wrong_one_fails(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in ("pretrain", "embed", "demo"))
    with pytest.raises(SystemExit, match="2"):
        cli.main(["train"])
