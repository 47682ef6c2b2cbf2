"""Checks of arguments that several loaders take."""

from __future__ import annotations

from typing import Any

from fastssl.ops.devices import as_device

__all__ = ["as_device", "check_count"]


def check_count(who: str, name: str, value: Any, least: int) -> int:
    """The value, if it is a whole number of at least `least`; else ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{who}: {name}={value!r} must be a whole number, at least {least}.")
    return value
