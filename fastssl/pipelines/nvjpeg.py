"""JPEGs decoded by nvJPEG, through torchvision: by the hardware decoder where the GPU has one (A100, H100 and newer)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torchvision
from torch import Tensor
from torchvision.io import ImageReadMode

from fastssl.pipelines.decoder import Decoded, LeftImage, decoded_of, one_by_one

__all__ = ["NvjpegDecoder", "why_not_nvjpeg"]


def why_not_nvjpeg(device: torch.device) -> str | None:
    """Why nvJPEG cannot be used on this device; None if it can."""
    if device.type != "cuda":
        return f"nvJPEG decodes on a GPU of NVIDIA, and the device is {device}"
    try:
        black = torch.ops.image.encode_jpeg(torch.zeros((3, 8, 8), dtype=torch.uint8, device="cpu"), 75)
        _decode([black], device)
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except (RuntimeError, AttributeError) as error:  # AttributeError: it has no such operator
        return f"torchvision {torchvision.__version__} cannot decode on {device}: {str(error).splitlines()[0]}"
    return None


class NvjpegDecoder:
    """Decodes whole images, as `torchvision.io.decode_jpeg` does.

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
            for image, pixels in zip(images, _decode([image.data for image in images], self._device), strict=True)
        ]


def _decode(data: list[Tensor], device: torch.device) -> list[Tensor]:
    """(3, H, W) each. The operators beneath torchvision.io.decode_jpeg, which since 0.29 warns at each call."""
    mode = ImageReadMode.RGB.value
    if device.type == "cuda":
        return list(torch.ops.image.decode_jpegs_cuda(data, mode, device))
    return [torch.ops.image.decode_jpeg(image, mode, False) for image in data]
