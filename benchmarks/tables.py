"""Writes the benchmark tables of a Markdown file from the JSON in benchmarks/results.

    python benchmarks/tables.py README.md            rewrites what lies between the markers
    python benchmarks/tables.py --check README.md    fails if that would change the file

A marker names the benchmark, and for views the task, or "summary" (fastssl in every task, beside each peer) or
"requirements" (each bound and whether it is met); for gpu_views a task or "requirements"; for gpu_decode a task, "decode" if
none is named, or "requirements"; for stall "requirements" or nothing; for losses a size such as 16384x128, or "requirements".
What lies between it and its end is generated:

    <!-- bench: views loaders -->
    <!-- /bench -->
    <!-- bench: views summary -->
    <!-- /bench -->
    <!-- bench: cifar10 -->
    <!-- /bench -->

Of several results of one benchmark the newest counts, CPU before GPU; `device=SLUG` in the marker picks another.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import cifar10
import gpu_decode
import gpu_report
import harness
import loss_targets
import stall
import view_targets
import views

MARKED = re.compile(r"(<!-- bench: (?P<words>[^>]*?) -->\n).*?(<!-- /bench -->)", re.S)


def reports(folder: Path) -> list[dict[str, Any]]:
    """All reports in the folder's files; a file holds one, or a list of them as `gpu-check` writes it."""
    found = []
    for path in sorted(folder.glob("*.json")):
        data = json.loads(path.read_text())
        found += data if isinstance(data, list) else [data]
    return [report for report in found if "benchmark" in report]


def newest(name: str, device: str | None, among: list[dict[str, Any]]) -> dict[str, Any] | None:
    fitting = [r for r in among if r["benchmark"] == name and device in (None, harness.slug(r["machine"]))]
    return max(fitting, key=lambda r: (r["machine"]["gpu"] is None, r["date"]), default=None)


def views_table(report: dict[str, Any], what: str) -> str:
    """The summary or the requirements; or of a task one row a contender, two columns for each number of threads."""
    if what == "summary":
        return view_targets.summary(report["results"])
    if what == "requirements":
        return view_targets.table(view_targets.measured(report["results"]))
    records = [r for r in report["results"] if r["task"] == what]
    if not records or what not in views.BASELINES:
        raise SystemExit(
            f"no task {what!r} in the newest views; there are {sorted({r['task'] for r in report['results']})}, and summary and "
            "requirements"
        )
    baseline = views.BASELINES[what]
    settings = sorted({r["settings"]["threads"] for r in records})
    by_name = {(r["contender"], r["settings"]["threads"]): r for r in records}
    head = [""]
    for threads in settings:
        head += [f"{threads} thread{'s' * (threads > 1)}, images/s", f"times {baseline}"]
    peaks = any(r["peak_mib"] is not None for r in records)
    rows = [head + ["memory"] * peaks, ["---"] + ["---:"] * (len(head) - 1 + peaks)]
    for contender in dict.fromkeys(r["contender"] for r in records):
        row = [contender]
        for threads in settings:
            record, base = by_name.get((contender, threads)), by_name.get((baseline, threads), {})
            if record is None or "median_s" not in record:
                row += [record["status"] if record else "", ""]
                continue
            times = f"{base['median_s'] / record['median_s']:.1f}" if "median_s" in base else ""
            row += [f"{record['per_second']:,.0f}", times]
        peak = by_name.get((contender, settings[-1]), {}).get("peak_mib")
        rows.append(row + ["" if peak is None else f"{peak:.0f} MiB"] * peaks)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def gpu_table(report: dict[str, Any], what: str) -> str:
    records = [r for r in report["results"] if r["task"] == what]
    if what != "requirements" and not records:
        raise SystemExit(
            f"no task {what!r} in the newest gpu_views; there are {sorted({r['task'] for r in report['results']})}"
        )
    if what == "requirements":
        return gpu_report.target_table(report["targets"])
    return gpu_report.task_table(records, report["copy_bytes_per_s"])


def caption(report: dict[str, Any]) -> str:
    """What, where, when and how; the peers by version."""
    m, v = report["machine"], report["versions"]
    where = f"{m['gpu']}, " if m["gpu"] else ""
    where += f"{m['cores']} cores of {m['cpu']}, {m['memory_gib']} GiB"
    names = {"torch": "torch", "torchvision": "torchvision", "pillow": "Pillow", "lightly": "lightly"}
    if report["benchmark"] in ("views", "gpu_views", "gpu_decode"):
        names |= {"albumentations": "albumentations", "kornia": "kornia", "nvidia-dali-cuda130": "DALI"}
    packages = ", ".join(f"{shown} {v[name]}" for name, shown in names.items() if v.get(name))
    inputs = ""
    if "inputs" in report:
        said = report["inputs"]
        more = "".join(f"; {said[name]}" for name in ("photographs", "cifar") if name in said)
        mean = f" (mean {said['megapixels']:.2f} megapixel)" if "megapixels" in said else ""
        inputs = f"{said['images']}{mean}{more}. "
    day = report["date"].split()[0]
    return f"<sub>{inputs}{where}; {packages}; {day}, commit {report['commit']}; `{report['command']}`</sub>"


def rendered(words: str, among: list[dict[str, Any]]) -> str:
    name, *rest = words.split()
    devices = [word.removeprefix("device=") for word in rest if word.startswith("device=")]
    report = newest(name, devices[0] if devices else None, among)
    if report is None:
        return f"Not measured yet: `python benchmarks/{name}.py`\n"
    which = " ".join(word for word in rest if "=" not in word)
    if name == "views":
        table = views_table(report, which or "loaders")
    elif name == "gpu_views":
        table = gpu_table(report, which or "simclr")
    elif name in ("gpu_decode", "stall"):
        table = loader_table(name, report, which)
    elif name == "cifar10":
        table = cifar10.table(report["results"])
    elif name == "losses":
        table = loss_targets.section(report, which)
    else:
        raise SystemExit(
            f"<!-- bench: {words} -->: no table is known for {name!r}; there are views, gpu_views, gpu_decode, stall, "
            "cifar10 and losses"
        )
    return f"{table}\n\n{caption(report)}\n"


def loader_table(name: str, report: dict[str, Any], what: str) -> str:
    if what == "requirements":
        return gpu_report.bound_table(report["targets"])
    if name == "stall":
        return stall.table(report["results"])
    records = [r for r in report["results"] if r["task"] == (what or "decode")]
    if not records:
        raise SystemExit(
            f"no task {what!r} in the newest gpu_decode; there are {sorted({r['task'] for r in report['results']})}"
        )
    return gpu_decode.table(records, report["inputs"]["megapixels"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a file is out of date")
    arguments = parser.parse_args()
    among = reports(harness.RESULTS)
    stale = []
    for path in arguments.files:
        before = path.read_text()
        after = MARKED.sub(lambda m: m[1] + rendered(m["words"], among) + m[3], before)
        if after != before:
            stale.append(str(path))
            if not arguments.check:
                path.write_text(after)
    if stale:
        print(("out of date: " if arguments.check else "rewrote ") + ", ".join(stale))
    sys.exit(bool(stale and arguments.check))


if __name__ == "__main__":
    main()
