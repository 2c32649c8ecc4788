"""The files of the data directory that people edit: tasks.db and calendars, read and written in threads."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import trio

from ..base.errors import Refusal
from ..base.replies import Reply
from ..engine import orders as o
from ..host.calendar_files import read_calendars, refresh_calendars
from ..journal import tasks_file
from .core import Core

log = logging.getLogger(__name__)


class Files:
    """What is done with them; one SAVE or LOAD at a time."""

    def __init__(self, core: Core, data: Path) -> None:
        self.core = core
        self.data = data
        self.edited = False  # tasks.db was changed by hand since we wrote it
        self._turn = trio.Lock()
        core.before_fires = self.look_at_calendars

    async def save(self, path: Path) -> Reply:
        """Writes all tasks, when no other SAVE or LOAD is at it."""
        async with self._turn:
            return await self._save(path)

    async def _save(self, path: Path) -> Reply:
        """Writes all tasks; what somebody edited by hand meanwhile is kept aside, not overwritten."""
        core = self.core
        upto = core.last_seq
        tasks = sorted(((task.id, task.spec) for task in core.state.own_tasks()), key=lambda each: each[0])
        if path.name == tasks_file.TASKS_NAME and await self.is_edited():
            aside = await trio.to_thread.run_sync(tasks_file.keep_edited, path)
            log.warning("%s was edited by hand; that version is kept as %s", path, aside)
        prepared = await trio.to_thread.run_sync(tasks_file.prepare_tasks, path, tasks)
        # Journaled first: whenever the power goes, the file is one of the last two that the journal knows.
        order = o.RecordSave(path.name, upto, prepared.size, prepared.crc, len(tasks))
        try:
            reply = core.submit(order).reply
        except Refusal:
            prepared.discard()
            raise
        core.wake()
        await core.settled(core.last_seq)
        await trio.to_thread.run_sync(prepared.publish)
        self.edited = self.edited and path.name != tasks_file.TASKS_NAME
        assert reply is not None
        return reply

    async def is_edited(self) -> bool:
        """Whether tasks.db is there and is none of the last two versions we wrote or loaded."""
        try:
            found = await trio.to_thread.run_sync(tasks_file.fingerprint, self.data / tasks_file.TASKS_NAME)
        except (OSError, Refusal) as error:
            log.warning("%s: %s", tasks_file.TASKS_NAME, error)
            return True  # whatever somebody put there, it is not ours
        saves = self.core.state.saved
        known = [(saved.size, saved.file_crc) for saved in saves if saved.file == tasks_file.TASKS_NAME]
        return found is not None and found not in known

    async def load(self, path: Path, who: str | None = None) -> Reply:
        """Takes a file's tasks over, all or nothing, when no other SAVE or LOAD is at it."""
        async with self._turn:
            return await self._load(path, who)

    async def _load(self, path: Path, who: str | None) -> Reply:
        core = self.core
        # Taken before reading: an edit in between shows as an edit, not as loaded.
        found = await trio.to_thread.run_sync(tasks_file.fingerprint, path)
        look_up = partial(_read_calendar, self.data)
        read = partial(tasks_file.read_tasks, path, core.state.default_tz, core.engine.limits.tasks, look_up)
        records = await trio.to_thread.run_sync(read)
        await self.learn({name for _, spec in records for name in spec.options.skip})
        saved = None
        if path.name == tasks_file.TASKS_NAME and found is not None:
            saved = o.RecordSave(path.name, core.last_seq, found[0], found[1], len(records))
        # What the daemon loads by itself is nobody's order, and no change that UNDO would take back.
        reply = core.submit(o.LoadTasks(records, saved, path.name if who else ""), who).reply
        self.edited = self.edited and saved is None
        assert reply is not None
        return reply

    async def learn(self, calendars: Iterable[str]) -> None:
        """Has these calendars known; raises Refusal naming the first that is none."""
        found = await trio.to_thread.run_sync(read_calendars, self.data, calendars)
        self.core.state.calendars.known |= found
        for name in found:
            self.core.state.calendars.troubles.pop(name, None)

    def look_at_calendars(self) -> None:
        """Whoever writes a date into a file expects the next moment, and the next answer, to know it."""
        calendars = self.core.state.calendars
        if calendars.known or calendars.troubles:
            refresh_calendars(self.data, calendars, calendars.known.keys() | calendars.troubles)

    def find_calendars(self) -> None:
        """Those that tasks name now, and no others; at the start, and at HUP."""
        calendars = self.core.state.calendars
        names = {name for task in self.core.state.tasks.values() for name in task.spec.options.skip}
        calendars.known = {name: each for name, each in calendars.known.items() if name in names}
        calendars.troubles.clear()
        refresh_calendars(self.data, calendars, names)


def _read_calendar(data: Path, name: str) -> object:
    return read_calendars(data, [name])
