"""What the build can do on a GPU."""

import pytest
import torch
from conftest import devices

from fastssl import _native
from fastssl._native import _C


def probe(device: int, pixels: torch.Tensor, factor: float) -> torch.Tensor:
    out = torch.full((pixels.shape[0], _C.CORE_PROBE_OUTPUTS), float("nan"))
    _C.core_probe(device, pixels.data_ptr(), pixels.shape[0], factor, out.data_ptr())
    return out


def all_greys_and_primaries() -> torch.Tensor:
    levels = torch.linspace(0, 1, 17)
    return torch.cartesian_prod(levels, levels, levels).contiguous()


def test_build_info_names_what_was_built():
    info = _native.build_info()
    assert info["simd"] in ("generic", "v3", "v4")
    assert all(part.isdigit() for part in info["cuda_architectures"].split(";") if part)
    assert info["cuda_devices"] >= 0
    assert _native.has_cuda() == (info["cuda_devices"] > 0)


def test_a_machine_without_a_gpu_is_told_so():
    if _native.has_cuda():
        pytest.skip("this machine has a GPU")
    with pytest.raises(RuntimeError, match=r"CUDA|driver|device"):
        probe(0, torch.rand(4, 3), 0.75)


@pytest.mark.parametrize("device", devices()[-1:])
@pytest.mark.parametrize("factor", [0.5, 0.75, 1.25, 1.5])
def test_the_gpu_computes_the_same_bits_as_the_cpu(factor: float, device: str):
    pixels = torch.cat([all_greys_and_primaries(), torch.rand(100_000, 3, generator=torch.Generator().manual_seed(0))])
    assert torch.equal(probe(0, pixels, factor), probe(-1, pixels, factor))


@pytest.mark.parametrize("device", devices()[-1:])
def test_the_gpu_describes_itself(device: str):
    info = _C.cuda_device_info(0)
    assert info["name"] == torch.cuda.get_device_name(0)
    assert info["capability"] == torch.cuda.get_device_capability(0)
