"""Heads and memory bank: structure and checkpoints as lightly's, and what a ring has to do."""

from __future__ import annotations

import inspect
from collections import deque
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import fastssl.models
from fastssl.models.modules import MemoryBankModule, NNMemoryBankModule, ProjectionHead, SimCLRProjectionHead

HEADS: list[dict[str, Any]] = [
    {},
    {"input_dim": 8, "hidden_dim": 6, "output_dim": 4},
    {"input_dim": 8, "hidden_dim": 6, "output_dim": 4, "num_layers": 3},
    {"input_dim": 8, "hidden_dim": 6, "output_dim": 4, "num_layers": 1, "batch_norm": False},
]


@pytest.mark.parametrize("arguments", HEADS)
def test_simclr_head_loads_checkpoints_of_lightly(arguments: dict[str, Any]) -> None:
    lightly = pytest.importorskip("lightly.models.modules.heads", reason="lightly is not installed")
    ours, theirs = SimCLRProjectionHead(**arguments), lightly.SimCLRProjectionHead(**arguments)
    assert [str(layer) for layer in ours.layers] == [str(layer) for layer in theirs.layers]
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(5, arguments.get("input_dim", 2048))
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("name", ["ProjectionHead", "SimCLRProjectionHead", "MemoryBankModule"])
def test_signatures_are_those_of_lightly(name: str) -> None:
    path = "memory_bank" if name == "MemoryBankModule" else "heads"
    lightly = pytest.importorskip(f"lightly.models.modules.{path}", reason="lightly is not installed")
    ours, theirs = (
        inspect.signature(c).parameters for c in (getattr(fastssl.models.modules, name), getattr(lightly, name))
    )
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]


def test_projection_head_has_a_bias_where_nothing_normalizes_or_where_told() -> None:
    head = ProjectionHead([(4, 3, nn.BatchNorm1d(3), nn.ReLU()), (3, 2, None, None), (2, 2, None, nn.ReLU(), False)])
    assert [layer.bias is not None for layer in head.layers if isinstance(layer, nn.Linear)] == [False, True, False]
    assert head(torch.randn(5, 4)).shape == (5, 2)


def test_block_of_wrong_length_is_named() -> None:
    with pytest.raises(ValueError, match=r"block \(4, 3\) has 2 entries and needs 4 or 5"):
        ProjectionHead([(4, 3)])  # type: ignore[list-item]


@settings(deadline=None)
@given(length=st.integers(1, 7), batches=st.lists(st.integers(0, 16), max_size=6))
def test_bank_holds_the_latest_rows_whatever_the_batches(length: int, batches: list[int]) -> None:
    bank, number = MemoryBankModule(size=(length, 1), feature_dim_first=False), 0
    latest: deque[float] = deque(bank.bank.flatten().tolist(), maxlen=length)
    for count in batches:
        before = bank.bank.clone()
        batch = torch.arange(number, number + count, dtype=torch.float32)[:, None]
        number += count
        output, rows = bank(batch, update=True)
        assert output is batch
        assert torch.equal(rows, before)  # as it was before this batch
        latest.extend(batch.flatten().tolist())
        oldest_first = bank.bank.roll(-int(bank.bank_ptr), dims=0).flatten().tolist()
        assert oldest_first == list(latest)


def test_bank_starts_with_unit_rows_and_returns_a_copy() -> None:
    bank = MemoryBankModule(size=(8, 3))
    torch.testing.assert_close(bank.bank.norm(dim=1), torch.ones(8))
    _, rows = bank(torch.randn(2, 3))
    assert rows.shape == (3, 8) and not rows.requires_grad
    rows.zero_()
    assert bank.bank.any()


def test_no_bank_returns_the_output_alone() -> None:
    bank, x = MemoryBankModule(size=0), torch.randn(2, 3)
    output, rows = bank(x, update=True)
    assert output is x and rows is None
    assert not bank.state_dict()


def test_bank_survives_a_checkpoint_and_lightly_has_none() -> None:
    bank = MemoryBankModule(size=(5, 2))
    bank(torch.randn(3, 2), update=True)
    other = MemoryBankModule(size=(5, 2))
    other.load_state_dict(bank.state_dict())
    assert torch.equal(other.bank, bank.bank) and torch.equal(other.bank_ptr, bank.bank_ptr)
    nn.Sequential(other).load_state_dict({})  # strict
    assert torch.equal(other.bank, bank.bank)
    with pytest.raises(RuntimeError, match="bank_ptr"):
        other.load_state_dict({"bank": bank.bank})


def test_bank_takes_checkpoints_of_columns_and_rows() -> None:  # as lightly and MoCo hand a bank out
    bank, theirs = MemoryBankModule(size=(5, 2)), torch.arange(10.0).view(2, 5)
    nn.ModuleDict({"memory": bank}).load_state_dict({"memory.bank": theirs, "memory.bank_ptr": torch.tensor([3])})
    assert torch.equal(bank.bank, theirs.t()) and bank.bank_ptr.item() == 3
    with pytest.raises(RuntimeError, match="size mismatch for bank"):
        bank.load_state_dict({"bank": torch.ones(3, 2), "bank_ptr": torch.tensor([3])})


@pytest.mark.parametrize("rows, columns", [(2, 3), (5, 3), (12, 3)])
def test_an_update_never_asks_for_a_value_of_the_pointer(rows: int, columns: int) -> None:
    """Tensors without values raise where the host asks for one."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        bank, neighbours = MemoryBankModule(size=(5, columns)), NNMemoryBankModule(size=(5, columns), k=2)
        bank(torch.randn(rows, columns), update=True)
        assert neighbours(torch.randn(rows, columns), update=True).shape == (rows, 2, columns)


def test_bank_takes_batches_of_any_floating_type() -> None:
    bank = MemoryBankModule(size=(4, 2), feature_dim_first=False)
    bank(torch.ones(2, 2, dtype=torch.bfloat16), update=True)
    assert bank.bank.dtype == torch.float32 and torch.equal(bank.bank[:2], torch.ones(2, 2))


@pytest.mark.parametrize("size", [5, -1, (5,), (5, -1), (5, 0), (5, 2, 1), (5.0, 2)])
def test_wrong_sizes_of_a_bank_are_errors(size: Any) -> None:
    with pytest.raises(ValueError, match=r"MemoryBankModule: size=.*write \(65536, 128\)"):
        MemoryBankModule(size=size)


def test_batch_of_another_width_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 3\) for a bank of size=\(5, 2\); they must be \(B, 2\)"):
        MemoryBankModule(size=(5, 2))(torch.ones(2, 3))


def test_names_of_the_package_exist() -> None:
    for module in (fastssl.models, fastssl.models.modules):
        assert all(hasattr(module, name) for name in module.__all__)
