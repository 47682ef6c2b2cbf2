"""The views of a recipe by DALI's operators alone, as a plan says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from fastssl._native import _C, available_cpus
from fastssl.ops.devices import as_device
from fastssl.ops.render import check_plan, encode_recipe, native_views
from fastssl.ops.threads import check_threads
from fastssl.pipelines.dali_graph import BLENDS, COLUMNS, Numbers, make_view
from fastssl.pipelines.dali_modules import built, dali, fn, types
from fastssl.pipelines.streams import indexed
from fastssl.transforms._checks import check_whole
from fastssl.transforms.plan import Plan
from fastssl.transforms.view import Recipe, View

__all__ = ["DaliViews"]

_BITS = 8  # that posterize counts with, and keeps if it keeps all


class DaliViews:
    """Makes views by DALI's operators, fed with a plan: for who wants nothing but DALI, and to compare with.

    The meaning of every step is that of `fastssl.ops.render`, for which most are composed of several operators (see
    `fastssl.pipelines.dali_graph`): some 300 a view with colours, where `ops.render` needs a few launches for all views.

        views = fastssl.pipelines.DaliViews(recipe, batch_size=256)
        for images, targets, _ in fastssl.pipelines.DaliBatches(reader, batch_size=256):
            plan = fastssl.Plan.draw(recipe, [image.shape[:2] for image in images], seed=0)
            view0, view1 = views(images, plan)

    Args:
        recipe: V views.
        batch_size: Images of a call, at most.
        device: Where the images are: a GPU or the CPU.
        threads: Of the host; None for all CPUs.
        dtype: Of the views, float32 or float16; DALI has no bfloat16.

    Raises:
        ValueError: A view has a step that DALI cannot do (the message says which, and what to write instead), or an argument is
            out of its range.

    Measured on photographs of ImageNet, over all recipes but FDA's: at most 0.16/255, 0.004/255 on average; and 1/255 where
        solarize's threshold lies between, of two values in a million.

    Max error: against `fastssl.ops.render`, before normalization, 0.02/255; with bicubic crops or Gaussian blur 0.5/255, as DALI
        reads the cubic filter off a table, ops.render cuts the Gaussian off earlier, and colours may multiply both; with float16,
        its rounding besides. But next to a threshold of solarize or posterize, or where a rotation's nearest pixel is undecided,
        a value may be another.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        batch_size: int = 256,
        device: str | torch.device = "cuda",
        threads: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._encoded = encode_recipe(recipe)
        self.recipe = tuple(recipe)
        for v, view in enumerate(self.recipe):
            _check(v, view)
        if dtype not in (torch.float32, torch.float16):
            raise ValueError(
                f"DaliViews: dtype={dtype} must be torch.float32 or torch.float16; fastssl.ops.render makes views of {dtype}."
            )
        self.dtype = dtype
        self.batch_size = check_whole("DaliViews", "batch_size", batch_size, 1)
        self.device = as_device("DaliViews", device)
        if self.device.type not in ("cuda", "cpu"):
            raise ValueError(f'DaliViews: device="{self.device}"; DALI computes on "cuda" or "cpu".')
        self.device = indexed(self.device)
        self._threads = available_cpus() if threads is None else check_threads("DaliViews", threads)
        self._pipeline: Any = None
        self._pid = os.getpid()  # of the process that has it

    def __call__(self, images: Sequence[Tensor], plan: Plan) -> list[Tensor]:
        """The views of these images.

        Args:
            images: B tensors, (H, W, 3), uint8, contiguous, on the device. A GPU copies them once, as DALI wants them in one
                block.
            plan: What was drawn for them.

        Returns:
            V tensors, (B, 3, S, S), in memory of DALI's, in the order of torch's current stream.

        Raises:
            TypeError: An image is no such tensor.
            ValueError: There are none, or too many, or the plan does not fit them.
        """
        self._check_images(images)
        data = check_plan(plan, images, self.recipe)
        sizes = data[:, 0, [Plan.FIELDS.index("source_height"), Plan.FIELDS.index("source_width")]].tolist()
        for i, (image, size) in enumerate(zip(images, sizes, strict=True)):
            if list(image.shape[:2]) != size:
                raise ValueError(
                    f"DaliViews: the plan was drawn for {size[0]:.0f} x {size[1]:.0f} pixels (height x width), and image {i} has "
                    f"{image.shape[0]} x {image.shape[1]}; draw it with the sizes of these images, in this order."
                )
        _C.compile(native_views(self._encoded), len(images), data.data_ptr(), 3)  # raises for what no plan may hold
        if self._pipeline is None or self._pid != os.getpid():
            self._pipeline, self._pid = self._make(), os.getpid()
        try:
            outputs = self._run(self._pipeline, images, Plan(data))
        except BaseException:  # the next call must not be given what this one began, and Ctrl-C or an error ended
            self._pipeline = None
            raise
        return [from_dlpack(output.as_tensor()) for output in outputs]

    def _run(self, pipeline: Any, images: Sequence[Tensor], plan: Plan) -> Any:
        on_gpu = self.device.type == "cuda"
        stream = torch.cuda.current_stream(self.device) if on_gpu else None
        pipeline.feed_input("images", [image if on_gpu else image.numpy() for image in images], cuda_stream=stream)
        pipeline.feed_input("numbers", _numbers(plan, self.recipe))
        for v, view in enumerate(self.recipe):
            if _boxed(view):
                pipeline.feed_input(f"kernel{v}", [_box_kernel(s) for s in plan.sigma_px[:, v].tolist()])
        pipeline.schedule_run()
        outputs = pipeline.share_outputs(stream)
        pipeline.release_outputs()
        return outputs

    def _check_images(self, images: Sequence[Tensor]) -> None:
        if not 1 <= len(images) <= self.batch_size:
            raise ValueError(
                f"DaliViews: got {len(images)} images; batch_size={self.batch_size} allows for 1 to that many."
            )
        for i, image in enumerate(images):
            fits = isinstance(image, Tensor) and image.dtype == torch.uint8 and image.dim() == 3 and image.shape[2] == 3
            if not fits or image.device != self.device or not image.is_contiguous():
                got = (
                    f"{image.dtype}, {tuple(image.shape)}, strides {image.stride()}, on {image.device}"
                    if isinstance(image, Tensor)
                    else type(image).__name__
                )
                raise TypeError(
                    f"DaliViews: image {i} is {got}; images are uint8, (H, W, 3), contiguous, on {self.device}, as "
                    "fastssl.pipelines.DaliBatches gives them."
                )

    def _make(self) -> Any:
        on_gpu, half = self.device.type == "cuda", self.dtype == torch.float16

        @dali.pipeline_def(
            batch_size=self.batch_size,
            num_threads=self._threads,
            device_id=self.device.index if on_gpu else None,
            prefetch_queue_depth=1,
            exec_dynamic=True,
            enable_conditionals=True,
        )
        def views() -> Any:
            images = fn.external_source(
                name="images",
                device="gpu" if on_gpu else "cpu",
                dtype=types.UINT8,
                ndim=3,
                layout="HWC",
                no_copy=True,
            )
            node = fn.external_source(name="numbers", dtype=types.FLOAT, ndim=2)
            kernels = [
                fn.external_source(name=f"kernel{v}", dtype=types.FLOAT, ndim=2) if _boxed(view) else None
                for v, view in enumerate(self.recipe)
            ]
            return tuple(
                make_view(images, view, Numbers(node, v, on_gpu), kernels[v], half)
                for v, view in enumerate(self.recipe)
            )

        return built(views())


