"""Pretraining in one call: data, method and backbone in; checkpoints, metrics and a backbone out."""

from __future__ import annotations

import math
import os
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fastssl import methods
from fastssl.data.faults import OnError
from fastssl.data.loader import Loader
from fastssl.data.sources import Source, as_source
from fastssl.methods import Method
from fastssl.methods.method import SMALL_IMAGE
from fastssl.models import backbones
from fastssl.training.checkpoint import (
    atomic_write,
    check_same_settings,
    load_checkpoint,
    rng_state,
    set_rng_state,
    write_json,
)
from fastssl.training.interrupt import deferred_interrupt
from fastssl.training.metrics import Metrics, read_metrics
from fastssl.training.schedules import warmup_cosine

__all__ = ["PretrainResult", "pretrain"]

Precision = Literal["auto", "float32", "bfloat16"]

_ROWS_PER_EPOCH = 50  # of metrics, at most


@dataclass(frozen=True, kw_only=True)
class PretrainResult:
    """What `pretrain` returns.

    Args:
        out: Folder of the run.
        checkpoint: The last checkpoint; `fastssl.embed` takes it, and `pretrain` resumes from it.
        weights: The backbone's state_dict under its library's names, for transfer.
        metrics: CSV of loss, learning rate and images per second.
        backbone: The trained network, in evaluation mode, on the CPU.
        steps: Steps of the whole run so far.
        loss: Mean over the last epoch that was begun.
        images_per_second: Trained on in this call; 0 if it had nothing left to do.
        loader_stats: Where the loader's time went, see `fastssl.Loader.stats`; empty if it had nothing left to do.
        unreadable: Names and reasons of the images that could not be read in this call.
    """

    out: Path
    checkpoint: Path
    weights: Path
    metrics: Path
    backbone: nn.Module
    steps: int
    loss: float
    images_per_second: float
    loader_stats: dict[str, Any]
    unreadable: list[str]


