"""What the nodes of a cluster share: keys, values, and the transactions that keep them true.

Below /cronflowd/NAME/ stand

    cluster          who the cluster is, and what all its nodes must have in common
    leader           who decides, on its lease. Its create_revision is the epoch
    heir             who is to lead next, for a few seconds: others wait for it
    nodes/<name>     who is there, on a lease of its own
    known/<name>     the same of those too that were there lately
    r/<first>        the records from number `first` on: the journal's own lines, zlib; see below
    p/<first>/…      their parts, where one value would be too long
    snapshot, s/…    the whole state up to a record; older records need not stand there any more. A state
                     that is too long for etcd stands on the nodes alone

An epoch grows with every change of leader and is never used twice, since etcd's revisions are not.
Records are written by a transaction that holds only for the epoch of whoever writes, and only where
nothing stands at that number: a leader that was replaced, or that has come out of a long sleep,
writes nothing, ever. All of them may be sent twice, or arrive late: the same value in its place is
one's own, of which the answer was lost.

A decision is never cut: what is too long for one value goes into parts first, and the record that
names them makes it true, all at once.

etcd takes nothing any more, for ever, once it is larger than its quota. What was overwritten or removed stays
there until it is compacted, and what is compacted leaves holes until a member is defragmented, during which
that member stands still: so it is done to one after the other, and only when it is wanted.
"""

from __future__ import annotations

import http.client
import logging
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import orjson
from attrs import frozen

from ..base.errors import Exit, Fatal
from .etcd import Caller, Etcd, EtcdError, Unreachable, after, quote

MAX_RECORDS = 2_000  # in one value
MAX_VALUE_BYTES = 900_000  # etcd takes 1.5 MiB a request
MAX_RAW_BYTES = 4_000_000  # of lines in one value, before they are made short
MAX_SNAPSHOT_BYTES = 64 * 1024 * 1024
FETCHED = 8  # values in one answer
RETRY_S = 0.05
_MORE = re.compile(rb'\{"seq":[0-9]+,"at":"[^"]*","fact":"[^"]*","more":true,')
_SEQ_DIGITS = 20


class Deposed(Fatal):
    """This node leads no more: what it remembers may be more than is true."""

    def __init__(self, why: str) -> None:
        super().__init__(Exit.TRY_AGAIN, why)


class Entry(msgspec.Struct, frozen=True, rename={"created": "create_revision", "changed": "mod_revision"}):
    """A key as etcd gives it back, bytes as base64, numbers as texts; what is zero or empty it leaves out."""

    key: bytes
    created: int
    changed: int
    value: bytes = b""
    lease: int = 0


@frozen
class Told:
    """How a transaction ended."""

    done: bool
    revision: int
    found: list[list[Entry]]  # what each range of its other branch found


Op = dict[str, Any]


def put(key: bytes, value: bytes, lease: int = 0) -> Op:
    return {"request_put": {"key": quote(key), "value": quote(value), "lease": str(lease)}}


def look(key: bytes) -> Op:
    return {"request_range": {"key": quote(key)}}


def remove(key: bytes) -> Op:
    return {"request_delete_range": {"key": quote(key)}}


def created_at(key: bytes, revision: int) -> Op:
    """Compares when a key was made; 0 = it is not there."""
    return {"target": "CREATE", "result": "EQUAL", "key": quote(key), "create_revision": str(revision)}


def changed_at(key: bytes, revision: int) -> Op:
    """Compares when a key was last put there; 0 = it is not there."""
    return {"target": "MOD", "result": "EQUAL", "key": quote(key), "mod_revision": str(revision)}


