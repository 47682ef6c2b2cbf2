"""BytesCollate, and to_device on the CPU."""

import io
import time

import numpy as np
import PIL.Image
import pytest
import torch
import torchvision

import fastssl
from fastssl import DecodeError, recipes
from fastssl.data import BytesCollate, EncodedBatch
from fastssl.ops import decode

RECIPE = recipes.simclr(16)


def jpeg(i):
    file = io.BytesIO()
    pixels = np.random.default_rng(i).integers(0, 255, (20 + i, 30 - i % 20, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def loader_of(samples, batch_size=4, **options):
    return torch.utils.data.DataLoader(samples, batch_size=batch_size, collate_fn=BytesCollate(), **options)


SAMPLES = [(jpeg(i), i % 3, f"{i}.jpg") for i in range(10)]


def test_every_kind_of_image(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(0))
    pixels = decode(jpeg(0))
    images = [path, str(path), jpeg(0), bytearray(jpeg(0)), torch.frombuffer(bytearray(jpeg(0)), dtype=torch.uint8)]
    images += [PIL.Image.open(path), pixels.numpy(), pixels.permute(2, 0, 1)]
    batch = BytesCollate()([(image, i) for i, image in enumerate(images)])
    assert len(batch) == 8 and batch.targets.tolist() == list(range(8)) and batch.filenames == []
    assert batch.sides.tolist() == [[0, 0]] * 5 + [[20, 30]] * 3
    for i, data in enumerate(batch.images()):
        assert bytes(data.numpy()) == (jpeg(0) if i < 5 else pixels.numpy().tobytes())
    assert batch.names[:3] == [str(path), str(path), ""]
    # The same image, drawn alike for each: only Pillow's decoder might have differed, and does not.
    torch.manual_seed(0)
    (made,) = fastssl.to_device([batch], recipes.evaluation(16), "cpu")
    assert all(torch.equal(made.views[0][0], view) for view in made.views[0])


@pytest.mark.parametrize(
    "image, words", [(3, "got int"), (None, "got NoneType"), (torch.zeros(3, 3, 3, 3), r"\(3, 3, 3, 3\)")]
)
def test_what_is_no_image_is_named(image, words):
    with pytest.raises(TypeError, match=rf"BytesCollate: sample 1 of the batch \(b\).*{words}"):
        BytesCollate()([(jpeg(0), 0, "a"), (image, 0, "b")])


def test_an_empty_batch():
    with pytest.raises(ValueError, match="the batch is empty"):
        BytesCollate()([])


@pytest.mark.parametrize("workers", [0, 2])
def test_views_follow_the_seed_of_torch(workers):
    loader = fastssl.to_device(loader_of(SAMPLES, num_workers=workers), RECIPE, "cpu")
    torch.manual_seed(1)
    first, second = list(loader), list(loader)
    torch.manual_seed(1)
    again = list(loader)
    assert len(loader) == len(first) == 3 and [len(batch) for batch in first] == [4, 4, 2]
    assert [name for batch in first for name in batch.filenames] == [name for _, _, name in SAMPLES]
    assert torch.cat([batch.targets for batch in first]).tolist() == [target for _, target, _ in SAMPLES]
    for a, b, c in zip(first, again, second, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.views, b.views, strict=True))
        assert not torch.equal(a.views[0], c.views[0])
        assert torch.equal(a.params.data, b.params.data)


def test_views_are_those_of_the_plan():
    for batch in fastssl.to_device(loader_of(SAMPLES), RECIPE, "cpu", dtype=torch.float16, channels_last=True):
        images = [decode(jpeg(int(i))) for i in batch.indices]
        want = fastssl.ops.render(images, batch.params, RECIPE, dtype=torch.float16, channels_last=True)
        assert all(torch.equal(a, b) and a.stride() == b.stride() for a, b in zip(batch.views, want, strict=True))


def test_a_folder_of_torchvision(photos):
    folder = torchvision.datasets.ImageFolder(photos, loader=str)
    batches = list(fastssl.to_device(loader_of(folder, 5), RECIPE, "cpu"))
    assert sum(map(len, batches)) == len(folder) and batches[0].filenames[0] == "0"
    assert torch.cat([batch.targets for batch in batches]).tolist() == folder.targets


def bad_samples(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.jpg").write_bytes(b"")
    samples = [list(sample) for sample in SAMPLES]
    samples[1][0] = str(tmp_path / "missing.jpg")
    samples[3][0] = str(tmp_path / "folder")
    samples[4][0] = str(tmp_path / "empty.jpg")
    samples[5][0] = SAMPLES[5][0][:-100]
    samples[8][0] = b"no image"
    return [tuple(sample) for sample in samples]


REASONS = {
    1: "missing.jpg: cannot open: No such file or directory",
    3: "folder: it is a folder, not a file",
    4: "empty.jpg: the file is empty (0 bytes)",
    5: "5.jpg: the JPEG ends early (truncated)",
    8: "8.jpg: no image format that is known",
}


def test_bad_samples_are_skipped_and_listed(tmp_path):
    loader = fastssl.to_device(loader_of(bad_samples(tmp_path)), RECIPE, "cpu", on_error="skip")
    for _ in range(2):
        assert [batch.filenames for batch in loader] == [
            ["0.jpg", "2.jpg"],
            ["6.jpg", "7.jpg"],
            ["9.jpg"],
        ]
    assert [fault.index for fault in loader.errors] == sorted(REASONS)  # once, also of two iterations
    for fault in loader.errors:
        assert REASONS[fault.index] in str(fault)


def test_bad_samples_are_replaced_from_their_batch(tmp_path):
    loader = fastssl.to_device(loader_of(bad_samples(tmp_path)), RECIPE, "cpu", on_error="replace")
    batches = list(loader)
    assert [batch.filenames for batch in batches] == [
        ["0.jpg", "2.jpg", "2.jpg", "0.jpg"],
        ["6.jpg", "6.jpg", "6.jpg", "7.jpg"],
        ["9.jpg", "9.jpg"],
    ]
    for batch in batches:
        views = batch.views[0]
        assert len({view.numpy().tobytes() for view in views}) == len(views), "a repetition is drawn anew"


@pytest.mark.parametrize("which", REASONS)
def test_bad_samples_are_raised(tmp_path, which):
    samples = bad_samples(tmp_path)
    with pytest.raises(DecodeError) as caught:
        list(fastssl.to_device(loader_of([*SAMPLES[:1], samples[which]]), RECIPE, "cpu"))
    assert REASONS[which] in str(caught.value)


def test_nothing_can_be_read():
    for policy, words in (("skip", "none of 3 samples can be read"), ("replace", "none of the 3 samples of a batch")):
        with pytest.raises(DecodeError, match=words):
            list(fastssl.to_device(loader_of([(b"no image", 0)] * 3), RECIPE, "cpu", on_error=policy))


def test_nameless_samples_are_counted():
    loader = fastssl.to_device(loader_of([(jpeg(0), 0), (b"no image", 0)]), RECIPE, "cpu", on_error="skip")
    (batch,) = loader
    assert batch.filenames == ["0"] and str(loader.errors[0]).startswith("sample 1 of the iteration: ")


@pytest.mark.parametrize("given, words", [
    ([(torch.zeros(2, 3, 8, 8), torch.zeros(2))], "gave a tuple; write DataLoader(..., collate_fn"),
    (3, "got int; it takes a DataLoader"),
])  # fmt: skip
def test_what_is_no_batch_of_bytes(given, words):
    with pytest.raises(TypeError) as caught:
        list(fastssl.to_device(given, RECIPE, "cpu"))
    assert words in str(caught.value)


def test_arguments_are_checked():
    for options, words in [
        ({"device": "abacus"}, "device='abacus'"),
        ({"threads": 0}, "threads=0"),
        ({"prefetch": -1}, "prefetch=-1"),
        ({"on_error": "hide"}, "on_error='hide'"),
        ({"decode": "fast"}, "decode='fast'"),
        ({"dtype": torch.uint8}, "uint8"),
    ]:
        with pytest.raises(ValueError, match=words):
            fastssl.to_device([], RECIPE, **{"device": "cpu", **options})


def test_no_batch_at_all():
    assert list(fastssl.to_device([], RECIPE, "cpu")) == []


def test_a_batch_goes_through_workers_in_one_piece():
    for batch in loader_of(SAMPLES, num_workers=1):
        assert isinstance(batch, EncodedBatch) and batch.data.is_shared()


def test_an_error_of_the_data_set_comes_through():
    class Broken(torch.utils.data.Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            if index == 5:
                raise KeyError("lost")
            return SAMPLES[index]

    with pytest.raises(KeyError, match="lost"):
        list(fastssl.to_device(loader_of(Broken()), RECIPE, "cpu"))


def test_a_slow_dataloader_is_named(monkeypatch):
    """Where reading is what takes the time, more native threads would not help; stats() says what would."""
    import time

    class Slow(torch.utils.data.Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, index):
            time.sleep(0.05)
            return SAMPLES[index]

    loader = fastssl.to_device(loader_of(Slow(), 2), RECIPE, "cpu")
    assert len(list(loader)) == 3
    stats = loader.stats()
    assert 0 < stats["read_seconds"] <= stats["wait_seconds"] <= stats["seconds"]
    assert "num_workers" in stats["advice"]


def test_measuring_takes_a_few_hundred_images_and_draws_nothing(monkeypatch):
    """Also of a small first batch; torch's generator is where it was, so that views do not depend on whether it was measured."""
    (batch,) = loader_of(SAMPLES[:3], 3)
    loader = fastssl.to_device([batch], RECIPE, "cpu")
    seen = []
    monkeypatch.setattr(
        fastssl.data.device_loader,
        "images_per_second",
        lambda batches, device, warm_up: seen.append(sum(map(len, batches))) or 1.0,
    )
    state = torch.get_rng_state()
    assert loader._measure(batch, fastssl.pipelines.Choice(decoder=None)) == 1.0
    assert 512 <= seen[0] < 600 and torch.equal(torch.get_rng_state(), state)


def test_samples_of_one_name_and_of_none_are_told_apart():
    """Names only name: a good sample is taken in a bad one's place though another of its name, or of its place, was bad."""
    bad = b"no image"
    for names in (("same",) * 4, None):
        samples = [(data, i, *([names[i]] if names else [])) for i, data in enumerate([jpeg(0), bad, jpeg(2), jpeg(3)])]
        turned = [samples[i] for i in (1, 0, 2, 3)]  # the bad one first: what was good takes its place in the count
        for order in (samples, turned):
            loader = fastssl.to_device(loader_of(order), RECIPE, "cpu", on_error="replace")
            for _ in range(2):
                (batch,) = loader
                assert len(batch) == 4 and loader.errors
        loader = fastssl.to_device(loader_of(samples), RECIPE, "cpu", on_error="replace")
        list(loader)
        loader.dataloader = loader_of(turned)
        (batch,) = loader  # now it is the first that is bad, and number 1 that is good
        assert len(batch) == 4 and batch.targets.tolist() == [0, 0, 2, 3]


class Slow(torch.utils.data.Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, index):
        time.sleep(0.01)
        return SAMPLES[index % 10]


class Erring(torch.utils.data.Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, index):
        if index == 13:
            raise KeyError("lost")
        return SAMPLES[index % 10]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_an_error_of_the_data_set_comes_after_what_was_read_before_it(workers, prefetch):
    taken = []
    with pytest.raises(KeyError, match="lost"):
        for batch in fastssl.to_device(loader_of(Erring(), num_workers=workers), RECIPE, "cpu", prefetch=prefetch):
            taken.append(len(batch))
    assert taken == [4, 4, 4]


class Pausing(torch.utils.data.Dataset):
    def __init__(self, going_on):
        self.going_on = going_on

    def __len__(self):
        return 20

    def __getitem__(self, index):
        if index == 12:
            assert self.going_on.wait(60)
        return SAMPLES[index % 10]


def test_batches_that_are_there_are_not_kept_back_by_one_that_is_not():
    going_on = torch.multiprocessing.get_context("fork").Event()
    options = {"num_workers": 1, "multiprocessing_context": "fork"}
    iterator = iter(fastssl.to_device(loader_of(Pausing(going_on), **options), RECIPE, "cpu", prefetch=3))
    assert [len(next(iterator)) for _ in range(3)] == [4, 4, 4]
    going_on.set()
    assert [len(batch) for batch in iterator] == [4, 4]


@pytest.mark.parametrize("taken", [1, 2])
def test_persistent_workers_serve_the_next_iteration_after_a_break(taken):
    """Their DataLoader has one iterator, which must not begin anew while a thread of the iteration before is within it."""
    dataloader = loader_of(Slow(), num_workers=1, persistent_workers=True, prefetch_factor=1)
    loader = fastssl.to_device(dataloader, RECIPE, "cpu", prefetch=3)
    for _ in range(3):
        for _, batch in zip(range(taken), loader, strict=False):
            assert len(batch) == 4
    assert [batch.indices.tolist() for batch in loader] == [[*range(i, i + 4)] for i in range(0, 20, 4)]


def test_an_iteration_whose_workers_were_taken_away_says_so():
    dataloader = loader_of(Slow(), num_workers=1, persistent_workers=True)
    loader = fastssl.to_device(dataloader, RECIPE, "cpu", prefetch=0)
    first = iter(loader)
    next(first)
    assert sum(len(batch) for batch in loader) == 20
    with pytest.raises(RuntimeError, match="iterated anew"):
        list(first)


def test_a_batch_without_a_good_sample_names_one_of_its_own():
    loader = fastssl.to_device(loader_of([(b"no image", 0)] * 2), RECIPE, "cpu", on_error="replace")
    for _ in range(2):
        with pytest.raises(DecodeError, match=r"none of the 2 samples of a batch .* one of them: .*sample 0"):
            list(loader)
        loader.errors.clear()
