"""What a run measures of itself, as rows of a CSV file and as TensorBoard events."""

from __future__ import annotations

import csv
import io
import logging
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from fastssl.training.checkpoint import atomic_write

__all__ = ["COLUMNS", "Metrics", "read_metrics"]

COLUMNS = ("step", "epoch", "loss", "lr", "images_per_second")

_log = logging.getLogger(__name__)


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The rows of a metrics.csv; empty where there is no such file. A last row cut short by a crash is left out."""
    if not Path(path).exists():
        return []
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if all(row.get(column) for column in COLUMNS)]
    return [{column: float(row[column]) for column in COLUMNS} for row in rows]


class Metrics:
    """Writes metrics.csv and TensorBoard's event files into a folder.

    Rows after `from_step`, which a run wrote after the checkpoint that it now resumes from, are removed first, so that
    no step stands there twice.

    Args:
        out: The folder.
        from_step: Steps that were done before.
    """

    def __init__(self, out: Path, *, from_step: int = 0) -> None:
        path = out / "metrics.csv"
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(_texts(row) for row in read_metrics(path) if row["step"] <= from_step)
        with atomic_write(path) as file:
            file.write(text.getvalue().encode())
        self._file: IO[str] = open(path, "a", newline="")  # noqa: SIM115 (closed by __exit__)
        self._table = csv.writer(self._file, lineterminator="\n")
        self._events = _event_writer(out / "tensorboard", from_step)

    def write(self, row: dict[str, float]) -> None:
        """Adds a row, a number for each of COLUMNS."""
        self._table.writerow(_texts(row))
        self._file.flush()
        if self._events is not None:
            for column in COLUMNS[1:]:
                self._events.add_scalar(column, row[column], int(row["step"]))

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()


def _texts(row: dict[str, float]) -> list[str]:
    return [f"{row[column]:.8g}" for column in COLUMNS]


def _event_writer(folder: Path, from_step: int) -> Any:
    """TensorBoard's writer, which hides what was written after `from_step`; None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        _log.warning(
            "No TensorBoard files: tensorboard is not installed (pip install tensorboard). metrics.csv has all numbers."
        )
        return None
    return SummaryWriter(str(folder), purge_step=from_step + 1 if from_step else None)
