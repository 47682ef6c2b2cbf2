"""Where images come from, and how they become batches."""

from fastssl.data.array_source import ArraySource
from fastssl.data.batch import Batch
from fastssl.data.cache import CacheError, CacheInfo, build_cache, verify_cache
from fastssl.data.collate import (
    BaseCollateFunction,
    DINOCollateFunction,
    ImageCollateFunction,
    MAECollateFunction,
    MoCoCollateFunction,
    MSNCollateFunction,
    MultiCropCollateFunction,
    MultiViewCollateFunction,
    PIRLCollateFunction,
    SimCLRCollateFunction,
    SMoGCollateFunction,
    SwaVCollateFunction,
    VICRegCollateFunction,
    VICRegLCollateFunction,
)
from fastssl.data.dataset import LightlyDataset
from fastssl.data.encoded import BytesCollate, EncodedBatch
from fastssl.data.faults import Fault
from fastssl.data.ijepa_collate import IJEPAMaskCollator
from fastssl.data.loader import Loader
from fastssl.data.multi_view_collate import MultiViewCollate
from fastssl.data.source_reader import SourceReader
from fastssl.data.sources import DatasetSource, ImageFolder, PixelArray, Source
from fastssl.data.subset import Subset

__all__ = [
    "ArraySource",
    "BaseCollateFunction",
    "Batch",
    "BytesCollate",
    "CacheError",
    "CacheInfo",
    "DINOCollateFunction",
    "DatasetSource",
    "EncodedBatch",
    "Fault",
    "IJEPAMaskCollator",
    "ImageCollateFunction",
    "ImageFolder",
    "LightlyDataset",
    "Loader",
    "MAECollateFunction",
    "MSNCollateFunction",
    "MoCoCollateFunction",
    "MultiCropCollateFunction",
    "MultiViewCollate",
    "MultiViewCollateFunction",
    "PIRLCollateFunction",
    "PixelArray",
    "SMoGCollateFunction",
    "SimCLRCollateFunction",
    "Source",
    "SourceReader",
    "Subset",
    "SwaVCollateFunction",
    "VICRegCollateFunction",
    "VICRegLCollateFunction",
    "build_cache",
    "verify_cache",
]
