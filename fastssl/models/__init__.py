"""Models: backbones, projection heads, memory banks, and lightly's helpers."""

from fastssl.models import backbones, modules, utils
from fastssl.models.modules import MemoryBankModule, ProjectionHead, SimCLRProjectionHead

__all__ = ["MemoryBankModule", "ProjectionHead", "SimCLRProjectionHead", "backbones", "modules", "utils"]
