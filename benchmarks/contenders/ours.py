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
