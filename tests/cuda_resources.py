"""What the compiled kernels take and how they reach memory, read from the objects of a build.

    python tests/cuda_resources.py            prints each kernel of each architecture
    python tests/cuda_resources.py --update   writes tests/cuda_resources.json, which test_cuda_resources.py compares with

The numbers are those of `cuobjdump`: its resource usage, and counts over its disassembly. They belong to the version of nvcc
that the file names: another one allocates registers otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "tests" / "cuda_resources.json"
UPDATE = "python tests/cuda_resources.py --update"
ARCHITECTURES = ("80", "86", "89", "90", "100", "120")  # CMakeLists.txt's list
WGMMA = "90a"  # besides, of the kernels that a loss by wgmma launches
LIBRARY = "libfastssl_cuda.a"


class Unavailable(RuntimeError):
    """A tool is missing; the message says which."""


@dataclass
class Resources:
    """Of one kernel on one architecture.

    Args:
        registers: Of a thread.
        stack, local: Bytes of a thread in local memory: arrays with computed indices, and what was spilled.
        shared: Static shared memory of a block, bytes, with what the architecture takes itself.
        loads, stores: Instructions for global memory by their width in bits; `generic` ones find out the kind of memory first.
        local_accesses: Instructions for local memory.
        doubles: Instructions in double precision, of which many GPUs make 1/64 as many as of single.
        products: Of the matrix units, 16 x 16 by 16 x 8 numbers each; a warp's part of a wgmma is several.
        waits: For products by wgmma. Where the compiler cannot keep them apart from other work, it waits for each of them.
    """

    registers: int
    stack: int
    local: int
    shared: int
    loads: dict[str, int] = field(default_factory=dict)
    stores: dict[str, int] = field(default_factory=dict)
    generic: int = 0
    local_accesses: int = 0
    doubles: int = 0
    products: int = 0
    waits: int = 0
    instructions: int = 0


Report = dict[str, dict[str, Resources]]  # kernel, architecture


# --- reading ----------------------------------------------------------------------------------------------------------


def find_tool(name: str) -> str:
    """A tool of CUDA's: on the PATH, beside nvcc, or as triton, which torch needs, brings it."""
    places = [os.environ.get("PATH", "")]
    places += [os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin")]
    places += [str(Path(entry) / "triton" / "backends" / "nvidia" / "bin") for entry in sys.path if entry]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise Unavailable(f"no {name}, neither on the PATH nor in $CUDA_HOME/bin nor with triton")
    return found


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def kernel_name(mangled: str) -> str:
    """Without what differs from build to build: namespaces, arguments, and the machinery that starts it (cuda/grid.h).

    >>> kernel_name("_ZN7fastssl4cuda41_GLOBAL__N__f29f1eab_9_render_cu_a59e6f964grid3runINS1_10CropKernelILi3EhEEEEvT_")
    'CropKernel<3, unsigned char>'
    """
    name = output(find_tool("c++filt"), mangled).strip()
    name = re.sub(r"\(anonymous namespace\)::|\b(?:fastssl|cuda|grid)::", "", name)
    name = re.sub(r"^void ", "", re.sub(r"\([^()]*\)$", "", name))
    started = re.fullmatch(r"run<(.*?) ?>", name)
    return started[1] if started else name


WIDTHS = {"U8": "8", "S8": "8", "U16": "16", "S16": "16", "64": "64", "128": "128", "256": "256"}
LINE = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)((?:\.[A-Zx0-9_]+)*)", re.M)
WIDE_SHAPE = re.compile(r"64x(\d+)x16")  # of four warps: rows, columns, terms of a sum
DOUBLE = re.compile(r"D(ADD|MUL|FMA|SETP|MNMX)")


