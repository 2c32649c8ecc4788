"""What every test stands on: an environment that says nothing, how hard hypothesis tries, what is first."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Generator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Whoever runs the tests may have settings of their own, or be systemd.
KEPT = (
    "CRONFLOWD_GOLDEN",
    "CRONFLOWD_LONG",
    "CRONFLOWD_KILLS",
    "CRONFLOWD_BLOWS",
    "CRONFLOWD_CUTS",
    "CRONFLOWD_EXAMPLES",
    "CRONFLOWD_FUZZ_S",
    "CRONFLOWD_PICTURES",
    "CRONFLOWD_PROBES",
    "CRONFLOWD_SEED",
)
for name in list(os.environ):
    if name.startswith(("CRONFLOWD_", "LISTEN_", "WATCHDOG_")) and name not in KEPT:
        del os.environ[name]
for name in ("NOTIFY_SOCKET", "STATE_DIRECTORY", "JOURNAL_STREAM", "TZ"):
    os.environ.pop(name, None)

# Where bytecode is not kept, as in many containers, each of the hundreds of programs that are started
# here would translate the whole package anew: half of what such a start costs.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell or nohup starts what runs in the background with these ignored, and so would be all we start.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

# No deadline: the machine is shared, and a slow example is no wrong one. The quick profile tries
# the same examples every time, so that what was green stays green; the long one looks for new.
settings.register_profile(
    "quick", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "long",
    deadline=None,
    max_examples=2000,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("long" if os.environ.get("CRONFLOWD_LONG") else "quick")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two more than there are processors: what starts real programs waits for them half of its time."""
    return len(os.sched_getaffinity(0)) + 2


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What thousands of tests are made of is no garbage: nobody looks through it now, or in any test."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A file that waits for real programs, then two that only compute, so that no processor waits as well.

    The rest of the latter comes last, in small portions, and all that go side by side end at the same time.
    """
    if hasattr(config, "workerinput"):
        turns = {True: count(0, 3), False: (turn for turn in count() if turn % 3)}
        places: dict[Path, int] = {}
        for item in items:
            if item.path not in places:
                places[item.path] = next(turns["real" in item.path.parts])
        items.sort(key=lambda item: places[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Who comes after on the same worker, and all that they start, would stand behind whatever else runs."""
    before = os.nice(0)
    result = yield
    assert os.nice(0) == before, "the test has made its process a nicer one, for good"
    return result
