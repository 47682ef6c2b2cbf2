"""Operators on tensors, over the native code."""

from fastssl.ops.decode import decode, to_image
from fastssl.ops.prepared_render import PreparedRender
from fastssl.ops.render import render
from fastssl.ops.threads import get_num_threads, set_num_threads

__all__ = ["PreparedRender", "decode", "get_num_threads", "render", "set_num_threads", "to_image"]
