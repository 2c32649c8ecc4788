"""The files of the data directory that people edit: tasks.db and calendars, read and written in threads."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio

from .. import __version__
from ..base.errors import Refusal
from ..base.replies import Reply
from ..base.text import format_time
from ..base.walks import Numbered
from ..engine import orders as o
from ..engine.definitions import AT_ONCE, are_long
from ..engine.facts import TASKS_NAME, Definition, TasksSaved
from ..host.calendar_files import is_read, pass_over_old, read_calendars, refresh_calendars
from ..host.disk import Prepared, read_small, write_atomically
from ..host.threads import call_in_thread
from ..journal import tasks_file
from ..journal.backup import archive
from ..schedules.calendars import FILE, Calendar
from ..tasks.task import TaskSpec
from .bulk import Check, LargeChanges, unchecked
from .core import Core

log = logging.getLogger(__name__)
BREATH_S = 50e-6
Mark = tuple[int, ...]  # which file, how long, and when it was written; () = there is none


class Files:
    """What is done with them; one SAVE, LOAD or BACKUP at a time, and no journal file goes meanwhile."""

    def __init__(self, core: Core, data: Path) -> None:
        self.core = core
        self.data = data
        self.large = LargeChanges(core)
        self.edited = False  # tasks.db was changed by hand since we wrote it, when its content was looked at
        self._mark: Mark | None = None  # of that file, when its content was ours; None: not looked at yet
        # A node's own: which tasks.db it wrote last, as others may have led since.
        self.memory: Path | None = None
        self.are_ours = False  # the calendars: we have begun to decide, and know which files are new
        self.turn = trio.Lock()
        self._loads = trio.Lock()  # until all of one is so, the next one waits
        core.before_fires = self.look_at_calendars

    async def save(self, path: Path) -> Reply:
        """Writes all tasks, when no other SAVE or LOAD is at it, and no half of a large change."""
        while True:
            async with self.turn:
                if not (bulk := self.large.decided()):
                    return await self._save(path)
            await self.large.finish(bulk)

    async def _save(self, path: Path) -> Reply:
        """Writes all tasks; what somebody edited by hand meanwhile is kept aside, not overwritten."""
        core = self.core
        upto, before = core.last_seq, Numbered[TaskSpec | None]()
        core.state.unfinished.before = before
        try:
            prepared, count = await self._prepare(path, before)
        finally:
            core.state.unfinished.before = None
        # Journaled first: whenever the power goes, the file is one of the last two that the journal knows.
        saved = TasksSaved(path.name, upto, prepared.size, prepared.crc, count)
        try:
            reply = core.submit(o.Note(saved, Reply(f"{count} saved", {"saved": count}))).told
        except Refusal:
            prepared.discard()
            raise
        core.wake()
        await core.settled(core.last_seq)
        if self.memory and path.name == TASKS_NAME:
            said = f"{prepared.size} {prepared.crc}\n".encode()
            await call_in_thread(write_atomically, self.memory, [said])
        await call_in_thread(prepared.publish)
        if path.name == TASKS_NAME:
            self.edited, self._mark = False, self._mark_now()
        return reply

    async def _prepare(self, path: Path, before: Numbered[TaskSpec | None]) -> tuple[Prepared, int]:
        """The file, written and not yet in its place, and how many tasks are in it."""
        if path.name == TASKS_NAME and await self.is_edited():
            aside = await call_in_thread(tasks_file.keep_edited, path)
            log.warning("%s was edited by hand; that version is kept as %s", path, aside)

        count, tasks, now = 0, self.core.state.tasks, self.core.now()

        def definitions() -> Iterator[tuple[int, Definition]]:
            nonlocal count
            spec: Definition | None
            source, records = None, {}
            for number in tasks_file.with_pauses(tasks.numbers_beside(before), breathe):
                if (waiting := tasks.waits(number)) is not None:  # it is made in the daemon's thread alone
                    if waiting is not source:
                        source, records = waiting, waiting.records()
                    spec = records[number]
                else:
                    task = tasks.get(number)
                    spec = None if task is None or task.is_notice else task.as_saved
                if number in before:  # which is looked at last
                    spec = before[number]
                if isinstance(spec, TaskSpec) and spec.pause and spec.pause.is_over(now):
                    spec = spec.bare
                if spec:
                    count += 1
                    yield number, spec

        prepared = await call_in_thread(tasks_file.prepare_tasks, path, definitions(), breathe)
        return prepared, count

    async def backup(self, path: Path) -> Reply:
        """Writes all that stands in the data directory to one file, while everything goes on."""
        async with self.turn:
            core = self.core
            await core.settled(core.last_seq)
            upto, at = core.journal.open_segment, core.now()
            about: dict[str, str | int] = {"version": __version__, "at": format_time(at), "seq": upto.last}
            prepared, files = await call_in_thread(archive, self.data, path, upto, about)
            await call_in_thread(prepared.publish)
        return Reply(f"{files} files seq={upto.last}", {"files": files, "seq": upto.last})

    @property
    def may_be_edited(self) -> bool:
        """Whether tasks.db was changed by hand, as far as that can be seen without reading it."""
        return self.edited or (self._mark is not None and self._mark_now() not in ((), self._mark))

    def _mark_now(self) -> Mark:
        with suppress(OSError):
            found = (self.data / TASKS_NAME).stat()
            return found.st_ino, found.st_size, found.st_mtime_ns
        return ()

    async def is_edited(self) -> bool:
        """Whether tasks.db is there and is none of the last two versions we wrote or loaded."""
        mark = self._mark_now()
        if not (is_edited := await self._is_edited()):
            self._mark = mark
        return is_edited

    async def _is_edited(self) -> bool:
        known = [(saved.size, saved.file_crc) for saved in self.core.state.saved]
        try:
            if self.memory and self.memory.exists():
                size, crc = map(int, read_small(self.memory).split())
                known.append((size, crc))
            path = self.data / TASKS_NAME
            found = await call_in_thread(tasks_file.fingerprint, path, known)
        except (OSError, ValueError, Refusal) as error:
            log.warning("%s: %s", TASKS_NAME, getattr(error, "message", error))
            return True  # whatever somebody put there, it is not ours
        return found is not None and found not in known

    async def load(self, path: Path, who: str | None = None, check: Check = unchecked) -> Reply:
        """Takes a file's tasks over, all or nothing, when no other SAVE or LOAD is at it."""
        async with self._loads:
            async with self.turn:
                reply = await self._load(path, who, check)
            # Compaction has its turn meanwhile: on a full disk, this may wait for the room that it makes.
            return await self.large.done(reply, who)

    async def _load(self, path: Path, who: str | None, check: Check) -> Reply:
        core = self.core
        # Taken before reading: an edit in between shows as an edit, not as loaded.
        mark, found = self._mark_now(), await call_in_thread(tasks_file.fingerprint, path)
        calendars: set[str] = set()

        def look_up(name: str) -> None:
            read_calendars(self.data, [name])
            calendars.add(name)

        tz, most = core.state.default_tz, core.engine.limits.tasks
        read = partial(tasks_file.read_tasks, path, tz, most, look_up, breathe)
        records = await call_in_thread(read)
        await self.learn(calendars)
        count = len(records)
        saved = None
        if path.name == TASKS_NAME and found is not None:
            saved = TasksSaved(path.name, core.last_seq, *found, count)
        # What the daemon loads by itself is nobody's order, and no change that UNDO would take back.
        order = o.LoadTasks(records, saved, path.name if who else "")
        try:
            if max(count, core.state.count_own()) > AT_ONCE or are_long(spec for _, spec in records):
                reply = await self.large.load(order, who, check)
            else:
                check()
                reply = core.submit(order, who).told
        except Refusal as refusal:
            if not refusal.record:
                raise
            if await call_in_thread(tasks_file.fingerprint, path) != found:  # and so its lines
                why = f"{path.name} was changed while it was read ({refusal.message}); nothing was loaded"
                raise Refusal("busy", why) from None
            line = await call_in_thread(tasks_file.line_of, path, refusal.record)
            code = "bad-line" if refusal.code == "bad-option" else refusal.code
            raise Refusal(code, f"{path.name} line {line}: {refusal.message}") from None
        if saved:
            self.edited, self._mark = False, mark
        return reply

    async def learn(self, calendars: Iterable[str]) -> None:
        """Has these calendars known; raises Refusal naming the first that is none."""
        new = [each for each in calendars if not is_read(self.data, self.core.state.calendars, each)]
        found = await call_in_thread(read_calendars, self.data, new)
        self._know(found)
        for name in found:
            self.core.state.calendars.troubles.pop(name, None)

    def _know(self, found: dict[str, Calendar], dropped: Collection[str] = ()) -> None:
        """Has them be true; raises Refusal where that cannot be journaled."""
        if found or dropped:
            self.core.submit(o.LearnCalendars(found, dropped))
            self.core.state.calendars.known |= found

    def look_at_calendars(self) -> None:
        """Whoever writes a date into a file expects the next moment, and the next answer, to know it."""
        calendars = self.core.state.calendars
        if not (calendars.known or calendars.troubles or calendars.read_at):
            return
        names = {*calendars.known, *calendars.troubles, *calendars.read_at}
        if self.memory and not self.are_ours:  # another node leads, whose files count
            names = {name for name in names if not name.startswith(FILE)}
            calendars.known |= refresh_calendars(self.data, calendars, names)
            return
        calendars.untold = refresh_calendars(self.data, calendars, names)
        with suppress(Refusal):  # the journal takes nothing: it is told when it does
            self._know(calendars.untold)

    def find_calendars(self) -> Generator[None, None, None]:
        """Those that tasks name now, and no others; at the start, and at HUP."""
        calendars, names = self.core.state.calendars, set[str]()
        before = {*calendars.read_at, *calendars.known}  # ADD may name one where this has looked already
        for task in self.core.state.tasks.made():
            names |= set(task.spec.options.skip)
            yield
        calendars.troubles.clear()
        if self.memory:
            pass_over_old(self.data, calendars)
        self.are_ours = True
        with suppress(Refusal):
            found = refresh_calendars(self.data, calendars, names)
            self._know(found, sorted(before - names))


def breathe() -> None:
    """Lets the loop have its turn, from a thread that computes for long."""
    gc.freeze()  # what very many tasks are made of is no garbage, and looking at all of it takes long
    time.sleep(BREATH_S)
