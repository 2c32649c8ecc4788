"""The architecture, checked: imports run one way, only some modules may wait, and nothing grows too big."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "cronflowd"

# A folder may import only these folders, or of a folder these files; imports between them run one way.
MAY_IMPORT = {
    "base": "",
    "schedules": "base",
    "tasks": "base schedules",
    "engine": "base schedules tasks",
    "host": "base schedules tasks",
    "journal": "base schedules tasks engine host",
    "ask": "base schedules tasks engine",
    "net": "base tasks engine host",
    "worker": "base tasks host net.lines",
    "web": "base schedules tasks host net.lines net.listeners",
    "client": "base host web",
    "daemon": "base schedules tasks engine host journal ask net",
    "cli": "base schedules tasks engine host journal ask net worker web daemon",
}

# What other programs import says in its own file what that is.
IMPORTED_BY_OTHERS = frozenset({"client"})

# These are plain functions of their arguments: nothing in them may wait.
NEVER_WAITS = frozenset("base schedules tasks engine ask journal".split())

MAX_MODULE_LINES = 700
MAX_FUNCTION_LINES = 70
READS_CLOCK = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow")}

FILES = {
    ".".join(part for part in path.relative_to(ROOT).with_suffix("").parts if part != "__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
MODULES = [name for name in FILES if name]  # without the package's own file, which holds the version
OURS = [name for name in MODULES if "." in name]  # those that stand in a folder


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


@cache
def _nodes(module: str) -> list[ast.AST]:
    return list(ast.walk(_tree(module)))


def _imports(module: str) -> Iterator[str]:
    """Every import of a module, also those inside functions; ours begin with a dot."""
    for node in _nodes(module):
        if isinstance(node, ast.Import):
            yield from (_ours(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = _source(module, node)
            yield from (_module_of(source, alias.name) for alias in node.names)


def _source(module: str, node: ast.ImportFrom) -> str:
    """`from ..wire import x` in executors.job is `.wire`."""
    if not node.level:
        return _ours(node.module or "")
    package = FILES[module].relative_to(ROOT).parts[:-1]
    parts = [*package[: len(package) - node.level + 1], *filter(None, [node.module])]
    return "." + ".".join(parts)


def _ours(name: str) -> str:
    first, _, rest = name.partition(".")
    return "." + rest if first == "cronflowd" else name


def _module_of(source: str, name: str) -> str:
    """`from . import wire` means the module, `from .wire import escape` means .wire."""
    whole = f"{source.rstrip('.')}.{name}"
    return whole if whole.removeprefix(".") in FILES and whole.startswith(".") else source


def _folder(module: str) -> str:
    return module.partition(".")[0]


def test_every_module_stands_in_a_folder() -> None:
    """A file that nobody placed would be free to import anything."""
    folders = {_folder(module) for module in MODULES if module != "__main__"}
    assert set(MAY_IMPORT) == folders


def test_folders_stand_in_order() -> None:
    """A folder may import only folders that the table names before it: that rules out every circle."""
    names = list(MAY_IMPORT)
    for name, others in MAY_IMPORT.items():
        assert set(map(_folder, others.split())) <= set(names[: names.index(name)]), name


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_only_what_it_may(folder: str) -> None:
    """One way only: whoever reads a file need know nothing of the folders after it."""
    found = {
        f"{module} imports {name}"
        for module in OURS
        if _folder(module) == folder
        for name in _imports(module)
        if name.startswith(".")
        and name != "."
        and {name[1:], _folder(name[1:])}.isdisjoint((folder, *MAY_IMPORT[folder].split()))
    }
    assert found - {f"{module} imports .__version__" for module in OURS} == set()


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_there_is_no_circle_inside_a_folder(folder: str) -> None:
    """Two modules that need each other are one module, or want a third."""
    graph = {
        module: {name[1:] for name in _imports(module) if name.startswith(f".{folder}")} - {module}
        for module in OURS
        if _folder(module) == folder
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {error.args[1]}")


@pytest.mark.parametrize("folder", sorted(NEVER_WAITS))
def test_only_the_outer_folders_may_wait(folder: str) -> None:
    """The engine and all values are synchronous: no await can come between deciding and applying."""
    waits = {
        module
        for module in OURS
        if _folder(module) == folder
        for name in _imports(module)
        if name.partition(".")[0] == "trio"
    }
    assert waits == set()


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_only_the_clock_reads_the_wall_clock(folder: str) -> None:
    """Time is an argument everywhere else, so a test can be at any moment it likes."""
    reads = {
        f"{module}: {node.value.id}.{node.attr}"
        for module in OURS
        if _folder(module) == folder and module != "host.clock"
        for node in _nodes(module)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if (node.value.id, node.attr) in READS_CLOCK
    }
    assert reads == set()


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_no_module_is_too_long(folder: str) -> None:
    """At this size a file has two subjects, and wants to be two files."""
    lines = {
        module: FILES[module].read_text(encoding="utf-8").count("\n")
        for module in OURS
        if _folder(module) == folder
    }
    assert {module: count for module, count in lines.items() if count > MAX_MODULE_LINES} == {}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_no_function_is_too_long(folder: str) -> None:
    """A function that needs scrolling is read wrong."""
    long = {
        f"{module}.{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for module in OURS
        if _folder(module) == folder
        for node in _nodes(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: lines for name, lines in long.items() if lines > MAX_FUNCTION_LINES} == {}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_tells_what_it_is_for(folder: str) -> None:
    """Its own file is a page for whoever opens the folder, and gives nothing away under a second name."""
    tree = _tree(folder)
    page = ast.get_docstring(tree) or ""
    files = [path.stem for path in FILES[folder].parent.glob("*.py") if path.stem != "__init__"]
    assert [name for name in files if f"`{name}`" not in page] == []
    assert len(tree.body) == 1 or folder in IMPORTED_BY_OTHERS


def test_imports_are_found_wherever_they_stand() -> None:
    """The test of the test: cli imports its programs inside functions, executors from the folder above."""
    assert ".daemon.daemon" in set(_imports("cli.cli"))
    assert ".base.text" in set(_imports("worker.executors.job"))
    assert "trio" in set(_imports("host.clock"))
