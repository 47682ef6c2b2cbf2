"""Memory for batches on their way to a device: how much of it is asked for, and when; and whose streams are current."""

from __future__ import annotations

import contextlib
import types

import pytest
import torch
from slow_streams import HostStreams

from fastssl.pipelines.device import Decodings, DevicePipeline
from fastssl.pipelines.streams import CudaStreams

IMAGES = 16


class Counting(HostStreams):
    """Notes what is asked for, and how much there is when it is."""

    def __init__(self):
        self.asked = []

    def staging(self, size):
        self.asked.append(size)
        return super().staging(size)


def batches(pipeline, taken):
    """Goes through batches that take so many bytes for their pixels."""
    for size in taken:
        gathered = pipeline.gather(IMAGES)
        pixels = types.SimpleNamespace(taken=size, used=0, beside=[])
        gathered.native = types.SimpleNamespace(pixels=pixels, encoded=types.SimpleNamespace(taken=0))
        pipeline.give_back(gathered, Decodings())


def test_a_slot_that_was_large_enough_is_kept():
    streams = Counting()
    pipeline = DevicePipeline(streams, IMAGES, slots=2)
    first = pipeline.gather(IMAGES)
    pipeline.give_back(first, Decodings())
    large = max(streams.asked)
    streams.asked.clear()
    batches(pipeline, [large - 20_000 * i for i in range(10, -1, -1)])
    assert not any(streams.asked)


def test_a_slot_that_was_too_small_is_followed_by_one_with_room_to_spare():
    streams = Counting()
    pipeline = DevicePipeline(streams, IMAGES, slots=1)
    batches(pipeline, [100_000_000])
    streams.asked.clear()
    batches(pipeline, [100_000_000, 112_000_000, 90_000_000])
    assert [size for size in streams.asked if size] == [112_500_224]


def test_the_small_slot_is_let_go_of_before_the_large_one_is_asked_for(monkeypatch):
    streams = Counting()
    pipeline = DevicePipeline(streams, IMAGES, slots=1)
    batches(pipeline, [100_000_000])
    (slot,) = pipeline._free
    seen = []
    staging = streams.staging
    monkeypatch.setattr(streams, "staging", lambda size: seen.append(slot.pixels.numel()) or staging(size))
    pipeline.gather(IMAGES)
    assert seen == [0]


@pytest.mark.parametrize("which", ["rendering", "decoding"])
def test_the_device_is_current_before_its_stream_is(monkeypatch, which):
    """And after it; see CudaStreams: else the stream's context ends by touching another device."""
    order = []

    @contextlib.contextmanager
    def noted(name):
        order.append(f"begin {name}")
        yield
        order.append(f"end {name}")

    monkeypatch.setattr(torch.cuda, "device", lambda device: noted(str(device)))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: noted("stream"))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: object())
    with getattr(CudaStreams(torch.device("cuda", 1)), which)():
        order.append("work")
    assert order == ["begin cuda:1", "begin stream", "work", "end stream", "end cuda:1"]
