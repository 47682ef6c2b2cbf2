"""The kernels of contrastive losses are as exact as plain torch: on a GPU where there is one, else compiled for the host.

The reference is the definition in float64 (reference_contrastive.py), and plain torch the same lines in the type of the
inputs. An error may be twice plain torch's, with its results in the same type, and besides as large as rounding the result
to its type: an exact computation can do no better, and plain torch is sometimes right by luck.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import reference_contrastive as reference
import torch
from conftest import devices
from emulated import ORDERS, bits
from reference_contrastive import Case
from torch import Tensor

from fastssl._native import _C
from fastssl.loss import _cuda
from fastssl.loss._rows import PART_OF_LARGEST

HERE = devices()  # "cpu": the kernels, compiled for the host
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
BIG = 228 * 1024  # bytes of shared memory, of an H100's multiprocessor
NAMES = ("rows", "positives", "columns")
UNCUT = {"most_slots": 1000, "panel_tiles": 1000, "steps": 1000}  # which no matrix in here reaches


@contextlib.contextmanager
def kernels(
    multiprocessors: int = 3, shared_bytes: int = BIG, order: str = "forward", wide: bool = False, **cuts: int
) -> Iterator[None]:
    """On the CPU the kernels are emulated, on a GPU of this size, in this order of threads; a GPU has its own size and order.

    On both: `wide` asks for the kernels by wgmma, and by `cuts`, some of UNCUT, small matrices are cut like large ones.
    """
    gpu_grid = _cuda._gpu_grid

    def cut(size: _C.GridSize) -> _C.GridSize:
        return size.cut(**(UNCUT | cuts)) if cuts else size

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_cuda, "emulated_grid", cut(_C.GridSize(multiprocessors, shared_bytes, wide=wide)))
        patch.setattr(_cuda, "_gpu_grid", lambda index: cut(_C.GridSize.of(index, True) if wide else gpu_grid(index)))
        _C.emulator_order(ORDERS[order])
        try:
            yield
        finally:
            _C.emulator_order(0)


def run(case: Case, needs_query: bool = True, needs_key: bool = True) -> dict[str, Tensor]:
    assert _cuda.usable(case.query, case.key)
    results = _cuda.forward(*case.arguments())
    found = dict(zip(NAMES, results, strict=True))
    arguments = (*case.arguments(), results[0], results[2], *case.gradients())
    gradients = _cuda.backward(*arguments, needs_query, needs_key)
    found |= {
        name: gradient
        for name, gradient in zip(("grad_query", "grad_key", "grad_scale"), gradients, strict=True)
        if gradient is not None
    }
    return found


def seeded(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + 7919 * sum(shape))).to(dtype)


def make(
    n: int, m: int | None, d: int, dtype: torch.dtype, temperature: float, *, clusters: int = 0, seed: int = 0, **others
) -> Case:
    """Embeddings with gradients; m None: of queries alone. `clusters` centres make positives that are alike."""
    query = seeded(n, d, seed=seed)
    key = None if m is None else seeded(m, d, seed=seed + 1)
    if clusters:
        centres = seeded(clusters, d, seed=seed + 2)
        query = 0.3 * query + centres[torch.arange(n) % clusters]
        key = None if key is None else 0.3 * key + centres[torch.arange(m) % clusters]
    case = Case(query.to(dtype), None if key is None else key.to(dtype), torch.tensor(1 / temperature), **others)
    case.grad_rows = seeded(n, seed=seed + 3) / n
    if case.positive is not None:
        case.grad_positives = seeded(n, seed=seed + 4) / n
    if case.columns and m is not None:
        case.grad_columns = seeded(m, seed=seed + 5) / m
    return case


def views(images: int, d: int, dtype: torch.dtype, temperature: float, **others) -> Case:
    """Two views of each image, as NT-Xent has them: rows i and i + images."""
    ids = torch.arange(2 * images) % images
    return make(2 * images, None, d, dtype, temperature, clusters=images, query_ids=ids, positive=images, **others)


def pairs(n: int, m: int, d: int, dtype: torch.dtype, temperature: float, **others) -> Case:
    """Two towers: key i is the positive of query i."""
    ids = {"query_ids": torch.arange(n), "key_ids": torch.arange(m)}
    return make(n, m, d, dtype, temperature, clusters=max(n, m), positive=0, columns=True, **(ids | others))


def to_device(case: Case, device: str) -> Case:
    moved = {name: value.to(device) for name, value in vars(case).items() if isinstance(value, Tensor)}
    return replace(case, **moved)


def compare(case: Case, device: str, briefs: tuple[int, ...] = (), **grid) -> dict[str, Tensor]:
    """Runs the kernels, and holds every result against the reference. `briefs`: queries of zeros, whose gradients, 1e12 times as
    large as others', are compared by themselves."""
    plain = reference.with_gradients(case.to(case.query.dtype))
    exact = reference.with_gradients(case.to(torch.float64))
    with kernels(**grid):
        ours = {name: result.cpu() for name, result in run(to_device(case, device)).items()}
    for name, wanted in exact.items():
        assert ours[name].shape == wanted.shape, name
        if not wanted.numel():
            continue
        dtype = case.query.dtype if name in ("grad_query", "grad_key") else torch.float32
        assert ours[name].dtype == dtype
        finite = torch.isfinite(wanted)
        assert torch.equal(ours[name].double()[~finite], wanted[~finite]), f"{name}: {ours[name]}, {wanted}"
        parts = [finite]
        if name == "grad_query" and briefs:
            brief = torch.zeros_like(finite)
            brief[list(briefs)] = True
            most = PART_OF_LARGEST * torch.finfo(dtype).max
            wanted = wanted.clamp(-most, most)
            parts = [~brief, brief]
        for part in parts:
            if not part.any():
                continue
            off, off_plain = ((found[name].double() - wanted)[part].abs().max() for found in (ours, plain))
            assert torch.isfinite(off), name
            # Plain torch's gradient in the scale is of the inputs' type: one number, which may be right by luck.
            rounded = case.query.dtype if name == "grad_scale" else dtype
            floor = torch.finfo(rounded).eps * wanted[part].abs().max() + FLOAT32 * magnitude(name, case)
            allowed = 2 * off_plain.nan_to_num(nan=math.inf) + floor
            assert off <= allowed, f"{name}: off by {off:.2e}, plain torch by {off_plain:.2e}, allowed {allowed:.2e}"
    return ours


