"""Joins the reports of one GPU run, and pytest-benchmark's, into benchmarks/results/<device>-<commit>.json; tables beside it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gpu_decode
import gpu_report
import harness
import loss_targets
import stall


def from_pytest(data: dict[str, Any]) -> dict[str, Any]:
    """The report of a file that pytest-benchmark wrote."""
    results = [
        {
            "task": b["group"],
            "contender": b["name"],
            "median_s": b["stats"]["median"],
            "min_s": b["stats"]["min"],
            "iqr_s": b["stats"]["iqr"],
            "rounds": b["stats"]["rounds"],
            **b["extra_info"],
        }
        for b in data["benchmarks"]
    ]
    return {**harness.report("micro", results), "command": "pytest benchmarks/test_micro.py"}


TABLES = {
    "gpu_views": gpu_report.tables,
    "gpu_decode": gpu_decode.tables,
    "losses": loss_targets.sections,
    "stall": stall.tables,
}


def tables(reports: Sequence[dict[str, Any]]) -> str:
    """As Markdown, those of the benchmarks that a GPU is for."""
    known = [report for report in reports if report["benchmark"] in TABLES]
    return "\n".join(f"{gpu_report.caption(r)}\n\n{TABLES[r['benchmark']](r)}\n" for r in known)


def main(paths: list[Path]) -> None:
    if not paths:
        raise SystemExit("gather.py: give the JSON files to join")
    data = [json.loads(path.read_text()) for path in paths]
    joined = [d if "benchmark" in d else from_pytest(d) for d in data]
    name = f"{harness.slug(joined[0]['machine'])}-{harness.commit().removesuffix('+')}.json"
    for folder in filter(None, [str(harness.RESULTS), os.environ.get("OUT")]):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / name).write_text(json.dumps(joined, indent=1) + "\n")
        print(f"wrote {Path(folder) / name}")
        if text := tables(joined):
            (Path(folder) / name).with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:] if Path(argument).is_file()])
