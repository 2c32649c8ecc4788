"""What we say to etcd: requests to its JSON gateway, over a connection of our own, one at a time.

etcd answers the same calls over HTTP that it answers over gRPC: keys and values are base64, numbers
of 64 bits are texts, and what is zero or false is left out. That needs no library and no event loop,
so the committer's thread can wait for it as it waits for a disk.

Several members are tried in turn. A request without an answer may have been carried out all the same,
now or later, and by a second member once more: whoever asks has to ask for what may be done twice.
"""

from __future__ import annotations

import http.client
import re
import ssl
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

import orjson

from ..base.errors import Exit, Fatal
from ..host.config import Settings
from ..host.secrets import read_password
from ..host.setting import Address, format_address

TIMEOUT_S = 1.0  # for one member to answer
DIAL_S = 0.5
UNAUTHENTICATED, NOT_FOUND, NO_SPACE, REFUSED, UNAVAILABLE = 16, 5, 8, 9, 14  # of gRPC's codes
_QUOTA = re.compile(rb"^etcd_server_quota_backend_bytes ([0-9.e+]+)$", re.MULTILINE)
LOOPBACK = ("127.", "::1", "localhost")
_ELSEWHERE = {
    1,
    2,
    4,
    13,
    UNAVAILABLE,
}  # this member ends, is on its own, or cannot say: another one may know more


class Unreachable(Exception):
    """No member answered: what was asked may have been done, or may still be."""


class EtcdError(Exception):
    """etcd's own answer: it did nothing, and says why."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def is_full(self) -> bool:
        """Whether etcd takes nothing any more until somebody makes room."""
        return self.code == NO_SPACE and "space" in str(self)

    @property
    def is_busy(self) -> bool:
        """Whether it takes the same a little later."""
        return self.code == NO_SPACE and not self.is_full


class Caller(Protocol):
    """Whoever answers as etcd does: a client here, a model of etcd in tests."""

    def call(self, path: str, body: dict[str, Any], timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """The answer to one request; raises Unreachable or EtcdError."""


def quote(data: bytes) -> str:
    return b64encode(data).decode()


def unquote(text: str) -> bytes:
    return b64decode(text)


def after(prefix: bytes) -> bytes:
    """The first key behind all that begin with `prefix`."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


