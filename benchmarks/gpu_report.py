"""What gpu_views.py and its like found, in words: tables, the bounds that fastssl has to reach, how far the device's floor is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpu_tasks import OURS

TITLES = {
    "simclr": "SimCLR, 2 x 224 px, from about 0.2 megapixels",
    "dino": "DINO, 2 x 224 + 6 x 96 px, from about 0.2 megapixels",
    "simclr, one size": "SimCLR, 2 x 224 px, from images of one size",
    "simclr, float32": "SimCLR, 2 x 224 px, to float32",
    "cifar": "CIFAR-10, 2 x 32 px",
}


@dataclass(frozen=True)
class Target:
    """A least speed, in images a second, or over the fastest contender whose name begins with `other`."""

    task: str
    least: float
    other: str | None = None

    @property
    def bound(self) -> str:
        if self.other is None:
            return f">= {self.least:,.0f} images/s"
        return f">= {self.least:g} x {self.other}"

    def measured(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The figure, or the reason why there is none."""
        of_task = [r for r in records if r["task"] == self.task]
        ours = [r for r in of_task if r["contender"] == OURS]
        others = [r for r in of_task if self.other and r["contender"].startswith(self.other)]
        line: dict[str, Any] = {"task": self.task, "bound": self.bound, "value": None, "met": None}
        done = [r["per_second"] for r in others if "per_second" in r]
        if not ours or "per_second" not in ours[0] or (self.other and not done):
            wanting = [r for r in [*ours, *others] if "per_second" not in r]
            line["reason"] = "; ".join(f"{r['contender']} {r['status']}" for r in wanting) or "not in this run"
            return line
        value = ours[0]["per_second"] / (max(done) if self.other else 1)
        return {**line, "value": round(value, 2), "met": value >= self.least}


TARGETS = (
    Target("simclr", 150_000),
    Target("simclr", 20, "kornia"),
    Target("simclr", 5, "DALI"),
    Target("dino", 60_000),
    Target("dino", 20, "kornia"),
    Target("dino", 5, "DALI"),
)


def markdown(rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    head, *body = rows
    rule = ["---"] * text_columns + ["---:"] * (len(head) - text_columns)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *body])


def task_table(records: Sequence[Mapping[str, Any]], copy_bytes_per_s: float | None) -> str:
    """One row a contender: medians; of the floor, the part of a copy's rate at which pixels and views would have moved."""
    base = next((r["median_s"] for r in records if r["contender"] == "kornia" and "median_s" in r), None)
    rows = [["", "images/s", "us an image", "us on the device", "spread", "of the copy's rate", "times kornia"]]
    for r in records:
        if "median_s" not in r:
            rows.append([r["contender"], r["status"], *[""] * 5])
            continue
        device = f"{1e6 * r['device_median_s'] / r['count']:.2f}" if "device_median_s" in r else ""
        part = f"{r['per_second'] * r['bytes_an_image'] / copy_bytes_per_s:.1%}" if copy_bytes_per_s else ""
        times = f"{base / r['median_s']:.1f}" if base else ""
        row = [r["contender"], f"{r['per_second']:,.0f}", f"{1e6 * r['median_s'] / r['count']:.2f}", device]
        rows.append([*row, f"{r['spread']:.0%}", part, times])
    return markdown(rows)


def target_table(lines: Sequence[Mapping[str, Any]]) -> str:
    rows = [["task", "required", "measured", ""]]
    for line in lines:
        if line["value"] is None:
            rows.append([TITLES[line["task"]], line["bound"], "-", line["reason"]])
        else:
            value = f"{line['value']:,.0f}" if line["value"] >= 1000 else f"{line['value']:.1f}"
            rows.append([TITLES[line["task"]], line["bound"], value, "met" if line["met"] else "missed"])
    return markdown(rows, text_columns=2)


def bound_table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Required and measured: of benchmarks whose values are parts (of 1), ratios or MiB, as the bound's unit says."""
    rows = [["", "required", "measured", ""]]
    for line in lines:
        if line["value"] is None:
            rows.append([line["task"], line["bound"], "-", line["reason"]])
            continue
        percent, unit = "%" in line["bound"], " MiB" if "MiB" in line["bound"] else ""
        value = f"{line['value']:.1%}" if percent else f"{line['value']:,.0f}{unit}" if unit else f"{line['value']:.2f}"
        rows.append([line["task"], line["bound"], value, "met" if line["met"] else "missed"])
    return markdown(rows, text_columns=2)


def stage_table(stages: Mapping[str, Mapping[str, float]]) -> str:
    """One row a kernel, one column a task: microseconds an image."""
    kernels = sorted({kernel for of_task in stages.values() for kernel in of_task})
    rows = [["kernel, us an image", *stages]]
    rows += [[k, *(f"{of_task[k]:.3f}" if k in of_task else "" for of_task in stages.values())] for k in kernels]
    rows.append(["all", *(f"{sum(of_task.values()):.3f}" for of_task in stages.values())])
    return markdown(rows)


def host_table(host: Mapping[str, Mapping[str, float]]) -> str:
    """One row a step of the host's, one column a task: microseconds an image."""
    steps = list(dict.fromkeys(step for of_task in host.values() for step in of_task))
    rows = [["host, us an image", *host]]
    rows += [[s, *(f"{of_task[s]:.3f}" if s in of_task else "" for of_task in host.values())] for s in steps]
    return markdown(rows)


def workspace_table(found: Mapping[str, float]) -> str:
    return markdown([["workspace, MiB", "images/s"], *([mib, f"{speed:,.0f}"] for mib, speed in found.items())])


def tables(report: Mapping[str, Any]) -> str:
    """Everything, as Markdown."""
    records, rate = report["results"], report["copy_bytes_per_s"]
    parts = [f"A copy on the device moves {rate / 1e9:,.0f} GB/s, counted as read and written." if rate else ""]
    parts.append(target_table(report["targets"]))
    for task in dict.fromkeys(r["task"] for r in records):
        of_task = [r for r in records if r["task"] == task]
        settings = of_task[0]["settings"]
        title = f"{TITLES.get(task, task)}; batches of {settings['batch']}, {settings['type']}"
        parts += [title, task_table(of_task, rate)]
    for name, table in (("stages", stage_table), ("host", host_table), ("workspace", workspace_table)):
        if report.get(name):
            parts.append(table(report[name]))
    return "\n\n".join(part for part in parts if part)


def caption(report: Mapping[str, Any]) -> str:
    """What, where, with what, when."""
    machine, said = report["machine"], report.get("inputs", {})
    packages = " ".join(f"{name} {version}" for name, version in report["versions"].items() if version)
    mean = f" ({said['megapixels']:.2f} megapixels on average)" if "megapixels" in said else ""
    images = [f"{said['images']}{mean}"] if "images" in said else []
    images += [said["cifar"]] if "cifar" in said else []
    where = f"{machine['gpu'] or 'no GPU'}, {machine['cores']} cores of {machine['cpu']}"
    of = f"{'; '.join(images)}. " if images else ""
    return f"{of}{where}; {packages}; {report['date']}, commit {report['commit']}; `{report['command']}`"
