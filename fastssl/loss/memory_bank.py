"""MemoryBankModule under the second path that lightly has for it."""

from fastssl.models.modules.memory_bank import MemoryBankModule

__all__ = ["MemoryBankModule"]
