"""The structure of the source, as rules that a test can check."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for top in ("actors", "storage", "tests", "benchmarks")
    for path in (ROOT / top).rglob("*.py")
    if not path.name.endswith("_pb2.py")
)
PRODUCT = [
    path for path in SOURCES if path.is_relative_to(ROOT / "actors") or path.is_relative_to(ROOT / "storage")
]

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 80


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] in ("actors", "storage", "benchmarks"):
        parts = parts[1:]
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts)


MODULES = {module_of(path): path for path in PRODUCT}


def imports_of(path: Path, *, at_start_only: bool = False) -> Iterator[str]:
    """Every module that the file imports; without those inside functions if asked."""
    tree = ast.parse(path.read_text())
    nodes = ast.iter_child_nodes(tree) if at_start_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: relative import"
            assert node.module is not None
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            yield from submodules
            if len(submodules) < len(node.names):
                yield node.module


def imports_any(path: Path, packages: set[str]) -> bool:
    return any(name.split(".")[0] in packages for name in imports_of(path))


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_storage_never_imports_actors(path: Path) -> None:
    if path.is_relative_to(ROOT / "storage"):
        assert not imports_any(path, {"etcray", "ray", "asyncio", "grpc", "httpunk"})


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_the_product_never_imports_the_laboratory(path: Path) -> None:
    assert not imports_any(path, {"etcray_bench"})


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_duckdb_is_imported_only_by_the_engines(path: Path) -> None:
    engines = {"storage/etcray_storage/engine.py", "storage/etcray_storage/query_engine.py"}
    if name_of(path) not in engines:
        assert not imports_any(path, {"duckdb"})


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_ray_is_imported_only_by_shells(path: Path) -> None:
    shells = {"actor.py", "cluster.py", "launch.py", "ray_runtime.py"}
    if path.name not in shells:
        assert not imports_any(path, {"ray"})


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_the_http_library_is_imported_by_its_engines(path: Path) -> None:
    if not name_of(path).endswith(("gateway/http_engine.py", "gateway/http1_engine.py")):
        assert not imports_any(path, {"httpunk", "zttp", "h2"})


PURE = [
    path
    for path in PRODUCT
    if path.is_relative_to(ROOT / "actors/etcray/raft")
    or path.is_relative_to(ROOT / "storage/etcray_storage/machine")
    or name_of(path).endswith(
        (
            "gateway/proposals.py",
            "gateway/reads.py",
            "node/lessor.py",
            "supervisor/goals.py",
            "supervisor/reconciler.py",
            "mvcc/key_index.py",
            "history/allow_list.py",
            "history/functions.py",
            "history/retention.py",
            "history/schema.py",
            "gateway/watch_hub.py",
            "gateway/watch_catch_up.py",
            "gateway/watch_index.py",
            "gateway/watch_stream.py",
            "gateway/watch_responses.py",
            "history/follower.py",
        )
    )
]


@pytest.mark.parametrize("path", PURE, ids=name_of)
def test_pure_modules_do_no_io_and_read_no_clock(path: Path) -> None:
    banned = {"os", "time", "datetime", "socket", "threading", "asyncio", "ray", "grpc", "pathlib", "uuid"}
    assert not imports_any(path, banned)
    source = path.read_text()
    for call in ("open(", "random.random(", "random.randint(", "random.choice(", "random.uniform("):
        assert f" {call}" not in source, f"{call} in a pure module"


def test_modules_import_each_other_without_circles() -> None:
    edges = {
        module: {name for name in imports_of(path, at_start_only=True) if name in MODULES and name != module}
        for module, path in MODULES.items()
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for other in sorted(edges[module]):
                visit(other, (*trail, module))
            done.add(module)

    for module in sorted(MODULES):
        visit(module, ())


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_and_functions_fit_a_reader(path: Path) -> None:
    source = path.read_text()
    assert source.count("\n") <= FILE_LINES_MAX
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_is_left_to_do(path: Path) -> None:
    if path != Path(__file__):
        words = ("TO" + "DO", "FIX" + "ME", "X" + "XX")
        assert not [word for word in words if word in path.read_text()]


PACKAGES = [path for path in PRODUCT if path.name == "__init__.py" and path.parent.name != "proto"]


@pytest.mark.parametrize("path", PACKAGES, ids=name_of)
def test_every_package_opens_with_an_essay(path: Path) -> None:
    essay = ast.get_docstring(ast.parse(path.read_text()))
    assert essay is not None
    assert len(essay.splitlines()) >= 20


def test_the_top_level_holds_only_what_belongs_there() -> None:
    allowed = {"pyproject.toml", "README.md", "actors", "storage", "tests", "benchmarks"}
    present = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    made = {
        "etcray-data",
        "etcray-results.duckdb",
        "etcray-results.html",
    }  # by commands, where they are called
    assert present - allowed <= made, "something new at the top level"
