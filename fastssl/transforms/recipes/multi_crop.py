"""Recipes of methods with global and local views; the global ones come first."""

from __future__ import annotations

from fastssl.transforms.geometry import Crop, Interpolation
from fastssl.transforms.recipes._parts import BYOL_COLOURS, SIMCLR_COLOURS, check_count, coloured
from fastssl.transforms.view import Recipe

__all__ = ["dino", "dinov2", "ibot", "lejepa", "msn", "smog", "swav", "vicregl"]


def dino(size: int = 224, local_size: int = 96, local_views: int = 6, strength: float = 1.0) -> Recipe:
    """Two global views as BYOL's and local ones of at most 40 % of the area, as in DINO.

    Args:
        size: Side of the global views, in pixels.
        local_size: Side of the local views.
        local_views: Their number; lightly's is 6, the default of the paper's code 8, of its best runs 10.
        strength: Multiplies the colour jitter.

    Source: Caron et al., 2021, arXiv:2104.14294, section 3.1 and appendix E.

    >>> [view.size for view in dino(local_views=2)]
    [224, 224, 96, 96]
    """
    return _dino("dino", (size, local_size), 0.4, local_views, strength)


def ibot(size: int = 224, local_size: int = 96, local_views: int = 10, strength: float = 1.0) -> Recipe:
    """Two global views and local ones as in iBOT: DINO's, with global crops from a quarter of the area.

    Args:
        size: Side of the global views, in pixels.
        local_size: Side of the local views.
        local_views: Their number.
        strength: Multiplies the colour jitter.

    Source: Zhou et al., 2021, arXiv:2111.07832; numbers: lightly's.

    >>> ibot()[0].crop.area, ibot()[2].crop.area
    ((0.25, 1.0), (0.05, 0.25))
    """
    return _dino("ibot", (size, local_size), 0.25, local_views, strength)


def dinov2(size: int = 224, local_size: int = 96, local_views: int = 8, strength: float = 1.0) -> Recipe:
    """Two global views and local ones as in DINOv2: DINO's, with other areas.

    Deviation: blur with the probabilities 1, 0.1 and 0.5 of DINO, as in lightly's example; the paper's code means them too,
    but blurs with one minus each. For a patch size of 14 the paper's local views have 98 pixels.

    Args:
        size: Side of the global views, in pixels.
        local_size: Side of the local views.
        local_views: Their number.
        strength: Multiplies the colour jitter.

    Source: Oquab et al., 2023, arXiv:2304.07193; numbers: its code, dinov2/configs/ssl_default_config.yaml.

    >>> len(dinov2()), dinov2()[2].crop.area
    (10, (0.05, 0.32))
    """
    return _dino("dinov2", (size, local_size), 0.32, local_views, strength)


def lejepa(size: int = 224, local_size: int = 96, local_views: int = 6, strength: float = 1.0) -> Recipe:
    """Two global views and local ones as in LeJEPA: all blurred half of the time.

    The numbers are those of lightly's example, in which the second global view alone is solarized.

    Args:
        size: Side of the global views, in pixels.
        local_size: Side of the local views.
        local_views: Their number.
        strength: Multiplies the colour jitter.

    Source: Balestriero and LeCun, 2025, arXiv:2511.08544.

    >>> {view.blur.p for view in lejepa()}
    {0.5}
    """
    return _dino("lejepa", (size, local_size), 0.3, local_views, strength, blurs=(0.5, 0.5, 0.5))


def swav(size: int = 224, local_size: int = 96, local_views: int = 6, strength: float = 1.0) -> Recipe:
    """Two large views and small ones as in SwAV, with SimCLR's colours.

    Deviation, shared with lightly: red is divided by ImageNet's 0.229, in the paper's code by 0.228.

    Args:
        size: Side of the large views, in pixels.
        local_size: Side of the small views.
        local_views: Their number.
        strength: Multiplies the colour jitter.

    Source: Caron et al., 2020, arXiv:2006.09882; numbers: its code, multicropdataset.py.

    >>> swav()[0].crop.area, swav()[2].crop.area
    ((0.14, 1.0), (0.05, 0.14))
    """
    large = coloured("swav", Crop(size=size, area=(0.14, 1.0)), SIMCLR_COLOURS, strength=strength)
    small = large.with_(crop=Crop(size=local_size, area=(0.05, 0.14)))
    return (large,) * 2 + (small,) * check_count("swav", "local_views", local_views, 0)


