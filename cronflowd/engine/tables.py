"""What is true, as tables: tasks, runs, workers, and what finds their rows quickly.

Everything but the three tables themselves, the counts and the history is derived, and may be
pruned at any time. Read freely; only the functions that `State.apply` calls change anything.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, MutableSequence
from datetime import datetime, timedelta
from operator import attrgetter

from attrs import Factory, define
from msgspec.structs import replace

from ..base.output import Line
from ..base.walks import Numbered, Parted
from ..schedules.calendars import Calendars
from ..schedules.timetable import TICK
from ..schedules.zones import EPOCH
from ..tasks.options import COMMON, Common, Keep
from ..tasks.reasons import Reason
from ..tasks.targets import EVENTS
from ..tasks.task import BY_HAND, Outcome, Run, Task, TaskSpec, Worker, read_record
from . import facts as f
from .access import Access
from .alarms import Alarms
from .beats import Beats
from .changelog import ChangeLog, record_of
from .flow_runs import Flows
from .lanes import Lanes
from .ledger import NEVER, Ledger
from .once import Once
from .unfinished import Unfinished

# At one moment high ones are decided first, so that what is placed at once is placed in order.
RANK = {"high": 0, "medium": 1, "low": 2}
MIN_GRACE_S = 1.0  # even grace=0 allows for the daemon's own latency
SAVES_KEPT = 2  # the file on disk is one of the last two saves, whenever the power went
ENDED_AT_ONCE = 20  # runs of a task that leaves, beyond which those that wait end one by one behind it
MANY_RUNS = 64  # of one task: from there on it takes no longer to take out the first than the last
WELL = "ok"  # heard of a dependency that ended well; of any other, the reason


@define
class Output:
    """What a run wrote. Not `whole` = memory lost the beginning; the journal has all of it."""

    whole: bool
    lines: list[Line] = Factory(list)
    attempt_from: int = 0  # of the lines, the first of the newest attempt
    size: int = 0
    said: int = 0  # characters of remarks, as they are kept, since the newest attempt began


@define
class News:
    """How a dependency ended, and which tasks have yet to be told."""

    how: Reason
    waiting: set[int]


class Tables:
    """All that is true."""

    def __init__(self, default_tz: str = "UTC", recent_runs: int = 10_000, common: Common = COMMON) -> None:
        self.default_tz = default_tz
        self.common = common  # today's settings too
        self.calendars = Calendars()  # what files said, as facts tell, and what packages say
        self.tasks: Numbered[Task] = Numbered()
        self.runs: dict[int, Run] = {}  # not ended
        self.workers: dict[str, Worker] = {}
        self.next_task, self.next_run = 1, 1
        self.paused_all, self.paused_until_at, self.paused_why = False, _NO_TIME, ""
        self.told: dict[tuple[str, str], f.NoticeGiven] = {}  # by whom it is about, and event
        self.notices: set[int] = set()  # tasks that the daemon made to tell somebody something
        self.unheard: dict[str, f.NoticeFailed] = {}  # the last that did not arrive, by whom it was to, if
        self.notice_failed: f.NoticeFailed | None = None  # none has arrived there since; and the last of all
        self.access = Access()
        self.once = Once()
        self.templates: dict[str, dict[str, str]] = {}  # options for tasks to come, by name
        self.beats = Beats()
        self.changes = ChangeLog()
        self.unfinished = Unfinished(self.changes)  # what concerns very many tasks
        self.flows = Flows()
        self.saved: deque[f.TasksSaved] = deque(maxlen=SAVES_KEPT)
        self.totals: dict[str, int] = {}  # fires by disposition, all tasks that ever were
        self.ledger = Ledger()  # the same, and how many were due, by time
        # The daemon and its clock.
        self.tz = self.zones = ""  # of the daemon that wrote last, and which zone data it had
        self.started_at: datetime | None = None
        # By how much the clock was set, all in all. What is measured from one moment to a later one is kept
        # without it, in runs and their indexes, so nothing has to be moved when the clock is.
        self.set_by = timedelta(0)
        self.last_step_s: float | None = None
        self.last_step_at = _NO_TIME
        self.told_at = EPOCH  # of the newest fact: what the clock, as far as it was set since, showed last
        # Every moment up to here has been decided, also while the clock, set back, shows less again.
        self.decided_upto_at = EPOCH
        # What the clock was set forward over, by how much: moments up to then start nothing.
        self.jumped_upto_at, self.jumped_by_s = _NO_TIME, 0.0
        # History in memory: the newest outcomes, and the output of runs.
        self.recent_runs, self.output_size = recent_runs, 0
        self.recent: deque[Outcome] = deque()
        self.outcomes: dict[int, list[Outcome]] = {}
        self.outputs: OrderedDict[int, Output] = OrderedDict()
        self.history_from_seq = 0  # outcomes of records before this one are not in memory
        self.tally: Callable[[Outcome, bool], object] | None = None  # told of each row of history
        # Indexes of tasks.
        self.names: Parted[str, int] = Parted()
        self.dependents: dict[str, set[int]] = {}  # by the name that stands in their after=
        self.listeners: dict[str, set[int]] = {}  # by the event of their @on
        self.wanted: dict[str, set[int]] = {}  # by the name of a secret that they name
        self.emitted: list[f.EventEmitted] = []  # those that some tasks have yet to fire for, oldest first
        self.unanswered: dict[int, list[f.EventEmitted]] = {}  # the same, by task
        self.news: dict[tuple[str, int], News] = {}  # by name, and run of a flow; see `hearing`
        # Tasks that may go on by now. Taken from the front, as two more below: a dict finds that slowly.
        self.to_judge: OrderedDict[int, None] = OrderedDict()
        self.due = Alarms(self.tasks, attrgetter("due_at"))
        self.moments: dict[datetime, datetime] = {}  # of tasks read since a start; empty once all are
        self.paused: Numbered[None] = Numbered()  # those that are paused themselves, perhaps until a time
        self.orphans: dict[int, MutableSequence[int]] = {}  # runs of removed tasks, which may come back
        self.leaving: dict[int, str] = {}  # of these, whose runs that wait have yet to end; and why
        self.to_end: OrderedDict[int, int] = OrderedDict()  # the same; and up to which run that was looked at
        self.replaced: dict[int, int] = {}  # by task, the fire for which all runs before it end;
        self.replaced_upto: dict[int, int] = {}  # those up to this one were told to; a restart begins anew
        self.unread: dict[int, None] = {}  # tasks whose records cannot be read
        self.untold: OrderedDict[int, None] = OrderedDict()  # those of which that has not been said
        # Indexes of runs.
        self.unread_runs: OrderedDict[int, None] = OrderedDict()  # that may have to end as theirs cannot be
        self.lanes = Lanes(self.runs)
        self.missed = Alarms(self.runs, _missed_at)  # that no worker took in time
        self.delayed = Alarms(self.runs, _released_at)
        self.leases = Alarms(self.runs, attrgetter("lease_until_at"))
        self.timeouts = Alarms(self.runs, self._times_out)

    def keep_saved(self, saved: Iterable[f.TasksSaved]) -> None:
        """Which tasks.db was written or loaded last; copies under other names do not come between."""
        self.saved.extend(each for each in saved if each.file == f.TASKS_NAME)

    def find(self, ref: str) -> Task | None:
        """The task whose id or name is `ref`; `task_<n>` finds nothing but n."""
        if (task_id := self.names.get(ref)) is not None:  # no name is all digits
            return self.tasks[task_id]
        return self.tasks.get(int(ref)) if ref.isascii() and ref.isdigit() and len(ref) < 20 else None

    def is_paused(self, task: Task, at: datetime) -> bool:
        """Whether a moment of `task` at `at` starts nothing."""
        return self.is_all_paused(at) or task.is_paused(at)

    def is_all_paused(self, at: datetime) -> bool:
        """Whether PAUSE all is in force."""
        return self.paused_all and (self.paused_until_at is None or at < self.paused_until_at)

    def pause_ends(self, task: Task) -> datetime | None:
        """When nothing pauses `task` any more: NEVER where only RESUME ends that; None where nothing does."""
        pauses = (task.paused, task.paused_until_at), (self.paused_all, self.paused_until_at)
        return max((until_at or NEVER for is_paused, until_at in pauses if is_paused), default=None)

    def paused_upto(self, task: Task, at: datetime) -> datetime:
        """`at`, or the last moment that what pauses `task` then takes out."""
        end_at = self.pause_ends(task)
        return max(at, end_at - timedelta.resolution) if end_at else at

    def fires_after(self, task: Task, now: datetime) -> datetime:
        """After when the moments of `task` are still to come: `now`, but where a clock that was set back
        shows times again of which all was decided. A task that is new since then has none of these."""
        upto_at = self.decided_upto_at
        if upto_at <= now:
            return now
        return max(now, min(upto_at, task.due_at - TICK)) if task.due_at else upto_at

    # --- tasks ---

    def own_tasks(self) -> Iterator[Task]:
        """The tasks that people made: what LIST, SAVE, LOAD and CLEAR are about."""
        return (task for task in self.tasks.values() if not task.is_notice)

    def count_own(self) -> int:
        return len(self.tasks) - len(self.notices)

    def keep_of(self, task_id: int) -> Keep:
        """How much is kept of the history of a task; also of one that was removed, if that said so."""
        task = self.tasks.get(task_id)
        own = task.spec.options.keep if task else self.changes.keep_of(task_id, self.default_tz)
        return own or self.common.keep

    def put(self, task: Task) -> None:
        """A task and its definition, into the tables by name."""
        self.tasks[task.id] = task
        if task.spec.name in self.unfinished.former:
            self.go_by_one(task.spec.name)
        self.names[task.spec.name] = task.id
        if task.is_notice:
            self.notices.add(task.id)
        if task.paused:
            self.paused[task.id] = None
        for name in task.spec.options.after:
            self.dependents.setdefault(name, set()).add(task.id)
            if name in self.unfinished.still:
                self.unfinished.still[name].add(task.id)
        if event := task.spec.schedule.event:
            self.listeners.setdefault(event, set()).add(task.id)
        for name in task.spec.options.secrets:
            self.wanted.setdefault(name, set()).add(task.id)
        if task.spec.options.after or task.runs:
            self.to_judge[task.id] = None
        if task.spec.unread:
            self.unread[task.id] = self.untold[task.id] = None

    def take_out(self, task: Task) -> None:
        """The opposite: by id alone it can still be found."""
        self.due.drop_last()  # those of very many tasks need not be passed over when their time comes
        self.notices.discard(task.id)
        if task.paused:
            del self.paused[task.id]
        if task.spec.unread:
            del self.unread[task.id]
            self.untold.pop(task.id, None)
        if self.names.get(task.name) == task.id:  # UNDO may have let another one take it a moment ago
            del self.names[task.name]
        for name in task.spec.options.after:
            self.dependents[name].discard(task.id)
            if name in self.unfinished.still:
                self.unfinished.still[name].discard(task.id)
            elif not self.dependents[name]:
                del self.dependents[name]
        if event := task.spec.schedule.event:
            self.listeners[event].discard(task.id)
            if not self.listeners[event]:
                del self.listeners[event]
        for name in task.spec.options.secrets:
            self.wanted[name].discard(task.id)
            if not self.wanted[name]:
                del self.wanted[name]

    def go_by_both(self, old: str, task: Task) -> None:
        """Very many wait for a task, and say its new name one after the other: until then it has both."""
        self.unfinished.former[old] = self.names[old] = task.id
        # One table, so that by either name all are found.
        waiting = self.dependents.setdefault(old, set())
        self.unfinished.still[old] = set(waiting)
        waiting |= self.dependents.get(task.name, set())
        self.dependents[task.name] = waiting

    def said(self, name: str, task: Task) -> str:
        """The name by which a task still waits for the one that has this name now."""
        after, named, former = task.spec.options.after, self.names.get(name), self.unfinished.former
        return next((old for old, each in former.items() if each == named and old in after), name)

    def go_by_one(self, old: str) -> None:
        """The opposite: all say the new name, or the old one becomes another's."""
        task = self.tasks[self.unfinished.former.pop(old)]
        del self.names[old]
        del self.dependents[old]
        waiting = self.dependents.get(task.name, set())
        if still := self.unfinished.still.pop(old):
            self.dependents[old] = still
            waiting -= still
        if not waiting:
            self.dependents.pop(task.name, None)

    def set_due(self, task: Task, due_at: datetime | None, decided: int = 0) -> None:
        """When a task is due next, and how many of the moments at that instant have been decided."""
        task.due_at, task.decided = due_at, decided
        if self.unfinished.again:
            self.unfinished.note_due(task)
        if due_at is not None:
            self.due.add((due_at, RANK[task.spec.options.prio], task.id))

    def end_jump(self, due_at: datetime | None) -> None:
        """A moment is new, however old its time: no jump of the clock went over it, unless one still does.

        What goes over none of the new ones may be left for later: it can take long to find that out.
        """
        if self.jumped_upto_at is not None and due_at is not None and due_at <= self.jumped_upto_at:
            # A replay must find the same, whatever counts no more in its heap.
            while (first := self.due.earliest()) and self.is_stale(first[0], first[-1]):
                pass
            if first is None or first[0] > self.jumped_upto_at:
                self.jumped_upto_at = None

    def is_stale(self, due_at: datetime, task_id: int) -> bool:
        """Whether that is no longer the moment of the task."""
        task = self.tasks.get(task_id)
        return task is None or task.due_at != due_at

    def read(self, definition: f.Definition) -> TaskSpec:
        """A definition, as a fact brings it."""
        if type(definition) is TaskSpec:
            return definition
        return read_record(record_of(definition), self.default_tz)

    def emit(self, emitted: f.EventEmitted) -> None:
        """These tasks have to fire for one event more; a list of our own is shortened as they do."""
        emitted = replace(emitted, tasks=list(emitted.tasks))
        self.emitted.append(emitted)
        for task_id in emitted.tasks:
            self.unanswered.setdefault(task_id, []).append(emitted)

    def leave(self, task_id: int, why: str) -> None:
        """What still waits of a task that is gone ends one by one."""
        self.leaving[task_id] = why
        self.to_end[task_id] = 0

    def answer_event(self, task_id: int) -> bool:
        """A task has fired for the oldest event that it had not yet; False if there was none."""
        if (waiting := self.unanswered.get(task_id)) is None:
            return False
        emitted = waiting.pop(0)
        if not waiting:
            del self.unanswered[task_id]
        emitted.tasks.remove(task_id)
        if not emitted.tasks:
            # By what it is, not by what it says: two may say the same.
            del self.emitted[next(n for n, other in enumerate(self.emitted) if other is emitted)]
        return True

    # --- runs ---

    def park(self, run: Run, task: Task) -> None:
        """A run waits for the end of those of its task before it, which it may be to replace."""
        assert task.runs
        run.move("parked")
        mode = run.spec.options.overlap or self.common.overlap
        if mode == "replace" and task.runs[0] < run.fire:
            self.replaced[task.id] = max(run.fire, self.replaced.get(task.id, 0))
        self.to_judge[task.id] = None

    def put_run(self, run: Run) -> None:
        """A run that has not ended, into the table."""
        self.runs[run.id] = run
        if run.spec.unread:
            self.unread_runs[run.id] = None

    def enqueue(self, run: Run) -> None:
        """Lets a run wait for its time, then for a worker."""
        if run.spec.unread:
            self.unread_runs[run.id] = None
        if run.delayed_until_at is not None:
            run.move("delayed")
            self.delayed.set(run.id, run)
        else:
            run.move("queued")
            self.missed.add((wait_ends(run), run.id))
            self.lanes.join(run)

    def shown(self, at: datetime | None) -> datetime | None:
        """What is measured as the clock shows it."""
        return at and at + self.set_by

    def lease(self, run: Run, until_at: datetime) -> None:
        """From then on its worker is taken for lost."""
        run.lease_until_at = until_at - self.set_by
        self.leases.set(run.id, run)

    def _times_out(self, run: Run) -> datetime | None:
        if run.sent_at is None or run.state not in ("sent", "running"):
            return None
        timeout_s = run.spec.options.timeout_s
        if not (timeout_s := self.common.timeout_s if timeout_s is None else timeout_s):
            return None
        return run.sent_at + timedelta(seconds=timeout_s)

    def held(self, worker: Worker) -> list[Run]:
        """The runs that a worker has got, in order."""
        return [self.runs[run] for run in sorted(worker.runs)]

    def remember(self, outcome: Outcome, is_final: bool) -> None:
        """One more row of history, with which its fire has ended or not; the oldest go."""
        if self.tally is not None:
            self.tally(outcome, is_final)
        self.recent.append(outcome)
        if outcome.run is not None:
            self.outcomes.setdefault(outcome.run, []).append(outcome)
        while len(self.recent) > self.recent_runs:
            old = self.recent.popleft()
            self.history_from_seq = old.seq + 1
            if old.run is not None:
                rows = self.outcomes[old.run]
                rows.remove(old)
                if not rows:
                    del self.outcomes[old.run]

    def forget_told(self, about: str) -> None:
        """What was told of something that is gone."""
        if self.told:
            for event in EVENTS:
                self.told.pop((about, event), None)