def _check(v: int, view: View) -> None:
    if view.custom is not None:
        raise ValueError(
            f"DaliViews: view {v} has custom={view.custom!r}, and DALI's operators know no step of your own; leave it out by "
            "view.with_(custom=None), or make the views by fastssl.ops.render."
        )


def _boxed(view: View) -> bool:
    return view.blur is not None and view.blur.kind == "box"


def _numbers(plan: Plan, recipe: Recipe) -> np.ndarray:
    """(B, V, len(COLUMNS)), float32."""
    p = {name: plan.data[:, :, i].numpy().astype(np.float64) for i, name in enumerate(Plan.FIELDS)}
    out: dict[str, Any] = {}
    support = np.array([2.0 if view.crop.interpolation == "bicubic" else 1.0 for view in recipe])
    sizes = np.array([view.size for view in recipe])
    for axis, side, start in (("y", "height", "top"), ("x", "width", "left")):
        low = np.floor(p[start])
        high = np.minimum(p[f"source_{side}"], np.maximum(np.ceil(p[start] + p[side]), low + 1))
        frame = np.ceil(support * np.maximum(p[side] / sizes, 1)) + 1
        out[f"start_{axis}"], out[f"shape_{axis}"], out[f"frame_{axis}"] = low, high - low, frame
        out[f"from_{axis}"] = frame + p[start] - low
        out[f"to_{axis}"] = out[f"from_{axis}"] + p[side]
    # The mirrored view, transposed, is the turned one.
    turns = p["turns"]
    out["mirror_x"] = (p["flip_h"] != 0) ^ np.isin(turns, (1, 2))
    out["mirror_y"] = (p["flip_v"] != 0) ^ np.isin(turns, (2, 3))
    out["transposed"] = np.isin(turns, (1, 3))
    out["angle"] = np.fmod(p["angle"], 360)
    out |= _jitter_numbers(p)
    out["grayscale"], out["sigma_px"] = p["grayscale"], p["sigma_px"]
    out["window"] = 2 * np.ceil(4 * p["sigma_px"]) + 1
    out["solarize"] = np.isfinite(p["solarize"])
    out["threshold"] = np.where(out["solarize"], p["solarize"], 2)
    out["posterize"] = np.where(p["posterize"] < _BITS, 2 ** (_BITS - p["posterize"]), 0)
    out["erase"] = (p["erase_height"] > 0) & (p["erase_width"] > 0)
    for to, name in (("y", "top"), ("x", "left"), ("height", "height"), ("width", "width")):
        out[f"erase_{to}"] = p[f"erase_{name}"]
    shape = plan.data.shape[:2]
    return np.stack([np.broadcast_to(out[name], shape) for name in COLUMNS], axis=-1).astype(np.float32)


