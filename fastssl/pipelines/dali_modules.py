"""DALI's modules, imported when they are first used: whoever does without DALI need not have it, nor wait for it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import weakref
from typing import Any

from fastssl.pipelines.forks import keep_for_ever

__all__ = ["built", "dali", "fn", "math", "types", "why_not_dali"]

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


# Note [Forks]
# To let go of a pipeline, DALI joins its threads, which a forked child does not have: it would wait for ever, in whatever let go
# of the last reference, a frame of a generator or the end of the interpreter. So a child finds its pipelines empty, and what they
# held is never let go of. They raise when they are used; a new one works there, on the CPU.

_pipelines: weakref.WeakSet[Any] = weakref.WeakSet()


def built(pipeline: Any) -> Any:
    """A pipeline of DALI's, built, that a forked child may let go of; Note [Forks]."""
    _pipelines.add(pipeline)  # before there are threads
    pipeline.build()
    return pipeline


def _empty_in_child() -> None:
    for pipeline in list(_pipelines):
        keep_for_ever(pipeline._pipe)
        pipeline._pipe = None  # as DALI itself does at the end
    _pipelines.clear()


os.register_at_fork(after_in_child=_empty_in_child)
