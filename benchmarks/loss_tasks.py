"""The tasks of losses.py: which contenders compute NT-Xent of which embeddings, and what is checked before they are timed.

A contender is a function of the embeddings of two views, (B, D) each, that returns the mean loss. All get the same embeddings,
each in the type that its name says, and R = 2B rows in all. Those that cannot leave a row's product with itself out of its sum
keep it in, and are checked against that; so does OpenCLIP's loss, over the R pairs of a row and its other view.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from harness import CheckFailed, Run, Task, exhaust
from torch import Tensor

OURS = "fastssl"
FORWARD, BOTH = "forward", "forward + backward"
TEMPERATURE = 0.1
LOGITS_AT_ONCE = 2**27  # of the float64 reference: 1 GiB on a GPU

Loss = Callable[[Tensor, Tensor], Tensor]
Step = tuple[Tensor, tuple[Tensor, ...]]  # value and gradients
# What a value and a gradient (in the mean over its numbers) may be off by, relative. In float32 a logit of 10 is known to 1e-6;
# rounded to bfloat16, to 2^-9 of 10, so that its exponential is off by 2 %.
FINE, COARSE = (1e-4, 5e-3), (1e-2, 5e-2)


@dataclass(frozen=True)
class Way:
    """One way to compute the loss.

    Args:
        name: As the tables show it.
        dtype: Type of the embeddings that it gets.
        build: Imports what it needs; returns the loss.
        needs: Modules without which it is absent.
        slow: Whether fewer rounds must do.
        definition: Which of `Inputs.exact` it is checked against.
        coarse: Whether its logits have 10 bits or fewer, as those rounded to bfloat16. Ours never have: of bfloat16, 11 bits
            of unit rows make logits of 10 that are off by 1e-3 or so, and of many such the roundings cancel.
        graph: Whether a step is captured in a CUDA graph.
    """

    name: str
    dtype: torch.dtype
    build: Callable[[], Loss]
    needs: tuple[str, ...] = ()
    slow: bool = False
    definition: str = "ntxent"
    coarse: bool = False
    graph: bool = False


@dataclass
class Inputs:
    """Embeddings of two views of B images, (2B, D) in all, float32; none has unit length."""

    z: Tensor
    _exact: dict[Any, tuple[float, Tensor]] = field(default_factory=dict)

    @classmethod
    def drawn(cls, rows: int, columns: int, device: torch.device) -> Inputs:
        """Views of an image that have 0.7 in common, so that positives differ from negatives."""
        generator = torch.Generator().manual_seed(0)
        common = torch.randn(rows // 2, columns, generator=generator)
        return cls((0.7 * common.repeat(2, 1) + 0.7 * torch.randn(rows, columns, generator=generator)).to(device))

    @property
    def shape(self) -> tuple[int, int]:
        return self.z.shape[0], self.z.shape[1]

    def views(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        first, second = (half.to(dtype).clone().requires_grad_() for half in self.z.chunk(2))
        return first, second

    def exact(self, definition: str, dtype: torch.dtype) -> tuple[float, Tensor]:
        """Value and gradient in all rows, (2B, D), in float64, of the embeddings rounded to dtype."""
        key = definition, dtype
        if key not in self._exact:
            self._exact[key] = {"ntxent": exact_ntxent, "with itself": exact_with_itself}[definition](self.z.to(dtype))
        return self._exact[key]


def exact_ntxent(z: Tensor, with_gradient: bool = True) -> tuple[float, Tensor]:
    """SimCLR's equation 1 and its gradient, in float64, a part of the rows at a time."""
    count = len(z)
    return _exact(z, torch.arange(count, device=z.device).roll(count // 2), True, with_gradient)


def exact_with_itself(z: Tensor, with_gradient: bool = True) -> tuple[float, Tensor]:
    """The same with a row's product with itself in its sum: CLIP's loss of the pairs of a row and its other view, in both
    directions, by the symmetry of z @ z.T.
    """
    return _exact(z, torch.arange(len(z), device=z.device).roll(len(z) // 2), False, with_gradient)


def _exact(z: Tensor, labels: Tensor, leave_out_self: bool, with_gradient: bool) -> tuple[float, Tensor]:
    norm = z.double().norm(dim=1, keepdim=True)
    unit = z.double() / norm
    of_unit = torch.zeros_like(unit)
    total = 0.0
    step = max(1, LOGITS_AT_ONCE // (8 if z.device.type == "cpu" else 1) // len(z))
    for top in range(0, len(z), step):
        part = torch.arange(top, min(top + step, len(z)), device=z.device)
        logits = unit[part] @ unit.T / TEMPERATURE
        positives = logits.gather(1, labels[part, None])
        if leave_out_self:
            logits[torch.arange(len(part)), part] = -math.inf
        largest = logits.amax(dim=1, keepdim=True)
        logits.sub_(largest).exp_()
        sums = logits.sum(dim=1, keepdim=True)
        total += (sums.log() + largest - positives).sum().item()
        if with_gradient:
            logits.div_(sums)
            logits[torch.arange(len(part)), labels[part]] -= 1
            of_unit[part] += logits @ unit
            of_unit += logits.T @ unit[part]
    of_unit /= len(z) * TEMPERATURE
    return total / len(z), (of_unit - (of_unit * unit).sum(dim=1, keepdim=True) * unit) / norm


def checking(inputs: Inputs, way: Way, backward: bool) -> Callable[[Iterable[Any]], dict[str, Any]]:
    """The value, and the gradients where there are any, beside the definition."""
    of_value, of_gradient = COARSE if way.coarse else FINE

    def check(pieces: Iterable[Any]) -> dict[str, Any]:
        *_, (value, grads) = pieces
        exact, gradient = inputs.exact(way.definition, way.dtype)
        found = {"value": value.item(), "value_error": abs(value.item() - exact) / exact}
        if not found["value_error"] <= of_value:
            raise CheckFailed(f"a loss of {value.item():.6f} where it is {exact:.6f}")
        if backward:
            ours = torch.cat([grad.double() for grad in grads])
            found["gradient_error"] = ((ours - gradient).norm() / gradient.norm()).item()
            if not found["gradient_error"] <= of_gradient:
                raise CheckFailed(f"gradients off by {found['gradient_error']:.1%} of their length")
        return found

    return check


# The contenders


def fastssl_loss() -> Loss:
    from fastssl.loss import NTXentLoss

    return NTXentLoss(TEMPERATURE)


def lightly_loss() -> Loss:
    from lightly.loss import NTXentLoss

    return NTXentLoss(TEMPERATURE)


def plain(first: Tensor, second: Tensor) -> Tensor:
    """z @ z.T and cross entropy; the logits in the type of the embeddings, as autocast has them."""
    z = F.normalize(torch.cat([first, second]), dim=1)
    logits = (z @ z.T / TEMPERATURE).fill_diagonal_(-math.inf)
    return F.cross_entropy(logits, torch.arange(len(z), device=z.device).roll(len(z) // 2))


def compiled(build: Callable[[], Loss]) -> Callable[[], Loss]:
    """Compiled at the first call, for its shape alone."""
    return lambda: torch.compile(build(), dynamic=False)


LINEAR = ("torch.nn.modules.linear_cross_entropy_options",)  # since torch 2.13


def linear_cross_entropy() -> Loss:
    """torch's own, in chunks that it chooses."""
    from torch.nn import LinearCrossEntropyOptions

    options = LinearCrossEntropyOptions()

    def loss(first: Tensor, second: Tensor) -> Tensor:
        z = F.normalize(torch.cat([first, second]), dim=1)
        labels = torch.arange(len(z), device=z.device).roll(len(z) // 2)
        return F.linear_cross_entropy(z / TEMPERATURE, z, labels, options=options)

    return loss


def inf_cl() -> Loss:
    """Inf-CL's kernels, which compute in float32 with TF32 products."""
    from inf_cl import cal_flash_loss

    def loss(first: Tensor, second: Tensor) -> Tensor:
        z = F.normalize(torch.cat([first, second]), dim=1)
        labels = torch.arange(len(z), device=z.device).roll(len(z) // 2)
        head = max(d for d in (16, 32, 64, 128, 256) if z.shape[1] % d == 0)
        losses: Tensor = cal_flash_loss(z, z, labels, 1 / TEMPERATURE, head)
        return losses.mean()

    return loss


def open_clip() -> Loss:
    from open_clip.loss import ClipLoss

    loss = ClipLoss()

    def of_pairs(first: Tensor, second: Tensor) -> Tensor:
        z = F.normalize(torch.cat([first, second]), dim=1)
        return loss(z, z.roll(len(z) // 2, 0), 1 / TEMPERATURE)

    return of_pairs


def ways(device: torch.device) -> list[Way]:
    if device.type == "cuda":
        half = torch.bfloat16
        return [
            Way(OURS, half, fastssl_loss),
            Way(f"{OURS}, in a CUDA graph", half, fastssl_loss, graph=True),
            Way(f"{OURS}, float32", torch.float32, fastssl_loss),
            Way("lightly", torch.float32, lightly_loss, ("lightly",), slow=True),
            Way("lightly, compiled, bfloat16", half, compiled(lightly_loss), ("lightly",), coarse=True),
            Way("z @ z.T, compiled, bfloat16", half, compiled(lambda: plain), coarse=True),
            Way(
                "F.linear_cross_entropy, bfloat16", half, linear_cross_entropy, LINEAR, True, "with itself", coarse=True
            ),
            Way("Inf-CL", torch.float32, inf_cl, ("inf_cl", "triton"), True, "with itself", coarse=True),
            Way("OpenCLIP, bfloat16", half, open_clip, ("open_clip",), definition="with itself", coarse=True),
        ]
    single = torch.float32
    return [
        Way(OURS, single, fastssl_loss),
        Way("lightly", single, lightly_loss, ("lightly",), slow=True),
        Way("lightly, compiled", single, compiled(lightly_loss), ("lightly",), slow=True),
        Way("z @ z.T", single, lambda: plain, slow=True),
        Way("z @ z.T, compiled", single, compiled(lambda: plain), slow=True),
        Way("F.linear_cross_entropy", single, linear_cross_entropy, LINEAR, slow=True, definition="with itself"),
        Way("OpenCLIP", single, open_clip, ("open_clip",), slow=True, definition="with itself"),
    ]


# The tasks


def steps(inputs: Inputs, way: Way, loss: Loss, backward: bool, calls: int) -> Run:
    """So many steps after each other, the last one's value and gradients, and a wait for the device."""
    views = inputs.views(way.dtype)

    def step() -> Step:
        value = loss(*views)
        return value.detach(), torch.autograd.grad(value, views) if backward else ()

    call = captured(step) if way.graph else step

    def run() -> Iterator[Step]:
        for _ in range(calls):
            result = call()
        if inputs.z.device.type == "cuda":
            torch.cuda.synchronize()
        yield result

    return run


def captured(step: Callable[[], Step]) -> Callable[[], Step]:
    """The step as a CUDA graph: the device's work alone, which the host asks for in one call."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()  # what the first call sets up cannot be captured
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()

    def replay() -> Step:
        graph.replay()
        return result

    return replay


class LossTask(Task):
    """One size and one pass; the contenders' own losses are built once, and shared between the passes.

    Args:
        built: The losses built so far, by name; filled here.
        calls: Steps that are timed together, at most: a GPU's are short.
        seconds: That they are to take together, by one step's time, which says that and nothing else; inf: however long.
    """

    def __init__(
        self,
        inputs: Inputs,
        backward: bool,
        contenders: Iterable[Way],
        built: dict[str, Loss],
        calls: int,
        seconds: float = math.inf,
    ) -> None:
        rows, columns = inputs.shape
        device = inputs.z.device.type
        settings = {"rows": rows, "columns": columns, "pass": BOTH if backward else FORWARD, "device": device}
        settings["threads"] = torch.get_num_threads()
        super().__init__(title(rows, columns), "rows", inputs, rows, lambda _: {}, settings)
        self.single: dict[str, Run] = {}  # one step of each contender
        self.at_once: dict[str, int] = {}  # steps of each that are timed together
        self.graphs = {way.name for way in contenders if way.graph}  # whose memory is the graph's, and not seen
        for way in contenders:
            self._add(way, backward, built, calls, seconds)

    def _add(self, way: Way, backward: bool, built: dict[str, Loss], calls: int, seconds: float) -> None:
        @self.contender(way.name, *way.needs, slow=way.slow, check=checking(self.inputs, way, backward))
        def make(inputs: Inputs) -> Run:
            if way.name not in built:
                built[way.name] = way.build()
            one = steps(inputs, way, built[way.name], backward, 1)
            count = calls if seconds == math.inf else max(1, min(calls, int(seconds / seconds_of(one))))
            self.at_once[way.name], self.single[way.name] = count, one
            return steps(inputs, way, built[way.name], backward, count)

    def records(self, *, rounds: int, slow_rounds: int) -> list[dict[str, Any]]:
        """As `run`, with the time of one step, and on a GPU the memory that a step allocates at most."""
        records = []
        for result in self.run(rounds=rounds, slow_rounds=slow_rounds):
            if result.status == "ok" and self.settings["device"] == "cuda" and result.contender not in self.graphs:
                result.peak_mib = allocated_mib(self.single[result.contender])
            calls = self.at_once.get(result.contender, 1)
            result.count *= calls
            record = result.to_json()
            if "median_s" in record:
                record["step_ms"] = 1e3 * record["median_s"] / calls
            records.append(record)
            if self.settings["device"] == "cuda":
                gc.collect()
                torch.cuda.empty_cache()
        return records


def seconds_of(run: Run) -> float:
    """Of a second call; the first one compiles what is to be compiled."""
    exhaust(run())
    began = time.perf_counter()
    exhaust(run())
    return time.perf_counter() - began


def allocated_mib(run: Run) -> float:
    """Most that torch's allocator has handed out during a run, over that before it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for _ in run():
        pass
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def title(rows: int, columns: int) -> str:
    return f"{rows} x {columns}"