FLOAT32 = torch.finfo(torch.float32).eps


def magnitude(name: str, case: Case) -> float:
    """What the roundings of a float32 are in proportion to where large terms leave a small result, about.

    Sums are taken relative to the largest logit that there can be. From the gradient in a row its part along the row is taken
    away; that in the scale is a sum of terms of either sign.
    """
    gradients = [gradient.abs() for gradient in case.gradients() if gradient is not None]
    key = case.query if case.key is None else case.key
    key_normalized = case.normalize_query if case.key is None else case.normalize_key
    lengths = [torch.linalg.vector_norm(rows.double(), dim=1) for rows in (case.query, key)]
    largest = math.prod(
        1.0 if normalized else float(length.max())
        for length, normalized in zip(lengths, (case.normalize_query, key_normalized), strict=True)
    )
    if name == "grad_scale":
        return largest * float(sum(gradient.sum() for gradient in gradients))
    logit = float(case.scale.abs()) * largest
    if name not in ("grad_query", "grad_key"):
        return logit
    own = lengths[name == "grad_key"]
    return logit * float(sum(gradient.max() for gradient in gradients)) / float(own[own > 0].min())


# --- every size -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 2, 16, 17, 127, 128, 129, 255, 256, 257, 512, 700, 1030])
def test_every_dimension(d, dtype, device):
    images = 67 if d < 500 else 65  # two tiles of rows, of which the second is mostly empty
    compare(views(images, d, dtype, 0.1), device)


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n, m", [(1, 1), (1, 300), (2, 2), (127, 129), (128, 128), (130, 400), (260, 261)])
def test_every_number_of_queries_and_keys(n, m, dtype, device):
    compare(pairs(n, m, 24, dtype, 0.2), device, multiprocessors=1 + n % 3)


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n", [2, 3, 64, 128, 129, 385, 640])
def test_every_number_of_rows(n, dtype, device):
    """Rings of one to five tiles, cut into parts or not."""
    for multiprocessors in (1, 8):
        compare(make(n, None, 20, dtype, 0.3, query_ids=torch.arange(n)), device, multiprocessors=multiprocessors)


