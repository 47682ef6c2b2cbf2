"""What views.py is measured against: the ratios that fastssl has to reach, and the table that says whether it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

OURS = "fastssl.Loader"
FULL_DECODE = "simplejpeg, full decode alone"  # libjpeg-turbo
TITLES = {
    "simclr": "SimCLR, 2 x 224 px",
    "dino": "DINO, 2 x 224 + 6 x 96 px",
    "cached": "SimCLR, from the cache",
    "photographs": "SimCLR, 12 megapixels",
    "cifar": "CIFAR-10, 2 x 32 px, decoded",
    "loaders": "SimCLR, from a folder",
}


@dataclass(frozen=True)
class Target:
    """A bound on a ratio of medians between two contenders of one task and number of threads.

    Args:
        other: The contender that `OURS` is compared with.
        at_least: Least speed of ours over the other's; or
        at_most: greatest time of ours over the other's.
    """

    task: str
    other: str
    threads: int = 1
    at_least: float | None = None
    at_most: float | None = None

    @property
    def bound(self) -> str:
        return f">= {self.at_least:g} x its speed" if self.at_least is not None else f"<= {self.at_most:g} x its time"

    def ratio(self, medians: dict[str, float]) -> float | None:
        """Ours over the other's, in the sense of the bound; None where one was not measured."""
        if OURS not in medians or self.other not in medians:
            return None
        time = medians[OURS] / medians[self.other]
        return 1 / time if self.at_least is not None else time

    def met(self, ratio: float) -> bool:
        return ratio >= self.at_least if self.at_least is not None else ratio <= (self.at_most or 0)


TARGETS = (
    Target("simclr", FULL_DECODE, at_most=1.3),
    Target("simclr", "lightly", at_least=7),
    Target("simclr", "albumentations", at_least=1.6),
    Target("simclr", "DALI CPU, steps blended", at_least=8),
    Target("simclr", "DALI CPU", at_least=8),
    Target("dino", FULL_DECODE, at_most=1.6),
    Target("dino", "lightly", at_least=9),
    Target("cached", "lightly", at_least=25),
    Target("cached", "albumentations", at_least=3),
    Target("photographs", FULL_DECODE, at_most=1.0),
    Target("photographs", "albumentations", at_least=1.8),
    Target("photographs", "lightly", at_least=5),
    Target("cifar", "lightly", at_least=60),
    Target("cifar", "albumentations", at_least=12),
    Target("loaders", "fastssl.Loader, one thread on one core", threads=2, at_least=1.85),
    Target("loaders", "lightly dataset + DataLoader", threads=2, at_least=7),
)


def measured(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each target with the ratio measured, or with the reason why there is none; as it goes into the JSON."""
    lines = []
    for target in TARGETS:
        of_task = [r for r in records if r["task"] == target.task and r["settings"]["threads"] == target.threads]
        ratio = target.ratio({r["contender"]: r["median_s"] for r in of_task if "median_s" in r})
        line = {"task": target.task, "threads": target.threads, "other": target.other, "bound": target.bound}
        if ratio is not None:
            line |= {"ratio": round(ratio, 4), "met": target.met(ratio)}
        else:
            failed = [r for r in of_task if r["contender"] in (OURS, target.other) and "median_s" not in r]
            reasons = [f"{r['contender']} {r['status']}" for r in failed]
            line |= {"ratio": None, "met": None, "reason": "; ".join(reasons) or "not in this run"}
        lines.append(line)
    return lines


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Markdown: one row a target."""
    rows = [["task", "threads", "beside", "required", "measured", ""], ["---", "---:", "---", "---", "---:", "---"]]
    for line in lines:
        row = [TITLES[line["task"]], str(line["threads"]), line["other"], line["bound"]]
        if line["ratio"] is None:
            rows.append([*row, "-", line["reason"]])
        else:
            rows.append([*row, f"{line['ratio']:.2f}", "met" if line["met"] else "missed"])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


PEERS = ("lightly", "albumentations", "torchvision v2", "kornia", "DALI CPU")


def summary(records: Sequence[dict[str, Any]]) -> str:
    """Markdown: one row a task and number of threads: our images/s, our time over full decoding, our speed over each peer's."""
    rows = [["", "images/s", "time over full decode", *(f"times {peer}" for peer in PEERS)]]
    rows.append(["---"] + ["---:"] * (len(rows[0]) - 1))
    for task, threads in dict.fromkeys((r["task"], r["settings"]["threads"]) for r in records):
        of_task = [r for r in records if r["task"] == task and r["settings"]["threads"] == threads]
        ours = next((r for r in of_task if r["contender"] == OURS), None)
        if task not in TITLES or ours is None:
            continue
        title = TITLES[task] + (f", {threads} threads" if threads > 1 else "")
        if "median_s" not in ours:
            rows.append([title, ours["status"], *[""] * (len(rows[0]) - 2)])
            continue
        row = [title, f"{ours['per_second']:,.0f}"]
        decode = next((r for r in of_task if r["contender"] == FULL_DECODE), {})
        row.append(f"{ours['median_s'] / decode['median_s']:.2f}" if "median_s" in decode else "")
        for peer in PEERS:
            other = next((r for r in of_task if r["contender"] in named(peer)), {})
            row.append(f"{other['median_s'] / ours['median_s']:.1f}" if "median_s" in other else "")
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def named(peer: str) -> tuple[str, ...]:
    """What the contenders of a peer are called."""
    return peer, f"{peer} + DataLoader", f"{peer} dataset + DataLoader"
