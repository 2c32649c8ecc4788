"""Forgotten passwords: a link that is good once, sent to whoever the account's mail address is of.

It is done behind the answer, which is the same, and as quick, whether there is such an account.
"""

from __future__ import annotations

import logging
import secrets
import smtplib

import trio
from attrs import frozen

from ..base.errors import Fatal, Refusal
from ..host.clock import wall_now
from ..host.config import WebSettings
from ..host.mail import Delivery, make_message
from ..host.secrets import read_password
from .guard import Limits
from .line import Daemon, Unreachable, nobody

log = logging.getLogger("cronflowd.web.mails")

MAX_WAITING = 100
AT_A_TIME = 4
AN_HOUR = 3  # mails to one account: nobody's mailbox is filled by others

TEXT = """\
Somebody, probably you, has forgotten the password of the account {name} at
{where}

This link lets you choose another one. It is good once, and for 30 minutes:

{where}/reset?token={token}

If it was not you, you need not do anything: your password stays as it is.
"""


@frozen
class Forgotten:
    """What somebody said in a form."""

    who: str  # an account's name or mail address; perhaps
    address: str  # from where
    where: str  # how browsers reach us


class Postman:
    """Takes what was forgotten, and brings the mails out."""

    def __init__(self, settings: WebSettings, daemon: Daemon) -> None:
        self._settings, self._daemon = settings, daemon
        self._in, self._out = trio.open_memory_channel[Forgotten](MAX_WAITING)
        self._limits = Limits(AN_HOUR / 3600, AN_HOUR)

    def take(self, forgotten: Forgotten) -> None:
        try:
            self._in.send_nowait(forgotten)
        except trio.WouldBlock:
            log.warning("%d forgotten passwords wait already; one more is not looked at", MAX_WAITING)

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(AT_A_TIME):
                nursery.start_soon(self._bring)

    async def _bring(self) -> None:
        async for each in self._out:
            try:
                await self._answer(each)
            except (Unreachable, Refusal, Fatal, smtplib.SMTPException, OSError, ValueError) as error:
                log.warning("no mail about a forgotten password: %s", error)

    async def _answer(self, forgotten: Forgotten) -> None:
        if self._limits.take(forgotten.who.lower()):
            log.warning("%d mails an hour are enough for one account", AN_HOUR)
            return
        try:
            offered = await self._daemon.ask(f"USER FORGOT {forgotten.who}", nobody(forgotten.address))
        except Refusal as refusal:
            if refusal.code == "not-found":
                return
            raise
        name, token, email = offered.status["account"], offered.pairs["token"], offered.pairs["email"]
        if self._settings.smtp is None or not email:
            what = "has no mail address" if self._settings.smtp else "cannot be sent a mail without --smtp"
            log.warning("the account %s %s, so its password cannot be reset by mail", name, what)
            return
        await self._send(name, email, TEXT.format(name=name, where=forgotten.where, token=token))

    async def _send(self, name: str, email: str, text: str) -> None:
        settings = self._settings
        subject = "Another password for cronflowd"
        message = make_message(settings.smtp_from, [email], subject, secrets.token_hex(16), wall_now())
        message.set_content(text, cte="7bit" if text.isascii() else "quoted-printable")  # a link in one piece
        file = settings.smtp_password_file
        password = read_password(file) if settings.smtp_user and file else ""
        delivery = Delivery(settings, password, [email], message)
        try:
            await trio.to_thread.run_sync(delivery.run, abandon_on_cancel=True)
        finally:
            delivery.abort()
        log.info("a link for another password was sent to the account %s", name)
