"""Time zones as constant-offset segments, and the times and durations that people write.

All arithmetic is on whole seconds since 1970; *local* ones have the zone's offset added.
A zone is asked for its offsets only, so whatever zone data Python finds will do. What the
segments' *running clock* is, and why there is one, is told in schedule.py.
"""

from __future__ import annotations

import errno
import re
import struct
import zoneinfo
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, NamedTuple, NoReturn

from attrs import Factory, define

from ..base.errors import Refusal
from ..base.nearest import meant
from ..base.text import escape

MAX_ZONE = 64  # characters of a name
# The same zones with leap seconds, which clocks have not. The files tell nothing beyond their last change.
LEAPING = "right/"
MAX_LEAP_S = 3 * 3600  # clock changes up to this are bridged for fixed tasks
MAX_DURATION_S = 36_500 * 86_400
MAX_ZONE_BYTES = 1 << 20  # the largest file of today's data has 4,000

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DAY_S = 86_400
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
LAST_YEAR = 9990
# Instants outside these are taken for the nearer of the two; datetime ends soon after.
FIRST_S = (datetime(1900, 1, 1, tzinfo=UTC) - EPOCH) // SECOND
LAST_S = (datetime(LAST_YEAR, 1, 1, tzinfo=UTC) - EPOCH) // SECOND
# 29 February falls on a given weekday after at most 40 years; what has no moment in this has none.
HORIZON_S = 48 * 366 * DAY_S


def to_seconds(at: datetime) -> int:
    """Whole seconds since 1970, rounded down, within the years that are scheduled at all."""
    since = at - EPOCH
    seconds = since.days * DAY_S + since.seconds
    return seconds if FIRST_S <= seconds <= LAST_S else min(max(seconds, FIRST_S), LAST_S)


def why_unscheduled(at: datetime) -> str:
    """Why nothing that comes again comes then; empty within those years."""
    is_within = FIRST_S < (at - EPOCH) // SECOND < LAST_S
    return "" if is_within else "is not in the years that are scheduled, 1900 to 9989"


def to_instant(seconds: int) -> datetime:
    return _from_timestamp(seconds, UTC)


_from_timestamp = datetime.fromtimestamp  # looked up once: every next fire ends here


def refuse(message: str) -> NoReturn:
    raise Refusal("bad-schedule", message)


# --- zones ---------------------------------------------------------------------------


class Segment(NamedTuple):
    """A stretch of time with one UTC offset; start and end are UTC. Each end is outside."""

    start: int
    end: int
    offset: int
    wall: tuple[int, int]  # its local times, from and to
    run: tuple[int, int]  # those it serves by the running clock; empty while a repeated hour is waited out


