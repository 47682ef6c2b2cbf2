"""Micro-benchmarks: what one step of the data path, of the masks, of the losses and of a memory bank costs on one thread.

    pytest benchmarks/test_micro.py --benchmark-compare      beside the last saved run (--benchmark-autosave)

The photographs are those of inputs.py, 16 of them, decoded beforehand where decoding is not what is measured. A group's
`extra_info` says how many images or rows one call gets through.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import inputs
import pytest
import torch
from torch import Tensor

import fastssl
from fastssl import ops
from fastssl._native import _C
from fastssl.loss import co2, dcl, info_nce, ntxent
from fastssl.models.modules import MemoryBankModule, nearest_neighbours
from fastssl.ops.render import encode_recipe, native_views
from fastssl.transforms.plan import Plan

IMAGES = 16


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads(), fastssl.get_num_threads()
    torch.set_num_threads(1)
    fastssl.set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    fastssl.set_num_threads(before[1])


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return inputs.find_jpegs(None, IMAGES, tmp_path_factory.mktemp("generated"))[0]


@pytest.fixture(scope="module")
def images(paths: list[Path]) -> list[Tensor]:
    return [ops.decode(path) for path in paths]


def sizes(images: list[Tensor]) -> list[tuple[int, int]]:
    return [(image.shape[0], image.shape[1]) for image in images]


@pytest.mark.benchmark(group="decode")
def test_decode(benchmark, paths):
    jpegs = [path.read_bytes() for path in paths]
    decoded = benchmark(lambda: [ops.decode(jpeg) for jpeg in jpegs])
    benchmark.extra_info["images"] = len(decoded)
    assert all(image.dtype == torch.uint8 and image.shape[2] == 3 for image in decoded)


@pytest.fixture(scope="module")
def many_sizes() -> list[tuple[int, int]]:
    return [(300 + 37 * i % 200, 350 + 53 * i % 200) for i in range(256)]


@pytest.mark.benchmark(group="draw")
@pytest.mark.parametrize("form", ["tuples", "tensor"])
def test_draw(benchmark, many_sizes, form):
    recipe = fastssl.recipes.simclr(224)
    epoch = itertools.count()  # or the processor learns which coins fall how
    given = torch.tensor(many_sizes) if form == "tensor" else many_sizes
    plan = benchmark(lambda: Plan.draw(recipe, given, seed=0, epoch=next(epoch)))
    benchmark.extra_info["images"] = len(many_sizes)
    assert len(plan) == len(many_sizes)


@pytest.mark.benchmark(group="draw")
def test_draw_and_compile(benchmark, many_sizes):
    """What the host does before a launch of all these views on a GPU."""
    recipe = fastssl.recipes.simclr(224)
    views = native_views(encode_recipe(recipe))
    epoch = itertools.count()

    def step() -> int:
        plan = Plan.draw(recipe, many_sizes, seed=0, epoch=next(epoch))
        return _C.compile(views, len(plan), plan.data.data_ptr(), 3)

    operations = benchmark(step)
    benchmark.extra_info["images"] = len(many_sizes)
    assert 3.5 < operations / (2 * len(many_sizes)) < 4.5  # 0.8 x 4 of jitter, 0.2 grayscale, almost 0.5 blurred


@pytest.mark.benchmark(group="render")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("size", [32, 224])
def test_render_simclr(benchmark, images, size, dtype):
    recipe = fastssl.recipes.simclr(size)
    plan = Plan.draw(recipe, sizes(images), seed=0)
    views = benchmark(lambda: ops.render(images, plan, recipe, dtype=dtype))
    benchmark.extra_info["images"] = len(images)
    assert [tuple(view.shape) for view in views] == [(len(images), 3, size, size)] * 2


@pytest.mark.benchmark(group="render small")
def test_render_simclr_of_small_images(benchmark):
    images = list(
        torch.randint(0, 256, (256, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    )
    recipe = fastssl.recipes.simclr(32, strength=0.5, blur=False)
    plan = Plan.draw(recipe, sizes(images), seed=0)
    views = benchmark(lambda: ops.render(images, plan, recipe))
    benchmark.extra_info["images"] = len(images)
    assert [tuple(view.shape) for view in views] == [(256, 3, 32, 32)] * 2


@pytest.mark.benchmark(group="loader")
@pytest.mark.parametrize("size", [32, 224])
def test_loader_epoch(benchmark, paths, tmp_path, size):
    for i, path in enumerate(paths * 4):
        (tmp_path / f"{i:03d}.jpg").symlink_to(path.resolve())
    loader = fastssl.Loader(tmp_path, fastssl.recipes.simclr(size), batch_size=16, threads=1)
    count = benchmark(lambda: sum(len(batch.targets) for batch in loader))
    benchmark.extra_info["images"] = count
    assert count == 4 * len(paths)


# name: arguments for 256 images of 14 x 14 patches (16 x 16 where squares of 4 must fit) with a class token
MASKS: dict[str, tuple[Any, ...]] = {
    "random_token_mask": ((256, 197), 0.75),
    "random_grid_token_mask": ((256, 257),),
    "random_prefix_mask": ((256, 196), 195),
    "random_inverse_block_mask": ((256, 197),),
    "random_block_mask": ((256, 14, 14),),
}


def first(masks: Tensor | tuple[Tensor, ...]) -> Tensor:
    return masks if isinstance(masks, Tensor) else masks[0]


@pytest.mark.parametrize("library", ["fastssl", "lightly"])
@pytest.mark.parametrize("name", MASKS)
def test_masks(benchmark, name, library):
    benchmark.group = name
    maker = getattr(pytest.importorskip(f"{library}.models.utils"), name)
    masks = first(benchmark(lambda: maker(*MASKS[name])))
    benchmark.extra_info["images"] = 256
    assert masks.shape == first(getattr(fastssl.models.utils, name)(*MASKS[name])).shape


@pytest.mark.benchmark(group="IJEPAMaskCollator")
@pytest.mark.parametrize("library", ["fastssl", "lightly"])
def test_masks_of_ijepa(benchmark, library):
    collator = pytest.importorskip(f"{library}.data").IJEPAMaskCollator
    collate = collator(enc_mask_scale=(0.85, 1.0), pred_mask_scale=(0.15, 0.2), aspect_ratio=(0.75, 1.5), npred=4)
    batch = [torch.zeros(1)] * 256
    _, seen, predicted = benchmark(lambda: collate(batch))
    benchmark.extra_info["images"] = len(batch)
    assert len(seen) == 1 and len(predicted) == 4 and all(len(rows) == 256 for rows in seen + predicted)


@pytest.mark.benchmark(group="loss")
@pytest.mark.parametrize("rows", [512, 2048])
def test_ntxent_forward_and_backward(benchmark, rows):
    z = torch.randn(rows, 128, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def step() -> Tensor:
        z.grad = None
        loss = ntxent(z, temperature=0.5)
        loss.backward()
        return loss

    loss = benchmark(step)
    benchmark.extra_info["rows"] = rows
    assert loss.isfinite() and z.grad.isfinite().all()


@pytest.mark.benchmark(group="loss")
def test_dcl_forward_and_backward(benchmark):
    z = torch.randn(2048, 128, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (grad,) = benchmark(lambda: torch.autograd.grad(dcl(z), z))
    benchmark.extra_info["rows"] = len(z)
    assert grad.isfinite().all()


@pytest.fixture(scope="module")
def bank() -> MemoryBankModule:
    torch.manual_seed(0)
    return MemoryBankModule(size=(65536, 128))


@pytest.mark.benchmark(group="memory bank")
@pytest.mark.parametrize("loss", [info_nce, co2], ids=["info_nce", "co2"])
def test_loss_against_a_bank_forward_and_backward(benchmark, bank, loss):
    query, key = torch.randn(2, 256, 128, generator=torch.Generator().manual_seed(0))
    query.requires_grad_()
    (grad,) = benchmark(lambda: torch.autograd.grad(loss(query, key, bank.bank), query))
    benchmark.extra_info["rows"] = len(query)
    assert grad.isfinite().all()


@pytest.mark.benchmark(group="memory bank")
@pytest.mark.parametrize("k", [1, 5])
def test_neighbours_in_a_bank(benchmark, bank, k):
    query = torch.randn(256, 128, generator=torch.Generator().manual_seed(0))
    found = benchmark(lambda: nearest_neighbours(query, bank.bank, k))
    benchmark.extra_info["rows"] = len(query)
    assert found.rows.shape == (256, k)


@pytest.mark.benchmark(group="memory bank")
def test_update_of_a_bank(benchmark, bank):
    batch = torch.randn(256, 128, generator=torch.Generator().manual_seed(0))
    benchmark(lambda: bank.enqueue(batch))
    benchmark.extra_info["rows"] = len(batch)
    assert bank.bank_ptr.item() % 256 == 0
