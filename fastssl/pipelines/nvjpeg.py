"""JPEGs decoded by nvJPEG, through torchvision: by the hardware decoder where the GPU has one (A100, H100 and newer)."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import PIL.Image
import torch
import torchvision.io
from torch import Tensor

from fastssl.pipelines.decoder import Decoded, LeftImage, check_device, decoded_of, one_by_one
from fastssl.pipelines.streams import indexed

__all__ = ["NvjpegDecoder", "why_not_nvjpeg"]

# torchvision keeps one nvJPEG decoder in the process. For another GPU, or the same one by another name, it makes a new one and
# lets the memory of the old one leak; so there is one GPU, and one name.
_gpu: torch.device | None = None


def why_not_nvjpeg(device: torch.device) -> str | None:
    """Why nvJPEG cannot be used on this device; None if it can."""
    if device.type != "cuda":
        return f"nvJPEG decodes on a GPU of NVIDIA, and the device is {device}"
    global _gpu
    black = io.BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(black, "JPEG")
    try:
        device = indexed(device)
        if _gpu not in (None, device):
            return f"torchvision's nvJPEG serves {_gpu} in this process, and one GPU only; take a process for each GPU"
        # torchvision's decoder, made with the first call, lets a stream of the device wait that is current at that time.
        with torch.cuda.device(device):
            _decode_all([torch.from_numpy(np.frombuffer(black.getvalue(), dtype=np.uint8).copy())], device)
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except (RuntimeError, AttributeError) as error:  # the latter: torchvision's image operators could not be loaded
        return f"torchvision {torchvision.__version__} cannot decode on {device}: {str(error).splitlines()[0]}"
    _gpu = device
    return None


class NvjpegDecoder:
    """Decodes whole images by what `torchvision.io.decode_jpeg` calls.

    torchvision keeps one nvJPEG decoder in the process, so several of these take turns.

    Args:
        device: A GPU; on the CPU torchvision decodes by libjpeg-turbo, for tests.
    """

    name = "nvjpeg"

    def __init__(self, device: torch.device) -> None:
        self._device = indexed(device)

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
        try:
            return torch.ops.image.decode_jpegs_cuda(data, mode, device)
        except RuntimeError as error:  # whatever went wrong
            check_device("nvJPEG", device, error)
            raise
    return [torch.ops.image.decode_jpeg(encoded, mode, False) for encoded in data]
