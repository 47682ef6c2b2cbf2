"""Small contrastive sums and their gradients on the GPU, for gpu_small.py: every kernel, beside torch in float64 on the CPU."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch

from fastssl._native import _C
from fastssl.loss import _cuda, _tiles

# Rows, dimensions: off every tile; of the fused gradient and of the one by panels.
SIZES = ((70, 33, 24), (140, 130, 128), (40, 30, 150))
TYPES = (torch.float32, torch.float16, torch.bfloat16)
# With these cuts, what large matrices alone have: a ring of strips of several tiles, sums over columns and over steps that are
# added to what is in memory, several panels.
CUTS = {"most_slots": 2, "panel_tiles": 2, "steps": 2}
CUT_SIZES = ((700, 650, 24, torch.float16), (700, 390, 140, torch.bfloat16), (520, 390, 20, torch.float32))
SCALES = (10.0, 80.0)  # with a constant shift, and with a running maximum
# Largest difference of a gradient, relative to the largest gradient: two roundings of the type that the inputs have, and
# for 16 bits those of the float16 operands and weights. Tests hold the exact bounds; here an error is memory gone wrong.
NEAR = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 3e-2}


@contextlib.contextmanager
def grid(device: torch.device, cuts: dict[str, int]) -> Iterator[None]:
    """The kernels take the device to be so; on the CPU they run emulated."""
    size = _C.GridSize(multiprocessors=4, shared_bytes=100 * 1024) if device.type == "cpu" else _cuda.grid_of(device)
    with mock.patch.object(_cuda, "grid_of", lambda device: size.cut(**cuts) if cuts else size):
        yield


def cases() -> Iterator[tuple[str, tuple[Any, ...], dict[str, int]]]:
    """Arguments of `forward`, on the CPU, and cuts."""
    draw = torch.Generator().manual_seed(0)
    for n, m, d, dtype in CUT_SIZES:
        query, key = (torch.randn(rows, d, generator=draw).to(dtype) for rows in (n, m))
        ids, other_ids = (torch.arange(rows) % (n // 2) for rows in (n, m))
        name = f"{n} x {m} x {d}, {dtype}, cut like a large matrix"
        yield f"symmetric, {name}", (query, None, torch.tensor(10.0), ids, None, n // 2, False, True, True), CUTS
        yield f"rectangular, {name}", (key, query, torch.tensor(10.0), other_ids, ids, 0, True, True, True), CUTS
    for (n, m, d), dtype, scale in itertools.product(SIZES, TYPES, SCALES):
        query, key = (torch.randn(rows, d, generator=draw).to(dtype) for rows in (n, max(n, m)))
        ids, other_ids = (torch.arange(rows) % 17 for rows in (n, max(n, m)))
        factor = torch.tensor(scale)
        name = f"{n} x {m} x {d}, {dtype}, scale {scale}"
        yield f"symmetric, {name}", (query, None, factor, ids, None, 3, False, True, True), {}
        yield f"rectangular, {name}", (query, key, factor, ids, other_ids, 0, True, True, True), {}
        yield f"rows of any length, {name}", (query, key, factor / 30, None, None, None, False, True, False), {}


def wrong_losses(device: torch.device) -> list[str]:
    """What differs from float64, by name."""
    wrong, done = [], 0
    for name, arguments, cuts in cases():
        there = [a.to(device) if isinstance(a, torch.Tensor) else a for a in arguments]
        with grid(there[0].device, cuts):
            exact = [a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in arguments]
            of_kernels, of_tiles = _cuda.forward(*there), _tiles.forward(*exact)
            grads = [torch.full_like(sums, 1 / max(1, len(sums))) for sums in of_tiles]
            there_grads = [grad.float().to(device) for grad in grads]
            has_key = arguments[1] is not None
            results = (
                *zip(of_kernels, of_tiles, strict=True),
                *zip(
                    _cuda.backward(*there, of_kernels[0], of_kernels[2], *there_grads, True, has_key),
                    _tiles.backward(*exact, of_tiles[0], of_tiles[2], *grads, True, has_key),
                    strict=True,
                ),
            )
            done += 1
            for number, (got, wanted) in enumerate(results):
                if got is None or not wanted.numel():
                    continue
                apart = (got.cpu().double() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30)
                if not apart <= NEAR[arguments[0].dtype]:
                    wrong.append(f"contrastive sums, {name}, result {number}: {float(apart):.1e} apart")
    print(f"{done} contrastive sums and gradients on {device}; {len(wrong)} differ from float64")
    return wrong
