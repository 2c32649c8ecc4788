"""A data directory in which somebody has had jobs for a month: python -m tests.lib.busy_month DIRECTORY.

An engine lives through the days up to now, and its facts are written down as a daemon would have. What
went how is drawn from a fixed seed, but for last night, of which each test knows what it was; the jobs'
zone is one where it is about noon, or that night would be going on for who tests in it. The commands are
harmless, for a worker may run them.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

from cronflowd.engine import orders as o
from cronflowd.engine.rules import Decision, Limits
from cronflowd.engine.state import State
from cronflowd.journal.journal import FileJournal
from tests.lib.journal_driver import settle
from tests.lib.write_journal import Life

DAYS = 28
NIGHTLY = (
    'ADD name=nightly-backup tags=night,db desc="Dump of the shop database, kept for 30 days" timeout=2h'
    " 30 2 * * * echo 'dumping shop'; sleep 2; echo 'done, 48213 rows'"
)
JOBS = (
    NIGHTLY,
    'ADD name=extract-orders tags=night,etl desc="Orders of the day before" 15 1 * * * echo 312 orders',
    "ADD name=load-warehouse tags=night,etl after=extract-orders @after echo loaded",
    "ADD name=enrich-customers tags=night,etl after=extract-orders @after echo enriched",
    "ADD name=daily-report tags=etl,mail after=load-warehouse,enrich-customers @after echo report sent",
    "ADD name=sync-inventory tags=shop type=http {soon}-59/30 * * * * GET http://127.0.0.1:9/inventory",
    'ADD name=rotate-logs tags=ops "daily at 0:10" echo rotated',
    'ADD name=clean-tmp tags=ops "every 6 hours" echo 1.2 GB freed',
    "ADD name=renew-certificates tags=ops,tls 40 4 * * {days} echo nothing to renew",
    "ADD name=import-rates tags=finance tz=Europe/Berlin 5 6-20/2 * * 1-5 echo EUR/USD 1.0861",
    "ADD name=invoice-run tags=finance prio=high timeout=30m tz=Europe/Berlin 30 2 * * * echo 88 invoices",
    'ADD name=index-search tags=shop "hourly" printf "\\033[32mindexed\\033[0m 1,204 documents\\n"',
    'ADD name=check-mailbox tags=ops "every 20 minutes" echo empty',
    "ADD name=thumbnails tags=shop overlap=queue1 20 */3 * * * echo 64 images",
    "ADD name=newsletter tags=mail,marketing on=label:zone=eu 0 9 * * 2 echo 10,482 recipients",
    "ADD name=old-migration tags=legacy 0 3 * * 0 echo nothing",
    'EXPECT offsite-copy every=1d grace=2h desc="the copy in the other data centre"',
    'EXPECT door-sensor every=15m grace=5m desc="the cold store"',
)
SECONDS = {
    "nightly-backup": 740, "extract-orders": 95, "load-warehouse": 310, "enrich-customers": 180,
    "daily-report": 22, "invoice-run": 410, "thumbnails": 130, "index-search": 34, "renew-certificates": 6,
}  # fmt: skip
NO_SPACE = "pg_dump: error: could not write to output file: No space left on device"
TRACE = (
    "Traceback (most recent call last):",
    '  File "/srv/etl/enrich.py", line 41, in ask',
    "    raise TimeoutError(host)",
    "TimeoutError: crm.example.org did not answer within 30 s",
)
WORKERS = (("berlin-1", 4, {"zone": "eu", "disk": "ssd"}), ("pi", 2, {"zone": "home"}))

Lines = list[list[object]]


class Month(Life):
    """Runs what comes due on two workers, until now."""

    def __init__(self, now: datetime) -> None:
        super().__init__()
        self.limits = Limits(lease_s=30.0)
        self.random = Random(7)
        self.until, self.now = now, now - timedelta(days=DAYS)
        self.under_way: list[tuple[datetime, str, int, int, str]] = []  # when it ends, and what it is
        self.tz = f"Etc/GMT{now.hour - 12:+d}" if now.hour != 12 else "UTC"
        self.take_over(State(self.tz))
        self.do(o.StartDaemon("0.1.0", self.tz))
        self.night = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=12 + 6)

    def line(self, text: str) -> Decision:
        """As Ann says it."""
        known = len(self.decisions)
        decision = super().line(text)
        for _, found in self.decisions[known:]:
            for fact in found:
                if not getattr(fact, "who", "-"):
                    fact.who = "ann@192.0.2.7"  # type: ignore[attr-defined]
        return decision

    def live(self) -> None:
        for name, slots, labels in WORKERS:
            can = ("shell", "http", "email")
            self.do(o.JoinWorker(name, slots, labels, can, f"192.0.2.{slots}:40100", (), True, name, slots))
        # What fails on some days of the week did not do so last night, nor does anything soon of itself.
        today = self.until.astimezone(ZoneInfo(self.tz)).isoweekday()
        days, soon = f"{(today + 2) % 7},{(today + 5) % 7}", (self.until.minute + 15) % 30
        for line in JOBS:
            self.line(line.format(days=days, soon=soon))
        while self.now < self.until:
            due = self.engine.next_due()
            ends = [end for end, *_ in self.under_way]
            self.now = min([self.until, *([due] if due else []), *ends])
            self.pump()
            self.take()
            self.end()
            if (self.now - self.night).seconds < 60:
                self.line("BEAT offsite-copy ok 312 files")
        self.line('PAUSE old-migration why="until the new one is in"')
        self.line("SET invoice-run timeout=45m")

    def take(self) -> None:
        """What was sent begins, and will end."""
        known = {run for _, _, run, _, _ in self.under_way}
        for run in list(self.state.runs.values()):
            if run.worker and run.id not in known and run.shown == "sent":
                self.do(o.ReportStarted(run.worker, run.id, run.attempt))
                seconds = max(0.4, self.random.lognormvariate(0, 0.25) * SECONDS.get(run.spec.name, 2))
                until = self.now + timedelta(seconds=seconds)
                self.under_way.append((until, run.worker, run.id, run.attempt, run.spec.name))

    def end(self) -> None:
        for each in [each for each in self.under_way if each[0] <= self.now]:
            self.under_way.remove(each)
            _, worker, run, attempt, name = each
            lines, code = self.fate(name)
            self.do(o.ReportOutput(worker, run, lines))
            self.do(o.ReportEnded(worker, run, attempt, code, {}, True))
        self.pump()

    def fate(self, name: str) -> tuple[Lines, int]:
        """What it wrote, and its exit."""
        is_last_night = self.now >= self.night
        if name == "nightly-backup":
            return self.backup(is_last_night)
        if name == "enrich-customers" and is_last_night:
            return [[1, "asking crm.example.org"], *([2, line] for line in TRACE)], 1
        if name == "index-search" and 0 <= (self.now - self.night).total_seconds() - 5 * 3600 < 3600:
            return [[2, "index is locked by another process"]], 75
        if name == "renew-certificates":
            return [[2, "acme: rate limited, try again after Thursday"]], 4
        if not is_last_night and self.random.random() < 0.012:
            return [[2, "connection reset by peer"]], 1
        return [[1, f"{name}: all done"]], 0

    def backup(self, is_last_night: bool) -> tuple[Lines, int]:
        """Dumps tables, in colours; last night the disk was full."""
        day = f"{self.now:%Y-%m-%d}"
        lines: Lines = [
            [1, f"\x1b[2m{self.now:%H:%M:%S}\x1b[0m dumping \x1b[1mshop\x1b[0m to /backup/{day}.dump"]
        ]
        lines += [[1, f"  table {each}: \x1b[32mok\x1b[0m"] for each in ("customers", "orders", "stock")]
        if is_last_night:
            return [
                *lines,
                [2, f"\x1b[31m{NO_SPACE}\x1b[0m"],
                [2, "/backup is 100 % full (0 of 200 GB left)"],
            ], 1
        return [*lines, [1, "\x1b[32mdone\x1b[0m, 48213 rows"]], 0


def write(data: Path, now: datetime | None = None) -> Month:
    """Writes DIRECTORY/journal; the month, for who wants to know what is in it."""
    month = Month((now or datetime.now(UTC)).replace(microsecond=0))
    month.live()
    journal = FileJournal(data, 64 * 2**20, reserve_bytes=0)
    assert not list(journal.replay())
    for at, found in month.decisions:
        journal.append(found, at)
    journal.flush()
    settle(journal)
    journal.close()
    return month


if __name__ == "__main__":
    write(Path(sys.argv[1]))
