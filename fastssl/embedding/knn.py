"""Nearest neighbours in feature space, by cosine: the usual measure of what a backbone has learned.

The similarities of all queries with all images are never stored whole: queries pass in blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fastssl.embedding.embed import Embeddings

__all__ = ["knn_accuracy", "knn_predict", "neighbours"]

_BLOCK_VALUES = 2**24  # similarities at a time: 64 MiB


def knn_predict(
    train: Embeddings, queries: Embeddings | None = None, *, k: int = 20, temperature: float = 0.1
) -> Tensor:
    """The class of each query, voted by its k nearest neighbours.

    A neighbour of cosine similarity s votes for its class with weight exp(s / temperature).

    Args:
        train: N labelled images.
        queries: M images; None for those of `train`, each without itself (leave one out).
        k: Neighbours that vote; 1 to N, or N - 1 without queries.
        temperature: Of the votes; > 0. The lower, the more the nearest count.

    Returns:
        Targets, (M,), int64; of classes with equal votes, the first.

    Raises:
        ValueError: k or temperature is out of its range, or the features differ in width.

    Source: Wu et al., 2018, arXiv:1805.01978, section 3.4; k and temperature as is usual on ImageNet.

    >>> train = Embeddings(torch.eye(3), torch.tensor([5, 5, 2]), ["a", "b", "c"])
    >>> knn_predict(train, Embeddings(torch.tensor([[0.0, 0.1, 9.0]]), torch.tensor([0]), ["q"]), k=1)
    tensor([2])
    """
    if not temperature > 0:
        raise ValueError(f"knn_predict: temperature={temperature} must be above 0; write 0.1.")
    labels, label_of = train.targets.unique(return_inverse=True)
    out = []
    for similarity, index in _nearest("knn_predict", train, queries, None, k):
        # Less the greatest, which changes no order, so that no exponential overflows.
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
        votes = torch.zeros(len(index), len(labels)).scatter_add_(1, label_of[index], weight)
        out.append(labels[votes.argmax(1)])
    return torch.cat(out)


def knn_accuracy(train: Embeddings, test: Embeddings | None = None, k: int = 20, temperature: float = 0.1) -> float:
    """The part of `test` whose class its k nearest neighbours in `train` vote for; see `knn_predict`.

    Args:
        train: Labelled images.
        test: Labelled images; None for those of `train`, each without itself (leave one out).
        k: Neighbours that vote.
        temperature: Of the votes.

    Returns:
        Accuracy, in [0, 1].

    Raises:
        ValueError: k or temperature is out of its range, the features differ in width, or test is empty.

    Source: Wu et al., 2018, arXiv:1805.01978, section 3.4.

    >>> knn_accuracy(Embeddings(torch.eye(2).repeat(2, 1), torch.tensor([0, 1, 0, 1]), ["a", "b", "c", "d"]), k=1)
    1.0
    """
    asked = train if test is None else test
    if not len(asked):
        raise ValueError("knn_accuracy: test is empty.")
    return (knn_predict(train, test, k=k, temperature=temperature) == asked.targets).double().mean().item()


def neighbours(
    embeddings: Embeddings, queries: Embeddings | Sequence[int] | Tensor, k: int = 10
) -> tuple[Tensor, Tensor]:
    """The k images nearest to each query.

    Args:
        embeddings: N images to search.
        queries: M other images, or M row numbers of `embeddings`, whose own rows are then left out.
        k: Neighbours of each; 1 to N, or N - 1 with row numbers.

    Returns:
        Cosine similarities, (M, k), float32, greatest first, and the neighbours' rows, (M, k), int64.

    Raises:
        ValueError: k is out of its range, or the features differ in width.
        IndexError: A row number is out of its range.

    >>> neighbours(Embeddings(torch.tensor([[1.0, 0], [0, 1], [3, 1]]), torch.zeros(3), ["a", "b", "c"]), [0], k=1)[1]
    tensor([[2]])
    """
    if isinstance(queries, Embeddings):
        found = list(_nearest("neighbours", embeddings, queries, None, k))
    else:
        rows = torch.as_tensor(queries, dtype=torch.int64)
        wrong = [row for row in rows.tolist() if not 0 <= row < len(embeddings)]
        if wrong:
            raise IndexError(
                f"neighbours: there is no row {wrong[0]}; the embeddings have rows 0 to {len(embeddings) - 1}."
            )
        found = list(_nearest("neighbours", embeddings, embeddings[rows], rows, k))
    if not found:
        return torch.empty(0, k), torch.empty(0, k, dtype=torch.int64)
    return torch.cat([similarity for similarity, _ in found]), torch.cat([index for _, index in found])


def _nearest(
    who: str, train: Embeddings, queries: Embeddings | None, rows: Tensor | None, k: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Similarities and rows of the k nearest, (block, k) each, block by block; `rows` of queries from `train`."""
    if queries is None:
        queries, rows = train, torch.arange(len(train))
    most = len(train) - (rows is not None)
    if not isinstance(k, int) or not 1 <= k <= most:
        raise ValueError(f"{who}: k={k} must be from 1 to {most}, the number of images that can be neighbours.")
    if queries.features.shape[1] != train.features.shape[1]:
        raise ValueError(
            f"{who}: the queries have {queries.features.shape[1]} features and the images {train.features.shape[1]}; "
            "embed both with the same network."
        )
    keys = torch.nn.functional.normalize(train.features.float(), dim=1)
    block = max(1, _BLOCK_VALUES // len(keys))
    for start in range(0, len(queries), block):
        asked = torch.nn.functional.normalize(queries.features[start : start + block].float(), dim=1)
        similarity = asked @ keys.T
        if rows is not None:
            similarity[torch.arange(len(asked)), rows[start : start + block]] = -torch.inf
        values, index = similarity.topk(k)
        yield values, index
