"""Views as recipes have them, with every part and in several orders, and what torchvision makes of them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from fastssl import recipes
from fastssl.transforms.view import (
    Blur,
    CenterCrop,
    Crop,
    Erase,
    Flip,
    Grayscale,
    Jitter,
    Posterize,
    QuarterTurn,
    Resize,
    Rotate,
    Solarize,
    View,
)

MILD_JITTER = Jitter(p=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)

# One view of each recipe family: what is drawn, in which order, by which filter.
RECIPES = {
    "simclr": lambda size: recipes.simclr(size)[0],
    "byol": lambda size: View(
        crop=Crop(size=size),
        flip=Flip(p=0.5),
        vflip=Flip(p=0.5),
        turn=QuarterTurn(p=0.5),
        jitter=MILD_JITTER,
        grayscale=Grayscale(p=0.2),
        blur=Blur(p=0.5, sigma_px=(0.1, 2.0)),
        solarize=Solarize(p=0.5),
    ),
    "vicreg": lambda size: View(
        crop=Crop(size=size, area=(0.2, 1.0)),
        jitter=MILD_JITTER,
        grayscale=Grayscale(p=0.2),
        blur=Blur(p=0.5, sigma_px=(0.1, 2.0)),
        solarize=Solarize(p=0.5),
        order=("jitter", "grayscale", "solarize", "blur"),
    ),
    "dino": lambda size: View(
        crop=Crop(size=size, area=(0.05, 0.4), interpolation="bicubic"),
        flip=Flip(p=0.5),
        jitter=MILD_JITTER,
        grayscale=Grayscale(p=0.2),
        blur=Blur(p=0.5, sigma_px=(0.1, 2.0)),
        solarize=Solarize(p=0.5),
    ),
    "wmse": lambda size: View(  # its colours come before the crop
        crop=Crop(size=size, area=(0.2, 1.0), aspect=(3 / 4, 4 / 3), interpolation="bicubic"),
        flip=Flip(p=0.5),
        jitter=MILD_JITTER,
        grayscale=Grayscale(p=0.1),
        order=("jitter", "grayscale", "crop"),
    ),
    "lightly": lambda size: View(  # Pillow's blur, torchvision's default of the nearest pixel
        crop=Crop(size=size),
        flip=Flip(p=0.5),
        rotate=Rotate(p=0.7, degrees=(-60, 90)),
        jitter=MILD_JITTER,
        grayscale=Grayscale(p=0.2),
        blur=Blur(p=0.7, sigma_px=(0.1, 2.0), kind="box"),
        solarize=Solarize(p=0.3),
    ),
    "everything": lambda size: View(
        crop=Crop(size=size, interpolation="bicubic"),
        flip=Flip(p=0.5),
        vflip=Flip(p=0.5),
        turn=QuarterTurn(p=0.5),
        rotate=Rotate(p=0.7, degrees=180, interpolation="bilinear"),
        jitter=MILD_JITTER,
        grayscale=Grayscale(p=0.2),
        blur=Blur(p=0.5, sigma_px=(0.1, 2.0)),
        solarize=Solarize(p=0.3),
        posterize=Posterize(p=0.5, bits=3),
        erase=Erase(p=0.7, value=0.3),
    ),
    "backwards": lambda size: View(
        crop=Crop(size=size),
        flip=Flip(p=0.5),
        rotate=Rotate(p=0.5, degrees=20),
        jitter=MILD_JITTER,
        grayscale=Grayscale(p=0.2),
        blur=Blur(p=0.5, sigma_px=(0.1, 2.0), kind="box"),
        solarize=Solarize(p=0.3),
        posterize=Posterize(p=0.5, bits=2),
        order=("posterize", "solarize", "blur", "grayscale", "jitter", "crop"),
    ),
    "around": lambda size: View(
        crop=Resize(size=size, interpolation="bicubic"),
        turn=QuarterTurn(p=0.5),
        rotate=Rotate(p=0.5, degrees=(10, 350), interpolation="bilinear"),
        jitter=MILD_JITTER,
        grayscale=Grayscale(p=0.2),
        blur=Blur(p=0.5, sigma_px=(0.1, 2.0)),
        solarize=Solarize(p=0.5),
        posterize=Posterize(p=0.5, bits=4),
        order=("blur", "jitter", "crop", "solarize", "grayscale", "posterize"),
    ),
    "evaluation": lambda size: View(
        crop=CenterCrop(size=size, interpolation="bicubic"), solarize=Solarize(p=0.5), order=("solarize", "crop")
    ),
}


def torchvision_view(image: np.ndarray, numbers: dict[str, float], view: View) -> Tensor:
    """The same view by torchvision, on float32 images."""
    x = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    for operation in view.order if "crop" in view.order else ("crop", *view.order):
        if getattr(view, operation) is not None:
            x = torchvision_step(operation, x, numbers, view)
    x = x if view.normalize is None else F.normalize(x, list(view.normalize.mean), list(view.normalize.std))
    if view.erase is not None:
        box = [int(numbers[f"erase_{name}"]) for name in ("top", "left", "height", "width")]
        x = F.erase(x, *box, torch.full((3, 1, 1), view.erase.value))
    return x


def torchvision_step(operation: str, x: Tensor, numbers: dict[str, float], view: View) -> Tensor:
    if operation == "crop":
        box = [int(numbers[name]) for name in ("top", "left", "height", "width")]
        size = [view.crop.size] * 2
        x = F.resized_crop(x, *box, size=size, interpolation=view.crop.interpolation, antialias=True).clamp(0, 1)
        x = F.horizontal_flip(x) if numbers["flip_h"] else x
        x = F.vertical_flip(x) if numbers["flip_v"] else x
        x = F.rotate(x, 90 * numbers["turns"]) if numbers["turns"] else x
        return x if view.rotate is None else F.rotate(x, numbers["angle"], interpolation=view.rotate.interpolation)
    if operation == "jitter":
        for which in (int(numbers[f"order{i}"]) for i in range(4)):
            name = ("brightness", "contrast", "saturation", "hue")[which]
            x = getattr(F, f"adjust_{name}")(x, numbers[name])
    elif operation == "grayscale" and numbers["grayscale"]:
        x = F.rgb_to_grayscale(x, num_output_channels=3)
    elif operation == "blur" and numbers["sigma_px"]:
        side = min(2 * math.ceil(5 * numbers["sigma_px"]) + 1, 2 * min(x.shape[1:]) - 1)
        x = F.gaussian_blur(x, kernel_size=[side, side], sigma=[numbers["sigma_px"]] * 2)
    elif operation == "solarize" and numbers["solarize"] <= 1:
        x = F.solarize(x, numbers["solarize"])
    elif operation == "posterize" and numbers["posterize"] < 8:
        x = F.posterize((x * 255 + 0.5).to(torch.uint8), int(numbers["posterize"])).float() / 255
    return x


# torchvision has no box blur.
GAUSSIAN = sorted(name for name in RECIPES if (RECIPES[name](1).blur or Blur()).kind == "gaussian")
