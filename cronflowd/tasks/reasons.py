"""Why something came as it did: a code with its fields, which facts carry, and the words for it.

Facts, tables and decisions hold reasons as they are; nobody looks into their words, so that
these may become better, and a journal of long ago means what it meant. `in_words` is the only
place that makes English of one. To add a reason: a row in `_WORDS`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..base.text import escape
from ..schedules.zones import format_duration

MAX_TEXT = 200  # characters of each text in a reason that is kept, or passed on

# {"code": "overlap", "run": 41, "state": "sent"}. A text is a sentence of before there were
# codes, or what somebody outside said; an empty one is no reason at all.
Reason = dict[str, Any] | str


def reason(code: str, **fields: Any) -> Reason:
    """One reason; fields that are None are left out."""
    assert code in _WORDS, code
    return {"code": code} | {name: value for name, value in fields.items() if value is not None}


def code_of(why: Reason | None) -> str:
    """Its code; `text` for a sentence, and nothing for nothing."""
    return str(why.get("code", "")) if isinstance(why, dict) else "text" if why else ""


def in_words(why: Reason | None) -> str:
    """A reason for people; one that a later release knows is told by its code and fields."""
    if not isinstance(why, dict):
        return why or ""
    try:
        form = _WORDS[why["code"]]
        return form.format_map(why) if isinstance(form, str) else form(why)
    except (KeyError, TypeError, ValueError):
        return escape(
            " ".join(f"{name}={value}" if name != "code" else f"{value}" for name, value in why.items())
        )


def worded(line: Sequence[Any]) -> Sequence[Any]:
    """A line of a LOG, where a remark of the daemon's own is a reason, as people read it."""
    return (line[0], in_words(line[1])) if line[1].__class__ is dict else line


def shortened(why: Reason) -> Reason:
    """The same with its texts bounded, to be kept beside a task."""
    if isinstance(why, str):
        return why[:MAX_TEXT]
    return {name: shortened(value) if isinstance(value, str | dict) else value for name, value in why.items()}


def passed_on(state: str, why: Reason, run: int | None = None) -> Reason:
    """What dependents hear of a fire that did not run: the reason, or what that goes back to in the end.

    Chains of any length stay as short as one link: each tells where the first one broke.
    """
    if isinstance(why, dict) and why["code"] == "dependency":
        heard = why["heard"]
        known = heard.get("since") if isinstance(heard, dict) else None
        return reason("unused", state=state, run=run, since=known or shortened(_link(why["name"], heard)))
    return reason("unused", state=state, run=run, why=shortened(why))


def _link(name: str, heard: Reason) -> Reason:
    return {"code": "dependency", "name": name, "heard": heard}


def runs_in(why: Reason | None) -> Iterator[int]:
    """The runs that a reason names."""
    if isinstance(why, dict):
        for name, value in why.items():
            if name == "run":
                yield value
            elif isinstance(value, dict):
                yield from runs_in(value)


# --- the words ----------------------------------------------------------------------------------


def _paused(why: dict[str, Any]) -> str:
    return f"paused: {why['text']}" if why.get("text") else "paused"


def _late(why: dict[str, Any]) -> str:
    late = format_duration(float(why["late_s"]))
    return f"{late} late, more than catchup={why['catchup']} and its grace allow"


def _overlap_full(why: dict[str, Any]) -> str:
    waiting = "1 run waits" if why["waiting"] == 1 else f"{why['waiting']} runs wait"
    return f"overlap: {waiting} already behind run {why['run']}"


def _unused(why: dict[str, Any]) -> str:
    head = f"run {why['run']} {why['state']}" if "run" in why else why["state"]
    if "since" in why:
        return f"{head}, since {why['since']['name']}: {in_words(why['since']['heard'])}"
    return f"{head} ({in_words(why['why'])})"


def _follows(why: dict[str, Any]) -> str:
    how = f"{why['state']}, exit {why['exit']}" if "exit" in why else why["state"]
    return f"attempt {why['attempt']} ended: {how}; attempt {why['attempt'] + 1} follows at {why['at']}"


