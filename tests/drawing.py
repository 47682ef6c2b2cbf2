"""What the tests of draws share: a view of every part, and the p-values of samples."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats
from torchvision.transforms import RandomResizedCrop

from fastssl.transforms.plan import Plan
from fastssl.transforms.view import Blur, Crop, Flip, Grayscale, Jitter, QuarterTurn, Solarize, View

ALPHA = 1e-3
N = 20_000  # a Kolmogorov-Smirnov distance of 0.02 is then significant, two samples of N against each other
IDENTITY = {"brightness": 1, "contrast": 1, "saturation": 1, "hue": 0}
JITTER_NAMES = tuple(IDENTITY)


def full_view(**changes) -> View:
    parts = {
        "crop": Crop(size=32),
        "flip": Flip(p=0.5),
        "vflip": Flip(p=0.3),
        "turn": QuarterTurn(p=0.4),
        "jitter": Jitter(p=0.8, brightness=0.8, contrast=0.6, saturation=0.4, hue=0.2),
        "grayscale": Grayscale(p=0.2),
        "blur": Blur(p=0.5, sigma_px=(0.1, 2.0)),
        "solarize": Solarize(p=0.1),
    }
    return View(**(parts | changes))


def draw(view: View, n: int = N, size: tuple[int, int] = (375, 500), **key: int) -> Plan:
    return Plan.draw((view,), [size] * n, seed=key.pop("seed", 1), **key)


def same(a: np.ndarray, b: np.ndarray) -> float:
    return float(stats.ks_2samp(a, b, method="asymp").pvalue)


def uniform(a: np.ndarray, low: float, high: float) -> float:
    return float(stats.kstest(a, stats.uniform(low, high - low).cdf).pvalue)


def share(successes: int, n: int, p: float) -> float:
    return float(stats.binomtest(int(successes), n, p).pvalue)


def torchvision_crops(size: tuple[int, int], area, aspect, n: int = N, seed: int = 0) -> np.ndarray:
    torch.manual_seed(seed)
    image = torch.empty(3, *size)
    return np.array([RandomResizedCrop.get_params(image, list(area), list(aspect)) for _ in range(n)], dtype=float)


def crop_p_values(boxes: np.ndarray, others: np.ndarray, size: tuple[int, int]) -> dict[str, float]:
    """Of each quantity that describes a crop: could both samples be of one distribution?"""

    def quantities(box: np.ndarray) -> dict[str, np.ndarray]:
        top, left, height, width = box.T
        return {
            "area": height * width / (size[0] * size[1]),
            "aspect": np.log(width / height),
            "height": height,
            "width": width,
            "top": top,
            "left": left,
            "place in y": top / np.maximum(size[0] - height, 1),
            "place in x": left / np.maximum(size[1] - width, 1),
        }

    ours, theirs = quantities(boxes), quantities(others)
    return {name: same(ours[name], theirs[name]) for name in ours}
