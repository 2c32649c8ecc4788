"""What we say to etcd: requests to its JSON gateway, over a connection of our own, one at a time.

etcd answers the same calls over HTTP that it answers over gRPC: keys and values are base64, numbers
of 64 bits are texts, and what is zero or false is left out. That needs no library and no event loop,
so the committer's thread can wait for it as it waits for a disk.

Several members are tried in turn, and of two that are slow both. A request without an answer may have been
carried out all the same, now or later, and by a second member once more: whoever asks has to ask for
what may be done twice.

`Lease` tells how long this node may be sure of itself. It is certain for its length from the moment at which
its renewal was *sent*, less a margin: etcd counts from later. The clock is one that nobody can set and that
counts on in suspend. Nobody tells a process that it was stopped: whoever wants to send asks before each send.
"""

from __future__ import annotations

import http.client
import math
import re
import select
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

import orjson
from attrs import Factory, define

from ..base.errors import Exit, Fatal
from ..host.clock import steady_now
from ..host.config import Settings
from ..host.secrets import read_password
from ..host.setting import Address, format_address

TIMEOUT_S = 1.0  # for an answer
DIAL_S = 0.5
PATIENCE_S = 0.25  # before another member is asked as well
PATIENCE, USUAL_OF = 4, 10  # or so many times what the last answers took: a slow etcd is not asked more often
HEAD_S = 0.05  # for the first bytes of an answer to be followed by the rest of its head
UNAUTHENTICATED, NOT_FOUND, NO_SPACE, REFUSED, UNAVAILABLE = 16, 5, 8, 9, 14  # of gRPC's codes
_QUOTA = re.compile(rb"^etcd_server_quota_backend_bytes ([0-9.e+]+)$", re.MULTILINE)
_NO_TOKEN = re.compile("user name is empty|auth store is old")  # where the code may be another
LOOPBACK = ("127.", "::1", "localhost")
# This member ends, is on its own, or cannot say: another one may know more.
_ELSEWHERE = {1, 2, 4, 13, UNAVAILABLE}


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


