"""Mail to a server that the settings name: its headers, and the conversation that delivers it.

The library for it waits as threads do, so each mail has a thread, and its connection a limit on every
wait. Whoever does not want to wait any more cuts the connection, and the thread ends by that.
"""

from __future__ import annotations

import smtplib
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from .. import __version__
from .config import Mailing

WAIT_S = 30.0  # for any single answer of the server
GOODBYE_S = 2.0  # for its answer to QUIT

# Not 8 bit: a server may not take it.
_POLICY = SMTP.clone(cte_type="7bit")


def make_message(
    sender: str, recipients: Sequence[str], subject: str, message_id: str, at: datetime
) -> EmailMessage:
    """A mail without what it says. Raises ValueError."""
    message = EmailMessage(policy=_POLICY)
    if "=?" in subject:
        # It would be read as what such words stand for, and line ends among that begin other headers.
        message.set_raw("Subject", Header(subject, "utf-8", header_name="Subject").encode())
    else:
        message["Subject"] = subject
    message["From"] = sender
    message["To"] = ", ".join(recipients)
    message["Date"] = format_datetime(at)
    message["Message-ID"] = f"<{message_id}@{sender.partition('@')[2]}>"
    # So that no holiday notice is sent in answer.
    message["Auto-Submitted"] = "auto-generated"
    message["X-Mailer"] = f"cronflowd/{__version__}"
    return message


class NotOffered(smtplib.SMTPException):
    """No STARTTLS, where the settings or a password want it."""


class PartlySent(smtplib.SMTPException):
    """To some, and not to these."""

    def __init__(self, refused: dict[str, tuple[int, bytes]]) -> None:
        super().__init__(f"not accepted: {', '.join(refused)}")
        self.refused = refused


class Delivery:
    """One conversation with the server. `run` is the thread's; `abort` comes from outside."""

    def __init__(
        self, settings: Mailing, password: str, recipients: Sequence[str], message: EmailMessage
    ) -> None:
        assert settings.smtp is not None
        self.host, self.port = settings.smtp
        self.settings = settings
        self.password = password
        self.recipients = recipients
        self.message = message
        self.is_connected = False
        self._is_aborted = False
        self._handle: socket.socket | None = None  # the connection once more, whatever TLS makes of it

    def abort(self) -> None:
        """Cuts the connection, which wakes the thread; nothing happens when it has ended."""
        self._is_aborted = True
        if self._handle is not None:
            with suppress(OSError):
                self._handle.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        """Sends the mail. Raises SMTPException, and OSError."""
        try:
            self._converse()
        finally:
            if self._handle is not None:
                self._handle.close()

    def connect(self) -> socket.socket:
        """A connection to the server. Raises OSError."""
        sock = socket.create_connection((self.host, self.port), WAIT_S)
        self.is_connected = True
        self._handle = sock.dup()
        if self._is_aborted:
            self.abort()
        if self.settings.smtp_tls == "implicit":
            return ssl.create_default_context().wrap_socket(sock, server_hostname=self.host)
        return sock

    def _converse(self) -> None:
        with _Smtp(self) as smtp:
            self._encrypt(smtp)
            if self.settings.smtp_user:
                smtp.login(self.settings.smtp_user, self.password)
            refused = smtp.sendmail(self.settings.smtp_from, self.recipients, self.message.as_bytes())
            assert smtp.sock is not None
            smtp.sock.settimeout(GOODBYE_S)
        if refused:
            raise PartlySent(refused)

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
            raise NotOffered("the server offers no STARTTLS, and smtp_tls= wants it")


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
