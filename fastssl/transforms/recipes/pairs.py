"""Recipes of methods whose views have one size."""

from __future__ import annotations

from fastssl.transforms.geometry import Crop
from fastssl.transforms.recipes._parts import (
    BYOL_COLOURS,
    COLOURS_FIRST,
    MOCO_COLOURS,
    SIMCLR_COLOURS,
    SOLARIZE_FIRST,
    check_count,
    coloured,
)
from fastssl.transforms.view import Recipe

__all__ = [
    "barlow_twins",
    "byol",
    "densecl",
    "detcon",
    "fastsiam",
    "mmcr",
    "moco_v1",
    "moco_v2",
    "simclr",
    "simsiam",
    "tico",
    "vicreg",
    "wmse",
]


def simclr(size: int = 224, strength: float = 1.0, blur: bool = True) -> Recipe:
    """Two views as in SimCLR.

    Deviations, shared with lightly: the crop is bilinear where the paper's code is bicubic, and the result is normalized.

    Args:
        size: Side of the views, in pixels.
        strength: Of the colour jitter; the paper's s, 1.0 for ImageNet, 0.5 for CIFAR-10.
        blur: Whether views are blurred; the paper leaves it out for small images (appendix B.9).

    Source: Chen et al., 2020, arXiv:2002.05709, appendix A.

    >>> [view.size for view in simclr(96)]
    [96, 96]
    """
    crop = Crop(size=size, area=(0.08, 1.0))
    return (coloured("simclr", crop, SIMCLR_COLOURS, strength=strength, blur=0.5 if blur else 0.0),) * 2


def moco_v1(size: int = 224, strength: float = 1.0) -> Recipe:
    """Two views as in MoCo; without blur, and with hues far from the image's own.

    Deviations, shared with lightly: jitter happens with probability 0.8 and before grayscale, where the paper's code always
    jitters, after it.

    Args:
        size: Side of the views, in pixels.
        strength: Multiplies the colour jitter, at most 1.25.

    Source: He et al., 2019, arXiv:1911.05722, section 3.3.

    >>> moco_v1()[0].blur is None
    True
    """
    crop = Crop(size=size, area=(0.2, 1.0))
    return (coloured("moco_v1", crop, (0.4, 0.4, 0.4, 0.4), strength=strength, blur=0.0),) * 2


def moco_v2(size: int = 224, strength: float = 1.0) -> Recipe:
    """Two views as in MoCo v2: those of SimCLR with half of its colour jitter and larger crops.

    Args:
        size: Side of the views, in pixels.
        strength: Multiplies the colour jitter.

    Source: Chen et al., 2020, arXiv:2003.04297.

    >>> moco_v2()[0].crop.area
    (0.2, 1.0)
    """
    return _moco_v2("moco_v2", size, strength, 2)


def densecl(size: int = 224, strength: float = 1.0) -> Recipe:
    """Two views as in DenseCL, which takes MoCo v2's.

    Args:
        size: Side of the views, in pixels.
        strength: Multiplies the colour jitter.

    Source: Wang et al., 2020, arXiv:2011.09157. Where the views overlap: `fastssl.transforms.crop_grids`.

    >>> densecl() == moco_v2()
    True
    """
    return _moco_v2("densecl", size, strength, 2)


def simsiam(size: int = 224, strength: float = 1.0) -> Recipe:
    """Two views as in SimSiam, which takes MoCo v2's.

    Args:
        size: Side of the views, in pixels.
        strength: Multiplies the colour jitter.

    Source: Chen and He, 2020, arXiv:2011.10566.

    >>> simsiam() == moco_v2()
    True
    """
    return _moco_v2("simsiam", size, strength, 2)


def fastsiam(size: int = 224, views: int = 4, strength: float = 1.0) -> Recipe:
    """Several views as in FastSiam, each as SimSiam's.

    Args:
        size: Side of the views, in pixels.
        views: Their number.
        strength: Multiplies the colour jitter.

    Source: Pototzky et al., "FastSiam: Resource-Efficient Self-supervised Learning on a Single GPU", GCPR 2022.

    >>> len(fastsiam())
    4
    """
    return _moco_v2("fastsiam", size, strength, check_count("fastsiam", "views", views))


def byol(size: int = 224, strength: float = 1.0) -> Recipe:
    """Two views as in BYOL: the first always blurred, the second seldom, and solarized.

    Deviation, shared with lightly: the crop is bilinear, the paper's is bicubic.

    Args:
        size: Side of the views, in pixels.
        strength: Multiplies the colour jitter.

    Source: Grill et al., 2020, arXiv:2006.07733, appendix B, table 6.

    >>> [view.blur.p for view in byol()]
    [1.0, 0.1]
    """
    return _byol("byol", size, strength)


