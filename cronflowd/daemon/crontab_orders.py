"""IMPORT and EXPORT: a crontab becomes tasks, line by line, and tasks become a crontab.

What the lines mean is told in crontab.py. Here they meet the tasks that exist: names are
made unique, and a line that is here already is not added again, so a crontab whose bad
lines were mended can be sent a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import NoReturn

import orjson
from attrs import evolve
from msgspec.structs import replace

from ..ask import questions as q
from ..base.errors import Refusal
from ..base.replies import NOTE_COLUMNS, Reply
from ..base.walks import in_order
from ..engine import orders as o
from ..engine.definitions import find_task
from ..engine.state import State
from ..tasks import crontab
from ..tasks.crontab import Entry, Nothing, Setting
from ..tasks.options import DEFAULTS, check_unmasked, masked, set_options
from ..tasks.task import Task, TaskSpec, make_spec
from .core import Core

MAX_EXPORTED = 20_000  # tasks
TASKS_TOGETHER = 32  # of EXPORT, before the others have their turn
MAX_DRY_NAMES = 10_000  # remembered of a dry run, to number the names as they would be
MAX_PROGRAMS = 1000  # of a crontab whose names are remembered
PASSED_TOGETHER = 500  # names that are taken, before the others have their turn


Own = Callable[[o.AddTask], o.AddTask]


class _Passed:
    """The names after one program that were found taken, from the first on without a gap."""

    def __init__(self) -> None:
        self.name = ""  # the last one
        self.count = 0
        self.alike: dict[int, list[str]] = {}  # by what makes them worth a comparison

    def next_name(self, program: str) -> str:
        return f"{program}-{self.count + 1}" if self.count else program

    def add(self, name: str, likeness: int) -> None:
        self.name, self.count = name, self.count + 1
        self.alike.setdefault(likeness, []).append(name)


class Import:
    """One connection's crontab, as far as it has come."""

    def __init__(self) -> None:
        self._settings: dict[str, str] = {}
        self._told: dict[str, str] = {}  # what is otherwise than in cron for many, and with which task told
        self._about = Nothing()  # what the last comment told, if it was one of EXPORT's
        self._dry_names: dict[str, tuple[int, bytes]] = {}  # with what the task would be
        self._passed: dict[str, _Passed] = {}  # by program
        self._replaced: set[str] = set()  # names that lines with --replace have had,
        self._numbers: dict[str, int] = {}  # and the last of each program

    def take(
        self, core: Core, question: q.ImportLine, who: str | None = None, own: Own = lambda order: order
    ) -> Generator[None, None, Reply]:
        """What comes of the next line, mostly without a step; raises Refusal, and then nothing does.

        `own` says whose it is.
        """
        line = crontab.parse_line(question.line, self._settings, question.is_system)
        if isinstance(line, Nothing):
            self._about = line
            return Reply("ignored", {"ignored": True})
        if isinstance(line, Setting):
            return self._set(line)
        spec = yield from self._spec(core, line, question.is_replace)
        order = own(o.AddTask(spec, replace=question.is_replace))
        reply = self._would_add(core, order) if question.is_dry else core.submit(order, who).told
        if question.is_replace:
            self._replaced.add(spec.name)
        notes = [("differs", text) for text in line.differences]
        notes += self._differs(spec.name, crontab.common_differences(self._settings, bool(spec.options.user)))
        notes += [("warning", text) for text in line.warnings]
        return _with(reply, notes + [("command", spec.command)] * question.is_dry)

    def _differs(self, name: str, differences: tuple[str, ...]) -> list[tuple[str, str]]:
        """What concerns many lines: once in full, and with the others the task with which it was told."""
        texts = [text for text in differences if text not in self._told]
        before = dict.fromkeys(self._told[text] for text in differences if text in self._told)
        self._told |= dict.fromkeys(texts, name)
        return [("differs", text) for text in (*texts, *(f"as told with {each}" for each in before))]

    def _set(self, line: Setting) -> Reply:
        settings = self._settings | {line.name: line.value}
        size = sum(len(text.encode()) for pair in settings.items() for text in pair)
        if size > crontab.MAX_SETTINGS_BYTES:
            raise Refusal("limit", f"the settings are longer than {crontab.MAX_SETTINGS_BYTES} bytes")
        self._settings = settings
        notes = [("differs", text) for text in line.differences]
        notes += [("warning", text) for text in line.warnings]
        return _with(Reply(f"set {line.name}", {"set": line.name}), notes)

    def _spec(self, core: Core, line: Entry, is_replace: bool) -> Generator[None, None, TaskSpec]:
        tz = core.state.default_tz
        for key, text in line.options.items():
            check_unmasked(key, text)
        options = set_options(DEFAULTS, line.options, tz, core.now())
        spec = make_spec("", line.schedule, line.command, options, tz)
        if is_replace:
            return self._replacing(core.state, line, spec)
        about = core.state.names.get(self._about.about)
        if about is not None and self._is_written(core.state, line, core.state.tasks[about].spec):
            _refuse(core.state.tasks[about])
        name = yield from self._free_name(core.state, line, spec)
        return evolve(spec, name=name)

    def _replacing(self, state: State, line: Entry, spec: TaskSpec) -> TaskSpec:
        """With the name of the task that it replaces: as told by EXPORT, or the next one of its program."""
        name, number = self._about.about, self._numbers.get(line.name, 1)
        task = state.find(name)
        if not task or (name in self._replaced and not self._is_written(state, line, task.spec)):
            while (name := f"{line.name}-{number}" if number > 1 else line.name) in self._replaced:
                number += 1
            self._numbers[line.name] = number
            task = state.find(name)
        # What SET has said since stays, as long as the line is the same.
        return task.spec if task and self._is_written(state, line, task.spec) else evolve(spec, name=name)

    def _free_name(self, state: State, line: Entry, spec: TaskSpec) -> Generator[None, None, str]:
        """The first name after its program that is free; Refusal if a task with such a name is the same.

        Of one program there may be 100,000 tasks. So a line goes on where the one before it ended, the first
        one in steps, and is compared with those only that had its command and schedule when they were passed.
        """
        passed = self._passed.get(line.name)
        if passed is None or not self._is_taken(state, passed.name):  # a CLEAR or UNDO since
            if len(self._passed) >= MAX_PROGRAMS:
                self._passed.clear()
            passed = self._passed[line.name] = _Passed()
        while self._is_taken(state, name := passed.next_name(line.name)):
            task_id = state.names.get(name)
            if task_id is not None:
                passed.add(name, _likeness(state.tasks[task_id].spec))
            else:
                passed.add(name, self._dry_names.get(name, (0, b""))[0])
            if passed.count % PASSED_TOGETHER == 0:
                yield
        for other in passed.alike.get(_likeness(spec), ()):
            if other in state.names:
                task = state.tasks[state.names[other]]
                if _is_same(spec, task.spec) or self._is_written(state, line, task.spec):
                    _refuse(task)
            elif self._dry_names.get(other, (0, b""))[1] == _digest(spec):
                raise Refusal("exists", f'it would be here already, as "{other}"')
        return name

    def _is_taken(self, state: State, name: str) -> bool:
        return name in state.names or name in state.beats.expected or name in self._dry_names

    def _is_written(self, state: State, line: Entry, spec: TaskSpec) -> bool:
        if self._about.user and "user" not in line.options:  # the user form has no other place to tell it
            line = evolve(line, options=line.options | {"user": self._about.user})
        return crontab.is_written(line, spec, self._settings, state.default_tz)

    def _would_add(self, core: Core, order: o.AddTask) -> Reply:
        reply, spec = core.engine.decide(order, core.now()).told, order.spec
        if len(self._dry_names) < MAX_DRY_NAMES:
            self._dry_names[spec.name] = _likeness(spec), _digest(spec)
        values = {key: value for key, value in reply.values.items() if key != "id"}
        _, _, rest = reply.text.partition(" ")
        change = reply.values.get("change", "added")
        word = {"added": "would-add", "replaced": "would-replace", "unchanged": "would-leave"}[change]
        return Reply(f"{word} {rest}", {"wouldAdd": True} | values)


