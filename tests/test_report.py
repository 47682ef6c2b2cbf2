"""The report: one file that needs no other, with everything in it that was given."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image

import fastssl
from fastssl.data.sources import ImageFolder
from fastssl.embedding import Embeddings, write_report
from fastssl.embedding.curve import curve
from fastssl.embedding.report import Figure, neighbour_rows, sample_views

STATS = {
    "images": 1200,
    "seconds": 10.0,
    "images_per_second": 120.0,
    "threads": 2,
    "read_seconds": 0.5,
    "decode_seconds": 3.0,
    "render_seconds": 1.5,
    "wait_seconds": 0.25,
    "advice": "the loader keeps up",
}


class Reader(HTMLParser):
    """Collects the elements of a page, and fails where they do not nest."""

    EMPTY = frozenset({"meta", "img", "line", "polyline", "br"})

    def __init__(self, page):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def embeddings(photos):
    folder = ImageFolder(photos)
    generator = torch.Generator().manual_seed(0)
    names = [folder.filename(i) for i in range(len(folder))]
    features = torch.randn(len(folder), 6, generator=generator)
    return Embeddings(features, torch.tensor(folder.targets), names, folder.classes)


@pytest.fixture(scope="module")
def page(photos, embeddings, tmp_path_factory):
    folder = ImageFolder(photos)
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(
        path,
        title="A <title> & more",
        summary="Two epochs.",
        figures=[
            Figure("55.5", "k-NN accuracy, trained", "%", "k = 20"),
            Figure("11.0", "k-NN accuracy, untrained", "%"),
        ],
        settings={"batch_size": 64, "lr": 0.03, "data": "<b>"},
        samples=sample_views(folder, fastssl.recipes.simclr(32), [0, 5, 20]),
        history=[
            {"step": s, "epoch": 0, "loss": 5 - s / 50, "lr": 0.1, "images_per_second": 9.0} for s in range(1, 101)
        ],
        near=neighbour_rows(embeddings, folder, None, folder, [0, 10, 22], k=4),
        loader_stats=STATS,
    )
    return path


def test_the_report_needs_nothing_from_outside(page):
    text = page.read_text()
    assert not re.search(r"https?://|<script|<link|@import|url\(", text)
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in Reader(text).all("img"))
    assert page.stat().st_size < 1e6


def test_every_picture_is_a_jpeg_with_a_text_in_its_place(page):
    images = Reader(page.read_text()).all("img")
    assert len(images) == 3 * (1 + 2) + 3 * (1 + 4)
    for image in images:
        assert image["alt"].strip()
        with Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1]))) as picture:
            assert picture.format == "JPEG" and picture.width == picture.height
    charts = Reader(page.read_text()).all("svg")
    assert [chart["role"] for chart in charts] == ["img", "img"]
    assert "Loss over step: from 4.98 at 1 to 3 at 100" in charts[0]["aria-label"]


def test_what_was_given_stands_in_the_report_as_text(page):
    text = Reader(page.read_text()).text
    for said in (
        "A <title> & more",
        "55.5",
        "batch size",
        "<b>",
        "view 2",
        "Learning rate",
        "the loader keeps up",
        "60 %",
    ):
        assert said in text
    assert "2.5 % of the time" in text


def test_neighbours_are_marked_by_class(page, embeddings, photos):
    folder = ImageFolder(photos)
    (row,) = neighbour_rows(embeddings, folder, None, folder, [10], k=22)
    assert row.label == "dog" and row.name == embeddings.filenames[10]
    assert sorted(name for name, *_ in row.found) == sorted(set(embeddings.filenames) - {row.name})
    similar = [similarity for _, _, similarity, _ in row.found]
    assert similar == sorted(similar, reverse=True)
    assert [label for name, label, *_ in row.found] == [name.split("/")[0] for name, *_ in row.found]
    text = page.read_text()
    assert text.count("<b aria-hidden=true>✓</b>") + text.count("<b aria-hidden=true>✗</b>") == 12


def test_of_one_class_neighbours_are_named_and_not_marked(photos, embeddings, tmp_path):
    folder = ImageFolder(photos)
    one = Embeddings(embeddings.features, torch.zeros_like(embeddings.targets), embeddings.filenames, ["all"])
    near = neighbour_rows(one, folder, None, folder, [10], k=3)
    path = tmp_path / "report.html"
    write_report(path, title="t", summary="s", figures=[], settings={}, near=near)
    text = path.read_text()
    assert "✓" not in text and "✗" not in text
    assert all(f"<figcaption>{name.split('/')[1].split('.')[0]} " in text for name, *_ in near[0].found)


def test_pictures_of_neighbours_are_those_of_their_names_even_if_some_images_are_missing(photos, embeddings):
    folder = ImageFolder(photos)
    kept = [i for i in range(23) if i != 4]
    (row,) = neighbour_rows(embeddings[kept], folder, embeddings, folder, [12], k=3)
    for name, _, _, picture in row.found:
        (alone,) = neighbour_rows(embeddings, folder, None, folder, [embeddings.filenames.index(name)], k=1)
        assert torch.equal(picture, alone.image)


def test_samples_are_what_training_sees_before_normalization(photos):
    folder, recipe = ImageFolder(photos), fastssl.recipes.simclr(24)
    batch = next(iter(fastssl.Loader(folder, recipe, batch_size=4, seed=3, decode="full")))
    index = int(batch.indices[2])
    (sample,) = sample_views(folder, recipe, [index], seed=3)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (recipe[0].normalize.mean, recipe[0].normalize.std))
    for view, trained in zip(sample.views, batch.views, strict=True):
        shown = (trained[2] * std + mean) * 255
        assert (shown - view).abs().max() <= 0.501  # rounded to 8 bits


def test_a_report_of_little_is_a_page_too(tmp_path):
    path = write_report(tmp_path / "r.html", title="T", summary="S", figures=[], settings={})
    assert not Reader(path.read_text()).all("section")


def test_a_curve_marks_round_numbers_and_stays_inside_its_frame():
    chart = curve([(1, 2.0), (2, 7.9), (3, 0.1)], title="y", x_label="x")
    assert re.findall(r'text-anchor="end">([^<]+)<', chart) == ["0", "2", "4", "6", "8"]
    (points,) = re.findall(r'points="([^"]+)"', chart)
    for x, y in (map(float, point.split(",")) for point in points.split()):
        assert 58 <= x <= 508 and 34 <= y <= 236


def test_a_long_curve_is_thinned_and_a_constant_one_drawn():
    chart = curve([(step, step % 7) for step in range(50_000)], title="y", x_label="x", smooth=True)
    assert len(chart) < 30_000
    assert "nan" not in curve([(1, 3.0)], title="y", x_label="x") + curve([(1, 0.0), (2, 0.0)], title="y", x_label="x")
    assert curve([], title="y", x_label="x") == ""
