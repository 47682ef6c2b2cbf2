"""Nearest neighbours in a memory bank: against a search of everything, lightly, and what is stored on the way."""

from __future__ import annotations

import inspect

import pytest
import torch
from conftest import devices, nothing_waits
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import rows
from loss_checks import LargestTensor
from torch import Tensor

from fastssl.models.modules import MemoryBankModule, NNMemoryBankModule, nearest_neighbours, nn_memory_bank


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Products this small take longer with two, which wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few queries and few rows of the bank at a time, neither a divisor of what the tests search."""
    monkeypatch.setattr(nn_memory_bank, "QUERIES_AT_ONCE", 3)
    monkeypatch.setattr(nn_memory_bank, "CPU_TILE", 21)
    monkeypatch.setattr(nn_memory_bank, "GPU_TILE", 21)


def cosines(query: Tensor, bank: Tensor) -> Tensor:
    """(B, M), float64."""
    q, b = query.double(), bank.double()
    return q @ b.T / (q.norm(dim=1, keepdim=True).clamp(min=1e-12) * b.norm(dim=1).clamp(min=1e-12))


@pytest.mark.parametrize("device", devices())
@pytest.mark.usefixtures("small_tiles")
@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(1, 8),
    size=st.integers(1, 40),
    width=st.integers(1, 6),
    k=st.integers(1, 9),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
)
def test_neighbours_are_the_greatest_of_all(
    device: str, count: int, size: int, width: int, k: int, seed: int, dtype: torch.dtype
) -> None:
    query, bank = rows(count, width, dtype, seed=seed, device=device), rows(size, width, seed=seed + 1, device=device)
    k = min(k, size)
    similarity, index = nearest_neighbours(query, bank, k)
    exact = cosines(query, bank)
    # A cosine of float32 rows is off by less than 2 eps; neighbours that are nearer to each other than that may change places.
    tolerance = 4 * torch.finfo(torch.float32).eps
    torch.testing.assert_close(similarity.double(), exact.topk(k, dim=1).values, rtol=0, atol=tolerance)
    torch.testing.assert_close(exact.gather(1, index), similarity.double(), rtol=0, atol=tolerance)
    assert all(len(set(found)) == k for found in index.tolist())
    assert similarity.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("device", devices())
@pytest.mark.usefixtures("small_tiles")
def test_of_equal_rows_the_first_counts(device: str) -> None:
    bank = torch.ones(40, 4, device=device)
    assert nearest_neighbours(torch.ones(7, 4, device=device), bank).rows.flatten().tolist() == [0] * 7


def test_rows_of_zeros_and_of_any_length_are_searched() -> None:
    bank = torch.tensor([[0.0, 0.0], [1e30, 0.0], [1e-3, 1e-3]])
    assert nearest_neighbours(torch.tensor([[1e30, 1e29], [2e-5, 2e-5]]), bank).rows.tolist() == [[1], [2]]
    assert nearest_neighbours(torch.zeros(1, 2), bank).similarity.item() == 0


@pytest.mark.parametrize("count", [1, 8, 256, 1500])
@pytest.mark.parametrize("tile", ["CPU_TILE", "GPU_TILE"])
def test_similarities_with_the_whole_bank_are_never_stored(
    count: int, tile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor a copy of it; few queries are no reason to store all of theirs."""
    monkeypatch.setattr(nn_memory_bank, "CPU_TILE", getattr(nn_memory_bank, tile))
    query, bank = rows(count, 16), rows(65_536, 16)
    with LargestTensor(query, bank) as largest:
        nearest_neighbours(query, bank, k=5)
    of_bank = nn_memory_bank.ROWS_AT_ONCE * bank.shape[1]
    most = max(of_bank, count * 16, min(count, 1024) * nn_memory_bank.ROWS_AT_ONCE)
    assert largest.elements <= most
    assert of_bank < bank.numel() and min(count, 1024) * nn_memory_bank.ROWS_AT_ONCE < count * len(bank)


def test_module_agrees_with_lightly_step_by_step() -> None:
    lightly = pytest.importorskip("lightly.models.modules.nn_memory_bank", reason="lightly is not installed")
    ours, theirs = NNMemoryBankModule((12, 5)), lightly.NNMemoryBankModule((12, 5))
    ours.bank.copy_(theirs.bank)
    for step in range(5):  # 4 rows at a time, so that the two agree where the ring closes
        output = rows(4, 5, seed=step)
        torch.testing.assert_close(ours(output, update=True), theirs(output, update=True), rtol=0, atol=0)
        torch.testing.assert_close(ours.bank, theirs.bank, rtol=0, atol=0)
        assert ours.bank_ptr.item() == theirs.bank_ptr.item()


