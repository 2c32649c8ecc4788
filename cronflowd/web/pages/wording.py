"""What the daemon said, as people read it. Its clock and zone are given: nothing here has one."""

from __future__ import annotations

import re
from datetime import MAXYEAR, MINYEAR, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from ..line import Row

# What a browser would not show, or would let turn the line round; tab and newline are shown as they are.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u061c\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
BAD = ("failed", "timeout", "lost", "missed")  # how a fire ends that somebody has to look at
SECONDS_SHOWN_S = 600  # near now, seconds tell things apart; later they are in the way
EVENING_HOUR = 18  # when last night begins


def visible(text: str) -> str:
    """The text with what cannot be seen written out, so that it is what it looks like."""
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text) if _UNSEEN.search(text) else text


def parse_time(text: str | None) -> datetime | None:
    """An instant as the daemon writes it."""
    return datetime.fromisoformat(text) if text else None


def duration(seconds: float | None) -> str:
    """`3 min 12 s`: the two largest units, which is all that anybody reads."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    left = round(seconds)
    words: list[str] = []
    for size, unit in UNITS:
        if left >= size and len(words) < 2:
            words.append(f"{left // size} {unit}")
            left %= size
        elif words:
            break
    return " ".join(words)


def is_instant(text: str) -> bool:
    """Whether it is a time as the daemon tells them, and not one that counts from now, or none."""
    try:
        at = parse_time(text)
    except ValueError:
        return False
    # In the first and the last year, the clock of another zone may show a time that is none.
    return at is not None and at.tzinfo is not None and MINYEAR < at.year < MAXYEAR


def took(row: Row) -> float | None:
    """How many seconds an attempt ran, where it did."""
    started, ended = parse_time(row.get("started")), parse_time(row.get("ended"))
    return (ended - started).total_seconds() if started and ended else None


def ago(at: datetime, now: datetime) -> str:
    """`14 h ago`, `in 5 min`: one unit."""
    seconds = (now - at).total_seconds()
    size, unit = next(((size, unit) for size, unit in UNITS if abs(seconds) >= size), (1, "s"))
    number = int(abs(seconds) // size)
    if not number:
        return "now"
    return f"{number} {unit} ago" if seconds > 0 else f"in {number} {unit}"


def clock(at: datetime, now: datetime, zone: tzinfo, is_here: bool = True) -> str:
    """`02:30`, `yesterday 02:30`, `Mon 2 Nov 02:30`: as much of the day as is needed.

    Elsewhere it may be tomorrow already: of a zone that is not the reader's the day is called by its name.
    """
    local, today = at.astimezone(zone), now.astimezone(zone)
    days = (local.date() - today.date()).days
    is_near = local.second and abs((now - at).total_seconds()) < SECONDS_SHOWN_S
    time = f"{local:%H:%M:%S}" if is_near else f"{local:%H:%M}"
    if days in (-1, 0, 1) and is_here:
        return ("yesterday ", "", "tomorrow ")[days + 1] + time
    if (0 if not is_here else 2) <= days < 7:
        return f"{local:%a} {time}"
    year = f" {local:%Y}" if local.year != today.year else ""
    return f"{local:%a} {local.day} {local:%b}{year} {time}"


def local(text: str | None) -> str:
    """`Sun 28 Mar 2027 02:30 +01:00`: a local time as it is told, in whatever zone."""
    if not text:
        return "–"
    at = datetime.fromisoformat(text)
    return f"{at:%a} {at.day} {at:%b %Y %H:%M} {text[-6:]}"


def evening_before(now: datetime, zone: ZoneInfo) -> datetime:
    """When last night began: yesterday at 18:00, where the daemon is."""
    day = now.astimezone(zone).date() - timedelta(days=1)
    return datetime(day.year, day.month, day.day, EVENING_HOUR, tzinfo=zone)


def plural(number: int, one: str, many: str = "") -> str:
    """`1 job`, `2 jobs`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def verdict(problems: list[Row], ran: int, wrong: int, pending: int, late: int, jobs: int) -> tuple[str, str]:
    """The one sentence that is read first: (`good`, `bad` or `quiet`; the sentence without its time).

    Of `wrong` fires that are no problem now it is not known yet whether their jobs went well the next time.
    """
    words = []
    for state, verb in (("failed", "failed"), ("timeout", "ran out of time"), ("lost", "was lost")):
        if number := sum(row["state"] == state for row in problems):
            words.append((number, verb))
    if number := sum(row["state"] == "missed" for row in problems):
        words.append((number, "was missed" if number == 1 else "were missed"))
    if late:
        words.append((late, "is silent" if late == 1 else "are silent"))
    if words:
        number, verb = words[0]
        noun = "job" if verb not in ("is silent", "are silent") else "heartbeat"
        first = f"{plural(number, noun)} {_were(verb, number)}"
        return "bad", ", ".join([first, *(f"{number} {_were(verb, number)}" for number, verb in words[1:])])
    if wrong:
        return "quiet", f"{plural(ran, 'run')} went well, {wrong:,} did not" if ran else "Nothing went well"
    if not jobs and not ran:
        return "quiet", "Nothing is scheduled yet"
    if not ran:
        return "quiet", "Nothing has run" if not pending else "Nothing has ended"
    return "good", f"All {plural(ran, 'run')} went well" if ran > 1 else "The one run went well"


def _were(verb: str, number: int) -> str:
    return verb.replace("was ", "were ") if number > 1 else verb


def cause(row: Row) -> str:
    """Why it ended so, in a line: what the daemon knows, and the exit status where it says more."""
    why, code = row.get("why"), row.get("exit")
    if row.get("state") == "cancelled" and not why:
        return ""  # somebody wanted it so
    if why and code not in (None, 0) and not str(why).startswith("killed by"):
        return f"{why} (exit {code})"
    return str(why) if why else f"exit {code}, and it wrote no reason" if code else ""


def pause_of(text: str | None) -> Row | None:
    """GET's `yes until TIME: why` as values; None where it is not paused."""
    match = re.fullmatch(r"yes(?: until (\S+?))?(?:: (.*))?", text or "", re.DOTALL)
    return {"until": match[1], "why": match[2] or ""} if match else None