class Shared:
    """One node's view of what is shared, over one caller's connection."""

    def __init__(self, etcd: Caller, cluster: str = "main", sleep: Callable[[float], object] = time.sleep):
        self.etcd = etcd
        self.prefix = f"/cronflowd/{cluster}/".encode()
        self.leader_key = self.prefix + b"leader"
        self.cluster_key = self.prefix + b"cluster"
        self.heir_key = self.prefix + b"heir"
        self.snapshot_key = self.prefix + b"snapshot"
        self.nodes_prefix = self.prefix + b"nodes/"
        self.known_prefix = self.prefix + b"known/"
        self._sleep = sleep
        self._value_at = 0  # the record after those fetched: a value begins there, or will

    def record_key(self, first: int) -> bytes:
        return self.prefix + b"r/%0*d" % (_SEQ_DIGITS, first)

    def node_key(self, name: str) -> bytes:
        return self.nodes_prefix + name.encode()

    # --- asking ---

    def transact(self, compare: list[Op], success: list[Op], failure: Sequence[Op] = ()) -> Told:
        """Does what is to be done if all holds; else looks at what is asked for then."""
        body = {"compare": compare, "success": success, "failure": list(failure)}
        answer = self.etcd.call("kv/txn", body)
        revision = int(answer["header"]["revision"])
        if answer.get("succeeded"):
            return Told(done=True, revision=revision, found=[])
        parts = [each.get("response_range", {}) for each in answer.get("responses", [])]
        return Told(done=False, revision=revision, found=[_entries(part) for part in parts])

    def replace(self, key: bytes, value: bytes, lease: int, changed: int) -> int:
        """Puts our own value there, in the place of the one put at `changed`; returns since when it is there.

        A member of etcd that was frozen may do late what it was asked before that.
        """
        while not (
            told := self.transact([changed_at(key, changed)], [put(key, value, lease)], [look(key)])
        ).done:
            entry = next(iter(told.found[0]), None)
            if entry and entry.value == value:  # it was said twice
                return entry.changed
            changed = entry.changed if entry else 0
        return told.revision

    def range(self, key: bytes, end: bytes = b"", limit: int = 0) -> list[Entry]:
        """The keys from `key` to before `end`, in order; without an end that key alone."""
        body: Op = {"key": quote(key), "limit": str(limit)}
        if end:
            body["range_end"] = quote(end)
        return _entries(self.etcd.call("kv/range", body))

    def get(self, key: bytes) -> Entry | None:
        found = self.range(key)
        return found[0] if found else None

    def delete(self, key: bytes, end: bytes = b"") -> None:
        self.etcd.call("kv/deleterange", {"key": quote(key), "range_end": quote(end)})

    def below(self, prefix: bytes) -> list[Entry]:
        return self.range(prefix, after(prefix))

    # --- who decides ---

    def claim(self, lease: int, value: bytes) -> int | None:
        """The epoch in which we lead from now on; None while another leads.

        `value` is nobody else's and that of no other claim of ours, so that one whose answer was lost
        is known again. Nobody is waited for any more who was to lead.
        """
        lead = [put(self.leader_key, value, lease), remove(self.heir_key)]
        told = self.transact([created_at(self.leader_key, 0)], lead, [look(self.leader_key)])
        if told.done:
            return told.revision
        leader = told.found[0][0] if told.found and told.found[0] else None
        if leader and (leader.value, leader.lease) == (value, lease):
            return leader.created
        return None

    # --- records ---

    def commit(self, epoch: int, lines: list[bytes]) -> None:
        """Makes sealed lines true for everybody; returns when they are. Raises Deposed.

        It tries for as long as it takes: whoever has no lease any more ends this thread with the rest.
        """
        first = seq_in(lines[0])
        value = zlib.compress(b"".join(lines), 1)
        if len(value) > MAX_VALUE_BYTES:
            value = self._insist(lambda: self._put_parts(epoch, first, value))
        self._insist(lambda: self._put_record(epoch, first, value))

    def _insist(self, ask: Callable[[], Any]) -> Any:
        while True:
            try:
                return ask()
            except Unreachable:
                self._sleep(RETRY_S)
            except EtcdError as error:
                if error.is_busy:
                    self._sleep(RETRY_S)
                    continue
                raise Deposed(f"etcd takes no records: {error}") from error

    def _put_record(self, epoch: int, first: int, value: bytes) -> None:
        key = self.record_key(first)
        told = self.transact(
            [created_at(self.leader_key, epoch), created_at(key, 0)],
            [put(key, value)],
            [look(self.leader_key), look(key)],
        )
        if told.done or any(entry.value == value for entry in told.found[1]):
            return
        if told.found[1]:
            raise Deposed(f"record {first} was written by another leader")
        raise Deposed("another node leads" if told.found[0] else "the lease has ended")

    def _parts_prefix(self, first: int, epoch: int) -> bytes:
        return self.prefix + b"p/%0*d/%d/" % (_SEQ_DIGITS, first, epoch)

    def _put_parts(self, epoch: int, first: int, value: bytes) -> bytes:
        """Puts a long value aside in pieces; what stands for it."""
        prefix = self._parts_prefix(first, epoch)
        pieces = _pieces(value)
        for number, piece in enumerate(pieces):
            told = self.transact(
                [created_at(self.leader_key, epoch)], [put(prefix + b"%06d" % number, piece)]
            )
            if not told.done:
                raise Deposed("another node leads")
        return b"parts %d %d" % (epoch, len(pieces))

    def fetch(self, first: int) -> list[list[bytes]]:
        """The lines of some values from the record `first` on; none while there are none.

        The first of them may begin before it: a copy that lost its power while it wrote ends anywhere.
        """
        found = []
        if first != self._value_at:
            before = self._newest_before(self.record_key(first))
            found = [before] if before and seq_in(before[-1]) >= first else []
        end = after(self.prefix + b"r/")
        found += [self._lines(entry) for entry in self.range(self.record_key(first), end, FETCHED)]
        self._value_at = seq_in(found[-1][-1]) + 1 if found else first
        return found

    def last(self) -> int:
        """The number of the newest record; 0 where there is none."""
        newest = self._newest_before(after(self.prefix + b"r/"))
        return max(seq_in(newest[-1]) if newest else 0, self.snapshot_upto())

    def _newest_before(self, end: bytes) -> list[bytes]:
        """The lines of the last value whose key stands before `end`."""
        body: Op = {"key": quote(self.prefix + b"r/"), "range_end": quote(end)}
        newest = _entries(self.etcd.call("kv/range", body | {"limit": "1", "sort_order": "DESCEND"}))
        return self._lines(newest[0]) if newest else []

    def _lines(self, entry: Entry) -> list[bytes]:
        value = entry.value
        if value.startswith(b"parts "):
            _, epoch, count = value.split()
            parts = self.below(self._parts_prefix(int(entry.key[-_SEQ_DIGITS:]), int(epoch)))
            if len(parts) != int(count):
                raise Unreachable("parts of a record were removed meanwhile")
            value = b"".join(part.value for part in parts)
        return zlib.decompress(value).splitlines(keepends=True)

    # --- the whole state ---

    def put_snapshot(
        self, upto: int, name: str, chunks: Iterable[bytes], guard: list[Op], also: Sequence[Op] = ()
    ) -> bool:
        """Puts the state up to a record there, made of `chunks`; False where it is too long.

        It holds only where `guard` does, and then takes the place of the one before, and `also` is
        done. `name` is nobody else's. Raises Deposed where it does not hold.
        """
        prefix = self.prefix + b"s/%0*d/%s/" % (_SEQ_DIGITS, upto, name.encode())
        pieces, size = list[bytes](), 0
        for piece in _deflated(chunks):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_SNAPSHOT_BYTES:
                return False
        for number, piece in enumerate(pieces):
            self.etcd.call("kv/put", {"key": quote(prefix + b"%06d" % number), "value": quote(piece)})
        self._tell_snapshot(upto, prefix, len(pieces), guard, also)
        return True

    def leave_snapshot(self, upto: int, guard: list[Op], also: Sequence[Op] = ()) -> None:
        """Says that the state up to a record stands on nodes alone. Raises Deposed as `put_snapshot`."""
        self._tell_snapshot(upto, self.prefix + b"s/%0*d/" % (_SEQ_DIGITS, upto), 0, guard, also)

    def _tell_snapshot(
        self, upto: int, prefix: bytes, parts: int, guard: list[Op], also: Sequence[Op]
    ) -> None:
        told_of = orjson.dumps({"upto": upto, "at": prefix.decode(), "parts": parts})
        before = self.get(self.snapshot_key)
        # One that arrives when there is a newer one would name parts that are gone.
        guard = [*guard, changed_at(self.snapshot_key, before.changed if before else 0)]
        told = self.transact(guard, [put(self.snapshot_key, told_of), *also], [look(self.snapshot_key)])
        if not told.done and all(entry.value != told_of for entry in told.found[0]):
            self.delete(prefix, after(prefix))
            raise Deposed("another node was there first")
        self.delete(self.prefix + b"s/", prefix)

    def snapshot_upto(self) -> int:
        """Up to which record the newest whole state goes; 0 = there is none."""
        entry = self.get(self.snapshot_key)
        return int(orjson.loads(entry.value)["upto"]) if entry else 0

    def get_snapshot(self) -> tuple[int, Iterator[bytes] | None]:
        """The newest one: up to which record, and its bytes; None where they stand on nodes alone.

        Raises Unreachable.
        """
        entry = self.get(self.snapshot_key)
        if entry is None:
            raise Unreachable("there is no snapshot")
        told_of = orjson.loads(entry.value)
        prefix, parts = told_of["at"].encode(), told_of["parts"]
        return told_of["upto"], self._inflated(prefix, parts) if parts else None

    def _inflated(self, prefix: bytes, parts: int) -> Iterator[bytes]:
        inflate = zlib.decompressobj()
        for number in range(parts):
            if (entry := self.get(prefix + b"%06d" % number)) is None:
                raise Unreachable("the snapshot was replaced meanwhile")
            yield inflate.decompress(entry.value)
        yield inflate.flush()

    def truncate(self, upto: int) -> None:
        """Removes the records up to one: a snapshot holds them, and enough nodes have them."""
        for kind in (b"r/", b"p/"):
            self.delete(self.prefix + kind, self.prefix + kind + b"%0*d" % (_SEQ_DIGITS, upto + 1))
        self.compact()

    def compact(self) -> None:
        """Has etcd forget what was overwritten and removed up to now."""
        revision = self.etcd.call("kv/range", {"key": quote(self.leader_key)})["header"]["revision"]
        try:
            self.etcd.call("kv/compaction", {"revision": revision})
        except EtcdError as error:
            if "compacted" not in str(error):  # somebody else has, up to there
                raise


