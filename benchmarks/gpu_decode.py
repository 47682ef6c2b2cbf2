"""JPEGs to pixels on a GPU, and to views: every decoder's rate, and how near making two views of each image comes to it.

Tasks, on the ImageNet sample or a folder given, batches of 256, for each number of threads:

* decode: files in memory to 8-bit RGB of the whole image: on the CPU by fastssl and by torchvision, on the device by nvJPEG and
  by DALI, as fastssl uses them; by DALI's own pipeline besides, by the part that it leaves to the hardware (hw_decoder_load).
* decode + 2 x 224: a folder of files in the system's cache to two SimCLR views on the device, bfloat16, channels last, by
  fastssl.Loader: with what it chooses itself (decode="auto"), and with each decoder. On the CPU it decodes the part that the
  views need, in a fraction of the size where that does, so it may be faster than decoding everything.

Counted: all of it, until the device is done. Not counted: start-up, measuring what to choose, and for the decoders the disk. All
contenders of a task take part in the same rounds. What is decoded is compared with Pillow's pixels, views with what
view_checks.py asks for.

    python benchmarks/gpu_decode.py                       with 16 and 4 threads, a few minutes
    python benchmarks/gpu_decode.py --quick --threads 16
    python benchmarks/gpu_decode.py --device cpu --images 64 --threads 2    the same without a GPU
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
from contenders import dali, ours, torchvision
from harness import CheckFailed, Run, Task
from PIL import Image
from view_checks import Sums, check_views, expected_of
from view_recipes import SIMCLR, Recipe
from view_tasks import linked

LEAST = 0.9  # of the best rate of decoding alone, that decoding and two views must reach
HARDWARE_SHARES = (0.0, 0.65, 1.0)  # hw_decoder_load; 0.65 is DALI's own
LOADER = "fastssl.Loader"
COMPARED = 64  # images of the first batch, evenly, whose pixels are compared with Pillow's
IMAGES = 8192  # of a pass: files, over and over
EXPECTED_IMAGES = 256  # that torchvision's statistics are taken over
# Of 255, that an image may differ from Pillow's on average. Decoders agree in luma, which is never subsampled, up to their DCT's
# rounding. Where chroma is subsampled, libjpeg-turbo, and so Pillow, interpolates it, and nvJPEG repeats it: each pixel then
# differs, at edges by much, and the means over squares hardly do. Of the 589 colour images of the ImageNet sample, libjpeg-turbo
# itself with its plain upsampling differs by at most 0.28 in luma and by 0.63 in such means of chroma (pixel by pixel by 3.5,
# over 2 x 2 pixels by 2.4). Moved by a pixel, each of them differs by 1.2 or more in luma. Decoded by BT.709, they differ
# by up to 9.5 in luma and 3.8 in chroma, and half of them by more than 1.3 in luma.
LUMA, CHROMA = 1.0, 1.0
SQUARE = 8  # pixels, the side of those squares
LEVELS = 4.0  # the same for red, green and blue of images in gray or CMYK, whose conversion is each decoder's own


@dataclass(frozen=True)
class Inputs:
    """What every contender gets.

    Args:
        folder: Of JPEG files, which are links to a smaller number of files.
        paths: These.
        count: Files in the folder.
        recipe: The views.
        batch, threads, device: As one expects.
    """

    folder: Path
    paths: Sequence[Path]
    count: int
    recipe: Recipe
    batch: int
    threads: int
    device: torch.device

    @cached_property
    def jpegs(self) -> list[bytes]:
        read = [path.read_bytes() for path in self.paths]
        return [read[i % len(read)] for i in range(self.count)]

    def batches(self) -> Iterator[list[bytes]]:
        return (self.jpegs[i : i + self.batch] for i in range(0, self.count, self.batch))

    @cached_property
    def expected(self) -> dict[int, Sums]:
        return expected_of(self.recipe, map(torchvision.decode, self.jpegs[:EXPECTED_IMAGES]))

    @cached_property
    def megapixels(self) -> float:
        sizes = [Image.open(path).size for path in self.paths]
        return sum(width * height for width, height in sizes) / len(sizes) / 1e6


def waited(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    yield from batches
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# --- decoding alone ---------------------------------------------------------------------------------------------------


def check_decoded(inputs: Inputs) -> Callable[[Iterable[Any]], dict[str, Any]]:
    """Batches of images, (H, W, 3) or (3, H, W): all have their shape, and COMPARED of the first batch about Pillow's
    pixels."""

    def check(batches: Iterable[Any]) -> dict[str, Any]:
        sizes = [Image.open(path).size for path in inputs.paths]
        count = 0
        largest = {"luma": 0.0, "chroma": 0.0, "levels": 0.0}
        for number, batch in enumerate(batches):
            for image in batch:
                pixels = image if image.shape[2] == 3 else image.permute(1, 2, 0)
                width, height = sizes[count % len(sizes)]
                if tuple(pixels.shape) != (height, width, 3) or pixels.dtype != torch.uint8:
                    raise CheckFailed(
                        f"image {count} is {tuple(pixels.shape)}, {pixels.dtype}; expected {height} x {width}"
                    )
                if number == 0 and count % max(1, inputs.batch // COMPARED) == 0:
                    for name, value in differences(pixels.cpu().numpy(), inputs.jpegs[count]).items():
                        largest[name] = max(largest[name], value)
                count += 1
        if count != inputs.count:
            raise CheckFailed(f"{count} images of {inputs.count}")
        for name, bound in (("luma", LUMA), ("chroma", CHROMA), ("levels", LEVELS)):
            if largest[name] > bound:
                raise CheckFailed(
                    f"differs from Pillow by {largest[name]:.1f} on average, in {name}; at most {bound:g}"
                )
        return {name: round(value, 3) for name, value in largest.items()}

    return check


def differences(pixels: np.ndarray, jpeg: bytes) -> dict[str, float]:
    """What the mean absolute differences from Pillow's pixels are, in levels of 255: (H, W, 3), RGB.

    "luma" of each pixel and "chroma" of squares; of an image in gray or CMYK only "levels", of each pixel.
    """
    exact = Image.open(io.BytesIO(jpeg))
    difference = pixels.astype(np.float32) - np.asarray(exact.convert("RGB"), np.float32)
    if exact.mode != "RGB":
        return {"levels": float(np.abs(difference).mean())}
    red, green, blue = np.moveaxis(difference, 2, 0)  # both are linear: of differences as of pixels
    luma = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-T T.871, section 7
    chroma = [np.abs(mean_of_squares(c)).mean() for c in ((blue - luma) / 1.772, (red - luma) / 1.402)]
    return {"luma": float(np.abs(luma).mean()), "chroma": float(np.mean(chroma))}


def mean_of_squares(plane: np.ndarray) -> np.ndarray:
    """(H, W) to (H / SQUARE, W / SQUARE), what is left over at the right and below being left out; of a small one, the whole."""
    height, width = plane.shape
    rows, columns = min(SQUARE, height), min(SQUARE, width)
    whole = plane[: height // rows * rows, : width // columns * columns]
    return whole.reshape(height // rows, rows, width // columns, columns).mean((1, 3))


def by_threads(decode: Callable[[bytes], Any], inputs: Inputs) -> Run:
    pool = ThreadPoolExecutor(inputs.threads)
    return lambda: (list(pool.map(decode, batch)) for batch in inputs.batches())


def by_decoder(name: str, inputs: Inputs) -> Run:
    """A decoder of the device as the Loader uses it, from memory that a device can copy from."""
    from fastssl.pipelines.choose import make_decoder
    from fastssl.pipelines.decoder import LeftImage
    from fastssl.pipelines.nvjpeg import NvjpegDecoder

    device = inputs.device
    if name == "nvjpeg" and device.type == "cpu":
        decoder: Any = NvjpegDecoder(device)  # torchvision's decoder for the CPU in its place, for tests
    else:
        decoder = make_decoder(name, device, inputs.batch, inputs.threads)
    files = []
    for path in inputs.paths:
        data = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
        width, height = Image.open(path).size
        files.append((data.pin_memory() if device.type == "cuda" else data, height, width, (0, 0, height, width)))
    images = [LeftImage(i % inputs.batch, *files[i % len(files)]) for i in range(inputs.count)]
    left = [images[i : i + inputs.batch] for i in range(0, inputs.count, inputs.batch)]

    def call() -> Iterator[Any]:
        for batch in left:
            yield decoder.decode(batch)

    return lambda: waited(call(), device)


def pixels_of(decoded: Any) -> torch.Tensor:
    """Of what a decoder gave, (H, W, 3), whose owner is torch's tensor or another library's."""
    if decoded is None:
        raise CheckFailed("an image was refused")
    owner = decoded.owner
    pixels = owner if isinstance(owner, torch.Tensor) else torch.from_dlpack(owner)
    strides = (decoded.stride, 1, decoded.plane) if decoded.plane else (decoded.stride, 3, 1)
    return pixels.as_strided((decoded.rows, decoded.columns, 3), strides)


def decode_task(inputs: Inputs) -> Task:
    check = check_decoded(inputs)
    task = Task("decode", "images", inputs, inputs.count, check, {"threads": inputs.threads})

    @task.contender("CPU, fastssl.ops.decode", "fastssl")
    def _(inputs: Inputs) -> Run:
        from fastssl import ops

        return by_threads(ops.decode, inputs)

    @task.contender("CPU, torchvision.io.decode_jpeg")
    def _(inputs: Inputs) -> Run:
        return by_threads(torchvision.decode, inputs)

    def of_decoder(batches: Iterable[Any]) -> dict[str, Any]:
        return check([pixels_of(decoded) for decoded in batch] for batch in batches)

    @task.contender("nvJPEG", "fastssl", check=of_decoder)
    def _(inputs: Inputs) -> Run:
        return by_decoder("nvjpeg", inputs)

    @task.contender("DALI", "fastssl", "nvidia.dali", check=of_decoder)
    def _(inputs: Inputs) -> Run:
        return by_decoder("dali", inputs)

    for share in HARDWARE_SHARES:

        @task.contender(f"DALI alone, hw_decoder_load={share:g}", "nvidia.dali")
        def _(inputs: Inputs, share: float = share) -> Run:
            run = dali.decoded(inputs.batches, inputs.batch, inputs.threads, inputs.device, share)
            return lambda: waited(run(), inputs.device)

    return task


# --- views ------------------------------------------------------------------------------------------------------------


def views_task(inputs: Inputs) -> Task:
    compare = check_views(inputs.recipe, inputs.count, inputs.batch, lambda: inputs.expected)

    def check(batches: Iterable[Any]) -> dict[str, Any]:
        def checked() -> Iterator[Any]:
            for batch in batches:
                for view in batch.views:
                    if view.dtype != torch.bfloat16 or view.device != inputs.device:
                        raise CheckFailed(f"{view.dtype} on {view.device}, not bfloat16 on {inputs.device}")
                yield ([view.float() for view in batch.views],)

        return compare(checked())

    task = Task("decode + 2 x 224", "images", inputs, inputs.count, check, {"threads": inputs.threads})

    def loader(inputs: Inputs, decode: str) -> Run:
        import fastssl

        made = ours.loader(
            fastssl.data.ImageFolder(inputs.folder),
            inputs.recipe,
            inputs.batch,
            inputs.threads,
            device=inputs.device,
            dtype=torch.bfloat16,
            channels_last=True,
            decode=decode,
        )
        return lambda: waited(made, inputs.device)

    for name, decode in ((LOADER, "auto"), *((f"{LOADER}, {d}", d) for d in ("cpu", "nvjpeg"))):

        @task.contender(name, "fastssl")
        def _(inputs: Inputs, decode: str = decode) -> Run:
            return loader(inputs, decode)

    @task.contender(f"{LOADER}, dali", "fastssl", "nvidia.dali")
    def _(inputs: Inputs) -> Run:
        return loader(inputs, "dali")

    return task


# --- the report -------------------------------------------------------------------------------------------------------


def targets(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each number of threads, the Loader's own choice over the best decoder's rate."""
    lines = []
    for threads in dict.fromkeys(r["settings"]["threads"] for r in records):
        of = [r for r in records if r["settings"]["threads"] == threads]
        alone = [r for r in of if r["task"] == "decode" and "per_second" in r]
        views = [r for r in of if r["contender"] == LOADER]
        line: dict[str, Any] = {
            "task": f"decode + 2 x 224 px, {threads} threads",
            "bound": f">= {LEAST:g} x the best of decoding alone",
            "value": None,
            "met": None,
        }
        if not alone or not views or "per_second" not in views[0]:
            line["reason"] = "; ".join(r["status"] for r in views) or "not in this run"
        else:
            best = max(alone, key=lambda r: r["per_second"])
            line |= {"value": round(views[0]["per_second"] / best["per_second"], 3), "best": best["contender"]}
            line["met"] = line["value"] >= LEAST
        lines.append(line)
    return lines


