"""NVIDIA DALI: one pipeline, on the CPU from JPEG with one decode for all views, on a GPU from pixels that lie there.

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


def around_one(v: float) -> Any:
    from nvidia.dali import fn

    return fn.random.uniform(range=[max(0.0, 1 - v), 1 + v])


def view(image: Any, spec: ViewSpec, blended: bool, **form: Any) -> Any:
    """One view, as a node of the graph; `form` is the type and layout that crop_mirror_normalize is asked for."""
    from nvidia.dali import fn, types

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

    def solarize(image: Any) -> Any:
        bright = image >= 128
        return bright * (types.Constant(255, dtype=types.UINT8) - image) + (bright ^ True) * image

    def sometimes(p: float, step: Callable[[Any], Any], image: Any) -> Any:
        chosen = fn.random.coin_flip(probability=p, dtype=types.DALIDataType.BOOL)
        if blended:
            return chosen * step(image) + (chosen ^ True) * image
        if chosen:
            image = step(image)
        return image

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
        **form,
    )


class Passes:
    """What external_source takes: an iterable that begins anew with each pass."""

    def __init__(self, batches: Callable[[], Iterator[Any]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return self.batches()


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

    passes = Passes(lambda: ([np.frombuffer(jpeg, np.uint8) for jpeg in jpegs] for jpegs in inputs()))

    @pipeline_def(batch_size=batch_size, num_threads=threads, device_id=None, enable_conditionals=True, seed=0)
    def pipeline() -> Any:
        jpegs = fn.external_source(source=passes, cycle="raise", dtype=types.UINT8, ndim=1)
        image = fn.decoders.image(jpegs, device="cpu", output_type=types.RGB, adjust_orientation=False)
        return tuple(view(image, spec, blended, dtype=types.FLOAT, output_layout="CHW") for spec in recipe.views)

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


def batches_of_pixels(
    recipe: Recipe,
    inputs: Callable[[], Iterable[list[Any]]],
    batch_size: int,
    threads: int,
    device: Any,
    half: bool,
    blended: bool = False,
) -> Callable[[], Iterable[Any]]:
    """From batches of uint8 tensors, (H, W, 3) each, on a GPU or the CPU; they are not copied.

    `half`: to float16, channels last, since there is no bfloat16; else to float32.
    """
    import torch
    from nvidia.dali import fn, pipeline_def, types

    on_gpu = device.type == "cuda"
    passes = Passes(lambda: (images if on_gpu else [image.numpy() for image in images] for images in inputs()))
    form = {"dtype": types.FLOAT16 if half else types.FLOAT, "output_layout": "HWC" if half else "CHW"}

    @pipeline_def(
        batch_size=batch_size,
        num_threads=threads,
        device_id=(device.index or 0) if on_gpu else None,
        enable_conditionals=True,
        seed=0,
    )
    def pipeline() -> Any:
        source = {"device": "gpu", "no_copy": True} if on_gpu else {}
        image = fn.external_source(source=passes, cycle="raise", dtype=types.UINT8, ndim=3, layout="HWC", **source)
        return tuple(view(image, spec, blended, **form) for spec in recipe.views)

    pipe = pipeline()
    pipe.build()

    def run() -> Iterable[Any]:
        try:
            while True:
                # Copied, as above.
                views = [torch.from_dlpack(out.as_tensor()).clone() for out in pipe.run()]
                yield ([v.permute(0, 3, 1, 2) for v in views] if half else views,)
        except StopIteration:
            pipe.reset()

    return run


def decoded(
    inputs: Callable[[], Iterable[list[bytes]]], batch_size: int, threads: int, device: Any, hardware: float
) -> Callable[[], Iterable[Any]]:
    """From batches of JPEG bytes to lists of images, (H, W, 3), where DALI has them, each until the next batch but one.

    On a GPU by the "mixed" decoder, which leaves a part of each batch, `hardware`, to the hardware where there is such; on the
    CPU by the CPU's.
    """
    import numpy as np
    import torch
    from nvidia.dali import fn, pipeline_def, types

    on_gpu = device.type == "cuda"
    passes = Passes(lambda: ([np.frombuffer(jpeg, np.uint8) for jpeg in jpegs] for jpegs in inputs()))
    way = {"device": "mixed", "hw_decoder_load": hardware} if on_gpu else {"device": "cpu"}

    @pipeline_def(batch_size=batch_size, num_threads=threads, device_id=(device.index or 0) if on_gpu else None)
    def pipeline() -> Any:
        jpegs = fn.external_source(source=passes, cycle="raise", dtype=types.UINT8, ndim=1)
        return fn.decoders.image(jpegs, output_type=types.RGB, adjust_orientation=False, **way)

    pipe = pipeline()
    pipe.build()

    def run() -> Iterable[Any]:
        try:
            while True:
                (images,) = pipe.run()
                yield [torch.from_dlpack(images[i]) for i in range(len(images))]
        except StopIteration:
            pipe.reset()

    return run
