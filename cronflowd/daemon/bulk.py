"""Changes of very many tasks: worked out and staged with everybody else's turns in between.

Until it is decided a change means nothing, and a crash, a full disk or a client that leaves makes
it as if it had never been. From then on the core carries it out slice by slice, also after a
restart; the client hears of it when all of it is so.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace

from ..base.errors import Refusal
from ..base.replies import NOTE_COLUMNS, Reply
from ..engine import orders as o
from ..engine.definitions import AT_ONCE, AT_ONCE_CHARS, are_long, plan_load, plan_remove
from ..engine.engine import verb_of
from ..engine.flows import plan_flow
from ..engine.many import ENDS, pattern_of, plan_many, reply_of
from ..engine.once import Asked
from ..engine.undo import plan_undo
from ..engine.unfinished import Bulk
from .core import Core
from .turns import in_turns, let_go, turn

STAGED_TOGETHER, STAGED_CHARS = 50, 1 << 18
MAX_AHEAD = 10  # records of staged tasks that the disk may be behind by
TRIES = 5

Check = Callable[[], object]


def unchecked() -> None:
    """Of whoever gives an order to himself."""


class LargeChanges:
    """Changes that concern more tasks than one decision should."""

    def __init__(self, core: Core) -> None:
        self.core = core

    def is_large(self, order: Any) -> bool:
        """Whether an order is for `change`."""
        state, kind = self.core.state, type(order)
        if pattern_of(order) or kind is o.StartFlow:
            is_long = kind is o.SetTask and len(state.tasks) <= AT_ONCE and self._may_be_long(order)
            return len(state.tasks) > AT_ONCE or is_long
        if kind is o.UndoChanges:
            changes = state.changes.newest(order.count)
            if sum(len(change.steps) for change in changes) > AT_ONCE:
                return True
            each = (step.was for change in changes for step in change.steps)
            return sum(was.size for was in each if was) > AT_ONCE_CHARS
        if kind in (o.SetTask, o.RollBack, o.RemoveTask):
            task = state.find(order.ref)
            return task is not None and len(state.dependents.get(task.name, ())) > AT_ONCE
        if kind is o.ResumeTasks:
            return order.ref is None and len(state.paused) > AT_ONCE
        return kind is o.ClearTasks and state.count_own() > AT_ONCE

    def _may_be_long(self, order: o.SetTask) -> bool:
        """Whether all tasks, with what they are to say, would be too long for one decision."""
        specs = [task.spec for task in self.core.state.tasks.values()]
        return are_long(specs) or sum(map(len, order.words.values())) * len(specs) > AT_ONCE_CHARS

    async def change(
        self,
        order: Any,
        who: str | None,
        once: Asked | None = None,
        own: Generator[None, None, Any] | None = None,
        check: Check = unchecked,
    ) -> Reply:
        """All of them but LOAD; `own` finds out whether it may be given so, and how else.

        `check` raises Refusal when it is decided, where whoever gave it was sent away meanwhile.
        """
        engine = self.core.engine

        def decide(order: Any) -> Reply:
            check()
            return self.core.submit(order, who, once=once).told

        engine.check_free()
        if own:
            with self._planning(verb_of(order)):
                order = await in_turns(own)
        if pattern := pattern_of(order):
            return await self.done(await self._change_chosen(order, pattern, decide, once), who)
        match order:
            case o.UndoChanges():
                plan = plan_undo(engine.state, order.count, self.core.now(), engine.limits)
                order = await self._planned(order, plan)
            case o.StartFlow():
                order = await self._planned(order, plan_flow(engine.state, order.ref, self.core.now()))
            case o.RemoveTask():
                order = await self._planned(order, plan_remove(engine.state, order))
        reply = decide(order)
        if isinstance(order, o.UndoChanges) and engine.state.unfinished.bulk:
            engine.slices.undoing = order.plan
        return await self.done(reply, who)

    async def _planned(self, order: Any, steps: Generator[None, None, Any]) -> Any:
        with self._planning(verb_of(order)):
            return replace(order, plan=await in_turns(steps))

    async def _change_chosen(
        self, order: Any, pattern: o.Pattern, decide: Callable[[Any], Reply], once: Asked | None
    ) -> Reply:
        core = self.core
        with self._planning(verb_of(order)):
            plan = await in_turns(plan_many(core.state, order, core.now()))
            if (count := len(plan)) <= AT_ONCE and not are_long(spec for _, spec in plan if spec):
                return decide(replace(order, ref=replace(pattern, plan=plan)))
            if once and isinstance(order, o.RunTask):  # how many could start is known at the end alone
                raise Refusal("limit", f"ONCE runs at most {AT_ONCE} tasks, and these are {count}")
            with self._dropped_unless_decided():
                core.submit(o.StageTasks([], core.state.next_task))
                await self._stage(plan)
                return decide(replace(order, ref=replace(pattern, staged=count)))

    async def load(self, order: o.LoadTasks, who: str | None, check: Check = unchecked) -> Reply:
        """LOAD, until it is decided; its records are taken out one by one: freeing all at once takes long."""
        core, state, count = self.core, self.core.state, len(order.records)
        core.engine.check_free()
        with self._planning("LOAD"), self._dropped_unless_decided():
            core.submit(o.StageTasks([], state.next_task))  # what runs once and leaves is noted from now on
            for _ in range(TRIES):
                next_task = state.next_task
                numbered, above = await in_turns(plan_load(state, order.records, core.engine.limits))
                if next_task == state.next_task:  # or a notification has got an id meanwhile
                    break
            else:
                raise Refusal("busy", "so much is notified that no ids can be given; try again")
            core.submit(o.StageTasks([], above))  # before anybody else has a turn, and takes these ids
            await let_go(order.records)
            done = count - len(numbered)
            await self._stage(numbered)
            check()
            return core.submit(o.DecideLoad(count, order.saved, order.file, done), who).told

    async def _stage(self, numbered: Any) -> None:
        core = self.core
        numbered.reverse()
        while numbered:
            entries: list[tuple[int, Any]] = []
            size = 0
            while numbered and len(entries) < STAGED_TOGETHER and size < STAGED_CHARS:
                entries.append(numbered.pop())
                size += entries[-1][1].size if entries[-1][1] else 0
            core.submit(o.StageTasks(entries, None))
            await core.settled(core.last_seq - MAX_AHEAD)
            await turn()

    @contextmanager
    def _planning(self, what: str) -> Iterator[None]:
        """Tasks stay as they are while something is worked out."""
        self.core.engine.slices.planning = what
        try:
            yield
        finally:
            self.core.engine.slices.planning = ""

    @contextmanager
    def _dropped_unless_decided(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            try:
                self.core.submit(o.DropStaged())  # at once: the next line may be of the same client
                self.core.wake()
            except Refusal:
                self.core.insist(o.DropStaged())
            raise

    async def done(self, reply: Reply, who: str | None) -> Reply:
        """The reply, when what was decided is so; who decided it asks at once."""
        if not (bulk := self.decided()):
            return reply
        # The daemon's own LOAD comes before anybody is served.
        await (self.finish(bulk) if who else self.finish_alone())
        if not bulk.refused:
            return reply
        if bulk.kind in ENDS:
            reply = reply_of(bulk.kind, reply.values[ENDS[bulk.kind]] - bulk.refused)
        if bulk.kind != "run":  # of which that is told task by task
            are_more = bulk.refused > 1
            what = f"{bulk.refused} tasks stay as they were" if are_more else "1 task stays as it was"
            reply.columns = reply.columns or NOTE_COLUMNS
            reply.rows = [*reply.rows, ("note", f"{what}; the log says which, and why")]
        return reply

    def decided(self) -> Bulk | None:
        """What is under way and will be so, whatever happens."""
        bulk = self.core.state.unfinished.bulk
        return bulk if bulk and bulk.is_decided else None

    async def finish(self, bulk: Bulk) -> None:
        """Waits until this is so; the next one, which may have begun by then, is for others to wait for."""
        core = self.core
        core.wake()
        while core.state.unfinished.bulk is bulk:
            await core.sliced.wait()

    async def finish_alone(self) -> None:
        """The same before anybody is served, when nobody else takes slices; as far as there is room."""
        core = self.core
        while core.state.unfinished.bulk is not None:
            if not core.take_slice():
                if core.gate.committed >= core.last_seq:  # refused: what is due does not wait for that
                    break
                await core.settled(core.last_seq)
            await turn()
