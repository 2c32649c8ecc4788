"""The commands that are clients: `import`, `export` and `run`.

They speak the line protocol with FORMAT json over one blocking socket, since each does one
thing after the other. Whatever goes wrong with the server is an exit code: 69 for one that
cannot be reached, 77 for one that does not let us in.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import shlex
import signal
import socket
import sys
import termios
import time
from base64 import b64decode, b64encode
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

import orjson

from ..base.errors import Exit, Fatal
from ..base.output import NO_NEWLINE
from ..base.text import format_option
from ..host.config import ClientSettings
from ..host.secrets import read_tokens
from ..host.setting import CONTROL_PORT, Address, format_server
from ..tasks.kinds import PROGRAMS, WHOSE

CONNECT_S = 10.0
REPLY_S = 60.0  # a reply that takes longer never comes
PATIENCE_S = 60.0  # how long a lost server is waited for while a run goes on
READ_BYTES = 64 * 1024
MAX_AHEAD_BYTES = 256 * 1024 * 1024  # what is taken of the server while a pager shows the first of it
LOOK_S = 1.5  # after so much silence of a run it is looked at whether it waits for something
STDIN_S = 1.0  # how long something is waited for on standard input, where nobody types
MAX_STDIN_BYTES = 32 * 1024  # of standard input: it travels with the order, which is one line
MAX_CRONTAB_BYTES = 64 * 1024 * 1024
FIRST_PAUSE_S, LAST_PAUSE_S = 0.1, 2.0  # between two tries
TIMED_OUT, SIGNALLED = 124, 128  # as timeout(1) and the shell have them
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
CANCELLED = SIGNALLED + signal.SIGINT
NOT_FOUND = 127  # as a shell says it
BROKEN_PIPE = SIGNALLED + signal.SIGPIPE

Row = dict[str, Any]


class Lost(Fatal):
    """The server cannot be reached, or not any more."""

    def __init__(self, message: str) -> None:
        super().__init__(Exit.UNREACHABLE, message)


# --- the connection ----------------------------------------------------------------------------


class Connection:
    """One conversation with the control port."""

    def __init__(self, settings: ClientSettings, form: str = "json") -> None:
        self._socket, where = _connect(settings)
        self.where = where
        self._lines: deque[bytes] = deque()
        self._ahead = 0  # bytes of them
        self._rest = b""  # of a line that is still coming
        self._why_over: Lost | None = None  # nothing more will come
        self.out: Out | None = None  # that may hold back what came of it
        self._nothing_now: tuple[type[OSError], ...] = (TimeoutError, BlockingIOError)
        if type(self._socket) is not socket.socket:  # TLS, which takes its time to be loaded
            from ssl import SSLWantReadError

            self._nothing_now += (SSLWantReadError,)
        # Over a unix socket the kernel says who we are, unless that is not enough there.
        is_local = self._socket.family == socket.AF_UNIX
        if settings.token_file is not None and not (is_local and self._ask_text(b"WHOAMI").startswith(b"OK")):
            # Before FORMAT, so their answers are the only ones in text.
            answers = (self._ask_text(b"AUTH " + token) for token in read_tokens(settings.token_file))
            if not any((answer := each).startswith(b"OK") for each in answers):
                raise Fatal(Exit.REFUSED, f"{where}: {answer.decode(errors='replace').strip()}")
        reply = self._ask_text(b"FORMAT " + form.encode())
        if not reply.startswith((b"OK", b'{"ok":true')):
            raise Lost(f"{where}: it does not speak our protocol: {reply[:80]!r}")

    def ask(self, line: str | bytes) -> tuple[list[Row], Row]:
        """A whole reply: its rows and its status."""
        *rows, status = self.stream(line, REPLY_S)
        return rows, status

    def stream(
        self, line: str | bytes, timeout_s: float | None = None, on_silence: Callable[[], None] | None = None
    ) -> Iterator[Row]:
        """A reply as it comes; the status is the last one. `on_silence` is called after each such time."""
        self._send(line, timeout_s)
        while True:
            row = self._read(on_silence)
            yield row
            if "ok" in row:
                return

    def lines(self, line: str, timeout_s: float | None = None) -> Iterator[str]:
        """The same as the text that it is, where JSON was not asked for."""
        self._send(line, timeout_s)
        for text in self.rest():
            yield text
            if text.split(" ", 1)[0] in ("OK", "ERR", "PONG"):
                return

    def rest(self) -> Iterator[str]:
        """Whatever comes, until nobody wants it any more."""
        while True:
            yield self._read_line().decode(errors="replace")

    def close(self) -> None:
        """Ends it; what was asked for stays asked for."""
        self.turn_to(None)
        self._socket.close()

    def _ask_text(self, line: bytes) -> bytes:
        self._send(line, REPLY_S)
        return self._read_line()

    def _send(self, line: str | bytes, timeout_s: float | None) -> None:
        sent = line.encode(errors="surrogateescape") if isinstance(line, str) else line
        if b"\n" in sent:
            raise Fatal(Exit.USAGE, "an order is one line, so nothing in it may hold a newline")
        self._socket.settimeout(timeout_s)
        try:
            self._socket.sendall(sent + b"\n")
        except OSError as error:
            raise Lost(f"{self.where}: {error}") from error

    def _read(self, on_silence: Callable[[], None] | None) -> Row:
        line = self._read_line(on_silence)
        try:
            row: Row = orjson.loads(line)
        except ValueError as error:
            raise Lost(f"{self.where}: it does not speak our protocol: {line[:80]!r}") from error
        return row

    def _read_line(self, on_silence: Callable[[], None] | None = None) -> bytes:
        while not self._lines:
            self.turn_to(self.out)
            if self._lines:
                break
            if self._why_over:
                raise self._why_over
            try:
                self._take()
            except TimeoutError as error:
                if not on_silence:
                    raise Lost(f"{self.where}: {error}") from error
                on_silence()
        line = self._lines.popleft()
        self._ahead -= len(line)
        return line

    @property
    def has_lines(self) -> bool:
        """Whether more have come than were asked for."""
        return bool(self._lines)

    def turn_to(self, out: Out | None) -> None:
        """What is held back is written before anything else is, or is waited for."""
        if self.out:
            self.out.flush()
        self.out = out

    def _take(self) -> None:
        """Takes what comes. Raises TimeoutError, and what says that there is nothing now."""
        try:
            data = self._socket.recv(READ_BYTES)
        except self._nothing_now:
            raise
        except OSError as error:
            self._why_over = Lost(f"{self.where}: {error}")
            return
        if not data:
            self._why_over = Lost(f"{self.where}: the server has closed the connection")
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._lines += lines
        self._ahead += sum(map(len, lines))

    def take_until(self, writable: int) -> None:
        """Takes what comes until that can be written to: who takes nothing for long is cut by the server."""
        timeout_s = self._socket.gettimeout()
        self._socket.settimeout(0)
        try:
            while True:
                takes = not self._why_over and self._ahead < MAX_AHEAD_BYTES
                _, ready, _ = select.select([self._socket] * takes, [writable], [])
                if ready:
                    return
                with suppress(*self._nothing_now):
                    self._take()
        finally:
            self._socket.settimeout(timeout_s)


def _connect(settings: ClientSettings) -> tuple[socket.socket, str]:
    """The server that was named; else the data directory's, else the one on this machine."""
    if settings.server is not None:
        found = _open(settings.server)
        return _sealed(found, settings) if settings.speaks_tls else found, format_server(settings.server)
    here, address = settings.data / "control.sock", ("127.0.0.1", CONTROL_PORT)
    try:
        return _open(here), format_server(here)
    except Lost as error:
        why = error.message
    try:
        return _open(address), format_server(address)
    except Lost as error:
        raise Lost(f"no server at {why}, and {error.message}") from error


