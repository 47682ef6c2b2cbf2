"""The transforms that lightly and fastssl have in common, and what lightly's objects say of crop, flips, colours and order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dropin

import fastssl.transforms
from fastssl import recipes
from fastssl.transforms import View
from fastssl.transforms.geometry import Crop

# Multi-view transforms with both libraries' names: the recipe that is its default, and arguments that keep tests small.
METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "SimCLRTransform": (recipes.simclr(), {"input_size": 24}),
    "MoCoV1Transform": (recipes.moco_v1(), {"input_size": 24}),
    "MoCoV2Transform": (recipes.moco_v2(), {"input_size": 24}),
    "DenseCLTransform": (recipes.densecl(), {"input_size": 24}),
    "SimSiamTransform": (recipes.simsiam(), {"input_size": 24}),
    "FastSiamTransform": (recipes.fastsiam(), {"input_size": 24, "num_views": 3}),
    "BYOLTransform": (recipes.byol(), {}),
    "TiCoTransform": (recipes.tico(), {}),
    "DINOTransform": (recipes.dino(), {"global_crop_size": 24, "local_crop_size": 16, "n_local_views": 3}),
    "IBOTTransform": (recipes.ibot(), {"global_crop_size": 24, "local_crop_size": 16, "n_local_views": 3}),
    "SwaVTransform": (recipes.swav(), {"crop_sizes": (24, 16), "crop_counts": (2, 3)}),
    "MSNTransform": (recipes.msn(), {"random_size": 24, "focal_size": 16, "focal_views": 3}),
    "SMoGTransform": (recipes.smog(), {"crop_sizes": (24, 16), "crop_counts": (2, 3)}),
    "VICRegTransform": (recipes.vicreg(), {"input_size": 24}),
    "WMSETransform": (recipes.wmse(), {"input_size": 24, "num_samples": 3}),
    "MMCRTransform": (recipes.mmcr(), {"input_size": 24, "k": 3}),
    "FDATransform": (recipes.fda(), {}),
    "DetConSTransform": (recipes.detcon(), {"input_size": 24}),
}
SINGLE = {"MAETransform": recipes.mae(), "AIMTransform": recipes.aim(), "CAPITransform": recipes.capi()}
VIEWS = """SimCLRViewTransform SimSiamViewTransform BYOLView1Transform BYOLView2Transform TiCoView1Transform TiCoView2Transform
DINOViewTransform IBOTViewTransform MSNViewTransform SmoGViewTransform VICRegViewTransform FDAView1Transform FDAView2Transform
DetConSViewTransform""".split()


def both(name: str) -> tuple[Any, Any]:
    """lightly's class and ours."""
    return getattr(dropin.lightly().transforms, name), getattr(fastssl.transforms, name)


def views_of(transform: Any) -> list[Any]:
    return [part.view for part in transform.transforms]


def steps(transform: Any) -> Iterator[tuple[Any, float]]:
    """The steps of a transform of lightly's in order, each with the probability of the RandomApply that holds it."""
    name = type(transform).__name__
    if name == "RandomApply":
        for part in transform.transforms:
            yield part, transform.p
    elif name == "Compose":
        for part in transform.transforms:
            yield from steps(part)
    elif name == "RandomRotateDegrees":
        yield from ((part, -1.0) for part in [transform])
    elif hasattr(transform, "transform") and not hasattr(transform, "p") and name not in ("ToTensor", "Normalize"):
        inner = transform.transform
        if type(inner).__name__ == "Compose":
            yield from steps(inner)
        else:
            yield transform, 1.0
    elif hasattr(transform, "tr"):
        yield from steps(transform.tr)
    else:
        yield transform, 1.0


ORDERED = {
    "ColorJitter": "jitter",
    "RandomGrayscale": "grayscale",
    "GaussianBlur": "blur",
    "RandomSolarization": "solarize",
}


