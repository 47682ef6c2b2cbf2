"""The command line: `fastssl pretrain`, `fastssl embed`, `fastssl demo`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastssl import methods
from fastssl.data.loader import Loader
from fastssl.data.sources import ImageFolder, Source
from fastssl.data.subset import Subset
from fastssl.data.synthetic import CLASSES, make_shapes
from fastssl.embedding.embed import Embeddings, embed
from fastssl.embedding.knn import knn_accuracy
from fastssl.embedding.report import Figure, neighbour_rows, sample_views, source_indices, write_report
from fastssl.methods.method import SMALL_IMAGE
from fastssl.models import backbones
from fastssl.training.metrics import read_metrics
from fastssl.training.pretrain import PretrainResult, pretrain

__all__ = ["main"]

# The demo: what two cores do in a few minutes.
_SHAPES_PER_CLASS = 100
_DEMO_BACKBONE = "test_resnet"  # the smallest ResNet of timm: 0.4 million parameters, 7 times as fast as a ResNet-18
_DEMO_SIZE = 64
_DEMO_BATCH = 64
_DEMO_TEMPERATURE = 0.2  # in so short a run some points of accuracy better than the method's 0.1
_DEMO_IMAGES = 30_000  # to train on, over all epochs
_DEMO_MOST_IMAGES = 6_000  # of the user's folder
_HELD_OUT = 5  # one of so many images

_KNN = 20  # neighbours
_SPEED_SECONDS = 2.0  # to measure the loader for


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status: 0, 1 for an error, 130 for Ctrl-C."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(format="%(message)s")
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt as interrupt:
        told = f": {interrupt}" if str(interrupt) else ""
        print(f"\nInterrupted{told}. The same command goes on from there.", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError, RuntimeError) as error:
        print(f"fastssl {arguments.command}: {error}", file=sys.stderr)
        return 1


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that are values; the help of the others says what they mean."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def _parser() -> argparse.ArgumentParser:
    formatter = _Help
    parser = argparse.ArgumentParser(prog="fastssl", description="Self-supervised learning on images.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = commands.add_parser("pretrain", help="train a backbone on images without labels", formatter_class=formatter)
    train.set_defaults(run=_pretrain)
    train.add_argument("data", metavar="DATA", help="folder of images; sub-folders are searched")
    train.add_argument(
        "--out", required=True, default=argparse.SUPPRESS, help="folder of the run; one that holds a run goes on"
    )
    train.add_argument("--method", default="simclr", choices=sorted(methods.METHODS), help="method")
    train.add_argument("--backbone", default="resnet18", help="a model of torchvision or timm")
    train.add_argument("--epochs", type=int, default=100, help="passes over the images")
    train.add_argument("--batch-size", type=int, default=256, help="images of a step")
    train.add_argument("--input-size", type=int, default=224, help="side of the views, in pixels")
    train.add_argument("--lr", type=float, help="peak learning rate (default: the method's, scaled with the batch)")
    train.add_argument("--weight-decay", type=float, help="of the weights (default: the method's)")
    train.add_argument("--temperature", type=float, help="of the loss (default: the method's)")
    train.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"], help="of the network")
    train.add_argument("--stem", default="auto", choices=["auto", "small", "standard"], help="first layers of a ResNet")
    train.add_argument("--checkpoint-every", type=int, default=1, metavar="EPOCHS", help="epochs between checkpoints")
    train.add_argument("--max-steps", type=int, help="stop after so many steps; the same command goes on")
    train.add_argument("--no-resume", action="store_true", help="begin anew even if --out holds a run")
    _add_common(train, on_error=("raise", "skip", "replace"))

    features = commands.add_parser("embed", help="write the features of images", formatter_class=formatter)
    features.set_defaults(run=_embed)
    features.add_argument("model", metavar="RUN", help="folder of a run of pretrain, or its checkpoint.pt")
    features.add_argument("data", metavar="DATA", help="folder of images")
    features.add_argument("--out", default="embeddings.npz", help="file to write")
    features.add_argument("--input-size", type=int, help="side of the images, in pixels (default: the run's)")
    features.add_argument("--batch-size", type=int, default=256, help="images at a time")
    _add_common(features, on_error=("raise", "skip"))

    demo = commands.add_parser(
        "demo",
        help="pretrain, evaluate and report, on generated images or your own",
        description="Pretrains a small network for some minutes and shows what it learned. Without DATA it draws a "
        "labelled set of images first. Class folders give a k-NN accuracy, on images held out of training.",
        formatter_class=formatter,
    )
    demo.set_defaults(run=_demo)
    demo.add_argument("data", metavar="DATA", nargs="?", default=argparse.SUPPRESS, help="folder of images")
    demo.add_argument("--out", help="folder to write to (default: runs/demo, or runs/demo-NAME for a folder NAME)")
    demo.add_argument("--backbone", default=_DEMO_BACKBONE, help="a model of torchvision or timm")
    demo.add_argument(
        "--epochs", type=int, help=f"passes over the images (default: so many that {_DEMO_IMAGES:,} are trained on)"
    )
    demo.add_argument("--batch-size", type=int, default=_DEMO_BATCH, help="images of a step")
    demo.add_argument("--input-size", type=int, default=_DEMO_SIZE, help="side of the views, in pixels")
    demo.add_argument("--lr", type=float, help="peak learning rate (default: the method's, scaled with the batch)")
    demo.add_argument("--temperature", type=float, default=_DEMO_TEMPERATURE, help="of the loss")
    _add_common(demo)
    return parser


def _add_common(parser: argparse.ArgumentParser, on_error: Sequence[str] = ()) -> None:
    parser.add_argument("--device", help="cpu, cuda, ... (default: the GPU, if there is one)")
    parser.add_argument("--threads", type=int, help="of the loader (default: all CPUs)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and views")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    if on_error:
        parser.add_argument("--on-error", default="raise", choices=on_error, help="with images that cannot be read")


# Commands


def _pretrain(arguments: argparse.Namespace) -> int:
    source = ImageFolder(arguments.data)
    result = pretrain(
        source,
        arguments.out,
        method=arguments.method,
        backbone=arguments.backbone,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        input_size=arguments.input_size,
        lr=arguments.lr,
        weight_decay=arguments.weight_decay,
        temperature=arguments.temperature,
        seed=arguments.seed,
        device=arguments.device,
        precision=arguments.precision,
        threads=arguments.threads,
        stem=arguments.stem,
        resume=not arguments.no_resume,
        checkpoint_every=arguments.checkpoint_every,
        on_error=arguments.on_error,
        progress=not arguments.quiet,
        max_steps=arguments.max_steps,
    )
    _print_unreadable(result)
    trained = f"{result.images_per_second:,.0f} images/s" if result.images_per_second else "nothing left to do"
    print(f"Step {result.steps:,}, loss {result.loss:.3f}, {trained}.")
    print(f"Checkpoint  {result.checkpoint}\nBackbone    {result.weights}\nMetrics     {result.metrics}")
    return 0


def _embed(arguments: argparse.Namespace) -> int:
    result = embed(
        arguments.model,
        arguments.data,
        input_size=arguments.input_size,
        batch_size=arguments.batch_size,
        device=arguments.device,
        threads=arguments.threads,
        on_error=arguments.on_error,
    )
    result.save(arguments.out)
    print(f"{len(result):,} images, {result.features.shape[1]} features each: {arguments.out}")
    if len(result.classes) > 1 and len(result) > 1:
        k = min(_KNN, len(result) - 1)
        print(f"k-NN accuracy, each image by the {k} nearest of the others: {_percent(knn_accuracy(result, k=k))}")
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    own = Path(arguments.data) if "data" in arguments else None
    out = Path(arguments.out or (f"runs/demo-{own.resolve().name}" if own is not None else "runs/demo"))
    began = time.perf_counter()
    # One CPU for the loader. Where others use the machine too, threads of torch that wait for each other cost more than
    # they bring: on two busy cores this network took four times as long with two threads as with one.
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))
    if own is not None:
        train, held_out, what = _own_images(own)
    else:
        train, held_out, what = _shapes(out)
    print(what)
    batch_size = min(arguments.batch_size, max(2, len(train) // 2))
    epochs = arguments.epochs or max(1, round(_DEMO_IMAGES / len(train)))
    size, seed = arguments.input_size, arguments.seed

    speed = _loader_speed(train, size, batch_size, arguments.threads)
    print(
        f"Loader alone: {speed['images_per_second']:,.0f} images/s, views of {size} px, two each, {speed['threads']} threads"
    )

    torch.manual_seed(seed)
    stem: backbones.Stem = "standard"  # the small stem, made for 32 px, would cost ten times as much here
    untrained = backbones.create(arguments.backbone, stem=stem, input_size=size)
    before = _accuracy(untrained, train, held_out, arguments)
    if before is not None:
        print(f"k-NN accuracy, untrained: {_percent(before.accuracy)} (chance: {_percent(before.chance)})")

    print(
        f"Pretraining {arguments.backbone} by SimCLR: {_count(epochs, 'epoch')}, batches of {batch_size}; Ctrl-C saves and stops"
    )
    result = pretrain(
        train,
        out,
        backbone=arguments.backbone,
        epochs=epochs,
        batch_size=batch_size,
        input_size=size,
        lr=arguments.lr,
        temperature=arguments.temperature,
        seed=seed,
        device=arguments.device,
        threads=arguments.threads,
        stem=stem,
        on_error="replace",
        progress=not arguments.quiet,
    )
    _print_unreadable(result)
    after = _accuracy(result.backbone, train, held_out, arguments)
    if before is not None and after is not None:
        gain = 100 * (after.accuracy - before.accuracy)
        print(f"k-NN accuracy, trained:   {_percent(after.accuracy)} ({gain:+.1f} points)")
    else:
        print("No k-NN accuracy: no labels. Class folders (cats/1.jpg, dogs/2.jpg) would give one.")
    report = _report(out, train, held_out, result, before, after, speed, arguments)
    size_kb = report.stat().st_size / 1e3
    print(f"Report: {report} ({size_kb:,.0f} kB; open it in a browser)")
    print(f"Done in {time.perf_counter() - began:.0f} s. Next: fastssl pretrain DATA --out runs/mine")
    return 0


# Data


def _shapes(out: Path) -> tuple[Source, Source, str]:
    began = time.perf_counter()
    root = make_shapes(out / "shapes", n_per_class=_SHAPES_PER_CLASS)
    train, held_out = ImageFolder(root / "train"), ImageFolder(root / "val")
    return (
        train,
        held_out,
        (
            f"Images: {len(train):,} to train on and {len(held_out):,} held out, {len(CLASSES)} classes of shapes, "
            f"in {root} (drawn in {time.perf_counter() - began:.0f} s)"
        ),
    )


def _own_images(root: Path) -> tuple[Source, Source | None, str]:
    """Images to train on, labelled images held out of training, if there are labels, and a word on both."""
    if (root / "train").is_dir() and (root / "val").is_dir():
        train, held_out = ImageFolder(root / "train"), ImageFolder(root / "val")
        if train.classes == held_out.classes and len(train.classes) > 1:
            few, some = _some(train, _DEMO_MOST_IMAGES), _some(held_out, _DEMO_MOST_IMAGES // _HELD_OUT)
            return few, some, _told(root, len(train) + len(held_out), few, some)
    whole = ImageFolder(root)
    if len(whole) < 4:
        raise ValueError(f"{root} holds {len(whole)} images; give 4 at least, and some hundreds to learn anything.")
    if len(whole.classes) < 2:
        few = _some(whole, _DEMO_MOST_IMAGES)
        return few, None, _told(root, len(whole), few, None)
    picked = _some(whole, _DEMO_MOST_IMAGES).indices
    cut = max(1, len(picked) // _HELD_OUT)
    order = torch.randperm(len(picked), generator=torch.Generator().manual_seed(0)).tolist()
    held, rest = ([picked[i] for i in sorted(part)] for part in (order[:cut], order[cut:]))
    few, some = Subset(whole, rest), Subset(whole, held)
    return few, some, _told(root, len(whole), few, some)


def _some(source: ImageFolder, most: int) -> Subset:
    """At most so many images of the source, drawn evenly, in its order."""
    if len(source) <= most:
        return Subset(source, range(len(source)))
    chosen = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))[:most]
    return Subset(source, chosen.sort().values.tolist())


def _told(root: Path, found: int, train: Subset, held_out: Subset | None) -> str:
    used = f"{len(train):,} to train on" + (f" and {len(held_out):,} held out" if held_out is not None else "")
    classes = f"{len(train.classes)} classes" if held_out is not None else "no class folders"
    left = found - len(train) - (len(held_out) if held_out is not None else 0)
    rest = f"; {left:,} more left out of this short run" if left else ""
    return f"Images: {used}, {classes}, from {root}{rest}"


# Measures


@dataclass(frozen=True)
class _Measured:
    """k-NN accuracy on the images held out, what guessing would give, and the features it comes from."""

    accuracy: float
    chance: float
    k: int
    train: Embeddings
    held_out: Embeddings


def _accuracy(
    network: torch.nn.Module, train: Source, held_out: Source | None, arguments: argparse.Namespace
) -> _Measured | None:
    if held_out is None:
        return None
    seen, asked = (_features(network, source, arguments) for source in (train, held_out))
    k = min(_KNN, len(seen))
    share = torch.bincount(asked.targets).max().item() / len(asked)
    return _Measured(knn_accuracy(seen, asked, k=k), share, k, seen, asked)


def _features(network: torch.nn.Module, source: Source, arguments: argparse.Namespace) -> Embeddings:
    size = arguments.input_size
    network = network.to(memory_format=torch.channels_last)
    keep = 1.0 if size <= SMALL_IMAGE else 0.875
    return embed(network, source, input_size=size, keep=keep, threads=arguments.threads, on_error="skip")


def _loader_speed(source: Source, size: int, batch_size: int, threads: int | None) -> dict[str, Any]:
    """Stats of the loader when nothing else runs, over some seconds, as many epochs as that takes."""
    loader = Loader(
        source,
        methods.SimCLR.recipe(size),
        batch_size=batch_size,
        epochs=1000,
        threads=threads,
        on_error="skip",
        channels_last=True,
    )
    began = time.perf_counter()
    for _ in loader:
        if time.perf_counter() - began > _SPEED_SECONDS:
            break
    return loader.stats()


# Report


def _report(
    out: Path,
    train: Source,
    held_out: Source | None,
    result: PretrainResult,
    before: _Measured | None,
    after: _Measured | None,
    speed: dict[str, Any],
    arguments: argparse.Namespace,
) -> Path:
    generator = torch.Generator().manual_seed(arguments.seed)
    if after is not None and held_out is not None:
        seen, asked, source = after.train, after.held_out, held_out
        queries: Embeddings | None = asked
    else:
        seen = asked = _features(result.backbone, train, arguments)
        queries, source = None, train
    rows = _spread(asked, 8, generator)
    readable = source_indices(seen, train)
    some = sorted(readable[i] for i in torch.randperm(len(readable), generator=generator)[:9].tolist())
    config = json.loads((out / "config.json").read_text())
    figures = [
        Figure(
            f"{speed['images_per_second']:,.0f}",
            "Loader alone",
            "images/s",
            f"two views each, {speed['threads']} threads",
        ),
        Figure(f"{result.loss:.3f}", "Loss", note=f"mean of the last epoch, {result.steps:,} steps"),
    ]
    if result.images_per_second:
        figures.insert(1, Figure(f"{result.images_per_second:,.0f}", "Training", "images/s", f"on {config['device']}"))
    if before is not None and after is not None:
        note = f"k = {after.k}; chance {_percent(after.chance)}"
        figures = [
            Figure(f"{100 * after.accuracy:.1f}", "k-NN accuracy, trained", "%", note),
            Figure(
                f"{100 * before.accuracy:.1f}", "k-NN accuracy, untrained", "%", "the network as it was initialized"
            ),
            *figures,
        ]
    return write_report(
        out / "report.html",
        title=f"{config['backbone']} pretrained by SimCLR",
        summary=f"{_count(config['epochs'], 'epoch')} of {len(train):,} images at {config['input_size']} pixels, without labels.",
        figures=figures,
        settings={**config, "torch": torch.__version__},
        samples=sample_views(train, methods.SimCLR.recipe(arguments.input_size), some, seed=arguments.seed),
        history=read_metrics(result.metrics),
        near=neighbour_rows(seen, train, queries, source, rows, k=min(8, len(seen) - 1)),
        loader_stats=result.loader_stats or None,
    )


def _spread(embeddings: Embeddings, n: int, generator: torch.Generator) -> list[int]:
    """Rows of n images of as many classes as there are."""
    order = torch.randperm(len(embeddings), generator=generator).tolist()
    taken: dict[int, int] = {}
    turn = {}
    for row in order:
        target = int(embeddings.targets[row])
        taken[target] = taken.get(target, 0) + 1
        turn[row] = taken[target]
    chosen = sorted(order, key=lambda row: turn[row])[:n]
    return sorted(chosen, key=lambda row: (int(embeddings.targets[row]), row))


def _print_unreadable(result: PretrainResult) -> None:
    for fault in result.unreadable[:5]:
        print(f"Could not read {fault}", file=sys.stderr)
    if len(result.unreadable) > 5:
        print(f"... and {len(result.unreadable) - 5} more", file=sys.stderr)


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


if __name__ == "__main__":
    sys.exit(main())
