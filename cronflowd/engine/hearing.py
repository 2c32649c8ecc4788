"""What those who wait for a task by after= hear of it: at once, or some at a time if very many wait.

The rules of `state` hold here. What a task has yet to be told is as true as what it has heard: whoever
asks gets both (`heard_by`), and before a fact says anything of a task, that is told (`catch_up`). So nobody
can see how far the telling has got, and a restart may begin it anew.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import Any

from ..tasks.reasons import Reason, passed_on, reason
from ..tasks.task import Run, Task
from . import facts as f
from .tables import WELL, News, Tables

TOLD_AT_ONCE = 500  # of those who wait for one task; 50,000 of them were a step of 70 ms
MAX_UNTOLD = 1_000_000  # of all tasks, beyond which the oldest news are told in one go;
MAX_NEWS = 50  # and beyond so many, since each fact looks through them


def heard_by(state: Tables, task: Task) -> dict[str, Reason]:
    """How the dependencies of a task have ended since its last fire, by name; another thread may ask."""
    heard = task.heard or {}
    for (name, flow), news in list(state.news.items()):
        if task.id in news.waiting and not _has_turn(state, task, flow):
            heard = heard | {_said(state, name, task): news.how}
    return heard


def tell_dependents(state: Tables, name: str, how: Reason, flow: int) -> None:
    """A run of a task has ended for good, or a moment of it has passed."""
    waiting = state.dependents.get(name, ())
    if len(waiting) <= TOLD_AT_ONCE:
        for task_id in waiting:
            if state.news:
                _catch_up(state, task_id)
            _tell(state, state.tasks[task_id], name, how, flow)
        return
    # What is newer says what is older, too; but it comes after all that was said meanwhile.
    state.news.pop((name, flow), None)
    state.news[name, flow] = News(how, set(waiting))
    while len(state.news) > 1 and _are_many(state.news.values()):
        tell_some(state)


def _are_many(news: Collection[News]) -> bool:
    return len(news) > MAX_NEWS or sum([len(each.waiting) for each in news]) > MAX_UNTOLD


def tell_of_end(state: Tables, task: Task, run: Run, fact: f.RunEnded) -> None:
    """With on=all, dependents hear of a fire when its last run has ended, and of its first failure."""
    how = run.blame or how_ended(fact)
    runs = [state.runs[other] for other in task.runs] if run.target else []
    others = [other for other in runs if other.fire == run.fire]
    if not others:
        tell_dependents(state, task.name, how, run.flow)
    elif how != WELL:
        for other in others:
            other.blame = how


def keeps_failing(state: Tables, task: Task, run: Run) -> bool:
    """Whether a task that fails still does when this run of it ends well.

    With on=all that is so until all runs of a fire have, or whoever looked for what fails would see nothing.
    """
    if not (run.target and task.failure):
        return False
    bad, others = task.failure, (state.runs[other] for other in task.runs if other != run.id)
    is_its_own = bad.due_at == run.due_at and (bad.run or 0) >= run.fire
    return is_its_own or any(other.fire == run.fire for other in others)


def how_ended(fact: f.RunEnded) -> Reason:
    """What is heard of a run that has ended for good."""
    if fact.state == "skipped":
        return passed_on(fact.state, fact.why or "", fact.run)
    return WELL if fact.state == "ok" else reason("ended", run=fact.run, state=fact.state)


def tell_some(state: Tables) -> bool:
    """Some more of those who wait hear what is oldest; False if there was nothing to tell."""
    for (name, flow), news in state.news.items():
        for task_id in list(islice(news.waiting, TOLD_AT_ONCE)):
            news.waiting.discard(task_id)
            if task := state.tasks.get(task_id):
                _tell(state, task, name, news.how, flow)
        if not news.waiting:
            del state.news[name, flow]
        return True
    return False


def catch_up(state: Tables, fact: Any) -> None:
    """A fact is about to be made true: the task that it is about hears before it what there is to hear."""
    if isinstance(fact, f.FlowEnded | f.FlowRetried):  # who was a member is known until then
        of_flow = [news for (_, flow), news in state.news.items() if flow == fact.flow]
        for waiting in [each for news in of_flow for each in news.waiting]:
            _catch_up(state, waiting)
    task_id = getattr(fact, "task", None) or getattr(fact, "id", None)
    if task_id is None and (run := state.runs.get(getattr(fact, "run", None) or 0)):
        task_id = run.task_id
    if task_id is not None:
        _catch_up(state, task_id)


def _catch_up(state: Tables, task_id: int) -> None:
    for (name, flow), news in state.news.items():
        if task_id in news.waiting:
            news.waiting.discard(task_id)
            _tell(state, state.tasks[task_id], name, news.how, flow)


def _tell(state: Tables, task: Task, name: str, how: Reason, flow: int) -> None:
    if flow and state.flows.of.get(task.id) == flow:
        state.flows.todo[flow, task.id] = None
    if _has_turn(state, task, flow):
        if task.heard:  # what it has heard otherwise may have waited for this end
            state.to_judge[task.id] = None
        return
    task.heard = task.heard or {}
    task.heard[_said(state, name, task)] = how
    state.to_judge[task.id] = None


def _has_turn(state: Tables, task: Task, flow: int) -> bool:
    """Whether it has its turn in that run of a flow, and would fire twice."""
    return bool(flow) and state.flows.of.get(task.id) == flow and task.spec.schedule.kind == "after"


def _said(state: Tables, name: str, task: Task) -> str:
    return state.said(name, task) if state.unfinished.former else name


def rename_heard(state: Tables, dependent: Task, old: str, new: str) -> None:
    """A dependency has another name now."""
    if state.news:
        _catch_up(state, dependent.id)
    if dependent.heard and old in dependent.heard:
        how = dependent.heard.pop(old)
        # Two names that change places: rather nothing than what the other one did.
        if dependent.heard.pop(new, None) is None:
            dependent.heard[new] = how
