"""Any verb of the control port as a command: `cronflowd ls`, `cronflowd runs`, `cronflowd log NAME -f`.

The words are sent as they are, those that hold blanks in quotes. What was asked for goes to
standard output: rows, as a table where that is a terminal, or of a verb that changes something without
them what its status line says. The rest goes to standard error; ERR is an error, and decides the exit status.
"""

from __future__ import annotations

import errno
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from getpass import getpass

from ..ask.commands import VERBS, only_reads
from ..base.errors import Exit, Fatal
from ..base.text import format_option, format_written
from ..host.config import ClientSettings
from .client import BROKEN_PIPE, MAX_STDIN_BYTES, REPLY_S, Connection, Out, refuse, written

ALIASES = {"ls": "LIST"}
_OF_A_CONNECTION = ("HELLO", "AUTH", "FORMAT", "QUIT")
_MAKE = ("USER", "TOKEN")  # their rows show what was made for it
_VERBATIM = ("ADD", "NOW", "AT", "BEAT")  # whose last word is a text of its own


def commands(taken: Iterable[str]) -> Iterator[tuple[str, str, str, str]]:
    """(command, verb, what follows it, summary) of all that are not called by other means."""
    for command, name in {**ALIASES, **{name.lower(): name for name in VERBS}}.items():
        if name not in _OF_A_CONNECTION and command not in taken:
            yield command, name, VERBS[name].usage.removeprefix(name), VERBS[name].summary


def ask(settings: ClientSettings, name: str, words: Sequence[str]) -> int:
    """Says one line and shows the reply; returns the exit status."""
    out, errors = Out(sys.stdout), Out(sys.stderr)
    if name == "LOG":
        return _log(settings, words, out, errors)
    form = "text"
    if sys.stdout and sys.stdout.isatty():
        form = f"table width={shutil.get_terminal_size().columns}"
    said = order(name, words)
    if name == "USER":  # before there is somebody who waits: a person may be asked
        said += ask_password(words)
    with closing(out), closing(Connection(settings, form)) as connection:
        out.source = errors.source = connection
        reads = only_reads(said)
        shows, has_shown = reads or name in _MAKE, False
        # What reads answers soon. What changes very many tasks, or writes a large file, takes its time.
        for line in connection.lines(said, REPLY_S if reads else None):
            word, _, rest = line.partition(" ")
            if word == "ERR":
                code, _, message = rest.partition(" ")
                refuse({"code": code, "message": message})
            if word not in ("OK", "PONG"):
                (out if shows else errors).say(line)
                has_shown = shows
            elif word == "PONG" or not (reads or has_shown) or name == "WHOAMI":
                out.say(rest or word)  # all there is
            elif rest and not (reads and rest.isdigit()):  # more than how many rows there were
                errors.say(rest)
            if not out.is_open:
                return BROKEN_PIPE
        for line in connection.rest() if name == "WATCH" else ():
            out.say(line)
            if not out.is_open:
                return BROKEN_PIPE
    return Exit.OK


def ask_password(words: Sequence[str]) -> str:
    """What goes behind USER ADD and USER PASSWORD, asked for on the terminal, if that is one.

    All users of a machine can read the words that a command was started with. Raises Fatal.
    """
    what, named = words[0].upper() if words else "", [word for word in words[1:] if "=" not in word]
    if what not in ("ADD", "PASSWORD"):
        return ""
    if len(named) != 1:
        raise Fatal(Exit.USAGE, f"one account is wanted: cronflowd user {what.lower()} NAME")
    if any(word.startswith("password=") for word in words):
        raise Fatal(Exit.USAGE, "others can read password= here; leave it out, and it is asked for")
    if not _is_typed():
        return ""  # then one is made
    password = getpass("password (empty: one is made): ")
    if password and getpass("again: ") != password:
        raise Fatal(Exit.USAGE, "the two passwords are not the same")
    if not password:
        return ""
    return " " + (format_option("password", password) if what == "ADD" else password)


def order(name: str, words: Sequence[str]) -> str:
    """The line; as in a shell, what holds a blank is one word. Raises Fatal."""
    if name == "SECRET" and len(words) > 1 and words[0].upper() == "PUT":
        if len(words) > 3:
            raise Fatal(Exit.USAGE, "a name and one value, in quotes; better none, which asks for it")
        value = words[2] if words[2:] else _read_value(words[1])
        return f"SECRET PUT {words[1]} {format_written('', value)[1:]}"
    quoted = [_quoted(word) for word in words]
    if words and "|LIST" in VERBS[name].usage and words[0].lower() == "ls":
        quoted[0] = "LIST"
    if words and name in _VERBATIM:
        quoted[-1] = words[-1]
    return " ".join([name, *quoted])


def _is_typed() -> bool:
    return bool(sys.stdin and sys.stdin.isatty())


def _read_value(name: str) -> str:
    """A value that stands in no list of processes, and in no shell's history."""
    if _is_typed():
        return getpass(f"{name}: ")
    try:
        if not sys.stdin:
            raise OSError(errno.EBADF, "it is closed")
        return sys.stdin.buffer.read(MAX_STDIN_BYTES).decode().removesuffix("\n")
    except OSError as error:
        raise Fatal(Exit.USAGE, f"the value on standard input: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Fatal(Exit.USAGE, "the value on standard input is not UTF-8") from error


def _quoted(word: str) -> str:
    key, equals, value = word.partition("=")
    if word and not {" ", "\t"} & set(word):
        return word
    if equals and re.fullmatch(r"[A-Za-z][\w.-]*", key):
        return word if value.startswith(('"', "{")) else format_option(key, value)
    return word if word.startswith('"') else format_option("", word)[1:]


def _log(settings: ClientSettings, words: Sequence[str], out: Out, errors: Out) -> int:
    """What a run wrote, as it wrote it."""
    asked = [word for word in words if word not in ("-f", "--follow", "follow")]
    follows = len(asked) < len(words)
    with closing(out), closing(Connection(settings)) as connection:
        out.source = errors.source = connection
        line = order("LOG", [*asked, *["follow"] * follows])
        for row in connection.stream(line, None if follows else REPLY_S):
            if "fd" in row:
                (out if row["fd"] == 1 else errors).write(written(row))
            elif not row["ok"]:
                refuse(row)
            if not out.is_open:
                return BROKEN_PIPE
    return Exit.OK
