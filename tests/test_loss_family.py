"""InfoNCE, SupCon, CLIP, SigLIP and NNCLR of one process: against their definitions, plain torch and the compiler."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import reference_losses as reference
import torch
from conftest import Emulated, devices, devices_and_kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import TYPES, assert_as_exact_as_plain, embeddings, gradient, rows, temperatures, widths
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from fastssl.loss import (
    CLIPLoss,
    NTXentLoss,
    SigLIPLoss,
    SupConLoss,
    _tiles,
    clip_loss,
    info_nce,
    nnclr,
    ntxent,
    siglip_loss,
    supcon,
)

HERE = ["cpu", pytest.param(Emulated("cpu"), id="emulated")]
KERNELS = [
    pytest.param(Emulated("cpu"), id="emulated"),
    pytest.param(Emulated("cpu", wide=True), id="emulated-wide"),
    devices()[-1],
]
counts = st.integers(1, 10)
small = st.integers(1, 20)
large = st.sampled_from([255, 257, 515])
biases = st.sampled_from([-10.0, -1.0, 0.0, 3.0])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Products this small take longer with two, which wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles so small that a few rows make many of them."""
    monkeypatch.setattr(_tiles, "CPU_TILE", (3, 6))
    monkeypatch.setattr("fastssl.loss._pairs.SMALL_MATRIX", 0)
    monkeypatch.setattr(_tiles, "GPU_TILE", (3, 6))


