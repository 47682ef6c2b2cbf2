"""Sources of one's own: what they may do, and what becomes of their mistakes."""

from __future__ import annotations

import gc
import os
import threading

import images
import pytest
import torch

import fastssl
from fastssl import ops, recipes
from fastssl.data import Source
from fastssl.transforms import Crop, Plan, View

RECIPE = (View(crop=Crop(size=16), normalize=None),)


class Made(Source):
    """Sixteen small images, and what a test wants to happen first."""

    def __init__(self, first=lambda index: None, length: int = 16) -> None:
        self.first, self.length = first, length

    def __len__(self) -> int:
        return self.length

    def fetch(self, index: int) -> torch.Tensor:
        self.first(index)
        return torch.full((20, 30, 3), index, dtype=torch.uint8)


def loader(source, **arguments) -> fastssl.Loader:
    return fastssl.Loader(source, RECIPE, **{"batch_size": 4, "threads": 2, "shuffle": False, **arguments})


def test_a_reason_without_words_is_a_reason():
    def bad(index: int) -> None:
        if index == 3:
            raise fastssl.DecodeError

    skipping = loader(Made(bad), on_error="skip")
    batches = list(skipping)
    assert [i for batch in batches for i in batch.indices.tolist()] == [i for i in range(16) if i != 3]
    assert [fault.index for fault in skipping.errors] == [3]
    for batch in batches:
        for view, index in zip(batch.views[0], batch.indices, strict=True):
            assert torch.allclose(view, index / 255.0, atol=1e-6)


@pytest.mark.parametrize("on_error", ["raise", "skip", "replace"])
@pytest.mark.parametrize("error", [TypeError("wrong"), AttributeError("gone"), KeyError("key")], ids=repr)
def test_a_mistake_in_a_source_is_no_bad_file(error, on_error):
    def mistake(index: int) -> None:
        if index == 5:
            raise error

    failing = loader(Made(mistake), on_error=on_error)
    with pytest.raises(type(error)) as caught:
        list(failing)
    assert caught.value is error and caught.traceback[-1].name == "mistake"
    assert failing.errors == []


def test_a_thread_local_is_made_once_a_thread():
    made, mine = [], threading.local()

    def use(index: int) -> None:
        if not hasattr(mine, "value"):
            mine.value = index
            made.append(index)

    list(loader(Made(use, length=200), threads=3))
    assert len(made) <= 3


def test_collecting_an_iteration_on_its_own_thread_is_safe():
    """The garbage collector runs wherever Python runs, also in a source's fetch."""
    holder = {}

    def collect(index: int) -> None:
        if index == 6 and "cycle" in holder:
            del holder["cycle"]
            gc.collect()

    for _ in range(20):
        cycle = {"iteration": iter(loader(Made(collect), prefetch=3))}
        cycle["self"] = cycle
        holder["cycle"] = cycle
        next(cycle["iteration"])
        del cycle
        list(loader(Made()))  # closes what could not close itself


def test_closing_from_a_fetch_is_safe():
    holder: list = []
    source = Made(lambda index: holder[0].close() if index == 9 and holder else None)
    holder.append(iter(loader(source, prefetch=4)))
    with pytest.raises((RuntimeError, StopIteration)):
        for _ in range(10):
            next(holder[0])
    holder.clear()


def test_threads_may_share_an_iteration():
    iteration, seen = iter(loader(Made(length=64))), []

    def consume() -> None:
        for batch in iteration:
            seen.extend(batch.indices.tolist())

    threads = [threading.Thread(target=consume) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(64))


def test_a_resumed_iteration_ends_where_the_first_would_have():
    whole = loader(Made(), epochs=3, shuffle=True)
    iteration = iter(whole)
    for _ in range(5):
        next(iteration)
    state = whole.state_dict()
    rest = [batch.indices.tolist() for batch in iteration]
    resumed = loader(Made(), epochs=3, shuffle=True)
    resumed.load_state_dict(state)
    assert [batch.indices.tolist() for batch in resumed] == rest
    assert len(list(resumed)) == 12, "and the next iteration is a whole one"


def test_asking_twice_for_an_iterator_keeps_the_place():
    source = loader(Made())
    next(iter(source))
    resumed = loader(Made())
    resumed.load_state_dict(source.state_dict())
    iter(resumed)
    assert next(iter(resumed)).indices.tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("other", [{"seed": 1}, {"shuffle": True}, {"source": Made(length=17)}], ids=str)
def test_a_state_of_another_order_is_refused(other):
    source = loader(Made())
    next(iter(source))
    with pytest.raises(ValueError, match=r"load_state_dict: the state was taken with"):
        loader(other.pop("source", Made()), **other).load_state_dict(source.state_dict())


def test_ranks_may_not_skip():
    with pytest.raises(ValueError, match=r"on_error='skip' with world_size=2.*'replace'"):
        loader(Made(), on_error="skip", drop_last=True, rank=0, world_size=2)


def test_names_need_not_be_utf_8(tmp_path):
    with open(os.fsencode(tmp_path) + b"/caf\xe9.jpg", "wb") as file:
        file.write(images.jpeg(images.photo(40, 50, seed=0)))
    (batch,) = fastssl.Loader(tmp_path, recipes.simclr(16), batch_size=1)
    assert batch.filenames == [os.fsdecode(b"caf\xe9.jpg")]


def test_a_pipe_is_no_image_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(fastssl.DecodeError, match=r"pipe\.jpg: it is not a regular file"):
        list(fastssl.Loader(tmp_path, recipes.simclr(16), batch_size=1))


def test_a_folder_that_links_to_itself_is_listed_once(make_folder):
    root = make_folder({"cat": 2, "dog": 1})
    (root / "cat" / "loop").symlink_to(root)
    assert len(fastssl.data.ImageFolder(root)) == 3


@pytest.mark.parametrize("edit", [{"top": 20.0, "height": 1e-7}, {"left": 30.0, "width": 1e-7}], ids=str)
def test_a_crop_just_outside_is_refused(edit):
    plan = Plan.draw(RECIPE, [(20, 30)], seed=0)
    for name, value in edit.items():
        setattr(plan, name, value)
    with pytest.raises(ValueError, match=r"image 0: the crop .* does not lie inside"):
        ops.render([torch.zeros(20, 30, 3, dtype=torch.uint8)], plan, RECIPE)


def test_pixels_come_back_as_they_are():
    pixels = torch.randint(0, 256, (20, 30, 3), dtype=torch.uint8)
    assert torch.equal(ops.to_image(pixels), pixels)
