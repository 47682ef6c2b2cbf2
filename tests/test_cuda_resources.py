"""The compiled kernels spill nothing, and take no more and reach memory no less widely than tests/cuda_resources.json says."""

from __future__ import annotations

import copy

import cuda_resources
import pytest
from cuda_resources import Resources


@pytest.fixture(scope="module")
def library():
    try:
        cuda_resources.find_tool("cuobjdump")
        cuda_resources.find_tool("nvdisasm")
        return cuda_resources.built_library()
    except cuda_resources.Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def report(library):
    return cuda_resources.read(library)


def test_no_kernel_uses_local_memory(report):
    assert report, "the library holds no kernel"
    assert cuda_resources.spills(report) == []


def test_kernels_take_no_more_than_before(library, report):
    version, stored = cuda_resources.load()
    here = cuda_resources.nvcc_version(cuda_resources.compiler_of(library.parent))
    if here != version:
        pytest.skip(f"built by nvcc {here}; tests/cuda_resources.json holds what {version} makes")
    worse = cuda_resources.differences(report, stored)
    assert not worse, "\n".join([*worse, f"If that is meant to be, {cuda_resources.UPDATE} writes the new numbers."])


def test_what_is_stored_holds_every_architecture():
    _, stored = cuda_resources.load()
    usual, wide = set(cuda_resources.ARCHITECTURES), {cuda_resources.WGMMA}
    for kernel, archs in stored.items():
        assert set(archs) in ([wide] if kernel.startswith("Wide") else [usual, usual | wide, wide]), kernel
    assert cuda_resources.spills(stored) == []


def test_kernels_of_contrastive_losses_use_the_matrix_units(report):
    """As many products as a turn of each of their loops has, at least: nothing of it is done otherwise."""
    least = {
        "ForwardKernel<false>": 128,  # 64 x 64 sums of 64 terms, a warp
        "ForwardKernel<true>": 96,  # 64 x 32 sums of 32 terms, three times
        "PanelKernel<false>": 128,
        "PanelKernel<true>": 96,
        "ProductKernel<false>": 256,  # along and across
        "ProductKernel<true>": 192,
        "FusedKernel<64>": 128,  # 32 queries with 64 keys, twice
        "FusedKernel<128>": 256,
        "WideForwardKernel<2>": 128,  # 64 queries with 128 keys, four warps: of one 16 x 128 sums of 128 terms
        "WideForwardKernel<4>": 256,
        "WideFusedKernel<2>": 384,  # the same, once before the loop and once in it, and once with the weights
        "WideFusedKernel<4>": 384,  # 64 keys
        "WidePanelKernel": 128,  # 64 rows with 256 columns, four warps: of one 16 x 256 sums of 64 terms
        "WideProductKernel": 256,  # the same, along and across
    }
    assert {kernel for kernel in report if kernel.startswith("Wide")} <= least.keys()
    for kernel, number in least.items():
        for arch, resources in report[kernel].items():
            assert resources.products >= number, (kernel, arch)


def test_kernels_by_wgmma_wait_for_products_where_they_say_so(report):
    """Once for each wait_products() of their code; a compiler that cannot keep products apart from other work adds a wait to
    each of them, and says so in a warning alone."""
    most = {
        "WideForwardKernel<2>": 2,  # with a shift that is constant, and with one of each row
        "WideForwardKernel<4>": 2,
        "WideFusedKernel<2>": 2,  # before the loop, and in it
        "WideFusedKernel<4>": 2,
        "WidePanelKernel": 1,
        "WideProductKernel": 2,  # along and across
    }
    assert {kernel for kernel in report if kernel.startswith("Wide")} <= most.keys()
    for kernel, number in most.items():
        for arch, resources in report[kernel].items():
            # None at all would say that waits are not recognized.
            assert 1 <= resources.waits <= number, (kernel, arch, resources.waits)


