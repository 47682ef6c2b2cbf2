"""kornia.augmentation: images of different sizes are cropped one by one, all else runs on the batch.

Decoded by torchvision.io (libjpeg-turbo). Draws are made for each image, as kornia does unless told otherwise, but for
the order of the jitter's four steps, which it draws once a batch. Its RandomResizedCrop has no antialiasing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from view_recipes import ASPECT, BLUR_TAPS, FLIP_P, GRAY_P, JITTER_P, MEAN, SIGMA_PX, STD, Recipe, ViewSpec

from contenders import torchvision


def view(spec: ViewSpec, mode: str = "slice") -> tuple[Any, Any]:
    """The crop, which makes one size of all images, and what follows; both on float batches, (B, 3, H, W), in [0, 1].

    `mode`: how the crop is taken: "slice", kornia's default, image by image; "resample" by one warp of the batch.
    """
    import kornia.augmentation as K
    import torch

    filter_ = "BICUBIC" if spec.bicubic else "BILINEAR"
    crop = K.RandomResizedCrop((spec.size, spec.size), spec.area, ASPECT, resample=filter_, cropping_mode=mode)
    steps = [
        K.RandomHorizontalFlip(p=FLIP_P),
        K.ColorJitter(*spec.jitter, p=JITTER_P),
        K.RandomGrayscale(p=GRAY_P),
    ]
    if spec.blur_p:
        steps.append(K.RandomGaussianBlur((BLUR_TAPS, BLUR_TAPS), SIGMA_PX, p=spec.blur_p))
    if spec.solarize_p:
        steps.append(K.RandomSolarize(thresholds=(0.5, 0.5), additions=(0.0, 0.0), p=spec.solarize_p))
    return crop, torch.nn.Sequential(*steps, K.Normalize(torch.tensor(MEAN), torch.tensor(STD)))


def batches(recipe: Recipe, inputs: Callable[[], Iterable[list[bytes]]]) -> Callable[[], Iterable[Any]]:
    """From batches of JPEG bytes."""
    import torch

    made = {spec: view(spec) for spec in recipe.distinct}

    def render(jpegs: list[bytes]) -> tuple[list[Any]]:
        images = [torchvision.decode(jpeg)[None].float() / 255 for jpeg in jpegs]
        views = []
        for crop, rest in (made[spec] for spec in recipe.views):
            views.append(rest(torch.cat([crop(image) for image in images])))
        return (views,)

    return lambda: map(render, inputs())


def batches_of_pixels(
    recipe: Recipe, inputs: Callable[[], Iterable[Any]], device: Any = "cpu", mode: str = "slice", **form: Any
) -> Callable[[], Iterable[Any]]:
    """From uint8 tensors of images of one size, (B, 3, H, W), on `device`: the crop runs on the batch too.

    `form`: what the finished views are changed to; type and memory format.
    """
    made = {spec: view(spec, mode) for spec in recipe.distinct}
    for crop, rest in made.values():
        crop.to(device)
        rest.to(device)

    def render(pixels: Any) -> tuple[list[Any]]:
        images = pixels.float() / 255
        views = [rest(crop(images)) for crop, rest in (made[spec] for spec in recipe.views)]
        return ([v.to(**form) for v in views] if form else views,)

    return lambda: map(render, inputs())