def table(records: Sequence[dict[str, Any]], megapixels: float) -> str:
    """One row a contender of one task, two columns for each number of threads."""
    from gpu_report import markdown

    settings = sorted({r["settings"]["threads"] for r in records}, reverse=True)
    rows = [["", *(head for n in settings for head in (f"{n} threads, images/s", "megapixels/s"))]]
    for name in dict.fromkeys(r["contender"] for r in records):
        row = [name]
        for n in settings:
            of = [r for r in records if r["contender"] == name and r["settings"]["threads"] == n]
            if not of or "per_second" not in of[0]:
                row += [of[0]["status"] if of else "", ""]
            else:
                row += [f"{of[0]['per_second']:,.0f}", f"{of[0]['per_second'] * megapixels:,.0f}"]
        rows.append(row)
    return markdown(rows)


def tables(report: dict[str, Any]) -> str:
    """Everything, as Markdown."""
    from gpu_report import bound_table

    parts = [bound_table(report["targets"])]
    for task in dict.fromkeys(r["task"] for r in report["results"]):
        parts += [task, table([r for r in report["results"] if r["task"] == task], report["inputs"]["megapixels"])]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of JPEG files (default: the ImageNet sample, else generated ones)")
    parser.add_argument("--quick", action="store_true", help="a quarter of the images, 3 rounds")
    parser.add_argument("--threads", type=int, nargs="+", default=[16, 4])
    parser.add_argument("--images", type=int, help=f"of a pass ({IMAGES})")
    parser.add_argument("--rounds", type=int, help="how often each contender is timed (5)")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224, help="of the views")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--out", type=Path, help="where to write the JSON (benchmarks/results/gpu_decode-<device>.json)"
    )
    arguments = parser.parse_args()
    count = arguments.images or (IMAGES // 4 if arguments.quick else IMAGES)
    rounds = arguments.rounds or (3 if arguments.quick else 5)
    device = torch.device(arguments.device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            sys.exit("gpu_decode.py measures a GPU, and torch finds none here; --device cpu runs it on the CPU.")
        device = torch.device("cuda", device.index or torch.cuda.current_device())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    from inputs import GENERATED, find_jpegs

    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        paths, origin = find_jpegs(arguments.data, count, scratch / "generated", GENERATED)
        folder = linked([paths[i % len(paths)] for i in range(count)], scratch / "images")
        recipe = Recipe(SIMCLR.name, tuple(replace(view, size=arguments.size) for view in SIMCLR.views))
        inputs = Inputs(folder, paths, count, recipe, arguments.batch, 0, device)
        print(f"{origin}, on average {inputs.megapixels:.2f} megapixels; {rounds} rounds; {cores} cores", flush=True)
        records: list[dict[str, Any]] = []
        for threads in arguments.threads:
            if threads > cores:
                print(f"{threads} threads left out: this process may use {cores} cores.")
                continue
            of = replace(inputs, threads=threads)
            of.__dict__["expected"] = inputs.expected  # the same images
            for task in (decode_task(of), views_task(of)):
                of_task = [result.to_json() for result in task.run(rounds=rounds, slow_rounds=rounds)]
                records += of_task
                print(f"\n{task.title}, {threads} threads\n\n{table(of_task, inputs.megapixels)}", flush=True)
                if device.type == "cuda":
                    torch.cuda.empty_cache()
        said = {"images": origin, "megapixels": inputs.megapixels, "count": count, "batch": arguments.batch}
        said |= {"rounds": rounds, "size": arguments.size}
    if not records:
        sys.exit(f"gpu_decode.py: nothing was measured; this process may use {cores} cores: --threads {cores}")
    report = harness.report("gpu_decode", records, inputs=said, targets=targets(records))
    print(f"\n{tables(report)}\n")
    harness.write(report, arguments.out)


if __name__ == "__main__":
    main()
