"""Checks of arguments, with errors that say who was called, what it got, and the rule."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

__all__ = ["check_number", "check_range", "check_sides", "check_whole"]


def check_whole(who: str, name: str, value: Any, low: int, high: int | None = None) -> int:
    """The value as an int; ValueError where it is no whole number from low to high."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
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
    if not isinstance(sides, Sequence) or isinstance(sides, str) or len(sides) != len(least):
        raise ValueError(f"{who}: {name}={sides!r} must be {what}.")
    return tuple(check_whole(who, name, side, low) for side, low in zip(sides, least, strict=True))