def _open(server: Address | Path) -> socket.socket:
    try:
        if isinstance(server, Path):
            with ExitStack() as held:
                found = held.enter_context(socket.socket(socket.AF_UNIX))
                found.settimeout(CONNECT_S)
                found.connect(str(server))
                held.pop_all()
            return found
        found = socket.create_connection(server, CONNECT_S)
        # A run may be silent for days; a network that went away must not be waited for as long.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    except OSError as error:
        raise Lost(f"{format_server(server)}: {error.strerror or error}") from error
    return found


def _sealed(found: socket.socket, settings: ClientSettings) -> socket.socket:
    """The same over TLS, with a server that is who it was said to be; a unix socket stays as it is."""
    if isinstance(settings.server, Path) or settings.server is None:
        return found
    from ..host.tls import client_context

    context = client_context(settings.tls_ca, settings.tls_cert, settings.tls_key)
    try:
        return context.wrap_socket(found, server_hostname=settings.server[0])
    except OSError as error:
        found.close()
        why = getattr(error, "verify_message", None) or getattr(error, "reason", None) or error
        raise Lost(f"{format_server(settings.server)}: TLS: {why}") from error


def refuse(status: Row) -> NoReturn:
    """Raises Fatal for a reply that is ERR, with the exit status that its code has."""
    code = status["code"]
    exits = {"denied": Exit.REFUSED, "auth-required": Exit.REFUSED, "internal": Exit.BUG}
    exits |= dict.fromkeys(
        ("busy", "disk-full", "read-only", "too-many", "limit", "unwell", "not-leader"), Exit.TRY_AGAIN
    )
    hint = " (--token-file FILE shows who you are)" if code == "auth-required" else ""
    raise Fatal(exits.get(code, Exit.USAGE), f"{code}: {status['message']}{hint}")