@define(eq=False)
class Zone:
    """A zone's segments, found by asking for offsets only, and kept in blocks of 400 days."""

    info: zoneinfo.ZoneInfo
    blocks: dict[int, list[Segment]] = Factory(dict)

    BLOCK_S: ClassVar[int] = 400 * DAY_S
    MAX_BLOCKS: ClassVar[int] = 512

    def offset(self, seconds: int) -> int:
        """Seconds that local time is ahead of UTC at this instant."""
        at = (EPOCH + timedelta(seconds=seconds)).replace(tzinfo=self.info)
        # Both carry the same tzinfo, so this subtracts wall times.
        return (self.info.fromutc(at) - at) // SECOND

    def day(self, at: datetime) -> date:
        """The local date of an instant."""
        return at.astimezone(self.info).date()

    def begin(self, day: date) -> datetime:
        """The first instant of a local date, or of the next one that there is."""
        local = (day.toordinal() - EPOCH_ORDINAL) * DAY_S
        for segment in self.forward(local - 2 * DAY_S, local + 2 * DAY_S):
            if local < segment.end + segment.offset:
                return to_instant(max(segment.start, local - segment.offset))
        raise AssertionError("a zone has no end")

    def at(self, seconds: int) -> Segment:
        """The segment that holds this instant."""
        block = seconds // self.BLOCK_S
        for segment in self.blocks.get(block) or self._load(block):
            if seconds < segment.end:
                break
        return segment

    def forward(self, begin: int, until: int) -> Iterator[Segment]:
        """The segments from the one that holds `begin` to the one that holds `until`."""
        for block in range(begin // self.BLOCK_S, until // self.BLOCK_S + 1):
            for segment in self.blocks.get(block) or self._load(block):
                if segment.start > until:
                    return
                if segment.end > begin:
                    yield segment

    def backward(self, begin: int, until: int) -> Iterator[Segment]:
        """The same from `begin` back to `until`."""
        for block in range(begin // self.BLOCK_S, until // self.BLOCK_S - 1, -1):
            for segment in reversed(self.blocks.get(block) or self._load(block)):
                if segment.end <= until:
                    return
                if segment.start <= begin:
                    yield segment

    def _load(self, block: int) -> list[Segment]:
        begin, end = block * self.BLOCK_S, (block + 1) * self.BLOCK_S
        # Whatever the running clock did two days before the block is over when it begins.
        lead = begin - 2 * DAY_S
        edges = sorted({lead, begin, end, *self._changes(lead, end)})
        clock = lead + self.offset(lead)
        segments = []
        for start, stop in pairwise(edges):
            offset = self.offset(start)
            wall = start + offset
            run_from = clock if abs(wall - clock) <= MAX_LEAP_S else wall
            clock = max(run_from, stop + offset)
            if start >= begin:
                segments.append(Segment(start, stop, offset, (wall, stop + offset), (run_from, clock)))
        if len(self.blocks) >= self.MAX_BLOCKS:
            self.blocks.clear()
        self.blocks[block] = segments
        return segments

    def _changes(self, begin: int, end: int) -> Iterator[int]:
        """The first second of every new offset. No zone ever changed twice within a day."""
        if self.info.key == "UTC":
            return
        before = self.offset(begin)
        for start in range(begin, end, DAY_S):
            stop = min(start + DAY_S, end)
            after = self.offset(stop)
            if after != before:
                yield self._end_of(before, start, stop)
            before = after

    def _end_of(self, offset: int, begin: int, end: int) -> int:
        return begin + bisect_left(range(begin, end), True, key=lambda at: self.offset(at) != offset)

    def is_repeated(self, seconds: int, local: int) -> bool:
        """Whether this local time comes twice, this instant being one of the two."""
        others = (self.offset(seconds - DAY_S), self.offset(seconds + DAY_S))
        return any(local - other != seconds and self.offset(local - other) == other for other in others)

    def resolve(self, local: int) -> int | None:
        """The instant of a local time: the first of two, the leap's end if passed over, None beyond."""
        for segment in self.forward(local - 2 * DAY_S, local + 2 * DAY_S):
            begin, end = segment.run
            if local < end:
                return max(segment.start, local - segment.offset) if local >= begin else None
        return None


_known: dict[str, Zone] = {}  # as it was read last


@lru_cache(maxsize=1024)
def load_zone(name: str) -> Zone:
    """The zone of this name; the same object until zone data are read again. Raises Refusal."""
    try:
        if len(name) > MAX_ZONE:  # before it is looked for: each of its slashes goes one call deeper
            raise ValueError(name)
        if name.startswith(LEAPING):
            raise Refusal("bad-option", f'tz "{name}" counts leap seconds', "tz")
        _known[name] = Zone(zoneinfo.ZoneInfo(name))
        return _known[name]
    except (OSError, ValueError, LookupError) as error:  # no such file, a directory, not a zone, not a name
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            if name in _known:  # HUP must not make a task unreadable because there is no descriptor left
                return _known[name]
            raise Refusal("bad-option", f'tz "{name[:64]}": {error.strerror}', "tz") from None
        raise Refusal("bad-option", f'tz "{name[:64]}" is not a zone of the tz database', "tz") from None


def read_zones(directory: str, names: Iterable[str]) -> dict[str, Zone | None]:
    """The zones of another tzdata directory; None for one that it does not have, or not readably.

    Raises Refusal.
    """
    path = Path(directory)
    if not path.is_absolute():
        raise Refusal("bad-option", f'"{escape(directory[:200])}" is not an absolute path')
    try:
        is_directory = path.is_dir()
    except OSError as error:
        raise Refusal("bad-option", f'"{escape(directory[:200])}": {error.strerror}') from None
    if not is_directory:
        raise Refusal("bad-option", f'"{escape(directory[:200])}" is no directory on the daemon\'s machine')
    return {name: _read_zone(path / name, name) for name in names}


def _read_zone(path: Path, name: str) -> Zone | None:
    if name == "UTC":
        return load_zone(name)  # the same in all data, and many directories lack it
    try:
        # A name comes from a task, so it is one of the tz database and leads nowhere else.
        if not path.is_file() or path.stat().st_size > MAX_ZONE_BYTES:
            return None
        with path.open("rb") as file:
            return Zone(zoneinfo.ZoneInfo.from_file(file, key=name))
    except (OSError, ValueError, LookupError, struct.error, EOFError):
        return None


def parse_zone(text: str) -> str:
    """The name of an IANA zone; Refusal for what is none."""
    try:
        load_zone(text)
    except Refusal as refusal:
        raise Refusal(refusal.code, refusal.message + meant_zone(text), refusal.option) from None
    return text


_ALSO_ZONES = {
    "America/New_York": "edt", "America/Chicago": "cst cdt", "America/Denver": "mdt",
    "America/Los_Angeles": "pst pdt", "America/Anchorage": "akst akdt", "America/Sao_Paulo": "brt",
    "Europe/London": "bst", "Europe/Paris": "cest", "Europe/Athens": "eest", "Europe/Moscow": "msk",
    "Asia/Kolkata": "ist", "Asia/Shanghai": "china beijing peking", "Asia/Singapore": "sgt",
    "Asia/Hong_Kong": "hkt", "Asia/Tokyo": "jst", "Asia/Seoul": "kst", "Australia/Sydney": "aest aedt",
    "Pacific/Auckland": "nzst nzdt", "UTC": "z zulu",
}  # fmt: skip
_OFFSET = re.compile(r"(?:utc|gmt)?([+-])0?([0-9]{1,2})(?::?00)?")


def zone_called(word: str) -> str:
    """The same, where the word is just a city or an abbreviation."""
    hint = meant_zone(word)
    is_abbreviation = any(word.casefold() in words.split() for words in _ALSO_ZONES.values())
    return hint if hint.casefold().endswith(f"/{word.casefold()}?") or is_abbreviation else ""


def meant_zone(text: str) -> str:
    """`; did you mean Europe/Paris?` for a city, an abbreviation, an offset or a slip; or nothing."""
    return _nearest_zone(text) if len(text) <= MAX_ZONE else ""  # since what is asked for is remembered


@lru_cache(maxsize=256)
def _nearest_zone(text: str) -> str:
    word = re.sub("[ _-]+", "_", text.strip().casefold())
    if match := _OFFSET.fullmatch(text.strip().casefold()):
        # The zones of the database that are called after an offset have its sign reversed.
        return f"; did you mean Etc/GMT{'-' if match[1] == '+' else '+'}{match[2]}?"
    if exact := next((name for name in find_zones() if name.casefold() == word), ""):
        return f"; did you mean {exact}?"
    region, _, city = word.rpartition("/")
    names = sorted(find_zones(), key=lambda name: not name.casefold().startswith(region))
    cities = {name.rpartition("/")[2].casefold(): name for name in reversed(names)}
    alike = {each: name for each, name in cities.items() if each[0] == city[:1]}
    return meant(city, alike | {each: name for name, words in _ALSO_ZONES.items() for each in words.split()})


@lru_cache(maxsize=1)
def find_zones() -> tuple[str, ...]:
    """The names of all zones, as the package tzdata lists them, those in use before old ones."""
    spec = find_spec("tzdata")
    path = Path(spec.origin).with_name("zones") if spec and spec.origin else None
    names = path.read_text(encoding="ascii").split() if path and path.is_file() else []
    return tuple(sorted(names, key=lambda name: (not name.startswith(_CONTINENTS), name)))


_CONTINENTS = ("Africa/", "America/", "Asia/", "Atlantic/", "Australia/", "Europe/", "Indian/", "Pacific/")


@lru_cache(maxsize=1)
def data_version() -> str:
    """Which zone data is in use, and where it comes from; read again after `schedule.reload_zones`."""
    for directory in map(Path, zoneinfo.TZPATH):
        if (directory / "UTC").is_file():
            return f"{_directory_version(directory)} {directory}"
    package = find_spec("tzdata")
    if package is None or package.origin is None:
        return "none"
    return f"{_directory_version(Path(package.origin).with_name('zoneinfo'))} package tzdata"


def _directory_version(directory: Path) -> str:
    """What the data says of itself: Debian's `tzdata.zi` in its first line, other systems' `+VERSION`."""
    for name, pattern in (("tzdata.zi", r"# version (\S+)"), ("+VERSION", r"(\S+)")):
        with suppress(OSError), (directory / name).open(encoding="utf-8", errors="replace") as file:
            if match := re.match(pattern, file.readline(256)):
                return match[1]
    return "unknown"


# --- times and durations -----------------------------------------------------------------------

_HOUR = r"(?:[01]\d|2[0-3])"  # 24:00 is none, whatever a later Python makes of it
_TIME = re.compile(
    rf"\d{{4}}-\d\d-\d\d[Tt ]{_HOUR}:\d\d(:\d\d(\.\d{{1,9}})?)?([Zz]|[+-]{_HOUR}:[0-5]\d)?", re.ASCII
)


def parse_time(text: str, tz: str, now: datetime) -> datetime:
    """The instant meant by RFC 3339, or by a local date and time in `tz`; past ones too.

    `now` is what phrases ("in 10 minutes") will count from. A local time that comes twice
    is the first of the two; one that the clock leaps over is the leap's end.
    """
    if not _TIME.fullmatch(text):
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            refuse(f'time "{text}": at what time? as in "{text} 00:00"')
        hint = f', or "today at {text}"' if re.fullmatch(r"(?:[01]?[0-9]|2[0-3]):[0-5][0-9]", text) else ""
        refuse(f'time "{text[:64]}": write 2026-12-24T18:00:00Z, or "2026-12-24 18:00" for local time{hint}')
    try:
        at = datetime.fromisoformat(text.upper())
        if at.tzinfo:
            return at.astimezone(UTC)
        seconds = load_zone(tz).resolve((at.replace(tzinfo=UTC) - EPOCH) // SECOND)
    except (ValueError, OverflowError) as error:
        refuse(f'time "{text}": {error}')
    if seconds is None:
        refuse(f'time "{text}": there is no such time in {tz}')
    return to_instant(seconds) + timedelta(microseconds=at.microsecond)


_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_DURATION = re.compile("".join(rf"(?:([0-9]{{1,12}}){unit}(?![a-z]))?" for unit, _ in _UNITS))
_BARE_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,3})?")


def parse_duration(text: str) -> float:
    """Seconds: `30s` `5m` `1h` `2d` `250ms`, larger units first (`1h30m`), or a bare number.

    Raises Refusal.
    """
    if _BARE_SECONDS.fullmatch(text):
        seconds = float(text)
    elif text and (match := _DURATION.fullmatch(text)):
        seconds = sum(int(n or 0) * ms for n, (_, ms) in zip(match.groups(), _UNITS, strict=True)) / 1000
    elif re.fullmatch(r"[0-9]{9,}(?:ms|[smhd])?", text):
        seconds = float("inf")
    else:
        form = f'duration "{text[:64]}": write 30s, 5m, 1h30m, 2d, 250ms, or seconds'
        raise Refusal("bad-option", form + _meant_duration(text))
    if seconds > MAX_DURATION_S:
        raise Refusal("bad-option", f'duration "{text[:64]}" is longer than {MAX_DURATION_S // 86_400}d')
    return seconds


def _meant_duration(text: str) -> str:
    if not (match := re.fullmatch(r"([0-9]{1,6})[ _]*(ms|s|m(?!o|il)|h|d|w)[a-z]*", text.casefold())):
        return ""
    number, unit = int(match[1]), match[2]
    return f"; did you mean {number * 7}d?" if unit == "w" else f"; did you mean {number}{unit}?"


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as these seconds, to the millisecond."""
    left = round(seconds * 1000)
    words = []
    for unit, size in _UNITS:
        n, left = divmod(left, size)
        if n:
            words.append(f"{n}{unit}")
    return "".join(words) or "0s"
