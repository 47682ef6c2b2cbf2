"""The report of a run: one HTML file with its pictures inside, which needs nothing from the network."""

from __future__ import annotations

import base64
import html
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from fastssl import ops
from fastssl.data.sources import Source
from fastssl.embedding.curve import curve
from fastssl.embedding.embed import Embeddings
from fastssl.embedding.knn import neighbours
from fastssl.transforms.plan import Plan
from fastssl.transforms.recipes import evaluation
from fastssl.transforms.view import Recipe

__all__ = ["Figure", "Neighbours", "Sample", "neighbour_rows", "sample_views", "source_indices", "write_report"]

_THUMBNAIL = 112  # pixels


@dataclass(frozen=True)
class Figure:
    """A number at the head of the report.

    Args:
        value: As it is to be read, without its unit.
        label: What it is.
        unit: May be empty.
        note: In small print, may be empty.
    """

    value: str
    label: str
    unit: str = ""
    note: str = ""


@dataclass(frozen=True)
class Sample:
    """An image with views of it.

    Args:
        name: Of the image.
        image: (3, S, S), uint8.
        views: As the network sees them, but not normalized: (3, S, S) each, uint8.
    """

    name: str
    image: Tensor
    views: list[Tensor]


@dataclass(frozen=True)
class Neighbours:
    """An image with those nearest to it.

    Args:
        name, label: Of the query; label is its class, or empty.
        image: (3, S, S), uint8.
        found: For each neighbour, nearest first: name, label, cosine similarity, image.
    """

    name: str
    label: str
    image: Tensor
    found: list[tuple[str, str, float, Tensor]]


def sample_views(source: Source, recipe: Recipe, indices: Sequence[int], *, seed: int = 0) -> list[Sample]:
    """Draws and renders views of some images of a source, as training sees them in its first epoch.

    Of the whole image, where training may decode a large one in a fraction of its size.

    Args:
        source: Of the images.
        recipe: Of the views.
        indices: Of the images in the source.
        seed: Of the run.

    Raises:
        DecodeError: An image cannot be read.
    """
    images = [_pixels(source, i) for i in indices]
    plan = Plan.draw(recipe, [(image.shape[0], image.shape[1]) for image in images], seed=seed, indices=list(indices))
    plain = tuple(replace(view, normalize=None) for view in recipe)
    views = ops.render(images, plan, plain, dtype=torch.uint8)
    thumbnails = _thumbnails(images)
    return [
        Sample(source.filename(index), thumbnails[i], [view[i] for view in views]) for i, index in enumerate(indices)
    ]


def neighbour_rows(
    train: Embeddings,
    train_source: Source,
    queries: Embeddings | None,
    query_source: Source,
    rows: Sequence[int],
    *,
    k: int = 8,
) -> list[Neighbours]:
    """The pictures of some queries and of those nearest to them.

    Args:
        train: What is searched, of `train_source`.
        queries: Others, of `query_source`; None to search for images of `train`, which is of `query_source` then.
        rows: Which of the queries.
        k: Neighbours of each.

    Raises:
        ValueError: k is more than there are.
        DecodeError: An image cannot be read.
    """
    asked = train if queries is None else queries
    similarity, index = neighbours(train, rows if queries is None else queries[rows], k)
    train_index, asked_index = source_indices(train, train_source), source_indices(asked, query_source)
    out = []
    for row, near, similar in zip(rows, index.tolist(), similarity.tolist(), strict=True):
        images = [_pixels(query_source, asked_index[row]), *(_pixels(train_source, train_index[i]) for i in near)]
        query, *found = _thumbnails(images)
        rest = zip(near, similar, found, strict=True)
        out.append(
            Neighbours(
                name=asked.filenames[row],
                label=_label(asked, row),
                image=query,
                found=[(train.filenames[i], _label(train, i), s, picture) for i, s, picture in rest],
            )
        )
    return out


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: str,
    figures: Sequence[Figure],
    settings: Mapping[str, Any],
    samples: Sequence[Sample] = (),
    history: Sequence[Mapping[str, float]] = (),
    near: Sequence[Neighbours] = (),
    loader_stats: Mapping[str, Any] | None = None,
) -> Path:
    """Write the report of a run as one HTML file; what is not given is left out.

    Args:
        path: Of the file.
        title: Its heading.
        summary: One or two sentences below it.
        figures: The results, at its head.
        settings: Of the run, by name.
        samples: Images and their views; see `sample_views`.
        history: Rows with step, epoch, loss and lr; see `fastssl.training.metrics.read_metrics`.
        near: Nearest neighbours; see `neighbour_rows`.
        loader_stats: See `fastssl.Loader.stats`.

    Returns:
        The path.
    """
    sections = [
        _head(title, summary, figures),
        _section("Views", _VIEWS, _samples(samples)) if samples else "",
        _section("Training", _TRAINING, _curves(history)) if history else "",
        _section("Nearest neighbours", _NEAR, _neighbours(near)) if near else "",
        _section("Loader", _LOADER, _loader(loader_stats)) if loader_stats else "",
        _section("Settings", "", _table(settings)) if settings else "",
    ]
    page = _PAGE.format(title=html.escape(title), style=_STYLE, body="\n".join(part for part in sections if part))
    Path(path).write_text(page, encoding="utf-8")
    return Path(path)