def test_module_has_the_arguments_of_lightly_and_two_more() -> None:
    lightly = pytest.importorskip("lightly.models.modules.nn_memory_bank", reason="lightly is not installed")
    ours = inspect.signature(NNMemoryBankModule.__init__).parameters.values()
    shared = [(p.name, p.default) for p in ours if p.kind != p.KEYWORD_ONLY]
    theirs = inspect.signature(lightly.NNMemoryBankModule.__init__).parameters.values()
    assert shared == [(p.name, p.default) for p in theirs]
    forwards = [inspect.signature(c.forward).parameters for c in (NNMemoryBankModule, lightly.NNMemoryBankModule)]
    assert [list(p) for p in forwards[:1]] == [list(p) for p in forwards[1:]]
    assert issubclass(NNMemoryBankModule, MemoryBankModule)


def test_neighbours_are_of_the_bank_before_the_update_and_without_gradient() -> None:
    bank = NNMemoryBankModule(size=(3, 2))
    before = bank.bank.clone()
    output = rows(2, 2).requires_grad_()
    found = bank(output, update=True)
    assert not found.requires_grad
    assert torch.equal(found, before[cosines(output.detach(), before).argmax(dim=1)])
    torch.testing.assert_close(bank.bank[:2], output.detach())
    assert torch.equal(bank(output), output)  # now each is its own neighbour


def test_k_neighbours_come_nearest_first_in_the_type_of_the_output() -> None:
    bank = NNMemoryBankModule(size=(6, 3), k=4)
    output = rows(5, 3, torch.bfloat16)
    found = bank(output)
    assert found.shape == (5, 4, 3) and found.dtype == torch.bfloat16
    expected = bank.bank[cosines(output, bank.bank).topk(4, dim=1).indices]
    assert torch.equal(found, expected.bfloat16())


@pytest.mark.parametrize("device", devices()[-1:])
def test_on_a_gpu_nothing_is_waited_for(device: str) -> None:
    plain, nearest = MemoryBankModule(size=(50, 8)).to(device), NNMemoryBankModule(size=(50, 8), k=3).to(device)
    batches = [rows(count, 8, seed=count, device=device) for count in (7, 20, 60)]
    nearest(batches[0], update=True)  # loads what is loaded once
    with nothing_waits(device):
        for batch in batches:
            plain(batch, update=True)
            nearest(batch, update=True)
    torch.testing.assert_close(plain.bank.roll(-int(plain.bank_ptr), 0), batches[-1][-50:])


def test_search_keeps_the_contract_of_an_operator_and_compiles_without_a_graph_break() -> None:
    torch.library.opcheck(nn_memory_bank._search, (rows(4, 3), rows(9, 3, seed=1), 2))
    eager, compiled = NNMemoryBankModule(size=(7, 3), k=2), NNMemoryBankModule(size=(7, 3), k=2)
    compiled.load_state_dict(eager.state_dict())
    step = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    for seed in range(3):
        output = rows(4, 3, seed=seed)
        torch.testing.assert_close(step(output, update=True), eager(output, update=True))
    torch.testing.assert_close(compiled.bank, eager.bank)


@pytest.mark.parametrize(
    "query, bank, k, error, words",
    [
        (torch.ones(2, 3), torch.ones(4, 2), 1, ValueError, r"query has shape \(2, 3\), bank \(4, 2\)"),
        (torch.ones(3), torch.ones(4, 3), 1, ValueError, r"query has shape \(3,\)"),
        (torch.ones(2, 3), torch.ones(0, 3), 1, ValueError, r"bank \(0, 3\)"),
        (torch.ones(2, 3), torch.ones(4, 3), 5, ValueError, "k=5 must be a whole number from 1 to 4"),
        (torch.ones(2, 3), torch.ones(4, 3), 0, ValueError, "k=0 must be"),
        (torch.ones(2, 3).int(), torch.ones(4, 3), 1, TypeError, r"query is of type torch.int32.*query.float\(\)"),
        (torch.ones(2, 3), torch.ones(4, 3).int(), 1, TypeError, r"bank is of type torch.int32"),
    ],
)
def test_wrong_arguments_are_named(query: Tensor, bank: Tensor, k: int, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"nearest_neighbours: .*{words}"):
        nearest_neighbours(query, bank, k)


def test_a_bank_without_rows_or_with_too_few_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"NNMemoryBankModule: size=0 holds no row.*\(65536, 256\)"):
        NNMemoryBankModule(size=0)
    with pytest.raises(ValueError, match="NNMemoryBankModule: k=4 must be a whole number from 1 to 3"):
        NNMemoryBankModule(size=(3, 2), k=4)
    with pytest.raises(ValueError, match=r"they must be \(B, 2\)"):
        NNMemoryBankModule(size=(3, 2))(torch.ones(2, 3))
