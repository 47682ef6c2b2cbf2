"""From images to features, by a backbone in memory or a checkpoint of `pretrain`."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fastssl.data.loader import Loader
from fastssl.data.sources import Source, as_source
from fastssl.models import backbones
from fastssl.transforms.recipes import evaluation

__all__ = ["Embeddings", "embed", "load_backbone"]


@dataclass(frozen=True)
class Embeddings:
    """Features of N images, in the order of their source.

    Args:
        features: (N, F), float32, on the CPU.
        targets: (N,), int64; 0 where there are no labels.
        filenames: N names, as the source has them.
        classes: Names of the targets; empty where there are no labels, or no names for them.

    Raises:
        ValueError: The lengths differ.

    >>> Embeddings(torch.eye(3), torch.tensor([0, 1, 1]), ["a", "b", "c"])[1:].filenames
    ['b', 'c']
    """

    features: Tensor
    targets: Tensor
    filenames: list[str]
    classes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.features.dim() != 2 or not len(self.features) == len(self.targets) == len(self.filenames):
            raise ValueError(
                f"Embeddings: features {tuple(self.features.shape)}, targets {tuple(self.targets.shape)} and "
                f"{len(self.filenames)} filenames must be (N, F), (N,) and N."
            )

    def __len__(self) -> int:
        return len(self.filenames)

    def __getitem__(self, which: slice | Sequence[int] | Tensor) -> Embeddings:
        """Some of the images: a slice, or indices."""
        rows = torch.arange(len(self))[which if isinstance(which, slice) else torch.as_tensor(which, dtype=torch.int64)]
        names = [self.filenames[i] for i in rows.tolist()]
        return Embeddings(self.features[rows], self.targets[rows], names, self.classes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a NumPy archive (.npz) with features, targets, filenames and classes."""
        with open(path, "wb") as file:
            np.savez(
                file,
                features=self.features.numpy(),
                targets=self.targets.numpy(),
                filenames=np.array(self.filenames, dtype=np.str_),
                classes=np.array(self.classes, dtype=np.str_),
            )

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Embeddings:
        """Reads what `save` wrote.

        Raises:
            ValueError: The file is no such archive.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                features, targets, filenames, classes = (
                    archive[name] for name in ("features", "targets", "filenames", "classes")
                )
        except (KeyError, ValueError, EOFError, TypeError) as error:
            raise ValueError(
                f"Embeddings.load: {os.fspath(path)} is not what Embeddings.save writes ({error})."
            ) from error
        return Embeddings(torch.from_numpy(features), torch.from_numpy(targets), filenames.tolist(), classes.tolist())


def embed(
    model: nn.Module | str | os.PathLike[str],
    data: Source | str | os.PathLike[str] | Any,
    *,
    input_size: int | None = None,
    keep: float | None = None,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    threads: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
) -> Embeddings:
    """Compute the features of every image, in the source's order.

    Args:
        model: A network that maps (B, 3, S, S) to (B, F), or the path of a run of `pretrain` or of its checkpoint.
        data: A folder of images, a Source, or a map-style data set.
        input_size: Side S of the images, in pixels; None for the checkpoint's, or 224 for a network.
        keep: Side of the central square that is seen, over the shorter side of the image; None for the checkpoint's, or
            0.875 for a network.
        batch_size: Images at a time.
        device: None for the network's own; for a checkpoint the GPU, if there is one.
        threads: Of the loader; None for all CPUs that the process may use.
        on_error: "raise", or "skip": images that cannot be read have no row.

    Returns:
        Features as the backbone gives them, not normalized.

    Raises:
        ValueError: The network's output is not (B, F), or the file is no checkpoint.
        FileNotFoundError: There is no such checkpoint or folder.
        DecodeError: An image cannot be read, with on_error="raise"; it is named.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f'embed: on_error={on_error!r} must be "raise" or "skip"; a row stands for its own image.')
    if isinstance(model, nn.Module):
        config: dict[str, Any] = {}
        parameter = next(model.parameters(), torch.empty(0))
        place = torch.device(device) if device is not None else parameter.device
    else:
        model, config = load_backbone(model)
        place = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    size = input_size if input_size is not None else config.get("input_size", 224)
    kept = keep if keep is not None else config.get("keep", 0.875)
    source = as_source(data)
    loader = Loader(
        source,
        evaluation(size, kept),
        batch_size=batch_size,
        device=place,
        shuffle=False,
        threads=threads,
        channels_last=True,
        on_error=on_error,
        decode="cpu",  # the same embeddings every time, on any machine
    )
    model = model.to(place)
    modes = {module: module.training for module in model.modules()}
    features, targets, filenames = [], [], []
    model.eval()
    try:
        with torch.inference_mode():
            for (view,), labels, names in loader:
                out = model(view)
                if not isinstance(out, Tensor) or out.dim() != 2:
                    got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
                    raise ValueError(
                        f"embed: the network returned {got} for images {tuple(view.shape)}, and must return (B, F); "
                        "write nn.Sequential(model, nn.AdaptiveAvgPool2d(1), nn.Flatten()) if it returns maps."
                    )
                features.append(out.float().cpu())
                targets.append(labels.cpu())
                filenames += names
    finally:
        for module, training in modes.items():
            module.training = training
    if not features:
        raise ValueError(f"embed: none of the {len(source)} images can be read; the first: {loader.errors[0]}")
    classes = list(getattr(source, "classes", None) or [])
    # clone: out of inference mode, so that the features can be used anywhere
    return Embeddings(torch.cat(features).clone(), torch.cat(targets).clone(), filenames, classes)


def load_backbone(path: str | os.PathLike[str]) -> tuple[nn.Module, dict[str, Any]]:
    """The backbone of a run of `pretrain`, in evaluation mode on the CPU, and the run's settings.

    Args:
        path: The folder of the run, or its checkpoint.pt.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no checkpoint of `pretrain`.
    """
    file = Path(path) / "checkpoint.pt" if Path(path).is_dir() else Path(path)
    if not file.exists():
        raise FileNotFoundError(
            f"load_backbone: there is no {file}; give the folder that pretrain wrote, or its checkpoint.pt."
        )
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"load_backbone: {file} cannot be read as a checkpoint: {error}") from error
    if not isinstance(state, dict) or not {"config", "model"} <= set(state):
        raise ValueError(
            f"load_backbone: {file} is no checkpoint of pretrain. For weights alone, such as backbone.pt, make the "
            "network by fastssl.models.backbones.create(name), load them into it, and pass the network."
        )
    config: dict[str, Any] = state["config"]
    backbone = backbones.create(config["backbone"], stem=config["stem"], input_size=config["input_size"])
    prefix = "backbone."
    backbone.load_state_dict(
        {name.removeprefix(prefix): value for name, value in state["model"].items() if name.startswith(prefix)}
    )
    return backbone.eval(), config