# --- import and export -------------------------------------------------------------------------


class Out:
    """Standard output or error, for as long as somebody reads it (`| head`).

    Of lines that have come together, those for one of the two are written as one.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        self.why_closed: OSError | None = None  # all that follows goes nowhere
        # Whose server is not to wait for whoever reads this, as a pager.
        self.source: Connection | None = None
        self._held = bytearray()
        self._fd = -1
        with suppress(OSError):  # who calls us may have put something else in its place
            self._fd = stream.fileno() if stream else -1

    @property
    def is_open(self) -> bool:
        if not (self.source and self.source.has_lines):
            self.flush()
        return self.why_closed is None

    def say(self, line: str) -> None:
        self.write(f"{line}\n".encode())

    def write(self, said: bytes) -> None:
        if self.stream is None:
            self.why_closed = OSError(errno.EBADF, "it is closed")
        elif not self.why_closed:
            if self.source and self.source.out is not self:
                self.source.turn_to(self)
            self._held += said
            if not (self.source and self.source.has_lines and len(self._held) < READ_BYTES):
                self.flush()

    def flush(self) -> None:
        """Writes what is held back."""
        held, self._held = self._held, bytearray()
        if self.stream is None or self.why_closed or not held:
            return
        try:
            for start in range(0, len(held), select.PIPE_BUF):  # so much is taken whole where anything is
                if self.source and self._fd >= 0:
                    self.source.take_until(self._fd)
                self.stream.buffer.write(held[start : start + select.PIPE_BUF])
                self.stream.buffer.flush()
        except OSError as error:
            self.why_closed = error
            # What is still in the buffer is written when Python ends, and must not fail there again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._fd)

    def close(self) -> None:
        self.flush()
        if self.why_closed and not isinstance(self.why_closed, BrokenPipeError):
            raise Fatal(Exit.IO, f"standard output: {self.why_closed.strerror}")


def written(row: Row) -> bytes:
    """What a row of LOG stands for, as it was written; a remark of ours says that it is one."""
    text = b64decode(row["base64"]) if "base64" in row else row["text"].encode()
    if not row["fd"]:
        return b"cronflowd: %b\n" % text
    return text if row.get("end") == NO_NEWLINE else text + b"\n"


def import_crontab(
    settings: ClientSettings, path: str, is_system: bool, is_dry: bool, is_replace: bool
) -> int:
    """Sends a crontab's lines; reports each, and goes on after one that is refused."""
    lines = _read_crontab(path)
    verb = b"IMPORT " + b"--system " * is_system + b"--dry-run " * is_dry + b"--replace " * is_replace
    out = Out(sys.stdout)
    with closing(Connection(settings)) as connection, closing(out):
        counts = _send_lines(connection, lines, verb, is_dry, out)
        done, added = ("nothing was changed: ", "would be added") if is_dry else ("", "added")
        added += f", {counts['replaced']} {added.replace('added', 'replaced')}" * bool(counts["replaced"])
        there = f"{counts['there already']} there already, {counts['refused']} refused"
        out.say(f"{done}{counts['added']} {added}, {there}")
    return Exit.CORRUPT if counts["refused"] else Exit.OK


