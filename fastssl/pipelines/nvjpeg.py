"""JPEGs decoded by nvJPEG, through torchvision: by the hardware decoder where the GPU has one (A100, H100 and newer)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torchvision.io

from fastssl.pipelines.decoder import Decoded, LeftImage, decoded_of, one_by_one

__all__ = ["NvjpegDecoder", "why_not_nvjpeg"]


def why_not_nvjpeg(device: torch.device) -> str | None:
    """Why nvJPEG cannot be used on this device; None if it can."""
    if device.type != "cuda":
        return f"nvJPEG decodes on a GPU of NVIDIA, and the device is {device}"
    try:
        black = torchvision.io.encode_jpeg(torch.zeros((3, 8, 8), dtype=torch.uint8, device="cpu"))
        torchvision.io.decode_jpeg([black], device=device)
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except RuntimeError as error:
        return f"torchvision {torchvision.__version__} cannot decode on {device}: {str(error).splitlines()[0]}"
    return None


class NvjpegDecoder:
    """Decodes whole images by `torchvision.io.decode_jpeg`.

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
        data = [image.data for image in images]
        decoded = torchvision.io.decode_jpeg(data, mode=torchvision.io.ImageReadMode.RGB, device=self._device)
        return [
            decoded_of(pixels, planes=True) if pixels.shape == (3, image.height, image.width) else None
            for image, pixels in zip(images, decoded, strict=True)
        ]
