"""A daemon that writes to a file, at SIGUSR1, how long the longest pass of its loop took since the last one.

    python -m contrib.bench.steps FILE FLAGS…

By the processor's own time: what else goes on upon this machine counts for nothing.
"""

from __future__ import annotations

import signal
import sys
import time
from functools import partial
from pathlib import Path

import trio

from cronflowd.cli.cli import main
from cronflowd.host.disk import write_atomically


class Passes(trio.abc.Instrument):
    """What trio does between two waits for something to happen."""

    longest_s = 0.0
    _began_s: float | None = None  # None before the first

    def after_io_wait(self, timeout: float) -> None:
        self._began_s = time.thread_time()

    def before_io_wait(self, timeout: float) -> None:
        if self._began_s is not None:
            self.longest_s = max(self.longest_s, time.thread_time() - self._began_s)

    def tell(self, path: Path) -> None:
        write_atomically(path, [str(self.longest_s).encode()])
        self.longest_s = 0.0


def serve(path: Path, flags: list[str]) -> int:
    passes = Passes()
    signal.signal(signal.SIGUSR1, lambda *_: passes.tell(path))
    trio.run = partial(trio.run, instruments=[passes])
    return main(flags)


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1]), sys.argv[2:]))
