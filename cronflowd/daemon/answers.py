"""What a line on the control port leads to: an order for the core, or an answer from here.

Orders go straight to `Core.submit`. The rest are questions, and the verbs that concern
one connection, or files. Whatever must read or write a file returns a coroutine, for
which that connection waits and nobody else.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from copy import copy
from datetime import datetime
from functools import partial
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar, TypeVar

import trio
from msgspec.structs import replace

from .. import __version__
from ..ask import (
    accounts,
    commands,
    flows,
    grammar,
    listing,
    load,
    manual,
    metrics,
    overview,
    secrets,
    stats,
    views,
    why,
)
from ..ask import questions as q
from ..ask.parsers import RUN_STATES
from ..ask.revisions import find_revision, show_history
from ..base import output
from ..base.errors import Refusal
from ..base.proofs import key_of
from ..base.replies import Reply, format_status
from ..base.text import escape, format_time
from ..engine import expectations
from ..engine import orders as o
from ..engine.access import ADMIN, USER
from ..engine.many import MAY_BE_LARGE
from ..engine.once import Asked
from ..engine.state import State
from ..host.disk import plain_file
from ..journal import history
from ..journal.backup import SUFFIX
from ..journal.index import Index
from ..net.clients import Session
from ..net.listeners import Door
from ..net.outbox import Gate
from ..schedules.calendars import parse_calendar_names
from ..schedules.english import parse_moment
from ..schedules.zones import data_version, read_zones
from ..tasks import slips
from ..tasks.options import KEEP
from ..tasks.reasons import in_words, worded
from ..tasks.task import ENDED, Outcome
from . import crontab_orders, figures
from .bulk import in_turns
from .cluster import Node
from .core import Core
from .feeds import LogHub, Watcher, WatchHub
from .files import Files
from .logins import Logins
from .past import Past

log = logging.getLogger("cronflowd.answers")

MAX_FEEDS = 1000
MAX_ROWS_AHEAD = 100_000  # of DST and TZDIFF
MAX_AHEAD_S = 60.0  # the same; usually 200,000 tasks take a second or two
SLICE_S = 0.002  # of looking ahead, before the others have their turn

T = TypeVar("T")
Answer = Reply | Coroutine[Any, Any, Reply]


def _always(as_json: bool) -> dict[Any, str]:
    """Lines that are always answered alike, and how; also as they come when nothing comes with them."""
    rows = [(name, verb.always) for name, verb in commands.VERBS.items() if verb.always]
    known: dict[Any, str] = {}
    for name, reply in rows:
        for said in name, name.lower():
            known[said] = known[f"{said}\n".encode()] = format_status(reply, as_json)
    return known


class Answers:
    """The core as clients see it."""

    ready: ClassVar = (_always(as_json=False), _always(as_json=True))

    def __init__(self, core: Core, data: Path) -> None:
        self.core = core
        self.data = data
        self.default_tz = core.state.default_tz
        self._context = grammar.Context(core.now(), self.default_tz, core.state.templates)  # of the last line
        self.files = Files(core, data)
        self._index = Index()
        self.hub, self.logs = WatchHub(core), LogHub(core)
        self.doors: list[Door] = []
        self._tally: metrics.Tally | None = None  # from the first METRICS on
        self.admission = core.admission
        self.node: Node | None = None  # where it is one of several
        self.logins = Logins(core.admission)

    @property
    def gate(self) -> Gate:
        return self.core.gate

    @property
    def last_seq(self) -> int:
        return self.core.last_seq

    def look(self) -> datetime:
        return self.core.look()

    def end_batch(self) -> None:
        self.core.end_batch()

    def too_fast(self, session: Session) -> Refusal | None:
        """Why a line of somebody unknown is one too many, if it is."""
        return self.admission.too_fast(session)

    def allows_unfinished(self, line: str) -> bool:
        """Whether a line whose newline never came may be taken for whole."""
        return commands.only_reads(line)

    def enter(self, session: Session) -> None:
        """A connection begins."""
        self.admission.enter(session)
        session.data = []  # the feeds it has subscribed to

    def leave(self, session: Session) -> None:
        """It ends, and watches nothing any more."""
        self.admission.leave(session)
        for feed in session.data:
            feed.leave()

    def handle(self, line: str, session: Session, now: datetime) -> Answer:
        """What one line leads to; raises Refusal."""
        try:
            verb, rest = commands.find_verb(line)
        except Refusal:
            session.is_script |= not session.is_session  # or whatever else is not meant for us
            raise
        if session.must_authenticate and session.is_locked and not verb.anybody:
            raise Refusal("auth-required", "AUTH TOKEN comes first here")
        if session.rank < ADMIN or session.until_at or verb.gateway is not None:
            self.admission.check(verb, rest, session)
        if session.refused or session.is_script:
            commands.check_meant(line, session.refused, session.is_script)
        session.verb, session.head_width = verb, None
        # A line of a crontab, behind IMPORT, may hold HEAD= itself.
        if "=" in rest and (verb.reads or (verb.answer in ("template", "flow") and verb.only_reads(rest))):
            session.head_width, rest = grammar.take_head(rest)
        if now is not self._context.now:
            self._context = grammar.Context(now, self.default_tz, self.core.state.templates)
        question = verb.parse(rest, self._context)
        if verb.about_days:
            self.files.look_at_calendars()
        if verb.always:
            return verb.always
        if verb.answer:
            answer: Answer = getattr(self, f"_{verb.answer}")(question, session)
            return answer
        if type(question) not in _SLOW or (type(question) is o.AddTask and not question.spec.options.skip):
            return self._submit(question, session, now)
        if calendars := _calendars_of(question):
            return self._learn_first(calendars, question, session)
        return self._submit(question, session, now)

    def _submit(self, question: Any, session: Session, now: datetime | None = None) -> Answer:
        if session.rank < USER:
            raise self.admission.only_looks(session, question)
        if type(question) in MAY_BE_LARGE and self.files.large.is_large(question):
            return self._change_many(question, session)
        if session.account:
            question = self.admission.own(question, session)
        reply = self.core.submit(question, session.who, now, session.once).reply
        assert reply is not None
        if question.__class__ is o.AddTask and slips.DOUBTFUL.search(question.spec.command):
            is_shell = question.spec.options.type in slips.SHELLS
            notes = [("note", text) for text in slips.remarks(question.spec.command) if is_shell]
            return replace(reply, columns=("note", "text"), rows=[*reply.rows, *notes]) if notes else reply
        return reply

    async def _change_many(self, order: Any, session: Session) -> Reply:
        """What very many tasks become; whose they are is looked at when others have no turn between."""
        if session.account:
            order = self.admission.own(order, session)
        return await self.files.large.change(order, session.who, session.once)

    async def _learn_first(self, calendars: tuple[str, ...], question: Any, session: Session) -> Reply:
        """An order that names calendars: they are read anew, and refused if they are none."""
        await self.files.learn(calendars)
        answer = self._submit(question, session)
        return answer if isinstance(answer, Reply) else await answer

    def _once(self, question: q.Once, session: Session) -> Answer:
        verb, rest = commands.find_verb(question.line)
        if session.rank < ADMIN or session.until_at:
            self.admission.check(verb, rest, session)
        if verb.always or verb.only_reads(rest) or verb.answer not in _IN_ONE_DECISION:
            word = verb.usage.split(" ")[0]
            raise Refusal("syntax", f"ONCE is for what changes tasks or tokens in one decision, not {word}")
        asked = Asked(session.account, question.key, key_of(question.line.encode()).hex())
        now = self._context.now
        if known := self.core.state.once.find(asked, now):
            return known
        session.once = asked
        try:
            answer = self.handle(question.line, session, now)
        except BaseException:
            session.once = None
            raise
        if isinstance(answer, Reply):
            session.once = None
            return answer
        return self._await_once(answer, session)

    async def _await_once(self, answer: Coroutine[Any, Any, Reply], session: Session) -> Reply:
        try:
            return await answer
        finally:
            session.once = None

    # --- one connection ---

    def _hello(self, question: q.Hello, session: Session) -> Reply:
        session.is_session = True
        self.admission.hello(session, question.name)
        values = {"server": "cronflowd", "version": __version__, "protocol": 1}
        return Reply(f"cronflowd {__version__} protocol=1", values)

    def _authenticate(self, question: q.Authenticate, session: Session) -> Answer:
        return self.admission.authenticate(question, session)

    def _act_as(self, question: q.ActAs, session: Session) -> Reply:
        return self.admission.act_as(question, session)

    def _whoami(self, question: q.Alone, session: Session) -> Reply:
        return self.admission.whoami(session)

    def _user(self, question: Any, session: Session) -> Answer:
        if isinstance(question, q.ListUsers):
            return accounts.list_users(self.core.state.access, question.name)
        if isinstance(question, o.RemoveAccount):
            return self.admission.remove_user(question, session)
        if isinstance(question, q.Forgot):
            return self.logins.offer_reset(question, session)
        if isinstance(question, q.Reset):
            return self.logins.reset(question, session)
        change = self.admission.set_user if isinstance(question, q.SetUser) else self.admission.set_password
        return change(question, session)

    def _token(self, question: Any, session: Session) -> Answer:
        if isinstance(question, q.ListTokens):
            return accounts.list_tokens(self.core.state.access)
        change = self.admission.add_token if isinstance(question, q.AddToken) else self.admission.revoke_token
        return change(question, session)

    def _login(self, question: Any, session: Session) -> Reply:
        if isinstance(question, q.ListLogins):
            return accounts.list_logins(self.core.state.access, question.user, self.core.now())
        return self.logins.change(question, session)

    async def _secret(self, question: Any, session: Session) -> Reply:
        if isinstance(question, q.ListSecrets):
            return secrets.list_secrets(self.core.state)
        if isinstance(question, q.PutSecret):
            sealed = await self._sealed(question)
            question = o.PutSecret(question.name, sealed)
            self.admission.check_still(session)
        reply = self.core.submit(question, session.who).reply
        assert reply
        return reply

    async def _sealed(self, question: q.PutSecret) -> str:
        access, vault = self.core.state.access, self.core.state.access.vault
        if vault.why and not access.secrets:
            await trio.to_thread.run_sync(vault.make_key)
        try:
            return vault.seal(question.name, question.value.encode())
        except ValueError:
            raise Refusal("internal", vault.why) from None

    async def _audit(self, question: q.Audit, session: Session) -> Reply:
        """AUDIT: read backwards from the journal in a thread."""
        core = self.core
        upto = core.last_seq
        await core.settled(upto)
        past = history.deeds(self.data, upto + 1, question.since_at, self._index)
        rows = await trio.to_thread.run_sync(accounts.audit_rows, past, question, core.state.common.owner)
        return Reply("", {}, accounts.AUDIT_COLUMNS, rows, "rows")

    def _format(self, question: q.SetFormat, session: Session) -> Reply:
        session.is_session = True
        if session.outbox.before_put:
            session.outbox.before_put()  # what happened before is told in the form that was asked for then
        session.as_json, session.width = question.as_json, question.width
        return Reply("")

    def _quit(self, question: q.Alone, session: Session) -> Reply:
        session.closing = True
        return Reply("bye", {"bye": True})

    def _help(self, question: q.Help, session: Session) -> Reply:
        return manual.show(question)

    # --- the present ---

    def _list(self, question: q.ListTasks, session: Session) -> Reply:
        return listing.list_tasks(self.core.state, question, self.core.now())

    def _get(self, question: q.GetTask, session: Session) -> Reply:
        return views.get_task(self.core.state, question, self.core.now())

    def _next(self, question: q.ShowNext, session: Session) -> Reply:
        if question.by_hour:
            show = load.show_load
        else:
            show = overview.next_of_all if question.ref == "all" else views.show_next
        return show(self.core.state, question, self.core.now())

    def _health(self, question: q.AskHealth, session: Session) -> Reply:
        core = self.core
        now, contested = core.now(), core.rivals.contested()
        return overview.check_health(core.state, question, now, core.journal.full, contested)

    def _summary(self, question: q.Alone, session: Session) -> Reply:
        return overview.summarize(self.core.state, self.core.now())

    def _dependencies(self, question: q.ShowDependencies, session: Session) -> Reply:
        return views.show_dependencies(self.core.state, question, self.core.now())

    def _describe(self, question: q.DescribeSchedule, session: Session) -> Reply:
        return views.describe_schedule(self.core.state, question, self.core.now())

    def _workers(self, question: q.Alone, session: Session) -> Reply:
        links = self.core.links

        def seen(name: str) -> tuple[datetime | None, str]:
            return (links[name].last_seen_at, links[name].version) if name in links else (None, "")

        return views.list_workers(self.core.state, seen, self.core.rivals.is_contested)

    def _types(self, question: q.Alone, session: Session) -> Reply:
        return views.list_types(self.core.state)

    def _expects(self, question: q.Alone, session: Session) -> Reply:
        return expectations.show(self.core.state, self.core.now())

    def _status(self, question: q.Alone, session: Session) -> Answer:
        core, count = self.core, self.core.state.count_own()
        known = views.status_rows(core.state, core.now())
        rows = figures.status(core, self.doors, self.data, self.files.edited)
        reply = Reply(f"{count} tasks", {"tasks": count}, views.PAIR_COLUMNS, chain(known, rows))
        return self.node.tell_status(reply) if self.node else reply

    def _cluster(self, question: Any, session: Session) -> Answer:
        if self.node is None:
            raise Refusal("not-found", "this daemon is no node of a cluster; see --etcd")
        return self.node.answer(question, session, self.core)

    def _metrics(self, question: q.ShowMetrics, session: Session) -> Reply:
        core = self.core
        if self._tally is None:
            self._tally = metrics.Tally(core.state)
            core.state.tally = self._tally.see
        more = figures.families(core, self.doors, self.logs.count + len(self.hub.watchers))
        return metrics.show_metrics(core.state, question, self._tally, more, core.now())

    def _clock(self, question: q.Alone, session: Session) -> Reply:
        core = self.core
        rows = [("now", core.now()), ("zone", self.default_tz), ("zone-data", data_version())]
        rows += [("last-step-s", core.state.last_step_s), ("last-step-at", core.state.last_step_at)]
        rows += [(f"worker-{name}", link.clock_text()) for name, link in sorted(core.links.items())]
        return Reply("", {}, views.PAIR_COLUMNS, rows, "rows")

    # --- seeing ahead ---

    async def _dst(self, question: q.ShowClockChanges, session: Session) -> Reply:
        rows = views.clock_changes(self.core.state, question, self.core.now())
        return Reply("", {}, views.CHANGE_COLUMNS, await _in_turns(rows), "rows")

    async def _tzdiff(self, question: q.CompareZones, session: Session) -> Reply:
        state, now = self.core.state, self.core.now()
        names: set[str] = set()
        await _in_turns(views.zones_asked(state, question), names.add)
        others = await trio.to_thread.run_sync(read_zones, question.directory, names)
        rows = views.zone_differences(state, question, others, now)
        return Reply("", {}, views.DIFFERENCE_COLUMNS, await _in_turns(rows), "rows")

    # --- files ---

    async def _save(self, question: q.SaveTasks, session: Session) -> Reply:
        path = plain_file(self.data, question.file, ".db")
        return await self.files.save(path)

    async def _load(self, question: q.LoadFile, session: Session) -> Reply:
        path = plain_file(self.data, question.file, ".db")
        return await self.files.load(path, session.who)

    async def _backup(self, question: q.BackUp, session: Session) -> Reply:
        return await self.files.backup(plain_file(self.data, question.file, SUFFIX))

    # --- flows ---

    def _flow(self, question: Any, session: Session) -> Answer:
        state, now = self.core.state, self.core.now()
        match question:
            case q.ListFlows():
                return flows.list_flows(state)
            case q.ShowFlow():
                return flows.show_flow(state, question, now)
            case q.ListFlowRuns():
                return flows.list_flow_runs(state, question)
        return self._submit(question, session)

    # --- crontabs ---

    def _template(self, question: o.SetTemplate | q.Alone, session: Session) -> Answer:
        if isinstance(question, q.Alone):
            return views.list_templates(self.core.state)
        return self._submit(question, session)

    def _import(self, question: q.ImportLine, session: Session) -> Reply:
        if session.moving is None:
            session.moving = crontab_orders.Import()
        if session.rank < USER and not question.is_dry:
            raise self.admission.only_looks(session, question)
        own = partial(self.admission.own, session=session)
        reply: Reply = session.moving.take(self.core, question, session.who, own)
        return reply

    def _export(self, question: q.ExportTasks, session: Session) -> Reply:
        shows = self.admission.owns(session)
        return crontab_orders.export(self.core.state, question, self.core.now(), shows)

    # --- history ---

    def _history(self, question: q.ShowHistory, session: Session) -> Reply:
        return show_history(self.core.state, question)

    async def _roll_back(self, question: q.FindRevision, session: Session) -> Reply:
        views.find(self.core.state, question.ref)
        task_id, found = await in_turns(find_revision(self.core.state, question.ref, question.rev))
        record = found.record or {}
        await self.files.learn(parse_calendar_names(str(record.get("skip", ""))))
        answer = self._submit(o.RollBack(str(task_id), question.rev, record), session)
        return answer if isinstance(answer, Reply) else await answer

    def _runs(self, question: q.ListRuns, session: Session) -> Answer:
        state = self.core.state
        if (ref := question.ref) in RUN_STATES and state.find(ref) is None:
            raise Refusal("not-found", f'no task "{ref}"; did you mean state={ref}?')
        if not state.history_from_seq or (question.states and question.states.isdisjoint(ENDED)):
            return views.list_runs(state, question, (), self.core.now())
        return self._old_runs(question)

    async def _old_runs(self, question: q.ListRuns) -> Reply:
        """RUNS, when there is more than memory holds and the question wants it."""
        state, past, now = self.core.state, self._past(question), self.core.now()
        wanted = views.wanted_outcomes(question, state, now)
        older: list[Outcome] = []
        # Now, though what is older comes later.
        reply = views.list_runs(state, question, older, now, lambda: past.was_cut)
        if (run := question.run) is None:
            older += await past.older(wanted, question)
        elif run < state.next_run and 1 not in _attempts_known(state, run):
            older += await past.of_run(run, wanted)
        return reply

    def _past(self, about: q.ListRuns | None = None) -> Past:
        return Past(self.core, self.data, self._index, about)

    async def _stats(self, question: q.ShowStats, session: Session) -> Reply:
        """STATS: from the rows of RUNS, in memory and in the journal, read and counted in a thread."""
        state = self.core.state
        rows = q.ListRuns(question.ref, frozenset(), question.since_at, question.until_at, None, 0)
        found = stats.Stats(question.by, frozenset(state.runs))
        await self._past(rows).each(views.wanted_outcomes(rows, state, self.core.now()), found.see)
        periods = list(found.rows())
        since = format_time(found.since_at) if found.since_at else "-"
        values = {"rows": len(periods), "since": found.since_at}
        return Reply(f"{len(periods)} since={since}", values, stats.COLUMNS, periods)

    def _failed(self, question: q.ListFailed, session: Session) -> Reply:
        return views.list_failed(self.core.state, question)

    def _prove(self, question: q.ProveLedger, session: Session) -> Reply:
        return views.prove(self.core.state, question)

    async def _why(self, question: q.AskWhy, session: Session) -> Reply:
        """WHY: what is known of a moment, wherever it stands; or what the task's definition says of it."""
        state, now = self.core.state, self.core.now()
        task = state.find(question.ref)
        wanted = partial(views.wanted_outcomes, views.all_runs(question.ref), state, now)
        zone = task.spec.schedule.tz if task else self.default_tz
        at = parse_moment(question.time, zone, now, past=True) if question.time else None
        if at is None:
            at = await self._newest_moment(question.ref, wanted())
        # Copies: what ends while the journal is read is told as it was when this was asked.
        its = (run and (copy(run) if run.due_at == at else None) for run in why.runs_of(state, question.ref))
        active = await _in_turns(its)
        past, runs = self._past(views.all_runs(question.ref)), [run for run in active if run.id in state.runs]
        outcomes = await past.newest(why.concerns(at, wanted())) if at else []
        found = why.Found(runs, outcomes[::-1])
        if at is None or not (found.runs or found.outcomes):
            task = views.find(state, question.ref)
            if at is None:
                return _why_reply(why.explain_never(state, task), "not-due")
            return _why_reply(*why.explain_unknown(state, task, at, now))
        blamed = why.blamed_runs(found.outcomes)
        others = [row for run in blamed for row in state.outcomes.get(run, [])]
        other = why.Found([state.runs[run] for run in blamed if run in state.runs], others)
        remarks = await self._remarks(found)
        rows, disposition = why.explain_found(state, task, at, found, remarks, other)
        if task and not (question.time or task.runs):
            rows += why.tell_waiting(state, task)  # what comes next
        return _why_reply(rows, disposition)

    async def _newest_moment(self, ref: str, wanted: Callable[[Outcome], bool]) -> datetime | None:
        """The moment that WHY without a time is about: of the run under way, or else of the last one."""
        for run in why.runs_of(self.core.state, ref):
            if run:
                return run.due_at
            await trio.lowlevel.checkpoint()
        newest = await self._past(views.all_runs(ref)).newest(wanted, 1)
        return newest[0].due_at if newest else None

    async def _remarks(self, found: why.Found) -> list[str]:
        """The daemon's own lines in the LOG of these runs."""
        runs = {row.run for row in found.outcomes if row.run} | {run.id for run in found.runs}
        upto = self.core.last_seq
        asked = q.ShowLog(0, follow=False)
        lines = [line for run in sorted(runs) for line in await self._lines(asked, run, upto)]
        return [in_words(line[1]) for line in lines if line[0] == 0]

    def _log(self, question: q.ShowLog, session: Session) -> Answer:
        state = self.core.state
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
        ref, state = asked.ref, self.core.state
        runs: list[int] = []
        await _in_turns(why.runs_of(state, ref), lambda run: runs.append(run.id))
        found = dict.fromkeys(sorted(runs, reverse=True))
        wanted = views.wanted_outcomes(views.all_runs(ref), state, self.core.now())

        def is_next(outcome: Outcome) -> bool:
            if outcome.run is None or outcome.run in found or not wanted(outcome):
                return False
            found[outcome.run] = None
            return True

        if (more := asked.back + 1 - len(found)) > 0:
            await self._past(views.all_runs(ref)).newest(is_next, more)
        if asked.back >= len(found):
            if not found:
                views.find(state, ref)
            known = f"no run so far back is known, but {len(found)}" if found else "it has not run yet"
            raise Refusal("not-found", f"{escape(ref[:80])}: {known}")
        run = list(found)[asked.back]
        if asked.follow and run in state.runs:
            return await self._follow(asked, run, session)
        return await self._past_log(asked, run, session)

    async def _past_log(self, asked: q.ShowLog, run: int, session: Session) -> Reply:
        columns = 4 if session.as_json else 3
        state, rows = self.core.state, self.core.state.outcomes.get(run)
        lines = await self._lines(asked, run, self.core.last_seq)
        is_all_shown = run in state.runs or (rows and state.keep_of(rows[0].task_id) == KEEP)
        if lines and not is_all_shown and not await self._past().keeps_output(run):
            lines = []
        shown = (output.row_of(worded(line))[:columns] for line in lines)
        return Reply("", {}, output.COLUMNS[:columns], shown, "rows")

    async def _lines(self, asked: q.ShowLog, run: int, upto: int) -> list[output.Line]:
        """A run's output as of now: from memory if it is whole there, else from the journal up to `upto`."""
        active, known = self.core.state.runs.get(run), self.core.state.outputs.get(run)
        found, lacking = list[output.Line](), Counter[str]()
        if known is not None and known.whole:
            found = known.lines
        elif active is None or active.has_output:
            await self.core.settled(upto)  # files hold what is committed
            found = await trio.to_thread.run_sync(history.output, self.data, run, upto, self._index, lacking)
        return [*_tail(found, asked), *history.remarks(lacking)]

    async def _follow(self, asked: q.ShowLog, run: int, session: Session) -> Reply:
        """LOG … follow: what there is, then every line as it comes, then the status line."""
        # It may have ended since this was asked: an answer that is awaited has its turn a little later.
        if run not in self.core.state.runs:
            return await self._past_log(asked, run, session)
        self._have_place()
        feed = self.logs.follow(session, run, asked.fd)
        session.data.append(feed)
        session.is_live = True  # and no session: a script that waits for a job gets its prompt back
        try:
            upto = self.core.last_seq
            await feed.past(await self._lines(asked, run, upto), upto)
            await feed.ended.wait()
        finally:
            session.is_live = False
            session.data.remove(feed)
            feed.leave()
        return Reply(str(feed.count), {"rows": feed.count})

    def _watch(self, question: q.Watch, session: Session) -> Answer:
        task_id = None if question.ref is None else views.find(self.core.state, question.ref).id
        self._have_place()
        watcher = self.hub.watch(session, question.kinds, task_id, waits=question.since is not None)
        session.data.append(watcher)
        session.is_session = session.is_live = True
        reply = Reply("watching", {"watching": True, "seq": self.core.last_seq})
        return self._watch_on(watcher, question.since, reply) if question.since else reply

    async def _watch_on(self, watcher: Watcher, since: q.Since, reply: Reply) -> Reply:
        await self.hub.go_on(watcher, since, self.data)
        return reply

    def _have_place(self) -> None:
        """Refuses one more that watches."""
        if self.logs.count + len(self.hub.watchers) >= MAX_FEEDS:
            raise Refusal("too-many", f"{MAX_FEEDS} connections are watching already")


