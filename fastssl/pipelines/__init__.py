"""Bytes to pixels on a device: who decodes, on which streams, into which memory."""

from fastssl.pipelines.choose import Choice

__all__ = ["Choice"]
