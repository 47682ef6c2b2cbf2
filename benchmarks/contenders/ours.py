"""fastssl: the Loader, and the operators that it is made of."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from view_recipes import Recipe


def recipe_of(recipe: Recipe) -> Any:
    import fastssl

    if recipe.name == "dino":
        return fastssl.recipes.dino()
    if recipe.name == "cifar":
        return fastssl.recipes.simclr(recipe.views[0].size, strength=0.5, blur=False)
    return fastssl.recipes.simclr(recipe.views[0].size)


def encoded_source(jpegs: Sequence[bytes]) -> Any:
    """A Source of JPEG bytes in memory."""
    from fastssl.data.sources import Source

    class Memory(Source):
        def __len__(self) -> int:
            return len(jpegs)

        def path(self, index: int) -> str | None:
            return None

        def fetch(self, index: int) -> bytes:
            return jpegs[index]

    return Memory()


def loader(source: Any, recipe: Recipe, batch_size: int, threads: int, **more: Any) -> Any:
    import fastssl

    return fastssl.Loader(source, recipe_of(recipe), batch_size=batch_size, shuffle=False, threads=threads, **more)


def operators(recipe: Recipe, inputs: Callable[[], Iterable[list[bytes]]]) -> Callable[[], Iterable[Any]]:
    """decode, draw and render, one call each, on one thread."""
    import fastssl
    from fastssl import ops
    from fastssl.transforms.plan import Plan

    fastssl.set_num_threads(1)
    views = recipe_of(recipe)
    seeds = itertools.count()

    def batch(jpegs: list[bytes]) -> tuple[Any]:
        images = [ops.decode(jpeg) for jpeg in jpegs]
        plan = Plan.draw(views, [tuple(image.shape[:2]) for image in images], seed=next(seeds))
        return (ops.render(images, plan, views),)

    return lambda: map(batch, inputs())


def rendered(
    recipe: Recipe, images: Any, batches: int, dtype: Any, channels_last: bool, **kernels: Any
) -> Callable[[], Iterable[Any]]:
    """draw and render of the same images, a tensor or a list of them on one device, so many batches a pass.

    `kernels`: what `by_kernels` takes besides; where there is any, it renders, not `ops.render`.
    """
    from fastssl import ops
    from fastssl.transforms.plan import Plan

    views, seeds = recipe_of(recipe), itertools.count()
    sizes = [tuple(image.shape[:2]) for image in images]

    def batch() -> tuple[Any]:
        plan = Plan.draw(views, sizes, seed=next(seeds))
        if kernels:
            return (by_kernels(images, plan, views, dtype, channels_last, **kernels),)
        return (ops.render(images, plan, views, dtype=dtype, channels_last=channels_last),)

    return lambda: (batch() for _ in range(batches))


def by_kernels(
    images: Any, plan: Any, views: Any, dtype: Any, channels_last: bool, *, workspace_bytes: int
) -> list[Any]:
    """ops.render by the CUDA kernels, on the CPU too, where they run thread by thread."""
    import torch

    from fastssl.ops import render_cuda
    from fastssl.ops.pixels import channels_of, device_of, locate
    from fastssl.ops.render import DTYPES, encode_recipe, native_views

    form = {"memory_format": torch.channels_last if channels_last else torch.contiguous_format, "dtype": dtype}
    shape = (len(images), channels_of(images))
    out = [torch.empty((*shape, v.size, v.size), **form, device=device_of(images)) for v in views]
    specs = native_views(encode_recipe(views))
    render_cuda.launch(locate(images), plan.data, specs, out, DTYPES[dtype], channels_last, workspace_bytes)
    return out