class Etcd:
    """A client; of several threads one asks at a time."""

    def __init__(
        self,
        members: Sequence[Address],
        *,
        context: ssl.SSLContext | None = None,
        user: str = "",
        password: str = "",
    ) -> None:
        self.members = members
        self._context = context
        self._login = {"name": user, "password": password} if user else None
        self._token = ""
        self._at = 0  # which of them is asked first
        self._connection: http.client.HTTPConnection | None = None
        self._turn = threading.Lock()

    @property
    def member(self) -> str:
        """Whom we ask."""
        return format_address(self.members[self._at])

    def call(self, path: str, body: dict[str, Any], timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """Asks one member after the other, each for so long, until one answers."""
        with self._turn:
            return self._call(path, body, timeout_s)

    def _call(self, path: str, body: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        why = ""
        for _ in self.members:
            try:
                return self._ask(path, body, timeout_s)
            except EtcdError as error:
                if error.code not in _ELSEWHERE:
                    raise
                why = f"{self.member}: {error}"
            except (OSError, http.client.HTTPException, ValueError) as error:
                why = f"{self.member}: {str(error) or type(error).__name__}"
            self.close()
            self._at = (self._at + 1) % len(self.members)
        raise Unreachable(why)

    def _ask(self, path: str, body: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        try:
            return _result(self._post(path, body, timeout_s))
        except EtcdError as error:
            if not self._login or not (error.code == UNAUTHENTICATED or "user name is empty" in str(error)):
                raise
        # A token lasts five minutes, and dies with the member that gave it.
        self._token = ""  # with the old one not even this is answered
        self._token = _result(self._post("auth/authenticate", self._login, timeout_s))["token"]
        return _result(self._post(path, body, timeout_s))

    def _post(self, path: str, body: dict[str, Any], timeout_s: float) -> http.client.HTTPResponse:
        connection = self._connection = self._connection or self._dial()
        connection.timeout = DIAL_S
        if connection.sock is None:
            connection.connect()
        connection.sock.settimeout(timeout_s)
        # By Accept etcd knows its gateway, whose certificate it would take for ours: see --client-cert-auth.
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = self._token
        connection.request("POST", f"/v3/{path}", orjson.dumps(body), headers)
        return connection.getresponse()

    def _dial(self) -> http.client.HTTPConnection:
        host, port = self.members[self._at]
        if self._context is None:
            return http.client.HTTPConnection(host, port)
        return http.client.HTTPSConnection(host, port, context=self._context)

    def quota(self) -> int:
        """How large etcd may become, in bytes; 0 where it does not tell. Raises OSError and HTTPException."""
        with self._turn:
            connection = self._connection = self._connection or self._dial()
            connection.timeout = TIMEOUT_S
            connection.request("GET", "/metrics")
            match = _QUOTA.search(connection.getresponse().read())
            return int(float(match[1])) if match else 0

    def watch(self, prefix: bytes, patience_s: float) -> Iterator[None]:
        """Tells that something has changed below `prefix`, until nothing has for so long.

        What it was has to be asked for: this is a bell. Raises Unreachable and EtcdError.
        """
        key, end = quote(prefix), quote(after(prefix))
        if self._login and not self._token:
            self.call("kv/range", {"key": key})  # which logs in
        try:
            answer = self._post("watch", {"create_request": {"key": key, "range_end": end}}, patience_s)
            while line := answer.readline():
                _check(orjson.loads(line), answer.status)
                yield
        except TimeoutError:
            pass
        except EtcdError:
            self._token = ""
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._at = (self._at + 1) % len(self.members)
            raise Unreachable(str(error)) from error
        finally:
            self.close()

    def close(self) -> None:
        if self._connection:
            with suppress(OSError):
                self._connection.close()
        self._connection = None


def _result(response: http.client.HTTPResponse) -> dict[str, Any]:
    body = response.read()
    if response.status != 200 and not body.startswith(b"{"):  # not from where all else is answered
        code = UNAVAILABLE if response.status >= 500 else REFUSED
        raise EtcdError(code, body.decode(errors="replace").strip() or f"HTTP status {response.status}")
    return _check(orjson.loads(body), response.status)


def _check(answer: Any, status: int) -> dict[str, Any]:
    """What was answered; a stream wraps each of its answers. Raises EtcdError."""
    if not isinstance(answer, dict):
        raise ValueError("the answer is no object")  # noqa: TRY004  # what was sent is wrong, not a caller
    error = answer.get("error")
    if isinstance(error, dict):
        raise EtcdError(error.get("grpc_code", 2), error.get("message", ""))
    if status != 200:
        raise EtcdError(answer.get("code", 2), answer.get("message", "") or f"HTTP status {status}")
    found = answer.get("result", answer)
    return found if isinstance(found, dict) else {}


def make_client(settings: Settings, members: Sequence[Address] = ()) -> Etcd:
    """A client as the settings say. Raises Fatal, 77 where it could be listened to."""
    context, is_plain = None, not (settings.etcd_ca or settings.etcd_cert)
    far = [format_address(each) for each in settings.etcd if not each[0].startswith(LOOPBACK)]
    if is_plain and far and not settings.insecure:
        why = f"etcd at {far[0]} would be spoken to in plain text: --etcd-ca, or --insecure"
        raise Fatal(Exit.REFUSED, why)
    if not is_plain:
        from ..host.tls import client_context  # its library takes 30 ms and some MiB

        context = client_context(settings.etcd_ca, settings.etcd_cert, settings.etcd_key)
    password = read_password(settings.etcd_password_file) if settings.etcd_password_file else ""
    return Etcd(members or settings.etcd, context=context, user=settings.etcd_user or "", password=password)


# --- its release ------------------------------------------------------------------------------------


def why_old(version: str) -> str:
    """Why this release of etcd is not to be trusted, if so: both lost or damaged what they had confirmed."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    number = tuple(map(int, match.groups())) if match else (0, 0, 0)
    if number < (3, 4, 22) or (3, 5, 0) <= number <= (3, 5, 5):
        return f"etcd {version} is known to lose data: 3.4.22, or 3.5.6, and what follows them, are not"
    return ""
