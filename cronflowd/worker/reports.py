"""What the daemon has yet to hear of each run: what it wrote, and how it ended.

An end is told until the daemon has acknowledged it. Output goes before its end, and is kept until an
answer shows that it has come; what broke off on its way goes on from where the daemon has it.

Both survive this process, in the spool. As long as there is a link, output is not written there, as
that would cost every job a second way to the disk; how much of it has not surely come is (`OWED`), so
that after a kill the daemon is told how much of it is missing. Whoever leaves, and whoever has lost its link,
writes the output as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from .executors.job import Job
from .executors.output import Output
from .spool import Spool

MAX_BATCH_BYTES = 128 * 1024  # of output, in one send
MIN_SHARE_BYTES = 4 * 1024  # of it, for one run


class Reports(Mapping[str, str]):
    """By `<run> <attempt>`, of each run that has ended: the lines that whoever comes after has to know."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._ends: dict[str, str] = {}  # DONE, or what else ends it, until it is acknowledged
        self.sent: dict[str, Output] = {}  # output of which the daemon may not have all
        self.waiting: dict[str, Output] = {}  # output that can be sent; its end goes after it
        self.is_linked = False

    def load(self) -> list[str]:
        """What an earlier worker left; returns the runs that it was still running."""
        self._ends, running = self._spool.load()
        self._part()
        return running

    def _part(self) -> None:
        """Of what stood with an end, as of a job that ended at once or in the spool, some may have come."""
        for key, text in self._ends.items():
            if text.startswith(("OWED ", "OUT ")):
                *lines, end, _ = text.split("\n")
                begin, size = map(int, lines.pop(0).split()[3:]) if text.startswith("OWED ") else (0, 0)
                self._ends[key] = f"{end}\n"
                self.sent[key] = Output.kept(key.partition(" ")[0], begin, size, lines)

    def __getitem__(self, key: str) -> str:
        return self._owed(key) + self._ends[key]

    def __contains__(self, key: object) -> bool:
        return key in self._ends

    def __iter__(self) -> Iterator[str]:
        return iter(self._ends)

    def __len__(self) -> int:
        return len(self._ends)

    def end(self, key: str, text: str) -> None:
        """A run has ended. Of its output some may be on its way."""
        self._ends[key] = text
        self._spool.report(self._owed(key) + text)

    def _owed(self, key: str) -> str:
        output = self.sent.get(key) or self.waiting.get(key)
        if output is None:
            return ""
        begin, size = output.extent
        return f"OWED {key} {begin} {size}\n{'' if self.is_linked else output.unheard()}"

    def acknowledge(self, key: str) -> None:
        """The daemon has its end on its disk."""
        self.sent.pop(key, None)
        if self._ends.pop(key, None):
            self._spool.acknowledge(key)

    def flush(self, running: Collection[str]) -> None:
        """Writes what was noted since the last time."""
        self._spool.flush(self, running)

    def keep(self, running: Collection[str]) -> None:
        """Leaves all of it to whoever comes after, should this worker be killed now."""
        self.is_linked = False
        self._spool.rewrite(self, running)

    # --- what is said -----------------------------------------------------------------

    def resume(self, had: Mapping[str, int] | None, jobs: Mapping[str, Job]) -> None:
        """What broke off on its way to the daemon is sent again, from where the daemon has it on.

        It keeps nothing of a run that counts for it as this worker's no more. OUT names no attempt, so that
        would stand in the LOG as another one's, which may be here as well.
        """
        self._part()
        unwanted = () if had is None else (jobs.keys() | self._ends.keys()) - had.keys()
        for key in unwanted:
            if job := jobs.get(key):
                job.output.forget()
            self.sent.pop(key, None)
            self.waiting.pop(key, None)
        for key, output in self.sent.items():
            output.resume(had.get(key) if had else None)
            if output.is_waiting:
                self.waiting[key] = output
        self.sent.clear()

    def taken(self) -> dict[str, int]:
        """How much of each output has been sent, for `confirm`."""
        return {key: output.taken for key, output in self.sent.items()}

    def confirm(self, taken: dict[str, int]) -> None:
        """So much of each output has come."""
        for key, number in taken.items():
            if (output := self.sent.get(key)) and not output.confirm(number):
                del self.sent[key]

    def unsaid(self) -> Iterator[str]:
        """The ends that a new link has to be told, but for those that go after their output."""
        return (text for key, text in self._ends.items() if key not in self.waiting)

    def once_more(self, key: str) -> str:
        """Its end again, where it is not told anyway."""
        return "" if key in self.waiting else self._ends.get(key, "")

    def gather(self) -> list[str]:
        """What can be sent now: of all output no more than a batch, and the ends behind it."""
        texts: list[str] = []
        budget = MAX_BATCH_BYTES
        share = max(MIN_SHARE_BYTES, budget // max(1, len(self.waiting)))
        for key, output in list(self.waiting.items()):
            if budget <= 0:
                break
            text = output.take(share)
            self.sent[key] = output
            texts.append(text)
            budget -= len(text)
            del self.waiting[key]
            if output.is_waiting:
                self.waiting[key] = output  # to the end of the line: the others go first next time
            elif key in self._ends:
                texts.append(self._ends[key])
        return texts
