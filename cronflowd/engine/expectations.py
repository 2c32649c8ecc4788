"""Orders about expectations: EXPECT, BEAT, FORGET, and what follows when no beat comes.

A dead man's switch: the other side has to speak up from time to time, and it is its silence
that is told (notices.py). The rules of engine.py hold here: look and never touch; refuse
before any fact exists. When a beat is due is decided here, and written into the fact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from ..base.errors import Refusal, naming, naming_option
from ..base.names import check_name, id_of_name
from ..base.replies import NOTE_COLUMNS, Reply, Row
from ..base.text import CONTROL, escape, format_time
from ..base.walks import in_slices
from ..schedules.english import parse_moment
from ..schedules.schedule import Schedule, parse_schedule
from ..schedules.zones import format_duration, parse_duration
from ..tasks.targets import OF_A_BEAT, parse_notify
from . import facts as f
from . import orders as o
from .beats import FORM, interval_s
from .notices import notify_notes
from .rules import Decision, Limits, Rule, Rules, check_limit
from .state import State

MAX_EXPECTATIONS = 10_000
MAX_DESC_BYTES = 1024
AT_ONCE = 50  # whose moments are found anew in one decision
MIN_INTERVAL_S = 1.0
COLUMNS = ("name", "state", "last", "due", "every", "grace", "text", "notify", "desc", "start")
NOBODY = ("note", "nobody is told: give notify=, or start the daemon with --notify")


def next_step(state: State, now: datetime) -> o.MissBeat | None:
    """What is late by now, as the next order."""
    late = state.beats.late.next_due(now)
    return o.MissBeat(late) if late is not None and not state.is_all_paused(now) else None


def next_due(state: State) -> datetime | None:
    """When something is late if nobody beats; PAUSE all without an end keeps everything back."""
    late = state.beats.late.first()
    is_waiting = late and not (state.paused_all and state.paused_until_at is None)
    return late[0] if late and is_waiting else None


# --- orders -------------------------------------------------------------------------------------


def _expect(state: State, order: o.SetExpectation, now: datetime, limits: Limits) -> Decision:
    """EXPECT: a new one, or another form of one that is there; the same form again changes nothing.

    Whoever says it is told if nobody would hear of it.
    """
    decision = _set(state, order, now)
    fact = decision.facts[0] if decision.facts else state.beats.expected[order.name]
    assert isinstance(fact, f.ExpectationSet)
    # `none` is on purpose.
    is_heard = fact.notify or any(target.events & OF_A_BEAT for target in limits.notify)
    rows = notify_notes(state, parse_notify(fact.notify)) if order.words.get("notify") else []
    decision.told.columns, decision.told.rows = NOTE_COLUMNS, rows if is_heard else [NOBODY]
    return decision


def _set(state: State, order: o.SetExpectation, now: datetime) -> Decision:
    old, words = state.beats.expected.get(order.name), dict(order.words)
    if old is None:
        _check_new(state, order.name)
    form = _form(state, old, words, now)
    if old and form == f.named(old, form):
        return Decision([], _reply(order.name, old.due_at))
    fact = f.ExpectationSet(order.name, **form, state=old.state if old else "new", due_at=None)
    beaten_at, set_at = (old.beaten_at, old.set_at) if old else (None, now)
    fact.due_at = due_after(fact, beaten_at, set_at, state.default_tz)
    if old and fact.state == "late":
        # What was late stays so, unless it would not have been with the new form.
        if fact.due_at is None or fact.due_at <= now:
            fact.due_at = None
        else:
            fact.state = "ok" if old.beaten_at else "new"
    return Decision([fact], _reply(order.name, fact.due_at))


def _check_new(state: State, name: str) -> None:
    check_name(name)
    if name.upper() in ("OK", "ERR", "PONG"):
        # EXPECTS begins its rows with the name, and no row may look like a status line.
        raise Refusal("bad-option", f'the name "{name}" would be taken for a status line')
    if name in state.names:
        raise Refusal("exists", f'a task is named "{name}" (id {state.names[name]})')
    if id_of_name(name):
        raise Refusal("exists", f'the name "{name}" belongs to the task with id {id_of_name(name)} alone')
    check_limit(state.beats.expected, MAX_EXPECTATIONS, "expectations")


def _form(
    state: State, old: f.ExpectationCarried | None, words: dict[str, str], now: datetime
) -> dict[str, Any]:
    """The words given over what it was; an empty one means the default."""
    form: dict[str, Any] = f.named(old, _DEFAULTS) if old else dict(_DEFAULTS)
    for key, text in words.items():
        if match := CONTROL.search(text):
            raise Refusal("bad-option", f"{key}= holds the control character {escape(match[0])}", key)
        with naming_option(key):
            if key == "grace":
                form["grace_s"] = parse_duration(text) if text else _DEFAULTS["grace_s"]
            elif key == "start":
                form["start_at"] = parse_moment(text, state.default_tz, now) if text else None
            elif key == "notify":
                form["notify"] = parse_notify(text).text if text else ""
            else:
                form[key] = _bounded(text) if key == "desc" else text
    _check_every(form["every"], state.default_tz)
    return form


_DEFAULTS: dict[str, Any] = {"every": "", "grace_s": 3600.0, "notify": "", "desc": "", "start_at": None}


def _bounded(text: str) -> str:
    if len(text.encode()) > MAX_DESC_BYTES:
        raise Refusal("bad-option", f"it is longer than {MAX_DESC_BYTES} bytes")
    return text


def _check_every(every: str, tz: str) -> None:
    if not every:
        raise Refusal("bad-option", "every= is wanted: a time such as 1d, or a schedule in quotes", "every")
    seconds = interval_s(every)
    if seconds is not None and seconds < MIN_INTERVAL_S:
        raise Refusal("bad-option", f"every=: less than {MIN_INTERVAL_S:g} s", "every")
    if seconds is None and _schedule(every, tz).kind not in ("cron", "every"):
        raise Refusal("bad-option", f'every=: "{escape(every[:80])}" does not come again and again', "every")


def _schedule(every: str, tz: str) -> Schedule:
    with naming("every=: neither a time such as 1d nor a schedule", "bad-option", "every"):
        return parse_schedule(every, tz)


def due_after(
    each: f.ExpectationSet, beaten_at: datetime | None, set_at: datetime, tz: str
) -> datetime | None:
    """Until when a beat must have come, counted from the last one; None if none will be due again.

    Clocks differ, and a job may be done early: a beat at most the grace before a moment of the schedule
    is the one for it, if it is no nearer to the moment before.
    """
    since_at = max(at for at in (beaten_at or set_at, each.start_at) if at)
    every, grace = each.every, timedelta(seconds=each.grace_s)
    try:
        if (seconds := interval_s(every)) is not None:
            return since_at + timedelta(seconds=seconds) + grace
        schedule, anchor_at = _schedule(every, tz), set_at.replace(microsecond=0)
        following = schedule.next_after(since_at, anchor_at)
        if following and since_at == beaten_at and (ahead := following - since_at) <= grace:
            is_early = schedule.next_after(since_at - ahead, anchor_at) == following
            following = schedule.next_after(following, anchor_at) if is_early else following
        return following and following + grace
    except OverflowError:  # beyond the year 9999
        return None


def _reply(name: str, due_at: datetime | None) -> Reply:
    return Reply(f"{name} due={format_time(due_at) if due_at else '-'}", {"name": name, "due": due_at})


def _beat(state: State, order: o.ReceiveBeat, now: datetime, limits: Limits) -> Decision:
    """BEAT: from here on the next one is waited for."""
    expected = _find(state, order.name)
    due_at = due_after(expected, now, expected.set_at, state.default_tz)
    word = "ok" if order.is_ok else "failed"
    return Decision([f.BeatReceived(expected.name, word, order.text, due_at)], _reply(expected.name, due_at))


def _miss(state: State, order: o.MissBeat, now: datetime, limits: Limits) -> Decision:
    """It is late."""
    expected = state.beats.expected[order.name]
    assert expected.due_at is not None
    return Decision([f.BeatMissed(expected.name, expected.due_at)])


def _forget(state: State, order: o.ForgetExpectation, now: datetime, limits: Limits) -> Decision:
    expected = _find(state, order.name)
    reply = Reply(f"{expected.name} forgotten", {"name": expected.name, "forgotten": True})
    return Decision([f.ExpectationForgotten(expected.name)], reply)


def _find(state: State, name: str) -> f.ExpectationCarried:
    if (expected := state.beats.expected.get(name)) is None:
        raise Refusal("not-found", f'nothing named "{escape(name[:80])}" is expected; EXPECT says what is')
    return expected


def rescheduled(state: State, now: datetime, names: Iterable[str] | None = None) -> Iterator[f.Fact]:
    """With other zone data, what a schedule says comes at another moment."""
    expected = state.beats.expected
    for each in expected.values() if names is None else filter(None, map(expected.get, names)):
        if each.due_at is None or each.due_at <= now or interval_s(each.every) is not None:
            continue
        due_at = due_after(each, each.beaten_at, each.set_at, state.default_tz)
        if due_at != each.due_at:
            yield f.ExpectationSet(**f.named(each, FORM) | {"due_at": due_at})


# --- looking ------------------------------------------------------------------------------------


def show(state: State, question: object, now: datetime) -> Reply:
    """EXPECTS: in order of names."""
    is_paused = state.is_all_paused(now)

    def rows() -> Iterator[Row | None]:
        for each in in_slices(sorted(state.beats.expected.values(), key=attrgetter("name"))):
            yield None if each is None else (
                each.name, "paused" if is_paused else each.state, each.beaten_at, state.beats.late_at(each),
                each.every, format_duration(each.grace_s), each.text or None, each.notify or None,
                each.desc or None, each.start_at,
            )  # fmt: skip

    return Reply.counted(COLUMNS, rows())


EXPECT: Rules = {
    o.RescheduleBeats: Rule(
        lambda state, order, now, limits: Decision(list(rescheduled(state, now, order.names)))
    ),
    o.SetExpectation: Rule(_expect, "EXPECT", is_exclusive=True),
    o.ReceiveBeat: Rule(_beat),
    o.MissBeat: Rule(_miss),
    o.ForgetExpectation: Rule(_forget, "FORGET"),
}
