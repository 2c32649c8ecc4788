"""etcd as it is run where others are on the net: over TLS, with certificates of both sides, and accounts."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from cronflowd.host.tls import client_context, make_certificates
from cronflowd.journal.etcd import Etcd, EtcdError, Unreachable, quote
from tests.real.clusters import Etcds, Node, leader_of
from tests.real.running import PATIENCE_S, wait_until


def make_nameless(certs: Path) -> tuple[Path, Path]:
    """A certificate without a common name, of the authority there, and its key."""
    key, files = ec.generate_private_key(ec.SECP256R1()), (certs / "nameless.pem", certs / "nameless.key")
    authority = x509.load_pem_x509_certificate((certs / "ca.pem").read_bytes())
    signer = serialization.load_pem_private_key((certs / "ca.key").read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    made = x509.CertificateBuilder(authority.subject, x509.Name([]), key.public_key(), serial_number=1)
    made = made.not_valid_before(authority.not_valid_before_utc)
    made = made.not_valid_after(authority.not_valid_after_utc)
    use = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    pem = serialization.Encoding.PEM
    signed = made.add_extension(use, critical=False).sign(signer, hashes.SHA256())
    files[0].write_bytes(signed.public_bytes(pem))
    bare = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(pem, *bare))
    return files


def lock(etcd: Etcd) -> None:
    """Root, and an account that may do what docs/cluster.md says; from now on all must log in."""
    for name, password in ("root", "r00t"), ("cron", "s3cret"):
        etcd.call("auth/user/add", {"name": name, "password": password}, PATIENCE_S)
        etcd.call("auth/role/add", {"name": name}, PATIENCE_S)
        etcd.call("auth/user/grant", {"user": name, "role": name}, PATIENCE_S)
    below = {
        "permType": "READWRITE",
        "key": quote(b"/cronflowd/main/"),
        "range_end": quote(b"/cronflowd/main0"),
    }
    etcd.call("auth/role/grant", {"name": "cron", "perm": below}, PATIENCE_S)
    etcd.call("auth/enable", {}, PATIENCE_S)


def test_etcd_asks_for_a_certificate_and_a_password(tmp_path: Path) -> None:
    """Whoever writes there can have any command run, so nobody else gets in; and all goes on as without."""
    certs = tmp_path / "tls"
    make_certificates(certs, ["localhost", "node"], datetime.now(UTC))
    etcds = Etcds(tmp_path, 1, certs=certs)
    password = tmp_path / "password"
    password.write_text("s3cret\n")
    password.chmod(0o600)
    ca, nameless, named = certs / "ca.pem", make_nameless(certs), (certs / "node.pem", certs / "node.key")
    flags = ["--etcd-ca", str(ca), "--etcd-cert", str(nameless[0]), "--etcd-key", str(nameless[1])]
    flags += ["--etcd-user", "cron", "--etcd-password-file", str(password)]
    nodes = [Node(tmp_path / name, name, etcds, *flags) for name in "ab"]
    try:
        lock(etcds.client)
        for node in nodes:
            node.start()
        leader = leader_of(nodes)
        assert leader.ask("ADD name=first 0 0 1 1 * true")[0].startswith("OK 1")
        other = next(node for node in nodes if node is not leader)
        wait_until(lambda: "first" in other.nc("LOCAL", "LIST"))
        assert "\netcd\tok 1/1 " in leader.nc("STATUS")
        etcds.kill(0)  # what it knows of who has logged in goes with it
        etcds.start(0)
        wait_until(lambda: any(node.leads and node.nc("LIST").endswith("OK 1\n") for node in nodes))
        leader_of(nodes).stop()
        leader_of(nodes)
        for certificate, authority, words, why in (
            (None, ca, "s3cret", "certificate|EOF|closed|reset|Broken pipe"),  # whichever comes first
            (nameless, None, "s3cret", "certificate verify failed"),
            (named, ca, "s3cret", "CommonName of client"),
            (nameless, ca, "guess", "authentication failed, invalid user ID or password"),
            (nameless, ca, "", "user name is empty"),
        ):
            context = client_context(authority, *certificate or (None, None))
            stranger = Etcd(etcds.members, context=context, user="cron" if words else "", password=words)
            patience_s = 1.0 if "certificate" in why else PATIENCE_S  # to compare a password takes etcd long
            with closing(stranger), pytest.raises((EtcdError, Unreachable), match=why):
                stranger.call("kv/range", {"key": quote(b"/cronflowd/main/x")}, patience_s)
    finally:
        for node in nodes:
            node.kill9()
        etcds.close()
