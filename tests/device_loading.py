"""What the tests of the way to a device share: loaders of twenty pictures, and what must come of them."""

from __future__ import annotations

import torch
from loading import RECIPE, Memory, pictures
from slow_streams import SlowDecoder, on_host

from fastssl import Loader

OPTIONS = {"batch_size": 4, "decode": "full", "epochs": 4}


def as_on_the_cpu(loader, streams, source=None, **options):
    """The batches that are left are those that the Loader on the CPU gives."""
    got = []
    for batch in loader:
        streams.read(batch, got)
        del batch
    streams.synchronize()
    want = list(Loader(source or Memory(pictures(20)), RECIPE, **{**OPTIONS, **options}))[-len(got) :]
    assert all(
        torch.equal(a, b)
        for parts, batch in zip(got, want, strict=True)
        for a, b in zip(parts, batch.views, strict=False)
    )
    return len(got)


def of_pictures(streams, decoder=None, **options):
    decoder = SlowDecoder(streams) if decoder is None else decoder
    return on_host(Loader(Memory(pictures(20)), RECIPE, **{**OPTIONS, **options}), decoder, 0.6, streams)
