"""SimCLR on CIFAR-10, twice: with fastssl.Loader and with lightly's dataset and transform. Only the data path differs.

Both arms, each in a process of its own, one after the other, have the same seed, network, initial weights, loss,
optimizer, schedule and number of steps; the same recipe (crop, flip, jitter of strength 0.5, grayscale, no blur: that
of SimCLR for CIFAR-10); and the same evaluation: weighted k-NN accuracy of the backbone's features on the 10,000 test
images, with the training images as the bank. What is drawn differs, since each library draws in its own way.

Counted as training: everything from the first batch asked for to the last step, the workers' start included. The
network is small (a ResNet of one block a stage, bfloat16 where the processor has it), so that two cores train it in
minutes; that also makes the data path a larger share of the time than with a large network. Where workers and torch's
threads share few cores, torch may be faster with fewer threads. Each arm has the number with which it is faster here,
2 for fastssl and 1 for lightly (`--train-threads 2 1`); try `--train-threads 1` and `2` on other machines.

    python benchmarks/cifar10.py                       both arms, 50,000 images, 12 epochs
    python benchmarks/cifar10.py --images 5000 --epochs 2
    python benchmarks/cifar10.py --lightly-loss        both arms with lightly's NTXentLoss in place of fastssl's

The images: ../shared/data/cifar10/{train,test}.tar beside the repository, or --data FOLDER that holds these, or that
holds train/ and test/ with a folder for each class.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import harness
import torch
from torch import Tensor, nn

ARMS = ("fastssl", "lightly")
SIZE = 32
STRENGTH = 0.5  # of the jitter; Chen et al., arXiv:2002.05709, appendix B.9
NEIGHBOURS, KNN_TEMPERATURE = 200, 0.1  # Wu et al., arXiv:1805.01978, section 3.4, and lightly's benchmarks


# --- the images -------------------------------------------------------------------------------------------------------


def unpacked(data: Path, part: str, images: int | None, cache: Path) -> Path:
    """Folder of `part`, "train" or "test", with a folder for each class: `images` in all, the first of each class."""
    folder, archive = data / part, data / f"{part}.tar"
    if folder.is_dir():
        return folder
    if not archive.is_file():
        raise SystemExit(
            f"{data} holds neither {part}/ nor {part}.tar; give the folder that holds CIFAR-10: --data FOLDER"
        )
    target = cache / (part if images is None else f"{part}-{images}")
    if not target.is_dir():
        partial = target.with_name(target.name + ".partial")
        with tarfile.open(archive) as tar:
            members = [m for m in tar.getmembers() if m.isfile()]
            if images is not None:
                by_class = itertools.groupby(sorted(members, key=lambda m: m.name), lambda m: Path(m.name).parent)
                members = [m for _, of_class in by_class for m in itertools.islice(of_class, images // 10)]
            tar.extractall(partial, members, filter="data")
        partial.rename(target)
    return target


# --- the arms: how views come about -----------------------------------------------------------------------------------


def views_of_fastssl(folder: Path, options: argparse.Namespace) -> Callable[[], Iterable[list[Tensor]]]:
    import fastssl

    loader = fastssl.Loader(
        fastssl.data.ImageFolder(folder),
        fastssl.recipes.simclr(SIZE, strength=STRENGTH, blur=False),
        batch_size=options.batch_size,
        seed=options.seed,
        drop_last=True,
        channels_last=True,
        threads=options.threads,
    )
    return lambda: (batch.views for batch in loader)


def views_of_lightly(folder: Path, options: argparse.Namespace) -> Callable[[], Iterable[list[Tensor]]]:
    from lightly.data import LightlyDataset
    from lightly.transforms import SimCLRTransform
    from torch.utils.data import DataLoader

    transform = SimCLRTransform(input_size=SIZE, cj_strength=STRENGTH, gaussian_blur=0)
    loader = DataLoader(
        LightlyDataset(str(folder), transform=transform),
        batch_size=options.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=options.threads,
        persistent_workers=True,
        generator=torch.Generator().manual_seed(options.seed),
    )
    return lambda: (views for views, _, _ in loader)


# --- what both arms share ---------------------------------------------------------------------------------------------


class Block(nn.Module):
    """Basic residual block (He et al., arXiv:1512.03385, figure 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.short: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.short(x))