def add_instructions(text: str, to: Resources) -> None:
    counts = Counter(LINE.findall(text))
    for (name, suffixes), count in counts.items():
        to.instructions += count
        parts = suffixes.split(".")
        if name in ("LDG", "LD", "STG", "ST"):
            width = next((WIDTHS[part] for part in parts if part in WIDTHS), "32")
            side = to.loads if name.startswith("L") else to.stores
            side[width] = side.get(width, 0) + count
            to.generic += count if name in ("LD", "ST") else 0
        elif name in ("LDL", "STL"):
            to.local_accesses += count
        elif DOUBLE.fullmatch(name):
            to.doubles += count
        elif name == "HMMA" and "16816" in parts:
            to.products += count
        elif name == "WARPGROUP" and "DEPBAR" in parts:
            to.waits += count
        elif name == "HGMMA":
            to.products += count * sum(int(found[1]) // 8 for part in parts if (found := WIDE_SHAPE.fullmatch(part)))


USAGE = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


def read(library: Path) -> Report:
    """The kernels of every object in the library, for every architecture that it holds machine code for."""
    cuobjdump = find_tool("cuobjdump")
    find_tool("nvdisasm")  # which the other one calls
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(find_tool("nvdisasm")).parent), os.environ["PATH"]])}

    def dump(option: str) -> list[tuple[str, str]]:
        text = subprocess.run(
            [cuobjdump, option, str(library)], check=True, capture_output=True, text=True, env=environment
        ).stdout
        parts = re.split(r"^arch = sm_(\w+)$", text, flags=re.M)
        return list(zip(parts[1::2], parts[2::2], strict=True))

    names: dict[str, str] = {}

    def named(mangled: str) -> str:
        if mangled not in names:
            names[mangled] = kernel_name(mangled)
        return names[mangled]

    report: Report = {}
    for arch, text in dump("--dump-resource-usage"):
        for mangled, registers, stack, shared, local in USAGE.findall(text):
            of_kernel = report.setdefault(named(mangled), {})
            of_kernel[arch] = Resources(int(registers), int(stack), int(local), int(shared))
    for arch, text in dump("--dump-sass"):
        functions = re.split(r"^\s+Function : (\S+)$", text, flags=re.M)
        for mangled, body in zip(functions[1::2], functions[2::2], strict=True):
            add_instructions(body, report[named(mangled)][arch])
    return report


def nvcc_version(nvcc: str) -> str:
    """ "13.0.88"; "" where that cannot be told."""
    found = re.search(r"\bV(\d+(?:\.\d+)*)", output(nvcc, "--version"))
    return found[1] if found else ""


def compiler_of(build: Path) -> str | None:
    """The nvcc that a folder of CMake's was built with, where it still is there."""
    cache = build / "CMakeCache.txt"
    named = re.search(r"^CMAKE_CUDA_COMPILER:\w+=(.+)$", cache.read_text(), re.M) if cache.exists() else None
    return named[1] if named and os.access(named[1], os.X_OK) else None


def is_current(library: Path) -> bool:
    """Whether it holds kernels, and was built after the last change of their sources."""
    sources = [*ROOT.glob("csrc/cuda/*"), *ROOT.glob("csrc/core/*"), ROOT / "CMakeLists.txt"]
    if not library.exists() or compiler_of(library.parent) is None:
        return False
    with library.open("rb") as file:
        holds_kernels = b".nv_fatbin" in file.read()
    return holds_kernels and library.stat().st_mtime >= max(source.stat().st_mtime for source in sources)


def built_library(build: Path = ROOT / "build") -> Path:
    """The library that `make build` left, if it is current; else built into build/cuda-resources, 20 s on two cores.

    Raises:
        Unavailable: There is no nvcc, cmake or ninja to build it with.
    """
    current = [library for library in build.glob(f"cmake-*/{LIBRARY}") if is_current(library)]
    if current:
        return max(current, key=lambda library: library.stat().st_mtime)
    for tool in ("nvcc", "cmake", "ninja"):
        find_tool(tool)
    folder = build / "cuda-resources"
    environment = {**os.environ, "CUDACXX": find_tool("nvcc")}
    configure = ["cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", "-DFASTSSL_CUDA=ON"]
    configure += [f"-DPython_EXECUTABLE={sys.executable}"]
    for command in (configure, ["cmake", "--build", str(folder), "--target", "fastssl_cuda", "-j2"]):
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return folder / LIBRARY


# --- comparing --------------------------------------------------------------------------------------------------------


