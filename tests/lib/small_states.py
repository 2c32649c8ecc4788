"""The daemon with an etcd that takes hardly any state: python -m tests.lib.small_states …"""

from __future__ import annotations

import sys

from cronflowd.cli.cli import main
from cronflowd.journal import shared

if __name__ == "__main__":
    shared.MAX_SNAPSHOT_BYTES = 100
    sys.exit(main())
