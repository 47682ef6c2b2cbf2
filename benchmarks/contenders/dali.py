"""NVIDIA DALI's CPU backend: one pipeline, one decode for all views.

Its colour operators are its own: contrast about mid-grey, hue by a rotation in YIQ, grayscale by `hsv(saturation=0)`,
as the pipelines that its users publish (solo-learn's) have it.

A step with a probability can be written in two ways. `blended`, as those pipelines do: every image goes through it, and
a coin chooses between result and input. Or under a condition, which DALI has since 1.23: only the images go through it
that need it, which takes about 0.6 of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from view_recipes import ASPECT, FLIP_P, GRAY_P, JITTER_P, MEAN, SIGMA_PX, STD, Recipe, ViewSpec


def batches(
    recipe: Recipe,
    inputs: Callable[[], Iterable[list[bytes]]],
    batch_size: int,
    threads: int,
    blended: bool = False,
) -> Callable[[], Iterable[Any]]:
    """From batches of JPEG bytes; a pass ends with the last of them, and nothing is prefetched beyond it."""
    import numpy as np
    import torch
    from nvidia.dali import fn, pipeline_def, types

    class Passes:
        def __iter__(self) -> Iterator[list[Any]]:
            return ([np.frombuffer(jpeg, np.uint8) for jpeg in jpegs] for jpegs in inputs())

    def around_one(v: float) -> Any:
        return fn.random.uniform(range=[max(0.0, 1 - v), 1 + v])

    def sometimes(p: float, step: Callable[[Any], Any], image: Any) -> Any:
        chosen = fn.random.coin_flip(probability=p, dtype=types.DALIDataType.BOOL)
        if blended:
            return chosen * step(image) + (chosen ^ True) * image
        if chosen:
            image = step(image)
        return image

    def solarize(image: Any) -> Any:
        bright = image >= 128
        return bright * (types.Constant(255, dtype=types.UINT8) - image) + (bright ^ True) * image

    def view(image: Any, spec: ViewSpec) -> Any:
        brightness, contrast, saturation, hue = spec.jitter

        def jitter(image: Any) -> Any:
            return fn.color_twist(
                image,
                brightness=around_one(brightness),
                contrast=around_one(contrast),
                saturation=around_one(saturation),
                hue=fn.random.uniform(range=[-360 * hue, 360 * hue]),
            )

        def gray(image: Any) -> Any:
            return fn.hsv(image, saturation=0.0)

        def blur(image: Any) -> Any:
            return fn.gaussian_blur(image, sigma=fn.random.uniform(range=list(SIGMA_PX)))

        image = fn.random_resized_crop(
            image,
            size=[spec.size, spec.size],
            random_area=list(spec.area),
            random_aspect_ratio=list(ASPECT),
            interp_type=types.INTERP_CUBIC if spec.bicubic else types.INTERP_LINEAR,
            antialias=True,
        )
        for p, step in ((JITTER_P, jitter), (GRAY_P, gray), (spec.blur_p, blur), (spec.solarize_p, solarize)):
            if p > 0:
                image = sometimes(p, step, image)
        return fn.crop_mirror_normalize(
            image,
            mirror=fn.random.coin_flip(probability=FLIP_P),
            mean=[255 * m for m in MEAN],
            std=[255 * s for s in STD],
            dtype=types.FLOAT,
            output_layout="CHW",
        )

    @pipeline_def(batch_size=batch_size, num_threads=threads, device_id=None, enable_conditionals=True, seed=0)
    def pipeline() -> Any:
        jpegs = fn.external_source(source=Passes(), cycle="raise", dtype=types.UINT8, ndim=1)
        image = fn.decoders.image(jpegs, device="cpu", output_type=types.RGB, adjust_orientation=False)
        return tuple(view(image, spec) for spec in recipe.views)

    pipe = pipeline()
    pipe.build()

    def run() -> Iterable[Any]:
        try:
            while True:
                # The outputs' memory is used again by the next run, so they are copied, as DALI's iterator for PyTorch does.
                yield ([torch.from_dlpack(out.as_tensor()).clone() for out in pipe.run()],)
        except StopIteration:
            pipe.reset()

    return run
