"""Parts of self-supervised models that are not backbones."""

from fastssl.models.modules.heads import ProjectionHead, SimCLRProjectionHead
from fastssl.models.modules.memory_bank import MemoryBankModule

__all__ = ["MemoryBankModule", "ProjectionHead", "SimCLRProjectionHead"]
