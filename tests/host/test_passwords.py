"""Passwords: what is kept of them, and that nothing tells whether there is an account."""

from __future__ import annotations

import re

import pytest

from cronflowd.host import secrets as passwords


def test_what_is_kept_is_a_salted_argon2id_hash() -> None:
    """Whoever reads the journal must guess each of them, slowly."""
    first, second = passwords.hash_password("correct-horse"), passwords.hash_password("correct-horse")
    assert first != second
    assert re.match(r"\$argon2id\$v=19\$m=65536,t=[3-9],p=[1-9]\$", first)
    assert passwords.is_password(first, "correct-horse")
    assert not passwords.is_password(first, "correct-horse ")
    assert not passwords.is_password("no hash at all", "correct-horse")


def test_a_name_that_does_not_exist_is_compared_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of the answer would tell otherwise which accounts there are."""
    compared: list[str] = []
    passwords.hash_of_nobody.cache_clear()
    passwords.hash_of_nobody()
    somebodys = passwords.hash_password("correct-horse")

    class Hasher:
        def verify(self, hashed: str, offered: str) -> bool:
            compared.append(hashed)
            return True

    monkeypatch.setattr(passwords, "_hasher", Hasher)
    assert passwords.is_password("", "correct-horse") is False
    assert compared[0].split("$")[:4] == somebodys.split("$")[:4]


def test_a_made_password_is_long_and_easily_read() -> None:
    """It is read off a screen and typed; and no two are alike."""
    made = [passwords.make_password() for _ in range(50)]
    assert len(set(made)) == 50
    assert all(re.fullmatch("[a-z2-9]{20}", each) and not set(each) & set("ilo01") for each in made)
