"""A curve over the steps of a run, as an SVG that stands inside an HTML page and takes its colours."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

__all__ = ["curve"]

_WIDTH, _HEIGHT = 520.0, 280.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 12.0, 34.0, 44.0
_MOST_POINTS = 400


def curve(
    points: Sequence[tuple[float, float]],
    *,
    title: str,
    x_label: str,
    smooth: bool = False,
    from_zero: bool = False,
) -> str:
    """Draw y over x.

    Args:
        points: (x, y), x ascending, all finite; may be empty.
        title: Above the plot; says what y is.
        x_label: Below it.
        smooth: Whether to draw the points pale, and in front of them their running mean.
        from_zero: Whether the y axis begins at 0.

    Returns:
        An <svg> element, of classes that the page styles: title, grid, line, raw.
    """
    if not points:
        return ""
    points = _thinned(points)
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x_ticks = _ticks(min(xs), max(xs))
    y_ticks = _ticks(min(0.0, *ys) if from_zero else min(ys), max(ys))
    low_x, high_x = min(xs), max(max(xs), min(xs) + 1e-9)
    low_y, high_y = y_ticks[0], y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - low_x) / (high_x - low_x)
        up = (y - low_y) / (high_y - low_y)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    def path(line: Sequence[tuple[float, float]], css: str) -> str:
        corners = " ".join(f"{a:.1f},{b:.1f}" for a, b in (place(x, y) for x, y in line))
        return f'<polyline class="{css}" points="{corners}"/>'

    said = f"{title} over {x_label}: from {ys[0]:.3g} at {xs[0]:g} to {ys[-1]:.3g} at {xs[-1]:g}"
    parts = [
        f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-label="{html.escape(said, quote=True)}">',
        f'<text class="title" x="{_LEFT:g}" y="16">{html.escape(title)}</text>',
    ]
    for tick in y_ticks:
        _, y = place(low_x, tick)
        parts.append(f'<line class="grid" x1="{_LEFT:g}" x2="{_WIDTH - _RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8:g}" y="{y + 4:.1f}" text-anchor="end">{tick:.6g}</text>')
    for tick in x_ticks:
        if low_x <= tick <= high_x:
            x, _ = place(tick, low_y)
            parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18:g}" text-anchor="middle">{tick:.6g}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:g}" y="{_HEIGHT - 6:g}" text-anchor="middle">{html.escape(x_label)}</text>')
    if smooth and len(points) > 20:
        parts.append(path(points, "raw"))
        parts.append(path(_running_mean(points, len(points) // 20), "line"))
    else:
        parts.append(path(points, "line"))
    return "".join(parts) + "</svg>"


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers that enclose [low, high].

    >>> _ticks(0.0, 9.3)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    span = high - low or abs(high) or 1.0
    rough = span / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most a few hundred points: the means of groups of neighbours."""
    group = math.ceil(len(points) / _MOST_POINTS)
    parts = [points[i : i + group] for i in range(0, len(points), group)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]


def _running_mean(points: Sequence[tuple[float, float]], half: int) -> list[tuple[float, float]]:
    """The mean over `half` points to each side, fewer at the ends."""
    out = []
    for i, (x, _) in enumerate(points):
        reach = min(half, i, len(points) - 1 - i)
        near = points[i - reach : i + reach + 1]
        out.append((x, sum(y for _, y in near) / len(near)))
    return out
