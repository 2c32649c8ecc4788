"""The key that secrets are kept under."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cronflowd.base.errors import Refusal
from cronflowd.host.vault import Vault


def made(data: Path) -> Vault:
    vault = Vault(data)
    vault.make_key()
    return vault


def test_a_value_is_sealed_and_opened_under_its_name_alone(tmp_path: Path) -> None:
    """A sealed value that is moved to another's place in the journal must not become that one."""
    vault = made(tmp_path)
    sealed = vault.seal("a", b"value")
    assert vault.seal("a", b"value") != sealed  # equal values do not show
    assert Vault(tmp_path).open("a", sealed) == b"value"
    with pytest.raises(ValueError, match="another key"):
        vault.open("b", sealed)


@pytest.mark.parametrize("sealed", ["", "x", "AAAA", "AAAA" * 20])
def test_what_is_no_sealed_value_opens_nothing(tmp_path: Path, sealed: str) -> None:
    """A journal that was changed by hand is told as such, without a traceback."""
    with pytest.raises(ValueError, match="another key"):
        made(tmp_path).open("a", sealed)


def test_the_key_is_the_owners_alone_and_never_replaced(tmp_path: Path) -> None:
    """A second one would make all that was sealed unreadable."""
    vault = made(tmp_path)
    key = tmp_path / "key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(bytes.fromhex(key.read_text())) == 32
    with pytest.raises(Refusal, match="it is there already"):
        vault.make_key()


def test_the_credential_of_the_service_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the key is not beside what it opens."""
    sealed = made(tmp_path).seal("a", b"value")
    given = tmp_path / "given"
    given.mkdir()
    (tmp_path / "key").rename(given / "key")
    assert Vault(tmp_path).why == f"there is no key: {tmp_path}/key"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(given))
    assert Vault(tmp_path).open("a", sealed) == b"value"


@pytest.mark.parametrize("text", ["", "00", "x" * 64, "\xff"])
def test_a_key_that_is_none_is_told_and_seals_nothing(tmp_path: Path, text: str) -> None:
    """Half a key, or another file in its place, must not be taken for one."""
    (tmp_path / "key").write_bytes(text.encode("latin-1"))
    vault = Vault(tmp_path)
    assert vault.why == f"{tmp_path}/key: the key is not 64 hexadecimal digits"
    with pytest.raises(ValueError, match="hexadecimal"):
        vault.seal("a", b"value")
