"""What a release has written is read by every later one: journals of before stand in tests/data."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from cronflowd.ask import accounts, commands, flows, listing, views
from cronflowd.ask.accounts import list_secrets
from cronflowd.ask.revisions import show_history
from cronflowd.base.replies import format_row
from cronflowd.engine.encoding import KINDS, decode, encode
from cronflowd.engine.expectations import show
from cronflowd.engine.facts import FACTS_VERSION, SINCE
from cronflowd.engine.state import State
from cronflowd.journal import history
from cronflowd.journal.journal import FileJournal
from cronflowd.journal.records import Reader, unseal
from tests.lib.engine_driver import snapshot
from tests.lib.write_journal import names, write

DATA = Path(__file__).parent.parent / "data"
JOURNALS = sorted(path.parent for path in DATA.glob("journal-*/*/journal"))


def replayed(data: Path) -> State:
    state, journal = State("UTC", recent_runs=20), FileJournal(data)
    for seq, at, fact in journal.replay():
        state.apply(fact, at, seq)
    journal.close()
    return state


def answers(state: State, data: Path) -> Iterator[tuple[str, Iterable[tuple[Any, ...] | None]]]:
    """What clients are told of it, by their lines."""
    now = state.told_at + timedelta(seconds=1)

    def ask(line: str) -> Any:
        return commands.parse(line, commands.Context(now, "UTC"))

    yield "LIST", listing.list_tasks(state, ask("LIST"), now).rows
    older = list(history.outcomes(data, state.history_from_seq, lambda _: True))
    yield "RUNS", views.list_runs(state, ask("RUNS"), older, now).rows
    yield "HISTORY", show_history(state, ask("HISTORY"), now).rows
    for name in ("second", "renamed"):
        yield f"HISTORY {name}", show_history(state, ask(f"HISTORY {name}"), now).rows
        yield f"GET {name}", views.get_task(state, ask(f"GET {name}"), now).rows
    yield "FAILED", views.list_failed(state, ask("FAILED"), now).rows
    yield "PROVE", views.prove(state, ask("PROVE"), now).rows
    yield "EXPECTS", show(state, None, now).rows
    yield "WORKERS", views.list_workers(state, lambda name: (None, ""), lambda name: False).rows
    yield "TEMPLATE LIST", views.list_templates(state).rows
    yield "STATUS", views.status_rows(state, now)
    yield "LOG 1", history.output(data, 1)
    yield "FLOW", flows.list_flows(state).rows
    yield (
        "FLOW begin RUNS",
        flows.list_flow_runs(state, ask("FLOW begin RUNS")).rows if state.find("begin") else [],
    )
    yield "USER LIST", accounts.list_users(state.access, "").rows
    yield "TOKEN LIST", accounts.list_tokens(state.access).rows
    yield "SESSION LIST", accounts.list_logins(state.access, "", now).rows
    yield "SECRET LIST", list_secrets(state).rows
    yield "ONCE", [(*name, kept.text, kept.until_at) for name, kept in state.once.kept.items()]
    deeds = history.deeds(data, 2**62, None)
    yield "AUDIT", accounts.audit_rows(deeds, ask("AUDIT who=ann"), "nobody")


@pytest.mark.parametrize("journal", JOURNALS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_journal_of_before_is_read_as_it_was_meant(journal: Path, tmp_path: Path) -> None:
    """Whoever upgrades has years in it; a field that is renamed must be found out before it is released."""
    shutil.copytree(journal / "journal", tmp_path / "journal")
    lines = []
    for asked, rows in answers(replayed(tmp_path), tmp_path):
        lines.append(f"C: {asked}\n")
        # JSON tells reasons too, and what is a number.
        lines += [format_row([f"{n}" for n in range(len(row))], row, True) + "\n" for row in rows if row]
    golden = journal / "answers.txt"
    if os.environ.get("CRONFLOWD_GOLDEN"):
        golden.write_text("".join(lines))
    assert "".join(lines) == golden.read_text()


def test_all_that_its_form_says_is_said_today() -> None:
    """Or a node of the same form, for which there is no default yet, would not understand a state."""
    newest = DATA / f"journal-{FACTS_VERSION}"
    for path in newest.glob("*/journal/*.jsonl"):
        for body in [unseal(line) for line in Reader(path) if b'"fact":' in line]:
            told, today = (orjson.loads(each) for each in (body, encode(*decode(body))))
            assert told == {key: today.get(key) for key in told}


def test_there_are_such_journals() -> None:
    """A pattern that finds nothing would test nothing."""
    assert [path.name for path in JOURNALS[:2]] == ["compacted", "whole"]


def test_another_can_be_written_whenever_facts_have_another_form(tmp_path: Path) -> None:
    """Whoever changes their form needs it, and nobody before him."""
    write(tmp_path)
    assert snapshot(replayed(tmp_path / "whole")) == snapshot(replayed(tmp_path / "compacted"))


def test_all_that_is_written_today_stands_in_the_newest() -> None:
    """A fact that none of them holds may lose its meaning in the next release, and nobody notices."""
    newest = DATA / f"journal-{FACTS_VERSION}"
    text = b"".join(path.read_bytes() for path in newest.glob("*/journal/*")).decode()
    assert [kind.__name__ for kind in KINDS if f'"fact":"{kind.__name__}"' not in text] == []


def understood(form: int) -> set[str]:
    """What a release of that form understands, in the words of SINCE."""
    *facts, options = (DATA / f"journal-{form}" / "names.txt").read_text().splitlines()
    told = set(options.split())
    for kind, *fields in map(str.split, facts):
        told |= {kind, *(f"{kind}.{name}" for name in fields)}
    return told


def test_what_is_new_in_facts_comes_with_another_form() -> None:
    """A field without it ended all older nodes of a cluster as soon as a newer one led: see facts.py."""
    assert names() == (DATA / f"journal-{FACTS_VERSION}" / "names.txt").read_text().splitlines()
    for form in range(3, FACTS_VERSION + 1):
        new = understood(form) - understood(form - 1)
        assert not understood(form - 1) - understood(form), "what is gone is not read any more"
        whole = {name for name in new if "." not in name}
        told = {name for name in new if name in whole or name.split(".")[0] not in whole}
        assert told == {name for name, since in SINCE.items() if since == form}
