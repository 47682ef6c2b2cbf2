"""What a forked child has of its parent's devices and threads, and can neither use nor let go of."""

from __future__ import annotations

import ctypes
from typing import Any

__all__ = ["keep_for_ever"]


def keep_for_ever(thing: Any) -> None:
    """Also from the end of the interpreter, which empties modules."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