# --- every logit ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature", [0.01, 0.02, 0.024, 0.05, 0.5, 1.0])
def test_every_temperature(temperature, dtype, device):
    """Below 0.0235 each sum has a shift of its own."""
    compare(views(70, 40, dtype, temperature), device)
    compare(pairs(70, 140, 40, dtype, temperature), device)


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("scale", [0.0, -3.0, -60.0])
def test_scales_that_are_no_temperature(scale, device):
    case = replace(pairs(40, 50, 8, torch.float32, 1.0), scale=torch.tensor(scale))
    compare(case, device)


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature", [0.07, 0.01])
def test_ids_of_any_order(temperature, dtype, device):
    """Classes at random, keys in another order, pairs left out anywhere; a query without a key has the sum of nothing."""
    draw = torch.Generator().manual_seed(5)
    query_ids = torch.randint(-3, 3, (150,), generator=draw) * 2**40
    key_ids = torch.randint(-3, 3, (140,), generator=draw) * 2**40
    case = make(150, 140, 30, dtype, temperature, query_ids=query_ids, key_ids=key_ids, columns=True)
    compare(case, device)
    compare(make(150, None, 30, dtype, temperature, query_ids=query_ids), device)
    nothing = replace(case, query_ids=torch.where(torch.arange(150) < 140, 7, 8), key_ids=torch.full((140,), 8))
    found = compare(nothing, device)
    assert torch.isneginf(found["rows"][140:]).all()
    assert torch.equal(found["grad_query"][140:], torch.zeros(10, 30, dtype=dtype))


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("shift", [0, 1, 127, 128, 199, 250, 299])
def test_positives_anywhere(shift, device):
    compare(make(210, 300, 16, torch.float32, 0.2, positive=shift, columns=True), device)
    compare(make(300, None, 16, torch.float32, 0.2, positive=shift), device)


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_are_not_normalized(dtype, device):
    """As those of a bank; of any length."""
    for query, key in ((True, False), (False, True), (False, False)):
        case = make(70, 150, 32, dtype, 2.0, normalize_query=query, normalize_key=key, positive=3, columns=True)
        compare(case, device)
    long = make(40, 60, 16, dtype, 1.0, normalize_key=False)
    compare(replace(long, key=long.key * 128, scale=torch.tensor(0.01)), device)
    compare(make(140, None, 16, dtype, 3.0, normalize_query=False), device)


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature, length", [(0.07, 1.0), (0.02, 1.0), (0.07, 3.0), (1.0, 2e-4)])
def test_banks(temperature, length, dtype, device):
    """Sums over rows alone, of which the device finds out how large the logits may be: up to 42.5 the shift is constant."""
    case = make(70, 150, 40, dtype, temperature, normalize_key=False)
    case.key = (length * reference.unit_rows(case.key.float())).to(dtype)
    case.key[3] *= 0.1
    compare(case, device)


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("dtype, other", list(itertools.permutations(DTYPES, 2)))
@pytest.mark.parametrize("d", [24, 140])
def test_keys_of_another_type_keep_their_precision(d, dtype, other, device):
    """Each gradient is of its side's type; a product is as exact as the queries' type lets it be."""
    case = make(140, 150, d, dtype, 0.2, positive=3, columns=True, normalize_key=False)
    case.key = reference.unit_rows(case.key.float()).to(other)
    exact = reference.with_gradients(case.to(torch.float64))
    with kernels():
        ours = {name: result.cpu() for name, result in run(to_device(case, device)).items()}
    assert ours["grad_query"].dtype == dtype and ours["grad_key"].dtype == other
    of_product = torch.finfo(torch.float32 if dtype == torch.float32 else torch.float16).eps
    for name, wanted in exact.items():
        largest = wanted.abs().max() if name != "grad_scale" else magnitude(name, case)
        rounded = torch.finfo(ours[name].dtype).eps * wanted.abs().max()
        off = (ours[name].double() - wanted).abs().max()
        assert off <= 5 * of_product * largest + rounded, f"{name}: off by {off:.2e}"