def _with(reply: Reply, notes: list[tuple[str, str]]) -> Reply:
    return replace(reply, columns=NOTE_COLUMNS, rows=[*reply.rows, *notes])


def _refuse(task: Task) -> NoReturn:
    raise Refusal("exists", f'it is here already, as "{task.name}" (id {task.id})')


def _is_same(one: TaskSpec, other: TaskSpec) -> bool:
    owner = other.options.owner
    return evolve(one, name="", options=evolve(one.options, owner=owner)) == evolve(other, name="")


def _likeness(spec: TaskSpec) -> int:
    """Equal for those that are worth a thorough look: of one program there may be thousands."""
    return hash((spec.command, spec.schedule.text))


def _digest(spec: TaskSpec) -> bytes:
    """What makes an entry the same as another of this crontab."""
    return sha256(orjson.dumps(crontab.untold(evolve(spec, name="")).record)).digest()


def export(state: State, question: q.ExportTasks, now: datetime, shows: Callable[[TaskSpec], bool]) -> Reply:
    """EXPORT: the lines of a crontab, whose secrets are masked unless it `shows` them. Raises Refusal."""
    refs = question.refs
    if refs is None and (count := state.count_own()) > MAX_EXPORTED:
        raise Refusal("limit", f"there are {count} tasks, more than the {MAX_EXPORTED} of one crontab")
    named = [find_task(state, ref) for ref in refs or ()]
    named.sort(key=lambda task: task.id)

    def tasks() -> Iterator[crontab.Exported | None]:
        for task in state.tasks.walk() if refs is None else named:
            if task is None or not task.is_notice or refs is not None:
                yield None if task is None else _described(state, task, now, shows)

    def rows() -> Iterator[tuple[str] | None]:
        writer = crontab.Writer(state.default_tz)
        ordered = yield from in_order(tasks(), partial(crontab.weight, tz=state.default_tz))
        for count, task in enumerate(ordered):
            if count % TASKS_TOGETHER == 0:
                yield None
            for line in writer.lines(task):
                yield (line,)

    return Reply.counted(("line",), rows())


def _described(
    state: State, task: Task, now: datetime, shows: Callable[[TaskSpec], bool]
) -> crontab.Exported:
    spec = task.spec
    if not shows(spec):
        env = tuple((name, masked(f"env.{name}", text)) for name, text in spec.options.env)
        spec = evolve(spec, options=evolve(spec.options, env=env))
    if state.is_paused(task, now):
        return crontab.Exported(spec, "it is paused")
    is_over = task.due_at is None and task.spec.schedule.kind not in ("reboot", "unreadable", "at", "on")
    why_off = "it has no moment to come" if is_over else ""
    return crontab.Exported(spec, why_off, crontab.what_it_lacks(spec))
