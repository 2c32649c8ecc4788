"""Passwords that cost nothing, and wrong ones that cost no wait."""

from __future__ import annotations

import pytest
from argon2 import PasswordHasher


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cronflowd.host.secrets._hasher", lambda: PasswordHasher(1, 8, 1))
    monkeypatch.setattr("cronflowd.daemon.strangers.FIRST_WAIT_S", 0.0)