def msn(size: int = 224, local_size: int = 96, views: int = 2, local_views: int = 10, strength: float = 1.0) -> Recipe:
    """A target and an anchor at full size, and focal views, as in MSN, with SimCLR's colours.

    Args:
        size: Side of the full views, in pixels.
        local_size: Side of the focal views.
        views: Number of full views, the first of them the target.
        local_views: Number of focal views.
        strength: Multiplies the colour jitter.

    Source: Assran et al., 2022, arXiv:2204.07141; numbers: lightly's.

    >>> msn()[2].crop.area, msn()[2].jitter == msn()[0].jitter
    ((0.05, 0.3), True)
    """
    full = coloured("msn", Crop(size=size, area=(0.3, 1.0)), SIMCLR_COLOURS, strength=strength)
    focal = full.with_(crop=Crop(size=local_size, area=(0.05, 0.3)))
    return (full,) * check_count("msn", "views", views) + (focal,) * check_count("msn", "local_views", local_views, 0)


def smog(size: int = 224, local_size: int = 96, views: int = 4, local_views: int = 4, strength: float = 1.0) -> Recipe:
    """Large and small views as in SMoG, always jittered; small ones are solarized now and then.

    Args:
        size: Side of the large views, in pixels.
        local_size: Side of the small views.
        views, local_views: Their numbers.
        strength: Multiplies the colour jitter.

    Source: Pang et al., 2022, arXiv:2207.06167; numbers: lightly's.

    >>> smog()[0].jitter.p, smog()[4].solarize.p
    (1.0, 0.2)
    """
    large, small = _large_and_small("smog", (size, local_size), strength)
    return (large,) * check_count("smog", "views", views) + (small,) * check_count(
        "smog", "local_views", local_views, 0
    )


def vicregl(
    size: int = 224, local_size: int = 96, views: int = 2, local_views: int = 6, strength: float = 1.0
) -> Recipe:
    """Large and small views as in VICRegL; the grids that tell where they lie come from `fastssl.transforms.crop_grids`.

    Deviation, shared with lightly: areas, jitter, blur and solarization are SMoG's and the crop bilinear; the paper's code
    has areas split at 0.14, bicubic crops and BYOL's two sets of colours in turn.

    Args:
        size: Side of the large views, in pixels.
        local_size: Side of the small views.
        views, local_views: Their numbers.
        strength: Multiplies the colour jitter.

    Source: Bardes et al., 2022, arXiv:2210.01571; numbers: lightly's.

    >>> [view.size for view in vicregl(local_views=1)]
    [224, 224, 96]
    """
    large, small = _large_and_small("vicregl", (size, local_size), strength)
    count = check_count("vicregl", "local_views", local_views, 0)
    return (large,) * check_count("vicregl", "views", views) + (small,) * count


def _dino(
    who: str,
    sizes: tuple[int, int],
    split: float,
    local_views: int,
    strength: float,
    blurs: tuple[float, float, float] = (1.0, 0.1, 0.5),
) -> Recipe:
    """DINO's views, with global crops above and local ones below the area `split`."""
    bicubic: Interpolation = "bicubic"
    large = Crop(size=sizes[0], area=(split, 1.0), interpolation=bicubic)
    small = Crop(size=sizes[1], area=(0.05, split), interpolation=bicubic)
    first = coloured(who, large, BYOL_COLOURS, strength=strength, blur=blurs[0])
    second = coloured(who, large, BYOL_COLOURS, strength=strength, blur=blurs[1], solarize=0.2)
    local = coloured(who, small, BYOL_COLOURS, strength=strength, blur=blurs[2])
    return (first, second) + (local,) * check_count(who, "local_views", local_views, 0)


def _large_and_small(who: str, sizes: tuple[int, int], strength: float) -> Recipe:
    large = Crop(size=sizes[0], area=(0.2, 1.0))
    small = Crop(size=sizes[1], area=(0.05, 0.2))
    return (
        coloured(who, large, BYOL_COLOURS, strength=strength, jitter=1.0),
        coloured(who, small, BYOL_COLOURS, strength=strength, jitter=1.0, blur=0.1, solarize=0.2),
    )
