"""Parts of self-supervised models that are not backbones."""

from fastssl.models.modules.heads import ProjectionHead, SimCLRProjectionHead
from fastssl.models.modules.memory_bank import MemoryBankModule
from fastssl.models.modules.nn_memory_bank import NNMemoryBankModule, nearest_neighbours

__all__ = [
    "MemoryBankModule",
    "NNMemoryBankModule",
    "ProjectionHead",
    "SimCLRProjectionHead",
    "nearest_neighbours",
]