def _signal(why: dict[str, Any]) -> str:
    number = int(why["number"])
    name = signal.Signals(number).name if number in set(signal.Signals) else ""
    return f"killed by signal {number}" + (f" ({name.removeprefix('SIG')})" if name else "")


def _asked(why: dict[str, Any]) -> str:
    by = f" by {why['who']}" if why.get("who") else ""
    args = f" with {why['args']}" if why.get("args") else ""
    return (f"{why['event']} was emitted" if "event" in why else "asked for") + by + args


_WORDS: dict[str, str | Callable[[dict[str, Any]], str]] = {
    # Of a moment that starts nothing.
    "paused": _paused,
    "calendar": "calendar {name}",
    "overlap": "overlap: run {run} is still {state}",
    "overlap-full": _overlap_full,
    "dependency": lambda why: f"dependency {why['name']}: {in_words(why['heard'])}",
    "before-start": "before its start={at}",
    "after-end": "after its end={at}",
    "unreadable": "its definition cannot be read: {text}",
    "used-up": "its count= is used up",
    "late": _late,
    "grace": "later than its grace",
    "jumped-over": "the daemon was down, or the clock jumped over it",
    "clock-set": lambda why: f"the clock was set forward by {format_duration(float(why['by_s']))}",
    "no-worker": "on=all, and no worker that could do it is there",
    "changed": "the task was changed or removed before it could start",
    # Of a run that ends.
    "replaced": "replaced by run {run}",
    "cancelled": "cancelled by a client",
    "flow": "flow run {flow}",
    "flow-cancelled": "flow run {flow} was cancelled",
    "removed": "its task was removed",
    "cleared": "its task was removed by CLEAR",
    "loaded": "its task was not in the file loaded",
    "undone": "its task was removed by UNDO",
    "unplaced": "no worker took it within its grace",
    "gone": "worker {worker} did not come back with it",
    "unanswered": "the worker did not answer",
    "refused": "worker {worker} refused the order ({how}): {text}",
    "unreached": "its order never reached worker {worker}",
    "timeout": lambda why: f"its timeout of {format_duration(float(why['limit_s']))} is over",
    "signal": _signal,
    "secret-missing": "the secret {name} has no value; SECRET PUT gives it one",
    "secret-sealed": "the secret {name} cannot be opened: {text}",
    "secret-unfit": "a secret does not fit into {key}=",
    "secret-long": "with its secrets its options are longer than {most} bytes",
    "not-found": "exit 127: as a shell says, the command was not found",
    "not-executable": "exit 126: as a shell says, the command cannot be executed",
    "stderr": "{text}",  # the last line that it wrote there
    # Of one that somebody asked for.
    "asked": _asked,
    "emitted": _asked,
    # Remarks in the LOG of a run.
    "told-to-end": lambda why: f"{in_words(why['why'])}: worker {why['worker']} is told to end it",
    "follows": _follows,
    "not-on": lambda why: f"not on {why['worker']}: {in_words(why['why'])}",
    "unsent": "attempt {attempt} never reached worker {worker}; it is queued again",
    "output-limit": "more output is not kept: {limit} bytes are the limit",
    "output-apart": "{number} bytes are on node {node} only",
    "output-gone": "{number} bytes are lost: node {node}, which took them, cannot read them any more",
    "output-unwritten": "{number} bytes of its output were not kept: the disk of node {node} was full",
    "history-apart": "what it wrote may be elsewhere: this node lacks the history up to record {last}",
    "output-dropped": "{number} characters of its output were not kept: the disk was full",
    "late-report": "late report from {worker}: attempt {attempt} ended with exit {exit}; it does not count, "
    "and what it wrote meanwhile is not kept",
    # Why a worker left.
    "link-ended": "its connection ended",
    "link-broken": "{text}",
    "link-cut": "{text}",
    "link-replaced": "a newer connection of the same name has taken its place",
    "link-silent": "silent for {seconds:g} s",
    "link-refused": "refused: {text}",
    "stopping": "the daemon stops",
    "daemon-ended": "the daemon has ended, and another one has begun",
    # What a dependency's end is to those who wait for it.
    "ended": "run {run} {state}",
    "unused": _unused,
}