def split(lines: list[bytes]) -> Iterator[list[bytes]]:
    """Cuts a batch into what one value each may hold, between decisions; a longer decision stays whole."""
    if len(lines) <= MAX_RECORDS and sum(map(len, lines)) <= MAX_RAW_BYTES:
        yield lines
        return
    begin = whole = size = 0
    for at, line in enumerate(lines):
        if (size + len(line) > MAX_RAW_BYTES or at - begin >= MAX_RECORDS) and whole > begin:
            yield lines[begin:whole]
            begin, size = whole, sum(map(len, lines[whole:at]))
        size += len(line)
        if not _MORE.match(line):
            whole = at + 1
    yield lines[begin:]


def seq_in(line: bytes) -> int:
    """The number of a sealed line."""
    return int(line[7 : line.index(b",", 7)])


def _entries(answer: dict[str, Any]) -> list[Entry]:
    return msgspec.convert(answer.get("kvs", []), list[Entry], strict=False)


def _pieces(value: bytes) -> list[bytes]:
    return [value[at : at + MAX_VALUE_BYTES] for at in range(0, len(value), MAX_VALUE_BYTES)]


def _deflated(chunks: Iterable[bytes]) -> Iterator[bytes]:
    deflate, waiting = zlib.compressobj(1), bytearray()
    for chunk in chunks:
        waiting += deflate.compress(chunk)
        while len(waiting) >= MAX_VALUE_BYTES:
            yield bytes(waiting[:MAX_VALUE_BYTES])
            del waiting[:MAX_VALUE_BYTES]
    waiting += deflate.flush()
    yield from _pieces(bytes(waiting))


