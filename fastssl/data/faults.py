"""Samples that could not be read; what is said of them, pipelines say as well."""

from fastssl.pipelines.faults import Fault, OnError, check_on_error

__all__ = ["Fault", "OnError", "check_on_error"]