def make_report(**changes: object) -> cuda_resources.Report:
    usual = {"registers": 64, "stack": 0, "local": 0, "shared": 0, "loads": {"32": 4, "128": 1}, "stores": {"64": 2}}
    usual["products"] = 16
    return {"FrameKernel<3>": {"90": Resources(**{**usual, **changes})}}


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"registers": 65}, "FrameKernel<3>, sm_90: registers 64 -> 65"),
        ({"shared": 16}, "FrameKernel<3>, sm_90: shared 0 -> 16"),
        ({"generic": 1}, "FrameKernel<3>, sm_90: generic 0 -> 1"),
        ({"doubles": 1}, "FrameKernel<3>, sm_90: doubles 0 -> 1"),
        ({"waits": 1}, "FrameKernel<3>, sm_90: waits 0 -> 1"),
        ({"products": 8}, "FrameKernel<3>, sm_90: 16 products of matrices, now 8"),
        ({"loads": {"32": 8}}, "FrameKernel<3>, sm_90: the widest loads had 128 bits, now 32"),
        ({"stores": {"32": 2, "64": 1}}, "FrameKernel<3>, sm_90: 2 stores of 64 bits, now 1"),
    ],
)
def test_what_is_worse_is_named(changes: dict, said: str):
    assert cuda_resources.differences(make_report(**changes), make_report()) == [said]
    assert cuda_resources.differences(make_report(), make_report(**changes)) == []


def test_new_and_lost_kernels_are_named():
    one, other = make_report(), {"CropKernel<1>": make_report()["FrameKernel<3>"]}
    assert cuda_resources.differences(other, one) == ["CropKernel<1> is new", "FrameKernel<3> is gone"]


def test_an_architecture_that_was_not_built_is_not_compared():
    fewer, both = make_report(), make_report()
    both["FrameKernel<3>"]["100"] = copy.copy(both["FrameKernel<3>"]["90"])
    assert cuda_resources.differences(fewer, both) == []
    assert cuda_resources.differences(both, fewer) == []


@pytest.mark.parametrize("changes", [{"stack": 8}, {"local": 8}, {"local_accesses": 1}])
def test_local_memory_is_a_spill(changes: dict):
    (said,) = cuda_resources.spills(make_report(**changes))
    assert said.startswith("FrameKernel<3>, sm_90: ")


def test_accesses_are_counted_by_width():
    lines = [
        "LDG.E.128 R4, [R2.64] ;",
        "@P0 LDG.E.U8.CONSTANT R4, [R2.64] ;",
        "@!P1 LD.E.64 R4, [R2.64] ;",
        "STG.E [R2.64], R4 ;",
        "ST.E.U16 [R2.64], R4 ;",
        "STL [R1], R4 ;",
        "@!UP0 DFMA R4, R2, R6, R8 ;",
        "HMMA.16816.F32 R4, R8, R12, R4 ;",
        "HGMMA.64x128x16.F32 R24, gdesc[UR4], RZ, !UPT ;",
        "WARPGROUP.ARRIVE ;",
        "WARPGROUP.DEPBAR.LE gsb0, 0x0 ;",
        "STS.128 [R1], R4 ;",
    ]
    r = Resources(32, 0, 0, 0)
    text = "\n".join(f"        /*{16 * i:04x}*/                   {line}" for i, line in enumerate(lines))
    cuda_resources.add_instructions(text, r)
    assert r.loads == {"128": 1, "8": 1, "64": 1}
    assert r.stores == {"32": 1, "16": 1}
    assert (r.generic, r.local_accesses, r.doubles, r.products, r.waits, r.instructions) == (2, 1, 1, 17, 1, 12)


def test_stored_reports_survive_writing(tmp_path):
    cuda_resources.save(make_report(), "13.0.88", tmp_path / "r.json")
    assert cuda_resources.load(tmp_path / "r.json") == ("13.0.88", make_report())