def _attempts_known(state: State, run: int) -> Iterator[int | None]:
    """Those of a run that memory holds."""
    yield from (row.attempt for row in state.outcomes.get(run, ()))
    if run in state.runs:
        yield state.runs[run].attempt


def _why_reply(rows: Iterable[why.Row], disposition: str) -> Reply:
    return Reply(disposition, {"disposition": disposition}, ("time", "what"), rows)


_IN_ONE_DECISION = {"", "flow", "template", "roll_back", "token"}  # what answers them; "" are orders
_SLOW = {o.AddTask, o.SetTask, o.ClearTasks, o.UndoChanges}  # they may be, by what they say


def _calendars_of(order: Any) -> tuple[str, ...]:
    """The calendars that an order names for a task."""
    if isinstance(order, o.AddTask):
        return order.spec.options.skip
    return parse_calendar_names(order.words.get("skip", "")) if isinstance(order, o.SetTask) else ()


def _tail(lines: Sequence[output.Line], asked: q.ShowLog) -> Sequence[output.Line]:
    """Those of LOG's fd= and tail=."""
    wanted = lines if asked.fd is None else [line for line in lines if line[0] == asked.fd]
    return wanted if asked.tail is None else wanted[max(0, len(wanted) - asked.tail) :]


_ASK_LESS = "name a task, or an earlier until="


async def _in_turns(items: Iterable[T | None], take: Callable[[T], object] | None = None) -> list[T]:
    """All that is there, found in slices with everybody else's turns in between; None is nothing."""
    found: list[T] = []
    began = perf_counter()
    until = began + SLICE_S
    await trio.lowlevel.checkpoint()
    for item in items:
        if item is not None:
            (take or found.append)(item)
        if len(found) > MAX_ROWS_AHEAD:
            raise Refusal("limit", f"more than {MAX_ROWS_AHEAD} rows; {_ASK_LESS}")
        if perf_counter() > until:
            await trio.lowlevel.checkpoint()
            until = perf_counter() + SLICE_S
        if until > began + MAX_AHEAD_S:
            raise Refusal("limit", f"it takes longer than {MAX_AHEAD_S:g} s; {_ASK_LESS}")
    return found
