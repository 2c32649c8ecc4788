"""METRICS: the text is what Prometheus reads, and the figures are those of RUNS and STATUS."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cronflowd.ask import metrics
from cronflowd.ask.metrics import Family
from cronflowd.base.histograms import Histogram
from tests.lib.harness import play

_LABEL = r'[a-z_]+="(?:[^"\\\n]|\\[\\"n])*"'
_SAMPLE = re.compile(rf"([a-z_]+)(?:\{{({_LABEL}(?:,{_LABEL})*)\}})? (-?[0-9.e+-]+)")
LIFE = [
    "C: METRICS", "w: HELLO name=w1 slots=9", "C: ADD name=a retry=fixed:1:10s overlap=allow @daily x",
    "C: ADD name=b @daily y", "C: RUN a", "C: RUN a", "C: RUN b", "T: +3s", "w: DONE 1 1 0", "w: DONE 2 1 1",
    "w: DONE 3 1 1", "T: +10s", "T: +60s", "w: DONE 2 2 0", "C: EXPECT x every=1h",
]  # fmt: skip


def parse(text: str) -> dict[str, float]:
    """All samples; anything else than the text form says fails."""
    found: dict[str, float] = {}
    kinds: dict[str, str] = {}
    helped: list[str] = []
    for line in text.splitlines():
        if match := re.fullmatch(r"# HELP ([a-z_]+) (?:[^\\\n]|\\[\\n])+", line):
            assert match[1] not in helped
            helped.append(match[1])
        elif match := re.fullmatch(r"# TYPE ([a-z_]+) (gauge|counter|histogram)", line):
            assert match[1] == helped[-1]
            kinds[match[1]] = match[2]
        else:
            match = _SAMPLE.fullmatch(line)
            assert match, line
            family = helped[-1]
            ends = ("_bucket", "_sum", "_count") if kinds[family] == "histogram" else ("",)
            assert match[1] in [family + end for end in ends], line
            assert kinds[family] != "counter" or family.endswith("_total")
            key = line.rpartition(" ")[0]
            assert key not in found
            found[key] = float(match[3])
    return found


def asked(lines: list[str], data: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    said = play([*lines, "C: METRICS"], data, monkeypatch)
    begin = max(n for n, line in enumerate(said) if line == "C: METRICS") + 1
    rows = [line.removeprefix("S: ") for line in said[begin:] if line.startswith("S: ")]
    assert rows[-1] == f"OK {len(rows) - 1}"
    return "\n".join(rows[:-1]) + "\n"


def test_every_line_is_of_the_text_form_and_the_figures_are_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that Prometheus cannot read costs it the whole scrape."""
    found = parse(asked(LIFE, tmp_path, monkeypatch))
    wanted = {
        'tasks{state="scheduled"}': 2, 'fires_total{disposition="ok"}': 2,
        'fires_total{disposition="failed"}': 1, 'job_fires_total{name="a",disposition="ok"}': 2,
        'job_fires_total{name="b",disposition="failed"}': 1, 'run_duration_seconds_bucket{le="1"}': 0,
        'run_duration_seconds_bucket{le="5"}': 3, 'run_duration_seconds_bucket{le="+Inf"}': 4,
        "run_duration_seconds_sum": 3 + 3 + 3 + 60, "run_duration_seconds_count": 4,
        "run_lateness_seconds_count": 3, 'worker_up{worker="w1"}': 1, 'worker_slots{worker="w1"}': 9,
        'worker_busy{worker="w1"}': 0, "runs_held": 0, "runs_waiting": 0, 'expectations{state="new"}': 1,
        "notifications_failed_total": 0, "disk_full": 0,
    }  # fmt: skip
    assert {key: found[f"cronflowd_{key}"] for key in wanted} == wanted
    assert found["cronflowd_journal_commit_seconds_count"] > 5


def test_promtool_finds_nothing_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, types and help as those who made the form want them."""
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("promtool is not installed")
    text = asked(LIFE, tmp_path, monkeypatch)
    found = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_names_beyond_a_thousand_are_told_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A name for each of a million jobs would be a scrape of a hundred megabytes."""
    monkeypatch.setattr(metrics, "MAX_JOBS", 2)
    names = ["one", "two", "three", "four", "two", "three"]
    lines = [f"C: NOW name={name} x" for name in names]
    lines = ["C: METRICS", "w: HELLO name=w1 slots=9"]
    for run, name in enumerate(names, 1):
        lines += [f"C: NOW name={name} x", f"w: DONE {run} 1 0"]
    found = parse(asked(lines, tmp_path, monkeypatch))
    jobs = {key: number for key, number in found.items() if "job_fires_total" in key}
    assert jobs == {
        'cronflowd_job_fires_total{name="one",disposition="ok"}': 1,
        'cronflowd_job_fires_total{name="two",disposition="ok"}': 2,
        'cronflowd_job_fires_total{name="other",disposition="ok"}': 3,
    }


def test_what_runs_once_and_has_no_name_takes_no_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A thousand NOWs, or mails that something failed, and no job that is added later had a figure."""
    monkeypatch.setattr(metrics, "MAX_JOBS", 3)
    lines = [
        "C: METRICS",
        "w: HELLO name=w1 slots=9 can=shell,email",
        "C: NOW x",
        "w: DONE 1 1 0",
        "C: NOW x",
    ]
    lines += ["w: DONE 2 1 0", "C: ADD @daily x", "C: RUN 3", "w: DONE 3 1 0"]
    lines += ["C: ADD name=a notify=mailto:o@x.org @daily x", "C: RUN a", "w: DONE 4 1 1", "w: DONE 5 1 0"]
    found = parse(asked(lines, tmp_path, monkeypatch))
    assert {key: number for key, number in found.items() if "job_fires_total" in key} == {
        'cronflowd_job_fires_total{name="other",disposition="ok"}': 3,
        'cronflowd_job_fires_total{name="task_3",disposition="ok"}': 1,
        'cronflowd_job_fires_total{name="a",disposition="failed"}': 1,
    }


def test_what_a_label_or_a_help_says_is_escaped() -> None:
    """One quote in a name must not end the scrape."""
    family = Family("x", "gauge", "a\\b\nc", [({"job": 'a"b\\c\nd'}, 1)])
    assert list(family.lines()) == [
        "# HELP cronflowd_x a\\\\b\\nc",
        "# TYPE cronflowd_x gauge",
        'cronflowd_x{job="a\\"b\\\\c\\nd"} 1',
    ]


def test_a_bound_is_part_of_what_it_bounds() -> None:
    """`le` means less or equal."""
    histogram = Histogram(1, 2)
    for value in (0.5, 1, 1.5, 2, 2.5):
        histogram.add(value)
    assert (histogram.counts, histogram.sum) == ([2, 2, 1], 7.5)