# Pictures


def _pixels(source: Source, index: int) -> Tensor:
    path = source.path(index)
    return ops.to_image(path if path is not None else source.fetch(index))


def source_indices(embeddings: Embeddings, source: Source) -> list[int]:
    """The index in the source of each row of its embeddings, which lack the images that could not be read."""
    if len(embeddings) == len(source):
        return list(range(len(source)))
    index = {source.filename(i): i for i in range(len(source))}
    return [index[name] for name in embeddings.filenames]


def _thumbnails(images: Sequence[Tensor]) -> list[Tensor]:
    """The central squares of the images, (3, S, S), uint8; small images are not enlarged."""
    out = []
    for image in images:
        size = min(_THUMBNAIL, *image.shape[:2])
        recipe = tuple(replace(view, normalize=None) for view in evaluation(size, 1.0))
        plan = Plan.draw(recipe, [(image.shape[0], image.shape[1])], seed=0)
        out.append(ops.render([image], plan, recipe, dtype=torch.uint8)[0][0])
    return out


def _picture(image: Tensor, alt: str, css: str = "") -> str:
    buffer = io.BytesIO()
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    if max(picture.size) > 2 * _THUMBNAIL:
        picture = picture.resize((2 * _THUMBNAIL, 2 * _THUMBNAIL), Image.Resampling.LANCZOS)
    picture.save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{data}" alt="{html.escape(alt, quote=True)}" class="{css}">'


def _label(embeddings: Embeddings, row: int) -> str:
    """The class; none where all images lie in one folder, which says nothing of them."""
    target, classes = int(embeddings.targets[row]), embeddings.classes
    return classes[target] if len(classes) > 1 and 0 <= target < len(classes) else ""


# Sections

_VIEWS = (
    "Each image beside the views that training draws of it. The network learns that those of one row belong together."
)
_TRAINING = "The loss that is made smaller, and the learning rate, over the steps of the run."
_NEAR = (
    "Images nearest to the first of each row in the trained feature space, by cosine similarity. "
    "No label was used to train it."
)
_LOADER = "Where the loader's threads spent their time during training, and whether training waited for them."


def _head(title: str, summary: str, figures: Sequence[Figure]) -> str:
    cards = "".join(
        f"<div><dt>{html.escape(figure.label)}</dt><dd>{html.escape(figure.value)}"
        + (f" <i>{html.escape(figure.unit)}</i>" if figure.unit else "")
        + (f"<small>{html.escape(figure.note)}</small>" if figure.note else "")
        + "</dd></div>"
        for figure in figures
    )
    return f"<header><h1>{html.escape(title)}</h1><p>{html.escape(summary)}</p><dl class=figures>{cards}</dl></header>"