def _send_lines(
    connection: Connection, lines: Iterable[bytes], verb: bytes, is_dry: bool, out: Out
) -> Counter[str]:
    counts = Counter[str]()
    for number, line in enumerate(lines, 1):
        try:
            rows, status = connection.ask(verb + line)
        except Lost as error:
            raise Lost(
                f"line {number}: {error.message}; send it again, what is in is not added twice"
            ) from error
        if status.get("code") in ("auth-required", "denied"):
            refuse(status)
        if outcome := _outcome(status, is_dry):
            word, told = outcome
            for note in dict.fromkeys(row["note"] for row in rows):
                told += f"; {note}: " + "; ".join(row["text"] for row in rows if row["note"] == note)
            out.say(f"line {number}: {told}")
            counts[word] += 1
    return counts


def _read_crontab(path: str) -> list[bytes]:
    try:
        # A named pipe may be meant, and whoever has typed its name can end the waiting.
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            content = file.read(MAX_CRONTAB_BYTES + 1)
    except OSError as error:
        raise Fatal(Exit.USAGE, f"{path}: {error.strerror}") from error
    if len(content) > MAX_CRONTAB_BYTES:
        raise Fatal(Exit.USAGE, f"{path}: longer than {MAX_CRONTAB_BYTES} bytes")
    return content.removesuffix(b"\n").split(b"\n")


def _outcome(status: Row, is_dry: bool) -> tuple[str, str] | None:
    """What a line came to: what it counts as, and how it is told; None for comments."""
    if not status["ok"]:
        if status["code"] == "exists":
            return "there already", f"not added: {status['message']}"
        return "refused", f"refused: {status['message']}"
    if "ignored" in status:
        return None
    if name := status.get("set"):
        return "", f"set {name}"
    task = status["jobName"] + ("" if is_dry else f" (id {status['id']})")
    change = status.get("change", "added")
    if change == "unchanged":
        return "there already", f"unchanged {task}"
    verb = {"added": "would add", "replaced": "would replace"}[change] if is_dry else change
    return change, f"{verb} {task}, next {status['next'] or 'not by the clock'}"


def export_crontab(settings: ClientSettings, refs: Sequence[str]) -> int:
    """Prints tasks as a crontab."""
    out = Out(sys.stdout)
    with closing(Connection(settings)) as connection, closing(out):
        out.source = connection
        for row in connection.stream(" ".join(["EXPORT", *refs]), REPLY_S):
            if "line" in row:
                out.say(row["line"])
            elif not row["ok"]:
                refuse(row)
            if not out.is_open:
                break
    return Exit.OK if out.is_open else BROKEN_PIPE


# --- run ---------------------------------------------------------------------------------------


class _Interrupted(BaseException):
    """A signal came while the run was known, and can be cancelled."""


