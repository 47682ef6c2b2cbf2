"""DALI's modules, imported when they are first used: whoever does without DALI need not have it, nor wait for it."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

__all__ = ["dali", "fn", "math", "types", "why_not_dali"]

_REMEDY = "DALI is not installed; write: pip install 'fastssl-vision[dali]'"


class _Module:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python itself looks for, as in copy or pickle
            raise AttributeError(name)
        try:
            module = importlib.import_module(self._name)
        except ModuleNotFoundError as error:
            if error.name not in ("nvidia", "nvidia.dali"):
                raise  # DALI is there, and lacks something
            raise ImportError(f"{_REMEDY}.") from error
        return getattr(module, name)


dali = _Module("nvidia.dali")
fn = _Module("nvidia.dali.fn")
math = _Module("nvidia.dali.math")
types = _Module("nvidia.dali.types")


def why_not_dali() -> str | None:
    """Why DALI cannot be used; None if it is installed."""
    try:
        found = importlib.util.find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:  # there is no package of NVIDIA's at all
        found = False
    return None if found else _REMEDY
