"""The tasks of gpu_views.py: which contenders make views of which images on a GPU.

A contender's pieces end with waiting for the device, so that the harness times all of its work; besides, events on the device's
stream bracket it. With the device "cpu", fastssl's CUDA kernels run emulated, and everything else as it is: for tests.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from contenders import dali, kornia, ours, torchvision
from harness import CheckFailed, Run, Task
from view_checks import Sums, check_views
from view_recipes import CIFAR, DINO, SIMCLR, Recipe

UNIFORM = (400, 500)  # rows and columns of what the contenders get that need images of one size: 0.2 megapixels
EXPECTED_DRAWS = 2  # views of each image that torchvision's statistics are taken over
DALI_THREADS = 4


@dataclass(frozen=True)
class Pixels:
    """Decoded images on the device.

    Args:
        ragged: Each (H, W, 3), uint8.
        uniform: The same, resized to one size beforehand, (B, H, W, 3).
    """

    ragged: list[torch.Tensor]
    uniform: torch.Tensor
    _expected: dict[Any, dict[int, Sums]] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return self.uniform.device

    def megapixels(self) -> float:
        return statistics.fmean(image.shape[0] * image.shape[1] for image in self.ragged) / 1e6

    def expected(self, recipe: Recipe, uniform: bool, half: bool) -> dict[int, Sums]:
        """What torchvision's views of these images are like, in float, at last rounded as a batch of 16 bits is."""
        key = recipe.name, uniform, half
        if key not in self._expected:
            transform = torchvision.from_pixels(recipe, white=1)
            sums = {spec.size: Sums() for spec in recipe.views}
            for image in list(self.uniform if uniform else self.ragged) * EXPECTED_DRAWS:
                views = transform(image.permute(2, 0, 1).float() / 255)
                for spec, view in zip(recipe.views, views, strict=True):
                    sums[spec.size].add(rounded(view[None], half))
            self._expected[key] = sums
        return self._expected[key]


def pixels_of(images: Iterable[torch.Tensor], device: torch.device, size: tuple[int, int] = UNIFORM) -> Pixels:
    """Images, (H, W, 3), uint8, on the CPU, brought to the device."""
    ragged = [image.contiguous().to(device) for image in images]
    resized = [
        image
        if image.shape[:2] == size
        else torch.nn.functional.interpolate(
            image.permute(2, 0, 1)[None].float(), size, mode="bilinear", antialias=True
        )[0]
        .round_()
        .clamp_(0, 255)
        .byte()
        .permute(1, 2, 0)
        for image in ragged
    ]
    return Pixels(ragged, torch.stack(resized).contiguous())


def rounded(views: torch.Tensor, half: bool) -> torch.Tensor:
    """float32; of a task in 16 bits, what bfloat16 holds, for contenders whose type is float16 too."""
    return views.to(torch.bfloat16).float() if half else views


@dataclass(frozen=True)
class Inputs:
    """What every contender of a task gets.

    Args:
        pixels: The images.
        recipe: The views to make.
        batches: How often a pass goes through all images, a batch each time.
        half: To bfloat16 (DALI, which has none: float16), channels last; else to float32, (B, 3, H, W) in memory.
        uniform: Every contender gets the images of one size; else fastssl, torchvision and DALI get them as they are.
    """

    pixels: Pixels
    recipe: Recipe
    batches: int
    half: bool = True
    uniform: bool = False

    @property
    def size(self) -> int:
        return len(self.pixels.ragged)

    @property
    def form(self) -> dict[str, Any]:
        if self.half:
            return {"dtype": torch.bfloat16, "memory_format": torch.channels_last}
        return {"dtype": torch.float32, "memory_format": torch.contiguous_format}

    @cached_property
    def planar(self) -> list[torch.Tensor]:
        """(3, H, W) each, as torchvision wants them."""
        images = self.pixels.uniform if self.uniform else self.pixels.ragged
        return [image.permute(2, 0, 1).contiguous() for image in images]

    def repeated(self, batch: Any) -> Callable[[], Iterator[Any]]:
        return lambda: (batch for _ in range(self.batches))

    def bytes_of_an_image(self) -> float:
        """The least that making an image's views moves: its pixels read once, its views written once."""
        image = self.pixels.uniform[0] if self.uniform else None
        read = image.numel() if image is not None else statistics.fmean(i.numel() for i in self.pixels.ragged)
        return read + sum(3 * spec.size**2 for spec in self.recipe.views) * (2 if self.half else 4)


def checking(inputs: Inputs, uniform: bool, antialiased: bool = True) -> Callable[[Iterable[Any]], dict[str, Any]]:
    """Type and memory format, then the statistics that view_checks.py compares."""
    count = inputs.size * inputs.batches
    compare = check_views(
        inputs.recipe,
        count,
        inputs.size,
        lambda: inputs.pixels.expected(inputs.recipe, uniform, inputs.half),
        antialiased,
    )
    types = (torch.bfloat16, torch.float16) if inputs.half else (torch.float32,)

    def checked(batches: Iterable[Any]) -> Iterator[Any]:
        for (views,) in batches:
            for view in views:
                if view.dtype not in types or view.device != inputs.pixels.device:
                    raise CheckFailed(f"{view.dtype} on {view.device}, not {types} on {inputs.pixels.device}")
                if not view.is_contiguous(memory_format=inputs.form["memory_format"]):
                    raise CheckFailed(f"strides {view.stride()}, not those of {inputs.form['memory_format']}")
            yield ([rounded(view.float(), inputs.half) for view in views],)

    return lambda batches: compare(checked(batches))


