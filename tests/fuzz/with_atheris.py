"""The same scripts, chosen by atheris, which keeps the choices that reached code nobody had reached."""

from __future__ import annotations

import sys
from random import Random

try:
    import atheris
except ImportError:
    atheris = None


class Choices(Random):
    """Chance that is somebody's bytes: a byte changed in one place changes one choice."""

    def __init__(self, data: bytes) -> None:
        self._left = data
        super().__init__(0)

    def getrandbits(self, bits: int) -> int:
        size = -(-bits // 8)
        taken, self._left = self._left[:size], self._left[size:]
        return int.from_bytes(taken) & ((1 << bits) - 1)

    def random(self) -> float:
        # What happens seldom never happens where there is nothing left to choose by.
        return self.getrandbits(16) / 65_536 if self._left else 0.99


def main() -> None:
    """Its arguments are libFuzzer's: `-max_total_time=120`, a directory to keep the choices in."""
    if atheris is None:
        print("skipped: atheris is not installed")
        return
    with atheris.instrument_imports(include=["cronflowd"]):
        from tests.fuzz.scripts import make_script
        from tests.fuzz.test_fuzz import look_at

    def look(data: bytes) -> None:
        look_at(make_script(Choices(data)))

    atheris.Setup(sys.argv, look)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
