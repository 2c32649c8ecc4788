"""Jobs of type `email`: a message to a mail server that the worker's settings name.

The library for it waits as threads do, so each mail has a thread, at most so many at a
time, and its connection a limit on every wait. A job that is told to end is over at once:
its connection is cut, and the thread ends by that. Whether the mail went out is then not
known; its Message-ID is the same at every attempt.
"""

from __future__ import annotations

import hashlib
import re
import smtplib
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any

import orjson
import trio
from attrs import Factory, define

from ... import __version__
from ...base.errors import Exit, Fatal
from ...host.clock import wall_now
from ...host.config import WorkerSettings
from ...host.secrets import read_password
from ...tasks.kinds import split_recipients
from . import remote as r
from .job import NOT_RUNNABLE, Ended, Job, Order, cannot_start

WAIT_S = 30.0  # for any single answer of the server
GOODBYE_S = 2.0  # for its answer to QUIT
MAX_AT_A_TIME = 16
MAX_SHOWN = 300  # characters of what the server says

# Not 8 bit: a server may not take it.
_POLICY = SMTP.clone(cte_type="7bit")


@define
class Mailer:
    """The executor: what the settings say, and how many threads are at it."""

    settings: WorkerSettings
    now: Callable[[], datetime] = wall_now
    limiter: trio.CapacityLimiter = Factory(lambda: trio.CapacityLimiter(MAX_AT_A_TIME))

    def __attrs_post_init__(self) -> None:
        if self.settings.smtp_password_file and not self.settings.smtp_user:
            raise Fatal(Exit.CONFIG, "smtp_password_file is the password of smtp_user, which is missing")

    def _password(self, secret: str) -> str:
        """Of smtp_user: the task's, or that of the file, which is read anew for each mail."""
        user, file = self.settings.smtp_user, self.settings.smtp_password_file
        if secret and not user:
            raise ValueError("secret= is the password of smtp_user, which this worker was not given")
        if user and not (secret or file):
            raise ValueError(
                f"the login {user} has no password: give smtp_password_file, or the task secret="
            )
        return secret or (read_password(file) if file else "")

    async def run(self, job: Job) -> Ended:
        """The command is the recipients, the payload what they read."""
        try:
            password = self._password(job.order.options.get("secret", ""))
            message = make_message(job.order, self.settings.smtp_from, self.now())
        except (Fatal, ValueError) as error:
            return cannot_start(NOT_RUNNABLE, str(error))
        delivery = Delivery(self.settings, password, split_recipients(job.order.command), message)

        async def deliver() -> Ended:
            try:
                return await trio.to_thread.run_sync(
                    delivery.run, abandon_on_cancel=True, limiter=self.limiter
                )
            finally:
                delivery.abort()

        why_late = "its timeout is over; whether the mail went out is not known"
        return await r.converse(job, deliver, lambda: why_late)


def make_message(order: Order, sender: str, at: datetime) -> EmailMessage:
    """The mail itself; text and html are two forms of the same. Raises ValueError."""
    content: dict[str, Any] = orjson.loads(order.options.get("payload", "{}"))
    message = EmailMessage(policy=_POLICY)
    message["Subject"] = content.get("subject") or order.options.get("name", "")
    message["From"] = sender
    message["To"] = ", ".join(split_recipients(order.command))
    message["Date"] = format_datetime(at)
    message["Message-ID"] = make_message_id(order, sender)
    # So that no holiday notice is sent in answer.
    message["Auto-Submitted"] = "auto-generated"
    message["X-Mailer"] = f"cronflowd/{__version__}"
    text, html = content.get("text"), content.get("html")
    if text or not html:
        message.set_content(text or "")
    if html and text:
        message.add_alternative(html, subtype="html")
    elif html:
        message.set_content(html, subtype="html")
    return message


def make_message_id(order: Order, sender: str) -> str:
    """The same for every attempt of a fire, and for no other mail of this or another daemon."""
    fire = order.options.get("fire", "")
    what = "\n".join((fire, order.options.get("name", ""), order.command, order.options.get("payload", "")))
    readable = re.sub("[^A-Za-z0-9-]+", ".", fire).strip(".")
    digest = hashlib.sha256(what.encode()).hexdigest()[:16]
    return f"<{readable}.{digest}@{sender.partition('@')[2]}>"


# --- in the thread ----------------------------------------------------------------------