def small_resnet(width: int, blocks: int) -> tuple[nn.Module, int]:
    """A ResNet of four stages, the first at 16 x 16 pixels: (B, 3, 32, 32) to (B, 8 * width); and 8 * width."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    channels = width
    for stage, block in itertools.product(range(4), range(blocks)):
        layers.append(Block(channels, width << stage, 2 if stage and not block else 1))
        channels = width << stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), channels


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; elsewhere it is slower than float32."""
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def timed(batches: Iterable[Any], waits: list[float]) -> Iterator[Any]:
    """The batches; appends the time that each was waited for."""
    iterator = iter(batches)
    while True:
        begin = time.perf_counter()
        batch = next(iterator, None)
        waits.append(time.perf_counter() - begin)
        if batch is None:
            return
        yield batch


def train(
    model: nn.Module, views: Callable[[], Iterable[list[Tensor]]], steps: int, options: argparse.Namespace
) -> dict:
    """`options.epochs` epochs of `steps` steps; how long they took, waited for data, and the loss of each epoch."""
    if options.lightly_loss:
        from lightly.loss import NTXentLoss
    else:
        from fastssl.loss import NTXentLoss

    criterion = NTXentLoss(temperature=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.12, momentum=0.9, weight_decay=5e-4)
    total, warmup = steps * options.epochs, max(1, steps * options.epochs // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: (s + 1) / warmup if s < warmup else 0.5 + 0.5 * math.cos(math.pi * (s - warmup) / (total - warmup)),
    )
    model.train()
    waits: list[float] = []
    losses: list[float] = []
    memory = 0
    begin = time.perf_counter()
    for epoch in range(options.epochs):
        sum_of_losses = torch.zeros(())
        for pair in timed(views(), waits):
            both = torch.cat(tuple(pair)).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
                z = model(both)
            loss = criterion(*z.float().chunk(2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            sum_of_losses += loss.detach()
        losses.append(round(sum_of_losses.item() / steps, 4))
        memory = max(memory, harness.tree_memory_kib(os.getpid()) or 0)
        seconds = time.perf_counter() - begin
        rate = (epoch + 1) * steps * options.batch_size / seconds
        print(f"  epoch {epoch + 1}: loss {losses[-1]:.3f}, {seconds:.0f} s, {rate:,.0f} images/s", flush=True)
    seconds = time.perf_counter() - begin
    return {
        "train_seconds": round(seconds, 1),
        "wait_share": round(sum(waits) / seconds, 4),
        "images_per_second": round(total * options.batch_size / seconds, 1),
        "steps": total,
        "losses": losses,
        "memory_mib": round(memory / 1024),
    }


def knn_accuracy(backbone: nn.Module, bank: Path, test: Path, options: argparse.Namespace) -> float:
    """Accuracy on `test`, in percent, by k-NN among `bank`; one evaluation for all arms."""
    import fastssl
    from fastssl.embedding.knn import knn_accuracy

    backbone.eval()
    embeddings = []
    for folder in (bank, test):
        loader = fastssl.Loader(
            fastssl.data.ImageFolder(folder), fastssl.recipes.evaluation(SIZE, keep=1.0), batch_size=1000, shuffle=False
        )
        features, targets = [], []
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
            for batch in loader:
                features.append(backbone(batch.views[0].contiguous(memory_format=torch.channels_last)).float())
                targets.append(batch.targets)
        names = [loader.source.filename(i) for i in range(len(loader.source))]
        embeddings.append(fastssl.Embeddings(torch.cat(features), torch.cat(targets), names))
    k = min(NEIGHBOURS, len(embeddings[0].targets))
    return 100 * knn_accuracy(*embeddings, k=k, temperature=KNN_TEMPERATURE)


def run_arm(options: argparse.Namespace) -> dict[str, Any]:
    from fastssl.models.modules import SimCLRProjectionHead

    torch.set_num_threads(options.train_threads[0])
    torch.manual_seed(options.seed)
    cache, data = Path(options.cache), Path(options.data)
    bank, test = unpacked(data, "train", options.images, cache), unpacked(data, "test", None, cache)
    steps = sum(1 for _ in bank.glob("*/*")) // options.batch_size
    if not steps:
        raise SystemExit(f"{bank} holds less than a batch of {options.batch_size}; take a smaller --batch-size")
    backbone, features = small_resnet(options.width, options.blocks)
    model = nn.Sequential(backbone, SimCLRProjectionHead(features, features, 128)).to(memory_format=torch.channels_last)
    weights = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()[:16]
    begin = time.perf_counter()
    before = knn_accuracy(backbone, bank, test, options)
    evaluation_seconds = time.perf_counter() - begin
    print(f"  k-NN accuracy untrained: {before:.2f} % ({evaluation_seconds:.0f} s)", flush=True)
    views = {"fastssl": views_of_fastssl, "lightly": views_of_lightly}[options.arm](bank, options)
    trained = train(model, views, steps, options)
    after = knn_accuracy(backbone, bank, test, options)
    print(f"  k-NN accuracy trained: {after:.2f} %", flush=True)
    return {
        "arm": options.arm,
        "train_threads": options.train_threads[0],
        "initial_weights_sha256": weights,
        "knn_untrained": round(before, 2),
        "knn": round(after, 2),
        "evaluation_seconds": round(evaluation_seconds, 1),
        **trained,
    }


def run_all(options: argparse.Namespace) -> None:
    Path(options.cache).mkdir(parents=True, exist_ok=True)
    arms = []
    if len(options.train_threads) not in (1, len(options.arms)):
        raise SystemExit("--train-threads takes one number, or one for each arm.")
    for i, arm in enumerate(options.arms):
        threads = str(options.train_threads[i % len(options.train_threads)])
        print(f"{arm}: {options.epochs} epochs, batches of {options.batch_size}", flush=True)
        with tempfile.NamedTemporaryFile(suffix=".json") as result:
            command = [sys.executable, __file__, *sys.argv[1:], "--arm", arm, "--result", result.name]
            command += ["--train-threads", threads]  # the last one counts
            subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": threads})
            arms.append(json.loads(Path(result.name).read_text()))
    if len({arm["initial_weights_sha256"] for arm in arms}) > 1 or len({arm["steps"] for arm in arms}) > 1:
        raise SystemExit("The arms began with different weights or took different numbers of steps: no comparison.")
    print("\n" + table(arms))
    if len(arms) == 2:
        print(
            f"\nk-NN accuracy, {arms[0]['arm']} minus {arms[1]['arm']}: {arms[0]['knn'] - arms[1]['knn']:+.2f} points"
        )
    chosen = "images epochs batch_size width blocks threads train_threads seed bfloat16 lightly_loss".split()
    settings = {name: getattr(options, name) for name in chosen}
    harness.write(harness.report("cifar10", arms, settings=settings), Path(options.out) if options.out else None)


def table(arms: list[dict[str, Any]]) -> str:
    rows = [
        ["", "k-NN accuracy", "untrained", "training", "images/s", "threads of torch", "waiting for data", "memory"],
        ["---"] + ["---:"] * 7,
    ]
    for a in arms:
        row = [a["arm"], f"{a['knn']:.2f} %", f"{a['knn_untrained']:.2f} %", f"{a['train_seconds']:.0f} s"]
        rows.append(
            [
                *row,
                f"{a['images_per_second']:,.0f}",
                str(a["train_threads"]),
                f"{a['wait_share']:.0%}",
                f"{a['memory_mib']} MiB",
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(harness.ROOT.parent / "shared" / "data" / "cifar10"))
    parser.add_argument("--cache", default=str(Path(tempfile.gettempdir()) / "fastssl-cifar10"), help="where to unpack")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--images", type=int, help="training images, in equal parts from each class (all)")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--width", type=int, default=32, help="channels of the first stage")
    parser.add_argument("--blocks", type=int, default=1, help="residual blocks of a stage")
    parser.add_argument("--threads", type=int, default=2, help="threads of the Loader, workers of the DataLoader")
    parser.add_argument(
        "--train-threads",
        type=int,
        nargs="+",
        default=[2, 1],
        help="threads of torch, which share the cores with those; one number, or one for each arm",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bfloat16", action=argparse.BooleanOptionalAction, default=has_bfloat16())
    parser.add_argument("--lightly-loss", action="store_true", help="lightly's NTXentLoss in both arms")
    parser.add_argument("--out", help="where to write the JSON (default: benchmarks/results/cifar10-<machine>.json)")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--result", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        Path(options.result).write_text(json.dumps(run_arm(options)))
    else:
        run_all(options)


if __name__ == "__main__":
    main()
