"""Caches of decoded images in the Loader: the same bytes as without, and nothing asked of the source twice."""

from __future__ import annotations

import gc
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import images
import numpy
import pytest
import torch
from loading import RECIPE, VIEW, Joined, Memory, joined, pictures
from test_leaks import resident_bytes

import fastssl
from fastssl import ops
from fastssl._native import _C
from fastssl.data import ArraySource, DatasetSource, ImageFolder, Source, Subset, build_cache
from fastssl.data.pixel_cache import available_bytes
from fastssl.ops.render import encode_recipe, native_views
from fastssl.transforms.view import Blur, CenterCrop, Crop, Resize, SameCrop, View

PICTURES = pictures(23)
MIXED = [images.png(images.photo(31, 44, seed=i)) if i % 3 == 0 else data for i, data in enumerate(PICTURES)]
GRAY = images.jpeg(images.photo(40, 30)[:, :, 0])


class Counting(Memory):
    """Counts how often each image was asked for."""

    def __init__(self, items) -> None:
        super().__init__(items)
        self.fetched: list[int] = []

    def fetch(self, index: int):
        self.fetched.append(index)
        return super().fetch(index)

    def fingerprint(self) -> str:
        return "counting"


class Pixels(Memory):
    def fetch(self, index: int):
        return ops.decode(super().fetch(index))


