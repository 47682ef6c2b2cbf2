"""Where the time of an iteration went, and which knob to turn."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Tally"]

# Less than this part of the time waited is none; less than this part of the threads' time at work, and they are idle.
_KEEPS_UP, _AT_WORK = 0.05, 0.8


@dataclass
class Tally:
    """What an iteration has done so far.

    Args:
        images: That it has made.
        waited: Seconds for which the consumer waited.
        waited_device: Of these, for a decoder of the device.
        waited_reading: Of these, for samples that are read elsewhere; None where nothing is.
        started: By the clock of `time.perf_counter`.
    """

    images: int = 0
    waited: float = 0.0
    waited_device: float = 0.0
    waited_reading: float | None = None
    started: float = field(default_factory=time.perf_counter)

    def read_elsewhere(self, seconds: float) -> None:
        """The consumer has waited so long for samples that are read elsewhere."""
        self.waited += seconds
        self.waited_reading = (self.waited_reading or 0.0) + seconds

    def summary(
        self, times: Mapping[str, float], threads: int, rendered_on: str, decoder: str | None, reader: str
    ) -> dict[str, Any]:
        """For `Loader.stats()`.

        Args:
            times: Of the engine, summed over so many threads.
            rendered_on: The device that makes the views.
            decoder: Of the device; None where the CPU decodes alone.
            reader: What to do where the consumer waits for samples that are read elsewhere.
        """
        seconds = time.perf_counter() - self.started
        work = {name: times[f"{name}_seconds"] for name in ("read", "decode", "render")}
        if self.waited < _KEEPS_UP * seconds:
            advice = "the loader keeps up; the consumer is what takes the time"
        elif self.waited_reading is not None and self.waited_reading > self.waited / 2:
            advice = reader
        elif decoder is not None and self.waited_device > self.waited / 2:
            advice = (
                f"the consumer waits for {decoder} on the device; leave it a smaller share, by decode="
                "fastssl.pipelines.Choice(decoder=..., share=..., balanced=True), or none, by decode='cpu'"
            )
        elif sum(work.values()) < _AT_WORK * seconds * threads:
            advice = "the threads are idle part of the time; raise prefetch"
        else:
            slowest = max(work, key=lambda name: work[name])
            advice = f"the consumer waits, most of all for {slowest}; raise threads if there are more CPUs"
        if self.waited_reading is not None:
            work["read"] = self.waited_reading
        return {
            "images": self.images,
            "seconds": seconds,
            "images_per_second": self.images / seconds,
            "threads": threads,
            "rendered_on": rendered_on,
            **{f"{name}_seconds": value for name, value in work.items()},
            "wait_seconds": self.waited,
            "advice": advice,
        }
