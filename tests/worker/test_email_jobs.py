"""Jobs that are mails, against a real SMTP server (aiosmtpd, in a thread of its own)."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from aiosmtpd.smtp import AuthResult

from cronflowd.base.errors import Exit, Fatal
from cronflowd.host import mail
from cronflowd.host.config import WorkerSettings
from cronflowd.worker.executors import make_table
from cronflowd.worker.executors.email import make_message
from cronflowd.worker.executors.job import Ended, Job, Order
from cronflowd.worker.executors.output import Output
from tests.lib.job_processes import ending_of
from tests.lib.mail_server import Box, smtp_server
from tests.lib.waiting import PATIENCE_S, until

AT = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)
OPTIONS = {"type": "email", "task": "17", "name": "report", "fire": "17/2030-01-01T12:00:00Z"}
TEXT = '{"subject": "Good morning", "text": "All is well."}'


@pytest.fixture
def box() -> Box:
    return Box()


@pytest.fixture
def port(box: Box) -> Iterator[int]:
    with smtp_server(box) as found:
        yield found


def make_job(recipients: str, payload: str = TEXT, **options: str) -> Job:
    order = Order("41 1", OPTIONS | {"payload": payload} | options, recipients)
    return Job(order, Output("41", 65536), grace_s=5.0)


async def carry_out(job: Job, port: int, **settings: Any) -> Ended:
    values = {"smtp": ("127.0.0.1", port), "smtp_from": "cron@example.org", **settings}
    with trio.fail_after(PATIENCE_S):
        return await ending_of(make_table(WorkerSettings(**values))["email"], job)


# --- what arrives -----------------------------------------------------------------------


async def test_a_mail_arrives_with_all_that_belongs_to_it(box: Box, port: int) -> None:
    """Text and html are two forms of one message; the Message-ID is made from the fire."""
    payload = '{"subject": "Grüße", "text": "naïve\\n.\\nend", "html": "<p>naïve</p>"}'
    job = make_job("ops@example.org, root@localhost,ops@example.org", payload)
    ended = await carry_out(job, port)
    ((envelope, message),) = box.mails
    assert (envelope.mail_from, envelope.rcpt_tos) == (
        "cron@example.org",
        ["ops@example.org", "root@localhost"],
    )
    assert (message["Subject"], message["From"], message["To"]) == (
        "Grüße",
        "cron@example.org",
        "ops@example.org, root@localhost",
    )
    assert message["Message-ID"].startswith("<17.2030-01-01T12.00.00Z.")
    assert message["Message-ID"].endswith("@example.org>")
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"].datetime.tzinfo is not None
    assert message.get_content_type() == "multipart/alternative"
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    assert plain
    assert html
    assert plain.get_content().splitlines() == ["naïve", ".", "end"]
    assert html.get_content().strip() == "<p>naïve</p>"
    assert all(byte < 128 for byte in envelope.original_content)
    assert ended == Ended(0, why=f"sent to 2 by 127.0.0.1 as {message['Message-ID']}")
    assert job.is_started


@pytest.mark.parametrize(
    ("payload", "kind", "subject"),
    [
        ('{"text": "x"}', "text/plain", "report"),
        ('{"subject": "", "html": "<b>x</b>"}', "text/html", "report"),
        ('{"subject": "s", "text": "x"}', "text/plain", "s"),
    ],
)
async def test_one_form_is_enough_and_the_task_s_name_is_a_subject(
    box: Box, port: int, payload: str, kind: str, subject: str
) -> None:
    """The shortest payload that says something."""
    assert (await carry_out(make_job("a@b", payload), port)).exit == 0
    message = box.mails[0][1]
    assert (message.get_content_type(), message["Subject"]) == (kind, subject)


def test_the_message_id_is_the_attempts_and_nobody_else_s() -> None:
    """Mail servers drop a second message of the same id: good for a retry, bad for another task."""
    one = make_message(Order("41 1", OPTIONS | {"payload": TEXT}, "a@b"), "c@d", AT)
    again = make_message(Order("41 2", OPTIONS | {"payload": TEXT}, "a@b"), "c@d", AT)
    other = make_message(Order("41 1", OPTIONS | {"payload": TEXT, "name": "x"}, "a@b"), "c@d", AT)
    assert one["Message-ID"] == again["Message-ID"] != other["Message-ID"]


@pytest.mark.parametrize("text", ["x\r\nBcc: evil@example.org", "x\nBcc: evil@example.org"])
async def test_no_subject_brings_a_header_of_its_own(box: Box, port: int, text: str) -> None:
    """The model refuses such a subject; should it come all the same, no mail is sent."""
    ended = await carry_out(make_job("a@b", json.dumps({"subject": text, "text": "x"})), port)
    assert (ended.exit, box.mails) == (126, [])


@pytest.mark.parametrize(
    "text",
    [
        "=?utf-8?q?=0D=0ABcc:_evil=40example.org?=",
        "Re: =?utf-8?b?DQpCY2M6IGV2aWxAZXhhbXBsZS5vcmc=?= and é",
        "=?utf-8?q?=0D=0A=0D=0Aanother_text?=" + " long" * 40,
        "=?x",
    ],
)
async def test_a_subject_is_what_it_says_and_nothing_that_is_written_in_another_form(
    box: Box, port: int, text: str
) -> None:
    """The form that headers have for other letters hides line ends, too: one in a subject began a header."""
    assert (await carry_out(make_job("a@b", json.dumps({"subject": text, "text": "x"})), port)).exit == 0
    ((_, message),) = box.mails
    assert (message["Subject"], message["Bcc"], message.get_content().strip()) == (text, None, "x")


# --- what is refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipients", "options", "code", "why", "sent"),
    [
        ("a@b, nobody@c", {}, 55, "sent to 1, but not to nobody@c (550 no such user)", 1),
        ("later@a, nobody@c", {}, 55, "later@a (451 try again later), nobody@c (550 no such user)", 0),
        ("a@b", {"payload": '{"subject": "too much", "text": "x"}'}, 55, "552 mailbox full", 0),
        ("a@b", {"smtp_from": "banned@x"}, 55, "550 go away", 0),
        ("a@b", {"smtp_tls": "required"}, 64, "no STARTTLS", 0),
    ],
)
async def test_what_the_server_refuses_is_told_with_its_words(
    box: Box, port: int, recipients: str, options: dict[str, str], code: int, why: str, sent: int
) -> None:
    """A mail that reached only some is a failure, and names the others."""
    settings = {key: text for key, text in options.items() if key.startswith("smtp")}
    job = make_job(recipients, options.get("payload", TEXT))
    ended = await carry_out(job, port, **settings)
    assert ended.exit == code
    assert why in ended.why
    assert len(box.mails) == sent


async def test_nobody_there_is_told_from_no_such_name() -> None:
    """curl's numbers, as for http."""
    ended = await carry_out(make_job("a@b"), 1)
    assert ended.exit == 7
    assert "127.0.0.1 port 1: Connection refused" in ended.why
    assert (await carry_out(make_job("a@b"), 1, smtp=("no-such-host.invalid", 25))).exit == 6


