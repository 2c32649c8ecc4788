"""Jobs of type `email`: a message to a mail server that the worker's settings name.

Each mail has a thread, at most so many at a time. A job that is told to end is over at once: its
connection is cut, and the thread ends by that. Whether the mail went out is then not known; its
Message-ID is the same at every attempt.
"""

from __future__ import annotations

import hashlib
import re
import smtplib
import socket
from collections.abc import Callable
from datetime import datetime
from email.message import EmailMessage
from typing import Any

import orjson
import trio
from attrs import Factory, define

from ...base.errors import Exit, Fatal
from ...host import mail
from ...host.clock import wall_now
from ...host.config import WorkerSettings
from ...host.mail import Delivery
from ...host.secrets import read_password
from ...host.threads import call_in_thread
from ...tasks.kinds import split_recipients
from . import remote as r
from .job import NOT_RUNNABLE, Ended, Job, Order, cannot_start

MAX_AT_A_TIME = 16
MAX_SHOWN = 300  # characters of what the server says


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
                await call_in_thread(delivery.run, abandon_on_cancel=True, limiter=self.limiter)
            except (smtplib.SMTPException, OSError) as error:
                raise _failure(delivery, error) from None
            finally:
                delivery.abort()
            to = f"sent to {len(delivery.recipients)} by {delivery.host}"
            return Ended(0, why=f"{to} as {message['Message-ID']}")

        why_late = "its timeout is over; whether the mail went out is not known"
        return await r.converse(job, deliver, lambda: why_late)


def make_message(order: Order, sender: str, at: datetime) -> EmailMessage:
    """The mail itself; text and html are two forms of the same. Raises ValueError."""
    content: dict[str, Any] = orjson.loads(order.options.get("payload", "{}"))
    subject = content.get("subject") or order.options.get("name", "")
    message = mail.make_message(sender, split_recipients(order.command), subject, _message_id(order), at)
    text, html = content.get("text"), content.get("html")
    if text or not html:
        message.set_content(text or "")
    if html and text:
        message.add_alternative(html, subtype="html")
    elif html:
        message.set_content(html, subtype="html")
    return message


def _message_id(order: Order) -> str:
    """The same for every attempt of a fire, and for no other mail of this or another daemon."""
    fire = order.options.get("fire", "")
    what = "\n".join((fire, order.options.get("name", ""), order.command, order.options.get("payload", "")))
    readable = re.sub("[^A-Za-z0-9-]+", ".", fire).strip(".")
    return f"{readable}.{hashlib.sha256(what.encode()).hexdigest()[:16]}"


def _failure(delivery: Delivery, error: Exception) -> r.Failure:
    """What went wrong as a number of curl's and words for people."""
    match error:
        case mail.NotOffered():
            return r.Failure(r.TLS_NOT_OFFERED, str(error))
        case mail.PartlySent():
            accepted = len(delivery.recipients) - len(error.refused)
            return r.Failure(r.NOT_SENT, f"sent to {accepted}, but not to {_told(error.refused)}")
        case smtplib.SMTPAuthenticationError():
            return r.Failure(r.LOGIN_DENIED, f"the login was refused: {_answer(error)}")
        case smtplib.SMTPNotSupportedError():
            return r.Failure(r.LOGIN_DENIED, f"the login is not possible: {error}")
        case smtplib.SMTPRecipientsRefused():
            return r.Failure(r.NOT_SENT, f"nobody was accepted: {_told(error.recipients)}")
        case smtplib.SMTPResponseException():
            return r.Failure(r.NOT_SENT, f"the server refused: {_answer(error)}")
    if not delivery.is_connected:
        return _not_connected(delivery, error)
    if failure := r.tls_failure(error):
        return failure
    if isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError):
        return r.Failure(r.TIMED_OUT, f"the server said nothing for {mail.WAIT_S:g} s")
    return r.Failure(r.BROKEN, f"the conversation broke: {getattr(error, 'strerror', None) or error}")


def _not_connected(delivery: Delivery, error: Exception) -> r.Failure:
    why = getattr(error, "strerror", None) or error
    if isinstance(error, socket.gaierror):
        return r.Failure(r.NO_HOST, f"{delivery.host}: {why}")
    if isinstance(error, TimeoutError):
        return r.Failure(r.TIMED_OUT, f"{delivery.host}: no connection within {mail.WAIT_S:g} s")
    return r.Failure(r.NO_CONNECTION, f"{delivery.host} port {delivery.port}: {why}")


def _answer(error: smtplib.SMTPResponseException) -> str:
    return _line(error.smtp_code, error.smtp_error)


def _told(refused: dict[str, tuple[int, bytes]]) -> str:
    return ", ".join(f"{address} ({_line(code, text)})" for address, (code, text) in refused.items())


def _line(code: int, text: bytes | str) -> str:
    words = text.decode(errors="replace") if isinstance(text, bytes) else text
    return f"{code} {' '.join(words.split())}"[:MAX_SHOWN]
