"""Certificates and keys as the contexts of TLS, and a private authority's for those who have none.

TLS 1.2 at the least; whoever dials verifies the name of whom it dials. Files are read when a
program starts, a server's again at HUP, and what is wrong in them is said with the file's name.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..base.errors import Exit, Fatal
from .config import Settings
from .disk import or_fatal, read_small, write_atomically

CA_NAME = "ca"
CA_DAYS, DAYS = 3650, 825  # the latter is the most that some clients take
_LABEL = re.compile("[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")  # of a host's name
AHEAD = timedelta(minutes=5)  # certificates are valid from a little before: clocks differ


@frozen
class ServerTls:
    """What a port shows to those who come by TLS."""

    context: ssl.SSLContext
    expires_at: datetime  # of the certificate


def read_tls(settings: Settings) -> ServerTls | None:
    """What both ports show; None where they speak no TLS. Raises Fatal."""
    if settings.tls_cert is None:
        if settings.tls_key or settings.tls_client_ca:
            raise Fatal(Exit.CONFIG, "tls-key and tls-client-ca need tls-cert: without it nobody speaks TLS")
        return None
    return server_tls(settings.tls_cert, settings.tls_key, settings.tls_client_ca)


def server_tls(cert: Path, key: Path | None, client_ca: Path | None) -> ServerTls:
    """A server's side; with `client_ca`, whoever comes shows a certificate of that. Raises Fatal."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Nobody resumes a session here, and what a peer that only sends has not read resets its connection.
    context.num_tickets = 0
    _load_chain(context, cert, key)
    if client_ca is not None:
        _load_authority(context, client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return ServerTls(context, x509.load_pem_x509_certificate(read_small(cert)).not_valid_after_utc)


def client_context(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    """The side that dials; without `ca` the system's authorities are believed. Raises Fatal."""
    context = ssl.create_default_context() if ca is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca is not None:
        _load_authority(context, ca)
    if key is not None and cert is None:
        raise Fatal(Exit.CONFIG, f"{key}: a key alone shows nothing; tls-cert is missing")
    if cert is not None:
        _load_chain(context, cert, key)
    return context


def _load_chain(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    for path in (cert, key):
        if path is not None:
            _check_readable(path)
    try:
        # An empty password, or one would be asked for on the terminal.
        context.load_cert_chain(cert, key, password=lambda: b"")
    except (OSError, ValueError) as error:
        raise Fatal(Exit.CONFIG, f"{cert}, {key or cert}: {_why(error)}") from error


def _load_authority(context: ssl.SSLContext, path: Path) -> None:
    _check_readable(path)
    try:
        context.load_verify_locations(path)
    except (OSError, ValueError) as error:
        raise Fatal(Exit.CONFIG, f"{path}: no certificates of an authority: {_why(error)}") from error


def _check_readable(path: Path) -> None:
    with or_fatal(str(path), Exit.CONFIG):
        read_small(path)


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return reason.lower().replace("_", " ") if isinstance(reason, str) else str(error)


# --- an authority of one's own ------------------------------------------------------------------


def make_certificates(directory: Path, names: Iterable[str], now: datetime) -> list[Path]:
    """A certificate and a key for each of `names`, by the directory's own authority, made first if need be.

    One of several names is `a,b`, and its files are called by the first. What is there already stays.
    Returns the files that were made; raises Fatal.
    """
    wanted = [_known_as(each) for each in names]  # all of them are names, or nothing is made
    made: list[Path] = []
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        ca_cert, ca_key = directory / f"{CA_NAME}.pem", directory / f"{CA_NAME}.key"
        if not ca_key.exists():
            made += _write_pair(ca_cert, ca_key, *_make_authority(now))
        authority = x509.load_pem_x509_certificate(read_small(ca_cert))
        signer = serialization.load_pem_private_key(read_small(ca_key), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        for known in wanted:
            cert, key = directory / f"{known[0]}.pem", directory / f"{known[0]}.key"
            if key.exists():
                raise Fatal(Exit.CANNOT_CREATE, f"{key}: it is there already, and stays as it is")
            made += _write_pair(cert, key, *_make_certificate(known, authority, signer, now))
    except (OSError, ValueError) as error:
        raise Fatal(Exit.CANNOT_CREATE, f"{directory}: {error}") from error
    return made


def _known_as(names: str) -> list[str]:
    """`a,b` as names; localhost is its addresses as well. Raises Fatal for what is none."""
    found = names.split(",")
    for name in found:
        labels = name.removeprefix("*.").split(".")
        is_host = all(map(_LABEL.fullmatch, labels))
        if len(name) > 253 or not (is_host or _address(name)):
            raise Fatal(Exit.USAGE, f'"{name}" is neither a host\'s name nor an address')
    if found[0] == CA_NAME:
        raise Fatal(Exit.USAGE, f'"{CA_NAME}" is what the authority itself is called here')
    return [*found, "127.0.0.1", "::1"] if found == ["localhost"] else found


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _make_authority(now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cronflowd's private authority")])
    builder = _builder(name, name, key, now, CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return builder.add_extension(usage, critical=True).sign(key, hashes.SHA256()), key


def _make_certificate(
    names: list[str], authority: x509.Certificate, signer: ec.EllipticCurvePrivateKey, now: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    addresses = [(name, _address(name)) for name in names]
    known = [x509.IPAddress(address) if address else x509.DNSName(name) for name, address in addresses]
    builder = _builder(subject, authority.subject, key, now, DAYS)
    builder = builder.add_extension(x509.SubjectAlternativeName(known), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = builder.add_extension(uses, critical=False)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return builder.add_extension(identifier, critical=False).sign(signer, hashes.SHA256()), key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - AHEAD)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _write_pair(
    cert_path: Path, key_path: Path, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> list[Path]:
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    descriptor = os.open(key_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
    write_atomically(cert_path, [cert.public_bytes(serialization.Encoding.PEM)])
    return [cert_path, key_path]
