"""The masks of a batch of 256 images, under lightly's names, by fastssl and by lightly.

Counted: drawing, to the end of the device's work. Not counted: the images. One thread on the CPU; on a GPU, where there is one,
both libraries are asked for masks of that device. Draws differ between the libraries; shapes, types and the part that is
masked agree.

    python benchmarks/masks.py            grids of 14 x 14 and 16 x 16 patches, batch 256
"""

from __future__ import annotations

import argparse
import importlib
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import harness
import torch
from torch import Tensor

BATCH = 256
SIDES = (14, 16)
AT_ONCE = 16  # calls that are timed together, of the quick ones
Maker = Callable[[int, torch.device], dict[str, Any]]

# What a maker is called with, for grids of side x side patches with a class token.
MAKERS: dict[str, Maker] = {
    "random_token_mask": lambda side, device: {"size": (BATCH, side**2 + 1), "mask_ratio": 0.75},
    "random_grid_token_mask": lambda side, device: {"size": (BATCH, side**2 + 1), "grid_size": 4 if side == 16 else 2},
    "random_inverse_block_mask": lambda side, device: {"size": (BATCH, side**2 + 1)},
    "random_prefix_mask": lambda side, device: {"size": (BATCH, side**2), "max_prefix_length": side**2 - 1},
    "random_block_mask": lambda side, device: {"size": (BATCH, side, side)},
    "random_block_mask_image": lambda side, device: {"size": (side, side), "num_masks": int(0.4 * side**2)},
}
SLOW = ("random_inverse_block_mask", "random_block_mask", "random_block_mask_image", "IJEPAMaskCollator")


def calls_of(name: str) -> int:
    return 1 if name in SLOW[:2] or name == SLOW[3] else AT_ONCE


def masked_part(pieces: Iterable[Tensor], tokens: bool) -> dict[str, Any]:
    """Shapes and types of one call's result, and the part that it masks."""
    *_, last = pieces
    shapes = [(tuple(part.shape), str(part.dtype)) for part in last]
    if tokens:
        part = last[-1].shape[1] / (last[0].shape[1] + last[-1].shape[1])
    else:
        part = last[0].double().mean().item()
    return {"shapes": str(shapes), "masked": round(part, 3)}


def task_of(name: str, side: int, device: torch.device) -> harness.Task:
    options = MAKERS[name](side, device)
    tokens = "token" in name or "inverse" in name
    calls = calls_of(name)
    found: dict[str, Any] = {}

    def check(pieces: Iterable[Any]) -> dict[str, Any]:
        result = masked_part(pieces, tokens)
        shape, masked = found.setdefault("shapes", result["shapes"]), found.setdefault("masked", result["masked"])
        # A mask's part is the same for tokens; of drawn parts, means of 256 images differ by less than a tenth, of one by more.
        allowed = 0 if tokens else 1.0 if "image" in name else 0.1
        if result["shapes"] != shape or abs(result["masked"] - masked) > allowed:
            raise harness.CheckFailed(f"{result} instead of {found}")
        return result

    count = calls * (1 if name.endswith("image") else BATCH)
    task = harness.Task(
        f"{name}, {side} x {side}", "images", options, count, check, {"device": str(device), "threads": 1}
    )

    def contend(library: str) -> None:
        @task.contender(library, library, slow=library == "lightly" and name in SLOW)
        def make(inputs: dict[str, Any]) -> harness.Run:
            maker = getattr(importlib.import_module(f"{library}.models.utils"), name)

            def run() -> list[tuple[Tensor, ...]]:
                drawn = [maker(**inputs, device=device) for _ in range(calls)]
                if device.type == "cuda":
                    torch.cuda.synchronize()
                return [one if isinstance(one, tuple) else (one,) for one in drawn]

            return run

    for library in ("lightly", "fastssl"):
        contend(library)
    return task


def collator_task(side: int) -> harness.Task:
    found: dict[str, Any] = {}

    def check(pieces: Iterable[Any]) -> dict[str, Any]:
        *_, (_, seen, predicted) = pieces
        shapes = [len(seen), len(predicted), len(seen[0]), len(predicted[0])]
        if shapes != found.setdefault("shapes", shapes):
            raise harness.CheckFailed(f"{shapes} instead of {found['shapes']}")
        return {"shapes": str(shapes)}

    batch = [torch.zeros(1)] * BATCH
    settings = {"device": "cpu", "threads": 1}
    task = harness.Task(f"IJEPAMaskCollator, {side} x {side}", "images", batch, BATCH, check, settings)

    def contend(library: str) -> None:
        @task.contender(library, library, slow=library == "lightly")
        def make(inputs: list[Tensor]) -> harness.Run:
            collate = importlib.import_module(f"{library}.data").IJEPAMaskCollator(
                input_size=16 * side,
                enc_mask_scale=(0.85, 1.0),
                pred_mask_scale=(0.15, 0.2),
                aspect_ratio=(0.75, 1.5),
                npred=4,
            )
            return lambda: [collate(inputs)]

    for library in ("lightly", "fastssl"):
        contend(library)
    return task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--slow-rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, help="the report (default: benchmarks/results/masks-<device>.json)")
    arguments = parser.parse_args()
    import fastssl

    torch.manual_seed(0)
    random.seed(0)
    torch.set_num_threads(1)
    fastssl.set_num_threads(1)
    records = []
    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    tasks = [task_of(name, side, torch.device(device)) for device in devices for name in MAKERS for side in SIDES]
    for task in [*tasks, *map(collator_task, SIDES)]:
        results = task.run(rounds=arguments.rounds, slow_rounds=arguments.slow_rounds)
        records += [result.to_json() for result in results]
        print(
            f"\n{task.title}, {task.settings['device']}\n\n{harness.table(records[-len(results) :], baseline='lightly')}"
        )
    harness.write(harness.report("masks", records), arguments.out)


if __name__ == "__main__":
    main()