def with_run(runs: MutableSequence[int] | tuple[()], run: int) -> MutableSequence[int]:
    """The runs of a task, and one more."""
    runs = runs or []
    if len(runs) == MANY_RUNS:
        runs = deque(runs)
    runs.append(run)
    return runs


def of_one_fire(runs: Iterable[Run]) -> list[Run]:
    """The first of these; with on=all, also those of its fire that are for other workers."""
    found = list(runs)
    return [run for run in found if run.fire == found[0].fire]


def wait_ends(run: Run) -> datetime:
    """When a run that no worker took is missed."""
    grace_s = run.spec.options.grace_s
    return run.queued_at + timedelta(seconds=grace_s if grace_s > MIN_GRACE_S else MIN_GRACE_S)


def _missed_at(run: Run) -> datetime | None:
    return wait_ends(run) if run.state == "queued" else None


def _released_at(run: Run) -> datetime | None:
    return run.delayed_until_at if run.state == "delayed" else None


def receiver(spec: TaskSpec) -> str:
    """Whom a notification is for, as its run says it."""
    return f"{spec.options.type} {spec.command}"


def counts(task: Task, run: Run) -> bool:
    """Whether a run is one of those that count= counts, unless it is skipped or missed."""
    # One that was queued before count= was set does not: it was not counted then. With on=all a moment
    # counts once, and is not given back.
    return run.by not in BY_HAND and not run.target and 0 < run.spec.options.count == task.spec.options.count


_NO_TIME: datetime | None = None
