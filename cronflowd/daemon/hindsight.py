"""What has been, wherever it stands: RUNS, STATS, WHY and LOG, from memory and from the journal.

Each of them reads files, where memory does not hold all that is asked for; the connection that asked
waits for them, and nobody else does. Memory lets old rows go while a thread reads the journal. So what
memory holds, and where the journal has to go on from, are taken at one time, before anything is waited
for: each row is seen once, as of the moment of asking.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from copy import copy
from datetime import datetime, timedelta
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import trio

from ..ask import questions as q
from ..ask import stats, views, why
from ..ask.kept import Kept
from ..ask.parsers import RUN_STATES
from ..base import output
from ..base.errors import Refusal
from ..base.replies import Reply, Row
from ..base.text import escape, format_time
from ..engine.definitions import find_task
from ..engine.state import OLDEST_TIME, State
from ..host.threads import call_in_thread
from ..journal import gaps, history
from ..journal.files import journal_dir
from ..journal.index import Index, key
from ..net.clients import Session
from ..schedules.english import parse_moment
from ..schedules.zones import load_zone
from ..tasks.options import KEEP
from ..tasks.reasons import in_words, worded
from ..tasks.task import ENDED, Outcome
from .core import Core
from .feeds import READERS, LogHub
from .turns import gather

MAX_OLD_ROWS = 100_000  # that one question reads from the journal
MAX_PASSED = 2_000  # rows of the journal that are looked at behind a page, to tell how many there are
MAX_SET_BACK = timedelta(days=1)  # a clock; RUNS since= looks no further back behind that moment

T = TypeVar("T")
Answer = Reply | Coroutine[Any, Any, Reply]
Wanted = Callable[[Outcome], bool]


class Past:
    """All that had ended when this was made, newest first; with `about`, at least all that this asks for."""

    def __init__(self, core: Core, data: Path, index: Index, about: q.ListRuns | None = None) -> None:
        self._core = core
        self._data = data
        self._index = index
        self._about = about
        self._keys = _keys_of(core.state, about) if about else []
        self._before_seq = core.state.history_from_seq
        self.recent = list(reversed(core.state.recent))
        self.looked = 0  # at so many rows of the journal
        self.was_cut = False  # not all that is older was looked at

    async def older(self, wanted: Wanted, query: q.ListRuns) -> list[Outcome]:
        """Of the newest that are wanted, those that memory does not hold."""
        end = MAX_OLD_ROWS if query.limit is None else query.offset + query.limit

        def read() -> list[Outcome]:
            have = sum(map(wanted, self.recent))  # each has to be asked for, in order
            left = min(MAX_OLD_ROWS, max(end, query.count_to) - have)
            return list(self._counted(self._in_order(wanted), left, end - have, query.since_at))

        return await self._read(read)

    def _counted(self, wanted: Wanted, most: int, page: int, since_at: datetime | None) -> Iterator[Outcome]:
        """So many, as far as they are found behind those of the page at no great cost."""
        met = looked = 0
        for outcome in self._older(lambda _: True, sys.maxsize) if most > 0 else ():
            if since_at and OLDEST_TIME <= outcome.ended_at < since_at - MAX_SET_BACK:
                return  # nothing ends before it is due, unless the clock is set back, or not set yet
            if wanted(outcome):
                yield outcome
                met += 1
            if met < page:
                looked = self.looked
            if met == most or self.looked - looked > MAX_PASSED:
                self.was_cut = True
                return

    def _in_order(self, wanted: Wanted) -> Wanted:
        """What a filter says that has to see all rows of a task, though not all of them are looked at.

        It is asked of the other rows of a task, too, as soon as one of them is met: of each newer one before.
        """
        if not self._keys or (self._about and self._about.ref is not None):
            return wanted
        state = self._core.state
        rows: dict[int, Iterator[Outcome]] = {}

        def ask(outcome: Outcome) -> bool:
            task = outcome.task_id
            if state.keep_of(task) == KEEP:
                return wanted(outcome)
            if task not in rows:
                rows[task] = self._found(lambda row: row.task_id == task, [key("task", task)])
            for row in rows[task]:
                is_wanted = wanted(row)
                if row.seq == outcome.seq:
                    return is_wanted
            return False

        return ask

    async def of_run(self, run: int, wanted: Wanted) -> list[Outcome]:
        """All rows of a run that memory does not hold."""

        def read() -> list[Outcome]:
            found = list(self._older(lambda row: row.run == run, MAX_OLD_ROWS))
            if not found or self._core.state.keep_of(found[0].task_id) == KEEP:
                return list(filter(wanted, found))
            # How far back it is kept is known when all of its task that came after it was looked at.
            for row in self.recent:
                if row.task_id == found[0].task_id:
                    wanted(row)
            return list(filter(self._in_order(wanted), found))

        return await self._read(read)

    async def keeps_output(self, run: int) -> bool:
        """Whether what a run that has ended wrote is still shown: no further back than `keep=` says."""
        state, before_seq = self._core.state, self._core.last_seq + 1
        kept = Kept(state, self._core.now(), history.Sizes(self._data, before_seq, self._index))

        def read() -> bool:
            recent = (row for row in self.recent if row.run == run)
            end = next(chain(recent, self._found(lambda row: row.run == run, [key("run", run)])), None)
            if end is None:  # the files have let it go, whatever memory still has; or it was never here
                return bool(gaps.gaps(journal_dir(self._data)))
            if not kept.is_limited(task := end.task_id):
                return True
            rows = chain(self.recent, self._found(lambda row: True, [key("task", task)]))
            for row in (row for row in rows if row.task_id == task):
                kept(row)
                if row.run == run:
                    break
            return run in kept.outputs

        return await self._read(read)

    async def newest(self, wanted: Wanted, most: int = MAX_OLD_ROWS) -> list[Outcome]:
        """Of all, the newest that are wanted."""

        def read() -> list[Outcome]:
            found = list(islice(filter(wanted, self.recent), most))
            return found + list(self._older(wanted, most - len(found)))

        return await self._read(read)

    async def each(self, wanted: Wanted, see: Callable[[Outcome], object]) -> None:
        """Has all of them looked at, in a thread."""

        def look() -> None:
            for outcome in chain(filter(wanted, self.recent), self._older(wanted, MAX_OLD_ROWS)):
                see(outcome)

        await self._read(look)

    def _older(self, wanted: Wanted, most: int) -> Iterator[Outcome]:
        return islice(self._found(wanted, self._keys), most) if most > 0 else iter(())

    def _found(self, wanted: Wanted, keys: Sequence[int]) -> Iterator[Outcome]:
        """Of the journal's rows those that are wanted; with keys, others are not even read."""

        def is_wanted(outcome: Outcome) -> bool:
            self.looked += 1
            return wanted(outcome)

        if not self._before_seq:
            return iter(())
        return history.outcomes(self._data, self._before_seq, is_wanted, keys, self._index)

    async def _read(self, function: Callable[[], T]) -> T:
        # A row may have left memory before its record is on the disk, which is where it is looked for.
        await self._core.settled(self._before_seq - 1)
        return await call_in_thread(function, limiter=READERS)


