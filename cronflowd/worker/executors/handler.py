"""The process of one handler: finds the function, calls it, and tells what became of it.

It is run as a program of its own, by its path: `handler.py NAME FD [DIRECTORY]`, with the data
on standard input (see custom.py). So it imports nothing of cronflowd, starts quickly, and
cannot find other modules because of the directory in which the job runs. What a handler
writes is the job's output; why it failed goes to the descriptor FD as well.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

ENTRY_POINTS = "cronflowd.handlers"  # the group under which installed packages name their handlers
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
MAX_WHY = 500  # characters
FAILED, NOT_RUNNABLE, NOT_FOUND, TERMINATED = 1, 126, 127, 128 + signal.SIGTERM

Handler = Callable[[Any, "Context"], Any]


class UnusableError(Exception):
    """There is no such handler, or it cannot be used."""

    def __init__(self, why: str, status: int = NOT_RUNNABLE) -> None:
        super().__init__(f"cannot start: {why}")
        self.status = status


class Context:
    """What a handler knows of its run, and how it tells of itself."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.run = int(environ.get("CRONFLOW_RUN_ID") or 0)
        self.attempt = int(environ.get("CRONFLOW_ATTEMPT") or 0)
        self.task = int(environ.get("CRONFLOW_TASK_ID") or 0)
        self.name = environ.get("CRONFLOW_JOB_NAME", "")
        self.due = environ.get("CRONFLOW_DUE_AT", "")  # RFC 3339
        self.fire_id = environ.get("CRONFLOW_FIRE_ID", "")  # the same for every attempt
        prefix = "CRONFLOW_ARG_"
        self.args = {
            key.removeprefix(prefix): text for key, text in environ.items() if key.startswith(prefix)
        }
        self.is_cancelled = False  # whether it was told to end: by CANCEL, a timeout, a replacement
        self._on_cancel: Callable[[], object] | None = None
        self._progress = ""

    def log(self, text: object) -> None:
        """Writes a line of output."""
        print(text, flush=True)

    def progress(self, fraction: float, text: str = "") -> None:
        """Writes how far it is, from 0 to 1: `progress 42% text`, and not the same twice in a row."""
        line = " ".join(f"progress {min(max(fraction, 0), 1):.0%} {text}".split())
        if line != self._progress:
            self._progress = line
            self.log(line)

    def check_cancelled(self) -> None:
        """Ends the handler here if it was told to end. What stands in `finally` is still done."""
        if self.is_cancelled:
            raise SystemExit(TERMINATED)

    def _cancel(self, _number: int, _frame: FrameType | None) -> None:
        self.is_cancelled = True
        if self._on_cancel:
            self._on_cancel()


def main(arguments: list[str]) -> int:
    """Carries out one handler; returns the exit code."""
    name, report, directory = arguments[0], int(arguments[1]), "".join(arguments[2:])
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    context = Context(os.environ)
    signal.signal(signal.SIGTERM, context._cancel)
    try:
        data = parse_data(sys.stdin.buffer.read())
        result = call(find(name, Path(directory) if directory else None), data, context)
    except UnusableError as error:
        return _tell(report, str(error), error.status)
    except Exception as error:  # noqa: BLE001 - whatever it is, it ends this process only
        traceback.print_exception(error)
        return _tell(report, _message(error), FAILED)
    if result is not None:
        context.log(format_result(result))
    return 0


def _tell(report: int, why: str, status: int) -> int:
    os.write(report, why[:MAX_WHY].encode(errors="backslashreplace"))
    return status


def _message(error: BaseException) -> str:
    # A nursery's group says nothing itself; the first of its errors does.
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def parse_data(text: bytes) -> Any:
    """The handler's data; without any, an empty object. Raises UnusableError."""
    try:
        return json.loads(text or b"{}")
    except (ValueError, RecursionError) as error:
        raise UnusableError(f"the payload is no JSON: {error}") from None


def format_result(result: object) -> str:
    """One line of JSON, or what Python shows of a value that JSON cannot hold."""
    try:
        return json.dumps(result, ensure_ascii=False, allow_nan=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return repr(result)


# --- finding it -------------------------------------------------------------------------


def find(name: str, directory: Path | None) -> Handler:
    """The handler's function: of the directory, else of an installed package. Raises UnusableError."""
    if not NAME.fullmatch(name):
        raise UnusableError("the handler's name is not 1 to 64 letters, digits, . _ -", NOT_FOUND)
    found = _find(name, directory)
    handle = found if callable(found) else getattr(found, "handle", None)
    if not callable(handle):
        raise UnusableError(f"handler {name} has no function handle(data, context)")
    return handle  # type: ignore[no-any-return]


def _find(name: str, directory: Path | None) -> Any:
    try:
        if directory and is_handler(path := directory / f"{name}.py"):
            return _load_file(path)
        return _load_installed(name)
    except UnusableError:
        raise
    except Exception as error:  # noqa: BLE001 - a module may fail in any way while it is imported
        traceback.print_exception(error)
        raise UnusableError(f"handler {name}: {_message(error)}") from None


def is_handler(path: Path) -> bool:
    """Whether a file of the directory is one; those that begin with `_` or `.` help the others."""
    return path.suffix == ".py" and path.name[0] not in "_." and path.is_file()


def why_unsafe(path: Path) -> str:
    """What is wrong with a file or directory whose code would be run; empty if nothing is."""
    mode = path.stat().st_mode & 0o7777
    return f"{path}: others can change it (mode {mode:04o}); chmod go-w it" if mode & 0o022 else ""


def _load_installed(name: str) -> object:
    # Takes as long to be imported as everything else together.
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINTS, name=name):
        return point.load()
    raise UnusableError(f"this worker has no handler {name}", NOT_FOUND)


def _load_file(path: Path) -> object:
    if why := why_unsafe(path.parent) or why_unsafe(path):
        raise UnusableError(why)
    # At the end, so that no helper beside the handlers can stand before a library's module.
    sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location("handler_" + re.sub(r"\W", "_", path.stem), path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# --- calling it -------------------------------------------------------------------------


def call(handle: Handler, data: Any, context: Context) -> Any:
    """Calls it, within trio if it is async; TERM cancels that, and a plain function can ask."""
    if not inspect.iscoroutinefunction(handle):
        return handle(data, context)
    import trio

    return trio.run(_await, handle, data, context)


async def _await(handle: Handler, data: Any, context: Context) -> Any:
    import trio

    token = trio.lowlevel.current_trio_token()
    with trio.CancelScope() as scope:
        # Between two steps of Python's own, which is when a signal's function is called,
        # this is the one thing in trio that may be done.
        context._on_cancel = lambda: token.run_sync_soon(scope.cancel)
        if context.is_cancelled:
            scope.cancel()
        try:
            return await handle(data, context)
        finally:
            context._on_cancel = None
    raise SystemExit(TERMINATED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