def run_command(settings: ClientSettings, options: Iterable[tuple[str, str]], argv: Sequence[str]) -> int:
    """Has a worker run a command once, shows what it writes, and ends as it does."""
    given = list(options)
    kind = dict(given).get("type", "shell")
    if kind not in WHOSE["stdin"]:
        if left := _waiting_input():
            _say(f"{left} bytes on standard input are not passed: type={kind} takes none")
    elif data := _read_input():
        given.append(("stdin", b64encode(data).decode()))
    words = [format_option(key, value) for key, value in given]
    watch = _Watch(settings, " ".join(["NOW", *words, _as_command(kind, argv)]))
    # What is ignored (nohup, a job behind a script's &) stays so.
    numbers = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, watch.interrupt) for number in numbers}
    try:
        status = watch.wait()
        if status == NOT_FOUND and len(argv) == 1 and " " in argv[0]:
            _say("what is one word is a program's name; a line for a shell is run -- sh -c '…'")
        return status
    except _Interrupted:
        return watch.cancel()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        watch.close()


def _read_input() -> bytes:
    """Standard input up to its end, for the command; nothing where a person types, or where nothing comes."""
    if sys.stdin is None or os.isatty(0):
        return b""
    found, wait_s = b"", STDIN_S
    while select.select([0], [], [], wait_s)[0]:
        try:
            data = os.read(0, READ_BYTES)
        except OSError as error:
            raise Fatal(Exit.USAGE, f"standard input: {error.strerror}; nothing was run") from error
        if not data:
            break
        found, wait_s = found + data, REPLY_S
        if len(found) > MAX_STDIN_BYTES:
            what = f"standard input has more than the {MAX_STDIN_BYTES} bytes that an order can hold"
            raise Fatal(Exit.USAGE, f"{what}; nothing was run. Have the command read a file")
    else:
        if found:
            raise Fatal(Exit.USAGE, f"standard input has no end within {REPLY_S:g} s; nothing was run")
        _say(f"nothing came on standard input within {STDIN_S:g} s, and nothing is passed")
    return found


def _waiting_input() -> int:
    """How many bytes stand on standard input."""
    with suppress(OSError):
        if sys.stdin is not None and not os.isatty(0):
            return int.from_bytes(fcntl.ioctl(0, termios.FIONREAD, bytes(4)), sys.byteorder)
    return 0


def _say(text: str) -> None:
    with suppress(OSError):
        print(f"cronflowd: {text}", file=sys.stderr, flush=True)


def _as_command(kind: str, argv: Sequence[str]) -> str:
    """The arguments as they were given, for whoever splits them again; else the text they are."""
    if kind not in PROGRAMS:
        return " ".join(argv)
    command = shlex.join(argv)
    # A first word with `=` would be taken for an option.
    return f"exec {command}" if kind == "shell" and "=" in argv[0] else command