class Delivery:
    """One conversation with the server. `run` is the thread's; `abort` comes from outside."""

    def __init__(
        self, settings: WorkerSettings, password: str, recipients: list[str], message: EmailMessage
    ) -> None:
        assert settings.smtp is not None
        self.host, self.port = settings.smtp
        self.settings = settings
        self.password = password
        self.recipients = recipients
        self.message = message
        self._is_aborted = False
        self._handle: socket.socket | None = None  # the connection once more, whatever TLS makes of it

    def abort(self) -> None:
        """Cuts the connection, which wakes the thread; nothing happens when it has ended."""
        self._is_aborted = True
        if self._handle is not None:
            with suppress(OSError):
                self._handle.shutdown(socket.SHUT_RDWR)

    def run(self) -> Ended:
        """Sends the mail. Raises Failure."""
        try:
            return self._converse()
        except (smtplib.SMTPException, OSError) as error:
            raise _failure(error) from None
        finally:
            if self._handle is not None:
                self._handle.close()

    def connect(self) -> socket.socket:
        """A connection to the server. Raises Failure."""
        try:
            sock = socket.create_connection((self.host, self.port), WAIT_S)
        except socket.gaierror as error:
            raise r.Failure(r.NO_HOST, f"{self.host}: {error.strerror}") from None
        except TimeoutError:
            raise r.Failure(r.TIMED_OUT, f"{self.host}: no connection within {WAIT_S:g} s") from None
        except OSError as error:
            raise r.Failure(r.NO_CONNECTION, f"{self.host} port {self.port}: {error.strerror}") from None
        self._handle = sock.dup()
        if self._is_aborted:
            self.abort()
        if self.settings.smtp_tls == "implicit":
            return ssl.create_default_context().wrap_socket(sock, server_hostname=self.host)
        return sock

    def _converse(self) -> Ended:
        with _Smtp(self) as smtp:
            self._encrypt(smtp)
            if self.settings.smtp_user:
                smtp.login(self.settings.smtp_user, self.password)
            refused = smtp.sendmail(self.settings.smtp_from, self.recipients, self.message.as_bytes())
            assert smtp.sock is not None
            smtp.sock.settimeout(GOODBYE_S)
        if refused:
            accepted = len(self.recipients) - len(refused)
            raise r.Failure(r.NOT_SENT, f"sent to {accepted}, but not to {_told(refused)}")
        return Ended(0, why=f"sent to {len(self.recipients)} by {self.host} as {self.message['Message-ID']}")

    def _encrypt(self, smtp: smtplib.SMTP) -> None:
        """STARTTLS as the settings want it. A password goes to nobody but a server that was verified."""
        if self.settings.smtp_tls in ("off", "implicit"):
            return
        is_needed = self.settings.smtp_tls == "required" or bool(self.settings.smtp_user)
        smtp.ehlo_or_helo_if_needed()
        if smtp.has_extn("starttls"):
            # Certificates are checked against those the system trusts, or that SSL_CERT_FILE names.
            smtp.starttls(context=ssl.create_default_context() if is_needed else _any_context())
        elif is_needed:
            raise r.Failure(r.TLS_NOT_OFFERED, "the server offers no STARTTLS, and smtp_tls= wants it")


class _Smtp(smtplib.SMTP):
    """The library's client on a connection of ours; leaving it says QUIT."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        # Its own idea of this host's name would ask the DNS.
        super().__init__(delivery.host, delivery.port, local_hostname=socket.gethostname(), timeout=WAIT_S)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return self._delivery.connect()

    def __exit__(self, *args: object) -> None:
        # The mail is taken or it is not; a server without manners changes nothing about it.
        with suppress(smtplib.SMTPException, OSError):
            if args[0] is None:
                self.docmd("QUIT")
        self.close()


def _any_context() -> ssl.SSLContext:
    """Better than no encryption, and as mail servers do it among themselves."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _failure(error: Exception) -> r.Failure:
    """What went wrong as a number of curl's and words for people."""
    match error:
        case smtplib.SMTPAuthenticationError():
            return r.Failure(r.LOGIN_DENIED, f"the login was refused: {_answer(error)}")
        case smtplib.SMTPNotSupportedError():
            return r.Failure(r.LOGIN_DENIED, f"the login is not possible: {error}")
        case smtplib.SMTPRecipientsRefused():
            return r.Failure(r.NOT_SENT, f"nobody was accepted: {_told(error.recipients)}")
        case smtplib.SMTPResponseException():
            return r.Failure(r.NOT_SENT, f"the server refused: {_answer(error)}")
    if failure := r.tls_failure(error):
        return failure
    if isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError):
        return r.Failure(r.TIMED_OUT, f"the server said nothing for {WAIT_S:g} s")
    return r.Failure(r.BROKEN, f"the conversation broke: {getattr(error, 'strerror', None) or error}")


def _answer(error: smtplib.SMTPResponseException) -> str:
    return _line(error.smtp_code, error.smtp_error)


def _told(refused: dict[str, tuple[int, bytes]]) -> str:
    return ", ".join(f"{address} ({_line(code, text)})" for address, (code, text) in refused.items())


def _line(code: int, text: bytes | str) -> str:
    words = text.decode(errors="replace") if isinstance(text, bytes) else text
    return f"{code} {' '.join(words.split())}"[:MAX_SHOWN]
