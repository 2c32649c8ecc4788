"""Another user than the worker's own: whom user= names, and what a process of his begins with."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from attrs import frozen


@frozen
class Account:
    """A user of this machine, as cron would start something for him."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]  # all that he is in
    home: str  # `/` where his own is not there

    @property
    def is_other(self) -> bool:
        """Whether the worker has to change to him."""
        return self.uid != os.geteuid()

    @property
    def environ(self) -> dict[str, str]:
        return {"HOME": self.home, "LOGNAME": self.name, "USER": self.name}


def find_account(name: str) -> Account:
    """Raises OSError where there is no such user."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise FileNotFoundError(f"there is no user {name} here") from None
    groups = tuple(os.getgrouplist(name, found.pw_gid))
    home = Path("/", found.pw_dir)  # without the root, an empty one would be where the worker is
    return Account(name, found.pw_uid, found.pw_gid, groups, str(home) if home.is_dir() else "/")
