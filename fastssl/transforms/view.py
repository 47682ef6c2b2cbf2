"""What a view is: its crop, and what happens to it, each with the range from which it is drawn.

Every part is frozen, takes keywords only, and is checked where it is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from fastssl.transforms.geometry import CenterCrop, Crop, Flip, QuarterTurn, Resize, Rotate, SameCrop
from fastssl.transforms.steps import IMAGENET, Blur, Erase, Grayscale, Jitter, Normalize, Posterize, Solarize

__all__ = [
    "IMAGENET",
    "Blur",
    "CenterCrop",
    "Crop",
    "Erase",
    "Flip",
    "Grayscale",
    "Jitter",
    "Normalize",
    "Posterize",
    "QuarterTurn",
    "Recipe",
    "Resize",
    "Rotate",
    "SameCrop",
    "Solarize",
    "Step",
    "View",
]

Step = Literal["crop", "jitter", "grayscale", "blur", "solarize", "posterize", "custom"]
_STEPS: tuple[Step, ...] = ("crop", "jitter", "grayscale", "blur", "solarize", "posterize", "custom")


@dataclass(frozen=True, kw_only=True)
class View:
    """One view of an image: the steps in `order`, then normalization and erasing.

    What is None does not happen. Flips, turn and rotation, in this order, belong to the crop and follow it at once.

    Args:
        crop: A `Crop`, `CenterCrop`, `Resize` or `SameCrop`.
        flip, vflip: Mirrored sideways, upside down.
        turn: Turned by multiples of 90 degrees.
        rotate: Rotated by any angle.
        jitter, grayscale, blur, solarize, posterize: The steps.
        custom: A step of your own: takes the batch of this view, (B, C, S, S), float32 in [0, 1], and returns the same shape
            and type; values outside [0, 1] are clamped. It runs once a batch, on the thread that takes the batch, and is not
            part of `batch.params`. On a device it runs on a stream of the Loader's, after what was asked of the consumer's stream
            before: what it reads must stay as it is until the batch after next is asked for.
        normalize: Comes after all steps; None leaves the channels in [0, 1].
        erase: Random erasing, last.
        order: The order of the steps: "crop", "jitter", "grayscale", "blur", "solarize", "posterize", "custom"; those that the
            view has must be named, but for the crop, which is then the first. With colours before the crop, they see all of the
            image; "custom" cannot come before the crop.

    >>> View(crop=Crop(size=96), flip=Flip(p=0.5)).size
    96
    """

    crop: Crop | CenterCrop | Resize | SameCrop
    flip: Flip | None = None
    vflip: Flip | None = None
    turn: QuarterTurn | None = None
    rotate: Rotate | None = None
    jitter: Jitter | None = None
    grayscale: Grayscale | None = None
    blur: Blur | None = None
    solarize: Solarize | None = None
    posterize: Posterize | None = None
    custom: Callable[[Tensor], Tensor] | None = None
    normalize: Normalize | None = IMAGENET
    erase: Erase | None = None
    order: tuple[Step, ...] = _STEPS

    def __post_init__(self) -> None:
        for name, kinds in _KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kinds) and not (value is None and name != "crop"):
                wanted = " or ".join(kind.__name__ for kind in kinds)
                raise TypeError(f"View: {name}={value!r} must be {wanted}{'' if name == 'crop' else ' or None'}.")
        if self.custom is not None and not callable(self.custom):
            raise TypeError(
                f"View: custom={self.custom!r} must be a callable that takes and returns a tensor, or None."
            )
        if isinstance(self.crop, SameCrop) and any((self.flip, self.vflip, self.turn, self.rotate)):
            raise ValueError(
                "View: SameCrop takes flips, turn and rotation from the other view as well; leave flip, vflip, turn and "
                "rotate out here."
            )
        _check_order(self)
        object.__setattr__(self, "order", tuple(self.order))
        # Made here and not when asked for, so that torch.compile need not follow.
        object.__setattr__(self, "_json", _encode(self))

    @property
    def size(self) -> int:
        """Side of the view, in pixels."""
        return self.crop.size

    def with_(self, **parts: Any) -> View:
        """The same view with some parts replaced: `view.with_(blur=None)`."""
        return replace(self, **parts)

    def encode(self) -> str:
        """The view as JSON with the names of the native ViewSpec, which the operators take."""
        return self._json  # type: ignore[attr-defined]


_KINDS: dict[str, tuple[type, ...]] = {
    "crop": (Crop, CenterCrop, Resize, SameCrop),
    "flip": (Flip,),
    "vflip": (Flip,),
    "turn": (QuarterTurn,),
    "rotate": (Rotate,),
    "jitter": (Jitter,),
    "grayscale": (Grayscale,),
    "blur": (Blur,),
    "solarize": (Solarize,),
    "posterize": (Posterize,),
    "normalize": (Normalize,),
    "erase": (Erase,),
}


def _check_order(view: View) -> None:
    order = view.order
    if not isinstance(order, tuple | list) or not {*map(str, order)} <= {*_STEPS} or len({*order}) != len(order):
        raise ValueError(f"View: order={order!r} must name some of {', '.join(_STEPS)}, each once.")
    missing = [step for step in _STEPS if step != "crop" and getattr(view, step) is not None and step not in order]
    if missing:
        raise ValueError(f"View: order={order!r} leaves out {', '.join(missing)}, which the view has; name it.")
    if view.custom is not None and "crop" in order and order.index("custom") < order.index("crop"):
        raise ValueError(
            f"View: order={order!r} has custom before the crop, where images have different sizes; for a step on each whole "
            "image use Loader(..., image_step=...)."
        )


def _factors(strength: float) -> list[float]:
    return [max(0.0, 1.0 - strength), 1.0 + strength]


def _encode(view: View) -> str:
    spec: dict[str, Any] = view.crop._encoded()
    steps = list(view.order) if "crop" in view.order else ["crop", *view.order]
    spec["steps"] = [step for step in steps if getattr(view, step) is not None]
    for name in ("flip", "vflip", "turn", "grayscale"):
        part = getattr(view, name)
        if part is not None:
            spec[f"{name}_p"] = part.p
    if view.turn is not None:
        spec["turns"] = list(view.turn.turns)  # type: ignore[arg-type]
    if view.rotate is not None:
        spec["rotate_p"], spec["degrees"] = view.rotate.p, list(view.rotate.degrees)  # type: ignore[arg-type]
        spec["rotate_filter"] = view.rotate.interpolation
    if view.jitter is not None:
        spec["jitter_p"] = view.jitter.p
        for name in ("brightness", "contrast", "saturation"):
            spec[name] = _factors(getattr(view.jitter, name))
        spec["hue"] = [-view.jitter.hue, view.jitter.hue]
    if view.blur is not None:
        spec["blur_p"], spec["sigma_px"], spec["blur"] = view.blur.p, list(view.blur.sigma_px), view.blur.kind
    if view.solarize is not None:
        spec["solarize_p"], spec["threshold"] = view.solarize.p, view.solarize.threshold / 255
    if view.posterize is not None:
        spec["posterize_p"], spec["bits"] = view.posterize.p, view.posterize.bits
    if view.normalize is not None:
        spec["mean"], spec["std"] = list(view.normalize.mean), list(view.normalize.std)
    if view.erase is not None:
        spec["erase_p"], spec["erase_value"] = view.erase.p, view.erase.value
        spec["erase_area"], spec["erase_aspect"] = list(view.erase.area), list(view.erase.aspect)
    return json.dumps(spec)


Recipe = tuple[View, ...]
