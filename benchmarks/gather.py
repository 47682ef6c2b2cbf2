"""Joins the reports of one GPU run, and pytest-benchmark's, into benchmarks/results/<device>-<commit>.json; tables beside it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gpu_report
import harness
import loss_targets


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


def tables(reports: Sequence[dict[str, Any]]) -> str:
    """As Markdown, those of gpu_views.py and losses.py."""
    of_views = [report for report in reports if report["benchmark"] == "gpu_views"]
    text = "".join(f"{gpu_report.caption(r)}\n\n{gpu_report.tables(r)}\n" for r in of_views)
    of_losses = [report for report in reports if report["benchmark"] == "losses"]
    return text + "".join(f"\n{r['command']}\n\n{loss_targets.sections(r)}\n" for r in of_losses)


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
