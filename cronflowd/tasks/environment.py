"""What a job finds in its environment, and how that differs from what cron gives it.

One rule: what cron sets is set as cron sets it; of its own variables a worker passes on those that say
where programs, the language and the zone are, and those that it was told to (--pass-env). The rest
is its own affair: sockets, watchdogs and credentials that systemd hands it, PYTHONPATH, tokens.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Container, Iterable, Mapping

CRON_PATH = "/usr/bin:/bin"
CRON_SHELL = "/bin/sh"
PASSED = ("PATH", "LANG", "LANGUAGE", "LC_*", "TZ")


def differences(settings: Container[str]) -> tuple[str, ...]:
    """For `import`: what an entry finds otherwise than in Debian's cron, if the crontab does not set it."""
    path = f"PATH is the worker's, where cron has {CRON_PATH}"
    rest = "LANG, LC_* and TZ are the worker's, where cron has those of /etc/default/locale or none"
    return (*((path,) if "PATH" not in settings else ()), rest)


def make_environment(
    inherited: Mapping[str, str], passed: Iterable[str], name: str, home: str
) -> dict[str, str]:
    """The variables of a job before those of its own; `name` and `home` are those of the worker's user."""
    patterns = [*PASSED, *passed]
    kept = {
        key: value
        for key, value in inherited.items()
        if any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)
    }
    return {"PATH": CRON_PATH} | kept | {"SHELL": CRON_SHELL, "HOME": home, "LOGNAME": name, "USER": name}