def spills(report: Report) -> list[str]:
    return [
        f"{kernel}, sm_{arch}: {r.stack} bytes of stack, {r.local} of local memory, {r.local_accesses} accesses to it; "
        "none may be"
        for kernel, archs in report.items()
        for arch, r in archs.items()
        if r.stack or r.local or r.local_accesses
    ]


def differences(report: Report, stored: Report) -> list[str]:
    """Where the report is worse than what is stored, on the architectures that it has."""
    found = [f"{kernel} is new" for kernel in report.keys() - stored.keys()]
    found += [f"{kernel} is gone" for kernel in stored.keys() - report.keys()]
    for kernel in report.keys() & stored.keys():
        for arch, now in report[kernel].items():
            was, where = stored[kernel].get(arch), f"{kernel}, sm_{arch}"
            if was is None:
                continue
            for name in ("registers", "shared", "generic", "doubles", "waits"):
                if getattr(now, name) > getattr(was, name):
                    found.append(f"{where}: {name} {getattr(was, name)} -> {getattr(now, name)}")
            if now.products < was.products:
                found.append(f"{where}: {was.products} products of matrices, now {now.products}")
            before, after = (max(map(int, r.loads), default=0) for r in (was, now))
            if after < before:
                found.append(f"{where}: the widest loads had {before} bits, now {after}")
            # Each type of output has its own stores, so that a kernel may lose some wide ones and keep others.
            for width in ("64", "128", "256"):
                before, after = was.stores.get(width, 0), now.stores.get(width, 0)
                if after < before:
                    found.append(f"{where}: {before} stores of {width} bits, now {after}")
    return sorted(found)


def by_age(arch: str) -> tuple[int, str]:
    return int(arch.rstrip("a")), arch


def load(path: Path = STORED) -> tuple[str, Report]:
    """nvcc's version, and the report."""
    data = json.loads(path.read_text())
    kernels = data["kernels"]
    return data["nvcc"], {k: {arch: Resources(**r) for arch, r in archs.items()} for k, archs in kernels.items()}


def save(report: Report, version: str, path: Path = STORED) -> None:
    """One line a kernel and architecture, so that a change shows as such."""
    kernels = []
    for kernel in sorted(report):
        archs = sorted(report[kernel], key=by_age)
        lines = [f'   "{arch}": {json.dumps(asdict(report[kernel][arch]), sort_keys=True)}' for arch in archs]
        kernels.append(f"  {json.dumps(kernel)}: {{\n" + ",\n".join(lines) + "\n  }")
    body = ",\n".join(kernels)
    path.write_text(f'{{\n "nvcc": {json.dumps(version)},\n "kernels": {{\n{body}\n }}\n}}\n')


def table(report: Report) -> str:
    head = [
        "kernel",
        "sm",
        "registers",
        "loads by bits",
        "stores by bits",
        "generic",
        "doubles",
        "products",
        "instructions",
    ]

    def by_bits(accesses: dict[str, int]) -> str:
        return " ".join(f"{width}:{accesses[width]}" for width in sorted(accesses, key=int))

    rows = [head, ["---", *["---:"] * 2, "---", "---", *["---:"] * 4]]
    for kernel in sorted(report):
        for arch in sorted(report[kernel], key=by_age):
            r = report[kernel][arch]
            numbers = [str(r.generic), str(r.doubles), str(r.products), str(r.instructions)]
            rows.append([kernel, arch, str(r.registers), by_bits(r.loads), by_bits(r.stores), *numbers])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help=f"write {STORED.relative_to(ROOT)}")
    arguments = parser.parse_args()
    library = built_library()
    report = read(library)
    print(table(report))
    if spilled := spills(report):
        raise SystemExit("\n".join(spilled))
    if not arguments.update:
        return
    held = {arch for archs in report.values() for arch in archs}
    if missing := {*ARCHITECTURES, WGMMA} - held:
        raise SystemExit(
            f"{library} has no code for sm_{', sm_'.join(sorted(missing, key=by_age))}; build for all of them."
        )
    save(report, nvcc_version(compiler_of(library.parent) or find_tool("nvcc")))
    print(f"wrote {STORED}")


if __name__ == "__main__":
    main()
