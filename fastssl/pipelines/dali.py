"""JPEGs decoded by NVIDIA DALI: by the GPU's JPEG engine where it has one, beside kernels and threads of the host.

Whether DALI decodes the whole image or the window that its views need:

- On a GPU, the whole. The JPEG engine (A100, H100 and newer) works through all of the coded data in any case, so a window would
  save memory and no time; interpolated chroma, which libjpeg-turbo has and so all else here, nvJPEG refuses beside a window
  before its release 13.2; and nvImageCodec 0.9, which DALI 2.4 needs, fails on windows on some GPUs and ends the process on
  others (NVIDIA/nvImageCodec, issue 55).
- On the CPU, the window: libjpeg-turbo then leaves out the transform and the colours of the rest, and the pixels are the same. Of
  ImageNet's photographs, the windows of two SimCLR views (65 % of the pixels) take 9 % less time, their middle quarters 32 %.
"""

from __future__ import annotations

import functools
import io
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch

from fastssl.pipelines.dali_modules import built, dali, fn, types, why_not_dali
from fastssl.pipelines.decoder import Decoded, LeftImage, check_device, one_by_one
from fastssl.pipelines.streams import indexed

__all__ = ["DaliDecoder", "why_not_dali_on"]

# Batches that may be begun and not finished. On an H100 DALI decodes 15,900 images/s one batch at a time, 20,900 with two.
_UNDER_WAY = 2


@functools.lru_cache
def why_not_dali_on(device: torch.device) -> str | None:
    """Why DALI cannot decode for this device; None if it can, which is tried."""
    if device.type != "cuda":
        return f"DALI decodes for a GPU of NVIDIA, and the device is {device}"
    return why_not_dali() or _why_it_cannot_decode(device)


def _why_it_cannot_decode(device: torch.device) -> str | None:
    try:
        DaliDecoder(device, 1, 1)._at_once([_black()])
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except (RuntimeError, ImportError, OSError, AttributeError, TypeError) as error:  # the last two: an older DALI
        lines = [line for line in str(error).splitlines() if line.strip()]
        return f"DALI cannot decode on {device}: {' '.join(lines)}"
    return None


def _black() -> LeftImage:
    file = io.BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(file, "JPEG")
    return LeftImage(0, torch.from_numpy(np.frombuffer(file.getvalue(), dtype=np.uint8).copy()), 8, 8, (0, 0, 8, 8))


@dataclass
class _Begun:
    """A batch that DALI was given; what came of it, once it was asked for that."""

    images: Sequence[LeftImage]  # held until DALI has done with them, or is gone
    decoded: list[Decoded | None] | None = None
    error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.decoded is not None or self.error is not None


