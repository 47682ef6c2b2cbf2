"""What the contrastive losses ask of their arguments, and what a temperature is."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["FLOATS", "check_floats", "check_temperature", "check_weights", "inverse", "weighted"]

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


def check_weights(who: str, weights: Tensor | None, count: int) -> None:
    """Raises where there are weights that are not one a row."""
    if weights is not None and (weights.shape != (count,) or not weights.is_floating_point()):
        raise ValueError(
            f"{who}: weights has shape {tuple(weights.shape)} and type {weights.dtype} and must be ({count},) and of a "
            "floating-point type, one weight a row; write torch.ones(len(z)) for none."
        )


def inverse(temperature: Tensor | float, dtype: torch.dtype) -> Tensor | float:
    """1 / temperature, of no dimension, a tensor in dtype where the temperature is a tensor."""
    return 1 / temperature.reshape(()).to(dtype) if isinstance(temperature, Tensor) else 1 / float(temperature)


def weighted(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Losses times their weights, if there are any."""
    return losses if weights is None else losses * weights.to(losses.dtype)
