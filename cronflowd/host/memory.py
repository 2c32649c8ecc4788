"""Memory that is free again goes back to the kernel."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """After very much was freed at once: the C library keeps it otherwise, for whoever asks next."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # not every C library has it
        trim(0)
