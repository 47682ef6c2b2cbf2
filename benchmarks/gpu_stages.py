"""Where the time goes: each kernel's part on the device, the host's, and what memory can do.

python benchmarks/gpu_stages.py --metrics    what ncu is asked for, as its --metrics
python benchmarks/gpu_stages.py FILE         a table of what `ncu --csv --print-units base` wrote
"""

from __future__ import annotations

import csv
import io
import re
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from contenders import ours
from gpu_tasks import Inputs

KERNEL = re.compile(r"\b([A-Z]\w*Kernel)(<[^<>]*>)?")


def kind_of(name: str) -> str:
    """A kernel of fastssl's by its struct and arguments; of others, all together.

    >>> kind_of("void fastssl::cuda::grid::run<fastssl::cuda::CropKernel<3, unsigned char> >(T1)")
    'CropKernel<3, unsigned char>'
    >>> kind_of("Memcpy HtoD (Pinned -> Device)"), kind_of("void at::native::elementwise_kernel<128, 4>()")
    ('copies and fills', 'others')
    """
    if name.startswith(("Memcpy", "Memset")):
        return "copies and fills"
    found = KERNEL.search(name) if "fastssl" in name else None
    return found[0] if found else "others"


def by_kind(times: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: defaultdict[str, float] = defaultdict(float)
    for name, value in times:
        sums[kind_of(name)] += value
    return dict(sums)


def stages(inputs: Inputs) -> dict[str, float]:
    """Microseconds an image of each kernel that renders these views, by torch's profiler."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    run = ours.rendered(inputs.recipe, images_of(inputs), inputs.batches, inputs.form["dtype"], inputs.half)
    exhaust_and_wait(run)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        exhaust_and_wait(run)
    times = [(e.name, e.time_range.elapsed_us()) for e in profiler.events() if e.device_type == DeviceType.CUDA]
    return {kind: us / (inputs.size * inputs.batches) for kind, us in by_kind(times).items()}


def images_of(inputs: Inputs) -> Any:
    return inputs.pixels.uniform if inputs.uniform else inputs.pixels.ragged


def exhaust_and_wait(run: Callable[[], Iterable[Any]]) -> None:
    for _ in run():
        pass
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def best_us(step: Callable[[], Any], rounds: int = 20) -> float:
    """Median, after a first call that does not count; the device is waited for between rounds, and not in them."""
    taken = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        step()
        taken.append(1e6 * (time.perf_counter() - begin))
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    return statistics.median(taken[1:])


def host(inputs: Inputs) -> dict[str, float]:
    """Microseconds an image that the host takes until all is asked for: drawing, and render() of a list and of one tensor."""
    from fastssl import ops
    from fastssl.transforms.plan import Plan

    views = ours.recipe_of(inputs.recipe)
    found = {}
    for name, images in (("list", inputs.pixels.ragged), ("one tensor", inputs.pixels.uniform)):
        sizes = [tuple(image.shape[:2]) for image in images]
        plan = Plan.draw(views, sizes, seed=0)
        form = {"dtype": inputs.form["dtype"], "channels_last": inputs.half}
        found.setdefault("Plan.draw", best_us(lambda sizes=sizes: Plan.draw(views, sizes, seed=0)))
        found[f"render, {name}"] = best_us(
            lambda images=images, plan=plan, form=form: ops.render(images, plan, views, **form)
        )
    return {name: us / inputs.size for name, us in found.items()}


def workspaces(inputs: Inputs, mebibytes: Iterable[int] = (24, 48, 96, 192, 384)) -> dict[str, float]:
    """Images a second with other sizes of the workspace: a small one stays in the cache, a large one takes fewer launches."""
    form = inputs.form["dtype"], inputs.half
    found = {}
    for size in mebibytes:
        run = ours.rendered(inputs.recipe, images_of(inputs), inputs.batches, *form, workspace_bytes=size << 20)
        exhaust_and_wait(run)
        taken = []
        for _ in range(5):
            begin = time.perf_counter()
            exhaust_and_wait(run)
            taken.append(time.perf_counter() - begin)
        found[str(size)] = inputs.size * inputs.batches / statistics.median(taken)
    return found


def copy_bytes_per_s(device: torch.device, nbytes: int = 1 << 30) -> float:
    """What a copy on the device moves a second, read and written; the median of ten, larger than any cache."""
    source = torch.empty(nbytes, dtype=torch.uint8, device=device).random_()
    to = torch.empty_like(source)
    rates = []
    for _ in range(11):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        to.copy_(source)
        end.record()
        end.synchronize()
        rates.append(2 * nbytes / (begin.elapsed_time(end) / 1e3))
    return statistics.median(rates[1:])


# --- Nsight Compute ---------------------------------------------------------------------------------------------------

NCU_METRICS = {
    "gpu__time_duration.sum": "us",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "memory, %",
    "lts__throughput.avg.pct_of_peak_sustained_elapsed": "L2, %",
    "l1tex__throughput.avg.pct_of_peak_sustained_active": "L1, %",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "compute, %",
    "smsp__issue_active.avg.pct_of_peak_sustained_active": "issue slots, %",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "warps, %",
    "launch__registers_per_thread": "registers",
}


def read_ncu(text: str) -> list[list[str]]:
    """Rows of a table, one a kind of kernel, from `ncu --csv --print-units base`: time in all, the rest weighted by it."""
    at = text.find('"ID"')
    if at < 0:
        raise ValueError(f"ncu printed no table; it said: {text[-500:]}")
    launches: dict[tuple[str, str], dict[str, float]] = {}
    for line in csv.DictReader(io.StringIO(text[at:])):
        value = line["Metric Value"].replace(",", "")
        if line["Metric Name"] in NCU_METRICS and re.fullmatch(r"[\d.eE+-]+", value):
            launches.setdefault((line["ID"], kind_of(line["Kernel Name"])), {})[line["Metric Name"]] = float(value)
    kinds: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
    for (_, kind), values in launches.items():
        kinds[kind].append(values)
    duration, *others = NCU_METRICS
    rows = [["kernel", "launches", *NCU_METRICS.values()]]
    for kind, of_kind in sorted(kinds.items(), key=lambda item: -sum(v.get(duration, 0) for v in item[1])):
        total = sum(v.get(duration, 0) for v in of_kind)
        row = [kind, str(len(of_kind)), f"{total / 1e3:.1f}"]
        for metric in others:
            weighted = [(v[metric], v.get(duration, 0)) for v in of_kind if metric in v]
            weight = sum(w for _, w in weighted)
            row.append(f"{sum(v * w for v, w in weighted) / weight:.1f}" if weight else "")
        rows.append(row)
    return rows


if __name__ == "__main__":
    if sys.argv[1:] == ["--metrics"]:
        print(",".join(NCU_METRICS))
    else:
        from gpu_report import markdown

        print(markdown(read_ncu(Path(sys.argv[1]).read_text())))
