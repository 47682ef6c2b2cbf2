"""embed, k-NN and neighbours."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import fastssl
from fastssl.data.sources import ImageFolder
from fastssl.embedding import Embeddings, embed, knn_accuracy, knn_predict, load_backbone, neighbours
from fastssl.embedding import knn as knn_module
from fastssl.training.pretrain import pretrain

MEAN = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def labelled(features, targets):
    return Embeddings(features, targets, [str(i) for i in range(len(targets))])


def random_embeddings(n, classes, seed, width=8):
    generator = torch.Generator().manual_seed(seed)
    return labelled(
        torch.randn(n, width, generator=generator), torch.randint(classes, (n,), generator=generator) * 3 + 1
    )


def slow_knn(train, queries, k, temperature, leave_one_out):
    """Wu et al., section 3.4, a query and a neighbour at a time, in float64."""
    out = []
    for q, feature in enumerate(queries.features.double()):
        similar = []
        for i, other in enumerate(train.features.double()):
            if not (leave_one_out and i == q):
                s = float(feature @ other) / (float(feature.norm()) * float(other.norm()))
                similar.append((s, int(train.targets[i])))
        similar.sort(reverse=True)
        votes = {}
        for s, target in similar[:k]:
            votes[target] = votes.get(target, 0.0) + math.exp(s / temperature)
        out.append(max(votes, key=lambda target: votes[target]))
    return torch.tensor(out)


@pytest.mark.parametrize("k, temperature", [(1, 0.1), (7, 0.1), (20, 1.0), (39, 0.5)])
@pytest.mark.parametrize("block_values", [1, 130, 2**24])
def test_knn_is_the_weighted_vote_of_the_paper(k, temperature, block_values, monkeypatch):
    monkeypatch.setattr(knn_module, "_BLOCK_VALUES", block_values)
    train, queries = random_embeddings(40, 4, seed=1), random_embeddings(25, 4, seed=2)
    assert torch.equal(
        knn_predict(train, queries, k=k, temperature=temperature), slow_knn(train, queries, k, temperature, False)
    )
    assert torch.equal(knn_predict(train, k=k, temperature=temperature), slow_knn(train, train, k, temperature, True))


def test_a_low_temperature_does_not_overflow():
    train = labelled(torch.tensor([[1.0, 0], [1, 0.01], [0, 1]]), torch.tensor([0, 0, 1]))
    assert knn_accuracy(train, train, k=3, temperature=0.001) == 1.0


def test_accuracy_is_the_part_that_is_right():
    train = labelled(torch.eye(2), torch.tensor([0, 1]))
    test = labelled(torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1]]), torch.tensor([0, 0, 1, 0]))
    assert knn_accuracy(train, test, k=1) == 0.75


def test_leave_one_out_does_not_see_the_query_itself():
    features = torch.tensor([[1.0, 0], [1, 0.001], [0, 1], [0.001, 1]])
    assert knn_accuracy(labelled(features, torch.tensor([0, 1, 2, 3])), k=1) == 0.0
    assert knn_accuracy(labelled(features, torch.tensor([0, 0, 1, 1])), k=1) == 1.0


def test_neighbours_are_sorted_and_leave_out_rows_that_ask():
    embeddings = labelled(torch.tensor([[2.0, 0], [1, 1], [0.5, 3], [-1, 0]]), torch.zeros(4, dtype=torch.int64))
    similarity, index = neighbours(embeddings, [0, 2], k=3)
    assert index.tolist() == [[1, 2, 3], [1, 0, 3]]
    assert similarity[0].tolist() == pytest.approx([0.5**0.5, 0.5 / 9.25**0.5, -1.0], abs=1e-6)  # float32
    _, index = neighbours(embeddings, embeddings[[0]], k=1)
    assert index.tolist() == [[0]]
    assert neighbours(embeddings, [], k=2)[1].shape == (0, 2)


def test_wrong_arguments_of_knn_are_named():
    train = random_embeddings(5, 2, seed=0)
    with pytest.raises(ValueError, match="k=6 must be from 1 to 5"):
        knn_predict(train, random_embeddings(2, 2, seed=1), k=6)
    with pytest.raises(ValueError, match="k=5 must be from 1 to 4"):
        knn_predict(train, k=5)
    with pytest.raises(ValueError, match="temperature=0"):
        knn_predict(train, k=1, temperature=0)
    with pytest.raises(ValueError, match="7 features and the images 8"):
        knn_predict(train, random_embeddings(2, 2, seed=1, width=7), k=1)
    with pytest.raises(ValueError, match="test is empty"):
        knn_accuracy(train, train[:0])
    with pytest.raises(IndexError, match="no row 5; the embeddings have rows 0 to 4"):
        neighbours(train, [0, 5], k=1)
    with pytest.raises(ValueError, match="must be"):
        Embeddings(torch.eye(3), torch.zeros(2), ["a", "b", "c"])


def test_embed_keeps_the_order_names_and_labels_of_the_source(photos):
    folder = ImageFolder(photos)
    result = embed(MEAN, photos, input_size=16, batch_size=5)
    assert result.features.shape == (23, 3) and result.features.dtype == torch.float32
    assert result.filenames == [folder.filename(i) for i in range(23)]
    assert result.targets.tolist() == folder.targets and result.classes == ["cat", "dog", "owl"]


def test_embed_sees_the_central_square_normalized(photos):
    folder = ImageFolder(photos)
    result = embed(MEAN, photos, input_size=24, keep=1.0)
    recipe = fastssl.recipes.evaluation(24, 1.0)
    image = fastssl.ops.decode(folder.path(3))
    plan = fastssl.Plan.draw(recipe, [tuple(image.shape[:2])], seed=0)
    (view,) = fastssl.ops.render([image], plan, recipe)
    torch.testing.assert_close(result.features[3], view.mean((2, 3))[0])


def test_embed_leaves_the_network_in_the_mode_it_was_in(photos):
    network = nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network[0].eval()
    first = embed(network, photos, input_size=8)
    assert network.training and not network[0].training
    assert torch.equal(network[0].running_mean, torch.zeros(3))
    assert torch.equal(first.features, embed(network, photos, input_size=8, batch_size=3).features)


def test_embed_takes_a_checkpoint_and_its_settings(photos, tmp_path):
    run = pretrain(
        photos, tmp_path, backbone="test_resnet", epochs=1, batch_size=8, input_size=32, device="cpu", progress=False
    )
    by_file, by_folder = embed(run.checkpoint, photos), embed(tmp_path, photos)
    by_network = embed(run.backbone, photos, input_size=32, keep=1.0)
    assert torch.equal(by_file.features, by_network.features) and torch.equal(by_file.features, by_folder.features)
    _, config = load_backbone(tmp_path)
    assert (config["backbone"], config["input_size"], config["keep"]) == ("test_resnet", 32, 1.0)
    with pytest.raises(ValueError, match=r"backbone\.pt is no checkpoint of pretrain"):
        embed(run.weights, photos)


def test_embeddings_survive_a_file(tmp_path):
    before = Embeddings(torch.rand(3, 4), torch.tensor([0, 1, 1]), ["a.jpg", "ü/b.jpg", "日本.jpg"], ["x", "y"])
    before.save(tmp_path / "features")  # no suffix is added
    after = Embeddings.load(tmp_path / "features")
    assert torch.equal(after.features, before.features) and torch.equal(after.targets, before.targets)
    assert (after.filenames, after.classes) == (before.filenames, before.classes)
    Embeddings(torch.rand(1, 2), torch.tensor([0]), ["a"]).save(tmp_path / "unlabelled.npz")
    assert Embeddings.load(tmp_path / "unlabelled.npz").classes == []


def test_files_that_hold_no_embeddings_are_named(tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name in ("text.npz", "other.npz"):
        with pytest.raises(ValueError, match=f"{name} is not what Embeddings.save writes"):
            Embeddings.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        Embeddings.load(tmp_path / "absent.npz")


def test_embed_names_what_is_wrong(photos, make_folder, tmp_path):
    with pytest.raises(ValueError, match=r"\(23, 3, 8, 8\).*must return \(B, F\)"):
        embed(nn.Identity(), photos, input_size=8)
    with pytest.raises(FileNotFoundError, match="absent"):
        embed(tmp_path / "absent", photos)
    (tmp_path / "text.pt").write_text("no checkpoint")
    with pytest.raises(ValueError, match=r"text\.pt cannot be read"):
        embed(tmp_path / "text.pt", photos)
    with pytest.raises(ValueError, match="on_error='replace'"):
        embed(MEAN, photos, on_error="replace")
    folder = make_folder({"a": 3})
    (folder / "a" / "a_001.jpg").write_bytes(b"")
    with pytest.raises(fastssl.DecodeError, match=r"a_001\.jpg"):
        embed(MEAN, folder, input_size=8)
    assert [name[-7:] for name in embed(MEAN, folder, input_size=8, on_error="skip").filenames] == [
        "000.jpg",
        "002.jpg",
    ]