# --- how much room etcd has -----------------------------------------------------------------------


QUOTA_BYTES = 2 * 1024**3  # etcd's own default
SCARCE, FULL = 0.8, 0.9  # parts of it
WORTH_WHILE = 0.1  # of it: so much a defragmentation has to give back
DEFRAGMENT_S = 60.0

log = logging.getLogger(__name__)


@frozen
class Room:
    """What the members tell."""

    members: int
    answered: int
    size: int  # of the largest, in bytes: what the quota is held against
    used: int  # of those, what is no hole
    quota: int
    wrong: str  # the first trouble, in words

    @property
    def text(self) -> str:
        count = f"{self.answered}/{self.members} {_bytes(self.size)} of {_bytes(self.quota)}"
        return f"{count}: {self.wrong}" if self.wrong else f"ok {count}"

    @property
    def is_scarce(self) -> bool:
        return self.size > SCARCE * self.quota and self.size - self.used > WORTH_WHILE * self.quota

    @property
    def is_full(self) -> bool:
        return self.used > FULL * self.quota


def _bytes(number: int) -> str:
    return f"{number / 1024**3:.1f}G" if number >= 1024**3 else f"{number / 1024**2:.1f}M"


def ask_members(clients: Sequence[Etcd]) -> Room:
    """Asks every member."""
    answered = size = used = 0
    quota, wrong = QUOTA_BYTES, []
    for client in clients:
        try:
            told = client.call("maintenance/status", {})
        except (Unreachable, EtcdError) as error:
            wrong.append(str(error))
            continue
        answered += 1
        if int(told["dbSize"]) >= size:
            size, used = int(told["dbSize"]), int(told.get("dbSizeInUse", told["dbSize"]))
        wrong += told.get("errors", [])
        with suppress(OSError, http.client.HTTPException, ValueError):
            quota = client.quota() or quota
    return Room(len(clients), answered, size, used, quota, wrong[0] if wrong else "")


def make_room(shared: Shared, clients: Sequence[Etcd]) -> None:
    """Has etcd forget what is no more, and each member give back its holes, one after the other."""
    shared.compact()
    for client in clients:
        log.warning("etcd at %s is defragmented", client.member)
        try:
            client.call("maintenance/defragment", {}, DEFRAGMENT_S)
        except (Unreachable, EtcdError) as error:  # it takes etcd's role `root`, for one
            log.warning("etcd at %s could not be defragmented: %s", client.member, error)
