"""`python -m cronflowd` is `cronflowd`; the local worker is started this way."""

from __future__ import annotations

import sys

from .cli.cli import main

if __name__ == "__main__":
    sys.exit(main())
