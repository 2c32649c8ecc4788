"""What a line on the control port leads to: an order for the core, or an answer from here.

Orders go straight to `Core.submit`. The rest are questions, and the verbs that concern
one connection, or files. Whatever must read or write a file returns a coroutine, for
which that connection waits and nobody else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import trio
from msgspec.structs import replace

from .. import __version__
from ..ask import (
    accounts,
    commands,
    flows,
    grammar,
    manual,
    metrics,
    overview,
    views,
)
from ..ask import questions as q
from ..ask.revisions import find_revision
from ..base.errors import Refusal
from ..base.proofs import key_of
from ..base.replies import PAIR_COLUMNS, Reply, format_status
from ..engine import orders as o
from ..engine.access import ADMIN, USER
from ..engine.definitions import find_task
from ..engine.many import MAY_BE_LARGE
from ..engine.once import Asked
from ..host.disk import plain_file
from ..host.threads import call_in_thread
from ..journal import history
from ..journal.backup import SUFFIX
from ..net.clients import Session
from ..net.listeners import Door
from ..net.outbox import Gate
from ..schedules.calendars import parse_calendar_names
from ..schedules.zones import data_version, read_zones
from ..tasks import slips
from . import crontab_orders, figures
from .cluster import Node
from .core import Core
from .feeds import Watcher, WatchHub
from .files import Files
from .hindsight import Answer, Hindsight
from .logins import Logins
from .turns import gather, in_turns

log = logging.getLogger("cronflowd.answers")

FROM_MEMORY = frozenset("STATUS LIST GET RUNS LOG NEXT WHY PROVE WORKERS HISTORY".split())  # after LOCAL
MAX_FEEDS = 1000
MAX_EMITTED = 500  # events for which tasks have yet to fire, before the next one waits
LOOK_S, LONGEST_WAIT_S = 0.01, 10.0  # whether they have
MAX_WATCHES = 16  # of one connection: each has a call for every reply, and a place that others may want

T = TypeVar("T")


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
        self.look, self.end_batch, self.too_fast = core.look, core.end_batch, core.admission.too_fast
        self.allows_unfinished = commands.only_reads
        self.data = data
        self.default_tz = core.state.default_tz
        self._context = grammar.Context(core.now(), self.default_tz, core.state.templates)  # of the last line
        self.files = Files(core, data)
        self.hub = WatchHub(core)
        self.past = Hindsight(core, data, self._have_place)
        self.doors: list[Door] = []
        self._tally: metrics.Tally | None = None  # from the first METRICS on
        self.admission = core.admission
        # Who answers by itself, as the methods below do.
        self._authenticate, self._act_as = core.admission.authenticate, core.admission.act_as
        self._runs, self._stats = self.past.runs, self.past.statistics
        self._why, self._log = self.past.explain, self.past.log
        self.node: Node | None = None  # where it is one of several
        self.logins = Logins(core.admission)
        self._emits_next = trio.Lock()  # of those whose event waits
        self._makes_key = trio.Lock()  # of those who put a first secret

    @property
    def gate(self) -> Gate:
        return self.core.gate

    @property
    def last_seq(self) -> int:
        return self.core.last_seq

    def enter(self, session: Session) -> None:
        """A connection begins."""
        self.admission.enter(session)
        session.data = []  # the feeds it has subscribed to

    def leave(self, session: Session) -> None:
        """It ends, and watches nothing any more."""
        self.admission.leave(session)
        for feed in session.data:
            feed.leave()
        session.data, session.outbox.before_put = [], None

    def handle(self, line: str, session: Session, now: datetime) -> Answer:
        """What one line leads to; raises Refusal."""
        try:
            verb, rest = commands.find_verb(line)
        except Refusal:
            session.is_script |= not session.is_session  # or whatever else is not meant for us
            raise
        if session.must_authenticate and session.is_locked and not verb.anybody:
            raise Refusal("auth-required", "AUTH TOKEN comes first here")
        if session.known.rank < ADMIN or session.known.until_at or verb.gateway is not None:
            self.admission.check(verb, rest, session)
        if session.refused or session.is_script:
            commands.check_meant(line, session.refused, session.is_script)
        session.verb, session.head_width = verb, None
        # A line of a crontab, behind IMPORT, may hold HEAD= itself.
        if "=" in rest and (verb.reads or (verb.looks and verb.name != "IMPORT" and verb.only_reads(rest))):
            session.head_width, rest = grammar.take_head(rest)
        if now is not self._context.now:
            self._context = grammar.Context(now, self.default_tz, self.core.state.templates)
        question = verb.parse(rest, self._context)
        if verb.about_days:
            self.files.look_at_calendars()
        if verb.always:
            return verb.always
        if verb.answer:
            find: Callable[[Any, Session], Answer] = (
                getattr(self, f"_{verb.answer}") if isinstance(verb.answer, str) else self._look
            )
            is_of_memory = session.is_local and verb.name in FROM_MEMORY
            return self._find_as_of(find, question, session) if is_of_memory else find(question, session)
        if type(question) not in _SLOW or (type(question) is o.AddTask and not question.spec.options.skip):
            return self._submit(question, session, now)
        if calendars := _calendars_of(question):
            return self._learn_first(calendars, question, session)
        return self._submit(question, session, now)

    def _look(self, question: Any, session: Session) -> Reply:
        view: Any = session.verb.answer
        reply: Reply = view(self.core.state, question, self.core.now())
        return reply

    def _find_as_of(self, find: Callable[[Any, Session], Answer], question: Any, session: Session) -> Answer:
        """After LOCAL: with how old it may be, and how many records this node lacks."""
        with self._as_of() as as_of:
            answer = find(question, session)
        if not isinstance(answer, Reply):
            return self._wait_as_of(answer)
        answer.as_of = as_of
        return answer

    async def _wait_as_of(self, answer: Coroutine[Any, Any, Reply]) -> Reply:
        with self._as_of() as as_of:
            reply = await answer
        reply.as_of = as_of
        return reply

    @contextmanager
    def _as_of(self) -> Iterator[dict[str, float]]:
        """That nothing is known of it may be as old."""
        assert self.node
        as_of: dict[str, float] = {}
        try:
            yield as_of
        except Refusal as refusal:
            refusal.as_of = as_of
            raise
        finally:
            as_of["stale"], as_of["behind"] = self.node.lag(self.core)

    def _submit(self, question: Any, session: Session, now: datetime | None = None) -> Answer:
        if session.known.rank < USER:
            raise self.admission.only_looks(session, question)
        if type(question) in MAY_BE_LARGE and self.files.large.is_large(question):
            return self._change_many(question, session)
        if session.known.account:
            question = self.admission.own(question, session)
        reply = self.core.submit(question, session.who, now, session.once).reply
        assert reply is not None
        if question.__class__ is o.AddTask:
            spec = question.spec
            command, schedule = spec.command, spec.schedule.text
            # Most have nothing that is doubtful, and many are added at a time.
            is_short = not schedule[slips.SHORT :] or schedule.count(" ") < slips.SIX_FIELDS
            if is_short and slips.DOUBTFUL.search(command) is None:
                return reply
            notes = [("note", text) for text in slips.remarks(spec.options.type, command, schedule)]
            return replace(reply, columns=("note", "text"), rows=[*reply.rows, *notes]) if notes else reply
        return reply

    def _emit(self, question: o.EmitEvent, session: Session) -> Answer:
        is_late = len(self.core.state.emitted) > MAX_EMITTED or self._emits_next.locked()
        return self._emit_later(question, session) if is_late else self._submit(question, session)

    async def _emit_later(self, order: o.EmitEvent, session: Session) -> Reply:
        """Its turn comes when tasks have fired for most of the events before: each is kept until then."""
        with trio.move_on_after(LONGEST_WAIT_S):  # a full disk lets none fire
            async with self._emits_next:  # very many may wait: one of them looks
                while len(self.core.state.emitted) > MAX_EMITTED:  # noqa: ASYNC110 - a fire tells nobody of itself
                    await trio.sleep(LOOK_S)
        answer = self._submit(order, session)
        return answer if isinstance(answer, Reply) else await answer

    async def _change_many(self, order: Any, session: Session) -> Reply:
        """What very many tasks become; whose they are is looked at when nobody can change that."""
        own = self.admission.owned(order, session) if session.known.account else None
        check = partial(self.admission.check_still, session)
        return await self.files.large.change(order, session.who, session.once, own, check)

    async def _learn_first(self, calendars: tuple[str, ...], question: Any, session: Session) -> Reply:
        """An order that names calendars: they are read anew, and refused if they are none."""
        await self.files.learn(calendars)
        answer = self._submit(question, session)
        return answer if isinstance(answer, Reply) else await answer

    def _once(self, question: q.Once, session: Session) -> Answer:
        verb, rest = commands.find_verb(question.line)
        if session.known.rank < ADMIN or session.known.until_at:
            self.admission.check(verb, rest, session)
        now = self._context.now
        asked = Asked(
            session.known.account, question.key, key_of(self._once_known_by(question, verb, rest)).hex()
        )
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

    def _once_known_by(self, question: q.Once, verb: commands.Verb, rest: str) -> bytes:
        """What a line is known by, which is kept: without passwords and secrets, which can be guessed."""
        if not (verb.always or verb.only_reads(rest)):
            if verb.answer in _IN_ONE_DECISION:
                return question.line.encode()
            if verb.answer in ("user", "secret"):
                meant = verb.parse(rest, self._context)
                if isinstance(meant, q.SetUser | q.PutSecret):
                    return repr(meant).encode()
        raise Refusal("syntax", f"ONCE is for what changes tasks or tokens in one decision, not {verb.name}")

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
        if isinstance(question, q.Alone):
            return accounts.list_tokens(self.core.state.access)
        change = self.admission.add_token if isinstance(question, o.AddToken) else self.admission.revoke_token
        return change(question, session)

    def _login(self, question: Any, session: Session) -> Reply:
        if isinstance(question, q.ListLogins):
            return accounts.list_logins(self.core.state.access, question.user, self.core.now())
        return self.logins.change(question, session)

    async def _secret(self, question: Any, session: Session) -> Reply:
        if isinstance(question, q.Alone):
            return accounts.list_secrets(self.core.state)
        if isinstance(question, q.PutSecret):
            sealed = await self._sealed(question)
            question = o.PutSecret(question.name, sealed)
            self.admission.check_still(session)
        return self.core.submit(question, session.who, once=session.once).told

    async def _sealed(self, question: q.PutSecret) -> str:
        access, vault = self.core.state.access, self.core.state.access.vault
        async with self._makes_key:
            if vault.why and not access.secrets:
                await call_in_thread(vault.make_key)
        try:
            return vault.seal(question.name, question.value.encode())
        except ValueError:
            raise Refusal("internal", vault.why) from None

    async def _audit(self, question: q.Audit, session: Session) -> Reply:
        """AUDIT: read backwards from the journal in a thread."""
        core = self.core
        upto = core.last_seq
        await core.settled(upto)
        past = history.deeds(self.data, upto + 1, question.since_at, self.past.index)
        rows = await call_in_thread(accounts.audit_rows, past, question, core.state.common.owner)
        return Reply.counted(accounts.AUDIT_COLUMNS, rows)

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

    def _health(self, question: q.AskHealth, session: Session) -> Reply:
        core = self.core
        now, contested = core.now(), core.rivals.contested()
        return overview.check_health(core.state, question, now, core.journal.full, contested)

    def _workers(self, question: q.Alone, session: Session) -> Reply:
        links = self.core.links

        def seen(name: str) -> tuple[datetime | None, str]:
            return (links[name].last_seen_at, links[name].version) if name in links else (None, "")

        return views.list_workers(self.core.state, seen, self.core.rivals.is_contested)

    def _status(self, question: q.Alone, session: Session) -> Answer:
        core, count = self.core, self.core.state.count_own()
        known = views.status_rows(core.state, core.now())
        rows = figures.status(core, self.doors, self.data, self.files.may_be_edited)
        reply = Reply(f"{count} tasks", {"tasks": count}, PAIR_COLUMNS, chain(known, rows))
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
        more = figures.families(core, self.doors, self.past.logs.count + len(self.hub.watchers))
        return metrics.show_metrics(core.state, question, self._tally, more, core.now())

    def _clock(self, question: q.Alone, session: Session) -> Reply:
        core = self.core
        rows = [("now", core.now()), ("zone", self.default_tz), ("zone-data", data_version())]
        rows += [("last-step-s", core.state.last_step_s), ("last-step-at", core.state.last_step_at)]
        rows += [(f"worker-{name}", link.clock_text()) for name, link in sorted(core.links.items())]
        return Reply.counted(PAIR_COLUMNS, rows)

    # --- seeing ahead ---

    async def _dst(self, question: q.ShowClockChanges, session: Session) -> Reply:
        rows = views.clock_changes(self.core.state, question, self.core.now())
        return Reply.counted(views.CHANGE_COLUMNS, await gather(rows))

    async def _tzdiff(self, question: q.CompareZones, session: Session) -> Reply:
        state, now = self.core.state, self.core.now()
        names: set[str] = set()
        await gather(views.zones_asked(state, question), names.add)
        others = await call_in_thread(read_zones, question.directory, names)
        rows = views.zone_differences(state, question, others, now)
        return Reply.counted(views.DIFFERENCE_COLUMNS, await gather(rows))

    # --- files ---

    async def _save(self, question: q.SaveTasks, session: Session) -> Reply:
        return await self.files.save(plain_file(self.data, question.file, ".db"))

    async def _load(self, question: q.LoadFile, session: Session) -> Reply:
        check = partial(self.admission.check_still, session)
        return await self.files.load(plain_file(self.data, question.file, ".db"), session.who, check)

    async def _backup(self, question: q.BackUp, session: Session) -> Reply:
        return await self.files.backup(plain_file(self.data, question.file, SUFFIX))

    # --- flows ---

    def _flow(self, question: Any, session: Session) -> Answer:
        state, now = self.core.state, self.core.now()
        match question:
            case q.Alone():
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

    def _import(self, question: q.ImportLine, session: Session) -> Answer:
        if session.moving is None:
            session.moving = crontab_orders.Import()
        if session.known.rank < USER and not question.is_dry:
            raise self.admission.only_looks(session, question)
        own = partial(self.admission.own, session=session)
        steps = session.moving.take(self.core, question, session.who, own)
        try:
            next(steps)
        except StopIteration as done:
            reply: Reply = done.value
            return reply
        return in_turns(steps)

    def _export(self, question: q.ExportTasks, session: Session) -> Reply:
        shows = self.admission.owns(session)
        return crontab_orders.export(self.core.state, question, self.core.now(), shows)

    # --- history ---

    async def _roll_back(self, question: q.FindRevision, session: Session) -> Reply:
        find_task(self.core.state, question.ref)
        task_id, found = await in_turns(find_revision(self.core.state, question.ref, question.rev))
        record = found.record or {}
        await self.files.learn(parse_calendar_names(str(record.get("skip", ""))))
        answer = self._submit(o.RollBack(str(task_id), question.rev, record), session)
        return answer if isinstance(answer, Reply) else await answer

    def _watch(self, question: q.Watch, session: Session) -> Answer:
        task_id = None if question.ref is None else find_task(self.core.state, question.ref).id
        self._have_place()
        if len(session.data) >= MAX_WATCHES:
            raise Refusal("too-many", f"this connection watches {MAX_WATCHES} times already")
        watcher = self.hub.watch(session, question.kinds, task_id, waits=question.since is not None)
        session.data.append(watcher)
        reply = Reply("watching", {"watching": True, "seq": self.core.last_seq})
        if question.since:
            return self._watch_on(watcher, question.since, reply, session)
        session.is_session = session.is_live = True
        return reply

    async def _watch_on(self, watcher: Watcher, since: q.Since, reply: Reply, session: Session) -> Reply:
        try:
            await self.hub.go_on(watcher, since, self.data)
        except Exception:  # which is answered; for a watch that is none no event is kept, and nobody stays
            session.data.remove(watcher)
            watcher.leave()
            raise
        session.is_session = session.is_live = True
        return reply

    def _have_place(self) -> None:
        """Refuses one more that watches."""
        if self.past.logs.count + len(self.hub.watchers) >= MAX_FEEDS:
            raise Refusal("too-many", f"{MAX_FEEDS} connections are watching already")


_IN_ONE_DECISION = {"", "emit", "flow", "template", "roll_back", "token"}  # what answers them; "" are orders
_SLOW = {o.AddTask, o.SetTask, o.ClearTasks, o.UndoChanges}  # they may be, by what they say


def _calendars_of(order: Any) -> tuple[str, ...]:
    """The calendars that an order names for a task."""
    if isinstance(order, o.AddTask):
        return order.spec.options.skip
    return parse_calendar_names(order.words.get("skip", "")) if isinstance(order, o.SetTask) else ()
