"""Samples that could not be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Fault", "OnError", "check_on_error"]

OnError = Literal["raise", "skip", "replace"]


@dataclass(frozen=True)
class Fault:
    """A sample that could not be read.

    Args:
        index: In the source.
        filename: As the source names it.
        reason: What was wrong.
    """

    index: int
    filename: str
    reason: str

    def __str__(self) -> str:
        return f"{self.filename}: {self.reason}"


def check_on_error(who: str, on_error: str) -> None:
    """Raises ValueError if `on_error` is no policy."""
    if on_error not in ("raise", "skip", "replace"):
        raise ValueError(
            f'{who}: on_error={on_error!r} must be "raise", "skip" (the batch is smaller) or "replace" (the next good sample '
            "takes the place)."
        )
