"""The same seed gives the same bytes: whatever the threads, the batch size, the ranks, and wherever it was resumed."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import numpy as np
import pytest
import torch
from loading import RECIPE, Memory, joined, pictures
from scipy import stats

import fastssl
from fastssl import ops
from fastssl.transforms.plan import Plan
from fastssl.transforms.view import Crop, View

PICTURES = pictures(23)


def load(**options):
    return fastssl.Loader(Memory(PICTURES), RECIPE, **({"batch_size": 6, "seed": 5} | options))


@pytest.fixture(scope="module")
def two_epochs():
    return joined(load(epochs=2))


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("batch_size", [1, 4, 6, 23])
def test_same_bytes_with_any_threads_and_batch_size(threads, batch_size, two_epochs):
    assert joined(load(epochs=2, threads=threads, batch_size=batch_size)) == two_epochs


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_same_bytes_from_files(photos, threads):
    want = joined(fastssl.Loader(photos, RECIPE, batch_size=5, threads=1))
    assert joined(fastssl.Loader(photos, RECIPE, batch_size=4, threads=threads)) == want


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_render_makes_the_same_bytes_from_the_stored_plan(tmp_path, threads, two_epochs):
    decoded = [ops.decode(PICTURES[i]) for i in two_epochs.indices.tolist()]
    torch.save(two_epochs.params.data, tmp_path / "plan.pt")
    plan = Plan(torch.load(tmp_path / "plan.pt"))
    for got, want in zip(ops.render(decoded, plan, RECIPE, threads=threads), two_epochs.views, strict=True):
        assert torch.equal(got, want)


def test_plan_draw_repeats_what_the_loader_drew(two_epochs):
    """Any view can be drawn again later, from (seed, epoch, index) alone."""
    sizes = [tuple(ops.decode(data).shape[:2]) for data in PICTURES]
    for epoch, rows in enumerate((slice(0, 23), slice(23, 46))):
        indices = two_epochs.indices[rows].tolist()
        plan = Plan.draw(RECIPE, [sizes[i] for i in indices], seed=5, epoch=epoch, indices=indices)
        assert torch.equal(plan.data, two_epochs.params.data[rows])


def test_set_num_threads_changes_no_byte():
    decoded = [ops.decode(data) for data in PICTURES]
    plan = Plan.draw(RECIPE, [tuple(image.shape[:2]) for image in decoded], seed=1)
    results = []
    for threads in (1, 2, 7):
        fastssl.set_num_threads(threads)
        assert fastssl.get_num_threads() == threads
        results.append(ops.render(decoded, plan, RECIPE))
    for views in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(views, results[0], strict=True))


@pytest.mark.parametrize("seed", [0, 6, 5 + 2**32, 2**63 - 1])
def test_another_seed_gives_another_order_and_other_pixels(seed, two_epochs):
    got = joined(load(epochs=2, seed=seed))
    assert got.indices.tolist() != two_epochs.indices.tolist()
    for a, b in zip(got.views, two_epochs.views, strict=True):
        ours, theirs = a[got.indices[:23].argsort()], b[two_epochs.indices[:23].argsort()]
        assert (ours != theirs).flatten(1).any(dim=1).all(), "a sample looks the same under both seeds"


# --- resuming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("prefetch", [0, 2, 9])
def test_resuming_gives_the_remaining_batches(after, prefetch):
    loader = load(prefetch=prefetch)
    iteration = iter(loader)
    for _ in range(after):
        next(iteration)
    state = json.loads(json.dumps(loader.state_dict()))  # plain numbers, whatever it is stored in
    rest = list(iteration) + list(loader)  # the rest of this epoch, and the next one

    resumed = load(prefetch=prefetch)
    resumed.load_state_dict(state)
    got = list(resumed) + list(resumed) if after < 4 else list(resumed)
    assert [batch.epoch for batch in got] == [batch.epoch for batch in rest]
    assert [len(batch) for batch in got] == [len(batch) for batch in rest]
    assert joined(got) == joined(rest)


@pytest.mark.parametrize("batch_size", [1, 4, 5, 17, 40])
def test_resuming_with_another_batch_size_goes_on_at_the_same_sample(batch_size):
    loader = load()
    iteration = iter(loader)
    next(iteration), next(iteration)
    state = loader.state_dict()
    rest = list(iteration)
    resumed = load(batch_size=batch_size, threads=1)
    resumed.load_state_dict(state)
    assert joined(resumed) == joined(rest)


def test_resuming_with_other_ranks_goes_on_at_the_same_sample():
    loader = load(batch_size=4)
    iteration = iter(loader)
    next(iteration), next(iteration)
    state = loader.state_dict()
    rest = joined(iteration).indices.tolist()
    streams = []
    for rank in range(2):
        part = load(batch_size=3, rank=rank, world_size=2, drop_last=True)
        part.load_state_dict(state)
        streams.append([batch.indices.tolist() for batch in part])
    assert list(itertools.chain.from_iterable(itertools.chain(*zip(*streams, strict=True)))) == rest[: 15 // 6 * 6]


def test_a_finished_epoch_resumes_with_the_next():
    for drop_last in (False, True):
        loader = load(drop_last=drop_last)
        list(loader)
        state = loader.state_dict()
        following = joined(loader)
        resumed = load(drop_last=drop_last)
        resumed.load_state_dict(state)
        assert resumed.epoch == 1 and joined(resumed) == following


def test_resuming_within_several_epochs():
    loader = load(epochs=3)
    iteration = iter(loader)
    for _ in range(6):
        next(iteration)
    state = loader.state_dict()
    rest = list(iteration)
    resumed = load(epochs=3)
    resumed.load_state_dict(state)
    got = list(itertools.islice(resumed, len(rest)))
    assert joined(got) == joined(rest)


def test_the_state_counts_what_was_handed_out_and_not_what_is_prepared():
    loader = load(prefetch=9)
    iteration = iter(loader)
    next(iteration)
    assert loader.state_dict()["position"] == 6


def test_a_state_of_another_loader_is_refused():
    state = load().state_dict()
    with pytest.raises(ValueError, match="seed"):
        load(seed=6).load_state_dict(state)
    for wrong in ({}, {"epoch": 1}, None, state | {"position": 1000}, state | {"position": -1}, state | {"epoch": -1}):
        with pytest.raises(ValueError, match=r"load_state_dict"):
            load().load_state_dict(wrong)


# --- ranks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_ranks_hold_the_slices_of_each_global_batch(world_size, batch_size):
    whole = list(load(batch_size=batch_size * world_size, drop_last=True, epochs=2))
    ranks = [
        list(load(batch_size=batch_size, rank=rank, world_size=world_size, drop_last=True, epochs=2))
        for rank in range(world_size)
    ]
    assert {len(batches) for batches in ranks} == {len(whole)}, "a rank with fewer batches leaves the others waiting"
    for batches, together in zip(zip(*ranks, strict=True), whole, strict=True):
        assert joined(batches) == joined([together])


# --- order ------------------------------------------------------------------------------------------------------------


def test_every_epoch_visits_every_sample_once():
    for seed in range(5):
        indices = joined(load(seed=seed, epochs=3)).indices.view(3, 23)
        assert torch.equal(indices.sort(dim=1).values, torch.arange(23).expand(3, 23))


def uniform_over_orders(drawn: list[tuple[int, ...]]) -> float:
    """The p-value of a chi-square test over all 24 orders of four."""
    counts = Counter(drawn)
    table = [counts[order] for order in itertools.permutations(range(4))]
    assert sum(table) == len(drawn), "something drawn is no order of four"
    return float(stats.chisquare(table).pvalue)


def test_shuffle_is_uniform():
    """Of four samples, 24,000 epochs; significance 1e-3, seed fixed."""
    view = (View(crop=Crop(size=1), normalize=None),)
    tiny = [torch.zeros((1, 1, 3), dtype=torch.uint8)] * 4
    loader = fastssl.Loader(Memory(tiny), view, batch_size=4, epochs=24_000, threads=1, seed=2)
    assert uniform_over_orders([tuple(batch.indices.tolist()) for batch in loader]) > 1e-3


def test_a_biased_shuffle_would_be_caught():
    """The classic mistake, each position swapped with any other and not with a later one, at the same sample size."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(24_000):
        order = [0, 1, 2, 3]
        for i, j in enumerate(rng.integers(0, 4, 4)):
            order[i], order[j] = order[j], order[i]
        drawn.append(tuple(order))
    assert uniform_over_orders(drawn) < 1e-3