# --- hard rows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_duplicates_and_rows_of_zeros(dtype, device):
    case = views(66, 24, dtype, 0.1)
    case.query[3] = case.query[80] = 0
    case.query[10] = case.query[11] = case.query[120] = case.query[76]
    for scale in (10.0, 100.0):
        found = compare(replace(case, scale=torch.tensor(scale)), device, briefs=(3, 80))
        assert torch.isfinite(found["grad_query"]).all()


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_lengths_at_the_ends_of_the_type(dtype, device):
    """A row's length changes nothing but its gradient, which is one over it."""
    case = views(40, 12, torch.float32, 0.2)
    lengths = torch.ones(80, 1)
    far = 2.0**90 if dtype != torch.float16 else 2.0**10
    lengths[::3], lengths[1::3] = far, 1 / min(far, 2.0**30)
    case.query = reference.unit_rows(case.query).to(dtype)
    with kernels():
        one = run(to_device(case, device))
        scaled = run(to_device(replace(case, query=(case.query.float() * lengths).to(dtype)), device))
    exactly = dtype != torch.float16  # whose smallest numbers have fewer bits
    for name in ("rows", "positives", "grad_scale"):
        if exactly:
            assert torch.equal(bits(one[name]), bits(scaled[name])), name
        else:
            torch.testing.assert_close(one[name], scaled[name], rtol=1e-2, atol=1e-2)
    if exactly:
        back = scaled["grad_query"].cpu().double() * lengths
        torch.testing.assert_close(back, one["grad_query"].cpu().double(), rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("times", [1e-30, 1.0, 1e30])
def test_gradients_of_any_size(times, device):
    """As a scaled loss has them. What comes back is in proportion."""
    case = pairs(50, 60, 20, torch.float32, 0.1)
    with kernels():
        one = run(to_device(case, device))
        gradients = {name: getattr(case, name) * times for name in ("grad_rows", "grad_positives", "grad_columns")}
        other = run(to_device(replace(case, **gradients), device))
    for name in ("grad_query", "grad_key", "grad_scale"):
        torch.testing.assert_close(other[name].double() / times, one[name].double(), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_query_that_is_no_number_leaves_the_others_what_they_are(device, dtype):
    """Also where rows keep their length, on which scale and shift of all depend."""
    query = 30 * seeded(300, 24, dtype=dtype)
    case = Case(
        query.to(device), 30 * seeded(70, 24, dtype=dtype, seed=1).to(device), torch.tensor(0.05, device=device)
    )
    case = replace(case, normalize_query=False, normalize_key=False)
    with kernels():
        want = _cuda.forward(*case.arguments())[0]
        case.query[[3, 290]] = math.nan
        got = _cuda.forward(*case.arguments())[0]
    others = torch.arange(300, device=device)[[i not in (3, 290) for i in range(300)]]
    assert torch.isnan(got[[3, 290]]).all() and torch.isfinite(want).all()
    torch.testing.assert_close(got[others], want[others], rtol=1e-5, atol=0)


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number_is_not_hidden(dtype, bad, device):
    case = views(40, 12, dtype, 0.2)
    case.query[5, 3] = bad
    with kernels():
        found = run(to_device(case, device))
    others = torch.arange(80) != 45  # its other view, which leaves it out
    assert torch.isnan(found["rows"].cpu()[others]).all()
    assert torch.isnan(found["positives"].cpu()[[5, 45]]).all()
    assert torch.isnan(found["grad_query"]).all()


# --- what is asked for ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_gradients_that_are_not_needed(dtype, device):
    """Others are the same without them, and that in the scale agrees whatever it is computed from."""
    case = to_device(pairs(140, 150, 20, dtype, 0.2), device)
    with kernels():
        both = run(case)
        for query, key in itertools.product((False, True), repeat=2):
            some = run(case, query, key)
            assert ("grad_query" in some, "grad_key" in some) == (query, key)
            for name in some.keys() & {"grad_query", "grad_key"}:
                assert torch.equal(bits(some[name]), bits(both[name]))
            torch.testing.assert_close(some["grad_scale"], both["grad_scale"], rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("device", HERE)
def test_no_gradient_is_zeros(device):
    case = pairs(30, 40, 20, torch.float32, 0.2)
    for name in ("grad_rows", "grad_positives", "grad_columns"):
        given = {other: None for other in ("grad_rows", "grad_positives", "grad_columns") if other != name}
        compare(replace(case, **given), device)
    none = replace(case, grad_rows=None, grad_positives=None, grad_columns=None)
    with kernels():
        found = run(to_device(none, device))
    assert not any(found[name].any() for name in ("grad_query", "grad_key", "grad_scale"))


@pytest.mark.parametrize("device", HERE)
def test_a_number_is_a_scale(device):
    case = to_device(views(20, 8, torch.float32, 0.25), device)
    with kernels():
        assert torch.equal(run(case)["rows"], run(replace(case, scale=4.0))["rows"])


@pytest.mark.parametrize("device", HERE)
def test_columns_of_queries_alone_are_their_rows(device):
    case = to_device(views(20, 8, torch.float32, 0.25), device)
    with kernels():
        one = run(case)
        other = run(replace(case, columns=True, grad_rows=None, grad_columns=case.grad_rows))
    assert torch.equal(other["columns"], one["rows"])
    assert torch.equal(other["grad_query"], one["grad_query"])


@pytest.mark.parametrize("device", HERE)
def test_rows_with_gaps_between_them(device):
    case = pairs(50, 60, 20, torch.float16, 0.1)
    wide = torch.full((50, 33), math.nan, dtype=torch.float16)
    wide[:, 5:25] = case.query
    with kernels():
        packed = run(to_device(case, device))
        apart = run(
            replace(
                to_device(case, device), query=wide.to(device)[:, 5:25], key=case.key.to(device).t().contiguous().t()
            )
        )
    for name, wanted in packed.items():
        assert torch.equal(bits(apart[name]), bits(wanted)), name


def test_what_the_kernels_do_not_take():
    row = torch.zeros(3, 4)
    assert not _cuda.usable(row, None)  # on the CPU, unless emulated
    with kernels():
        assert _cuda.usable(row, row.clone())
        assert not _cuda.usable(row.double(), None)
        assert not _cuda.usable(row, row.double())
        assert not _cuda.usable(torch.zeros(3, 4097), None)
        assert not _cuda.usable(torch.zeros(3, 0), None)
        with pytest.raises(ValueError, match="query_ids without key_ids"):
            _cuda.forward(row, row, 1.0, torch.arange(3), None, None, False, True, True)


# --- the machine ------------------------------------------------------------------------------------------------------


@pytest.mark.emulator
@pytest.mark.parametrize(
    "dtype, d", [(torch.float16, 20), (torch.float16, 128), (torch.float16, 140), (torch.float32, 40)]
)
@pytest.mark.parametrize("temperature", [0.1, 0.01])
def test_every_order_of_threads_gives_the_same_bits(temperature, dtype, d):
    cases = views(100, d, dtype, temperature), pairs(100, 150, d, dtype, temperature)
    for case in cases:
        with kernels():
            wanted = run(case)
        for order in ("backward", "shuffled"):
            with kernels(order=order):
                found = run(case)
            for name, result in wanted.items():
                assert torch.equal(bits(found[name]), bits(result)), f"{name}, {order}"


@pytest.mark.emulator
@pytest.mark.parametrize("multiprocessors, shared_bytes", [(1, BIG), (7, 100 * 1024), (132, 164 * 1024)])
def test_every_size_of_gpu(multiprocessors, shared_bytes):
    """Which cuts the work otherwise, and has room in shared memory or not."""
    for dtype, d in ((torch.float32, 100), (torch.float16, 200), (torch.float16, 60)):
        for case in (views(200, d, dtype, 0.1), pairs(140, 150, d, dtype, 0.01)):
            compare(case, "cpu", multiprocessors=multiprocessors, shared_bytes=shared_bytes)


def rows_for_steps(device: str) -> int:
    """Rows to add on a GPU so that blocks of the fused gradient have several steps each, and sums go to memory on the way.

    With S the blocks that the GPU takes at once, each of R rows of tiles has 4 S / R of them at most (best_share in
    csrc/cuda/contrastive_plan.cpp). A row's steps are more: a tile is one step at least where S is the number of
    multiprocessors, and two where S is twice that.
    """
    if device == "cpu":  # whose three multiprocessors have several anyway
        return 0
    return 128 * (1 + math.isqrt(4 * torch.cuda.get_device_properties(device).multi_processor_count))


def height(case: Case) -> int:
    """Tiles of a strip, whose sums over columns are added up in memory."""
    job, kept = _cuda._job(*case.arguments())
    plan = _C.ForwardPlan(job, _cuda.grid_of(case.query.device))
    del kept
    return plan.height


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("most_slots, panel_tiles", [(1, 1), (1, 2), (2, 1)])
def test_matrices_that_are_cut_like_large_ones(most_slots, panel_tiles, device):
    """Strips of several tiles, several panels, sums that go to memory on the way."""
    cuts = {"most_slots": most_slots, "panel_tiles": panel_tiles, "steps": 1}
    for dtype, d in ((torch.float32, 20), (torch.float16, 140), (torch.float16, 20)):
        add = rows_for_steps(device) if dtype == torch.float16 and d == 20 else 0  # of panels there are several anyway
        compare(views(230 + add // 2, d, dtype, 0.1), device, **cuts)
        case = pairs(260 + add, 390 + add, d, dtype, 0.1)
        compare(case, device, **cuts)
        with kernels(**cuts):
            assert height(to_device(case, device)) > 1


# --- the wide kernels -------------------------------------------------------------------------------------------------

HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)
WIDE = [
    *HERE[:-1],  # the last one is "cuda"
    pytest.param("cuda", marks=pytest.mark.skipif(not HOPPER, reason="wgmma is of H100 and H200")),
]


def wide_plans(case: Case) -> tuple[bool, bool]:
    """Whether the plans of both passes are wide."""
    job, kept = _cuda._job(*case.arguments())
    grid = _cuda.grid_of(case.query.device)
    plans = _C.ForwardPlan(job, grid), _C.BackwardPlan(job, grid, True, True)
    del kept
    return plans[0].wide, plans[1].wide


@pytest.mark.wgmma
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [64, 65, 128, 129, 192, 193, 256, 257])
def test_who_takes_the_wide_kernels(d, dtype):
    case = views(2, d, dtype, 0.1)
    with kernels():
        assert wide_plans(case) == (False, False)
    with kernels(wide=True):
        wide = dtype != torch.float32 and d in (65, 128, 193, 256)
        assert wide_plans(case) == (wide, wide)


@pytest.mark.wgmma
@pytest.mark.parametrize("device", WIDE)
@pytest.mark.parametrize(
    "n, m, d", [(1, 1, 65), (2, None, 128), (127, 129, 100), (128, None, 256), (129, 300, 128), (300, None, 193)]
)
@pytest.mark.parametrize("temperature", [0.1, 0.01])
def test_wide_kernels_of_every_size(temperature, n, m, d, device):
    """With a shift that is constant, and with one of each sum."""
    dtype = torch.bfloat16 if d % 2 else torch.float16
    if m is None:
        case = make(n, None, d, dtype, temperature, query_ids=torch.arange(n), positive=n // 2)
    else:
        case = pairs(n, m, d, dtype, temperature)
    compare(case, device, wide=True)


@pytest.mark.wgmma
@pytest.mark.parametrize("device", WIDE)
@pytest.mark.parametrize("d", [80, 300])
@pytest.mark.parametrize("temperature", [0.07, 0.01])
def test_wide_kernels_with_ids_of_any_order(temperature, d, device):
    draw = torch.Generator().manual_seed(6)
    query_ids = torch.randint(-3, 3, (150,), generator=draw) * 2**40
    key_ids = torch.randint(-3, 3, (140,), generator=draw) * 2**40
    case = make(150, 140, d, torch.float16, temperature, query_ids=query_ids, key_ids=key_ids, columns=True)
    compare(case, device, wide=True)
    compare(make(150, None, d, torch.float16, temperature, query_ids=query_ids), device, wide=True)


@pytest.mark.wgmma
@pytest.mark.parametrize("device", WIDE)
@pytest.mark.parametrize("d", [72, 300])
def test_wide_kernels_with_rows_that_are_not_normalized(d, device):
    for query, key in ((True, False), (False, False)):
        case = make(70, 150, d, torch.float16, 2.0, normalize_query=query, normalize_key=key, positive=3, columns=True)
        compare(case, device, wide=True)


@pytest.mark.wgmma
@pytest.mark.parametrize("device", WIDE)
@pytest.mark.parametrize("cuts", [{"most_slots": 1, "steps": 1}, {"most_slots": 2, "steps": 2, "multiprocessors": 20}])
def test_wide_kernels_of_matrices_that_are_cut_like_large_ones(cuts, device):
    """Strips of several tiles, each with its own queries; sums that go to memory on the way."""
    add = rows_for_steps(device)
    compare(views(200 + add // 2, 128, torch.float16, 0.1), device, wide=True, **cuts)
    compare(views(140 + add // 2, 200, torch.float16, 0.1), device, wide=True, **cuts)
    case = pairs(260 + add, 390 + add, 128, torch.bfloat16, 0.1)
    compare(case, device, wide=True, **cuts)
    with kernels(wide=True, **cuts):
        assert height(to_device(case, device)) > 1


@pytest.mark.wgmma
@pytest.mark.parametrize("device", WIDE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("d, cuts", [(129, {}), (300, {"panel_tiles": 1}), (520, {"panel_tiles": 2})])
def test_panels_by_wgmma(d, cuts, dtype, device):
    """Of one panel and of several, on the diagonal and beside it, for queries and keys."""
    for case in (views(160, d, dtype, 0.1), pairs(140, 300, d, dtype, 0.1), views(67, d, dtype, 0.01)):
        there = to_device(case, device)
        with kernels(wide=True, **cuts):
            job, kept = _cuda._job(*there.arguments())
            plan = _C.BackwardPlan(job, _cuda.grid_of(there.query.device), True, True)
            assert plan.wide_panels and not plan.fused
            del kept
        compare(case, device, wide=True, **cuts)


@pytest.mark.emulator
@pytest.mark.parametrize("d", [128, 256, 300])
@pytest.mark.parametrize("temperature", [0.1, 0.01])
def test_wide_kernels_give_the_same_bits_in_every_order_of_threads(temperature, d):
    cases = views(150, d, torch.float16, temperature), pairs(100, 300, d, torch.float16, temperature)
    for case in cases:
        with kernels(wide=True):
            wanted = run(case)
        for order in ("backward", "shuffled"):
            with kernels(order=order, wide=True):
                found = run(case)
            for name, result in wanted.items():
                assert torch.equal(bits(found[name]), bits(result)), f"{name}, {order}"


@pytest.mark.wgmma
def test_wide_kernels_are_taken_where_there_are_any(monkeypatch):
    """And of the environment's wish, which is for comparisons."""

    def of(index: int, wide: bool) -> tuple[int, bool]:
        if wide and index == 4:
            raise RuntimeError("no wgmma")
        return index, wide

    monkeypatch.setattr(_C, "GridSize", type("GridSize", (), {"of": staticmethod(of)}))
    for value, index, wide in ((None, 3, True), (None, 4, False), ("0", 3, False), ("1", 3, True)):
        _cuda._gpu_grid.cache_clear()
        monkeypatch.delenv("FASTSSL_WGMMA", raising=False)
        if value is not None:
            monkeypatch.setenv("FASTSSL_WGMMA", value)
        assert _cuda._gpu_grid(index) == (index, wide)
    _cuda._gpu_grid.cache_clear()
    monkeypatch.setenv("FASTSSL_WGMMA", "yes")
    with pytest.raises(ValueError, match="FASTSSL_WGMMA='yes' must be 0 or 1"):
        _cuda._gpu_grid(0)


@pytest.mark.wgmma
@pytest.mark.skipif(HOPPER, reason="an H100 or H200 has them")
def test_where_there_are_no_wide_kernels_the_error_says_so(monkeypatch):
    _cuda._gpu_grid.cache_clear()
    monkeypatch.setenv("FASTSSL_WGMMA", "1")
    with pytest.raises(RuntimeError, match=r"fastssl, cuda:0: .*Unset FASTSSL_WGMMA"):
        _cuda._gpu_grid(0)


# --- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="repeated launches race on a GPU alone")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [64, 128, 256, 1030])
def test_the_same_bits_every_time(d, dtype):
    case = to_device(views(2000, d, dtype, 0.1), "cuda")
    wanted = run(case)
    for _ in range(5):
        for name, found in run(case).items():
            assert torch.equal(bits(found), bits(wanted[name])), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="graphs are of a GPU")
def test_a_cuda_graph_holds_it():
    """And reads the scale, and everything else, anew at each replay."""
    case, other = (to_device(views(300, 128, torch.bfloat16, t, seed=s), "cuda") for s, t in ((0, 0.1), (9, 0.5)))
    static = replace(case, query=case.query.clone(), scale=case.scale.clone())
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        run(static)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(static)
    for inputs in (case, other):
        static.query.copy_(inputs.query)
        static.scale.copy_(inputs.scale)
        graph.replay()
        for name, wanted in run(replace(inputs, grad_rows=case.grad_rows, grad_positives=case.grad_positives)).items():
            assert torch.equal(bits(captured[name]), bits(wanted)), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="too large to emulate")
@pytest.mark.parametrize("dtype, d", [(torch.bfloat16, 128), (torch.float32, 128), (torch.float16, 512)])
def test_many_rows(dtype, d):
    """Sums, and gradients of some rows in all tiles' parts, against the definition, in float64 on the GPU."""
    case = to_device(alike(20_000, d, dtype), "cuda")
    compare_some(case, run(case))


def alike(images: int, d: int, dtype: torch.dtype) -> Case:
    """Views whose rows have a direction in common, and gradients of one sign: what a tile adds is not lost among signs."""
    case = views(images, d, dtype, 0.1)
    # Times so much, as a GradScaler has it: 1 / images of a gradient is no normal float16.
    rows, positives = 4096 * case.grad_rows.abs(), 4096 * case.grad_positives
    return replace(case, query=case.query + seeded(d, dtype=dtype, seed=9), grad_rows=rows, grad_positives=positives)


def test_some_rows_of_a_few():
    """The comparison of many rows, where the whole of them can be made; it sees a tile that is left out."""
    for dtype in DTYPES:
        case = alike(150, 20, dtype)
        with kernels():
            found = run(case)
        compare_some(case, found, 3e-4)
        short = run_without_a_tile(case)
        for name in ("rows", "grad_query"):
            with pytest.raises(AssertionError, match=name):
                compare_some(case, {**found, name: short[name]}, 3e-4)


def run_without_a_tile(case: Case) -> dict[str, Tensor]:
    """The results of all but the last 44 rows, which a tile of its own holds; as many as those of all."""
    count = 256
    part = {name: getattr(case, name)[:count] for name in ("query", "query_ids", "grad_rows", "grad_positives")}
    with kernels():
        found = run(replace(case, **part))
    missing = len(case.query) - count
    return {name: torch.cat([found[name], found[name][:missing]]) for name in ("rows", "grad_query")}


def compare_some(case: Case, found: dict[str, Tensor], near: float = 1e-4) -> None:
    """Rows of a symmetric case here and there, and the gradients in them, by the definition in float64.

    Of 16 bits, sums may be off by `near`, relative: of many keys the roundings cancel.
    """
    count, scale = len(case.query), float(case.scale)
    unit, ids = reference.unit_rows(case.query.double()), case.query_ids
    grads, pulls = case.grad_rows.double(), case.grad_positives.double()
    close = torch.testing.assert_close
    for begin in range(0, count, max(1, count // 5 + 7)):
        rows = torch.arange(begin, min(begin + 500, count), device=unit.device)
        logits = (unit[rows] @ unit.T * scale).masked_fill_(ids[rows, None] == ids, -math.inf)
        wanted = torch.logsumexp(logits, dim=1)
        rtol = 1e-6 if case.query.dtype == torch.float32 else near
        close(found["rows"][rows].double(), wanted, rtol=rtol, atol=0, msg=lambda text: f"rows: {text}")
        # Row i takes part in its own sum and in those of the others.
        weights = (logits - wanted[:, None]).exp_().mul_(grads[rows, None])
        weights += (logits - found["rows"].double()).exp_().mul_(grads)
        to_unit = weights @ unit
        for shift, pull in ((case.positive, pulls[rows]), (-case.positive, pulls[(rows - case.positive) % count])):
            to_unit += pull[:, None] * unit[(rows + shift) % count]
        own, length = unit[rows], case.query[rows].double().norm(dim=1, keepdim=True)
        wanted = scale * (to_unit - (to_unit * own).sum(dim=1, keepdim=True) * own) / length
        largest = float(wanted.abs().max())
        atol = (1e-5 if case.query.dtype == torch.float32 else 1e-2) * largest
        ours = found["grad_query"][rows].double()
        close(ours, wanted, rtol=0, atol=atol, msg=lambda text: f"grad_query: {text}")
        # Of their mean roundings cancel, but not what a tile of 128 of 40,000 keys leaves out, 0.3 %.
        atol = 1e-3 * float(wanted.mean(dim=0).abs().max())
        close(ours.mean(dim=0), wanted.mean(dim=0), rtol=0, atol=atol, msg=lambda text: f"grad_query, mean: {text}")
