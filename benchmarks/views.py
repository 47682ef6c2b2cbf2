"""Views of photographs and of small images: fastssl beside the limit, full JPEG decoding, and what users run today.

Tasks, each with one thread on one core, and the last with two threads on two cores as well:

* decode: JPEG bytes in memory to RGB pixels; libjpeg-turbo, through simplejpeg, is the limit that others refer to.
* simclr: JPEG bytes in memory to two views of 224 px.
* dino: the same, to two views of 224 px and six of 96 px.
* cached: as simclr, in the epochs after the first, with fastssl's cache in memory; lightly has none.
* photographs: as simclr, from files of 12 megapixels (mosaics of the images).
* cifar: decoded images of 32 px in memory to two views of 32 px, without blur.
* loaders: a folder of files to two views of 224 px, as a training loop takes them, as many workers as threads.

Counted: decode, crop, flip, jitter, grayscale, blur, solarize, normalize, stacking into float32 batches; for loaders the
files too (from the system's cache). Not counted: start-up, of processes too, and the filling of the cache. All contenders
of a task take part in the same rounds, decoding alone among them; slow ones in some of the rounds. Draws differ between
libraries, so pixels cannot agree; what must agree is in view_checks.py. Memory is measured of the loaders with the most
threads, over the first four batches.

    python benchmarks/views.py                              all tasks, about 12 minutes on two cores
    python benchmarks/views.py --quick                      64 images, 3 rounds
    python benchmarks/views.py --tasks simclr dino          only these
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
import view_targets
from view_tasks import MEMORY_BATCHES, TASKS, Inputs, linked

BATCH, SMALL_BATCH = 32, 256  # images in a batch: of photographs, of small images
PHOTOGRAPHS = 24  # of 12 megapixels: 12 MB of views and 36 MB of pixels each, 35 ms of decoding
BASELINES = {name: kind.baseline for name, kind in TASKS.items()}


def inputs_of(task: str, arguments: argparse.Namespace, scratch: Path) -> Inputs:
    """The inputs of a task; what is long to make is made once, by `run_all`, and lies in the scratch folder."""
    recipe = TASKS[task].recipe
    if task == "cifar":
        import numpy as np

        pixels = np.load(scratch / "cifar.npy")
        return Inputs(recipe, SMALL_BATCH, pixels=pixels, expected_file=scratch / "expected-cifar.json")
    if task == "photographs":
        jpegs = [path.read_bytes() for path in sorted((scratch / "photographs").iterdir())]
        return Inputs(recipe, BATCH, jpegs=jpegs, expected_file=scratch / "expected-photographs.json")
    paths = [Path(p) for p in json.loads((scratch / "paths.json").read_text())]
    expected = scratch / f"expected-{recipe.name}.json"
    inputs = Inputs(recipe, BATCH, jpegs=[path.read_bytes() for path in paths], expected_file=expected)
    if task == "loaders":
        folder = linked(paths, scratch / f"images-{arguments.pinned}")
        return replace(inputs, threads=arguments.pinned, paths=paths, folder=folder)
    return inputs


def run_pinned(arguments: argparse.Namespace) -> None:
    """One process, pinned before any library starts its threads: `arguments.tasks` with `arguments.pinned` threads."""
    threads: int = arguments.pinned
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    import torch

    torch.set_num_threads(threads)
    scratch = Path(arguments.scratch)
    tasks = []
    for name in arguments.tasks:
        inputs = inputs_of(name, arguments, scratch)
        task = TASKS[name].make(inputs)
        if arguments.memory:
            task.measure_memory(inputs.first(MEMORY_BATCHES * inputs.batch_size))
        tasks.append(task)
    records = []
    for task in tasks:
        results = task.run(rounds=arguments.rounds, slow_rounds=arguments.slow_rounds)
        of_task = [result.to_json() for result in results]
        records += of_task
        print(f"\n{task.title}, {threads} thread{'s' * (threads > 1)}\n", flush=True)
        print(harness.table(of_task, BASELINES[task.title]), flush=True)
    Path(arguments.out).write_text(json.dumps(records))


def prepare(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Writes the inputs into the scratch folder; says what they are."""
    import numpy as np
    from inputs import cifar_images, find_jpegs, mosaics

    paths, origin = find_jpegs(arguments.data, arguments.images, scratch / "generated")
    (scratch / "paths.json").write_text(json.dumps([str(path) for path in paths]))
    megapixels, kilobytes = describe(paths)
    print(f"{origin}, on average {megapixels:.2f} megapixels and {kilobytes:.0f} kB")
    said = {"images": origin, "megapixels": megapixels, "kilobytes": kilobytes}
    if "photographs" in arguments.tasks:
        folder = scratch / "photographs"
        folder.mkdir()
        for i, jpeg in enumerate(mosaics(paths, arguments.photographs)):
            (folder / f"{i:03d}.jpg").write_bytes(jpeg)
        megapixels, kilobytes = describe(sorted(folder.iterdir()))
        said["photographs"] = (
            f"{arguments.photographs} mosaics of these, {megapixels:.0f} megapixels, {kilobytes:.0f} kB"
        )
        print(said["photographs"])
    if "cifar" in arguments.tasks:
        pixels, said["cifar"] = cifar_images(arguments.cifar, arguments.small_images)
        np.save(scratch / "cifar.npy", pixels)
        print(said["cifar"])
    return said


