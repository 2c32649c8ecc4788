"""Random conversations: whatever clients and workers say, in whatever order, some things hold.

Each is a transcript that nobody has written, made from a seed: orders, reports, time, clocks
that are set, daemons that are killed, links that are cut. The harness adds that the journal
gives the same state again and that every fire has one ending. CRONFLOWD_EXAMPLES says how many.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lib.harness import play

LIVES = int(os.environ.get("CRONFLOWD_EXAMPLES", "20"))
LINES = 120
NAMES = ["a", "b", "c", "task_1", "task_2"]
SCHEDULES = [
    *("* * * * *", "*/7 * * * *", "0 13 * * *", "@every 45s", "@daily", "@reboot"),
    *("@at 2030-01-01T12:10:00Z", '"* * * * * */20"'),
]
OPTIONS = {
    "retry": ["none", "fixed:1:5s", "exp:2:1s:3s"],
    "timeout": ["none", "20s"],
    "overlap": ["skip", "queue1", "queue", "allow", "replace"],
    "catchup": ["once", "all", "skip"],
    "grace": ["0", "10s", "5m", "1h"],
    "lost": ["fail", "rerun"],
    "prio": ["low", "high"],
    "on": ["any", "w1", "label:a=b"],
    "type": ["shell", "echo"],
    "tz": ["UTC", "Europe/Paris"],
}


class Conversation:
    """Lines of a transcript, at random."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._linked: set[str] = set()  # workers that can be cut off
        kinds = {self._add: 20, self._change: 20, self._run: 12, self._look: 8, self._file: 3}
        kinds |= {self._worker: 28, self._time: 9}
        self._kinds: list[Callable[[], str]] = list(kinds)
        self._weights = list(kinds.values())

    def line(self) -> str:
        return self._rng.choices(self._kinds, self._weights)[0]()

    def _options(self) -> str:
        some = [key for key in OPTIONS if self._rng.random() < 0.25]
        return " ".join(f"{key}={self._rng.choice(OPTIONS[key])}" for key in some)

    def _task(self) -> str:
        return self._rng.choice([*NAMES, "1", "2", "3", "nobody"])

    def _add(self) -> str:
        name, schedule = self._rng.choice(NAMES), self._rng.choice(SCHEDULES)
        return f"C: ADD name={name} {self._options()} {schedule} job"

    def _change(self) -> str:
        schedule = self._rng.choice(SCHEDULES).strip('"')
        return self._rng.choice(
            [
                f"C: SET {self._task()} {self._options()} timeout=30s",
                f'C: SET {self._task()} schedule="{schedule}"',
                f"C: REMOVE {self._task()}",
                f"C: PAUSE {self._rng.choice(['all', self._task()])}",
                f"C: RESUME {self._rng.choice(['all', self._task()])}",
                f"C: {self._rng.choice(['DRAIN', 'UNDRAIN'])} w1",
            ]
        )

    def _run(self) -> str:
        orders = [f"RUN {self._task()}", f"NOW {self._options()} job", f"CANCEL {self._rng.randrange(1, 12)}"]
        return f"C: {self._rng.choice(orders)}"

    def _look(self) -> str:
        number = self._rng.randrange(1, 9)
        questions = ["RUNS", "LIST", "STATUS", "WORKERS", f"GET {self._task()}", f"LOG {number}"]
        return f"C: {self._rng.choice(questions)}"

    def _file(self) -> str:
        return f"C: {self._rng.choice(['SAVE', 'LOAD', 'CLEAR'])}"

    def _worker(self) -> str:
        who = self._rng.choice(["w1", "w2"])
        run, attempt = self._rng.randrange(1, 12), self._rng.randrange(1, 3)
        if who not in self._linked or self._rng.random() < 0.05:
            self._linked.add(who)
            slots, held = self._rng.randrange(1, 4), self._rng.randrange(1, 6)
            return f"w {who}: HELLO name={who} slots={slots} can=shell,echo labels=a=b running={held}:1"
        if self._rng.random() < 0.08:
            self._linked.discard(who)
            return f"X: {who}"
        reports = [f"STARTED {run} {attempt}", f"OUT {run} 1 text", f"DONE {run} {attempt} 0"]
        return f"w {who}: {self._rng.choice([*reports, f'DONE {run} {attempt} 1'])}"

    def _time(self) -> str:
        if self._rng.random() < 0.7:
            return f"T: +{self._rng.choice([1, 7, 30, 61, 200, 1000, 4000])}s"
        if self._rng.random() < 0.5:
            return "J: " + self._rng.choice(["+90s", "+2h", "2030-01-01T12:00:30Z", "2029-12-31T00:00:00Z"])
        self._linked.clear()
        return "D: +" + self._rng.choice(["1s", "40s", "2h", "30h"])


@pytest.mark.parametrize("seed", range(LIVES))
def test_every_order_has_one_answer_and_no_attempt_is_sent_twice(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bugs live where two features meet, and nobody writes down all those places."""
    conversation = Conversation(seed)
    said = play(["O: recent=5", *(conversation.line() for _ in range(LINES))], tmp_path, monkeypatch)
    orders = [line for line in said if line.startswith("C: ")]
    answers = [line for line in said if re.match(r"S: (OK|ERR|PONG)\b", line)]
    assert len(orders) == len(answers)
    assert [line for line in answers if line.startswith("S: ERR internal")] == []
    sent = Counter(re.findall(r"^W.*: (RUN \d+ \d+) ", "\n".join(said), re.MULTILINE))
    assert [attempt for attempt, times in sent.items() if times > 1] == []
