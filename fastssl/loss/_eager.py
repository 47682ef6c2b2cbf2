"""Whether a call may go past torch.library: its operators take the host 100 us a call, in which a GPU does most losses.

They are there for what looks at calls: the compiler, transforms of functions, fake tensors, modes, subclasses. Where nothing
does, a torch.autograd.Function around the same body gives the same results.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._device import DeviceContext

__all__ = ["nothing_looks", "without_autocast"]


def nothing_looks(*inputs: Tensor | None) -> bool:
    """Whether autograd alone sees what is done with these tensors. The compiler is told no, and reads no further."""
    if torch.compiler.is_compiling():
        return False
    return (
        torch._C._len_torch_dispatch_stack() == 0
        and (torch._C._len_torch_function_stack() == 0 or _only_default_devices())
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._is_tracing()
        and all(x is None or _is_plain(x) for x in inputs)
    )


def _is_plain(x: Tensor) -> bool:
    """Whether its memory holds its numbers: those of a negated view are kept as they were."""
    return (type(x) is Tensor or type(x) is torch.nn.Parameter) and not x.is_neg()


def _only_default_devices() -> bool:
    """Whether all modes are those of torch.set_default_device and the like, which only new tensors without a device notice."""
    modes = (torch._C._get_function_stack_at(i) for i in range(torch._C._len_torch_function_stack()))
    return all(isinstance(mode, DeviceContext) for mode in modes)


class _Nothing:
    """A context that changes nothing, for less than contextlib's."""

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


_NOTHING = _Nothing()


def without_autocast(device: str) -> torch.autocast | _Nothing:
    """A context in which operations keep the types of their arguments."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else _NOTHING
