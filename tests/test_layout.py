"""The layers of the package and its rules of conduct, read from the source by ast."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastssl

PACKAGE = Path(fastssl.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))

# What each part may import of the package, itself excepted.
# _native <- ops <- transforms, loss <- pipelines <- data <- training, embedding <- cli
NATIVE = {"_native"}
OPS = NATIVE | {"ops"}
VIEWS = OPS | {"transforms", "recipes", "utils"}
DATA = VIEWS | {"loss", "data", "pipelines"}
MAY_IMPORT = {
    "_native": set(),
    "ops": NATIVE,
    "transforms": OPS | {"utils"},
    "recipes": {"transforms"},
    "loss": OPS | {"utils", "models"},  # of models the memory bank only
    "models": OPS | {"utils", "transforms"},  # of transforms the masks only, which lightly keeps in models.utils
    "utils": OPS,
    "pipelines": VIEWS,
    "data": VIEWS | {"pipelines"},
    "methods": VIEWS | {"models", "loss"},
    "embedding": DATA | {"models"},
    "training": DATA | {"models", "methods", "embedding"},
    "cli": DATA | {"models", "methods", "embedding", "training"},
}


def name_of(path: Path) -> str:
    """fastssl/ops/render.py -> fastssl.ops.render, fastssl/ops/__init__.py -> fastssl.ops."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of each module of the package that the file imports, wherever in the file it stands."""
    package = name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], base]).rstrip(".")
            # `from fastssl import ops` names a module, `from fastssl.ops import render` a thing in one
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "fastssl" else [base]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name == "fastssl" or name.startswith("fastssl."))


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_imports_point_one_way():
    wrong = []
    for path in MODULES:
        part = part_of(name_of(path))
        if not part or path == PACKAGE / "__main__.py":
            continue  # the package itself gathers what is public
        assert part in MAY_IMPORT, f"{path.relative_to(ROOT)}: say in this test's table what {part} may import"
        for line, name in imports(path):
            target = part_of(name)
            known = target in MAY_IMPORT or name == "fastssl._C"
            if name == "fastssl._C":
                allowed = part in ("_native", "ops")
            elif known:
                allowed = target == part or target in MAY_IMPORT[part]
            else:
                allowed = False  # a name that fastssl/__init__.py re-exports: import it from where it is defined
            if not allowed:
                wrong.append(f"{where(path, line)}: {part} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_the_table_has_no_circle():
    seen: list[str] = []
    left = dict(MAY_IMPORT)
    while left:
        ready = sorted(part for part, needs in left.items() if needs - {part} <= set(seen))
        assert ready, f"a circle among {sorted(left)}"
        seen += ready
        left = {part: needs for part, needs in left.items() if part not in ready}


def test_the_table_would_catch_a_wrong_import(tmp_path, monkeypatch):
    folder = tmp_path / "fastssl" / "models"
    folder.mkdir(parents=True)
    for i, line in enumerate(["from fastssl.data import Loader", "from ..data import x", "import fastssl.data.loader"]):
        path = folder / f"case{i}.py"
        path.write_text(f"def f():\n    {line}\n")
        monkeypatch.setitem(globals(), "ROOT", tmp_path)
        ((found_line, name),) = imports(path)
        assert found_line == 2 and part_of(name) == "data" and "data" not in MAY_IMPORT["models"]


def public_definitions(tree: ast.Module) -> set[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_all_names_what_is_public(path):
    private = any(part.startswith("_") and part != "__init__" for part in path.relative_to(ROOT).with_suffix("").parts)
    module = importlib.import_module(name_of(path))
    listed = getattr(module, "__all__", None)
    if private and listed is None:
        return
    assert listed is not None, "no __all__"
    assert len(set(listed)) == len(listed), "a name twice"
    missing = [name for name in listed if not hasattr(module, name)]
    assert not missing, f"listed, not there: {missing}"
    unlisted = public_definitions(ast.parse(path.read_text())) - set(listed)
    assert not unlisted, f"defined and neither listed nor named with an underscore: {sorted(unlisted)}"


def test_no_module_differs_from_another_by_an_underscore():
    plain = [path.with_name(path.name.removeprefix("_")) for path in MODULES if not path.name.startswith("__")]
    assert sorted(path for path in {*plain} if plain.count(path) > 1) == []


def calls(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_neither_prints_nor_exits_nor_swallows(path):
    tree = ast.parse(path.read_text())
    part = part_of(name_of(path))
    wrong = []
    for line, name in calls(tree):
        if name in ("print", "sys.stdout.write", "sys.stderr.write") and part not in ("cli", "training"):
            wrong.append(f"{where(path, line)}: {name}")
        if name in ("exit", "quit", "sys.exit", "os._exit", "os.abort") and part not in ("cli", "__main__"):
            wrong.append(f"{where(path, line)}: {name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            reraises = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
            if caught == "everything" or (caught in ("Exception", "BaseException") and not reraises):
                wrong.append(f"{where(path, node.lineno)}: except {caught}")
    assert not wrong, "\n".join(wrong)


def native_sources() -> list[Path]:
    suffixes = {".h", ".hpp", ".cpp", ".cu", ".cuh"}
    return sorted(
        path
        for path in (ROOT / "csrc").rglob("*")
        if path.suffix in suffixes and "tests" not in path.relative_to(ROOT / "csrc").parts
    )


def without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)


@pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="an installed package, without its native sources")
def test_native_code_neither_prints_nor_exits_nor_needs_torch():
    assert native_sources()
    forbidden = re.compile(
        r"\b(?:f?printf|puts|exit|abort|_exit|terminate)\s*\(|std::c(?:out|err)\b|#include <(?:torch|ATen|c10)"
    )
    wrong = []
    for path in native_sources():
        for match in forbidden.finditer(without_comments(path.read_text())):
            wrong.append(f"{path.relative_to(ROOT)}: {match.group()}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="an installed package, without its native sources")
def test_what_both_executors_share_knows_neither():
    wrong = []
    for path in native_sources():
        part = path.relative_to(ROOT / "csrc").parts[0]
        for included in re.findall(r'#include "([^"]+)"', path.read_text()):
            other = included.split("/")[0] if "/" in included else part
            if part == "core" and other in ("cpu", "cuda"):
                wrong.append(f"{path.relative_to(ROOT)} includes {included}")
    assert not wrong, "\n".join(wrong)