class _Watch:
    """One order, from NOW to the end of its run, over as many connections as that takes."""

    def __init__(self, settings: ClientSettings, order: str) -> None:
        self._settings = settings
        self._order = order
        self._connection: Connection | None = None
        self._task = 0
        self._runs: list[int] = []
        self._exits: list[int] = []  # of those that have ended
        self._shown = 0  # rows of the LOG of the next one
        self._signal = 0
        self._outs = {1: Out(sys.stdout), 2: Out(sys.stderr)}
        self._has_told_closed = False  # that nobody reads it any more
        self._status = 0  # if what it wrote could not be written here
        self._may_wait = True  # for a worker, or for something else; it may have been told
        self._told = ""

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """A signal: waited for until there is a run that can be cancelled. timeout(1) sends two at once."""
        is_first, self._signal = not self._signal, number
        if self._runs and is_first:
            raise _Interrupted

    def close(self) -> None:
        if self._connection:
            self._connection.close()

    def wait(self) -> int:
        """The exit status of the job, as soon as it has one. Raises Lost, and _Interrupted."""
        self._connection = Connection(self._settings)
        try:
            _, status = self._connection.ask(self._order)
        except Lost as error:
            raise Lost(f"{error.message}; it is not known whether the command was taken") from error
        if not status["ok"]:
            refuse(status)
        # All rows about this id are of this order, also when it has ended already.
        self._task = status["id"]
        lost_at, pause_s = 0.0, FIRST_PAUSE_S
        while True:
            try:
                if self._connection is None:
                    self._connection = Connection(self._settings)
                    lost_at, pause_s = 0.0, FIRST_PAUSE_S
                return self._follow(self._connection)
            except Lost as error:
                self.close()
                self._connection = None
                now = time.monotonic()
                lost_at = lost_at or now
                if now - lost_at > PATIENCE_S or self._signal:
                    raise Lost(f"{error.message}; the run goes on without us (RUNS {self._task})") from error
            time.sleep(pause_s)
            pause_s = min(LAST_PAUSE_S, pause_s * 2)

    def _follow(self, connection: Connection) -> int:
        """With on=all one run after the other; the worst of their ends is ours."""
        for out in self._outs.values():
            out.source = connection
        attempts = self._attempts(connection)
        self._runs = sorted({row["run"] for row in attempts if row["run"] is not None})
        if self._signal:
            raise _Interrupted
        for run in self._runs[len(self._exits) :]:
            rows = connection.stream(f"LOG {run} follow", LOOK_S, partial(self._tell_waiting, run))
            for row in islice(rows, self._shown, None):
                if "fd" in row:
                    self._shown += 1
                    self._may_wait = row["fd"] == 0  # another attempt, perhaps
                    self._write(run, row["fd"] or 2, written(row))
            self._tell_closed(run)
            self._shown, self._may_wait = 0, True
            self._exits.append(self._exit(self._attempts(connection, run)[0]))
        return max(self._exits) if self._exits else self._exit(attempts[0])

    def _tell_waiting(self, run: int) -> None:
        """Says what the run waits for, if it does, and whenever that is something else."""
        if not self._may_wait:
            return
        with suppress(Fatal), closing(Connection(self._settings)) as connection:
            self._may_wait = self._attempts(connection, run)[0]["state"] == "queued"
            rows, _ = connection.ask(f"WHY {self._task}") if self._may_wait else ([], {})
            for text in (row["what"] for row in rows if row["what"].startswith(f"run {run}, ")):
                if text != self._told and "queued" in text:
                    self._told = text
                    _say(text)

    def _attempts(self, connection: Connection, run: int | None = None) -> list[Row]:
        """The newest first."""
        rows, status = connection.ask(f"RUNS {self._task}")
        rows = [row for row in rows if run in (None, row["run"])]
        if not rows:
            refuse(status if not status["ok"] else {"code": "internal", "message": "the run is not known"})
        return rows

    def _write(self, run: int, fd: int, said: bytes) -> None:
        """Nobody may be there any more to read it (`| head`), which ends nothing but the writing."""
        self._outs[fd].write(said)
        self._tell_closed(run)

    def _tell_closed(self, run: int) -> None:
        out = self._outs[1]
        if not out.is_open and out.why_closed and not self._has_told_closed:
            self._has_told_closed = True
            why = f"standard output: {out.why_closed.strerror}"
            _say(f"{why}; run {run} goes on, and LOG {run} has what it writes")
            self._status = 0 if isinstance(out.why_closed, BrokenPipeError) else Exit.IO

    def _exit(self, row: Row) -> int:
        state, run = row["state"], row["run"]
        if state == "ok":
            return self._status
        if state == "failed":
            return int(row["exit"]) if row["exit"] else 1
        _say(f"run {run} has ended as {state}")
        return {"timeout": TIMED_OUT, "cancelled": CANCELLED}.get(state, Exit.TRY_AGAIN)

    def cancel(self) -> int:
        """Over a connection of its own: the other one waits for the LOG's end. Ctrl-C once more ends us."""
        for number in (signal.SIGINT, signal.SIGQUIT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        for run in self._runs[len(self._exits) :]:
            try:
                with closing(Connection(self._settings)) as connection:
                    _, status = connection.ask(f"CANCEL {run}")
            except Fatal as error:
                status = {"ok": False, "message": error.message}
            if status["ok"]:
                _say(f"run {run} is cancelled; LOG {run} has what it writes until it has ended")
            else:
                _say(f"run {run} was not cancelled: {status['message']}")
        return SIGNALLED + self._signal
