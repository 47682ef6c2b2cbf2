"""Models: backbones, projection heads and memory banks."""

from fastssl.models import backbones, modules
from fastssl.models.modules import MemoryBankModule, ProjectionHead, SimCLRProjectionHead

__all__ = ["MemoryBankModule", "ProjectionHead", "SimCLRProjectionHead", "backbones", "modules"]
