"""Jobs of type `custom`: handlers, which are Python functions, each run in a process of its own.

A handler can neither block nor break the worker, and what ends it ends a shell job too:
timeout, KILL and whatever it leaves behind are the process executor's. Nothing of a
handler is imported in here; this side knows names only.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path

from attrs import evolve

from ...base.errors import Exit, Fatal
from . import handler
from .job import Ended, Job
from .processes import run_process
from .shell import job_environ

log = logging.getLogger(__name__)

MAX_HANDLERS = 256  # that a worker names; HELLO is one line
MAX_WHY_BYTES = 4096


async def run_handler(job: Job, directory: Path | None, environ: Mapping[str, str]) -> Ended:
    """The command is the handler's name, payload= its data."""
    order = job.order
    reader, writer = os.pipe()
    try:
        os.set_blocking(reader, False)
        argv = [sys.executable, "-u", "-P", handler.__file__, order.command.strip(), str(writer)]
        argv += [str(directory)] if directory else []
        # It has to find what this Python finds.
        environ = {key: text for key, text in os.environ.items() if key.startswith("PYTHON")} | dict(environ)
        data = order.options.get("payload", "").encode()
        ended = await run_process(job, argv, job_environ(order, environ), data, (writer,))
        return evolve(ended, why=ended.why or _read(reader))
    finally:
        os.close(reader)
        os.close(writer)


def _read(reader: int) -> str:
    try:
        return os.read(reader, MAX_WHY_BYTES).decode(errors="replace")
    except BlockingIOError:
        return ""


def names(directory: Path | None) -> list[str]:
    """The handlers that this worker has, whether or not they work."""
    found = {point.name for point in entry_points(group=handler.ENTRY_POINTS)}
    found |= {path.stem for path in _files(directory)}
    return sorted(name for name in found if handler.NAME.fullmatch(name))[:MAX_HANDLERS]


def check(directory: Path | None) -> None:
    """Raises Fatal for a directory that cannot be used, and warns of files in it that cannot."""
    if directory is None:
        return
    if not directory.is_dir():
        raise Fatal(Exit.CONFIG, f"{directory}: cannot read the handlers: it is not a directory")
    if why := handler.why_unsafe(directory):
        raise Fatal(Exit.CONFIG, why)
    for path in _files(directory):
        if why := _why_useless(path):
            log.warning("handler %s will not run: %s", path.stem, why)
    if len(_files(directory)) > MAX_HANDLERS:
        log.warning("%s: more than %d handlers; the others are not offered", directory, MAX_HANDLERS)


def _files(directory: Path | None) -> list[Path]:
    return [path for path in directory.glob("*.py") if handler.is_handler(path)] if directory else []


def _why_useless(path: Path) -> str:
    """As far as it can be told without running any of it."""
    if not handler.NAME.fullmatch(path.stem):
        return "its name is not 1 to 64 letters, digits, . _ -"
    try:
        # Compiled and thrown away: a typing error is told now, and nothing is carried out.
        compile(path.read_bytes(), path, "exec")
    except (OSError, SyntaxError, ValueError) as error:
        return str(error)
    return handler.why_unsafe(path)