def _jitter_numbers(p: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Brightness (0), contrast (1) and saturation (2) in slots before the hue (3) and after it, in the drawn order."""
    order = np.stack([p[f"order{slot}"].astype(int) for slot in range(4)], axis=-1)
    factors = np.stack([p["brightness"], p["contrast"], p["saturation"], np.ones_like(p["hue"])], axis=-1)
    place = np.argmax(order == 3, axis=-1)  # of the hue
    out: dict[str, np.ndarray] = {}
    for slot in range(2 * BLENDS):
        # In the order: slots before the hue count from 0, those after it from 1.
        at = slot if slot < BLENDS else slot - BLENDS + 1
        kind = order[..., at]
        factor = np.take_along_axis(factors, kind[..., None], -1)[..., 0]
        idle = ((at >= place) if slot < BLENDS else (at <= place)) | (factor == 1)
        out[f"luma_{slot}"] = np.where(idle, -1, kind > 0)
        out[f"factor_{slot}"], out[f"mean_{slot}"] = factor, kind == 1
    sixths = 6 * p["hue"]
    out["turn"] = np.where(p["hue"] == 0, 0, np.where(sixths < 1, sixths + 6, sixths))
    out["jitter"] = (factors != 1).any(-1) | (p["hue"] != 0)
    return out


def _box_kernel(sigma: float) -> np.ndarray:
    """Extended box filter, (K, K), that, passed over three times, has the variance of a Gaussian of this deviation.

    Source: Gwosdek et al., "Theoretical foundations of Gaussian convolution by extended box filtering", SSVM 2011.
    """
    variance = sigma * sigma / 3
    whole = np.floor((np.sqrt(12 * variance + 1) - 1) / 2)
    edge = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    row = np.ones(2 * int(whole) + 3)
    row[[0, -1]] = edge
    row /= 2 * (whole + edge) + 1
    return np.outer(row, row).astype(np.float32)
