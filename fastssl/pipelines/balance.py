"""How much of each batch a device's decoder takes while the CPU takes the rest."""

from __future__ import annotations

__all__ = ["Balance"]

# A wait for less of the time than this is none.
_NOTICED = 0.02
# After a wait the share moves by what would have avoided it, and at most by a step: of the share, so much to begin with and so
# much at most. Steps grow while they go one way, and shrink when they turn back. They must grow slowly: what a step does shows
# only after some batches, and with 1.3 the share swung to and fro for ever where both were as slow as could be.
_FIRST, _LARGEST, _GROW, _SHRINK = 0.05, 0.1, 1.15, 0.5
# Before the CPU was ever too slow, the share loses this part of itself with each batch for which nobody waits.
_QUICK = 0.25
# For so many such batches it stays where it is once the CPU was too slow, before less is tried.
_PATIENCE = 100


class Balance:
    """Moves a share so that the consumer waits for nobody, and no more is decoded on the device than that takes.

    What is decoded on the device takes time from training, so the rule is: as little as will do.

    * The consumer waits for nobody: the share shrinks with each batch, by a quarter, so that a CPU that keeps up alone soon does
      it all. Once the CPU was too slow, the share stays for a hundred batches each time, and then shrinks by one image a batch.
    * The consumer waits for the CPU: the share grows, to what would have been enough, but by a step at most.
    * The consumer waits for the device: the share shrinks in the same way.

    A batch tells of the share that it was gathered with, which is some batches old, and from which the share then moves. After a
    wait nothing moves it, except longer waits of the same kind, before a batch comes that was gathered with the new one.

    Args:
        share: Of a batch's images, to begin with, 0 to 1.
        fixed: Whether it stays.
    """

    def __init__(self, share: float, fixed: bool) -> None:
        self.share = share
        self.fixed = fixed
        self._step, self._way = _FIRST, 0  # of the last answer to a wait; 1: more
        self._answered = False  # and no batch with the new share has come
        self._was_short = False  # the CPU, once
        self._stay = 0  # for so many batches without a wait

    def leave(self, images: int) -> int:
        """How many of so many images to leave to the device."""
        return min(images, round(self.share * images))

    def note(self, seconds: float, waited: float, short: bool, images: int, share: float) -> None:
        """What happened since the batch before.

        Args:
            seconds: That went by.
            waited: In which the consumer had nothing to do but wait for this batch.
            short: Whether the CPU is what was behind.
            images: Of the batch.
            share: That it was gathered with.
        """
        if self.fixed or seconds <= 0 or images <= 0:
            return
        part, least = waited / seconds, 1.0 / images
        self._answered = self._answered and share != self.share
        if part < _NOTICED:
            if not self._answered:
                self._shrink(least)
        elif short:
            self._was_short, self._stay = True, _PATIENCE
            # It did 1 - share of the batch, and had too little time for this part of that.
            self._answer(1, share, (1 - share) * part, least)
        else:
            self._answer(-1, share, share * part, least)

    def _shrink(self, least: float) -> None:
        """After no wait."""
        if self._stay:
            self._stay -= 1
        else:
            self.share = max(0.0, self.share - (least if self._was_short else max(least, _QUICK * self.share)))

    def _answer(self, way: int, share: float, enough: float, least: float) -> None:
        """After a wait; that much more, or less, than this share would have avoided it."""
        if self._answered and way != self._way:
            return
        if not self._answered:
            step = self._step * (_SHRINK if way == -self._way else _GROW)
            self._step, self._way = min(_LARGEST, max(least, step)), way
        wanted = min(1.0, max(0.0, share + way * max(least, min(self._step, enough))))
        if not self._answered or (wanted - self.share) * way > 0:
            self.share, self._answered = wanted, True