@pytest.fixture(params=["ram", "path"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    return "ram" if request.param == "ram" else tmp_path / "pixels.cache"


def epochs(source: object, n: int = 3, **arguments: object) -> list[Joined]:
    loader = fastssl.Loader(source, RECIPE, batch_size=5, **{"threads": 2, "decode": "full", **arguments})
    return [joined(loader) for _ in range(n)]


# --- the same bytes ---------------------------------------------------------------------------------------------------

SOURCES: dict[str, Callable[[Path], object]] = {
    "folder": lambda photos: photos,
    "jpeg in memory": lambda _: Memory(PICTURES),
    "jpeg and png": lambda _: Memory(MIXED),
    "gray and cmyk": lambda _: Memory([GRAY, images.cmyk_jpeg(images.photo(33, 35)), *PICTURES[:4]]),
    "pixels": lambda _: Pixels(PICTURES),
    "data set": lambda _: [(images.photo(30 + i, 41, seed=i), i) for i in range(9)],
    "subset": lambda photos: Subset(ImageFolder(photos), list(range(1, 20, 2))),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
@pytest.mark.parametrize("threads", [1, 3])
def test_views_are_those_without_a_cache(photos, cache, source, threads):
    data = source(photos)
    assert epochs(data, threads=threads, cache=cache) == epochs(data)


def test_views_are_those_without_a_cache_within_one_iteration(photos, cache):
    """Epochs that run into one another, where an image is stored and found while others are still decoded."""
    plain = joined(fastssl.Loader(photos, RECIPE, batch_size=4, epochs=5, decode="full"))
    assert joined(fastssl.Loader(photos, RECIPE, batch_size=4, epochs=5, threads=3, cache=cache)) == plain


def test_views_of_a_cache_found_in_a_file_are_those_without(photos, tmp_path):
    path = tmp_path / "pixels.cache"
    epochs(photos, 1, cache=path)
    assert epochs(photos, cache=path) == epochs(photos)


@pytest.mark.parametrize("dtype", [torch.float16, torch.uint8])
def test_other_types_and_layouts_are_as_without_a_cache(cache, dtype):
    recipe = (VIEW.with_(normalize=None),)
    plain = joined(fastssl.Loader(Memory(MIXED), recipe, dtype=dtype, channels_last=True, epochs=2, decode="full"))
    assert (
        joined(fastssl.Loader(Memory(MIXED), recipe, dtype=dtype, channels_last=True, epochs=2, cache=cache)) == plain
    )


# --- nothing is asked for twice ---------------------------------------------------------------------------------------


def test_each_image_is_fetched_once(cache):
    source = Counting(MIXED)
    loader = fastssl.Loader(source, RECIPE, batch_size=5, threads=3, cache=cache)
    for _ in range(6):
        joined(loader)
    assert sorted(source.fetched) == list(range(23))
    stats = loader.stats()["cache"]
    assert stats["hits"] == 5 * 23 and stats["misses"] == 23 and stats["images"] == stats["samples"] == 23
    assert stats["advice"] == "all images are kept" and stats["left_out"] == 0


def test_files_may_go_after_the_first_epoch(make_folder, cache):
    folder = make_folder({"cat": 7, "dog": 6})
    want = epochs(folder)
    loader = fastssl.Loader(folder, RECIPE, batch_size=5, cache=cache)
    got = [joined(loader)]
    shutil.rmtree(folder)
    assert [*got, joined(loader), joined(loader)] == want


def test_a_broken_off_epoch_is_kept(cache):
    source = Counting(PICTURES)
    loader = fastssl.Loader(source, RECIPE, batch_size=5, prefetch=0, shuffle=False, cache=cache)
    for _ in loader:
        break
    joined(loader)
    assert sorted(source.fetched) == list(range(23))


def test_labels_of_a_data_set_come_with_cached_images(cache):
    """Only a fetch tells them, and there is none."""
    data = [(images.photo(30, 40, seed=i), 100 + i, f"name {i}") for i in range(11)]
    loader = fastssl.Loader(data, RECIPE, batch_size=4, cache=cache)
    for _ in range(2):
        result = joined(loader)
        assert result.targets.tolist() == [100 + i for i in result.indices.tolist()]
        assert result.filenames == [f"name {i}" for i in result.indices.tolist()]


# --- bad samples ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_a_bad_sample_is_never_cached_and_noted_as_ever(cache, policy):
    items = [*PICTURES[:9], PICTURES[9][:200], b"nothing", ValueError("no such image")]
    plain = fastssl.Loader(Memory(items), RECIPE, batch_size=4, on_error=policy, decode="full")
    want = [joined(plain) for _ in range(3)]
    loader = fastssl.Loader(Memory(items), RECIPE, batch_size=4, on_error=policy, cache=cache)
    assert [joined(loader) for _ in range(3)] == want
    assert sorted(loader.errors, key=lambda f: f.index) == sorted(plain.errors, key=lambda f: f.index)
    assert loader.stats()["cache"]["images"] == 9
    again = fastssl.Loader(Memory(items), RECIPE, batch_size=4, on_error=policy, cache=cache)
    assert [joined(again) for _ in range(3)] == want and len(again.errors) == 3


def test_a_bad_sample_raises_with_a_cache_as_without(cache):
    loader = fastssl.Loader(Memory([*PICTURES[:5], b"nothing"]), RECIPE, batch_size=2, cache=cache)
    for _ in range(2):
        with pytest.raises(fastssl.DecodeError, match=r"memory/5: no image format that is known"):
            joined(loader)


# --- ranks, pickling, processes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [False, True])
def test_ranks_see_with_a_cache_what_they_see_without(cache, together):
    def ranks(**arguments: object) -> list[Joined]:
        loaders = [
            fastssl.Loader(
                Memory(PICTURES),
                RECIPE,
                batch_size=5,
                drop_last=True,
                rank=rank,
                world_size=2,
                decode="full",
                **arguments,
            )
            for rank in range(2)
        ]
        if together:
            steps = [zip(*loaders, strict=True) for _ in range(4)]
            both = [list(step) for step in steps]
            return [joined(batch[rank] for batch in epoch) for epoch in both for rank in range(2)]
        return [joined(loader) for loader in loaders for _ in range(4)]

    assert ranks(cache=cache) == ranks()


def test_ranks_share_a_file(tmp_path):
    """What one has stored the other finds: together they fetch each image once."""
    sources = [Counting(PICTURES[:20]) for _ in range(2)]
    loaders = [
        fastssl.Loader(s, RECIPE, batch_size=5, drop_last=True, rank=r, world_size=2, cache=tmp_path / "c", prefetch=0)
        for r, s in enumerate(sources)
    ]
    for _ in range(3):
        for _ in zip(*loaders, strict=True):
            continue
    assert sorted(sources[0].fetched + sources[1].fetched) == list(range(20))
    assert (tmp_path / "c").is_file() and not (tmp_path / "c.part").exists()


def test_a_loader_with_a_cache_can_be_pickled(photos, cache):
    loader = fastssl.Loader(photos, RECIPE, batch_size=5, cache=cache)
    joined(loader)
    data = pickle.dumps(loader)
    assert len(data) < 20_000, "the pixels are in it"
    copy = pickle.loads(data)
    assert joined(copy) == joined(loader) and joined(copy) == joined(loader)


def test_a_fork_has_the_images_of_its_parent(nursery, cache):
    script = """
        import os, sys
        import fastssl
        from loading import RECIPE, Memory, joined, pictures
        class Once(Memory):
            def fetch(self, index):
                item, self.items[index] = self.items[index], OSError("fetched twice")
                return item
            def fingerprint(self):
                return "once"
        loader = fastssl.Loader(Once(pictures(20)), RECIPE, batch_size=4, threads=2, cache=sys.argv[1], prefetch=0, shuffle=False)
        for i, _ in enumerate(loader):
            if i == 2:
                break
        loader.set_epoch(1)
        want = joined(fastssl.Loader(Memory(pictures(20)), RECIPE, batch_size=4, epochs=3, shuffle=False, decode="full"))
        child = os.fork()
        got = [joined(loader) for _ in range(2)]
        stats = loader.stats()["cache"]
        assert stats["images"] == 20, stats
        assert torch.equal(got[0].views[0], want.views[0][20:40]), "other pixels"
        assert torch.equal(got[1].views[1], want.views[1][40:]), "other pixels"
        if child:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            print("both")
    """
    assert nursery.run("import torch\n" + _dedent(script), cache).check().stdout == "both\n"


def _dedent(script: str) -> str:
    return "\n".join(line[8:] for line in script.splitlines())


# --- budget and memory ------------------------------------------------------------------------------------------------

LARGE = [images.jpeg(images.photo(256, 256, seed=i)) for i in range(40)]  # 196,608 bytes of pixels each
LARGE_BYTES = 256 * 256 * 3


@pytest.mark.parametrize("limit", [1, LARGE_BYTES // 2, LARGE_BYTES * 3, LARGE_BYTES * 17, LARGE_BYTES * 100])
def test_the_budget_holds(cache, limit):
    source = Counting(LARGE)
    loader = fastssl.Loader(source, RECIPE, batch_size=8, threads=3, cache=cache, cache_bytes=limit)
    for _ in range(3):
        joined(loader)
    stats = loader.stats()["cache"]
    room = limit // LARGE_BYTES
    overhead = 65536  # of a file, its header and table and labels
    assert stats["bytes"] <= limit + (0 if cache == "ram" else overhead) and stats["limit"] == limit
    assert min(40, room * 0.9 - 1) <= stats["images"] <= min(40, room)
    if stats["images"] < 40:
        assert stats["left_out"] > 0 and ("all need about" in stats["advice"]) == (stats["images"] > 0)
        assert (f"cache_bytes={limit}" if cache == "ram" else "is complete with") in stats["advice"]
        assert stats["hits"] == 2 * stats["images"]


def test_views_are_right_where_only_some_images_fit(cache):
    got = epochs(Memory(LARGE), cache=cache, cache_bytes=LARGE_BYTES * 7)
    assert got == epochs(Memory(LARGE))


def test_memory_goes_back_with_the_loader():
    source = Memory([images.jpeg(images.flat(1000, 1000)) for _ in range(4)] * 10)  # 3 MB each, 120 MB in all
    recipe = (View(crop=Crop(size=8)),)
    joined(fastssl.Loader(source, recipe, threads=2))
    before = resident_bytes()
    loader = fastssl.Loader(source, recipe, threads=2, cache="ram")
    joined(loader)
    held = resident_bytes() - before
    assert 110e6 < held < 160e6, f"{held:,}"
    assert loader.stats()["cache"]["bytes"] >= held - 30e6
    del loader
    gc.collect()
    assert resident_bytes() - before < 30e6


def test_the_budget_bounds_resident_memory():
    source = Memory([images.jpeg(images.flat(1000, 1000)) for _ in range(4)] * 10)
    recipe = (View(crop=Crop(size=8)),)
    joined(fastssl.Loader(source, recipe, threads=2))
    before = resident_bytes()
    loader = fastssl.Loader(source, recipe, threads=2, cache="ram", cache_bytes=40_000_000)
    for _ in range(2):
        joined(loader)
    assert resident_bytes() - before < 40e6 + 20e6


def test_available_bytes_is_the_least_of_machine_and_groups(tmp_path):
    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    write("proc/meminfo", "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable: 4000 kB\n")
    assert available_bytes(tmp_path) == 4000 * 1024
    write("proc/self/cgroup", "0::/a/b\n")
    write("sys/fs/cgroup/a/b/memory.max", "max\n")
    write("sys/fs/cgroup/a/b/memory.current", "5\n")
    assert available_bytes(tmp_path) == 4000 * 1024
    write("sys/fs/cgroup/a/memory.max", "1000000\n")
    write("sys/fs/cgroup/a/memory.current", "900000\n")
    write("sys/fs/cgroup/a/memory.stat", "anon 5\ninactive_file 300000\n")
    assert available_bytes(tmp_path) == 400_000
    write("sys/fs/cgroup/a/b/memory.max", "600\n")
    assert available_bytes(tmp_path) == 595
    write("proc/self/cgroup", "5:cpu,memory:/docker/x\n")  # version 1; in a container, the root of what is seen
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "3000\n")
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", "5000\n")
    assert available_bytes(tmp_path) == 0


# --- how small an image may be kept -----------------------------------------------------------------------------------

RECIPES = {
    "random": (View(crop=Crop(size=20)),),
    "random, small": (View(crop=Crop(size=7, area=(0.01, 0.05), aspect=(0.2, 5.0))),),
    "center": (View(crop=CenterCrop(size=30)),),
    "center, all": (View(crop=CenterCrop(size=30, keep=1.0)),),
    "whole": (View(crop=Resize(size=25)),),
    "within": (View(crop=Crop(size=40)), View(crop=Crop(size=9, area=(0.2, 0.4), inside=0))),
    "same": (View(crop=Crop(size=12)), View(crop=SameCrop(size=24, of=0))),
    "two": (View(crop=Crop(size=32, area=(0.5, 1.0))), View(crop=Crop(size=12, area=(0.1, 0.5)))),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_no_crop_has_fewer_pixels_than_its_view_in_a_shrunk_image(recipe, rng):
    views = native_views(encode_recipe(recipe))
    shrunk = set()
    for height, width in [(200, 300), (1000, 700), (64, 2000), (3000, 3100), (25, 30), (1500, 90), (401, 399)]:
        shrink = _C.recipe_shrink(views, height, width)
        shrunk.add(shrink)
        n = 3000
        plan = torch.empty((n, len(views), len(_C.PLAN_FIELDS)))
        indices = rng.integers(0, 2**62, n).tolist()
        _C.draw(views, [(height, width)] * n, 3, 0, indices, 0, plan.data_ptr())
        for v, view in enumerate(views):
            high, wide = plan[:, v, 2].min().item(), plan[:, v, 3].min().item()
            if shrink > 1:
                assert min(high, wide) / shrink >= view.size, f"{high} x {wide} of {height} x {width}, shrink {shrink}"
    assert len(shrunk) > 1, "every size gave the same"


@pytest.mark.parametrize(
    "recipe, height, width, shrink",
    [
        ((View(crop=Resize(size=100)),), 800, 900, 8),
        ((View(crop=Resize(size=100)),), 799, 900, 4),
        ((View(crop=CenterCrop(size=100, keep=0.875)),), 400, 3000, 2),
        ((View(crop=Resize(size=100)),), 99, 99, 1),
        ((View(crop=Resize(size=100)), View(crop=Resize(size=300))), 800, 900, 2),
        ((View(crop=Crop(size=100, area=(0.25, 1.0), aspect=(1.0, 1.0))),), 401 * 2, 401 * 2, 4),
        ((View(crop=Crop(size=100, area=(0.25, 1.0), aspect=(0.25, 4.0))),), 802, 802, 2),
        # What comes before the crop sees all pixels.
        ((View(crop=Resize(size=100), blur=Blur(p=1.0), order=("blur", "crop")),), 800, 900, 1),
    ],
)
def test_shrink_is_as_documented(recipe, height, width, shrink):
    assert _C.recipe_shrink(native_views(encode_recipe(recipe)), height, width) == shrink


WIDE = [images.jpeg(images.photo(300 + 10 * i, 400, seed=i)) for i in range(9)]
THUMBNAILS = (View(crop=Crop(size=16, area=(0.3, 1.0))), View(crop=CenterCrop(size=24)))


def test_smaller_images_give_the_same_views_found_or_not(cache):
    """Whether an image was found, stored just now, or had no room, changes no pixel."""

    def three(**arguments: object) -> list[Joined]:
        loader = fastssl.Loader(Memory(WIDE), THUMBNAILS, batch_size=4, cache_size="recipe", **arguments)
        got = []
        for _ in range(3):
            loader.set_epoch(5)
            got.append(joined(loader))
        return got

    found = three(cache=cache)
    tight = three(cache="ram", cache_bytes=300_000) + three(cache="ram", cache_bytes=1)
    assert all(other == found[0] for other in found[1:] + tight)


def test_smaller_images_take_less_and_look_the_same(tmp_path):
    full, small = (
        fastssl.Loader(Memory(WIDE), THUMBNAILS, cache=tmp_path / size, cache_size=size) for size in ("full", "recipe")
    )
    pairs = list(zip(joined(full).views, joined(small).views, strict=True))
    for size, other in pairs:
        scale = torch.tensor(VIEW.normalize.std).view(3, 1, 1)
        off = ((size - other) * scale).abs()
        assert 0 < off.mean() < 0.02, "a mean over 8 x 8 pixels in the DCT, and then bilinear, is not bilinear of all"
    assert small.stats()["cache"]["bytes"] * 12 < full.stats()["cache"]["bytes"]


def test_images_that_are_no_jpeg_are_kept_in_full_size(cache):
    source = Memory([images.png(images.photo(300, 400, seed=i)) for i in range(5)])
    loader = fastssl.Loader(source, THUMBNAILS, cache=cache, cache_size="recipe", epochs=2)
    assert joined(loader) == joined(fastssl.Loader(source, THUMBNAILS, decode="full", epochs=2))


# --- with other options -----------------------------------------------------------------------------------------------


def test_an_image_step_sees_what_was_decoded_each_time(cache):
    calls = []

    def step(image: torch.Tensor) -> torch.Tensor:
        calls.append(image.shape)
        return image[2:, 3:].contiguous() // 2

    source = Counting(MIXED)
    want = [joined(loader) for loader in [fastssl.Loader(source, RECIPE, image_step=step)] for _ in range(3)]
    source.fetched.clear()
    calls.clear()
    loader = fastssl.Loader(source, RECIPE, image_step=step, cache=cache, threads=2)
    assert [joined(loader) for _ in range(3)] == want
    assert len(source.fetched) == 23 and len(calls) == 3 * 23


def test_an_image_step_and_smaller_images_do_not_go_together():
    with pytest.raises(ValueError, match='write cache_size="full"'):
        fastssl.Loader(Memory(WIDE), RECIPE, image_step=lambda image: image, cache="ram", cache_size="recipe")


def test_pixels_in_memory_are_not_copied(tmp_path):
    source = ArraySource(numpy.stack([images.photo(20, 30, seed=i) for i in range(6)]), targets=range(6))
    for cache in ("ram", tmp_path / "c"):
        loader = fastssl.Loader(source, RECIPE, cache=cache)
        assert joined(loader) == joined(fastssl.Loader(source, RECIPE))
        assert "cache" not in loader.stats() and not os.listdir(tmp_path)
    with pytest.raises(ValueError, match="the images lie in memory"):
        build_cache(source, tmp_path / "c")


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"cache": "ram", "cache_bytes": 0}, "cache_bytes=0 must be a whole number"),
        ({"cache": "ram", "cache_bytes": 1.5}, "cache_bytes=1.5 must be a whole number"),
        ({"cache": "ram", "cache_bytes": True}, "cache_bytes=True must be a whole number"),
        ({"cache_bytes": 10}, 'write cache="ram" or a path as well'),
        ({"cache_size": "recipe"}, 'write cache="ram" or a path as well'),
        ({"cache": "ram", "cache_size": "half"}, "cache_size='half' must be"),
        ({"cache": True}, "cache=True must be None"),
        ({"cache": ""}, "cache='' must be None"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fastssl.Loader(Memory(PICTURES), RECIPE, **arguments)


def test_without_a_cache_stats_are_as_before(photos):
    loader = fastssl.Loader(photos, RECIPE)
    assert loader.stats() == {}
    joined(loader)
    assert "cache" not in loader.stats()


def test_a_source_without_labels_of_its_own_needs_nothing_more():
    class Least(Source):
        def __len__(self) -> int:
            return 3

        def fetch(self, index: int) -> bytes:
            return PICTURES[index]

    assert not Least().labels_by_fetch and Least().fingerprint() is None and Least().unlabelled([0, 1]) == []
    assert DatasetSource([1]).labels_by_fetch and DatasetSource([1]).unlabelled([0]) == [0]
    assert len(joined(fastssl.Loader(Least(), RECIPE, cache="ram")).filenames) == 3
