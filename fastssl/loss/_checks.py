"""What the contrastive losses ask of their arguments, and what a temperature is."""

from __future__ import annotations

import torch
from torch import Tensor

from fastssl.loss._rows import number

__all__ = [
    "FLOATS",
    "check_bank",
    "check_floats",
    "check_gather",
    "check_pairs",
    "check_scale",
    "check_temperature",
    "check_weights",
    "inverse",
    "weighted",
]

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_temperature(who: str, temperature: Tensor | float) -> None:
    """Raises where the temperature is neither a number > 0 nor a tensor of one; what a tensor holds is not looked at."""
    if isinstance(temperature, Tensor):
        if temperature.numel() != 1 or not temperature.is_floating_point():
            raise TypeError(
                f"{who}: temperature is a tensor of shape {tuple(temperature.shape)} and type {temperature.dtype} and "
                "must hold one floating-point number; write torch.nn.Parameter(torch.tensor(0.1))."
            )
    elif not isinstance(temperature, (int, float)):
        raise TypeError(
            f"{who}: temperature={temperature!r} is a {type(temperature).__name__} and must be a number; write 0.1."
        )
    elif not 0 < temperature < float("inf"):
        raise ValueError(
            f"{who}: temperature={temperature} must be > 0 and finite; it divides cosine similarities, so write 0.1 "
            "(SimCLR) or 0.5."
        )


def check_floats(who: str, name: str, z: Tensor) -> None:
    """Raises where z is not of a floating-point type that the losses take."""
    if z.dtype not in FLOATS:
        raise TypeError(
            f"{who}: {name} is of type {z.dtype} and must be float16, bfloat16, float32 or float64; write "
            f"{name}.float()."
        )


def check_gather(who: str, gather_distributed: bool) -> None:
    """Raises where processes are to exchange rows and cannot."""
    if gather_distributed and not torch.distributed.is_available():
        raise ValueError(
            f"{who}: gather_distributed=True needs torch.distributed, which this build of torch lacks; write "
            "gather_distributed=False, or install a build that has it."
        )


def check_pairs(who: str, names: tuple[str, str], first: Tensor, second: Tensor, may_be_empty: bool) -> None:
    """Raises where two batches are not (B, D) of one shape, of floating-point types, with at least one row and column.

    Args:
        who, names: For the message.
        first, second: The batches, row i of one belonging to row i of the other.
        may_be_empty: With rows of other processes, an empty batch is an error of all, once they know of it.
    """
    for name, x in zip(names, (first, second), strict=True):
        check_floats(who, name, x)
    if (
        first.dim() != 2
        or first.shape != second.shape
        or first.shape[1] == 0
        or (first.shape[0] == 0 and not may_be_empty)
    ):
        raise ValueError(
            f"{who}: {names[0]} has shape {tuple(first.shape)}, {names[1]} {tuple(second.shape)}; both must be (B, D) "
            "with B and D at least 1, row i of one belonging to row i of the other."
        )


def check_scale(who: str, name: str, value: Tensor | float) -> None:
    """Raises where a scale or bias is neither a number nor a tensor of one."""
    if isinstance(value, Tensor):
        if value.numel() != 1 or not value.is_floating_point():
            raise TypeError(
                f"{who}: {name} is a tensor of shape {tuple(value.shape)} and type {value.dtype} and must hold one "
                "floating-point number."
            )
    elif not isinstance(value, (int, float)):
        raise TypeError(f"{who}: {name}={value!r} is a {type(value).__name__} and must be a number or a tensor of one.")


def check_bank(who: str, bank: Tensor, width: int) -> None:
    """Raises where a bank is not (M, width), M at least 1, of a floating-point type."""
    check_floats(who, "bank", bank)
    if bank.dim() != 2 or bank.shape[0] == 0 or bank.shape[1] != width:
        raise ValueError(
            f"{who}: bank has shape {tuple(bank.shape)} and must be (M, {width}) with M at least 1, as wide as the "
            "queries; write bank.t() where it is stored with the features first."
        )


def check_weights(who: str, weights: Tensor | None, *shape: int) -> None:
    """Raises where there are weights that are not of this shape, that of the losses they multiply, or no floats."""
    if weights is not None and (weights.shape != shape or not weights.is_floating_point()):
        raise ValueError(
            f"{who}: weights has shape {tuple(weights.shape)} and type {weights.dtype} and must be {shape} and of a "
            "floating-point type, one weight a row; leave it out for weights of 1."
        )


def inverse(temperature: Tensor | float, like: Tensor) -> Tensor:
    """1 / temperature as `number` makes it."""
    if isinstance(temperature, Tensor):
        return 1 / number(temperature, like)
    return number(1 / float(temperature), like)


def weighted(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Losses times their weights, if there are any."""
    return losses if weights is None else losses * weights.to(losses.dtype)
