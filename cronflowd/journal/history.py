"""RUNS and LOG for what memory no longer holds: read backwards from the journal's files.

Blocking functions, for a thread. While they read, a compaction may replace any file by
another that holds the same records; a file that is gone is looked for again, by number.
A damaged line is passed over here: start-up and `cronflowd check` are who tells of it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from attrs import define

from ..base.output import Line
from ..engine.encoding import decode
from ..engine.facts import Fact, FiresPassed, OutputReceived, RunEnded
from ..engine.ledger import outcome_of
from ..engine.rules import Deed, deed_of
from ..engine.state import OLDEST_TIME
from ..host.disk import plain
from ..tasks.reasons import reason
from ..tasks.task import Outcome
from . import apart
from .files import GROWS, Source, journal_dir, list_history, list_segments
from .index import APART, DEED, Index, is_deed, key
from .records import HEAD, seq_of, unseal

_BLOCK_BYTES = 256 * 1024
MAX_LOOKED_UP = 1000  # runs; each takes a millisecond, and a hundred megabytes take a second
_OUTPUT, _ENDED, _PASSED = b'"fact":"OutputReceived"', b'"fact":"RunEnded"', b'"fact":"FiresPassed"'
_WRITTEN = re.compile(
    rb'\{"seq":[0-9]+,"at":"[^"]*","fact":"OutputReceived",(?:"more":true,)?"run":([0-9]+),'
)
# A record with an earlier time was written before the clock was set: those behind it may be of yesterday.
_OLDEST = OLDEST_TIME.isoformat()[:19].encode()
_APART = re.compile(rb'"apart":\[([0-9]+),')  # nowhere else: in a text its quotes would be escaped


def sources(directory: Path) -> list[Source]:
    """The files that together hold each ended run once, oldest first."""
    return list_history(directory) + segments(directory, history_end(directory))


def history_end(directory: Path) -> int:
    """The last record that stands in history, if it is kept."""
    return max((file.last for file in list_history(directory)), default=0)


def segments(directory: Path, covered: int = 0) -> list[Source]:
    """Those with records behind `covered`, oldest first."""
    found = list_segments(directory)
    ends = [first - 1 for first, _ in found[1:]]
    return [
        Source(path, max(first, covered + 1), last, False)
        for (first, path), last in zip(found, [*ends, GROWS], strict=False)
        if last > covered
    ]


def outcomes(
    data: Path,
    before_seq: int,
    wanted: Callable[[Outcome], bool],
    keys: Sequence[int] = (),
    index: Index | None = None,
) -> Iterator[Outcome]:
    """What ended, newest first, of the records before `before_seq`; with `keys`: about one of these."""
    for line in _lines_before(journal_dir(data), before_seq, keys, index):
        if _ENDED in line or _PASSED in line:
            outcome = _outcome(line)
            if outcome and wanted(outcome):
                yield outcome


def facts(data: Path, after: int, upto: int) -> list[tuple[int, datetime, Fact]] | None:
    """All records behind `after`, up to `upto`; None where they are not all there any more."""
    found: list[tuple[int, datetime, Fact]] = []
    for line in _lines_before(journal_dir(data), upto + 1, is_whole=True):
        decoded = _decode(line)
        if decoded is None or decoded[0] != upto - len(found) or decoded[0] <= after:
            break
        found.append(decoded)
    return found[::-1] if len(found) == upto - after else None


def output(
    data: Path,
    run: int,
    upto: int | None = None,
    index: Index | None = None,
    lacking: Counter[str] | None = None,
) -> list[Line]:
    """All lines of a run, of all its attempts, in order; up to the record `upto`.

    `lacking` is told how many bytes are not here, by who has them.
    """
    found: list[tuple[int, OutputReceived]] = []
    before = 2**63 if upto is None else upto + 1
    for line in _lines_before(journal_dir(data), before, [key("run", run)], index):
        decoded = _decode(line) if _OUTPUT in line else None
        fact = decoded[2] if decoded else None
        if isinstance(fact, OutputReceived) and fact.run == run:
            found.append((seq_of(line), fact))
    lines, missing = apart.join(journal_dir(data), run, found[::-1])
    if lacking is not None:
        lacking.update(missing)
    return lines


def remarks(lacking: Counter[str], us: str = "") -> list[Line]:
    """What the LOG of an output ends with that is not all here; `us`: this node's name."""
    codes = ((node, "output-gone" if node == us else "output-apart") for node in lacking)
    return [(0, reason(code, number=lacking[node], node=node)) for node, code in codes]


def size_of_output(line: bytes) -> int:
    """Of a record of output, as keep= counts it: with what stands beside the journal."""
    match = _APART.search(line)
    return len(line) + (int(match[1]) if match else 0)


def lacks(data: Path, run: int, index: Index) -> bool:
    """Whether records tell of more of a run's output than stands here."""
    missing = Counter[str]()
    output(data, run, index=index, lacking=missing)
    return bool(missing)


