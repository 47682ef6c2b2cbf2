"""Checkpoints: the whole state of a run in one file that is never half written."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch

__all__ = ["atomic_write", "check_same_settings", "load_checkpoint", "rng_state", "set_rng_state", "write_json"]


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` at the end, whole; an error leaves the old one as it was."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files for the owner alone
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file, indented, in one piece."""
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint, on the CPU; nothing in the file is executed.

    Raises:
        ValueError: The file is no checkpoint of `pretrain`.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"pretrain: {path} cannot be read as a checkpoint ({error}); remove it, or start over by resume=False."
        ) from error
    if not isinstance(state, dict) or "config" not in state or "loader" not in state:
        raise ValueError(f"pretrain: {path} is no checkpoint of pretrain; give another folder for out.")
    return state


def check_same_settings(out: Path, held: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raises ValueError, naming each setting, if a run in `out` was begun with others than those asked for."""
    names = sorted(name for name in {*held, *asked} if held.get(name) != asked.get(name))
    if names:
        said = "; ".join(f"{name}={held.get(name)!r} there, {asked.get(name)!r} here" for name in names)
        raise ValueError(
            f"pretrain: {out} holds a run with other settings: {said}. Give the same to go on with it, another "
            "folder for out to begin a second run, or resume=False to replace it."
        )


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The state of torch's generators of the CPU and of `device`, which dropout and stochastic depth draw from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_rng_state(state: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Puts torch's generators back to `state`; a run that moved to a GPU keeps that one's seeded state."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
