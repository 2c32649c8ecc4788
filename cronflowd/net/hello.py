"""A worker's first words: what it is called, what it can do, and how it shows that it may come.

Who shows a token says it (`token=`), or proves that it has it (`nonce=`, then PROVE), which tells the
worker, too, that this is its daemon. Until then a stranger has 1 KiB a line.
"""

from __future__ import annotations

import re
import secrets
from datetime import datetime
from typing import Protocol

from attrs import frozen

from ..base.errors import Refusal, naming
from ..base.names import check_user_name, check_worker_name, parse_label
from ..base.proofs import NONCE, WORKER, Handshake, Sign, make_nonce
from ..base.text import escape, split_options
from ..engine import orders as o
from ..engine.access_facts import TokenAdded
from ..tasks.kinds import WHOSE
from ..tasks.options import parse_count

MAX_SLOTS = 10_000
MAX_LABELS = 64
MAX_USERS = 64
MAX_INSTANCE = 64
MAX_VERSION = 64
MAX_RUNNING = 1_000_000
MAX_HELD_LINES = 1000  # that follow HELLO with more of running=


@frozen
class Bearer:
    """Whoever has shown a token."""

    key: bytes  # what both sides compute with; base/proofs.py
    token: TokenAdded | None = None  # None = it is one of the token file, and lets in under any name

    @property
    def until_at(self) -> datetime | None:
        return self.token.expires_at if self.token else None


class Admits(Protocol):
    """Who may be a worker."""

    sign: Sign | None  # what signs orders, where they are

    @property
    def asks_workers(self) -> bool: ...
    def worker_token(self, word: str) -> Bearer | None: ...
    def worker_key(self, name: str) -> Bearer | None: ...
    def admit_worker(self, bearer: Bearer | None, name: str, address: str) -> None: ...
    def worker_came(self, bearer: Bearer, name: str, address: str) -> None: ...
    def order_refused(self, name: str, address: str, run: str, why: str) -> None: ...
    def penalty_s(self, address: str) -> float: ...


def split_hello(line: str) -> dict[str, str]:
    """The words of HELLO. Raises Refusal."""
    word, _, rest = line.strip().partition(" ")
    if word.upper() != "HELLO":
        raise Refusal("syntax", f'the first line must be HELLO name=… slots=…, not "{escape(word[:40])}"')
    return _options(rest)


def _options(text: str) -> dict[str, str]:
    options, extra = split_options(text.lstrip())
    if extra:
        raise Refusal("syntax", f'"{escape(extra[:40])}" is not key=value')
    return options


def name_in(options: dict[str, str]) -> str:
    """What the worker is called. Raises Refusal."""
    if not (name := options.get("name", "")):
        raise Refusal("syntax", "HELLO needs name=")
    return check_worker_name(name)


def version_in(options: dict[str, str]) -> str:
    """Which release it is, for people; empty where it does not say. Raises Refusal."""
    version = options.get("version", "")
    if len(version) > MAX_VERSION:
        raise Refusal("too-long", f"version= is longer than {MAX_VERSION} characters")
    return version


def challenge(options: dict[str, str], bearer: Bearer | None) -> Handshake:
    """What the daemon says to a nonce; of a key that nobody has it looks like one that is another.

    Raises Refusal.
    """
    if not NONCE.fullmatch(nonce := options["nonce"]):
        raise Refusal("bad-option", "nonce= is not 32 to 128 hexadecimal digits in lower case")
    key = bearer.key if bearer else secrets.token_bytes(32)
    return Handshake(key, name_in(options), nonce, make_nonce())


def split_proof(line: str) -> tuple[str, dict[str, str]]:
    """`PROVE <proof>`, and words that had no room in HELLO. Raises Refusal."""
    word, _, rest = line.strip().partition(" ")
    if word != "PROVE":
        raise Refusal("syntax", f'PROVE <proof> is the answer to CHALLENGE, not "{escape(word[:40])}"')
    proof, _, more = rest.partition(" ")
    return proof, _options(more)


def shows_proof(handshake: Handshake, first: bytes) -> bool:
    """Whether the beginning of a line holds the right proof."""
    words = first.decode(errors="replace").split(" ", 2)
    return len(words) == 3 and words[0] == "PROVE" and handshake.is_proof(WORKER, words[1])


def parse_hello(options: dict[str, str], address: str) -> tuple[o.JoinWorker, int]:
    """Who comes, and how many HELD lines follow. Raises Refusal naming what is wrong."""
    name = name_in(options)
    slots = _count(options, "slots", 1, MAX_SLOTS)
    can = _parse_can(options.get("can", "shell"), options.get("users", ""))
    labels = dict(map(parse_label, _words(options.get("labels", ""), MAX_LABELS, "more than {} labels")))
    if (held := options.get("held", "all")) != "all":
        raise Refusal("bad-option", f'held="{escape(held[:40])}" is not all')
    instance = options.get("instance", "")
    if len(instance) > MAX_INSTANCE:
        raise Refusal("too-long", f"instance= is longer than {MAX_INSTANCE} characters")
    running = parse_running(options.get("running", ""))
    order = o.JoinWorker(name, slots, labels, can, address, running, "held" in options, instance)
    return order, _count(options, "more", 0, MAX_HELD_LINES)


def _parse_can(text: str, users: str) -> tuple[str, ...]:
    """The types; and of those that take user=, each with each user, as placement asks for it."""
    can = [kind for kind in text.split(",") if kind]
    names = _words(users, MAX_USERS, "users= names more than {} users")
    takes_user = [kind for kind in can if re.split("[+:]", kind)[0] in WHOSE["user"]]
    return (*can, *(f"{user}@{kind}" for user in map(check_user_name, names) for kind in takes_user))


def _count(options: dict[str, str], key: str, least: int, most: int) -> int:
    """A number that HELLO may say; the least without."""
    with naming(f"{key}="):
        return parse_count(options.get(key, str(least)), least, most)


def _words(text: str, most: int, why: str) -> list[str]:
    words = [word for word in text.split(",") if word]
    if len(words) > most:
        raise Refusal("limit", why.format(most))
    return words


def parse_running(text: str) -> tuple[tuple[int, int], ...]:
    return tuple(map(_parse_pair, _words(text, MAX_RUNNING, "running= names more than {} runs")))


def _parse_pair(word: str) -> tuple[int, int]:
    if not re.fullmatch(r"[0-9]{1,15}:[0-9]{1,9}", word):
        raise Refusal("syntax", f'running=: "{escape(word[:40])}" is not RUN:ATTEMPT')
    run, _, attempt = word.partition(":")
    return int(run), int(attempt)


def parse_held(line: str) -> tuple[tuple[int, int], ...]:
    """`HELD <run>:<attempt>,…`. Raises Refusal."""
    word, _, rest = line.partition(" ")
    if word != "HELD":
        raise Refusal("syntax", f'HELLO said that HELD follows, not "{escape(word[:40])}"')
    return parse_running(rest)
