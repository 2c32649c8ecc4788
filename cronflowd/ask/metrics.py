"""METRICS: figures about all of it in Prometheus' text form (0.0.4), a row a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import accumulate, chain

from attrs import Factory, define, frozen

from ..base.histograms import Histogram
from ..base.replies import Reply, Row
from ..base.walks import in_slices
from ..engine.ledger import DISPOSITIONS
from ..engine.state import State
from ..tasks.task import Outcome
from . import questions as q
from .overview import count_states
from .parsers import TASK_STATES

MAX_JOBS = 1000  # told by name; those that come later are told as OTHER
OTHER = "other"
DURATIONS_S = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 1800, 3600, 7200, 21600)
LATENESSES_S = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 3600)


@define
class Tally:
    """What has ended since somebody first asked: nobody pays for it before."""

    state: State
    jobs: dict[str, Counter[str]] = Factory(dict)  # fires by disposition, by name of the job
    durations: Histogram = Factory(lambda: Histogram(*DURATIONS_S))
    latenesses: Histogram = Factory(lambda: Histogram(*LATENESSES_S))

    def see(self, outcome: Outcome, is_final: bool) -> None:
        """One more row of RUNS; a fire has ended with its last one."""
        if outcome.started_at is not None:
            self.durations.add((outcome.ended_at - outcome.started_at).total_seconds())
            if outcome.attempt == 1:
                self.latenesses.add((outcome.started_at - outcome.due_at).total_seconds())
        if is_final:
            has_place = outcome.name in self.jobs or len(self.jobs) < MAX_JOBS
            name = outcome.name if has_place and not self._is_only_once(outcome) else OTHER
            self.jobs.setdefault(name, Counter())[outcome.state] += outcome.count

    def _is_only_once(self, outcome: Outcome) -> bool:
        """Whether nothing else will ever bear its name; a thousand such would leave the others no place."""
        if outcome.name.partition("_")[2] != str(outcome.task_id):
            return False
        task = self.state.tasks.get(outcome.task_id)
        return task is None or task.spec.schedule.kind == "at"


Sample = tuple[Mapping[str, str], float | Histogram | None]  # labels and value, if there is one


@frozen
class Family:
    """All figures of one name."""

    name: str  # without what all begin with
    kind: str  # `gauge`, `counter` or `histogram`
    help: str
    samples: Iterable[Sample | None]

    @classmethod
    def one(cls, name: str, kind: str, help: str, value: float | Histogram | None) -> Family:  # noqa: A002 (as there)
        """Without labels."""
        return cls(name, kind, help, [({}, value)])

    def lines(self) -> Iterator[str | None]:
        yield f"# HELP cronflowd_{self.name} {_escape(self.help)}"
        yield f"# TYPE cronflowd_{self.name} {self.kind}"
        for sample in self.samples:
            if sample is None:
                yield None
                continue
            labels, value = sample
            if isinstance(value, Histogram):
                yield from self._buckets(labels, value)
            elif value is not None:
                yield _line(self.name, labels, value)

    def _buckets(self, labels: Mapping[str, str], value: Histogram) -> Iterator[str]:
        counts = list(accumulate(value.counts))
        for bound, count in zip([*value.bounds, "+Inf"], counts, strict=True):
            yield _line(f"{self.name}_bucket", {**labels, "le": str(bound)}, count)
        yield _line(f"{self.name}_sum", labels, value.sum)
        yield _line(f"{self.name}_count", labels, counts[-1])


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    pairs = ",".join(f'{key}="{_escape(text, quote=True)}"' for key, text in labels.items())
    return f"cronflowd_{name}{{{pairs}}} {value}" if pairs else f"cronflowd_{name} {value}"


def _escape(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text


def show_metrics(
    state: State, query: q.ShowMetrics, tally: Tally, more: Iterable[Family], now: datetime
) -> Reply:
    """METRICS: what the state knows, and what `more` the daemon tells of itself."""

    def rows() -> Iterator[Row | None]:
        for family in chain(_families(state, tally, now), more):
            if family.name.startswith(query.name):
                yield from (line if line is None else (line,) for line in family.lines())

    return Reply.counted(("line",), rows())


def _tasks(state: State, now: datetime) -> Iterator[Sample | None]:
    states, _ = yield from count_states(state, now)
    yield from (({"state": word}, states[word]) for word in TASK_STATES)


def _families(state: State, tally: Tally, now: datetime) -> Iterator[Family]:
    yield Family("tasks", "gauge", "Tasks by state.", _tasks(state, now))
    ends = [({"disposition": word}, state.totals.get(word, 0)) for word in DISPOSITIONS]
    yield Family("fires_total", "counter", "Fires that have ended, by what became of them.", ends)
    jobs = in_slices(
        ({"name": name, "disposition": word}, number)
        for name, found in list(tally.jobs.items())
        for word, number in list(found.items())
    )
    yield Family(
        "job_fires_total", "counter", f"The same by name of the job; {OTHER} after {MAX_JOBS}.", jobs
    )
    yield Family.one("run_duration_seconds", "histogram", "How long attempts ran.", tally.durations)
    what = "How long after their due moment first attempts started."
    yield Family.one("run_lateness_seconds", "histogram", what, tally.latenesses)
    workers = list(state.workers.values())
    held = sum(len(worker.runs) for worker in workers)
    yield Family.one("runs_held", "gauge", "Runs that workers hold.", held)
    yield Family.one("runs_waiting", "gauge", "Runs that no worker holds yet.", len(state.runs) - held)
    about: dict[str, tuple[str, dict[str, float]]] = {
        "worker_up": ("Whether the worker is connected.", {w.name: int(w.connected) for w in workers}),
        "worker_slots": ("Runs that the worker takes at once.", {w.name: w.slots for w in workers}),
        "worker_busy": ("Runs that the worker holds.", {w.name: w.busy for w in workers}),
    }
    for name, (what, values) in about.items():
        yield Family(name, "gauge", what, [({"worker": worker}, value) for worker, value in values.items()])
    failed = state.notice_failed.count if state.notice_failed else 0
    yield Family.one("notifications_failed_total", "counter", "Notifications that did not arrive.", failed)
    expected = Counter(each.state for each in state.beats.expected.values())
    words = [({"state": word}, expected[word]) for word in ("new", "ok", "late", "failed")]
    yield Family("expectations", "gauge", "Expectations by state.", words)
    next_due = state.due.first()
    at = next_due[0].timestamp() if next_due else None
    yield Family.one("next_due_timestamp_seconds", "gauge", "When the next task is due.", at)
    started_at = state.started_at
    at = started_at.timestamp() if started_at else None
    yield Family.one("start_time_seconds", "gauge", "When this daemon started.", at)
