"""Writes the benchmark tables of a Markdown file from the JSON in benchmarks/results.

    python benchmarks/tables.py README.md            rewrites what lies between the markers
    python benchmarks/tables.py --check README.md    fails if that would change the file

A marker names the benchmark, and for views the task; what lies between it and its end is generated:

    <!-- bench: views loaders -->
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
import harness
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


def views_table(report: dict[str, Any], task: str) -> str:
    """One row a contender, two columns for each number of threads: images/s, and times the baseline."""
    records = [r for r in report["results"] if r["task"] == task]
    if not records:
        raise SystemExit(
            f"no task {task!r} in the newest views; there are {sorted({r['task'] for r in report['results']})}"
        )
    baseline = views.BASELINES[task]
    settings = sorted({r["settings"]["threads"] for r in records})
    medians = {(r["contender"], r["settings"]["threads"]): r for r in records}
    head = [""]
    for threads in settings:
        head += [f"{threads} thread{'s' * (threads > 1)}, images/s", f"times {baseline}"]
    rows = [[*head, "memory"], ["---"] + ["---:"] * len(head)]
    for contender in dict.fromkeys(r["contender"] for r in records):
        row = [contender]
        for threads in settings:
            record, base = medians[contender, threads], medians[baseline, threads]
            if "median_s" not in record:
                row += [record["status"], ""]
                continue
            times = f"{base['median_s'] / record['median_s']:.1f}" if "median_s" in base else ""
            row += [f"{record['per_second']:,.0f}", times]
        peak = medians[contender, settings[-1]]["peak_mib"]
        rows.append([*row, "" if peak is None else f"{peak:.0f} MiB"])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def caption(report: dict[str, Any]) -> str:
    """What, where, when and how."""
    m, v = report["machine"], report["versions"]
    where = f"{m['gpu']}, " if m["gpu"] else ""
    where += f"{m['cores']} cores of {m['cpu']}, {m['memory_gib']} GiB"
    names = {"torch": "torch", "torchvision": "torchvision", "pillow": "Pillow", "lightly": "lightly"}
    packages = ", ".join(f"{shown} {v[name]}" for name, shown in names.items() if v.get(name))
    inputs = (
        f"{report['inputs']['images']} (mean {report['inputs']['megapixels']:.2f} megapixel). "
        if "inputs" in report
        else ""
    )
    day = report["date"].split()[0]
    return f"<sub>{inputs}{where}; {packages}; {day}, commit {report['commit']}; `{report['command']}`</sub>"


def rendered(words: str, among: list[dict[str, Any]]) -> str:
    name, *rest = words.split()
    devices = [word.removeprefix("device=") for word in rest if word.startswith("device=")]
    report = newest(name, devices[0] if devices else None, among)
    if report is None:
        return f"Not measured yet: `python benchmarks/{name}.py`\n"
    if name == "views":
        table = views_table(report, next((word for word in rest if "=" not in word), "loaders"))
    elif name == "cifar10":
        table = cifar10.table(report["results"])
    else:
        raise SystemExit(f"<!-- bench: {words} -->: no table is known for {name!r}; there are views and cifar10")
    return f"{table}\n\n{caption(report)}\n"


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