def _section(heading: str, text: str, content: str) -> str:
    return f"<section><h2>{heading}</h2>{f'<p>{text}</p>' if text else ''}{content}</section>"


def _samples(samples: Sequence[Sample]) -> str:
    cells = []
    for sample in samples:
        views = "".join(
            f"<figure>{_picture(view, f'View {i} of {sample.name}')}<figcaption>view {i}</figcaption></figure>"
            for i, view in enumerate(sample.views, 1)
        )
        image = _picture(sample.image, f"Image {sample.name}")
        cells.append(
            f"<div class=sample><figure>{image}<figcaption>{html.escape(_short(sample.name))}</figcaption></figure>"
            f"{views}</div>"
        )
    return f"<div class=samples>{''.join(cells)}</div>"


def _neighbours(near: Sequence[Neighbours]) -> str:
    labelled = any(row.label for row in near)
    rows = []
    for row in near:
        query = _picture(row.image, f"Query {row.name}", "query")
        cells = [f"<figure>{query}<figcaption>{html.escape(row.label or _short(row.name))}</figcaption></figure>"]
        for name, label, similarity, image in row.found:
            known = bool(row.label and label)
            same = label == row.label
            said = f", {'same' if same else 'other'} class" if known else ""
            mark = ("<b aria-hidden=true>✓</b> " if same else "<b aria-hidden=true>✗</b> ") if known else ""
            cells.append(
                f'<figure class="{("same" if same else "other") if known else ""}">'
                f"{_picture(image, f'Neighbour {name}{said}')}<figcaption>{mark}{html.escape(label or _short(name))} "
                f"<span>{similarity:.2f}</span></figcaption></figure>"
            )
        rows.append(f"<div class=near>{''.join(cells)}</div>")
    key = (
        "<p class=key><b class=same>✓</b> same class as the first &ensp; <b class=other>✗</b> another class &ensp; "
        "number: cosine similarity</p>"
        if labelled
        else "<p class=key>number: cosine similarity</p>"
    )
    return key + "".join(rows)


def _curves(history: Sequence[Mapping[str, float]]) -> str:
    steps = [row["step"] for row in history]
    losses = [(step, row["loss"]) for step, row in zip(steps, history, strict=True) if math.isfinite(row["loss"])]
    rates = [(step, row["lr"]) for step, row in zip(steps, history, strict=True)]
    return (
        '<div class="curves">'
        + curve(losses, title="Loss", x_label="step", smooth=True)
        + curve(rates, title="Learning rate", x_label="step", from_zero=True)
        + "</div>"
    )


def _loader(stats: Mapping[str, Any]) -> str:
    work = {name: float(stats[f"{name}_seconds"]) for name in ("read", "decode", "render")}
    total = sum(work.values()) or 1.0
    bars = "".join(
        f"<tr><th scope=row>{name}</th><td><div class=bar style='width:{100 * value / total:.1f}%'></div></td>"
        f"<td class=number>{100 * value / total:.0f} %</td><td class=number>{_seconds(value)}</td></tr>"
        for name, value in work.items()
    )
    seconds = float(stats["seconds"])
    waited = 100 * float(stats["wait_seconds"]) / seconds if seconds else 0.0
    told = {
        "images": f"{stats['images']:,}",
        "threads": stats["threads"],
        "thread time per image": f"{1000 * total / max(1, stats['images']):.2f} ms, all views",
        "training waited for images": f"{waited:.1f} % of the time",
        "advice": stats["advice"],
    }
    return f"<table class=bars>{bars}</table>{_table(told)}"


def _table(values: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th scope=row>{html.escape(str(name).replace('_', ' '))}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in values.items()
    )
    return f"<table class=facts>{rows}</table>"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"


def _short(name: str) -> str:
    """A file name for a caption: without its folder and suffix, and not too long."""
    stem = Path(name).stem
    return stem if len(stem) <= 22 else f"{stem[:21]}…"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