def waited(run: Run, device: torch.device, spans: list[float]) -> Run:
    """The same pieces; behind the last one the device is waited for, and its own seconds are noted."""

    def call() -> Iterator[Any]:
        if device.type != "cuda":
            yield from run()
            return
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        yield from run()
        end.record()
        end.synchronize()
        spans.append(begin.elapsed_time(end) / 1e3)

    return call


class GpuTask(Task):
    """A task whose contenders wait for the device.

    Args:
        spans: The device's seconds of each contender's passes; the first is that of the check.
    """

    def __init__(self, title: str, inputs: Inputs) -> None:
        settings = {"batch": inputs.size, "type": "16 bits, channels last" if inputs.half else "float32"}
        super().__init__(
            title, "images", inputs, inputs.size * inputs.batches, checking(inputs, inputs.uniform), settings
        )
        self.spans: dict[str, list[float]] = {}

    def contender(self, name: str, *needs: str, **more: Any) -> Any:
        spans = self.spans.setdefault(name, [])
        register = super().contender(name, *needs, **more)

        def add(make: Callable[[Inputs], Run]) -> Any:
            register(lambda inputs: waited(make(inputs), inputs.pixels.device, spans))
            return make

        return add

    def records(self, *, rounds: int, slow_rounds: int) -> list[dict[str, Any]]:
        """Checked and timed, as it goes into the JSON."""
        records = [result.to_json() for result in self.run(rounds=rounds, slow_rounds=slow_rounds)]
        for record in records:
            record["bytes_an_image"] = self.inputs.bytes_of_an_image()
            if "median_s" in record and len(self.spans[record["contender"]]) > 1:
                record["device_median_s"] = statistics.median(self.spans[record["contender"]][1:])
        return records


OURS, ONE_TENSOR = "fastssl", "fastssl, one tensor"


def make_task(title: str, inputs: Inputs) -> GpuTask:
    task = GpuTask(title, inputs)
    device = inputs.pixels.device

    def fastssl(images: Any) -> Run:
        kernels = {} if device.type == "cuda" else {"workspace_bytes": 1 << 20}
        return ours.rendered(inputs.recipe, images, inputs.batches, inputs.form["dtype"], inputs.half, **kernels)

    if not inputs.uniform:

        @task.contender(OURS, "fastssl")
        def _(inputs: Inputs) -> Run:
            return fastssl(inputs.pixels.ragged)

    uniform = checking(inputs, uniform=True)

    @task.contender(OURS if inputs.uniform else ONE_TENSOR, "fastssl", check=uniform)
    def _(inputs: Inputs) -> Run:
        return fastssl(inputs.pixels.uniform)

    def with_kornia(mode: str) -> Run:
        planar = inputs.pixels.uniform.permute(0, 3, 1, 2).contiguous()
        return kornia.batches_of_pixels(inputs.recipe, inputs.repeated(planar), device, mode, **inputs.form)

    aliased = checking(inputs, uniform=True, antialiased=False)

    @task.contender("kornia", "kornia", slow=True, check=aliased)
    def _(inputs: Inputs) -> Run:
        return with_kornia("slice")

    @task.contender("kornia, crops by warping", "kornia", slow=True, check=aliased)
    def _(inputs: Inputs) -> Run:
        return with_kornia("resample")

    @task.contender("torchvision v2", slow=True)
    def _(inputs: Inputs) -> Run:
        return torchvision.batches_of_pixels(inputs.recipe, inputs.repeated(inputs.planar), **inputs.form)

    def with_dali(blended: bool) -> Run:
        images = list(inputs.pixels.uniform) if inputs.uniform else inputs.pixels.ragged
        batches = inputs.repeated(images)
        return dali.batches_of_pixels(
            inputs.recipe, batches, inputs.size, DALI_THREADS, device, inputs.half, blended=blended
        )

    @task.contender("DALI", "nvidia.dali", slow=True)
    def _(inputs: Inputs) -> Run:
        return with_dali(blended=False)

    @task.contender("DALI, steps blended", "nvidia.dali", slow=True)
    def _(inputs: Inputs) -> Run:
        return with_dali(blended=True)

    return task


@dataclass(frozen=True)
class Kind:
    """What makes a task: a recipe, and how its images and views are laid out."""

    recipe: Recipe
    half: bool = True
    uniform: bool = False


TASKS = {
    "simclr": Kind(SIMCLR),
    "dino": Kind(DINO),
    "simclr, one size": Kind(SIMCLR, uniform=True),
    "simclr, float32": Kind(SIMCLR, half=False),
    "cifar": Kind(CIFAR, uniform=True),
}
