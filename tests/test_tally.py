"""What stats() advises, of figures that leave no doubt."""

import time

import pytest

from fastssl.data.tally import Tally

IDLE = {"read_seconds": 0.1, "decode_seconds": 0.2, "render_seconds": 0.1}
BUSY = {"read_seconds": 1.0, "decode_seconds": 30.0, "render_seconds": 8.0}


@pytest.mark.parametrize("figures, times, decoder, says", [
    ({"waited": 0.1}, BUSY, None, "the loader keeps up"),
    ({"waited": 5.0}, IDLE, None, "raise prefetch"),
    ({"waited": 5.0}, BUSY, None, "most of all for decode; raise threads"),
    ({"waited": 5.0, "waited_device": 4.0}, IDLE, "nvjpeg", "the consumer waits for nvjpeg on the device"),
    ({"waited": 5.0, "waited_device": 1.0}, BUSY, "nvjpeg", "most of all for decode"),
    ({"waited": 5.0, "waited_reading": 4.0}, IDLE, None, "raise num_workers"),
    ({"waited": 5.0, "waited_reading": 1.0}, BUSY, None, "most of all for decode"),
    ({"waited": 0.1, "waited_reading": 0.1}, IDLE, None, "the loader keeps up"),
])  # fmt: skip
def test_the_advice_is_what_takes_the_time(figures, times, decoder, says):
    tally = Tally(images=500, started=time.perf_counter() - 10, **figures)
    stats = tally.summary(times, threads=4, rendered_on="cpu", decoder=decoder, reader="raise num_workers")
    assert says in stats["advice"]
    assert stats["images_per_second"] == pytest.approx(50, rel=0.1)
    assert stats["read_seconds"] == figures.get("waited_reading", times["read_seconds"])