def pretrain(
    data: Source | str | os.PathLike[str] | Any,
    out: str | os.PathLike[str],
    *,
    method: str = "simclr",
    backbone: str = "resnet18",
    epochs: int = 100,
    batch_size: int = 256,
    input_size: int = 224,
    lr: float | None = None,
    weight_decay: float | None = None,
    temperature: float | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    precision: Precision = "auto",
    threads: int | None = None,
    stem: backbones.Stem = "auto",
    resume: bool = True,
    checkpoint_every: int = 1,
    on_error: OnError = "raise",
    progress: bool = True,
    max_steps: int | None = None,
) -> PretrainResult:
    """Pretrain a backbone on images without labels.

    Everything goes into the folder `out`: checkpoint.pt, backbone.pt, config.json, metrics.csv, and TensorBoard's files
    in tensorboard/. A call that finds a checkpoint there goes on from it, exactly: on a CPU the weights are bit for bit
    those of a run that was never interrupted. Ctrl-C ends the step, writes a checkpoint, and raises KeyboardInterrupt;
    a second one raises at once.

    The optimizer is SGD with momentum 0.9, without weight decay for biases and normalizations; the learning rate rises
    linearly and then falls as a cosine. torch's random state is left as it was.

    Args:
        data: A folder of images, a Source, or a map-style data set; labels are not looked at.
        out: Folder of the run; made where missing.
        method: "simclr".
        backbone: Name of a model of torchvision or timm.
        epochs: Of the whole run; the learning rate's schedule spans them.
        batch_size: Images of a step; >= 2. What does not fill a last batch waits for another epoch.
        input_size: Side of the views, in pixels. Up to 64, the method's recipe for small images is taken.
        lr: Peak learning rate; None for the method's, scaled by batch_size / 256.
        weight_decay, temperature: None for the method's.
        seed: Of weights, order and views.
        device: "cpu", "cuda", ...; None for the GPU, if there is one.
        precision: "float32"; "bfloat16" (autocast; the weights stay float32); "auto": bfloat16 on GPUs that have it.
        threads: Of the loader; None for all CPUs that the process may use.
        stem: See `fastssl.models.backbones.create`.
        resume: Whether to go on from a checkpoint in `out`; if not, it is replaced.
        checkpoint_every: Epochs from one checkpoint to the next; the last is always written.
        on_error: What happens with images that cannot be read: "raise", "skip" or "replace".
        progress: Whether to show a progress bar.
        max_steps: Stop after so many steps of the run, as if interrupted there, but without an error.

    Returns:
        Paths, the backbone, and how it went.

    Raises:
        ValueError: An argument is out of its range, there are fewer images than batch_size, or `out` holds a run with
            other settings; each is named.
        FloatingPointError: The loss is no longer finite.
        DecodeError: An image cannot be read, with on_error="raise"; it is named.
        KeyboardInterrupt: Ctrl-C; the checkpoint is up to date.
    """
    kind = methods.find(method)
    _check_least({"epochs": (epochs, 1), "checkpoint_every": (checkpoint_every, 1), "input_size": (input_size, 1)})
    if batch_size < 2:
        raise ValueError(
            f"pretrain: batch_size={batch_size} leaves an image nothing to be compared with, and batch normalization "
            "no batch; write 2 or more, 256 if memory allows."
        )
    if max_steps is not None:
        _check_least({"max_steps": (max_steps, 1)})
    source = as_source(data)
    if len(source) < batch_size:
        raise ValueError(
            f"pretrain: batch_size={batch_size} is more than the {len(source)} images of the data; write "
            f"batch_size={max(2, len(source))} or less."
        )
    place = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    config: dict[str, Any] = {
        "method": method,
        "backbone": backbone,
        "stem": stem,
        "epochs": epochs,
        "batch_size": batch_size,
        "input_size": input_size,
        "lr": kind.settings.lr * batch_size / 256 if lr is None else float(lr),
        "weight_decay": kind.settings.weight_decay if weight_decay is None else float(weight_decay),
        "temperature": kind.settings.temperature if temperature is None else float(temperature),
        "seed": seed,
        "precision": _resolve_precision(precision, place),
        "on_error": on_error,
        "keep": 1.0 if input_size <= SMALL_IMAGE else 0.875,  # for evaluation, see fastssl.recipes.evaluation
        "images": _fingerprint(source),
    }
    for name in ("lr", "temperature"):
        if not 0 < config[name] < math.inf:
            raise ValueError(f"pretrain: {name}={config[name]} must be above 0; None takes the method's.")
    if not 0 <= config["weight_decay"] < math.inf:
        raise ValueError(f"pretrain: weight_decay={config['weight_decay']} must be 0 or more; None takes the method's.")

    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    before = None
    if resume and (folder / "checkpoint.pt").exists():
        before = load_checkpoint(folder / "checkpoint.pt")
        check_same_settings(folder, before["config"], config)

    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(seed)
        run = _Run(kind, config, source, place, threads)
        if before is not None:
            run.load_state_dict(before)
        elif (folder / "checkpoint.pt").exists():
            (folder / "checkpoint.pt").unlink()
        write_json(folder / "config.json", {**config, "device": str(place), "torch": torch.__version__})
        images, seconds = run.train(folder, max_steps, checkpoint_every, progress)

    with atomic_write(folder / "backbone.pt") as file:
        torch.save(run.model.backbone.cpu().state_dict(), file)
    rows = read_metrics(folder / "metrics.csv")
    losses = [row["loss"] for row in rows if row["epoch"] == rows[-1]["epoch"]]
    return PretrainResult(
        out=folder,
        checkpoint=folder / "checkpoint.pt",
        weights=folder / "backbone.pt",
        metrics=folder / "metrics.csv",
        backbone=run.model.backbone.eval(),
        steps=run.step,
        loss=sum(losses) / len(losses) if losses else math.nan,
        images_per_second=images / seconds if images else 0.0,
        loader_stats=run.loader.stats(),
        unreadable=[str(fault) for fault in run.loader.errors],
    )


