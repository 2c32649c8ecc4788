"""What can go wrong, in the two forms that leave the program: a refusal and an exit.

A `Refusal` is an order that was not carried out: it changed nothing, and whoever gave it
reads `ERR <code> <message>`. A `Fatal` ends the process with one of the exit codes that
protocol.md promises (they follow sysexits.h, so that shell scripts and systemd can tell
a bad configuration from a broken disk).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import IntEnum

CODES = frozenset(
    "unknown-command syntax bad-schedule bad-option bad-line not-found exists cycle denied"
    " auth-required too-long too-many limit busy disk-full read-only not-leader unwell internal".split()
)


class Exit(IntEnum):
    """Exit codes, after sysexits.h."""

    OK = 0
    USAGE = 2
    CORRUPT = 65
    UNREACHABLE = 69
    BUG = 70
    CANNOT_CREATE = 73
    IO = 74
    TRY_AGAIN = 75
    REFUSED = 77
    CONFIG = 78


class Refusal(Exception):
    """An order that was not carried out; `code` is one of CODES, `message` names what and where."""

    record = 0  # which one of a file's records it is about, counted from 1; 0: of none alone

    def __init__(self, code: str, message: str, option: str = "") -> None:
        assert code in CODES, code
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message
        self.option = option  # which one of the order's it is about, for programs; empty: none alone
        self.as_of: dict[str, float] = {}  # as in Reply


@contextmanager
def naming(what: str, code: str = "", option: str = "") -> Iterator[None]:
    """A refusal that comes of one thing among several says which, and may have another code then."""
    try:
        yield
    except Refusal as refusal:
        why = f"{what}: {refusal.message}"
        raise Refusal(code or refusal.code, why, option or refusal.option) from None


def naming_option(key: str) -> AbstractContextManager[None]:
    """A refusal that comes of an option's value."""
    return naming(f"{key}=", option=key)


@contextmanager
def about_record(number: int) -> Iterator[None]:
    """A refusal of a file's record tells which; whoever has the file knows the line."""
    try:
        yield
    except Refusal as refusal:
        refusal.record = number
        raise


class Fatal(Exception):
    """The program cannot go on; it prints the message on stderr and exits with `status`."""

    def __init__(self, status: Exit, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def leaves(error: BaseException) -> list[BaseException]:
    """The errors inside a group that trio's nurseries made; a lone error is its own only leaf."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves(each)]
    return [error]


def reasons(error: OSError) -> str:
    """Why nobody could be reached, each different reason once: a name may stand for several addresses."""
    causes = error.__cause__.exceptions if isinstance(error.__cause__, ExceptionGroup) else (error,)
    return ", ".join(dict.fromkeys(_reason(each) for each in causes))


def _reason(error: Exception) -> str:
    # A name that cannot be looked up has a negative number of its own, and trio puts the
    # address into the text of every other error.
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return str(error)
