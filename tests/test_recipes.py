"""Recipes: every one draws, renders, and says what is wrong with its arguments."""

from __future__ import annotations

import inspect
import re

import images
import pytest
import torch

import fastssl
from fastssl import ops, recipes
from fastssl.transforms import Plan, View
from fastssl.transforms.jigsaw import shuffled_tiles

NAMES = [name for name in recipes.__all__ if name != "box_blur"]
MULTI_CROP = ["dino", "dinov2", "ibot", "lejepa", "msn", "smog", "swav", "vicregl"]
COLOURED = [name for name in NAMES if "strength" in inspect.signature(getattr(recipes, name)).parameters]


def small(name: str) -> tuple[View, ...]:
    """The recipe with views of 16 and 8 pixels."""
    return getattr(recipes, name)(16, 8) if name in MULTI_CROP else getattr(recipes, name)(16)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_renders_views_of_its_sizes(name):
    recipe = small(name)
    pixels = [torch.from_numpy(images.photo(30 + i, 50 - i)) for i in range(3)]
    plan = Plan.draw(recipe, [tuple(image.shape[:2]) for image in pixels], seed=1)
    views = ops.render(pixels, plan, recipe)
    assert [view.shape for view in views] == [(3, 3, view.size, view.size) for view in recipe]
    assert all(view.isfinite().all() and view.std() > 0 for view in views)
    assert all(view.normalize == fastssl.transforms.IMAGENET for view in recipe)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_names_its_source(name):
    text = inspect.getdoc(getattr(recipes, name))
    assert re.search(r"arXiv:\d{4}\.\d{5}|GCPR 2022", text) or name in ("evaluation", "resize")
    assert ">>>" in text


@pytest.mark.parametrize("name", COLOURED)
def test_strength_multiplies_the_jitter_of_every_view(name):
    whole, half = getattr(recipes, name)(), getattr(recipes, name)(strength=0.5)
    assert len(whole) == len(half)
    for a, b in zip(whole, half, strict=True):
        assert (a.jitter is None) == (b.jitter is None)
        if a.jitter is not None:
            for part in ("brightness", "contrast", "saturation", "hue"):
                assert getattr(b.jitter, part) == pytest.approx(0.5 * getattr(a.jitter, part))
            assert b.with_(jitter=a.jitter) == a


@pytest.mark.parametrize("name", COLOURED)
@pytest.mark.parametrize("strength", [-0.1, 100, float("nan"), "1", None, True])
def test_a_wrong_strength_is_named(name, strength):
    with pytest.raises(ValueError, match=f"^{name}: strength=.* must be from 0 to "):
        getattr(recipes, name)(strength=strength)


@pytest.mark.parametrize(
    "name, argument",
    [(name, "local_views") for name in MULTI_CROP]
    + [(name, "views") for name in ("fastsiam", "mmcr", "wmse", "msn", "smog", "vicregl")],
)
def test_numbers_of_views_count(name, argument):
    recipe = getattr(recipes, name)
    assert len(recipe(**{argument: 5})) == len(recipe(**{argument: 1})) + 4
    for wrong in (-1, 1.5, "2", True):
        with pytest.raises(ValueError, match=f"^{name}: {argument}="):
            recipe(**{argument: wrong})


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_size_is_named(name):
    with pytest.raises(ValueError, match="size=0"):
        getattr(recipes, name)(size=0)


@pytest.mark.parametrize("name", MULTI_CROP)
def test_global_views_come_first(name):
    sizes = [view.size for view in small(name)]
    assert sizes == sorted(sizes, reverse=True) and {*sizes} == {16, 8}


def test_views_of_the_loader_are_those_of_the_recipe(photos):
    for name in ("dino", "wmse", "fda", "vicreg"):
        recipe = small(name)
        loader = fastssl.Loader(fastssl.data.ImageFolder(photos), recipe, batch_size=4, seed=3)
        batch = next(iter(loader))
        assert [view.shape for view in batch.views] == [(4, 3, view.size, view.size) for view in recipe]


def test_frequencies_change_only_what_they_fall_on():
    steps = recipes.fda()[0].custom
    torch.manual_seed(0)
    batch = torch.rand(400, 3, 16, 16)
    out = steps(batch)
    untouched = (out == batch).flatten(1).all(dim=1).float().mean()
    expected = 0.8 * 0.8 * 0.5 * 0.8
    # Five standard errors of a share of 400.
    assert abs(untouched - expected) <= 5 * (expected * (1 - expected) / 400) ** 0.5
    assert out.min() >= 0 and out.max() <= 1
    assert torch.equal(batch.clone(), batch)


def test_puzzles_keep_every_pixel_of_their_tiles():
    views = torch.arange(2 * 3 * 8 * 8.0).view(2, 3, 8, 8)
    tiles = shuffled_tiles(views, 2)
    assert tiles.shape == (2, 4, 3, 4, 4)
    for b in range(2):
        assert torch.equal(tiles[b].flatten().sort().values, views[b].flatten().sort().values)
        quarters = {tuple(q.flatten().tolist()) for row in views[b].chunk(2, 1) for q in row.chunk(2, 2)}
        assert {tuple(tile.flatten().tolist()) for tile in tiles[b]} == quarters
    assert shuffled_tiles(torch.zeros(1, 3, 64, 64), 3).shape == (1, 9, 3, 21, 21)
    with pytest.raises(ValueError, match="n_grid=9"):
        shuffled_tiles(views, 9)


def test_recipes_are_where_they_are_said_to_be():
    import fastssl.transforms.recipes as inside

    assert recipes.__all__ == inside.__all__
    assert all(getattr(recipes, name) is getattr(inside, name) for name in recipes.__all__)
