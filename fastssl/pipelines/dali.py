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
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch

from fastssl.pipelines.dali_modules import dali, fn, types, why_not_dali
from fastssl.pipelines.decoder import Decoded, LeftImage, check_device, one_by_one
from fastssl.pipelines.streams import indexed

__all__ = ["DaliDecoder", "why_not_dali_on"]


@functools.lru_cache
def why_not_dali_on(device: torch.device) -> str | None:
    """Why DALI cannot decode for this device; None if it can, which is tried."""
    if device.type != "cuda":
        return f"DALI decodes for a GPU of NVIDIA, and the device is {device}"
    return why_not_dali() or _why_it_cannot_decode(device)


def _why_it_cannot_decode(device: torch.device) -> str | None:
    black = io.BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(black, "JPEG")
    data = torch.from_numpy(np.frombuffer(black.getvalue(), dtype=np.uint8).copy())
    try:
        DaliDecoder(device, 1, 1)._decode([LeftImage(0, data, 8, 8, (0, 0, 8, 8))])
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except (RuntimeError, ImportError, OSError, AttributeError, TypeError) as error:  # the last two: an older DALI
        lines = [line for line in str(error).splitlines() if line.strip()]
        return f"DALI cannot decode on {device}: {' '.join(lines)}"
    return None


class DaliDecoder:
    """Decodes by a DALI pipeline of one operator, that is fed the encoded images where they lie.

    What comes out lies in memory of DALI's, one block a batch, which its owner keeps and DALI does not use again before; it is
    handed on by address. EXIF orientations are left alone, gray images become RGB, and chroma is interpolated on the GPU as on
    the CPU. On the CPU the pixels are those of `fastssl.ops.decode`, to the last bit.

    A batch that DALI cannot decode is decoded again in halves, down to the images at fault.

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
        self._under_way: Sequence[LeftImage] = ()  # held until DALI has done with them, or is gone

    def decode(self, images: Sequence[LeftImage]) -> list[Decoded | None]:
        decoded = one_by_one(self._decode, images)
        if images and not any(decoded):
            self._pipeline = None  # should an error have harmed it, the next batch gets another
        return decoded

    def start(self, images: Sequence[LeftImage]) -> None:
        """Lets DALI begin with these images, at least one, and comes back at once; `finish_or_redo` or `abandon` must follow."""
        if self._under_way:  # an earlier call, which Ctrl-C or an error ended: its images are not to be taken for these
            self.abandon()
        if self._pipeline is None or len(images) > self._batch_size:
            self._batch_size = max(self._batch_size, len(images))
            self._pipeline = self._make()
        self._under_way = images
        # Arrays over the images' own memory: DALI takes them without a copy, and what it reads later does not keep them alive.
        self._pipeline.feed_input("encoded", [image.data.numpy() for image in images])
        if self._windows:
            windows = np.array([image.window for image in images], dtype=np.int32)
            self._pipeline.feed_input("start", np.ascontiguousarray(windows[:, :2]))
            self._pipeline.feed_input("shape", np.ascontiguousarray(windows[:, 2:]))
        self._pipeline.schedule_run()

    def _finish(self, images: Sequence[LeftImage]) -> list[Decoded | None]:
        """What `start` began with these images, in the order of torch's current stream.

        Raises:
            RuntimeError: DALI cannot decode one of them.
            torch.OutOfMemoryError, torch.AcceleratorError: The device is at fault.
        """
        assert self._pipeline is not None
        try:
            (pixels,) = self._pipeline.share_outputs(self._stream())
            self._pipeline.release_outputs()
        except (RuntimeError, ValueError, TypeError, IndexError, OverflowError, MemoryError) as error:
            self._under_way = ()  # DALI has done with a batch that failed
            check_device("DALI", self._device, error)
            raise RuntimeError(str(error)) from error
        self._under_way = ()
        return [self._decoded(image, pixels, i) for i, image in enumerate(images)]

    def finish_or_redo(self, images: Sequence[LeftImage]) -> list[Decoded | None]:
        """As `decode`, of images that `start` was given."""
        try:
            return self._finish(images)
        except (torch.OutOfMemoryError, torch.AcceleratorError):  # RuntimeErrors, too, but of the device
            raise
        except RuntimeError:
            return self.decode(images)

    def abandon(self) -> None:
        """Forgets what `start` began, and nobody will finish."""
        self._pipeline = None
        self._under_way = ()

    def _decode(self, images: Sequence[LeftImage]) -> list[Decoded | None]:
        self.start(images)
        return self._finish(images)

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
        # One batch at a time: who feeds it waits for it. The dynamic executor gives each batch memory of its own.
        pipeline = dali.Pipeline(
            batch_size=self._batch_size,
            num_threads=self._threads,
            device_id=self._device.index if on_gpu else None,
            prefetch_queue_depth=1,
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
        pipeline.build()
        return pipeline