@contextmanager
def silent_server(*lines: bytes) -> Iterator[tuple[int, threading.Event, threading.Event]]:
    """Says its lines and then nothing: (port, somebody has come, they have left)."""
    came, left = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"".join(lines))
                came.set()
                while connection.recv(4096):
                    pass
            left.set()

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], came, left
        thread.join(PATIENCE_S)


async def test_a_server_that_says_nothing_meets_the_timeout() -> None:
    """And the thread is not left behind: its connection is cut."""
    with silent_server(b"220 hello\r\n") as (port, _, left):
        ended = await carry_out(make_job("a@b", timeout="0.1"), port)
        assert (ended.exit, ended.timed_out) == (28, True)
        assert "not known" in ended.why
        await until(left.is_set)


async def test_without_a_timeout_every_wait_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mail server that hangs must not hold a slot for ever."""
    monkeypatch.setattr(mail, "WAIT_S", 0.1)
    with silent_server(b"220 hello\r\n") as (port, _, _):
        ended = await carry_out(make_job("a@b"), port)
    assert (ended.exit, ended.timed_out) == (28, False)
    assert "said nothing" in ended.why


async def test_a_kill_cuts_the_connection() -> None:
    """CANCEL is answered at once."""
    with silent_server() as (port, came, left):
        job = make_job("a@b")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_kill_when, came.is_set, job)
            assert await carry_out(job, port) == Ended(143, signal=15)
        await until(left.is_set)


async def _kill_when(is_true: Callable[[], bool], job: Job) -> None:
    await until(is_true)
    job.kill()


async def test_a_server_that_is_none_is_told() -> None:
    """A wrong port is the usual reason."""
    with silent_server(b"SSH-2.0-OpenSSH_9.2\r\n") as (port, _, _):
        ended = await carry_out(make_job("a@b"), port)
    assert ended.exit in (55, 56)
    assert ended.why


# --- encryption and login ---------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """An authority that this machine trusts while the test runs."""
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return made


def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def login(tmp_path: Path) -> dict[str, Any]:
    """Settings of a login that is right."""
    path = tmp_path / "password"
    path.write_text("pass word\n")
    path.chmod(0o600)
    return {"smtp_user": "me", "smtp_password_file": path}


def check_login(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    is_right = (data.login, data.password) == (b"me", b"pass word")
    return AuthResult(success=is_right, handled=False)


async def test_starttls_and_login(box: Box, authority: trustme.CA, login: dict[str, Any]) -> None:
    """As nearly every provider wants it."""
    options = {"tls_context": server_context(authority), "require_starttls": True}
    with smtp_server(box, authenticator=check_login, auth_required=True, **options) as port:
        for tls in ("required", "auto"):
            assert (await carry_out(make_job("a@b"), port, smtp_tls=tls, **login)).exit == 0
        assert box.mails[0][0].smtp_utf8 is False
        login["smtp_password_file"].write_text("wrong\n")
        ended = await carry_out(make_job("a@b"), port, smtp_tls="required", **login)
    assert ended.exit == 67
    assert "535" in ended.why
    assert "wrong" not in ended.why
    assert len(box.mails) == 2


async def test_tls_from_the_first_byte(box: Box, authority: trustme.CA) -> None:
    """Port 465."""
    with smtp_server(box, ssl_context=server_context(authority)) as port:
        assert (await carry_out(make_job("a@b"), port, smtp_tls="implicit")).exit == 0
        ended = await carry_out(make_job("a@b"), port, smtp_tls="implicit", smtp=("localhost", port))
    assert ended.exit == 60  # the certificate names 127.0.0.1
    assert len(box.mails) == 1


async def test_an_unknown_server_gets_no_password(
    box: Box, authority: trustme.CA, login: dict[str, Any]
) -> None:
    """Without a login any encryption is better than none; with one, only a verified server will do."""
    with smtp_server(box, tls_context=server_context(trustme.CA())) as port:
        assert (await carry_out(make_job("a@b"), port, smtp_tls="auto")).exit == 0
        assert (await carry_out(make_job("a@b"), port, smtp_tls="required")).exit == 60
        assert (await carry_out(make_job("a@b"), port, smtp_tls="auto", **login)).exit == 60
    assert len(box.mails) == 1


async def test_no_password_goes_out_in_the_clear(box: Box, port: int, login: dict[str, Any]) -> None:
    """Unless the settings say off, which is for a server on this machine."""
    assert (await carry_out(make_job("a@b"), port, **login)).exit == 64
    with smtp_server(box, authenticator=check_login, auth_require_tls=False) as open_port:
        assert (await carry_out(make_job("a@b"), open_port, smtp_tls="off", **login)).exit == 0


async def test_a_password_that_cannot_be_read_is_told(port: int, login: dict[str, Any]) -> None:
    """It is read for every mail, so that a new one counts at once."""
    login["smtp_password_file"].unlink()
    ended = await carry_out(make_job("a@b"), port, **login)
    assert ended.exit == 126
    assert "cannot read the password" in ended.why


async def test_a_task_may_bring_the_password_of_the_login(
    box: Box, authority: trustme.CA, login: dict[str, Any]
) -> None:
    """So it can be a secret of the daemon's, and the worker's disk need not hold it."""
    options = {"tls_context": server_context(authority), "require_starttls": True}
    del login["smtp_password_file"]
    with smtp_server(box, authenticator=check_login, auth_required=True, **options) as port:
        job = make_job("a@b", secret="pass word")
        assert (await carry_out(job, port, smtp_tls="required", **login)).exit == 0
        ended = await carry_out(make_job("a@b"), port, smtp_tls="required", **login)
        assert "the login me has no password" in ended.why
        ended = await carry_out(job, port, smtp_tls="required")
        assert "secret= is the password of smtp_user" in ended.why


def test_a_password_without_a_login_is_a_bad_configuration(tmp_path: Path) -> None:
    """Better at the start than at the first mail."""
    with pytest.raises(Fatal) as caught:
        make_table(WorkerSettings(smtp=("localhost", 25), smtp_password_file=tmp_path))
    assert caught.value.status == Exit.CONFIG


def test_without_a_server_the_worker_offers_no_mail() -> None:
    """can= names what is possible here, so a run waits for a worker that can."""
    assert "email" not in make_table(WorkerSettings())
    assert "email" in make_table(WorkerSettings(smtp=("localhost", 25)))
