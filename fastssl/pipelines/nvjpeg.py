"""JPEGs decoded by nvJPEG, through torchvision: by the hardware decoder where the GPU has one (A100, H100 and newer)."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import PIL.Image
import torch
import torchvision.io
from torch import Tensor

from fastssl.pipelines.decoder import Decoded, LeftImage, decoded_of, one_by_one

__all__ = ["NvjpegDecoder", "why_not_nvjpeg"]


def why_not_nvjpeg(device: torch.device) -> str | None:
    """Why nvJPEG cannot be used on this device; None if it can."""
    if device.type != "cuda":
        return f"nvJPEG decodes on a GPU of NVIDIA, and the device is {device}"
    black = io.BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(black, "JPEG")
    try:
        # torchvision's decoder, made with the first call, lets a stream of the device wait that is current at that time.
        with torch.cuda.device(device):
            _decode_all([torch.from_numpy(np.frombuffer(black.getvalue(), dtype=np.uint8).copy())], device)
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except (RuntimeError, AttributeError) as error:  # the latter: torchvision's image operators could not be loaded
        return f"torchvision {torchvision.__version__} cannot decode on {device}: {str(error).splitlines()[0]}"
    return None


class NvjpegDecoder:
    """Decodes whole images by what `torchvision.io.decode_jpeg` calls.

    torchvision keeps one nvJPEG decoder in the process, so several of these take turns.

    Args:
        device: A GPU; on the CPU torchvision decodes by libjpeg-turbo, for tests.
    """

    name = "nvjpeg"

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def decode(self, images: Sequence[LeftImage]) -> list[Decoded | None]:
        return one_by_one(self._decode, images)

    def _decode(self, images: Sequence[LeftImage]) -> list[Decoded | None]:
        return [
            decoded_of(pixels, planes=True) if pixels.shape == (3, image.height, image.width) else None
            for image, pixels in zip(images, _decode_all([image.data for image in images], self._device), strict=True)
        ]


def _decode_all(data: list[Tensor], device: torch.device) -> list[Tensor]:
    # Not torchvision.io.decode_jpeg: since release 0.29 it warns, with each call, that it will go.
    mode = torchvision.io.ImageReadMode.RGB.value
    if device.type == "cuda":
        return torch.ops.image.decode_jpegs_cuda(data, mode, device)
    return [torch.ops.image.decode_jpeg(encoded, mode, False) for encoded in data]
