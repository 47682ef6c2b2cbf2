"""What the parts of a view have in common: checks of their arguments."""

from __future__ import annotations

from typing import Any

__all__ = ["check_interpolation", "check_p", "check_pair", "check_size", "number"]

_MAX_SIZE = 16384  # kMaxSize of csrc/core/program.h, which checks it again


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def check_p(who: str, p: Any) -> None:
    if not number(p) or not 0 <= p <= 1:
        raise ValueError(f"{who}: p={p!r} must be a probability, from 0 to 1.")


def check_pair(part: Any, name: str) -> tuple[float, float]:
    pair = getattr(part, name)
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(number(v) for v in pair):
        raise ValueError(f"{type(part).__name__}: {name}={pair!r} must be two numbers, the least and the greatest.")
    object.__setattr__(part, name, tuple(pair))  # a list would not be hashable
    return pair[0], pair[1]


def check_size(who: str, size: Any) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= _MAX_SIZE:
        raise ValueError(
            f"{who}: size={size!r} must be a whole number of pixels from 1 to {_MAX_SIZE}; views are square."
        )


def check_interpolation(who: str, interpolation: Any) -> None:
    if interpolation not in ("bilinear", "bicubic"):
        raise ValueError(f'{who}: interpolation={interpolation!r} must be "bilinear" or "bicubic".')
