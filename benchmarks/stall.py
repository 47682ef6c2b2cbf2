"""How much of a GPU's time training loses to its data: ResNet-50 with SimCLR, fed by what lies there, and by loaders.

The network is trained in bfloat16 (autocast), channels last, compiled, on two views of 224 px of each image, batches of 256:

* resident: with one batch again and again, which lies on the device: what the network alone can do, and the limit.
* fastssl.Loader: from a folder of JPEG files in the system's cache; where images are decoded is measured and chosen
  (decode="auto"), or the CPU alone decodes.
* fastssl.to_device: a DataLoader whose workers only read the files.
* lightly + DataLoader: lightly's dataset and transform, as many workers as the others have threads.

Counted: everything from one batch to the next, for some seconds, until the device is done. Not counted: the start (imports,
compiling, first batches, of a DataLoader as many as it has under way). Lost to data is the part by which a loader's images a
second stay behind those of the resident batch, which is timed before and after each loader, in each round. Batches are checked
before anything is timed, as view_checks.py says. Besides: the peaks of the device's memory that the Loader takes by itself, until
its first batch is there, which with decode="auto" is while ways to decode are compared, and from then on.

    python benchmarks/stall.py                       with 16 and with 4 threads, a few minutes on an H100
    python benchmarks/stall.py --quick --threads 16  one round, and shorter
    python benchmarks/stall.py --data photos/        on images of your own
    python benchmarks/stall.py --device cpu --network small --size 32 --batch 16 --threads 2    the same on the CPU
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
import torch
from harness import CheckFailed, failure, importable
from stall_feeds import CONTENDERS, LOADER, Contender, Feed, Inputs, check, from_loader, resident
from torch import Tensor, nn
from view_recipes import SIMCLR, Recipe
from view_tasks import linked

MOST_LOST = 0.02  # of the time, to data
MOST_MEMORY_MIB = 2048  # of the device, that the Loader takes for batches of 256
RESIDENT = "resident"
STEP_CYCLES = 100_000_000  # of a GPU's clock: about 60 ms
NETWORK, BATCH, SIZE = "resnet50", 256, 224
FILES = 16_384  # that the folder holds, so that an epoch is long for everyone: links to the images, over and over


# --- the network ------------------------------------------------------------------------------------------------------


class Training:
    """A network and one step of training it.

    Args:
        network: "resnet50", or "small": one that a CPU trains.
        compiled: Whether torch.compile makes it.
    """

    def __init__(self, network: str, device: torch.device, compiled: bool) -> None:
        from fastssl.loss import NTXentLoss
        from fastssl.models.modules import SimCLRProjectionHead

        backbone, features = backbone_of(network)
        model = nn.Sequential(backbone, SimCLRProjectionHead(features, features, 128))
        model = model.to(device, memory_format=torch.channels_last).train()
        self._device = device
        self._optimizer = torch.optim.SGD(model.parameters(), lr=0.06, momentum=0.9, weight_decay=1e-4)
        self._criterion = NTXentLoss(temperature=0.1)
        self._model: Any = torch.compile(model) if compiled else model

    def step(self, views: list[Tensor]) -> Tensor:
        """The loss; the host does not wait for it."""
        with torch.autocast(self._device.type, torch.bfloat16):
            z = self._model(torch.cat(views))
        loss = self._criterion(*z.float().chunk(2))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        return loss.detach()


def backbone_of(network: str) -> tuple[nn.Module, int]:
    if network == "small":
        from cifar10 import small_resnet

        return small_resnet(width=8, blocks=1)
    from torchvision.models import resnet50

    backbone = resnet50(weights=None)
    features = backbone.fc.in_features
    backbone.fc = nn.Identity()
    return backbone, features


# --- the clock --------------------------------------------------------------------------------------------------------


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def images_per_second(training: Training, feed: Feed, inputs: Inputs, seconds: float, warm_up: int) -> float:
    """Of training for so long, or three batches at least, after some that do not count."""
    for _ in range(warm_up):
        loss = training.step(next(feed))
    synchronize(inputs.device)
    begin, batches = time.perf_counter(), 0
    # The host runs ahead of the device, a few steps at most; so its clock is near enough to tell when to stop.
    recent: list[Any] = []
    while batches < 3 or time.perf_counter() - begin < seconds:
        loss = training.step(next(feed))
        batches += 1
        if inputs.device.type == "cuda":
            recent.append(torch.cuda.Event(blocking=True))  # the host sleeps, and leaves its core to loaders
            recent[-1].record(torch.cuda.current_stream(inputs.device))
            if len(recent) > 4:
                recent.pop(0).synchronize()
    synchronize(inputs.device)
    elapsed = time.perf_counter() - begin
    if not torch.isfinite(loss):
        raise CheckFailed(f"the loss is {loss.item()}")
    return batches * inputs.batch / elapsed


@contextlib.contextmanager
def closing(feed: Feed) -> Iterator[Feed]:
    try:
        yield feed
    finally:
        if hasattr(feed, "close"):
            feed.close()


def measure(
    contender: Contender, training: Training, inputs: Inputs, alone: Feed, rounds: int, seconds: float
) -> dict[str, Any]:
    """A record of one contender; each round times it between two times of the resident batch."""
    record: dict[str, Any] = {"task": "stall", "contender": contender.name, "settings": {"threads": inputs.threads}}
    missing = [name for name in contender.needs if not importable(name)]
    if missing:
        return record | {"status": f"absent: {', '.join(missing)} not installed"}
    rates, limits, found, told = [], [], {}, {}
    try:
        for number in range(rounds):
            before = images_per_second(training, alone, inputs, seconds / 2, 2)
            feed, tell = contender.make(inputs)
            with closing(feed):
                if number == 0:
                    found = check(feed, inputs)
                rates.append(images_per_second(training, feed, inputs, seconds, contender.warm_up(inputs.threads)))
                told = tell()
            del feed
            limits.append(statistics.fmean([before, images_per_second(training, alone, inputs, seconds / 2, 2)]))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is listed and the others go on
        said = f"failed its check: {error}" if isinstance(error, CheckFailed) else failure(error)
        return record | {"status": said}
    lost = [max(0.0, 1 - rate / limit) for rate, limit in zip(rates, limits, strict=True)]
    return record | {
        "status": "ok",
        "check": found,
        "rates": rates,
        "resident_rates": limits,
        "per_second": statistics.median(rates),
        "lost": statistics.median(lost),
        "worst": max(lost),
        "told": told,
    }


def pipeline_memory_mib(inputs: Inputs, decode: str, batches: int = 30) -> dict[str, float | None]:
    """The most that the Loader alone takes of the device's memory, with the batches in the hands of a consumer that is slower.

    Until the first batch is there, it is what torch reserved at most: what is measured to choose a decoder is let go of by then.
    From then on it is as the device sees it: decoders have memory that torch does not know of; what choosing left behind counts.
    """
    running, start = f'decode="{decode}"', f'decode="{decode}", until the first batch'
    if inputs.device.type != "cuda":
        return {running: None, start: None}
    synchronize(inputs.device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(inputs.device)
    reserved = torch.cuda.memory_reserved(inputs.device)
    before = least = torch.cuda.mem_get_info(inputs.device)[0]
    feed, _ = from_loader(inputs, decode)
    first: int | None = None
    with closing(feed):
        for _views in itertools.islice(feed, batches):
            if first is None:
                first = torch.cuda.max_memory_reserved(inputs.device) - reserved
            torch.cuda._sleep(STEP_CYCLES)
            least = min(least, torch.cuda.mem_get_info(inputs.device)[0])
        synchronize(inputs.device)
    return {running: (before - least) / 2**20, start: None if first is None else first / 2**20}


# --- the report -------------------------------------------------------------------------------------------------------


def targets(records: Sequence[dict[str, Any]], memory: dict[str, float | None]) -> list[dict[str, Any]]:
    lines = []
    for record in records:
        if record["contender"] != LOADER:
            continue
        threads = record["settings"]["threads"]
        line: dict[str, Any] = {
            "task": f"lost to data, {threads} threads",
            "bound": f"<= {MOST_LOST:.0%}",
            "value": record.get("lost"),
        }
        line["met"] = None if line["value"] is None else line["value"] <= MOST_LOST
        lines.append(line | ({} if record["status"] == "ok" else {"reason": record["status"]}))
    for name, mib in memory.items():
        line = {"task": f"memory of the device, {name}", "bound": f"< {MOST_MEMORY_MIB} MiB", "value": mib}
        line["met"] = None if mib is None else mib < MOST_MEMORY_MIB
        lines.append(line | ({"reason": "the device is the CPU"} if mib is None else {}))
    return lines


def table(records: Sequence[dict[str, Any]]) -> str:
    """One row a contender, three columns for each number of threads; the resident batch is the first row."""
    from gpu_report import markdown

    settings = sorted({r["settings"]["threads"] for r in records}, reverse=True)
    rows = [["", *itertools.chain(*([f"{n} threads, images/s", "lost to data", "worst round"] for n in settings))]]
    limits = [
        [rate for r in records if r["settings"]["threads"] == n for rate in r.get("resident_rates", [])]
        for n in settings
    ]
    rows.append(
        [RESIDENT, *itertools.chain(*([f"{statistics.median(of) if of else 0:,.0f}", "", ""] for of in limits))]
    )
    for name in dict.fromkeys(r["contender"] for r in records):
        row = [name]
        for n in settings:
            of = [r for r in records if r["contender"] == name and r["settings"]["threads"] == n]
            if not of or of[0]["status"] != "ok":
                row += [of[0]["status"] if of else "", "", ""]
                continue
            row += [f"{of[0]['per_second']:,.0f}", f"{of[0]['lost']:.1%}", f"{of[0]['worst']:.1%}"]
        rows.append(row)
    return markdown(rows)


def tables(report: dict[str, Any]) -> str:
    """Everything, as Markdown."""
    from gpu_report import bound_table

    chosen = [
        f"{r['contender']}, {r['settings']['threads']} threads: decoded by {r['told']['decoding']['by']}, in the end a share of "
        f"{r['told']['decoding']['share']:.0%}"
        for r in report["results"]
        if r.get("told", {}).get("decoding")
    ]
    return "\n\n".join([table(report["results"]), bound_table(report["targets"]), *chosen])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of JPEG files (default: the ImageNet sample, else generated ones)")
    parser.add_argument("--quick", action="store_true", help="one round of 4 s each")
    parser.add_argument("--threads", type=int, nargs="+", default=[16, 4], help="of the loaders (16 4)")
    parser.add_argument("--seconds", type=float, help="for which each contender is timed (10)")
    parser.add_argument("--rounds", type=int, help="how often (3)")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--size", type=int, default=SIZE, help="of the views")
    parser.add_argument("--network", choices=("resnet50", "small"), default=NETWORK)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--files", type=int, default=FILES, help="that the folder is made to hold")
    parser.add_argument("--only", nargs="+", choices=[c.name for c in CONTENDERS], help="only these contenders")
    parser.add_argument("--out", type=Path, help="where to write the JSON (benchmarks/results/stall-<device>.json)")
    arguments = parser.parse_args()
    seconds = arguments.seconds or (4 if arguments.quick else 10)
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    device = torch.device(arguments.device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            sys.exit(
                "stall.py measures a GPU, and torch finds none here; --device cpu --network small runs it on the CPU."
            )
        device = torch.device("cuda", device.index or torch.cuda.current_device())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    from inputs import GENERATED, find_jpegs

    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        paths, origin = find_jpegs(arguments.data, arguments.files, scratch / "generated", GENERATED)
        folder = linked([paths[i % len(paths)] for i in range(arguments.files)], scratch / "images")
        for path in paths:
            path.read_bytes()  # into the system's cache
        recipe = Recipe(SIMCLR.name, tuple(replace(view, size=arguments.size) for view in SIMCLR.views))
        dtype = torch.bfloat16
        inputs = Inputs(folder, paths, recipe, arguments.batch, max(arguments.threads), device, dtype)
        memory = pipeline_memory_mib(inputs, "auto") | pipeline_memory_mib(inputs, "cpu")
        training = Training(arguments.network, device, compiled=not arguments.no_compile)
        alone, _ = resident(inputs)
        print(f"{origin}; {arguments.network}, {seconds:g} s, {rounds} rounds; {cores} cores", flush=True)
        limit = images_per_second(training, alone, inputs, seconds / 2, 5)
        print(f"resident: {limit:,.0f} images/s", flush=True)
        records = []
        for threads in arguments.threads:
            if threads > cores:
                print(f"{threads} threads left out: this process may use {cores} cores.")
                continue
            for contender in CONTENDERS:
                if arguments.only and contender.name not in arguments.only:
                    continue
                of = replace(inputs, threads=threads)
                of.__dict__["expected"] = inputs.expected  # the same images
                record = measure(contender, training, of, alone, rounds, seconds)
                records.append(record)
                lost = (
                    f"{record['per_second']:,.0f} images/s, {record['lost']:.1%} lost"
                    if "lost" in record
                    else record["status"]
                )
                print(f"{threads} threads, {contender.name}: {lost}", flush=True)
    if not records:
        sys.exit(f"stall.py: nothing was measured; this process may use {cores} cores: --threads {cores}")
    said = {
        "images": origin,
        "seconds": seconds,
        "rounds": rounds,
        "batch": arguments.batch,
        "network": arguments.network,
    }
    said |= {"compiled": not arguments.no_compile, "size": arguments.size}
    report = harness.report("stall", records, inputs=said, memory_mib=memory, targets=targets(records, memory))
    print(f"\n{tables(report)}\n")
    harness.write(report, arguments.out)


if __name__ == "__main__":
    main()