def tico(size: int = 224, strength: float = 1.0) -> Recipe:
    """Two views as in TiCo, which takes BYOL's.

    Args:
        size: Side of the views, in pixels.
        strength: Multiplies the colour jitter.

    Source: Zhu et al., 2022, arXiv:2206.10698.

    >>> tico() == byol()
    True
    """
    return _byol("tico", size, strength)


def barlow_twins(size: int = 224, strength: float = 1.0) -> Recipe:
    """Two views as in Barlow Twins, which takes BYOL's.

    Args:
        size: Side of the views, in pixels.
        strength: Multiplies the colour jitter.

    Source: Zbontar et al., 2021, arXiv:2103.03230, section 2.2.

    >>> barlow_twins() == byol()
    True
    """
    return _byol("barlow_twins", size, strength)


def mmcr(size: int = 224, views: int = 8, strength: float = 1.0) -> Recipe:
    """Several views as in MMCR, each as BYOL's first: all blurred, none solarized.

    Args:
        size: Side of the views, in pixels.
        views: Their number, the paper's k.
        strength: Multiplies the colour jitter.

    Source: Yerxa et al., 2023, arXiv:2303.03307; numbers: lightly's.

    >>> len(mmcr()), mmcr()[7] == byol()[0]
    (8, True)
    """
    return (_byol("mmcr", size, strength)[0],) * check_count("mmcr", "views", views)


def vicreg(size: int = 224, strength: float = 1.0) -> Recipe:
    """Two views as in VICReg: symmetric, with solarization before the blur.

    Deviation, shared with lightly: the crop is bilinear and solarization comes before the blur, where the paper's code is
    bicubic and blurs first.

    Args:
        size: Side of the views, in pixels.
        strength: Multiplies the colour jitter.

    Source: Bardes et al., 2021, arXiv:2105.04906; numbers: lightly's, which are the paper's but for the order.

    >>> vicreg()[0].order
    ('crop', 'jitter', 'grayscale', 'solarize', 'blur')
    """
    crop = Crop(size=size, area=(0.08, 1.0))
    return (coloured("vicreg", crop, BYOL_COLOURS, strength=strength, solarize=0.1, order=SOLARIZE_FIRST),) * 2


def wmse(size: int = 224, views: int = 2, strength: float = 1.0) -> Recipe:
    """Views as in W-MSE: colours on the whole image, then the crop.

    Args:
        size: Side of the views, in pixels.
        views: Their number, the paper's d.
        strength: Multiplies the colour jitter.

    Source: Ermolov et al., 2020, arXiv:2007.06346; numbers: lightly's.

    >>> wmse()[0].order
    ('jitter', 'grayscale', 'crop', 'blur')
    """
    crop = Crop(size=size, area=(0.2, 1.0), interpolation="bicubic")
    view = coloured("wmse", crop, MOCO_COLOURS, strength=strength, grayscale=0.1, order=COLOURS_FIRST)
    return (view,) * check_count("wmse", "views", views)


def detcon(size: int = 224, strength: float = 1.0) -> Recipe:
    """Two views as in DetCon-S: SimCLR's colours, the first always blurred, the second never.

    The masks that go with the views: `fastssl.transforms.warp_masks`.

    Args:
        size: Side of the views, in pixels.
        strength: Multiplies the colour jitter.

    Source: Hénaff et al., 2021, arXiv:2103.10957; numbers: lightly's.

    >>> [view.blur is not None for view in detcon()]
    [True, False]
    """
    crop = Crop(size=size, area=(0.08, 1.0))
    first, second = (coloured("detcon", crop, SIMCLR_COLOURS, strength=strength, blur=blur) for blur in (1.0, 0.0))
    return (first, second)


def _moco_v2(who: str, size: int, strength: float, views: int) -> Recipe:
    return (coloured(who, Crop(size=size, area=(0.2, 1.0)), MOCO_COLOURS, strength=strength),) * views


def _byol(who: str, size: int, strength: float) -> Recipe:
    crop = Crop(size=size, area=(0.08, 1.0))
    first = coloured(who, crop, BYOL_COLOURS, strength=strength, blur=1.0)
    second = coloured(who, crop, BYOL_COLOURS, strength=strength, blur=0.1, solarize=0.2)
    return (first, second)
