"""A loop that beats, workers that are served at this end of a wire, and what a node asks."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from cronflowd.daemon import cluster
from cronflowd.daemon.core import Core
from cronflowd.net.workers import serve_worker
from tests.lib.core_driver import Connect, make_core
from tests.lib.nodes import Etcd


@pytest.fixture
def core(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> Core:
    """One whose heart beats, on time that leaps."""
    core = make_core()
    nursery.start_soon(core.run)
    return core


@pytest.fixture
def connect(nursery: trio.Nursery, core: Core) -> Connect:
    """Has a worker served at this end of a wire."""
    return lambda wire: nursery.start_soon(serve_worker, wire, core)


@pytest.fixture
def etcd(monkeypatch: pytest.MonkeyPatch) -> Etcd:
    found = Etcd()
    monkeypatch.setattr(cluster, "make_client", lambda *_: found)
    return found