def lacking(
    data: Path,
    first: int = 1,
    last: int = 2**62,
    index: Index | None = None,
    rest: Callable[[int], object] = lambda size: None,
) -> Iterator[int]:
    """The runs of which records from one to another tell more than stands here.

    Without an index all is read, and nothing written. `rest` is told how many bytes were.
    """
    directory, found = journal_dir(data), set[int]()

    @lru_cache(maxsize=8)  # several runs go on at one time
    def read(run: int) -> frozenset[tuple[bytes, int]]:
        known = apart.read(directory, run)
        rest(sum(map(len, known.values())))
        return frozenset(known)

    for line in _lines_before(directory, last + 1, [APART] if index else [], index):
        rest(len(line))
        if not _APART.search(line) or (decoded := _decode(line)) is None:
            continue
        seq, _, fact = decoded
        if seq < first:
            return
        if not isinstance(fact, OutputReceived) or fact.apart is None or fact.run in found:
            continue
        if (b"%d" % seq, fact.apart[1]) not in read(fact.run):
            found.add(fact.run)
            yield fact.run


@define
class Sizes:
    """How much each run has written, as keep= counts it: looked up, or of very many, all read at once."""

    data: Path
    before_seq: int
    index: Index
    _looked_up: int = 0
    _all: Counter[int] | None = None

    def __call__(self, run: int) -> int:
        self._looked_up += 1
        if self._looked_up <= MAX_LOOKED_UP:
            return self._read([key("run", run)])[run]
        if self._all is None:
            self._all = self._read([])
        return self._all[run]

    def _read(self, keys: Sequence[int]) -> Counter[int]:
        found = Counter[int]()
        for line in _lines_before(journal_dir(self.data), self.before_seq, keys, self.index):
            if match := _WRITTEN.match(line):
                found[int(match[1])] += size_of_output(line)
        return found


def deeds(
    data: Path, before_seq: int, since_at: datetime | None, index: Index | None = None
) -> Iterator[tuple[datetime, Deed]]:
    """Who did what before the record `before_seq`, newest first, no further back than `since_at`."""
    since = b"" if since_at is None else since_at.astimezone(UTC).isoformat()[:19].encode()
    for line in _lines_before(journal_dir(data), before_seq, [DEED], index):
        if match := HEAD.match(line):
            if _OLDEST <= match[2][:19] < since:
                return
            if match[2][:19] >= since and (found := deed_in(line)):
                yield found


def deed_in(line: bytes) -> tuple[datetime, Deed] | None:
    """What of a record concerns AUDIT, if anything does."""
    if not is_deed(line) or (decoded := _decode(line)) is None:
        return None
    _, at, fact = decoded
    deed = deed_of(fact, at)
    return (at, deed) if deed else None


def _lines_before(
    directory: Path,
    before_seq: int,
    keys: Sequence[int] = (),
    index: Index | None = None,
    is_whole: bool = False,
) -> Iterator[bytes]:
    """Lines newest first, each record once, though files come and go meanwhile; `is_whole`: no history."""
    cursor, lost, index = before_seq, True, index or Index()
    while lost:
        lost = False
        for source in reversed(segments(directory) if is_whole else sources(directory)):
            if source.first >= cursor:
                continue
            try:
                for seq, line in _about(source, cursor, keys, index) if keys else _numbered(source):
                    if seq < cursor:
                        cursor = seq
                        yield line
            except FileNotFoundError:
                lost = True  # compacted since it was listed
                break
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(source.path)) from error
            cursor = min(cursor, source.first)


def _about(source: Source, before: int, keys: Sequence[int], index: Index) -> Iterator[tuple[int, bytes]]:
    end = min(before, source.last + 1)
    return index.lines(source.path, keys, source.first, end, grows=source.last == GROWS)


def _numbered(source: Source) -> Iterator[tuple[int, bytes]]:
    for line in lines_backwards(source.path):
        try:
            seq = seq_of(line)
        except ValueError:
            continue
        if source.holds(seq):
            yield seq, line


def lines_backwards(path: Path) -> Iterator[bytes]:
    """The whole lines of a file without their ends, last first; what follows the last newline is left out."""
    with open(path, "rb", 0, opener=plain) as file:
        at = file.seek(0, os.SEEK_END)
        rest, whole = b"", False
        while at > 0:
            size = min(_BLOCK_BYTES, at)
            at -= size
            file.seek(at)
            lines = (file.read(size) + rest).split(b"\n")
            rest = lines[0]
            if not whole and len(lines) > 1:
                lines.pop()
                whole = True
            yield from reversed(lines[1:])
        if whole and rest:
            yield rest


def _decode(line: bytes) -> tuple[int, datetime, Fact] | None:
    try:
        seq, at, fact, _ = decode(unseal(line))
    except ValueError:
        return None
    return seq, at, fact


def _outcome(line: bytes) -> Outcome | None:
    decoded = _decode(line)
    if decoded is None:
        return None
    seq, at, fact = decoded
    return outcome_of(fact, at, seq) if isinstance(fact, RunEnded | FiresPassed) else None
