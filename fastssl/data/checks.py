"""Checks of arguments that several loaders take."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["as_device", "check_count"]


def check_count(who: str, name: str, value: Any, least: int) -> int:
    """The value, if it is a whole number of at least `least`; else ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{who}: {name}={value!r} must be a whole number, at least {least}.")
    return value


def as_device(who: str, device: str | torch.device) -> torch.device:
    """The device of that name; ValueError if there is none."""
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f'{who}: device={device!r} must be a device of torch, such as "cpu" or "cuda:0".') from error
