"""Bytes to pixels on a device: who decodes, on which streams, into which memory."""

from fastssl.pipelines.choose import Choice
from fastssl.pipelines.dali import DaliDecoder
from fastssl.pipelines.dali_batches import DaliBatches, RaggedBatch
from fastssl.pipelines.dali_readers import FileReader, WebdatasetReader
from fastssl.pipelines.dali_views import DaliViews
from fastssl.pipelines.readers import RawBatch, Reader

__all__ = [
    "Choice",
    "DaliBatches",
    "DaliDecoder",
    "DaliViews",
    "FileReader",
    "RaggedBatch",
    "RawBatch",
    "Reader",
    "WebdatasetReader",
]
