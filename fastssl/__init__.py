"""fastssl: self-supervised learning on images at the speed of the hardware."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fastssl import data, loss, models, ops, pipelines, recipes, transforms
from fastssl._native import DecodeError, build_info, has_cuda
from fastssl.data.batch import Batch
from fastssl.data.device_loader import to_device
from fastssl.data.loader import Loader
from fastssl.ops.threads import get_num_threads, set_num_threads
from fastssl.transforms.plan import Plan

if TYPE_CHECKING:
    from fastssl.embedding.embed import Embeddings, embed
    from fastssl.training.pretrain import PretrainResult, pretrain

__all__ = [
    "Batch",
    "DecodeError",
    "Embeddings",
    "Loader",
    "Plan",
    "PretrainResult",
    "__version__",
    "build_info",
    "data",
    "embed",
    "get_num_threads",
    "has_cuda",
    "loss",
    "models",
    "ops",
    "pipelines",
    "pretrain",
    "recipes",
    "set_num_threads",
    "to_device",
    "transforms",
]

__version__ = "0.1.0"

# Imported when first asked for: whoever only wants the loader need not pay for training.
_LAZY = {
    "Embeddings": "fastssl.embedding.embed",
    "PretrainResult": "fastssl.training.pretrain",
    "embed": "fastssl.embedding.embed",
    "pretrain": "fastssl.training.pretrain",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'fastssl' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return __all__
