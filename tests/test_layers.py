"""The architecture, checked: imports run one way, only some modules may wait, and nothing grows too big."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "cronflowd"

# A module may import only modules that stand before it, which also rules out every cycle.
# A new module goes here first: where it stands is the decision, the code comes after.
LAYERS = (
    # values
    "errors wire names zones arithmetic kinds targets config calendars fields rules words english schedule"
    " describe forecast timetable options model crontab facts stimuli replies"
    # talk
    " telnet commands"
    # decide
    " changelog ledger stats beats tables state dependencies placement moments events definitions changes"
    " expectations notices engine views why"
    # keep
    " disk records replay store journal history compaction audit check"
    # run
    " auth clock systemd logs listeners outbox clients workers core moving answers upkeep daemon"
    # programs
    " silence spool executors.output executors.job executors.processes executors.builtin executors.shell"
    " executors.addresses executors.client executors.http executors.webhook executors.email"
    " executors.handler executors.custom executors agent client cli __main__"
).split()

# What may wait. All others are plain functions of their arguments, and can be tested like that.
MAY_IMPORT_TRIO = frozenset(
    "clock listeners outbox clients workers core answers upkeep daemon agent silence cli"
    " executors.output executors.job executors.processes executors.builtin executors.shell"
    " executors.client executors.email executors.handler".split()
)

MAX_MODULE_LINES = 700
MAX_FUNCTION_LINES = 70

FILES = {
    ".".join(part for part in path.relative_to(ROOT).with_suffix("").parts if part != "__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
MODULES = [name for name in FILES if name]  # without the package's own file, which holds the version


def _tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def _imports(module: str) -> Iterator[str]:
    """Every import of a module, also those inside functions; ours begin with a dot."""
    for node in ast.walk(_tree(module)):
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


def test_every_module_has_its_place_in_the_order() -> None:
    """A file that nobody placed would be free to import anything."""
    assert set(MODULES) == set(LAYERS)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_stands_above_it(module: str) -> None:
    """One way only: whoever reads a file need know nothing of those below it."""
    above = {"", *LAYERS[: LAYERS.index(module)]}
    ours = {name[1:] for name in _imports(module) if name.startswith(".")}
    assert ours <= above


@pytest.mark.parametrize("module", MODULES)
def test_only_the_outer_modules_may_wait(module: str) -> None:
    """The engine and all values are synchronous: no await can come between deciding and applying."""
    waits = any(name.partition(".")[0] == "trio" for name in _imports(module))
    assert module in MAY_IMPORT_TRIO or not waits


@pytest.mark.parametrize("module", MODULES)
def test_only_the_clock_reads_the_wall_clock(module: str) -> None:
    """Time is an argument everywhere else, so a test can be at any moment it likes."""
    reads = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(_tree(module))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    assert module == "clock" or not reads & {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow"}


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_too_long(module: str) -> None:
    """At this size a file has two subjects, and wants to be two files."""
    lines = FILES[module].read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_MODULE_LINES


@pytest.mark.parametrize("module", MODULES)
def test_no_function_is_too_long(module: str) -> None:
    """A function that needs scrolling is read wrong."""
    long = {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(_tree(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: lines for name, lines in long.items() if lines > MAX_FUNCTION_LINES} == {}


def test_imports_are_found_wherever_they_stand() -> None:
    """The test of the test: cli imports its programs inside functions, executors from the package above."""
    assert ".daemon" in set(_imports("cli"))
    assert ".wire" in set(_imports("executors.job"))
    assert "trio" in set(_imports("clock"))
