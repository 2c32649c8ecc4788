"""Runs of whole flows: which tasks each has, and how far every one of them has got. Built by facts.

The rules of `state` hold here. A flow is the tasks that hang together by after=; it is nowhere written
down, and is found when it is to run. A run of it keeps the tasks it found then, by id: one that is renamed
stays, one that comes later is not of it, one that is removed before its turn is of it no longer.

Each task of a run of its flow is in one state:

    waiting    for its dependencies, for a pause to end, or for its turn
    running    it has a run that has not ended, whatever that waits for
    ok … lost  how that run ended; or `skipped`, if it had none

What may follow stands in `todo`, or comes there from `fresh` (`flows` decides it), and a run of a flow ends
when no task of it waits or runs: whoever waits for what ended otherwise than well is skipped, so that always
comes. All but `active` and `ended` is derived.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

import msgspec
from attrs import Factory, define

from ..tasks.reasons import Reason
from ..tasks.task import Run
from . import facts as f
from .alarms import Alarms

MAX_ENDED = 10_000  # runs of flows that are still known,
MAX_MEMBERS = 100_000  # and of how many tasks, all together


class Member(msgspec.Struct, gc=False):
    """One task in a run of its flow."""

    state: str = "waiting"
    run: int = 0  # its newest run there
    active: int = 0  # of its runs, those that have not ended; several with on=all; derived
    bad: str = ""  # how one of those ended that did not end well
    heard: Reason = ""  # what those who wait for it hear


_WAITING = Member()  # every one that has not had its turn: a flow may have very many


@define
class FlowRun:
    """One run of a flow."""

    number: int
    root: int
    name: str
    begun_at: datetime
    members: dict[int, Member]
    args: dict[str, str] | None = None
    who: str | None = None
    stopping: bool = False
    stopped_by: str | None = None
    state: str = ""  # how it ended
    ended_at: datetime | None = None
    counts: Counter[str] = Factory(Counter)  # members by state

    @property
    def is_by_hand(self) -> bool:
        """Whether somebody asked for it, last; else bounds and days off hold as for any moment."""
        return self.who != ""

    @property
    def open(self) -> int:
        """Members of which something is still to come."""
        return self.counts["running"] + (0 if self.stopping else self.counts["waiting"])

    @property
    def outcome(self) -> str:
        """How it ends, when it does."""
        if self.stopping:
            return "cancelled"
        return "ok" if self.counts.total() == self.counts["ok"] else "failed"


class Flows:
    """Those under way, and those that have ended and are still known."""

    def __init__(self) -> None:
        self.next_number = 1
        self.active: dict[int, FlowRun] = {}
        self.ended: dict[int, FlowRun] = {}  # those first that ended longest ago
        self.of: dict[int, int] = {}  # by task, the one under way that it is a member of
        self.todo: OrderedDict[tuple[int, int], None] = OrderedDict()  # (run of a flow, task; 0 = its end)
        # Members whose turn has come, and which are paused: until when.
        self.fresh: dict[int, Iterator[int]] = {}  # of runs of flows, members that have yet to come to `todo`
        self.held: dict[int, datetime | None] = {}
        self.pauses = Alarms(self.held, lambda until_at: until_at)
        self._members_ended = 0

    def find(self, number: int) -> FlowRun | None:
        return self.active.get(number) or self.ended.get(number)

    def newest_first(self) -> list[FlowRun]:
        """All that are known."""
        return [*reversed(self.active.values()), *reversed(self.ended.values())]

    def is_paused(self, flow: FlowRun) -> bool:
        """Whether nothing goes on until a pause ends."""
        if flow.counts["running"] or not self.held:
            return False
        return any(task_id in self.held for task_id in flow.members if self.of.get(task_id) == flow.number)

    # --- what facts do ---

    def started(self, fact: f.FlowStarted, at: datetime) -> None:
        self.next_number = fact.flow + 1
        self._begin(_made(fact, at))

    def _begin(self, flow: FlowRun) -> None:
        self.active[flow.number] = flow
        flow.counts = Counter([member.state for member in flow.members.values()])
        self.of.update(dict.fromkeys(flow.members, flow.number))
        self._judge_all(flow)

    def _judge_all(self, flow: FlowRun) -> None:
        self.fresh[flow.number] = iter([*flow.members, 0])

    def freshen(self, most: int) -> bool:
        """Some more have come to `todo`; False if there were none."""
        for number, members in self.fresh.items():
            some = list(islice(members, most))
            if some:
                self.todo.update(dict.fromkeys((number, task_id) for task_id in some))
                return True
            del self.fresh[number]
            break
        return bool(self.fresh)

    def retried(self, fact: f.FlowRetried) -> None:
        """What did not end well waits again; what is gone meanwhile is of it no longer."""
        stays = ("ok", "running", "waiting") if fact.flow in self.active else ("ok", "running")
        flow, again = self.active.pop(fact.flow, None) or self._take_ended(fact.flow), frozenset(fact.tasks)
        members = [(key, _WAITING if key in again else each) for key, each in flow.members.items()]
        flow.members = {key: each for key, each in members if key in again or each.state in stays}
        flow.stopping, flow.stopped_by, flow.state, flow.ended_at = False, None, "", None
        flow.who = fact.who
        self._begin(flow)

    def _take_ended(self, number: int) -> FlowRun:
        flow = self.ended.pop(number)
        self._members_ended -= len(flow.members)
        return flow

    def was_stopped(self, fact: f.FlowStopping) -> None:
        flow = self.active[fact.flow]
        flow.stopping, flow.stopped_by = True, fact.who
        self._judge_all(flow)

    def has_ended(self, fact: f.FlowEnded, at: datetime) -> None:
        """What has ended is still known, until newer ones need its place."""
        flow = self.active.pop(fact.flow)
        flow.state, flow.ended_at = fact.state, at
        for task_id in flow.members:
            if self.of.get(task_id) == flow.number:
                del self.of[task_id]
            self.held.pop(task_id, None)
        self._keep(flow)

    def _keep(self, flow: FlowRun) -> None:
        self.ended[flow.number] = flow
        self._members_ended += len(flow.members)
        while len(self.ended) > MAX_ENDED or (self._members_ended > MAX_MEMBERS and len(self.ended) > 1):
            self._take_ended(next(iter(self.ended)))

    # --- what becomes of its tasks ---

    def judge(self, task_id: int | None) -> None:
        """Something may follow for this task, if it is a member of a run under way; None: for all held."""
        for each in list(self.held) if task_id is None else (task_id,):
            if number := self.of.get(each):
                self.held.pop(each, None)
                self.todo[number, each] = None

    def run_came(self, run: Run, number: int) -> None:
        """A task has its turn, in this run."""
        run.flow = number
        flow = self.active[number]
        if member := _turn_of(flow, run.task_id):
            member.run, member.bad, member.active = run.id, "", member.active + 1
            self._move(flow, member, "running")

    def run_carried(self, run: Run) -> None:
        if run.flow and (member := self.active[run.flow].members.get(run.task_id)):
            member.active += 1

    def run_ended(self, run: Run, state: str, heard: Reason) -> None:
        """One of its runs has ended for good."""
        flow = self.active[run.flow]
        member = flow.members.get(run.task_id)
        if member is None:
            return
        member.active -= 1
        if state != "ok":
            member.bad, member.heard = state, heard
        if not member.active:
            self._move(flow, member, member.bad or "ok")

    def passed(self, fact: f.FiresPassed, heard: Reason) -> None:
        """Its turn came, and nothing started."""
        flow = self.active[fact.flow]
        if member := _turn_of(flow, fact.task):
            member.heard = heard
            self._move(flow, member, fact.state)

    def leave(self, task_id: int) -> None:
        """A task is gone. If it runs, that is waited for."""
        flow = self.active[self.of[task_id]]
        self.held.pop(task_id, None)
        if flow.members[task_id].state == "waiting":
            del flow.members[task_id], self.of[task_id]
            flow.counts["waiting"] -= 1
            self.todo[flow.number, 0] = None

    def _move(self, flow: FlowRun, member: Member, state: str) -> None:
        flow.counts[member.state] -= 1
        flow.counts[state] += 1
        member.state = state
        self.todo[flow.number, 0] = None

    # --- checkpoints ---

    def carry(self) -> Iterator[f.Fact]:
        """It comes before the runs."""
        for flow in (*self.ended.values(), *self.active.values()):
            rows = [(key, each.state, each.run, each.bad, each.heard) for key, each in flow.members.items()]
            started = f.FlowStarted(flow.number, flow.root, flow.name, [], flow.args, who=flow.who)
            state = flow.state or ("stopping" if flow.stopping else "")
            yield f.FlowCarried(started, flow.begun_at, rows, flow.stopped_by, state, flow.ended_at)

    def carried(self, fact: f.FlowCarried) -> None:
        """The opposite of `carry`."""
        flow = _made(fact.started, fact.begun_at)
        flow.members = {
            key: Member(state, run, 0, bad, heard) if state != "waiting" else _WAITING
            for key, state, run, bad, heard in fact.rows
        }
        flow.stopping, flow.stopped_by = fact.state in ("stopping", "cancelled"), fact.stopped_by
        self._begin(flow)
        if fact.ended_at:
            self.has_ended(f.FlowEnded(flow.number, fact.state), fact.ended_at)


def _made(fact: f.FlowStarted, at: datetime) -> FlowRun:
    members = dict.fromkeys(fact.tasks, _WAITING)
    return FlowRun(fact.flow, fact.root, fact.name, at, members, fact.args, fact.who)


def _turn_of(flow: FlowRun, task_id: int) -> Member | None:
    """To be changed, and its own from now on."""
    member = flow.members.get(task_id)
    if member is _WAITING:
        member = flow.members[task_id] = Member()
    return member
