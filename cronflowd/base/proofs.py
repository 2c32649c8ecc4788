"""How a daemon and a worker prove that both know a token, and how an order shows whose it is.

The token never travels. What both compute with is its SHA-256, since that is all that a daemon keeps
of a token that it has made. Everything that is proved names the worker and both sides' nonces, of
which each has made one: what was overheard proves nothing in another session, or for another worker.

An order says its number in the session and when it was given, and its MAC covers the whole line.
A signature is a second one, by a key that no worker has: who has stolen a token can let itself be
taken for the daemon, and still give no orders.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable
from functools import cached_property

from attrs import define, frozen

DAEMON, WORKER = "daemon", "worker"
_ORDERS = "orders"  # what the session's key is derived for
MAX_AGE_S = 60.0  # of an order
NONCE = re.compile("[0-9a-f]{32,128}")
_NAME_DIGITS = 16

Sign = Callable[[bytes], bytes]
IsSigned = Callable[[bytes, bytes], bool]  # a signature, and what it is to be of


def key_of(token: bytes) -> bytes:
    """What of a token both sides compute with."""
    return hashlib.sha256(token).digest()


def key_name(key: bytes) -> str:
    """Which key is meant, for whoever has it; from this it cannot be found."""
    return name_of_digest(key.hex())


def name_of_digest(digest: str) -> str:
    """The same of a key as hexadecimal digits."""
    return hashlib.sha256(digest.encode()).hexdigest()[:_NAME_DIGITS]


def make_nonce() -> str:
    """A text that was never said before."""
    return secrets.token_hex(32)


@frozen
class Handshake:
    """What both sides of one session have in common."""

    key: bytes
    worker: str  # its name
    its_nonce: str
    our_nonce: str  # the daemon's

    def _text(self, what: str) -> bytes:
        return f"{what} {self.worker} {self.its_nonce} {self.our_nonce}".encode()

    def proof(self, role: str) -> str:
        """What this side says to show that it has the key."""
        return hmac.digest(self.key, self._text(role), "sha256").hex()

    def is_proof(self, role: str, offered: str) -> bool:
        """Whether the other side has it too."""
        return hmac.compare_digest(self.proof(role).encode(), offered.encode())

    @cached_property
    def session_key(self) -> bytes:
        return hmac.digest(self.key, self._text(_ORDERS), "sha256")

    def mac(self, order: str) -> str:
        """What an order bears that nobody has made without the key."""
        return hmac.digest(self.session_key, f"{self.worker} {order}".encode(), "sha256").hex()

    def signed(self, order: str) -> bytes:
        """What a signature is of."""
        return f"{self.worker} {self.its_nonce} {self.our_nonce} {order}".encode()


@define
class Seal:
    """The daemon's side: numbers orders, and seals them."""

    handshake: Handshake
    begun_s: float  # when it said its nonce, on its steady clock
    sign: Sign | None = None
    count: int = 0

    def seal(self, line: str, now_s: float) -> str:
        """A RUN or KILL as it leaves."""
        verb, run, attempt, *rest = line.split(" ", 3)
        self.count += 1
        head = f"{verb} {run} {attempt} n={self.count} at={now_s - self.begun_s:.3f}"
        tail = f" {rest[0]}" if rest else ""
        text = head + tail
        sig = ""
        if self.sign:
            sig = f" sig={b64encode(self.sign(self.handshake.signed(text))).decode()}"
        return f"{head} mac={self.handshake.mac(text)}{sig}{tail}"


class Forged(Exception):
    """An order that is not to be carried out; `code` says why in a word."""

    def __init__(self, code: str) -> None:
        super().__init__(WHY[code])
        self.code = code
        # Whether the session is to begin anew: an order of the daemon's may be missing, one that was changed
        # or left out; or the two clocks have parted.
        self.needs_hello = code in ("unsealed", "altered", "out-of-order", "expired")


WHY = {
    "unsealed": "it bears no n=, at= and mac=",
    "altered": "it is not as it was sent, or was meant for another worker or another session",
    "replayed": "its number was there before",
    "out-of-order": "one before it is missing",
    "expired": f"it is more than {MAX_AGE_S:g} s old",
    "unsigned": "it bears no signature",
    "forged": "its signature is not by the key that this worker was given",
}


@define
class Check:
    """The worker's side: takes what is sealed, once and in its order."""

    handshake: Handshake
    begun_s: float  # when it said HELLO, on its steady clock
    is_signed: IsSigned | None = None  # set: what bears no signature is refused
    last: int = 0

    def open(self, line: str, now_s: float) -> str:
        """The order without its seal and its verb. Raises Forged.

        The age is counted from a moment that was before the daemon's: an order may look older than it
        is by as long as HELLO took, and never younger. No clock has to be right for that.
        """
        if not (match := _SEALED.match(line)):
            raise Forged("unsealed")
        head, key, number, at, mac, signature = match.groups()
        tail = line[match.end() :]
        text = head + tail
        if not hmac.compare_digest(self.handshake.mac(text), mac):
            raise Forged("altered")
        before, count = self.last, int(number)
        if count <= before:
            raise Forged("replayed")
        self.last = count
        if count != before + 1:
            raise Forged("out-of-order")
        if now_s - self.begun_s - float(at) > MAX_AGE_S:
            raise Forged("expired")
        if self.is_signed:
            if not signature:
                raise Forged("unsigned")
            if not self.is_signed(b64decode(signature), self.handshake.signed(text)):
                raise Forged("forged")
        return key + tail


_SEALED = re.compile(
    r"((?:RUN|KILL) ([0-9]{1,15} [0-9]{1,15}) n=([0-9]{1,15}) at=([0-9]{1,10}\.[0-9]{3}))"
    r" mac=([0-9a-f]{64})(?: sig=([A-Za-z0-9+/]{86}==))?(?= |\Z)"
)
