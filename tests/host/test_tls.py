"""Certificates: what is made is believed where it should be, and what is wrong in a file is named."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from cronflowd.base.errors import Exit, Fatal
from cronflowd.host.tls import client_context, make_certificates, server_tls

NOW = datetime.now(UTC)


def _shake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> ssl.SSLObject:
    """Both sides of a handshake in memory; raises what a side says."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(4):
        for side in (theirs, ours):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ours


def _made(directory: Path, *names: str) -> list[Path]:
    return make_certificates(directory, names, NOW)


def test_who_believes_the_authority_believes_what_it_signed(tmp_path: Path) -> None:
    """Two commands are all that it takes to try TLS."""
    made = _made(tmp_path, "localhost", "a.example.org,10.0.0.7")
    assert [path.name for path in made] == [
        "ca.pem", "ca.key", "localhost.pem", "localhost.key", "a.example.org.pem", "a.example.org.key",
    ]  # fmt: skip
    ca = tmp_path / "ca.pem"
    for stem, names in (
        ("localhost", ("localhost", "127.0.0.1", "::1")),
        (
            "a.example.org",
            ("a.example.org", "10.0.0.7"),
        ),
    ):
        tls = server_tls(tmp_path / f"{stem}.pem", tmp_path / f"{stem}.key", None)
        assert NOW + timedelta(days=800) < tls.expires_at < NOW + timedelta(days=826)
        for name in names:
            assert _shake(tls.context, client_context(ca, None, None), name).version() == "TLSv1.3"
        with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
            _shake(tls.context, client_context(ca, None, None), "other.example.org")


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Whoever reads a key is the server."""
    for path in _made(tmp_path / "new", "localhost"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_what_is_there_stays_and_a_second_name_has_the_same_authority(tmp_path: Path) -> None:
    """A key that was replaced would shut out everybody who believes in it."""
    _made(tmp_path, "localhost")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(Fatal, match=r"localhost\.key: it is there already") as caught:
        _made(tmp_path, "localhost")
    assert caught.value.status == Exit.CANNOT_CREATE
    assert [path.name for path in _made(tmp_path, "pi")] == ["pi.pem", "pi.key"]
    assert all(path.read_bytes() == content for path, content in before.items())
    authority = x509.load_pem_x509_certificate((tmp_path / "ca.pem").read_bytes())
    x509.load_pem_x509_certificate((tmp_path / "pi.pem").read_bytes()).verify_directly_issued_by(authority)


def test_a_port_that_asks_for_certificates_takes_those_of_its_authority_only(tmp_path: Path) -> None:
    """--tls-client-ca is who may come at all."""
    ours, others = tmp_path / "ours", tmp_path / "others"
    _made(ours, "localhost", "pi")
    _made(others, "pi")
    tls = server_tls(ours / "localhost.pem", ours / "localhost.key", ours / "ca.pem")
    good = client_context(ours / "ca.pem", ours / "pi.pem", ours / "pi.key")
    assert _shake(tls.context, good, "localhost").getpeercert()
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        _shake(tls.context, client_context(ours / "ca.pem", None, None), "localhost")
    stranger = client_context(ours / "ca.pem", others / "pi.pem", others / "pi.key")
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        _shake(tls.context, stranger, "localhost")


def test_older_versions_of_the_protocol_are_refused(tmp_path: Path) -> None:
    """TLS 1.1 has been broken for years."""
    _made(tmp_path, "localhost")
    tls = server_tls(tmp_path / "localhost.pem", tmp_path / "localhost.key", None)
    for context in (
        tls.context,
        client_context(tmp_path / "ca.pem", None, None),
        client_context(None, None, None),
    ):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    "name", ["", "a b", "-", "ca", "a..b", "*.*.x", "é.example", "a/b", "../x", "x" * 300]
)
def test_a_name_that_is_none_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    """A certificate for nobody would be found out at the first connection only."""
    with pytest.raises(Fatal) as caught:
        _made(tmp_path, name)
    assert caught.value.status == Exit.USAGE
    assert not list(tmp_path.glob("*.key"))


@pytest.mark.parametrize(
    ("cert", "key", "said"),
    [
        ("none.pem", "localhost.key", "none.pem: No such file"),
        ("localhost.pem", "none.key", "none.key: No such file"),
        ("localhost.pem", "pi.key", "key values mismatch"),
        ("empty", "localhost.key", "empty"),
        ("localhost.key", "localhost.key", "localhost.key"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, cert: str, key: str, said: str) -> None:
    """At the start, and not when somebody dials."""
    _made(tmp_path, "localhost", "pi")
    (tmp_path / "empty").touch()
    with pytest.raises(Fatal, match=said) as caught:
        server_tls(tmp_path / cert, tmp_path / key, None)
    assert caught.value.status == Exit.CONFIG
    with pytest.raises(Fatal, match="empty: no certificates of an authority"):
        client_context(tmp_path / "empty", None, None)