class _Run:
    """Model, optimizer and loader of a run, and how far it is."""

    def __init__(
        self, kind: type[Method], config: dict[str, Any], source: Source, device: torch.device, threads: int | None
    ) -> None:
        self.config, self.device, self.step = config, device, 0
        backbone = backbones.create(config["backbone"], stem=config["stem"], input_size=config["input_size"])
        model = kind(backbone, int(backbone.num_features), temperature=config["temperature"])  # type: ignore[arg-type]
        # channels_last: 1.3 to 1.5 times as many images per second on the CPU (ResNet-18 at 32 and 64 px, float32), and
        # what tensor cores want.
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = _sgd(self.model, config["weight_decay"])
        self.half = config["precision"] == "bfloat16"
        self.loader = Loader(
            source,
            kind.recipe(config["input_size"]),
            batch_size=config["batch_size"],
            device=device,
            seed=config["seed"],
            drop_last=True,
            epochs=config["epochs"],
            threads=threads,
            # What autocast would round to anyhow, in the first layer, at half the memory.
            dtype=torch.bfloat16 if self.half else torch.float32,
            channels_last=True,
            on_error=config["on_error"],
            decode="auto",  # the fastest; on a GPU that may be its decoder, whose pixels differ a little from libjpeg's
        )
        self.steps_per_epoch = len(self.loader) // config["epochs"]
        self.total_steps = len(self.loader)
        warmup_epochs = min(kind.settings.warmup_epochs, config["epochs"] / 10)
        self.warmup_steps = round(warmup_epochs * self.steps_per_epoch)

    def state_dict(self) -> dict[str, Any]:
        return {
            "config": self.config,
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loader": self.loader.state_dict(),
            "rng": rng_state(self.device),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.loader.load_state_dict(state["loader"])
        set_rng_state(state["rng"], self.device)

    def save(self, folder: Path) -> None:
        with atomic_write(folder / "checkpoint.pt") as file:
            torch.save(self.state_dict(), file)

    def lr(self) -> float:
        part = warmup_cosine(self.step, warmup_steps=self.warmup_steps, total_steps=self.total_steps)
        return float(self.config["lr"] * part)

    def learn(self, views: list[Tensor], lr: float) -> Tensor:
        """One step; returns the loss, detached."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            loss: Tensor = self.model(views)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return loss.detach()

    def train(self, folder: Path, max_steps: int | None, checkpoint_every: int, progress: bool) -> tuple[int, float]:
        """Trains to the end, or to max_steps; returns the images trained on and the seconds it took."""
        epochs = self.config["epochs"]
        epoch = saved = self.loader.state_dict()["epoch"]
        last_step = self.total_steps if max_steps is None else max_steps
        images, start = 0, time.perf_counter()
        with Metrics(folder, from_step=self.step) as metrics, deferred_interrupt() as interrupt:
            if epoch >= epochs or self.step >= last_step:
                return 0, 0.0
            self.loader.epochs = epochs - epoch
            self.model.train()
            window = _Window(metrics, self.loader.batch_size)
            bar = tqdm(
                total=self.steps_per_epoch * epochs * self.loader.batch_size,
                initial=self.step * self.loader.batch_size,
                unit="img",
                disable=not progress,
                dynamic_ncols=True,
                mininterval=0.5 if sys.stderr.isatty() else 15.0,  # seconds; few lines where it ends up in a log
            )
            batches = iter(self.loader)
            try:
                for batch in batches:
                    lr = self.lr()
                    window.add(self.learn(batch.views, lr), len(batch))
                    images += len(batch)
                    bar.update(len(batch))
                    epoch = self.loader.state_dict()["epoch"]  # of the next batch
                    done = epoch >= epochs or self.step >= last_step
                    stop = done or interrupt.pressed
                    due = stop or epoch >= saved + checkpoint_every
                    if due or self.step % max(1, self.steps_per_epoch // _ROWS_PER_EPOCH) == 0:
                        loss = window.write(self.step, batch.epoch, lr)  # before saving: raises where it is not finite
                        bar.set_description(f"epoch {batch.epoch + 1}/{epochs}, loss {loss:.3f}", refresh=False)
                    if due:
                        self.save(folder)
                        saved = epoch
                    if done:
                        break
                    if stop:
                        raise KeyboardInterrupt(f"stopped after step {self.step}; {folder / 'checkpoint.pt'} holds it")
            finally:
                bar.close()
                batches.close()  # type: ignore[attr-defined]
        return images, time.perf_counter() - start


class _Window:
    """Loss and images since the last row of the metrics; the sum stays on the device, so no step waits for it."""

    def __init__(self, metrics: Metrics, batch_size: int) -> None:
        self.metrics = metrics
        self.clear()

    def clear(self) -> None:
        self.losses: list[Tensor] = []
        self.images, self.start = 0, time.perf_counter()

    def add(self, loss: Tensor, images: int) -> None:
        self.losses.append(loss)
        self.images += images

    def write(self, step: int, epoch: int, lr: float) -> float:
        loss = torch.stack(self.losses).mean().item()
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"pretrain: the loss is {loss} at step {step} (epoch {epoch}, learning rate {lr:.3g}). Try a "
                "smaller lr (a tenth), a higher temperature, or precision='float32'; the checkpoint is from before."
            )
        rate = self.images / (time.perf_counter() - self.start)
        self.metrics.write({"step": step, "epoch": epoch, "loss": loss, "lr": lr, "images_per_second": rate})
        self.clear()
        return loss


def _sgd(model: nn.Module, weight_decay: float) -> torch.optim.Optimizer:
    """SGD with momentum; biases and normalizations, which have one dimension, do not decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD([group for group in groups if group["params"]], lr=0.0, momentum=0.9)


def _resolve_precision(precision: str, device: torch.device) -> str:
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f'pretrain: precision={precision!r} must be "auto", "float32" or "bfloat16".')
    if precision != "auto":
        return precision
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def _fingerprint(source: Source) -> str:
    """Tells one set of images from another, by number and, where they are files, by names."""
    names = "\n".join(source.filename(i) for i in range(len(source)) if source.path(i) is not None)
    return f"{len(source)} images, {zlib.crc32(names.encode(errors='surrogateescape')):08x}"


def _check_least(values: dict[str, tuple[Any, int]]) -> None:
    for name, (value, least) in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"pretrain: {name}={value!r} must be a whole number, at least {least}.")