def after(prefix: bytes) -> bytes:
    """The first key behind all that begin with `prefix`."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


@define(eq=False)
class _Asked:
    """A member that has been asked, and has not answered yet."""

    member: int
    connection: http.client.HTTPConnection
    at_s: float


@define
class _Question:
    """One request."""

    path: str
    data: bytes
    until_s: float
    asked: list[_Asked] = Factory(list)
    wrong: dict[int, str] = Factory(dict)  # by member: why it is not asked again


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
        self._connection: http.client.HTTPConnection | None = None  # to that one
        self._usual_s = 0.0  # that an answer takes
        self._turn = threading.Lock()

    @property
    def member(self) -> str:
        """Whom we ask."""
        return format_address(self.members[self._at])

    def call(self, path: str, body: dict[str, Any], timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """Asks one member after the other until one answers, for so long at most."""
        question = _Question(path, orjson.dumps(body), steady_now() + timeout_s)
        with self._turn:
            try:
                return self._call(question)
            finally:
                for each in question.asked:
                    each.connection.close()

    def _call(self, question: _Question) -> dict[str, Any]:
        """Whoever is slow is waited for while others are asked, and then that one once more.

        What was on its way to a leader of etcd's that has died is lost, and nobody says so: only whoever
        asks again is answered as soon as there is another.
        """
        count, asked, wrong = len(self.members), question.asked, question.wrong
        turn, ask_at_s, now_s = self._at, 0.0, steady_now()
        # At least two in any case: a lease that is about to end is asked about in a hurry.
        patience_s = min(max(PATIENCE_S, PATIENCE * self._usual_s), (question.until_s - now_s) / 2)
        patience_s = patience_s if count > 1 else math.inf
        while now_s < question.until_s and (asked or len(wrong) < count):
            if now_s >= ask_at_s and len(wrong) < count:
                while (turn := turn % count) in wrong:
                    turn += 1
                ask_at_s = now_s + patience_s
                try:
                    asked.append(_Asked(turn, self._send(turn, question), now_s))
                except (OSError, http.client.HTTPException) as error:
                    wrong[turn], ask_at_s = _reason(error), now_s
                turn += 1
            look_at_s = min(question.until_s, ask_at_s if len(wrong) < count else math.inf)
            for each in _heard(asked, look_at_s - now_s) if asked else ():
                try:
                    if (answer := self._take(each, question)) is not None:
                        return answer
                except (OSError, http.client.HTTPException, ValueError, EtcdError) as error:
                    if isinstance(error, EtcdError) and error.code not in _ELSEWHERE:
                        raise
                    wrong[each.member], ask_at_s = _reason(error), now_s
                    asked.remove(each)
                    each.connection.close()
            now_s = steady_now()
        self._at = turn % count  # not again one of those that were asked
        last = next(reversed(wrong), turn - 1)
        raise Unreachable(f"{format_address(self.members[last])}: {wrong.get(last, 'no answer')}")

    def _send(self, member: int, question: _Question) -> http.client.HTTPConnection:
        """Asks one of them. Raises OSError and HTTPException."""
        connection = self._connection if member == self._at else None
        self._connection = None
        connection = connection or self._dial(member)
        try:
            self._post(connection, question.path, question.data)
        except BaseException:
            connection.close()
            raise
        return connection

    def _take(self, asked: _Asked, question: _Question) -> dict[str, Any] | None:
        """What a member answers; None: nothing yet. Raises OSError, HTTPException, ValueError, EtcdError."""
        connection = asked.connection
        sock = connection.sock  # which it lets go of where the member closes it behind the answer
        sock.settimeout(HEAD_S)
        try:
            response = connection.getresponse()
        except TimeoutError:  # what came was of TLS's own
            return None
        sock.settimeout(max(HEAD_S, question.until_s - steady_now()))
        try:
            answer = _result(response)
        except EtcdError as error:
            if not self._login or not (error.code == UNAUTHENTICATED or _NO_TOKEN.search(str(error))):
                raise
            # A token lasts five minutes, and dies with the member that gave it; one of JWT's with any
            # change of etcd's accounts.
            self._token = ""  # with the old one not even this is answered
            self._post(connection, "auth/authenticate", orjson.dumps(self._login))
            self._token = _result(connection.getresponse())["token"]
            self._post(connection, question.path, question.data)
            answer = _result(connection.getresponse())
        question.asked.remove(asked)
        self._at, self._connection = asked.member, connection
        self._usual_s += (steady_now() - asked.at_s - self._usual_s) / USUAL_OF
        return answer

    def _post(self, connection: http.client.HTTPConnection, path: str, data: bytes) -> socket.socket:
        sock = self._connect(connection)
        # By Accept etcd knows its gateway, whose certificate it would take for ours: see --client-cert-auth.
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = self._token
        connection.request("POST", f"/v3/{path}", data, headers)
        return sock

    def _connect(self, connection: http.client.HTTPConnection) -> socket.socket:
        if connection.sock is None:
            connection.timeout = DIAL_S
            connection.connect()
        connection.sock.settimeout(TIMEOUT_S)  # and not as long as was left to the one before
        sock: socket.socket = connection.sock
        return sock

    def _dial(self, member: int) -> http.client.HTTPConnection:
        host, port = self.members[member]
        if self._context is None:
            return http.client.HTTPConnection(host, port)
        return http.client.HTTPSConnection(host, port, context=self._context)

    def quota(self) -> int:
        """How large etcd may become, in bytes; 0 where it does not tell. Raises OSError and HTTPException."""
        with self._turn:
            connection = self._connection = self._connection or self._dial(self._at)
            self._connect(connection)
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
            connection = self._connection = self._connection or self._dial(self._at)
            told = {"create_request": {"key": key, "range_end": end}}
            self._post(connection, "watch", orjson.dumps(told)).settimeout(patience_s)
            answer = connection.getresponse()
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


def _heard(asked: list[_Asked], patience_s: float) -> list[_Asked]:
    """Who of them says something, as soon as one does."""
    poll = select.poll()
    by_fd = {each.connection.sock.fileno(): each for each in asked}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    return [by_fd[fd] for fd, _ in poll.poll(max(0.0, patience_s) * 1000)]


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


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


# --- how long this node may be sure of itself -----------------------------------------------------


MARGIN = 0.1  # of its length: by so much we let go before etcd does
RENEWALS = 12  # in the time of one lease: as little as possible of it is over when etcd loses its leader
ANSWERS = 6  # in the time of one lease: for so long is an answer waited for
AGAIN_S = 0.05  # after one that nobody answered: etcd elects a leader of its own, say, and a lease is short


def revoke(etcd: Caller, lease: int) -> None:
    """Ends a lease, and all that hangs on it. Raises Unreachable."""
    try:
        etcd.call("lease/revoke", {"ID": str(lease)})
    except EtcdError as error:
        if error.code != NOT_FOUND:
            raise Unreachable(str(error)) from error


class Lease:
    """One lease, of this process."""

    def __init__(
        self,
        etcd: Caller,
        length_s: float,
        on_lost: Callable[[str], object],
        now: Callable[[], float] = steady_now,
    ) -> None:
        self._etcd = etcd
        self.length_s = length_s
        self._on_lost = on_lost  # called once, from any thread: nothing is certain any more
        self._now = now
        self.id = 0
        self.certain_until_s = float("-inf")
        self._ended = threading.Event()

    @property
    def is_certain(self) -> bool:
        return not self._ended.is_set() and self._now() < self.certain_until_s

    def grant(self) -> None:
        """A new one. Raises Unreachable and EtcdError."""
        sent_s = self._now()
        answer = self._etcd.call("lease/grant", {"TTL": str(math.ceil(self.length_s))})
        self.id = int(answer["ID"])
        self._count_from(sent_s, int(answer["TTL"]))

    def renew(self) -> bool:
        """Whether it goes on; False: etcd knows it no more. Raises Unreachable where nobody answers."""
        sent_s = self._now()
        left_s = min(self._left_s(), self.length_s / ANSWERS)
        try:
            answer = self._etcd.call("lease/keepalive", {"ID": str(self.id)}, max(left_s, 0.01))
        except EtcdError as error:
            if error.code == NOT_FOUND:
                return False
            raise Unreachable(str(error)) from error
        length_s = int(answer.get("TTL", 0))
        if length_s > 0:
            self._count_from(sent_s, length_s)
        return length_s > 0

    def _count_from(self, sent_s: float, length_s: int) -> None:
        self.certain_until_s = sent_s + min(length_s, self.length_s) * (1 - MARGIN)

    # --- the thread ---

    def keep(self) -> None:
        """Renews it from now on."""
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    def end(self) -> None:
        """Renews it no more, and tells nobody that it is lost."""
        self._ended.set()

    def _keep(self) -> None:
        why, pause_s = "it was not renewed in time", self.length_s / RENEWALS
        while not self._ended.wait(max(0.0, min(pause_s, self._left_s()))) and self.is_certain:
            pause_s = self.length_s / RENEWALS
            try:
                if not self.renew():
                    why = "etcd let it end"
                    break
            except Unreachable as error:
                why, pause_s = str(error), AGAIN_S
            except Exception as error:  # noqa: BLE001  # a lease that nobody renews is lost, whatever the reason
                why = repr(error)
                break
        if not self._ended.is_set():
            self.certain_until_s = float("-inf")
            self._on_lost(f"the lease is lost: {why}")

    def _left_s(self) -> float:
        return self.certain_until_s - self._now()
