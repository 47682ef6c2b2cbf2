"""Views on a GPU, of decoded images that lie there: fastssl beside kornia, torchvision and DALI on the same device.

Tasks, batches of 256 images:

* simclr: two views of 224 px to bfloat16, channels last, from photographs of about 0.2 megapixels, each of its own size.
* dino: the same, to two views of 224 px and six of 96 px.
* simclr, one size: from images that were resized to 400 x 500 pixels beforehand, one tensor.
* simclr, float32: as simclr, to float32 in planes.
* cifar: images of 32 px to two views of 32 px, batches of 1024.

Counted: drawing, crop, flip, jitter, grayscale, blur, solarize, normalize, writing the batch; all of the host's work, until the
device is done. Not counted: decoding, bringing images to the device, and for kornia, which takes images of one size only,
resizing them to one. All contenders take part in the same rounds; slow ones in some of them. Draws differ between libraries, so
pixels cannot agree; what must agree is in view_checks.py. A contender that is not installed is listed as absent.

Besides: what a copy on the device moves a second, which bounds all of this; each kernel's time; the host's time; and the speed
with other sizes of the workspace.

    python benchmarks/gpu_views.py                      all tasks, a few minutes
    python benchmarks/gpu_views.py --quick              fewer batches and rounds
    python benchmarks/gpu_views.py --tasks simclr dino  only these
    python benchmarks/gpu_views.py --once simclr        one batch by fastssl and nothing else, for a profiler
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import gpu_report
import gpu_stages
import harness
import torch
from contenders import ours
from gpu_tasks import TASKS, Inputs, Pixels, make_task, pixels_of
from harness import failure

BATCH, SMALL_BATCH = 256, 1024


def photographs(folder: str | None, device: torch.device, scratch: Path) -> tuple[Pixels, str]:
    """A batch of decoded photographs, some of them more than once where there are fewer; and where they come from."""
    from inputs import find_jpegs

    from fastssl import ops

    paths, origin = find_jpegs(folder, BATCH, scratch / "generated")
    images = [ops.decode(path.read_bytes()) for path in paths]
    images = [images[i % len(images)] for i in range(BATCH)]
    if "generated" in origin:  # all of one size
        images = [image[: 400 - i % 64, : 500 - i * 7 % 96].contiguous() for i, image in enumerate(images)]
    return pixels_of(images, device), origin


def small_images(folder: str | None, device: torch.device) -> tuple[Pixels, str]:
    from inputs import cifar_images

    pixels, origin = cifar_images(folder, SMALL_BATCH)
    images = [torch.from_numpy(pixels[i % len(pixels)]) for i in range(SMALL_BATCH)]
    return pixels_of(images, device, size=(32, 32)), origin


def measured(step: Any, *arguments: Any) -> Any:
    """What the step gives; where it fails, nothing, and the reason is printed, so that the tables are not lost for it."""
    try:
        return step(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is said and the rest is kept
        print(f"{step.__name__} {failure(error)}", flush=True)
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of JPEG files (default: the ImageNet sample, else generated ones)")
    parser.add_argument("--cifar", help="folder that holds CIFAR-10's test/ or test.tar")
    parser.add_argument("--quick", action="store_true", help="2 batches a pass and 3 rounds, 2 of the slow contenders")
    parser.add_argument("--batches", type=int, help="batches a pass (4)")
    parser.add_argument("--rounds", type=int, help="how often each contender is timed (9)")
    parser.add_argument("--slow-rounds", type=int, help="in how many of the rounds the slow ones are (3)")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), help="only these")
    parser.add_argument("--once", choices=list(TASKS), help="one batch of this task by fastssl, then exit")
    parser.add_argument("--out", type=Path, help="where to write the JSON (benchmarks/results/gpu_views-<device>.json)")
    arguments = parser.parse_args()
    batches = arguments.batches or (2 if arguments.quick else 4)
    rounds = arguments.rounds or (3 if arguments.quick else 9)
    slow_rounds = arguments.slow_rounds or (2 if arguments.quick else 3)

    if not torch.cuda.is_available():
        sys.exit("gpu_views.py measures a GPU, and torch finds none here (torch.cuda.is_available() is false).")
    import fastssl

    if not fastssl.has_cuda():
        sys.exit(
            f"gpu_views.py: this build of fastssl has no kernels for the GPU: {fastssl.build_info()}. Build with CUDA."
        )
    device = torch.device("cuda", torch.cuda.current_device())
    with tempfile.TemporaryDirectory() as scratch:
        wanted = [arguments.once] if arguments.once else arguments.tasks
        large = photographs(arguments.data, device, Path(scratch)) if set(wanted) != {"cifar"} else None
        small = small_images(arguments.cifar, device) if "cifar" in wanted else None

    def inputs_of(name: str) -> Inputs:
        pixels, _ = small if name == "cifar" else large
        return Inputs(pixels, TASKS[name].recipe, batches, TASKS[name].half, TASKS[name].uniform)

    if arguments.once:
        inputs = inputs_of(arguments.once)
        images = gpu_stages.images_of(inputs)
        gpu_stages.exhaust_and_wait(ours.rendered(inputs.recipe, images, 1, inputs.form["dtype"], inputs.half))
        return

    said: dict[str, Any] = {"batches": batches, "rounds": rounds, "slow_rounds": slow_rounds}
    if large:
        said |= {"images": large[1], "megapixels": large[0].megapixels()}
    if small:
        said["cifar"] = small[1]
    rate = measured(gpu_stages.copy_bytes_per_s, device)
    records: list[dict[str, Any]] = []
    stages, host = {}, {}
    for name in arguments.tasks:
        inputs = inputs_of(name)
        of_task = make_task(name, inputs).records(rounds=rounds, slow_rounds=slow_rounds)
        records += of_task
        print(f"\n{gpu_report.TITLES[name]}\n\n{gpu_report.task_table(of_task, rate)}", flush=True)
        for of_kind, step in ((stages, gpu_stages.stages), (host, gpu_stages.host)):
            if found := measured(step, inputs):
                of_kind[name] = found
        torch.cuda.empty_cache()
    workspace = measured(gpu_stages.workspaces, inputs_of("simclr")) if "simclr" in arguments.tasks else None
    targets = [target.measured(records) for target in gpu_report.TARGETS]
    more = {"copy_bytes_per_s": rate, "stages": stages, "host": host, "workspace": workspace, "targets": targets}
    report = harness.report("gpu_views", records, inputs=said, **more)
    print(f"\n{gpu_report.tables(report)}\n")
    harness.write(report, arguments.out)


if __name__ == "__main__":
    main()
