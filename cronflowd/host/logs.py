"""Log records as single lines on stderr: logfmt, JSON, or logfmt for the journal.

What a record says is in its message; what it is about is in `extra=`, and each becomes a
key of its own. A record is one line whatever it holds: text that came over the network
cannot start a second one, or colour anybody's terminal.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import select
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TextIO

# The syslog numbers by which journald files a line that begins with <N>.
PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7))
PATIENCE_S = 0.02  # with a reader that has taken all so far: it may just be slow
PIECE = 1000  # characters; where a pipe takes anything at all, it takes so many
STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_up(form: str, level: str) -> None:
    """Send every record of this process to stderr, in one of the forms of --log-format."""
    root = logging.getLogger()
    ours = [each for each in root.handlers if isinstance(each, _Stderr) and each.stream is sys.stderr]
    handler = ours[0] if ours else _Stderr(sys.stderr)  # the same one after HUP: it knows what is lost
    handler.setFormatter(_Json() if form == "json" else _Journal() if _is_journal() else _Logfmt())
    root.handlers = [handler]
    root.setLevel(level.upper())
    # A full or vanished stderr must not become a traceback a record.
    logging.raiseExceptions = False


def say(line: str) -> None:
    """Says on stdout what whoever started us waits for; that nobody reads it ends, and stops, no daemon."""
    data = line.encode() + b"\n"
    with suppress(OSError):
        while data and _has_room(1, PATIENCE_S):
            data = data[os.write(1, data[:PIECE]) :]
    if data:
        logging.getLogger(__name__).warning("nobody was told on stdout: %s", line)


def tell(text: object, end: str = "\n") -> None:
    """Says on stdout what was asked for. Where it cannot be said, all is done all the same; see `untold`."""
    try:
        if sys.stdout is None:
            raise OSError(errno.EBADF, "it is closed")
        print(text, end=end, flush=True)
    except OSError as error:
        _untold.append(error)
        if sys.stdout is not None:
            # What is still in its buffer is written when Python ends, and must not fail there again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def untold() -> OSError | None:
    """Why something could not be said on stdout; asked once."""
    why = _untold[0] if _untold else None
    _untold.clear()
    return why


_untold: list[OSError] = []


def last_words(text: str) -> None:
    """Says on stderr why a process ends, which it does whether that is read or not."""
    with suppress(OSError):
        _put(sys.stderr, text + "\n")


class _Stderr(logging.StreamHandler[TextIO]):
    """Waits for nobody long: a stopped terminal (Ctrl-S), or a reader that hangs, would stop every job."""

    _lost = 0  # lines that were not taken whole
    _is_cut = False  # the last one amid

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._lost:
                told = {"levelname": "WARNING", "levelno": logging.WARNING, "args": (self._lost,)}
                lost = logging.makeLogRecord(told | {"msg": "stderr took nothing: %d lines are lost"})
                self._lost = 0 if self._write(lost) else self._lost + 1
            if not self._lost:
                self._lost += not self._write(record)
        except Exception:  # noqa: BLE001  # as the handlers of the standard library do
            self.handleError(record)

    def _write(self, record: logging.LogRecord) -> bool:
        text = "\n" * self._is_cut + self.format(record) + "\n"
        taken = _put(self.stream, text, 0 if self._lost else PATIENCE_S)
        self._is_cut = taken < len(text) and (taken > 0 or self._is_cut)
        return taken == len(text)


def _put(stream: TextIO, text: str, patience_s: float = PATIENCE_S) -> int:
    """Writes what is taken; how many characters that was."""
    for start in range(0, len(text), PIECE):
        if not _has_room(stream, patience_s):
            return start
        stream.write(text[start : start + PIECE])
        stream.flush()
    return len(text)


def _has_room(stream: TextIO | int, patience_s: float) -> bool:
    try:
        return bool(select.select([], [stream], [], patience_s)[1])
    except (OSError, ValueError):
        return True  # there is no descriptor, or none any more


def _is_journal() -> bool:
    """Whether stderr is the journal's: systemd names device and inode of the stream it made."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """What a record says, in the order in which a reader wants it."""
    said: dict[str, object] = {"level": record.levelname.lower(), "msg": record.getMessage()}
    said |= {key: value for key, value in vars(record).items() if key not in STANDARD_FIELDS}
    if record.exc_info:
        said["traceback"] = logging.Formatter().formatException(record.exc_info)
    return said


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _word(value: object) -> str:
    text = str(value)
    if re.fullmatch(r"[!#-<>-\[\]-~]+", text):  # printable ASCII but for blank, ", = and \
        return text
    return _printable(json.dumps(text, ensure_ascii=False))


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in text)


class _Logfmt(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {"time": _time(record)} | _fields(record)
        return " ".join(f"{key}={_word(value)}" for key, value in fields.items())


class _Journal(logging.Formatter):
    """The journal keeps time and level itself."""

    def format(self, record: logging.LogRecord) -> str:
        number = next((number for level, number in PRIORITIES if record.levelno >= level), 7)
        fields = _fields(record)
        del fields["level"]
        text = _printable(str(fields.pop("msg")))
        return " ".join([f"<{number}>{text}", *(f"{key}={_word(value)}" for key, value in fields.items())])


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps({"time": _time(record)} | _fields(record), default=str)
