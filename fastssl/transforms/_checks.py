"""Checks of arguments, with errors that say who was called, what it got, and the rule.

The parts of a view, which are written with plain numbers and put into JSON, take `number`; masks and collates, which get sizes
from numpy and torch as well, take `check_whole` and what is built on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

__all__ = [
    "check_interpolation",
    "check_number",
    "check_p",
    "check_pair",
    "check_range",
    "check_sides",
    "check_size",
    "check_whole",
    "number",
]

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


def check_whole(who: str, name: str, value: Any, low: int, high: int | None = None) -> int:
    """The value as an int; ValueError where it is no whole number from low to high."""
    whole = type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))  # the first is quick
    if not whole or int(value) < low or (high is not None and int(value) > high):
        rule = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{who}: {name}={value!r} must be a whole number, {rule}.")
    return int(value)


def check_number(
    who: str, name: str, value: Any, low: float = 0.0, high: float = 1.0, *, open_low: bool = False
) -> float:
    """The value as a float; ValueError where it is no number from low (itself excluded with `open_low`) to high."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not low <= value <= high or (open_low and value == low):
        rule = f"above {low:g}" if open_low else f"at least {low:g}"
        raise ValueError(f"{who}: {name}={value!r} must be a number, {rule} and at most {high:g}.")
    return float(value)


def check_range(
    who: str, name: str, pair: Any, low: float = 0.0, high: float = 1.0, *, open_low: bool = False
) -> tuple[float, float]:
    """The pair as floats; ValueError where it is not the least and the greatest of a range within low to high."""
    if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
        raise ValueError(f"{who}: {name}={pair!r} must be two numbers, the least and the greatest.")
    least, greatest = (check_number(who, name, value, low, high, open_low=open_low) for value in pair)
    if least > greatest:
        raise ValueError(f"{who}: {name}={tuple(pair)} must hold the least first; write {(greatest, least)}.")
    return least, greatest


def check_sides(who: str, name: str, sides: Any, least: Sequence[int], what: str) -> tuple[int, ...]:
    """The sides as ints; ValueError where they are not as many whole numbers as `least`, each at least that."""
    listed = isinstance(sides, tuple | list) or (isinstance(sides, Sequence) and not isinstance(sides, str))
    if not listed or len(sides) != len(least):
        raise ValueError(f"{who}: {name}={sides!r} must be {what}.")
    return tuple(check_whole(who, name, side, low) for side, low in zip(sides, least, strict=True))
