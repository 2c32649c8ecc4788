"""What this worker does not do, whoever orders it: its own rules, which no daemon can change.

A rule is looked at before anything is begun, and tells why. What a worker may run as is in its HELLO,
so that a daemon that means well sends it nothing else.
"""

from __future__ import annotations

import logging
import os
import pwd
from contextlib import suppress
from fnmatch import fnmatchcase

from ..host.config import WorkerSettings
from ..tasks.kinds import TYPES
from .executors.job import Order

log = logging.getLogger(__name__)

_ANY = ("*",)


class Rules:
    """Of one worker; root runs as those that it was told, anybody else as himself alone."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._commands, self._types = settings.allow_command, settings.allow_type
        # By a variable (BASH_ENV, PERL5OPT, LD_PRELOAD and many more) a program carries out any other. So
        # where commands are limited, or no type runs whatever is said, variables are as well.
        runs_anything = not self._commands and {"shell", "script"}.intersection(self._types or TYPES)
        self._variables = settings.allow_env or (_ANY if runs_anything else ())
        users = settings.users if os.geteuid() == 0 else ()
        if settings.users and not users:
            log.warning(
                "this worker is not root, so it runs everything as its own user; --users means nothing"
            )
        if not users:
            with suppress(KeyError):  # a user without a name, as in a container
                users = (pwd.getpwuid(os.geteuid()).pw_name,)
        self.users = users  # whom user= may name

    def against(self, order: Order) -> tuple[str, str] | None:
        """Why an order is refused: a code, and words for people."""
        if self._types and order.type not in self._types:
            return "type", f"this worker runs no {order.type} jobs (--allow-type)"
        if self._commands and not any(fnmatchcase(order.command, glob) for glob in self._commands):
            return "command", "its command is none of those that this worker runs (--allow-command)"
        for option in order.options if self._variables != _ANY else ():
            name = option.removeprefix("env.")
            if name != option and not any(fnmatchcase(name, glob) for glob in self._variables):
                return "env", f"this worker takes no variable {name} of a task (--allow-env)"
        user = order.options.get("user")
        if user is not None and user not in self.users:
            return "user", f"this worker runs nothing as {user} (--users)"
        try:
            _ = order.account
        except OSError as error:
            return "user", str(error)
        return None
