"""Steps of the user's own within a view: in render, in the Loader, and what they must return."""

from __future__ import annotations

import pytest
import torch

import fastssl
from fastssl import ops
from fastssl.data import ArraySource
from fastssl.transforms import IMAGENET, Blur, Crop, Flip, Grayscale, Jitter, Plan, Rotate, SameCrop, Solarize, View

ORDER = ("jitter", "grayscale", "custom", "blur", "solarize")
VIEW = View(
    crop=Crop(size=24),
    flip=Flip(),
    jitter=Jitter(p=1, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    grayscale=Grayscale(),
    blur=Blur(p=1),
    solarize=Solarize(p=0.5),
    order=ORDER,
)
IMAGES = torch.randint(0, 256, (10, 40, 50, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def rendered(recipe, **options):
    plan = Plan.draw(recipe, [(40, 50)] * len(IMAGES), seed=1)
    return ops.render(list(IMAGES), plan, recipe, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_step_that_does_nothing_changes_nothing(dtype, channels_last):
    plain = rendered((VIEW, VIEW), dtype=dtype, channels_last=channels_last)
    split = rendered((VIEW.with_(custom=lambda x: x), VIEW), dtype=dtype, channels_last=channels_last)
    assert all(torch.equal(a, b) for a, b in zip(plain, split, strict=True))
    assert [a.stride() for a in plain] == [b.stride() for b in split]


def test_the_step_stands_where_the_order_has_it():
    seen = []

    def darken(batch):
        seen.append(batch.clone())
        return batch / 2

    before = VIEW.with_(blur=None, solarize=None, normalize=None)
    (view,) = rendered((VIEW.with_(custom=darken, blur=None, solarize=None),))
    assert torch.equal(seen[0], rendered((before,))[0])
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET.mean, IMAGENET.std))
    assert torch.allclose(view, (seen[0] / 2 - mean) / std, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_loader_applies_it_too(threads):
    half = VIEW.with_(custom=lambda x: x * 0.5, normalize=None)
    recipe = (VIEW, half, View(crop=SameCrop(size=8, of=1)))
    loader = fastssl.Loader(ArraySource(IMAGES), recipe, batch_size=4, seed=1, threads=threads, dtype=torch.float16)
    for batch in loader:
        again = ops.render([IMAGES[i] for i in batch.indices], batch.params, recipe, dtype=torch.float16)
        assert all(torch.equal(a, b) for a, b in zip(batch.views, again, strict=True))


def test_samples_that_are_skipped_do_not_reach_it(tmp_path):
    import PIL.Image

    for i, image in enumerate(IMAGES[:5]):
        PIL.Image.fromarray(image.numpy()).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes(b"nothing")
    sizes = []
    view = VIEW.with_(custom=lambda x: sizes.append(len(x)) or x)
    loader = fastssl.Loader(tmp_path, (view,), batch_size=5, on_error="skip", threads=1)
    (batch,) = loader
    assert sizes == [4] and batch.views[0].shape == (4, 3, 24, 24) and batch.views[0].isfinite().all()


def test_values_outside_the_range_are_clamped():
    view = VIEW.with_(custom=lambda x: 2 * x - 0.5, blur=None, solarize=None, normalize=None)
    (plain,) = rendered((view.with_(custom=None),))
    for dtype, unit in ((torch.float32, 1), (torch.uint8, 255)):
        (out,) = rendered((view,), dtype=dtype)
        assert ((out / unit - (2 * plain - 0.5).clamp(0, 1)).abs() <= 0.502 / 255).all()
    with pytest.raises(ValueError, match="not a number"):
        rendered((view.with_(custom=lambda x: x * float("nan")),))


def test_a_batch_that_failed_was_not_handed_out():
    calls = []

    def fail_once(batch):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory, say")
        return batch

    loader = fastssl.Loader(ArraySource(IMAGES), (VIEW.with_(custom=fail_once),), batch_size=2, seed=1)
    batches = iter(loader)
    first = next(batches)
    with pytest.raises(RuntimeError, match="say"):
        next(batches)
    loader.load_state_dict(loader.state_dict())
    seen = torch.cat([first.indices, *(batch.indices for batch in loader)])
    assert sorted(seen.tolist()) == list(range(10))


@pytest.mark.parametrize(
    "step, got",
    [(lambda x: x[:, :1], r"\(10, 1, 24, 24\)"), (lambda x: x.double(), "float64"), (lambda x: None, "NoneType")],
)
def test_what_it_returns_is_checked(step, got):
    with pytest.raises(ValueError, match=f"(?s)custom step returned.*{got}.*must return"):
        rendered((VIEW.with_(custom=step),))


def test_errors_of_the_step_reach_the_caller():
    def fail(batch):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        next(iter(fastssl.Loader(ArraySource(IMAGES), (VIEW.with_(custom=fail),), batch_size=4)))


def test_the_step_must_be_in_the_order_and_after_the_crop():
    with pytest.raises(ValueError, match="leaves out custom"):
        VIEW.with_(custom=abs, order=("jitter", "grayscale", "blur", "solarize"))
    with pytest.raises(ValueError, match="before the crop"):
        VIEW.with_(custom=abs, order=("custom", "crop", "jitter", "grayscale", "blur", "solarize"))


def test_a_view_that_follows_another_is_rotated_as_it_is():
    turned = View(crop=Crop(size=24), rotate=Rotate(p=1, degrees=(30, 30), interpolation="bilinear"))
    plain, same = rendered((turned, View(crop=SameCrop(size=24, of=0))))
    assert torch.equal(plain, same)