def _keys_of(state: State, asked: q.ListRuns) -> list[int]:
    """By what the rows that are asked for are found in files; none: they are nearly all rows, or unknown."""
    if asked.run is not None:
        return [key("run", asked.run)]
    if (ref := asked.ref) is not None:
        task = state.find(ref)
        return [key("task", task.id if task else ref.lstrip("0")), key("name", ref)]
    if asked.flow is not None:
        return [key("flow", asked.flow)]
    if asked.worker:
        return [key("worker", asked.worker)]
    return [] if "ok" in asked.states else [key("state", state) for state in asked.states & ENDED]


class Hindsight:
    """The past as clients ask for it."""

    def __init__(self, core: Core, data: Path, have_place: Callable[[], None]) -> None:
        self._core = core
        self._data = data
        self._default_tz = core.state.default_tz
        self._have_place = have_place  # refuses one more that watches
        self.logs = LogHub(core)
        self.index = Index()
        self.node = ""  # this one's name, of several

    def runs(self, question: q.ListRuns, session: Session) -> Answer:
        state = self._core.state
        if (ref := question.ref) in RUN_STATES and state.find(ref) is None:
            raise Refusal("not-found", f'no task "{ref}"; did you mean state={ref}?')
        if not state.history_from_seq or (question.states and question.states.isdisjoint(ENDED)):
            return views.list_runs(state, question, (), self._core.now())
        return self._old_runs(question)

    async def _old_runs(self, question: q.ListRuns) -> Reply:
        """RUNS, when there is more than memory holds and the question wants it."""
        state, past, now = self._core.state, self._past(question), self._core.now()
        wanted = views.wanted_outcomes(question, state, now)
        older: list[Outcome] = []
        # Now, though what is older comes later.
        reply = views.list_runs(state, question, older, now, lambda: past.was_cut)
        if (run := question.run) is None:
            older += await past.older(wanted, question)
        elif not self._is_whole(run):
            older += await past.of_run(run, wanted)
        return reply

    def _is_whole(self, run: int) -> bool:
        """Whether memory has all attempts of a run."""
        state = self._core.state
        known = [row.attempt for row in state.outcomes.get(run, ())]
        known += [state.runs[run].attempt] if run in state.runs else []
        return 1 in known or run >= state.next_run or not state.history_from_seq

    async def _attempts(self, run: int) -> list[Outcome]:
        """All attempts of a run that have ended, the first one first."""
        rows, asked = list(self._core.state.outcomes.get(run, ())), q.ListRuns(None, run=run)
        if self._is_whole(run):
            return rows
        wanted = views.wanted_outcomes(asked, self._core.state, self._core.now())
        return (await self._past(asked).of_run(run, wanted))[::-1] + rows

    def _past(self, about: q.ListRuns | None = None) -> Past:
        return Past(self._core, self._data, self.index, about)

    async def statistics(self, question: q.ShowStats, session: Session) -> Reply:
        """STATS: from the rows of RUNS, in memory and in the journal, read and counted in a thread."""
        state = self._core.state
        rows = q.ListRuns(question.ref, since_at=question.since_at, until_at=question.until_at)
        found = stats.Stats(question.by, frozenset(state.runs), load_zone(question.tz))
        await self._past(rows).each(views.wanted_outcomes(rows, state, self._core.now()), found.see)
        periods = list(found.rows())
        since = format_time(found.since_at) if found.since_at else "-"
        values = {"rows": len(periods), "since": found.since_at}
        return Reply(f"{len(periods)} since={since}", values, stats.COLUMNS, periods)

    async def explain(self, question: q.AskWhy, session: Session) -> Reply:
        """WHY: what is known of a moment, wherever it stands; or what the task's definition says of it."""
        state, now = self._core.state, self._core.now()
        task = state.find(question.ref)
        wanted = partial(views.wanted_outcomes, q.ListRuns(question.ref), state, now)
        zone = task.spec.schedule.tz if task else self._default_tz
        at = parse_moment(question.time, zone, now, past=True) if question.time else None
        if at is None:
            at = await self._newest_moment(question.ref, wanted())
        # Copies: what ends while the journal is read is told as it was when this was asked.
        its = (run and (copy(run) if run.due_at == at else None) for run in why.runs_of(state, question.ref))
        active = await gather(its)
        past, runs = self._past(q.ListRuns(question.ref)), [run for run in active if run.id in state.runs]
        outcomes = await past.newest(why.concerns(at, wanted())) if at else []
        found = why.Found(runs, outcomes[::-1])
        if at is None or not (found.runs or found.outcomes):
            task = find_task(state, question.ref)
            if at is None:
                return _why_reply(*why.explain_never(state, task, now))
            return _why_reply(*why.explain_unknown(state, task, at, now))
        blamed = why.blamed_runs(found.outcomes)
        others = [row for run in blamed for row in await self._attempts(run)]
        other = why.Found([state.runs[run] for run in blamed if run in state.runs], others)
        remarks = await self._remarks(found)
        rows, disposition = why.explain_found(state, task, at, found, remarks, other)
        if task and not (question.time or task.runs):
            rows += why.tell_waiting(state, task, now)  # what comes next
        return _why_reply(rows, disposition)

    async def _newest_moment(self, ref: str, wanted: Callable[[Outcome], bool]) -> datetime | None:
        """The moment that WHY without a time is about: of the run under way, or else of the last one."""
        for run in why.runs_of(self._core.state, ref):
            if run:
                return run.due_at
            await trio.lowlevel.checkpoint()
        newest = await self._past(q.ListRuns(ref)).newest(wanted, 1)
        return newest[0].due_at if newest else None

    async def _remarks(self, found: why.Found) -> list[str]:
        """The daemon's own lines in the LOG of these runs."""
        runs = {row.run: row.task_id for row in found.outcomes if row.run}
        runs |= {run.id: run.task_id for run in found.runs}
        upto = self._core.last_seq
        asked = q.ShowLog(0, follow=False)
        by_run = [await self._kept_lines(asked, run, upto, runs[run]) for run in sorted(runs)]
        lines = [line for each in by_run for line in each]
        return [in_words(line[1]) for line in lines if line[0] == 0]

    def log(self, question: q.ShowLog, session: Session) -> Answer:
        """LOG: of a run, or of a task's newest one. Raises Refusal."""
        state = self._core.state
        if question.ref:
            return self._log_of(question, session)
        run = state.runs.get(question.run)
        if run is None and not 0 < question.run < state.next_run:
            raise Refusal("not-found", f"no run {question.run}")
        if question.follow and run is not None:
            return self._follow(question, question.run, session)
        return self._past_log(question, question.run, session)

    async def _log_of(self, asked: q.ShowLog, session: Session) -> Reply:
        """LOG REF: of its newest run, or of one before that."""
        ref, state = asked.ref, self._core.state
        runs: list[int] = []
        await gather(why.runs_of(state, ref), lambda run: runs.append(run.id))
        found = dict.fromkeys(sorted(runs, reverse=True))
        wanted = views.wanted_outcomes(q.ListRuns(ref), state, self._core.now())

        def is_next(outcome: Outcome) -> bool:
            if outcome.run is None or outcome.run in found or not wanted(outcome):
                return False
            found[outcome.run] = None
            return True

        if (more := asked.back + 1 - len(found)) > 0:
            await self._past(q.ListRuns(ref)).newest(is_next, more)
        if asked.back >= len(found):
            if not found:
                find_task(state, ref)
            known = f"no run so far back is known, but {len(found)}" if found else "it has not run yet"
            raise Refusal("not-found", f"{escape(ref[:80])}: {known}")
        run = list(found)[asked.back]
        if asked.follow and run in state.runs:
            return await self._follow(asked, run, session)
        return await self._past_log(asked, run, session)

    async def _past_log(self, asked: q.ShowLog, run: int, session: Session) -> Reply:
        columns = 4 if session.as_json else 3
        lines = await self._kept_lines(asked, run, self._core.last_seq)
        shown = (output.row_of(worded(line))[:columns] for line in lines)
        return Reply.counted(output.COLUMNS[:columns], shown)

    async def _kept_lines(
        self, asked: q.ShowLog, run: int, upto: int, task: int | None = None
    ) -> Sequence[output.Line]:
        """Those of a run's lines that `keep=` still lets be seen; `task`: whose it is, if that is known."""
        state = self._core.state
        if rows := state.outcomes.get(run):
            task = rows[0].task_id
        lines = await self._lines(asked, run, upto)
        is_all_shown = run in state.runs or (task and state.keep_of(task) == KEEP)
        if not lines or is_all_shown or await self._past().keeps_output(run):
            return lines
        return ()

    async def _lines(self, asked: q.ShowLog, run: int, upto: int) -> list[output.Line]:
        """A run's output as of now: from memory if it is whole there, else from the journal up to `upto`."""
        active, known = self._core.state.runs.get(run), self._core.state.outputs.get(run)
        found, lacking = list[output.Line](), Counter[str]()
        if known is not None and known.whole:
            found = known.lines
        elif active is None or active.has_output:
            await self._core.settled(upto)  # files hold what is committed
            found = await call_in_thread(history.output, self._data, run, upto, self.index, lacking)
        if not (lacking or active or run in self._core.state.outcomes):
            found = found + await call_in_thread(gaps.remarks, self._data, run, self.index)
        return [*_tail(found, asked), *history.remarks(lacking, self.node)]

    async def _follow(self, asked: q.ShowLog, run: int, session: Session) -> Reply:
        """LOG … follow: what there is, then every line as it comes, then the status line."""
        # It may have ended since this was asked: an answer that is awaited has its turn a little later.
        if run not in self._core.state.runs:
            return await self._past_log(asked, run, session)
        self._have_place()
        feed = self.logs.follow(session, run, asked.fd)
        session.data.append(feed)
        session.is_live = True  # and no session: a script that waits for a job gets its prompt back
        try:
            upto = self._core.last_seq
            await feed.past(await self._lines(asked, run, upto), upto)
            await feed.ended.wait()
        finally:
            session.is_live = False
            session.data.remove(feed)
            feed.leave()
        return Reply(str(feed.count), {"rows": feed.count})


def _why_reply(rows: Iterable[Row], disposition: str) -> Reply:
    return Reply(disposition, {"disposition": disposition}, ("time", "what"), rows)


def _tail(lines: Sequence[output.Line], asked: q.ShowLog) -> Sequence[output.Line]:
    """Those of LOG's fd= and tail=."""
    wanted = lines if asked.fd is None else [line for line in lines if line[0] == asked.fd]
    return wanted if asked.tail is None else wanted[max(0, len(wanted) - asked.tail) :]