class DaliDecoder:
    """Decodes by a DALI pipeline of one operator, that is fed the encoded images where they lie.

    What comes out lies in memory of DALI's, one block a batch, which its owner keeps and DALI does not use again before; it is
    handed on by address. EXIF orientations are left alone, gray images become RGB, and chroma is interpolated on the GPU as on
    the CPU. On the CPU the pixels are those of `fastssl.ops.decode`, to the last bit.

    A batch that DALI cannot decode is decoded again in halves, down to the images at fault, once what else was begun is done.

    Args:
        device: A GPU; or the CPU, for tests.
        batch_size: Images of a call, at most; a larger one makes a larger pipeline.
        threads: Of the host, DALI's own.
    """

    name = "dali"

    def __init__(self, device: torch.device, batch_size: int, threads: int) -> None:
        self._device = indexed(device)
        self._batch_size = batch_size
        self._threads = threads
        self._windows = device.type == "cpu"
        self._pipeline: Any = None
        self._pid = os.getpid()  # of the process that has it
        self._begun: deque[_Begun] = deque()  # the oldest first

    def decode(self, images: Sequence[LeftImage]) -> list[Decoded | None]:
        if self._begun:  # by an earlier call, which Ctrl-C or an error ended
            self.abandon()
        return self._in_halves(images)

    def start(self, images: Sequence[LeftImage]) -> None:
        self._begun.append(self._given(images))

    def finish(self) -> list[Decoded | None]:
        self._drop_inherited()
        batch = self._begun[0]
        try:
            self._collect(batch)
            if batch.error is not None:  # it is decoded again: what comes of that is not to be taken for these
                for other in self._begun:
                    self._collect(other)
        except BaseException:
            self.abandon()
            raise
        self._begun.popleft()
        if batch.decoded is not None:
            return batch.decoded
        assert batch.error is not None
        check_device("DALI", self._device, batch.error)
        return self._in_halves(batch.images)

    def abandon(self) -> None:
        self._pipeline = None
        self._begun.clear()

    def _in_halves(self, images: Sequence[LeftImage]) -> list[Decoded | None]:
        decoded = one_by_one(self._at_once, images)
        if images and not any(decoded):
            self._drop()  # should an error have harmed it, the next batch gets another
        return decoded

    def _at_once(self, images: Sequence[LeftImage]) -> list[Decoded | None]:
        """These images, while of no others there is anything to come.

        Raises:
            RuntimeError: DALI cannot decode one of them.
            torch.OutOfMemoryError, torch.AcceleratorError: The device is at fault.
        """
        batch = self._given(images)
        try:
            self._collect(batch)
        except BaseException:  # what DALI has for these is not to be taken for others
            self._drop()
            raise
        if batch.decoded is None:
            assert batch.error is not None
            check_device("DALI", self._device, batch.error)
            raise RuntimeError(str(batch.error)) from batch.error
        return batch.decoded

    def _given(self, images: Sequence[LeftImage]) -> _Begun:
        """A batch with which DALI begins; or that holds the error of that, for which the pipeline is let go of."""
        batch = _Begun(images)
        try:
            self._schedule(images)
        except (RuntimeError, MemoryError) as error:
            batch.error = error
            self._drop()
        except BaseException:
            self._drop()
            raise
        return batch

    def _schedule(self, images: Sequence[LeftImage]) -> None:
        self._drop_inherited()
        if self._pipeline is None or len(images) > self._batch_size:
            for batch in self._begun:
                self._collect(batch)
            self._batch_size = max(self._batch_size, len(images))
            self._pipeline = self._run_in(self._make())
        self._feed(self._pipeline, images)
        self._pipeline.schedule_run()

    def _feed(self, pipeline: Any, images: Sequence[LeftImage]) -> None:
        # Arrays over the images' own memory: DALI takes them without a copy, and what it reads later does not keep them alive.
        pipeline.feed_input("encoded", [image.data.numpy() for image in images])
        if self._windows:
            windows = np.array([image.window for image in images], dtype=np.int32)
            pipeline.feed_input("start", np.ascontiguousarray(windows[:, :2]))
            pipeline.feed_input("shape", np.ascontiguousarray(windows[:, 2:]))

    def _collect(self, batch: _Begun) -> None:
        """What came of a batch, the next that DALI was given, in the order of torch's current stream."""
        if batch.done:
            return
        try:
            (pixels,) = self._pipeline.share_outputs(self._stream())
            self._pipeline.release_outputs()
        except (RuntimeError, ValueError, TypeError, IndexError, OverflowError, MemoryError) as error:
            batch.error = error  # and DALI has done with it
        else:
            batch.decoded = [self._decoded(image, pixels, i) for i, image in enumerate(batch.images)]

    def _drop_inherited(self) -> None:
        """In a forked child, the pipeline of its parent; Note [Forks]."""
        if self._pid != os.getpid():
            self._drop()
            self._pid = os.getpid()

    def _drop(self) -> None:
        """Lets go of the pipeline; what is lost with it is decoded again when it is asked for."""
        self._pipeline = None
        for batch in self._begun:
            if not batch.done:
                batch.error = RuntimeError("the pipeline that decoded it is gone")

    def _decoded(self, image: LeftImage, pixels: Any, i: int) -> Decoded | None:
        top, left, rows, columns = image.window if self._windows else (0, 0, image.height, image.width)
        tensor = pixels[i]
        if tuple(tensor.shape()) != (rows, columns, 3):
            return None
        return Decoded(tensor.data_ptr(), 3 * columns, 0, top, left, rows, columns, tensor)

    def _stream(self) -> Any:
        """What the outputs are bound to: used in its order, and their memory given back in its order."""
        return torch.cuda.current_stream(self._device) if self._device.type == "cuda" else None

    def _make(self) -> Any:
        on_gpu = self._device.type == "cuda"
        # The dynamic executor gives each batch memory of its own.
        pipeline = dali.Pipeline(
            batch_size=self._batch_size,
            num_threads=self._threads,
            device_id=self._device.index if on_gpu else None,
            prefetch_queue_depth=_UNDER_WAY,
            exec_dynamic=True,
        )
        common = {"output_type": types.RGB, "adjust_orientation": False}
        with pipeline:
            encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1, no_copy=True)
            if on_gpu:
                # Threads that are tied to CPUs of DALI's choice would be in the way of the Loader's.
                pixels = fn.decoders.image(encoded, device="mixed", jpeg_fancy_upsampling=True, affine=False, **common)
            else:
                start = fn.external_source(name="start", dtype=types.INT32, ndim=1)
                shape = fn.external_source(name="shape", dtype=types.INT32, ndim=1)
                pixels = fn.decoders.image_slice(encoded, start=start, shape=shape, axes=[0, 1], device="cpu", **common)
            pipeline.set_outputs(pixels)
        return built(pipeline)

    def _run_in(self, pipeline: Any) -> Any:
        """The pipeline after its first call, with which DALI begins as many batches as may be under way, there or not."""
        blacks = [[_black()] for _ in range(_UNDER_WAY)]
        for black in blacks:
            self._feed(pipeline, black)
        pipeline.schedule_run()
        for _ in blacks:
            pipeline.share_outputs()  # of no stream: waits
            pipeline.release_outputs()
        return pipeline
