"""CO2: a query and its key shall see the negatives alike."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fastssl.loss._checks import check_bank, check_pairs, check_weights, weighted
from fastssl.loss._consistency import divergences
from fastssl.models.modules.memory_bank import MemoryBankModule

__all__ = ["CO2Regularizer", "co2"]


def co2(
    query: Tensor,
    key: Tensor,
    bank: Tensor | None = None,
    alpha: float = 1.0,
    t_consistency: float = 0.05,
    weights: Tensor | None = None,
) -> Tensor:
    """Consistent contrast (CO2): how differently a query and its key are distributed over the negatives.

    alpha / 2 times the symmetrized Kullback-Leibler divergence between the softmax of the query's similarities and that
    of the key's, over the pair itself and the negatives. The similarities are never stored: memory is O((B + M) D).
    On a GPU they are torch's float32 products over tiles, also for 16 bits, not the kernels on tensor cores (but for the
    denominators of a batch without a bank).

    Args:
        query: Embeddings, (B, D), float16, bfloat16, float32 or float64. Normalized here.
        key: Embeddings, (B, D); rows i are a pair. Normalized here.
        bank: Negatives, (M, D), taken as they are and without gradient, such as `MemoryBankModule.bank`; it may change
            before the backward pass. None: the other keys for a query, the other queries for a key.
        alpha: Weight of the term.
        t_consistency: Divides the similarities; > 0, no unit. A number: learned, it would grow until nothing differs.
        weights: Of the pairs' divergences, (B,), before their mean; None: 1.

    Returns:
        Mean over the pairs, (), float32; float64 for float64. Differentiable once, in query and key.

    Raises:
        ValueError: Shapes do not fit together, there is no row or column, weights are not one a pair, or t_consistency <= 0.
        TypeError: Embeddings are of another type, or t_consistency is no number.

    Max error: twice that of the plain PyTorch formula against float64, in value and gradient; for pairs that are nearly
    alike far less, since no large logarithms cancel (Note [The divergence without logarithms] in _consistency.py).
    Source: Wei et al., CO2, 2021, arXiv:2010.02217, section 3, with the pair among the classes, as lightly has it.

    >>> import torch
    >>> query, key = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]])
    >>> loss = co2(query, key, bank=torch.tensor([[1.0, 0.0]]), t_consistency=1.0)
    >>> round(loss.item(), 4)  # (-1, 1) and (-1, -1): P = (1, e^2) / (1 + e^2), Q = (1/2, 1/2); (P - Q) 2 / 2
    0.3808
    """
    _check_temperature("co2", t_consistency)
    check_pairs("co2", ("query", "key"), query, key, may_be_empty=False)
    if bank is not None:
        check_bank("co2", bank, query.shape[1])
    check_weights("co2", weights, query.shape[0])
    return alpha * weighted(divergences(query, key, bank, 1 / float(t_consistency)), weights).mean()


class CO2Regularizer(nn.Module):
    """CO2's term, to be added to a contrastive loss; see `co2`.

    Args:
        alpha: Weight of the term.
        t_consistency: Divides the similarities; > 0, no unit.
        memory_bank_size: (rows, columns) of a bank of negatives, such as (65536, 128); 0: the other images of the batch
            are the negatives.

    Raises:
        ValueError: t_consistency <= 0, or memory_bank_size is neither 0 nor two whole numbers.
        TypeError: t_consistency is no number.

    Differs from lightly's: it has a gradient (lightly's, built anew by torch.tensor, has none, and so changes no
    training), and the bank is updated only where the queries require a gradient, as NTXentLoss does, so a validation
    step leaves it as it is.
    Source: Wei et al., CO2, 2021, arXiv:2010.02217.

    >>> import torch
    >>> views = torch.eye(4)
    >>> CO2Regularizer()(views[:2], views[2:]).item()  # all alike
    0.0
    """

    def __init__(
        self, alpha: float = 1, t_consistency: float = 0.05, memory_bank_size: int | Sequence[int] = 0
    ) -> None:
        super().__init__()
        _check_temperature("CO2Regularizer", t_consistency)
        self.alpha = alpha
        self.t_consistency = t_consistency
        self.memory_bank = MemoryBankModule(size=memory_bank_size)

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        """The term, (), float32 (float64 for float64).

        Args:
            out0: Embeddings of the first views, (B, D), not normalized: the queries.
            out1: Embeddings of the second views, (B, D): the keys, which go into the bank.

        Raises:
            ValueError: Shapes differ, there is no row or column, or the width is not that of the bank.
            TypeError: An embedding is not of a floating-point type.
        """
        check_pairs("CO2Regularizer", ("out0", "out1"), out0, out1, may_be_empty=False)
        if self.memory_bank.size[0] == 0:
            return co2(out0, out1, None, self.alpha, self.t_consistency)
        self.memory_bank.check_columns(out1)
        term = co2(out0, out1, self.memory_bank.bank.to(out0.device), self.alpha, self.t_consistency)
        if out0.requires_grad:
            self.memory_bank.enqueue(nn.functional.normalize(out1.detach(), dim=1))
        return term

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, t_consistency={self.t_consistency}"


def _check_temperature(who: str, temperature: float) -> None:
    if not isinstance(temperature, (int, float)):
        raise TypeError(
            f"{who}: t_consistency={temperature!r} is a {type(temperature).__name__} and must be a number; write 0.05."
        )
    if not 0 < temperature < float("inf"):
        raise ValueError(f"{who}: t_consistency={temperature} must be > 0 and finite; write 0.05.")
