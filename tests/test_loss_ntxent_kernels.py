"""NT-Xent of two views in two native calls, beside the same loss by `contrastive_sums` and plain torch after it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from conftest import devices
from loss_cases import rows
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastssl._native import _C
from fastssl.loss import NTXentLoss, _cuda, _two_views, ntxent
from fastssl.loss._eager import nothing_looks
from fastssl.loss._operators import contrastive_sums

HERE = [*devices()]  # "cpu": the kernels, compiled for the host
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
Views = tuple[Tensor, Tensor]


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda, "emulated_grid", _C.GridSize(multiprocessors=3, shared_bytes=228 * 1024))


class Seen(TorchDispatchMode):
    """A mode that changes nothing; where one is active, losses go through torch.library."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        return func(*args, **(kwargs or {}))


def pair(images: int, width: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Views:
    a = rows(images, width, torch.float32, 3)
    b = a + 0.5 * rows(images, width, torch.float32, 4)
    return tuple((5 * x).to(device, dtype).requires_grad_() for x in (a, b))  # type: ignore[return-value]


def in_general(a: Tensor, b: Tensor, temperature: Tensor | float) -> Tensor:
    """By way of contrastive_sums: weights are not for the native calls."""
    z = torch.cat([a, b])
    return ntxent(z, temperature, weights=torch.ones(len(z), device=z.device))


def by_views(a: Tensor, b: Tensor, temperature: Tensor | float) -> Tensor:
    return NTXentLoss(temperature)(a, b)


def by_rows(a: Tensor, b: Tensor, temperature: Tensor | float) -> Tensor:
    return ntxent(torch.cat([a, b]), temperature)


def results(loss: Callable[..., Tensor], views: Views, temperature: Tensor | float, times: float = 1) -> list[Tensor]:
    """Value and gradients."""
    learned = [temperature] if isinstance(temperature, Tensor) and temperature.requires_grad else []
    value = loss(*views, temperature)
    return [value, *torch.autograd.grad(times * value, [*views, *learned])]


def assert_alike(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        of_type = torch.finfo(b.dtype)
        eps = max(of_type.eps, 2e-6)
        atol = 2 * eps * float(b.detach().abs().max()) + 2 * of_type.smallest_normal * of_type.eps
        torch.testing.assert_close(a, b, rtol=2 * eps, atol=atol)


@pytest.fixture
def native_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Grows by a name at each of them."""
    calls: list[str] = []
    for name in ("_forward", "_backward"):
        function = getattr(_two_views, name)

        def counted(*arguments: Any, _name: str = name, _function: Any = function) -> Any:
            calls.append(_name)
            return _function(*arguments)

        monkeypatch.setattr(_two_views, name, functools.wraps(function)(counted))
    yield calls


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 3, 64, 100, 128, 200, 516, 700])
@pytest.mark.parametrize("images", [1, 2, 70, 150])
def test_value_and_gradients_are_those_in_general(
    images: int, width: int, dtype: torch.dtype, device: str, native_calls: list[str]
) -> None:
    views = pair(images, width, dtype, device)
    theirs = results(in_general, views, 0.1)
    assert native_calls == []
    for loss in (by_views, by_rows):
        assert_alike(results(loss, views, 0.1), theirs)
    assert native_calls == 2 * ["_forward", "_backward"]


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("t", [0.01, 0.5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_temperature_may_be_learned(dtype: torch.dtype, t: float, device: str) -> None:
    views, learned = pair(70, 20, dtype, device), torch.tensor(t, device=device, requires_grad=True)
    assert_alike(results(by_views, views, learned, 3.0), results(in_general, views, learned, 3.0))
    fixed = [x.detach() for x in views]
    grads = [torch.autograd.grad(loss(*fixed, learned), learned)[0] for loss in (by_views, in_general)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [128, 200])
def test_wide_kernels(width: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda, "emulated_grid", _C.GridSize(3, 228 * 1024, wide=True))
    views = pair(150, width, dtype)
    job, kept = _cuda._job(torch.cat(views), None, 1.0, None, None, 150, False, True, True)
    assert _C.ForwardPlan(job, _cuda.emulated_grid).wide
    del kept
    assert_alike(results(by_views, views, 0.1), results(in_general, views, 0.1))


@pytest.mark.parametrize("device", HERE)
def test_rows_may_lie_anywhere(device: str) -> None:
    memory = rows(40, 50).to(device)
    for a, b in (
        (memory[:9, :7], memory[20:29, 3:10]),
        (memory[:18:2, :8], memory[20:29, 8:16]),
        (memory[:9, :7].t(), memory[20:29, 3:10].t()),
        (memory[:1].expand(9, 50), memory[3:12]),
    ):
        views = (a.detach().requires_grad_(), b.detach().requires_grad_())
        assert views[0].stride() == a.stride()
        packed = [x.detach().clone(memory_format=torch.contiguous_format).requires_grad_() for x in views]
        for ours, theirs in zip(results(by_views, views, 0.2), results(by_views, tuple(packed), 0.2), strict=True):  # type: ignore[arg-type]
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("device", HERE)
def test_rows_of_both_views_may_lie_anywhere(device: str) -> None:
    memory = rows(40, 50).to(device)
    for z in (memory[:18:2, :8][:8], memory[4:24, 3:10], memory[:8, :10].t(), memory[:1].expand(8, 50)):
        views = z.detach().requires_grad_(), z.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        assert views[0].stride() == z.stride()
        found = []
        for view in views:
            value = ntxent(view, 0.2)
            found.append([value.detach(), *torch.autograd.grad(value, view)])
        for ours, theirs in zip(*found, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("device", HERE)
def test_a_negated_view_is_no_other(device: str) -> None:
    a, b = pair(20, 12, device=device)
    negated = torch._neg_view(a.detach())
    assert negated.is_neg()
    with torch.no_grad():
        torch.testing.assert_close(by_views(negated, b, 0.1), by_views(-a, b, 0.1))


@pytest.mark.parametrize("device", HERE)
def test_a_view_of_inference_mode(device: str) -> None:
    a, b = pair(20, 12, device=device)
    with torch.inference_mode():
        frozen = a.clone()
    assert torch.equal(
        torch.autograd.grad(by_views(frozen, b, 0.1), b)[0], torch.autograd.grad(by_views(a.detach(), b, 0.1), b)[0]
    )


@pytest.mark.parametrize("device", HERE)
def test_a_default_device_changes_nothing(device: str) -> None:
    views = pair(20, 12, device=device)
    expected = results(by_views, views, 0.1)
    with torch.device("meta"), torch.device("cpu"):
        assert nothing_looks(*views)
        found = results(by_views, views, 0.1)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # torch 2.11's own
@pytest.mark.parametrize("device", HERE)
def test_compiled_autograd_after_an_eager_forward(device: str) -> None:
    a, b = pair(40, 24, device=device)
    expected = torch.autograd.grad(by_views(a, b, 0.1), (a, b))
    value = by_views(a, b, 0.1)
    with torch._dynamo.compiled_autograd._enable(lambda graph: torch.compile(graph, backend="eager")):
        value.backward()
    for ours, theirs in zip((a.grad, b.grad), expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("device", HERE)
def test_one_view_alone_may_want_a_gradient(device: str) -> None:
    a, b = pair(20, 12, device=device)
    of_a, of_b = torch.autograd.grad(by_views(a, b, 0.1), (a, b))
    assert torch.equal(torch.autograd.grad(by_views(a, b.detach(), 0.1), a)[0], of_a)
    assert torch.equal(torch.autograd.grad(by_views(a.detach(), b, 0.1), b)[0], of_b)
    twice = a.detach().requires_grad_()
    torch.testing.assert_close(
        torch.autograd.grad(by_views(twice, twice, 0.1), twice),
        torch.autograd.grad(in_general(twice, twice, 0.1), twice),
        rtol=1e-5,
        atol=1e-7,
    )


@pytest.mark.parametrize("device", HERE)
def test_a_graph_may_be_gone_through_twice(device: str) -> None:
    views = pair(70, 130, torch.bfloat16, device)
    value = by_views(*views, 0.1)
    once = torch.autograd.grad(value, views, retain_graph=True)
    again = torch.autograd.grad(value, views)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


@pytest.mark.parametrize("device", HERE)
def test_gradients_accumulate_and_take_what_comes_in(device: str) -> None:
    a, b = pair(20, 12, device=device)
    want = torch.autograd.grad(by_views(a, b, 0.1), (a, b))
    by_views(a, b, 0.1).backward()
    (2 * by_views(a, b, 0.1)).backward()
    for view, grad in zip((a, b), want, strict=True):
        assert view.grad is not None
        torch.testing.assert_close(view.grad, 3 * grad, rtol=1e-6, atol=1e-9)
    (grad,) = torch.autograd.grad(by_views(a, b, 0.1) * 0, a)
    assert (grad == 0).all()
    (grad,) = torch.autograd.grad(by_views(a, b, 0.1) * float("inf"), a)
    assert not grad.isfinite().all()  # a GradScaler must see it


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("which", [0, 1])
def test_rows_changed_before_the_backward_pass_are_an_error(which: int, device: str) -> None:
    views = [x.detach().clone().requires_grad_() for x in pair(5, 4, device=device)]
    value = by_views(*views, 0.1)
    with torch.no_grad():
        views[which].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


@pytest.mark.parametrize("device", HERE)
def test_small_losses_keep_their_relative_accuracy(device: str) -> None:
    a = torch.eye(16, 16, device=device).requires_grad_()
    b = torch.eye(16, 16, device=device).requires_grad_()
    value = by_views(a, b, 0.05)
    want = torch.log1p(torch.tensor(30.0, dtype=torch.float64) * torch.tensor(-20.0, dtype=torch.float64).exp())
    torch.testing.assert_close(value.double().cpu(), want, rtol=1e-5, atol=0)
    assert_alike(list(torch.autograd.grad(value, (a, b))), results(in_general, (a, b), 0.05)[1:])


@pytest.mark.parametrize("device", HERE)
def test_not_a_number_stays_one(device: str) -> None:
    a, b = (x.detach().clone() for x in pair(20, 12, device=device))
    a[3, 2] = float("nan")
    a.requires_grad_()
    value = by_views(a, b, 0.1)
    assert value.isnan() and torch.autograd.grad(value, a)[0].isnan().all()


@pytest.mark.parametrize("device", HERE)
def test_second_derivatives_are_refused(device: str) -> None:
    a, b = pair(5, 4, device=device)
    (grad,) = torch.autograd.grad(by_views(a, b, 0.1), a, create_graph=True)
    assert torch.equal(grad, torch.autograd.grad(by_views(a, b, 0.1), a)[0])
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        grad.sum().backward()


@pytest.mark.parametrize("device", HERE)
def test_without_gradients_and_under_autocast_the_value_is_the_same(device: str) -> None:
    a, b = pair(20, 12, torch.bfloat16, device)
    want = results(by_views, (a, b), 0.1)
    with torch.no_grad():
        assert torch.equal(by_views(a, b, 0.1), want[0])
    with torch.inference_mode():
        assert torch.equal(by_views(a, b, 0.1), want[0])
    with torch.autocast(device, dtype=torch.bfloat16):
        assert all(torch.equal(x, y) for x, y in zip(results(by_views, (a, b), 0.1), want, strict=True))


def test_torch_allocates_and_does_nothing_else() -> None:
    """No operation of torch's runs between the rows and their gradients."""
    views = pair(20, 12, torch.bfloat16)
    ones = torch.ones(())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        torch.autograd.grad(by_views(*views, 0.1), views, ones)
    events = profile.events()
    assert events is not None
    passes = [event for event in events if event.name in ("_TwoViews", "_TwoViewsBackward")]
    operations = [event.name for own in passes for event in own.cpu_children]
    assert operations == 3 * ["aten::empty"] + 2 * ["aten::empty_like"] + ["aten::empty"]


def test_saved_tensors_are_the_rows_and_what_the_products_take() -> None:
    views = pair(200, 128, torch.bfloat16)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        value = by_views(*views, 0.1)
    torch.autograd.grad(value, views)
    assert [x.data_ptr() for x in kept[:2]] == [x.data_ptr() for x in views]
    assert sum(x.nbytes for x in kept[2:]) <= 512 * (128 * 2 + 24) + 4096


# What looks at calls


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")  # torch.func's own
def test_what_looks_gets_the_operators(native_calls: list[str]) -> None:
    a, b = pair(6, 4)
    want = results(by_views, (a, b), 0.1)
    native_calls.clear()
    assert nothing_looks(a, None, torch.nn.Parameter(a))
    with Seen():
        assert not nothing_looks(a)
        assert_alike(results(by_views, (a, b), 0.1), want)
    compiled = torch.compile(lambda x, y: by_views(x, y, 0.1), fullgraph=True, backend="aot_eager")
    value = compiled(a, b)
    assert_alike([value, *torch.autograd.grad(value, (a, b))], want)
    assert not torch.func.grad(lambda x: (x if nothing_looks(x) else 0 * x).sum())(torch.ones(3)).any()
    with torch._subclasses.FakeTensorMode() as mode:
        assert by_views(mode.from_tensor(a), mode.from_tensor(b), 0.1).shape == ()
    with pytest.raises(NotImplementedError, match="forward mode"):
        torch.func.jvp(lambda x: by_views(x, b.detach(), 0.1), (a.detach(),), (b.detach(),))
    assert native_calls == []


@pytest.mark.parametrize("positive, columns", [(None, False), (1, False), (2, True)])
@pytest.mark.parametrize("needs_key", [False, True])
@pytest.mark.parametrize("kernels_take_it", [False, True])
def test_sums_past_the_operators_are_the_same_bits(
    positive: int | None,
    columns: bool,
    needs_key: bool,
    kernels_take_it: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not kernels_take_it:
        monkeypatch.setattr(_cuda, "emulated_grid", None)
    query, key, scale = rows(7, 5).requires_grad_(), rows(9, 5, seed=1).requires_grad_(needs_key), torch.tensor(9.0)
    scale.requires_grad_()
    inputs = [query, scale, *([key] if needs_key else [])]

    def run() -> list[Tensor]:
        sums = contrastive_sums(query, key, scale, positive=positive, columns=columns)
        return [*sums, *torch.autograd.grad([part.sum() for part in sums if len(part)], inputs)]

    past = run()
    with Seen():
        through = run()
    assert all(torch.equal(a, b) for a, b in zip(past, through, strict=True))


def test_sums_whose_gradient_is_of_positives_alone() -> None:
    query, key = rows(7, 5).requires_grad_(), rows(9, 5, seed=1).requires_grad_()

    def run() -> tuple[Tensor, ...]:
        sums = contrastive_sums(query, key, 9.0, positive=1, columns=True)
        return torch.autograd.grad(sums.positives.sum(), (query, key))

    past = run()
    with Seen():
        through = run()
    for a, b in zip(past, through, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="graphs are of a GPU")
@pytest.mark.parametrize("learned", [False, True])
def test_a_cuda_graph_holds_both_passes(learned: bool) -> None:
    """And reads the rows, and a temperature in a tensor, anew at each replay."""
    static = pair(300, 128, torch.bfloat16, "cuda")
    temperature: Any = torch.tensor(0.1, device="cuda", requires_grad=True) if learned else 0.1
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            results(by_views, static, temperature)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        # Without the value's history, which would hold on to the capturing stream.
        captured = [result.detach() for result in results(by_views, static, temperature)]
    for seed, t in ((11, 0.1), (12, 0.3)):
        with torch.no_grad():
            for view in static:
                view.copy_(rows(300, 128, torch.bfloat16, seed, "cuda"))
            if learned:
                temperature.fill_(t)
        graph.replay()
        for ours, wanted in zip(captured, results(by_views, static, temperature), strict=True):
            assert torch.equal(ours, wanted)
