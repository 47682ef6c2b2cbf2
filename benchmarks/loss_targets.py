"""What losses.py is measured against: the bounds that fastssl has to keep, and the tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from loss_tasks import BOTH, FORWARD, OURS, title

Records = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Target:
    """A bound on forward + backward of one size.

    Args:
        device: Where it holds.
        rows, columns: Of the embeddings.
        measure: What is measured; one of MEASURES, with its unit.
        bound: The least, where that measure is a ratio of speeds, else the greatest.
        others: Which contenders ours is compared with: whether the name of one belongs to them.
        said: How the table names those.
    """

    device: str
    rows: int
    columns: int
    measure: str
    bound: float
    others: Callable[[str], bool] | None = None
    said: str = ""

    @property
    def required(self) -> str:
        return MEASURES[self.measure][1].format(self.bound, self.said)

    def measured(self, records: Records) -> dict[str, Any]:
        """The figure, or the reason why there is none; as it goes into the JSON."""
        of_device = [r for r in records if r["settings"]["device"] == self.device and r["settings"]["pass"] == BOTH]
        of_size = [r for r in of_device if r["task"] == title(self.rows, self.columns)]
        ours = [r for r in of_size if r["contender"] == OURS]
        others = [r for r in of_size if self.others and r["contender"] != OURS and self.others(r["contender"])]
        line = {"device": self.device, "task": title(self.rows, self.columns), "required": self.required}
        value = MEASURES[self.measure][0](ours, others, self)
        if value is None:
            wanting = [f"{r['contender']} {r['status']}" for r in [*ours, *others] if r["status"] != "ok"]
            return {**line, "value": None, "met": None, "reason": "; ".join(wanting) or "not in this run"}
        met = value >= self.bound if self.measure == "speed" else value <= self.bound
        return {**line, "value": round(value, 4), "met": met}


def _time(ours: Records, others: Records, target: Target) -> float | None:
    return ours[0].get("step_ms") if ours else None


def _speed(ours: Records, others: Records, target: Target) -> float | None:
    times = [r["step_ms"] for r in others if "step_ms" in r]
    return min(times) / ours[0]["step_ms"] if ours and "step_ms" in ours[0] and times else None


def _memory(ours: Records, others: Records, target: Target) -> float | None:
    peaks = [r["peak_mib"] for r in others if r["peak_mib"]]
    return ours[0]["peak_mib"] / min(peaks) if ours and ours[0]["peak_mib"] and peaks else None


def _matrices(ours: Records, others: Records, target: Target) -> float | None:
    floats = target.rows * target.columns * 4 / 2**20
    return ours[0]["peak_mib"] / floats if ours and ours[0]["peak_mib"] else None


def _process(ours: Records, others: Records, target: Target) -> float | None:
    return ours[0].get("process_mib") if ours else None


# How each is measured, and how the table says what is required.
MEASURES: dict[str, tuple[Callable[[Records, Records, Target], float | None], str]] = {
    "time": (_time, "<= {:g} ms"),
    "speed": (_speed, ">= {:g} times {}"),
    "memory": (_memory, "<= {:.3g} of the memory of {}"),
    "matrices": (_matrices, "memory of <= {:g} matrices of rows x columns in float32"),
    "process": (_process, "a process of <= {:g} MiB"),
}

CPU_SIZE, CPU_LARGE = (8192, 128), (65536, 128)
GPU_ROWS, GPU_COLUMNS = (4096, 8192, 16384, 32768, 65536), (128, 256, 512)
GPU_RAGGED = (16100, 128)  # neither rows nor images are a multiple of a tile's 128 rows
GPU_LARGE = (262144, 128)
MATRICES = 16  # a handful in 32 bits for each of values and gradients, whatever the number of rows


def lightly(name: str) -> bool:
    return name == "lightly"


def compiled(name: str) -> bool:
    return "compiled" in name


def peers(name: str) -> bool:
    return not name.startswith(OURS)


TARGETS = (
    Target("cpu", *CPU_SIZE, "speed", 6, lightly, "lightly"),
    Target("cpu", *CPU_SIZE, "memory", 1 / 20, lightly, "lightly"),
    Target("cpu", *CPU_LARGE, "process", 2048),
    Target("cuda", 16384, 128, "time", 0.5),
    Target("cuda", 16384, 128, "speed", 25, lightly, "lightly"),
    Target("cuda", 16384, 128, "speed", 2.5, compiled, "the best compiled one"),
    Target("cuda", 16384, 512, "speed", 1.3, peers, "the best other"),
    *(Target("cuda", 65536, columns, "matrices", MATRICES) for columns in GPU_COLUMNS),
    Target("cuda", *GPU_LARGE, "matrices", MATRICES),
)


def measured(records: Records) -> list[dict[str, Any]]:
    """Each target of the device that the records are of."""
    devices = {r["settings"]["device"] for r in records}
    return [target.measured(records) for target in TARGETS if target.device in devices]


def table(records: Records) -> str:
    """Markdown: one row a contender of one size, both passes, and how much longer than ours it takes."""
    by = {(r["contender"], r["settings"]["pass"]): r for r in records}
    head = ["", "forward, ms", "forward + backward, ms", f"times {OURS}", "memory beyond the embeddings, MiB"]
    rows = [head, ["---"] + ["---:"] * 4]
    ours = by.get((OURS, BOTH), {}).get("step_ms")
    for name in dict.fromkeys(r["contender"] for r in records):
        forward, both = by.get((name, FORWARD), {}), by.get((name, BOTH), {})
        if "step_ms" not in both:
            rows.append([name, both.get("status", forward.get("status", "")), "", "", ""])
            continue
        ratio = f"{both['step_ms'] / ours:.1f}" if ours else ""
        peak = "" if both["peak_mib"] is None else f"{both['peak_mib']:,.0f}"
        rows.append([name, shown(forward.get("step_ms")), shown(both["step_ms"]), ratio, peak])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def shown(ms: float | None) -> str:
    """Three digits."""
    if ms is None:
        return ""
    return f"{ms:.3f}" if ms < 1 else f"{ms:.2f}" if ms < 10 else f"{ms:.1f}" if ms < 100 else f"{ms:,.0f}"


def requirements(lines: Sequence[dict[str, Any]]) -> str:
    """Markdown: one row a target."""
    rows = [["rows x columns", "required of forward + backward", "measured", ""], ["---", "---", "---:", "---"]]
    for line in lines:
        if line["value"] is None:
            rows.append([line["task"], line["required"], "-", line["reason"]])
        else:
            rows.append([line["task"], line["required"], f"{line['value']:,.3g}", "met" if line["met"] else "missed"])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def section(report: dict[str, Any], which: str) -> str:
    """Markdown of one report: the requirements, a size such as 16384x128, or the first size."""
    if which == "requirements":
        return requirements(report["targets"])
    sizes = list(dict.fromkeys(r["task"] for r in report["results"]))
    size = which.replace("x", " x ") if which else sizes[0]
    if size not in sizes:
        raise SystemExit(f"no size {which!r} in the newest losses; there are {sizes}, and requirements")
    return table([r for r in report["results"] if r["task"] == size])


def sections(report: dict[str, Any]) -> str:
    """Everything, as Markdown."""
    sizes = dict.fromkeys(r["task"] for r in report["results"])
    parts = [requirements(report["targets"])]
    parts += [f"{size}\n\n{section(report, size.replace(' x ', 'x'))}" for size in sizes]
    return "\n\n".join(parts)
