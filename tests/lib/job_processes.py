"""Processes of jobs: how a test has one wait, and sees whether one is still there."""

from __future__ import annotations

from pathlib import Path


def wait_for(gate: Path) -> str:
    """A command that ends when the test makes the file; of a test that failed before, some minutes later."""
    return f"until [ -e {gate} ] || [ $((n += 1)) -gt 9000 ]; do sleep 0.01; done"


def is_alive(pid: int) -> bool:
    """Whether the process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except FileNotFoundError:
        return False
