"""A model of etcd: keys, revisions, leases, transactions, a clock of its own, and all that goes wrong."""

from __future__ import annotations

import contextlib
from base64 import b64decode
from collections.abc import Callable
from typing import Any

from attrs import define, field

from cronflowd.journal.etcd import NOT_FOUND, EtcdError, Unreachable, quote


@define
class Entry:
    value: bytes
    created: int
    changed: int
    lease: int


@define
class FakeEtcd:
    """Answers `call` as etcd's JSON gateway does, the parts of it that we use."""

    now: float = 0.0
    revision: int = 1
    entries: dict[bytes, Entry] = field(factory=dict)
    leases: dict[int, tuple[float, int]] = field(factory=dict)  # when it ends, and its length
    asked: list[str] = field(factory=list)  # paths, in order
    largest: int = 0  # bytes of the longest value ever put
    # What becomes of the next requests: "", "lost", "no answer", "twice".
    wrong: list[str] = field(factory=list)
    late: list[Callable[[], object]] = field(factory=list)  # requests that will arrive some day
    is_full: bool = False
    _next_lease: int = 100

    def call(self, path: str, body: dict[str, Any], timeout_s: float = 1.0) -> dict[str, Any]:
        fault = self.wrong.pop(0) if self.wrong else ""
        if fault == "busy":
            raise EtcdError(8, "etcdserver: too many requests")
        self.asked.append(path)
        if fault == "lost":
            raise Unreachable("lost on its way")
        if fault == "late":
            self.late.append(lambda: self._answer(path, body))
            raise Unreachable("it takes very long")
        if fault == "twice":
            self._quietly(path, body)
        if fault == "no answer":
            self._quietly(path, body)
            raise Unreachable("the answer was lost")
        return self._answer(path, body)

    def _quietly(self, path: str, body: dict[str, Any]) -> None:
        with contextlib.suppress(EtcdError):
            self._answer(path, body)

    def arrive(self) -> None:
        """What was on its way comes, in the wrong order."""
        late, self.late = self.late, []
        for request in reversed(late):
            with contextlib.suppress(EtcdError):
                request()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for lease in [lease for lease, (ends, _) in self.leases.items() if ends <= self.now]:
            self.let_go(lease)

    def let_go(self, lease: int) -> None:
        """Ends a lease, and all that hangs on it."""
        del self.leases[lease]
        gone = [key for key, entry in self.entries.items() if entry.lease == lease]
        if gone:
            self.revision += 1
        for key in gone:
            del self.entries[key]

    def _answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        handler = getattr(self, "_" + path.replace("/", "_"))
        answer: dict[str, Any] = handler(body)
        return {"header": {"revision": str(self.revision)}} | answer

    # --- keys ---

    def _kv_range(self, body: dict[str, Any]) -> dict[str, Any]:
        keys = self._keys(body)
        if body.get("sort_order") == "DESCEND":
            keys.reverse()
        limit = int(body.get("limit", 0))
        kvs = [self._kv(key, keys_only=body.get("keys_only", False)) for key in keys[: limit or None]]
        return {"kvs": kvs, "count": str(len(keys))} if kvs else {}

    def _keys(self, body: dict[str, Any]) -> list[bytes]:
        begin, end = b64decode(body["key"]), b64decode(body.get("range_end", ""))
        if not end:
            return [begin] if begin in self.entries else []
        return sorted(key for key in self.entries if begin <= key < end)

    def _kv(self, key: bytes, keys_only: bool) -> dict[str, str]:
        entry = self.entries[key]
        kv = {"key": quote(key), "create_revision": str(entry.created), "mod_revision": str(entry.changed)}
        if entry.value and not keys_only:
            kv["value"] = quote(entry.value)
        return kv | ({"lease": str(entry.lease)} if entry.lease else {})

    def _kv_put(self, body: dict[str, Any]) -> dict[str, Any]:
        self._check_put(body)
        self.revision += 1
        self._put(body)
        return {}

    def _check_put(self, body: dict[str, Any]) -> None:
        lease = int(body.get("lease", 0))
        if lease and lease not in self.leases:
            raise EtcdError(NOT_FOUND, "etcdserver: requested lease not found")
        if self.is_full:
            raise EtcdError(8, "etcdserver: mvcc: database space exceeded")

    def _put(self, body: dict[str, Any]) -> None:
        key, value = b64decode(body["key"]), b64decode(body.get("value", ""))
        before = self.entries.get(key)
        created = before.created if before else self.revision
        self.entries[key] = Entry(value, created, self.revision, int(body.get("lease", 0)))
        self.largest = max(self.largest, len(value))

    def _kv_deleterange(self, body: dict[str, Any]) -> dict[str, Any]:
        keys = self._keys(body)
        self.revision += bool(keys)
        for key in keys:
            del self.entries[key]
        return {"deleted": str(len(keys))}

    def _kv_compaction(self, body: dict[str, Any]) -> dict[str, Any]:
        assert int(body["revision"]) <= self.revision
        return {}

    def _kv_txn(self, body: dict[str, Any]) -> dict[str, Any]:
        holds = all(self._holds(each) for each in body["compare"])
        operations = body["success" if holds else "failure"]
        puts = [each["request_put"] for each in operations if "request_put" in each]
        for each in puts:
            self._check_put(each)
        self.revision += bool(puts)
        responses = []
        for each in operations:
            if "request_put" in each:
                self._put(each["request_put"])
                responses.append({"response_put": {}})
            elif "request_delete_range" in each:
                for key in self._keys(each["request_delete_range"]):
                    del self.entries[key]
                responses.append({"response_delete_range": {}})
            else:
                responses.append({"response_range": self._kv_range(each["request_range"])})
        return {"responses": responses} | ({"succeeded": True} if holds else {})

    def _holds(self, compare: dict[str, Any]) -> bool:
        entry = self.entries.get(b64decode(compare["key"]))
        if compare["target"] == "CREATE":
            return (entry.created if entry else 0) == int(compare.get("create_revision", 0))
        assert compare["target"] == "MOD"
        return (entry.changed if entry else 0) == int(compare.get("mod_revision", 0))

    # --- leases ---

    def _lease_grant(self, body: dict[str, Any]) -> dict[str, Any]:
        self._next_lease += 1
        length = int(body["TTL"])
        self.leases[self._next_lease] = (self.now + length, length)
        return {"ID": str(self._next_lease), "TTL": str(length)}

    def _lease_keepalive(self, body: dict[str, Any]) -> dict[str, Any]:
        lease = int(body["ID"])
        if lease not in self.leases:
            return {"ID": str(lease)}
        _, length = self.leases[lease]
        self.leases[lease] = (self.now + length, length)
        return {"ID": str(lease), "TTL": str(length)}

    def _lease_revoke(self, body: dict[str, Any]) -> dict[str, Any]:
        lease = int(body["ID"])
        if lease not in self.leases:
            raise EtcdError(NOT_FOUND, "etcdserver: requested lease not found")
        self.let_go(lease)
        return {}
