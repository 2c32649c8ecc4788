"""Signing in at a real door: over TLS, over its own death, and with more than it takes."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import ssl
from pathlib import Path
from typing import Any

import trustme

from tests.lib.waiting import PATIENCE_S
from tests.real.running import Daemon, StartDaemon, wait_until

JOHN = {"email": "user@example.com", "password": "SecurePass123", "name": "John Doe"}
Answer = tuple[int, Any, http.client.HTTPMessage]


def ask(
    daemon: Daemon,
    method: str,
    path: str,
    body: Any = None,
    token: str = "",
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Status, what the JSON says, and the headers."""
    if tls:
        connection = http.client.HTTPSConnection(
            "localhost", daemon.http_port, timeout=PATIENCE_S, context=tls
        )
    else:
        connection = http.client.HTTPConnection("127.0.0.1", daemon.http_port, timeout=PATIENCE_S)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        said = json.dumps(body).encode() if body is not None and not callable(body) else body and body()
        connection.request(method, path, said, headers, encode_chunked=callable(body))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers
    finally:
        connection.close()


def test_who_has_signed_in_stays_so_when_the_door_is_killed(start_daemon: StartDaemon) -> None:
    """The door keeps nothing but its key, which is on disk; what it was told stands in no log."""
    daemon = start_daemon("--http", "127.0.0.1:0")
    status, made, _ = ask(daemon, "POST", "/api/v1/auth/register", JOHN)
    assert (status, made["data"]["user"]["role"]) == (201, "admin")
    first = daemon.gateway()
    os.kill(first, signal.SIGKILL)
    status, me, _ = ask(daemon, "GET", "/api/v1/auth/me", token=made["data"]["accessToken"])
    assert (status, me["data"]["id"]) == (200, "john.doe")
    assert daemon.gateway() not in (0, first)
    refresh = {"refreshToken": made["data"]["refreshToken"]}
    status, anew, _ = ask(daemon, "POST", "/api/v1/auth/refresh", refresh)
    assert status == 200
    daemon.kill9()
    daemon.start()
    assert ask(daemon, "GET", "/api/v1/auth/me", token=anew["data"]["accessToken"])[0] == 200
    assert ask(daemon, "POST", "/api/v1/auth/refresh", refresh)[0] == 401
    assert (daemon.data / "web.key").stat().st_mode & 0o777 == 0o600
    log = daemon.log.read_text()
    for secret in JOHN["password"], *made["data"].values(), *anew["data"].values():
        assert not isinstance(secret, str) or secret not in log


def test_a_body_that_is_too_long_is_refused_and_the_door_goes_on(start_daemon: StartDaemon) -> None:
    """Also one that comes in pieces and does not say how long it is."""
    daemon = start_daemon("--http", "127.0.0.1:0")

    def pieces() -> Any:
        return iter([b'{"password":"'] + [b"x" * 65_536] * 17)

    status, said, headers = ask(daemon, "POST", "/api/v1/auth/login", pieces)
    assert (status, said["error"]["code"]) == (413, "too-long")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert ask(daemon, "POST", "/api/v1/auth/login", {"name": "x", "password": "x" * 2**20})[0] == 413
    assert ask(daemon, "POST", "/api/v1/auth/login", {"name": "x", "password": "y"})[0] == 401


def test_over_tls_a_browser_is_told_to_come_by_it_always(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """The daemon's certificate is the door's; plain HTTP is no way in."""
    authority = trustme.CA()
    pem = tmp_path / "cert.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(pem)
    pem.chmod(0o600)
    daemon = start_daemon("--http", "127.0.0.1:0", "--tls-cert", str(pem))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    status, made, headers = ask(daemon, "POST", "/api/v1/auth/register", JOHN, tls=context)
    assert status == 201
    assert re.fullmatch(r"max-age=\d{8,}", headers["Strict-Transport-Security"])
    assert ask(daemon, "GET", "/api/v1/auth/me", token=made["data"]["accessToken"], tls=context)[0] == 200
    refused = []
    try:
        ask(daemon, "GET", "/api/v1/auth/me")
    except (OSError, http.client.HTTPException) as error:
        refused.append(error)
    assert refused
    # A renewed certificate is shown without anybody being cut off; one that is none changes nothing.
    other = trustme.CA()
    newer = ssl.create_default_context()
    other.configure_trust(newer)
    for text in b"no certificate", other.issue_cert("localhost").private_key_and_cert_chain_pem.bytes():
        assert ask(daemon, "GET", "/api/v1/auth/me", tls=context)[0] == 401
        pem.write_bytes(text)
        os.kill(daemon.gateway(), signal.SIGHUP)
        wait_until(lambda: "the certificate stays as it is" in daemon.log.read_text())

    def is_taken() -> bool:
        try:
            return ask(daemon, "GET", "/api/v1/auth/me", tls=newer)[0] == 401
        except ssl.SSLCertVerificationError:
            return False

    wait_until(is_taken)
