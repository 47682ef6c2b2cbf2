"""Devices by name."""

from __future__ import annotations

import torch

__all__ = ["as_device"]


def as_device(who: str, device: str | torch.device) -> torch.device:
    """The device of that name; ValueError if there is none."""
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f'{who}: device={device!r} must be a device of torch, such as "cpu" or "cuda:0".') from error