_STYLE = """
:root { --paper: #fbfaf8; --ink: #1d1d1f; --soft: #66666c; --line: #dedcd6; --card: #ffffff; --accent: #2458a6;
  --good: #1d7a46; --bad: #b3402a; }
@media (prefers-color-scheme: dark) { :root { --paper: #151517; --ink: #ececee; --soft: #a0a0a8; --line: #34343a;
  --card: #1e1e22; --accent: #86b1f2; --good: #62c98d; --bad: #ee8b74; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 3rem 1.5rem 5rem; }
h1 { font-size: 2rem; line-height: 1.2; letter-spacing: -0.02em; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; letter-spacing: -0.01em; margin: 0 0 .25rem; }
header p, section > p { color: var(--soft); max-width: 46rem; margin: 0 0 1.25rem; }
section { margin-top: 3.5rem; border-top: 1px solid var(--line); padding-top: 1.5rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 1rem; margin: 2rem 0 0; }
.figures > div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem 1.25rem; }
.figures dt { color: var(--soft); font-size: .875rem; }
.figures dd { margin: .25rem 0 0; font-size: 1.6rem; line-height: 1.2; font-weight: 600; letter-spacing: -0.02em;
  font-variant-numeric: tabular-nums; }
.figures i { font-style: normal; font-size: 1rem; font-weight: 500; letter-spacing: 0; white-space: nowrap; }
.figures small { display: block; margin-top: .25rem; font-size: .8125rem; line-height: 1.4; font-weight: 400;
  letter-spacing: 0; color: var(--soft); }
figure { margin: 0; min-width: 0; }
figure img { display: block; width: 100%; aspect-ratio: 1; border-radius: 6px; background: var(--line); }
figcaption { font-size: .75rem; line-height: 1.35; color: var(--soft); margin-top: .3rem; overflow-wrap: anywhere; }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: 1.5rem 2rem; }
.sample { display: grid; grid-template-columns: repeat(3, 1fr); gap: .5rem; }
.near { display: grid; grid-template-columns: repeat(9, 1fr); gap: .5rem; margin-bottom: 1.25rem; }
.near figure:first-child { padding-right: .75rem; border-right: 1px solid var(--line); margin-right: .25rem; }
.near figure:first-child figcaption { color: var(--ink); font-weight: 600; }
.near .other img { opacity: .55; }
.near span { font-variant-numeric: tabular-nums; white-space: nowrap; }
.same b, b.same { color: var(--good); } .other b, b.other { color: var(--bad); }
section > p.key { font-size: .875rem; margin-bottom: 1rem; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1.5rem; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { fill: var(--soft); font-size: 12px; font-family: inherit; font-variant-numeric: tabular-nums; }
svg .title { fill: var(--ink); font-size: 14px; font-weight: 600; }
svg .grid { stroke: var(--line); stroke-width: 1; } svg .line { fill: none; stroke: var(--accent); stroke-width: 2;
  stroke-linejoin: round; } svg .raw { fill: none; stroke: var(--accent); stroke-width: 1; opacity: .3; }
table { border-collapse: collapse; width: 100%; font-size: .9375rem; }
th { text-align: left; font-weight: 400; color: var(--soft); padding: .35rem 1.5rem .35rem 0; white-space: nowrap;
  width: 12rem; vertical-align: top; }
td { padding: .35rem 0; overflow-wrap: anywhere; } tr + tr > * { border-top: 1px solid var(--line); }
.bars { margin-bottom: 1.5rem; } .bars tr > * { border: 0; } .bar { height: .6rem; border-radius: 3px;
  background: var(--accent); min-width: 2px; }
.number { text-align: right; width: 5rem; font-variant-numeric: tabular-nums; white-space: nowrap; padding-left: 1rem; }
@media (max-width: 44rem) { .near { grid-template-columns: repeat(3, 1fr); }
  .near figure:first-child { border: 0; margin: 0; padding: 0; } }
"""