def run_all(arguments: argparse.Namespace) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if harness.LOAD_AT_START > 0.5:
        print(f"The machine is busy (load {harness.LOAD_AT_START}): measure again when it is not.")
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        said = prepare(arguments, scratch)
        print(f"{arguments.rounds} rounds, {arguments.slow_rounds} of the slow contenders", flush=True)
        runs = [(1, [name for name in TASKS if name in arguments.tasks and name != "loaders"])]
        runs += [(threads, ["loaders"]) for threads in arguments.threads if "loaders" in arguments.tasks]
        records: list[dict[str, Any]] = []
        for threads, tasks in runs:
            if not tasks:
                continue
            if threads > cores:
                print(f"{threads} threads left out: this process may use {cores} cores.")
                continue
            out = scratch / "records.json"
            command = [sys.executable, __file__, "--pinned", str(threads), "--scratch", str(scratch), "--out", str(out)]
            command += ["--rounds", str(arguments.rounds), "--slow-rounds", str(arguments.slow_rounds)]
            quiet = {"NO_ALBUMENTATIONS_UPDATE": "1", "OMP_NUM_THREADS": str(threads)}
            command += ["--memory"] if tasks == ["loaders"] and threads == min(cores, max(arguments.threads)) else []
            subprocess.run([*command, "--tasks", *tasks], check=True, env={**os.environ, **quiet})
            records += json.loads(out.read_text())
    targets = view_targets.measured(records)
    print(f"\nsummary: fastssl.Loader, medians\n\n{view_targets.summary(records)}")
    print(f"\nrequirements: ratios of medians\n\n{view_targets.table(targets)}\n")
    said |= {"rounds": arguments.rounds, "slow_rounds": arguments.slow_rounds}
    out_path = Path(arguments.out) if arguments.out else None
    harness.write(harness.report("views", records, inputs=said, targets=targets), out_path)


def describe(paths: list[Path]) -> tuple[float, float]:
    """Mean megapixels and mean kB of the files."""
    from PIL import Image

    pixels = 0
    for path in paths:
        with Image.open(path) as image:
            pixels += image.width * image.height
    return pixels / len(paths) / 1e6, sum(path.stat().st_size for path in paths) / len(paths) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of JPEG files (default: the ImageNet sample, else generated ones)")
    parser.add_argument(
        "--cifar", help="folder that holds CIFAR-10's test/ or test.tar (default: beside the repository)"
    )
    parser.add_argument("--quick", action="store_true", help="64 images, 4 large ones, 1024 small ones, 3 rounds")
    parser.add_argument("--images", type=int, help="how many images at most (600)")
    parser.add_argument("--photographs", type=int, help=f"how many images of 12 megapixels ({PHOTOGRAPHS})")
    parser.add_argument("--small-images", type=int, help="how many images of 32 px at most (10000)")
    parser.add_argument("--rounds", type=int, help="how often each contender is timed (5)")
    parser.add_argument("--slow-rounds", type=int, default=3, help="in how many of the rounds the slow ones are (3)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of the loaders (1 2)")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), help="only these")
    parser.add_argument("--out", help="where to write the JSON (default: benchmarks/results/views-<machine>.json)")
    parser.add_argument("--pinned", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--scratch", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.images = arguments.images or (64 if arguments.quick else 600)
    arguments.photographs = arguments.photographs or (4 if arguments.quick else PHOTOGRAPHS)
    arguments.small_images = arguments.small_images or (1024 if arguments.quick else 10000)
    arguments.rounds = arguments.rounds or (3 if arguments.quick else 5)
    run_pinned(arguments) if arguments.pinned else run_all(arguments)


if __name__ == "__main__":
    main()
