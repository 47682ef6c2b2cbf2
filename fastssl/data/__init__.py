"""Where images come from, and how they become batches."""

from fastssl.data.batch import Batch
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
from fastssl.data.faults import Fault
from fastssl.data.loader import Loader
from fastssl.data.multi_view_collate import MultiViewCollate
from fastssl.data.sources import DatasetSource, ImageFolder, Source
from fastssl.data.subset import Subset

__all__ = [
    "BaseCollateFunction",
    "Batch",
    "DINOCollateFunction",
    "DatasetSource",
    "Fault",
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
    "SMoGCollateFunction",
    "SimCLRCollateFunction",
    "Source",
    "Subset",
    "SwaVCollateFunction",
    "VICRegCollateFunction",
    "VICRegLCollateFunction",
]
