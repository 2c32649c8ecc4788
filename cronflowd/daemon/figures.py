"""What METRICS and STATUS tell of the daemon itself, beside what the state knows."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..ask.metrics import Family
from ..net.listeners import Door
from ..schedules.zones import data_version
from .core import Core


def families(core: Core, doors: Sequence[Door], watching: int) -> Iterator[Family]:
    """The journal, the connections, and what was refused."""
    journal, admission = core.journal, core.admission
    about = {"version": __version__, "python": platform.python_version()}
    yield Family("build_info", "gauge", "Which release this is.", [(about, 1)])
    what = "How long the journal took to have a batch of records on disk."
    yield Family.one("journal_commit_seconds", "histogram", what, journal.commit_s)
    yield Family.one("journal_records_total", "counter", "Records of the journal.", core.last_seq)
    yield Family.one("journal_files", "gauge", "Files of the journal.", len(journal.closed) + 1)
    yield Family.one(
        "disk_full", "gauge", "Whether changes are refused for want of space.", int(journal.full)
    )
    offsets = [({"worker": link.name}, link.offset_s) for link in core.links.values()]
    if core.certificate_until_at:
        what, at = "When the TLS certificate ends.", core.certificate_until_at.timestamp()
        yield Family.one("tls_certificate_end_timestamp_seconds", "gauge", what, at)
    what = "By how much the worker's clock is ahead of ours."
    yield Family("worker_clock_offset_seconds", "gauge", what, offsets)
    is_open = [
        ({"door": door.name.split()[0], "kind": kind}, door.open[kind])
        for door in doors
        for kind in ("tcp", "unix")
    ]
    yield Family("connections", "gauge", "Connections that are open.", is_open)
    refused = [({"door": door.name.split()[0]}, door.turned_away) for door in doors]
    yield Family("connections_refused_total", "counter", "Connections that found no place.", refused)
    yield Family.one("watchers", "gauge", "Connections that watch, or follow a log.", watching)
    what = "Lines that came too fast from somebody unknown."
    yield Family.one("lines_refused_total", "counter", what, admission.lines_refused)
    what = "Tokens and passwords that were wrong."
    yield Family.one("wrong_words_total", "counter", what, admission.wrong_words)


def status(core: Core, doors: Sequence[Door], data: Path, is_edited: bool) -> Iterator[tuple[str, Any]]:
    """Rows of STATUS; `is_edited`: tasks.db, by hand."""
    journal, state = core.journal, core.state
    troubles = "; ".join(f"{name}: {why}" for name, why in state.calendars.troubles.items())
    yield "version", __version__
    yield "zone", state.default_tz
    yield "zone-data", data_version()
    yield "data", str(data)
    yield "journal-seq", core.last_seq
    yield "journal-files", len(journal.closed) + 1
    yield "disk", "full: changes are refused, schedules go on" if journal.full else "ok"
    yield "tasks.db", "edited by hand; LOAD takes it over" if is_edited else "ok"
    yield "calendars", troubles or "ok"
    yield "set-aside", journal.set_aside
    yield "clock-step-s", state.last_step_s
    yield "tls-certificate-until", core.certificate_until_at
    yield "wrong-words", core.admission.wrong_words
    yield "lines-refused", core.admission.lines_refused
    yield "connections-refused", sum(door.turned_away for door in doors)
    if core.admission.is_guarded:
        yield "auth", "required"
    if state.access.secrets:
        yield "secrets", len(state.access.secrets)
        yield "key", state.access.key_trouble or "ok"