def on_cpu(exact: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The loops, away from a device that would take a launch for every pair."""
    return lambda *inputs: exact(*[x.cpu() for x in inputs]).to(inputs[0].device)


def two_towers(data: st.DataObject, count: int, width: int, device: str, dtype: torch.dtype) -> list[Tensor]:
    towers = [data.draw(embeddings(st.just(count), st.just(width))) for _ in range(2)]
    if data.draw(st.booleans()):  # as after training: each close to its partner, and the loss small
        towers[1] = towers[0] + 0.01 * towers[1]
    return [tower.clamp(-6e4, 6e4).to(device=device, dtype=dtype) for tower in towers]


@pytest.mark.parametrize("device", devices_and_kernels())
@pytest.mark.parametrize("dtype", TYPES)
@settings(deadline=None, max_examples=15)
@given(data=st.data(), count=counts, width=small, t=temperatures, size=st.integers(1, 30), seed=st.integers(0, 2**31))
def test_infonce_with_a_bank_is_as_exact_as_plain_torch(
    device: str, dtype: torch.dtype, data: st.DataObject, count: int, width: int, t: float, size: int, seed: int
) -> None:
    bank = torch.nn.functional.normalize(rows(size, width, seed=seed), dim=1).to(device)
    assert_as_exact_as_plain(
        lambda q, k, t: info_nce(q, k, bank, t),
        lambda q, k, t: reference.plain_infonce(q, k, bank, t),
        on_cpu(lambda q, k, t: reference.infonce(q, k, bank.double().cpu(), t)),
        [*two_towers(data, count, width, device, dtype), torch.tensor(t, dtype=dtype, device=device)],
        1 / t,
    )


@pytest.mark.parametrize("loss", [info_nce, nnclr])
@pytest.mark.parametrize("device", devices_and_kernels())
@pytest.mark.parametrize("dtype", TYPES)
@settings(deadline=None, max_examples=10)
@given(data=st.data(), count=counts, width=small, t=temperatures)
def test_infonce_of_a_batch_is_as_exact_as_plain_torch(
    loss: Callable[..., Tensor],
    device: str,
    dtype: torch.dtype,
    data: st.DataObject,
    count: int,
    width: int,
    t: float,
) -> None:
    weights = rows(1, count, seed=1)[0].abs()
    assert_as_exact_as_plain(
        lambda q, k, t: loss(q, k, temperature=t, weights=weights.to(device)),
        lambda q, k, t: reference.plain_infonce_of_batch(q, k, t, weights.to(device)),
        on_cpu(lambda q, k, t: reference.infonce_of_batch(q, k, t, weights)),
        [*two_towers(data, count, width, device, dtype), torch.tensor(t, dtype=dtype, device=device)],
        1 / t,
    )


@pytest.mark.parametrize("device", devices_and_kernels())
@pytest.mark.parametrize("dtype", TYPES)
@settings(deadline=None, max_examples=15)
@given(data=st.data(), z=embeddings(counts, small), t=temperatures, classes=st.integers(1, 20))
def test_supcon_is_as_exact_as_plain_torch(
    device: str, dtype: torch.dtype, data: st.DataObject, z: Tensor, t: float, classes: int
) -> None:
    seed = data.draw(st.integers(0, 2**31))
    labels = torch.randint(-classes, classes, (len(z),), generator=torch.Generator().manual_seed(seed))
    weights = rows(1, len(z), seed=1)[0].abs() if data.draw(st.booleans()) else None
    there = None if weights is None else weights.to(device)
    assert_as_exact_as_plain(
        lambda x, t: supcon(x, labels.to(device), t, there),
        lambda x, t: reference.plain_supcon(x, labels.to(device), t, there),
        on_cpu(lambda x, t: reference.supcon(x, labels, t, weights)),
        [z.to(device=device, dtype=dtype), torch.tensor(t, dtype=dtype, device=device)],
        1 / t,
    )


@pytest.mark.parametrize("device", devices_and_kernels())
@pytest.mark.parametrize("dtype", TYPES)
@settings(deadline=None, max_examples=15)
@given(data=st.data(), count=counts, width=small, t=temperatures)
def test_clip_is_as_exact_as_plain_torch(
    device: str, dtype: torch.dtype, data: st.DataObject, count: int, width: int, t: float
) -> None:
    weights = rows(1, count, seed=1)[0].abs() if data.draw(st.booleans()) else None
    there = None if weights is None else weights.to(device)
    assert_as_exact_as_plain(
        lambda x, y, scale: clip_loss(x, y, scale, there),
        lambda x, y, scale: reference.plain_clip(x, y, scale, there),
        on_cpu(lambda x, y, scale: reference.clip(x, y, scale, weights)),
        [*two_towers(data, count, width, device, dtype), torch.tensor(1 / t, dtype=dtype, device=device)],
        1 / t,
    )


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", TYPES)
@settings(deadline=None, max_examples=15)
@given(data=st.data(), count=counts, width=small, t=temperatures, bias=biases)
def test_siglip_is_as_exact_as_plain_torch(
    device: str, dtype: torch.dtype, data: st.DataObject, count: int, width: int, t: float, bias: float
) -> None:
    weights = rows(1, count, seed=1)[0].abs() if data.draw(st.booleans()) else None
    there = None if weights is None else weights.to(device)
    numbers = [torch.tensor(number, dtype=dtype, device=device) for number in (1 / t, bias)]
    assert_as_exact_as_plain(
        lambda x, y, scale, bias: siglip_loss(x, y, scale, bias, there),
        lambda x, y, scale, bias: reference.plain_siglip(x, y, scale, bias, there),
        on_cpu(lambda x, y, scale, bias: reference.siglip(x, y, scale, bias, weights)),
        [*two_towers(data, count, width, device, dtype), *numbers],
        1 / t + abs(bias),
        terms=count,
    )


# Ours and plain torch, of two towers and a scale.
LARGE: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "info_nce": (lambda x, y, s: info_nce(x, y, temperature=1 / s), lambda x, y, s: _batch(x, y, s)),
    "bank": (
        lambda x, y, s: info_nce(x, y, _bank(x), 1 / s),
        lambda x, y, s: reference.plain_infonce(x, y, _bank(x), 1 / s),
    ),
    "supcon": (
        lambda x, y, s: supcon(torch.cat([x, y]), _labels(x), 1 / s),
        lambda x, y, s: reference.plain_supcon(torch.cat([x, y]), _labels(x), 1 / s),
    ),
    "clip": (clip_loss, reference.plain_clip),
    "siglip": (
        lambda x, y, s: siglip_loss(x, y, s, -10.0),
        lambda x, y, s: reference.plain_siglip(x, y, s, -10.0),
    ),
}


def _bank(x: Tensor) -> Tensor:
    """Unit rows, half a tile of a CPU's more than there are queries."""
    keys = rows(len(x) + _tiles.CPU_TILE[1] // 2, x.shape[1], seed=7)
    return torch.nn.functional.normalize(keys, dim=1).to(x.device)


def _batch(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    return reference.plain_infonce_of_batch(x, y, 1 / scale)


def _labels(x: Tensor) -> Tensor:
    return (torch.arange(2 * len(x), device=x.device) ** 2) % 37


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", TYPES)
@settings(deadline=None, max_examples=2)
@given(data=st.data(), count=large, width=widths, t=temperatures)
def test_losses_over_many_tiles_are_as_exact_as_plain_torch(
    name: str, device: str, dtype: torch.dtype, data: st.DataObject, count: int, width: int, t: float
) -> None:
    compare_with_plain(name, *two_towers(data, count, width, device, dtype), t)


def compare_with_plain(name: str, x: Tensor, y: Tensor, t: float) -> None:
    """The exact values are those of plain torch in float64."""
    loss, plain = LARGE[name]
    bias, terms = (10, len(x)) if name == "siglip" else (0, 1)
    inputs = [x, y, torch.tensor(1 / t, dtype=x.dtype, device=x.device)]
    assert_as_exact_as_plain(loss, plain, plain, inputs, 1 / t + bias, terms)


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("count, width, t", [(1031, 1030, 0.1), (1031, 33, 0.01), (1537, 129, 0.1)])
def test_losses_of_large_batches_are_as_exact_as_plain_torch(
    name: str, device: str, dtype: torch.dtype, count: int, width: int, t: float
) -> None:
    """On a CPU, three or four rows of tiles, and of the bank's 1,543 or 2,049 keys two or three columns."""
    x, y = (rows(count, width, torch.float64, seed=seed) for seed in (1, 2))
    if t == 0.01:  # as after training
        y = x + 0.01 * y
    # In every row of tiles: as `embeddings` makes them.
    x[3], x[520], x[1030], y[600] = 0, 1e3 * x[520], -x[5], 1e-3 * y[600]
    compare_with_plain(name, x.to(device, dtype), y.to(device, dtype), t)


@pytest.mark.parametrize("name", [name for name in LARGE if name != "siglip"])  # which has no kernels
@pytest.mark.parametrize("device", KERNELS)
@pytest.mark.parametrize("dtype", [dtype for dtype in TYPES if dtype != torch.float64])
@settings(deadline=None, max_examples=4)
@given(data=st.data(), count=counts, width=st.sampled_from([66, 128, 200, 256, 257, 300]), t=temperatures)
def test_kernels_of_all_widths_are_as_exact_as_plain_torch(
    name: str, device: str, dtype: torch.dtype, data: st.DataObject, count: int, width: int, t: float
) -> None:
    """The kernels by wgmma take rows of 16 bits: of 65 to 128 and of 193 to 256 dimensions, and beyond, for gradients alone."""
    compare_with_plain(name, *two_towers(data, count, width, device, dtype), t)


@pytest.mark.parametrize("t", [0.01, 0.1])
@pytest.mark.usefixtures("small_tiles")
def test_gradients_are_those_of_finite_differences(t: float) -> None:
    x, y = (rows(7, 3, torch.float64, seed=seed).requires_grad_() for seed in (1, 2))
    bank = rows(13, 3, torch.float64, seed=3).requires_grad_()
    number, bias = (torch.tensor(v, dtype=torch.float64).requires_grad_() for v in (t, -0.5))
    weights = rows(1, 7, torch.float64, seed=4)[0]
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 3])
    check = torch.autograd.gradcheck
    assert check(lambda x, y, t: info_nce(x, y, None, t, weights), (x, y, number))
    assert check(lambda x, y, bank, t: info_nce(x, y, bank, t, weights), (x, y, bank, number))
    assert check(lambda x, y, t: info_nce(x, y, bank.detach(), t, weights), (x, y, number))
    assert check(lambda x, t: supcon(x, labels, t, weights), (x, number))
    assert check(lambda x, y, t: clip_loss(x, y, 1 / t, weights), (x, y, number))
    assert check(lambda x, y, t, b: siglip_loss(x, y, 1 / t, b, weights), (x, y, number, bias))


@pytest.mark.parametrize("t", [0.01, 0.1])
@pytest.mark.usefixtures("small_tiles")
def test_infonce_does_not_depend_on_tiles_nor_on_the_length_of_the_bank_rows(t: float) -> None:
    query, key, bank = (rows(n, 6, torch.float64, seed=n) for n in (8, 8, 23))
    query, key = query, query + 0.1 * key
    for scale in (1.0, 30.0):
        ours = gradient(lambda q, k, s=scale: info_nce(q, k, s * bank, t), query, key)
        exact = gradient(lambda q, k, s=scale: reference.infonce(q, k, s * bank, t), query, key)
        for a, b in zip(ours, exact, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("device", devices_and_kernels())
def test_a_bank_may_change_before_the_backward_pass(device: str) -> None:
    query = rows(4, 3, device=device).requires_grad_()
    key, bank = rows(4, 3, seed=1, device=device), rows(9, 3, seed=2, device=device)
    (expected,) = torch.autograd.grad(info_nce(query, key, bank.clone()), query)
    value = info_nce(query, key, bank)
    bank.zero_()
    torch.testing.assert_close(torch.autograd.grad(value, query)[0], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "loss, by_definition",
    [
        (lambda x, y: info_nce(x, y, temperature=0.05), lambda x, y: reference.infonce_of_batch(x, y, 0.05)),
        (lambda x, y: clip_loss(x, y, 20.0), lambda x, y: reference.clip(x, y, 20.0)),
        (lambda x, y: siglip_loss(x, y, 40.0, -20.0), lambda x, y: reference.siglip(x, y, 40.0, -20.0)),
    ],
)
def test_small_losses_keep_their_relative_accuracy(
    loss: Callable[..., Tensor], by_definition: Callable[..., Tensor]
) -> None:
    x, y = torch.eye(8), torch.eye(8) + 0.01 * rows(8, 8)
    value, *grads = gradient(loss, x, y)
    exact, *exact_grads = gradient(by_definition, x.double(), y.double())
    assert exact < 1e-6  # plain float32 has no digit left here
    eps_of_logit = torch.finfo(torch.float32).eps * 40
    assert abs(value - exact) <= 4 * eps_of_logit * exact
    for ours, truth in zip(grads, exact_grads, strict=True):
        assert (ours - truth).abs().max() <= 4 * eps_of_logit * truth.abs().max()


def test_supcon_of_views_alone_is_ntxent() -> None:
    views = rows(12, 5)
    for number in (2, 3):
        labels = torch.arange(12 // number).repeat(number)
        for a, b in zip(
            gradient(lambda z, y=labels: supcon(z, y, 0.1), views),
            gradient(lambda z, v=number: ntxent(z, 0.1, v), views),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)  # one has the positive in its sum, the other not


def test_supcon_takes_views_beside_each_other() -> None:
    features, labels = rows(12, 5).view(4, 3, 5), torch.tensor([0, 1, 0, 2])
    loss = SupConLoss(0.1)
    torch.testing.assert_close(loss(features, labels), loss(features.flatten(0, 1), labels.repeat_interleave(3)))
    torch.testing.assert_close(loss(features), ntxent(features.transpose(0, 1).flatten(0, 1), 0.1, views=3))


def test_a_label_of_its_own_has_neither_loss_nor_pull() -> None:
    value, grad = gradient(lambda z: supcon(z, torch.arange(4), 0.1), rows(4, 3))
    assert value == 0
    assert not grad.any()


@pytest.mark.parametrize("labels", [torch.tensor([3, 3, 5], dtype=torch.uint8), torch.tensor([True, True, False])])
def test_labels_may_be_of_any_integer_type(labels: Tensor) -> None:
    assert supcon(rows(3, 4), labels) == supcon(rows(3, 4), labels.long())


def test_modules_learn_their_own_scale_and_bias() -> None:
    x, y = rows(6, 4), rows(6, 4, seed=1)
    clip, siglip = CLIPLoss(init_logit_scale=2.0), SigLIPLoss(init_logit_scale=1.0, init_logit_bias=-3.0)
    assert clip(x, y) == clip_loss(x, y, torch.tensor(2.0).exp())
    assert siglip(x, y) == siglip_loss(x, y, torch.tensor(1.0).exp(), -3.0)
    assert clip(x, y) == CLIPLoss()(x, y, torch.tensor(2.0).exp())
    assert siglip(x, y) == SigLIPLoss()(x, y, torch.tensor(1.0).exp(), -3.0)
    (clip(x, y) + siglip(x, y)).backward()
    for parameter in (*clip.parameters(), *siglip.parameters()):
        assert parameter.shape == () and parameter.grad is not None and parameter.grad.isfinite()


def test_a_scale_that_reached_its_bound_can_leave_it() -> None:
    x, loss = torch.eye(4), CLIPLoss(init_logit_scale=9.0)
    y = x.roll(1, dims=0)  # all pairs wrong: a smaller scale is better
    value = loss(x, y)
    assert value.item() == pytest.approx(clip_loss(x, y, 100.0).item(), rel=1e-5)
    value.backward()
    assert loss.logit_scale is not None and loss.logit_scale.grad is not None
    assert loss.logit_scale.item() == pytest.approx(math.log(100))
    assert loss.logit_scale.grad.item() == pytest.approx(100, rel=1e-5)  # of 100 (0 - 1) + log(3 + exp 100), by log 100
    with torch.inference_mode():
        assert loss(x, y) == value


@pytest.mark.parametrize("make", [SupConLoss, NTXentLoss])
def test_a_temperature_may_be_a_parameter(make: Callable[[Any], nn.Module]) -> None:
    loss = make(nn.Parameter(torch.tensor(0.2)))
    assert [name for name, _ in loss.named_parameters()] == ["temperature"]
    x, y = rows(6, 4), rows(6, 4, seed=1)
    arguments = (x, torch.arange(6) % 2) if make is SupConLoss else (x, y)
    loss(*arguments).backward()
    assert loss.temperature.grad.isfinite()
    torch.testing.assert_close(loss(*arguments), make(0.2)(*arguments))


CALLS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "ntxent": lambda x, y, t: ntxent(torch.cat([x, y]), t),
    "three views": lambda x, y, t: ntxent(torch.cat([x, y, x + y]), t, views=3),
    "info_nce": lambda x, y, t: info_nce(x, y, temperature=t),
    "bank": lambda x, y, t: info_nce(x, y, torch.eye(x.shape[1], dtype=x.dtype), t),
    "nnclr": lambda x, y, t: nnclr(x, y, t),
    "supcon": lambda x, y, t: supcon(torch.cat([x, y]), torch.arange(2 * len(x)) % 3, t),
    "clip": lambda x, y, t: clip_loss(x, y, 1 / t),
    "siglip": lambda x, y, t: siglip_loss(x, y, 1 / t, -2.0),
}
calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@calls
def test_autocast_changes_nothing(call: Callable[..., Tensor]) -> None:
    inputs = rows(8, 4), rows(8, 4, seed=1), torch.tensor(0.1)
    plain = gradient(call, *inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = gradient(call, *inputs)
    for a, b in zip(plain, cast, strict=True):
        assert torch.equal(a, b)


@calls
@pytest.mark.parametrize("dtype", TYPES)
def test_value_is_float32_and_gradients_are_of_the_input_type(call: Callable[..., Tensor], dtype: torch.dtype) -> None:
    value, *grads = gradient(call, rows(8, 4, dtype), rows(8, 4, dtype, seed=1), torch.tensor(0.1))
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert value.shape == ()
    assert [grad.dtype for grad in grads] == [dtype, dtype, torch.float32]


@calls
@pytest.mark.parametrize("dtype", TYPES)
def test_a_temperature_may_be_of_any_type(call: Callable[..., Tensor], dtype: torch.dtype) -> None:
    x, y, t = rows(8, 4), rows(8, 4, seed=1), torch.tensor(0.125, dtype=dtype)  # and 8, exact in all
    value, _, _, grad = gradient(call, x, y, t)
    same, _, _, same_grad = gradient(call, x, y, t.float())
    assert value == same and grad.dtype == dtype
    torch.testing.assert_close(grad.float(), same_grad, rtol=2 * torch.finfo(dtype).eps, atol=0)


@calls
def test_second_derivatives_are_refused(call: Callable[..., Tensor]) -> None:
    x = rows(8, 4).requires_grad_()
    (grad,) = torch.autograd.grad(call(x, rows(8, 4, seed=1), torch.tensor(0.1)), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        grad.sum().backward()


@pytest.mark.filterwarnings("ignore:.torch.jit.script.:FutureWarning")  # torch.func's own
@calls
def test_derivatives_in_forward_mode_are_refused(call: Callable[..., Tensor]) -> None:
    x, y, t = rows(8, 4), rows(8, 4, seed=1), torch.tensor(0.1)
    for inputs, others in ((x, lambda x: call(x, y, t)), (y, lambda y: call(x, y, t)), (t, lambda t: call(x, y, t))):
        with pytest.raises(NotImplementedError, match="forward mode"):
            torch.func.jvp(others, (inputs,), (torch.ones_like(inputs),))


@calls
@pytest.mark.parametrize("dtype", TYPES)
def test_rows_of_zeros_have_finite_gradients(call: Callable[..., Tensor], dtype: torch.dtype) -> None:
    """Also where a gradient is the sum of several operators' and each is the largest that float16 leaves them."""
    x, y = rows(8, 4, dtype), rows(8, 4, dtype, seed=1)
    x[2] = 0
    _, grad, _, _ = gradient(call, x, y, torch.tensor(0.01))
    assert grad.isfinite().all()
    assert grad[2].any()


@pytest.mark.parametrize("first", TYPES)
@pytest.mark.parametrize("second", TYPES)
@pytest.mark.parametrize("name", ["info_nce", "bank", "nnclr", "clip", "siglip"])
@pytest.mark.parametrize("device", HERE)
def test_the_two_sides_may_be_of_unlike_types(name: str, first: torch.dtype, second: torch.dtype, device: str) -> None:
    call, t = CALLS[name], torch.tensor(0.5)
    x, y = rows(8, 4, first, device=device), rows(8, 4, second, seed=1, device=device)
    value, grad_x, grad_y, _ = gradient(call, x, y, t)
    exact, exact_x, exact_y, _ = gradient(call, x.double(), y.double(), t)
    # float32 at least, but that kernels round unit rows of 16 bits, and their partners', to float16: two of each logit.
    by_halves = isinstance(device, Emulated) and {first, second} & {torch.float16, torch.bfloat16}
    of_logit = torch.finfo(torch.float16).eps / t.item() if by_halves else 0
    torch.testing.assert_close(value.double(), exact, rtol=1e-6, atol=2 * of_logit)
    for ours, truth, dtype in ((grad_x, exact_x, first), (grad_y, exact_y, second)):
        assert ours.dtype == dtype
        # Roundings of the operators' gradients, which are added: three of them in info_nce with a bank.
        eps = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps, of_logit)
        assert (ours.double() - truth).abs().max() <= 4 * eps * truth.abs().max()


@calls
def test_gradients_accumulate(call: Callable[..., Tensor]) -> None:
    x, y, t = rows(8, 4).requires_grad_(), rows(8, 4, seed=1), torch.tensor(0.1)
    call(x, y, t).backward()
    (2 * call(x, y, t)).backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, 3 * gradient(call, x, y, t)[1], rtol=1e-5, atol=1e-8)


@calls
def test_runs_are_bit_identical(call: Callable[..., Tensor]) -> None:
    inputs = rows(600, 4), rows(600, 4, seed=1), torch.tensor(0.1)
    for a, b in zip(gradient(call, *inputs), gradient(call, *inputs), strict=True):
        assert torch.equal(a, b)


@calls
@pytest.mark.parametrize("device", HERE)
def test_compiles_without_a_graph_break_for_any_batch(call: Callable[..., Tensor], device: str) -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(call, fullgraph=True, backend=counter)
    for count in (8, 6, 5, 7):  # the second makes the batch a symbol
        inputs = rows(count, 4, device=device), rows(count, 4, seed=1, device=device), torch.tensor(0.1)
        for a, b in zip(gradient(call, *inputs), gradient(compiled, *inputs), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert counter.frame_count == 2  # and it stays one


def test_no_gradient_in_what_requires_none() -> None:
    x, y = rows(4, 3).requires_grad_(), rows(4, 3, seed=1)
    for call in CALLS.values():
        x.grad = None
        call(x, y, torch.tensor(0.1)).backward()
        assert x.grad is not None and y.grad is None
    with torch.inference_mode():
        assert all(call(x, y, torch.tensor(0.1)).isfinite() for call in CALLS.values())


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: info_nce(rows(4, 3), rows(4, 2)), ValueError, r"info_nce: query has shape \(4, 3\), key \(4, 2\)"),
        (
            lambda: info_nce(rows(4, 3), rows(4, 3), rows(5, 2)),
            ValueError,
            r"bank has shape \(5, 2\).*\(M, 3\).*bank.t",
        ),
        (lambda: info_nce(rows(4, 3), rows(4, 3), rows(0, 3)), ValueError, r"bank has shape \(0, 3\)"),
        (
            lambda: info_nce(rows(4, 3), rows(4, 3), rows(5, 3), gather_distributed=True),
            ValueError,
            "info_nce: gather_distributed=True with a bank.*leave it out",
        ),
        (lambda: info_nce(rows(4, 3), rows(4, 3), temperature=-1.0), ValueError, "info_nce: temperature=-1.0"),
        (lambda: info_nce(rows(4, 3), rows(4, 3).int()), TypeError, "info_nce: key is of type torch.int32"),
        (
            lambda: nnclr(rows(4, 3), rows(3, 3)),
            ValueError,
            r"nnclr: neighbors has shape \(4, 3\), predictions \(3, 3\)",
        ),
        (lambda: supcon(rows(4, 3), torch.arange(3)), ValueError, r"supcon: z has shape \(4, 3\), labels \(3,\)"),
        (lambda: supcon(rows(0, 3), torch.arange(0)), ValueError, r"supcon: z has shape \(0, 3\)"),
        (lambda: supcon(rows(4, 3), rows(1, 4)[0]), TypeError, "labels are of type torch.float32.*labels.long"),
        (
            lambda: SupConLoss()(rows(8, 3).view(4, 2, 3), torch.arange(8)),
            ValueError,
            r"SupConLoss: features has shape \(4, 2, 3\), labels \(8,\).*must be \(4,\)",
        ),
        (lambda: SupConLoss()(rows(4, 3)), ValueError, r"SupConLoss: features of shape \(4, 3\) without labels"),
        (lambda: SupConLoss()(rows(4, 3)[:, None]), ValueError, r"shape \(4, 1, 3\) without labels.*V at least 2"),
        (lambda: SupConLoss(0.0), ValueError, "SupConLoss: temperature=0.0 must be > 0"),
        (lambda: clip_loss(rows(4, 3), rows(4, 2), 1.0), ValueError, r"clip_loss: image_features has shape \(4, 3\)"),
        (lambda: clip_loss(rows(4, 3), rows(4, 3), "1"), TypeError, "logit_scale='1' is a str"),
        (
            lambda: clip_loss(rows(4, 3), rows(4, 3), torch.ones(2)),
            TypeError,
            r"logit_scale is a tensor of shape \(2,\)",
        ),
        (lambda: clip_loss(rows(4, 3), rows(4, 3), 1.0, torch.ones(3)), ValueError, r"weights has shape \(3,\)"),
        (lambda: CLIPLoss()(rows(4, 3), rows(4, 3)), ValueError, "CLIPLoss: logit_scale=None and the module has none"),
        (lambda: CLIPLoss(1.0)(rows(4, 3), rows(4, 3), 1.0), ValueError, "the module has one of its own"),
        (lambda: SigLIPLoss(1.0), ValueError, "init_logit_scale=1.0 and init_logit_bias=None; give both"),
        (lambda: SigLIPLoss()(rows(4, 3), rows(4, 3), 1.0), ValueError, "the module none of its own"),
        (lambda: SigLIPLoss(1.0, 1.0)(rows(4, 3), rows(4, 3), 1.0), ValueError, "the module has its own"),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()
