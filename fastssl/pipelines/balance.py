"""How much of each batch a device's decoder takes while the CPU takes the rest."""

from __future__ import annotations

__all__ = ["Balance"]

# A wait for less of the time than this is none.
_NOTICED = 0.02
# Steps grow while they go one way, and shrink when they turn back: of the share, at most so much at a time.
_LARGEST, _GROW, _SHRINK = 0.1, 1.3, 0.5


class Balance:
    """Moves a share so that neither waits for the other, and no more is decoded on the device than is needed.

    When the consumer waits for the CPU, the device gets more of each batch; when it waits for the device, less. When it waits
    for neither, the device gets less, slowly, as what it decodes takes time from training.

    Args:
        share: Of a batch's images, to begin with, 0 to 1.
        fixed: Whether it stays.
    """

    def __init__(self, share: float, fixed: bool) -> None:
        self.share = share
        self._fixed = fixed
        self._step, self._way = _LARGEST / 2, 0

    def leave(self, images: int) -> int:
        """How many of so many images to leave to the device."""
        return min(images, round(self.share * images))

    def note(self, seconds: float, waited_cpu: float, waited_device: float, images: int) -> None:
        """What happened since the batch before.

        Args:
            seconds: That went by.
            waited_cpu: In which the consumer waited for images to be gathered.
            waited_device: In which, these being gathered, it waited for the device to decode.
            images: Of the batch.
        """
        if self._fixed or seconds <= 0 or images <= 0:
            return
        least = 1.0 / images
        if max(waited_cpu, waited_device) < _NOTICED * seconds:
            self._way, change = 0, -least
        else:
            way = 1 if waited_cpu > waited_device else -1
            self._step = min(_LARGEST, max(least, self._step * (_SHRINK if way == -self._way else _GROW)))
            self._way, change = way, way * self._step
        self.share = min(1.0, max(0.0, self.share + change))