def theirs(transform: Any) -> dict[str, Any]:
    """The numbers of a transform of lightly's; what never happens is not in them."""
    out: dict[str, Any] = {"order": []}
    for part, p in steps(transform):
        kind = type(part).__name__
        if kind == "RandomResizedCrop":
            out["crop"] = (
                *_pair(part.size),
                *part.scale,
                *part.ratio,
                getattr(part.interpolation, "value", part.interpolation),
            )
            out["order"].append("crop")
        elif kind == "RandomHorizontalFlip" and part.p:
            out["flip"] = part.p
        elif kind == "RandomVerticalFlip" and part.p:
            out["vflip"] = part.p
        elif kind == "RandomRotate" and part.prob:
            assert part.angle == 90
            out["turn"] = part.prob
        elif kind == "RandomRotation" and p:
            out["rotate"] = (p, *part.degrees)
        elif kind == "RandomRotateDegrees":
            out["rotate"] = (part.transform.p, *part.transform.transforms[0].degrees)
        elif kind == "ColorJitter" and any((part.brightness, part.contrast, part.saturation, part.hue)):
            widths = [limits[1] - 1 for limits in (part.brightness, part.contrast, part.saturation)]
            out["jitter"] = (p, *widths, part.hue[1])
        elif kind == "RandomGrayscale" and part.p:
            out["grayscale"] = part.p
        elif kind == "GaussianBlur" and hasattr(part, "prob") and part.prob:
            out["blur"] = (part.prob, *part.sigmas)
        elif kind == "GaussianBlur" and hasattr(part, "sigma") and p:
            out["blur"] = (p, *part.sigma)
        elif kind == "RandomSolarization" and part.prob:
            out["solarize"] = (part.prob, part.threshold)
        elif kind == "Normalize":
            out["normalize"] = (*part.mean, *part.std)
        elif kind in ("AmplitudeRescaleTransform", "PhaseShiftTransform"):
            out[kind] = (p, float(part.dist.low), float(part.dist.high))
        elif kind == "RandomFrequencyMaskTransform":
            out[kind] = (p, *part.k)
        elif kind == "GaussianMixtureMask" and p:
            out[kind] = (p, part.num_gaussians, *part.std_range)
        if kind in ORDERED and ORDERED[kind] in out and ORDERED[kind] not in out["order"]:
            out["order"].append(ORDERED[kind])
    return out


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[-1])


def ours(view: View) -> dict[str, Any]:
    """The same numbers of a View."""
    crop, jitter, custom = view.crop, view.jitter, view.custom
    assert isinstance(crop, Crop)
    out: dict[str, Any] = {
        "crop": (crop.size, crop.size, *crop.area, *crop.aspect, crop.interpolation),
        "flip": view.flip and view.flip.p,
        "vflip": view.vflip and view.vflip.p,
        "turn": view.turn and view.turn.p,
        "rotate": view.rotate and (view.rotate.p, *view.rotate.degrees),
        "jitter": jitter and (jitter.p, jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue),
        "grayscale": view.grayscale and view.grayscale.p,
        "blur": view.blur and (view.blur.p, *view.blur.sigma_px),
        "solarize": view.solarize and (view.solarize.p, view.solarize.threshold),
        "normalize": view.normalize and (*view.normalize.mean, *view.normalize.std),
        "order": [
            name for name in view.order if name in ("crop", *ORDERED.values()) and getattr(view, name) is not None
        ],
    }
    if custom is not None:
        out["AmplitudeRescaleTransform"] = (custom.rescale_p, *custom.rescale)
        out["PhaseShiftTransform"] = (custom.shift_p, *custom.shift)
        out["RandomFrequencyMaskTransform"] = (custom.mask_p, *custom.mask)
        out["GaussianMixtureMask"] = custom.holes_p and (custom.holes_p, custom.holes, *custom.holes_std)
    return {name: value for name, value in out.items() if value}
