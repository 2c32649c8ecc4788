"""What pages are made of: templates, and the static files beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from litestar import MediaType, Request, Response, get
from litestar.params import FromPath
from markupsafe import Markup

from . import drawing, wording
from .terminal import lines_of

HERE = Path(__file__).parent
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
A_YEAR = "public, max-age=31536000, immutable"
DAY, MOMENT = timedelta(days=1), timedelta(milliseconds=1)


def _finalize(value: Any) -> Any:
    """Whatever stands in a page shows what it is: no control character, nothing that turns a line round."""
    if value is None:
        return ""
    return wording.visible(value) if type(value) is str else value


@pass_context
def _when(context: Context, text: str | None, style: str = "clock") -> Markup | str:
    """An instant as `<time>`: as the clock has it where the daemon is, or how long ago."""
    at = wording.parse_time(text)
    if at is None:
        return "–"
    now, zone = context["now"], context["zone"]
    shown = wording.ago(at, now) if style == "ago" else wording.clock(at, now, zone)
    exact = f"{at.astimezone(zone):%A %-d %B %Y %H:%M:%S %Z}"
    if style == "both":
        shown = f"{wording.clock(at, now, zone)} ({wording.ago(at, now)})"
    stamp = f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(stamp, exact, shown)


@pass_context
def _moment(context: Context, row: dict[str, Any]) -> Markup:
    """A row of NEXT: by the clock of the job's own zone, with its offset where that is not the daemon's."""
    at = datetime.fromisoformat(row["local_time_with_offset"])
    assert at.tzinfo
    offset = "" if at.utcoffset() == at.astimezone(context["zone"]).utcoffset() else f" {at:%z}"
    shown = wording.clock(at, context["now"], at.tzinfo, is_here=not offset)
    return Markup('<time datetime="{}">{}{}</time>').format(row["local_time_with_offset"], shown, offset)


@pass_context
def _span(context: Context, day: date) -> Markup:
    """A day where the daemon is, as an address says it: since when, and until when."""
    ends = (datetime(each.year, each.month, each.day, tzinfo=context["zone"]) for each in (day, day + DAY))
    since, until = (at.astimezone(UTC).replace(tzinfo=None) for at in ends)
    return Markup("since={}Z&amp;until={}Z").format(
        since.isoformat(), (until - MOMENT).isoformat(timespec="milliseconds")
    )


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates, parsed once."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do"],
    )
    made.filters |= {
        "when": _when,
        "duration": wording.duration,
        "moment": _moment,
        "span": _span,
        "took": wording.took,
        "later": Markup,
        "local": wording.local,
        "cause": wording.cause,
        "output": lines_of,
        "day_colour": drawing.colour_of_day,
    }
    made.tests["instant"] = wording.is_instant
    made.globals |= {"static": static_url, "plural": wording.plural, "level": drawing.level}
    return made


def render(template: str, context: Mapping[str, Any]) -> str:
    return environment().get_template(template).render(context)


def zone_of(name: str) -> ZoneInfo:
    """The daemon's zone, or UTC where this machine has no such data."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError):
        return ZoneInfo("UTC")


# --- static files ---------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def static_files() -> dict[str, tuple[bytes, str, str]]:
    """Those there are: bytes, type, and the tag that changes with them."""
    found = {}
    for path in sorted((HERE / "static").iterdir()):
        if path.suffix in TYPES:
            data = path.read_bytes()
            found[path.name] = (data, TYPES[path.suffix], hashlib.sha256(data).hexdigest()[:16])
    return found


def static_url(name: str) -> str:
    """The address of a file as it is now: what a browser keeps of it is never out of date."""
    return f"/static/{name}?v={static_files()[name][2]}"


@get("/static/{name:str}", sync_to_thread=False)
def static(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
    """A file; kept for a year where its address has its tag."""
    if name not in static_files():
        return Response(b"no such file\n", status_code=404, media_type=MediaType.TEXT)
    data, kind, tag = static_files()[name]
    kept = A_YEAR if request.query_params.get("v") == tag else "no-cache"
    headers = {"Cache-Control": kept, "ETag": f'"{tag}"'}
    if request.headers.get("if-none-match") == f'"{tag}"':
        return Response(b"", status_code=304, headers=headers, media_type=kind)
    return Response(data, headers=headers, media_type=kind)
