"""One request for a page: who asks, what the frame around every page tells, and the way on.

The frame is asked together with what the page itself wants, in one turn: who this is and what he
may do, whether everything is paused, and whether the daemon is well.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

from attrs import define, field
from litestar import MediaType, Response
from litestar.datastructures import FormMultiDict
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException
from litestar.response import Redirect, Stream

from ...base.errors import Refusal
from ...base.text import format_option
from .. import envelope
from ..envelope import Refused, as_refused
from ..identity import COOKIE, AnyRequest, address_of, by_cookie, caller_of, daemon_of, identity_of
from ..line import Answer, Unreachable, nobody
from ..rest import Asker
from ..talks import MAX_PAGE
from . import paper, wording

log = logging.getLogger("cronflowd.web")

Page = Response[str]

ROLES = ("viewer", "user", "operator", "admin")
THEMES = ("auto", "light", "dark")
LATER = "<!-- the rest -->"
FRAME = ("WHOAMI", "STATUS", "HEALTH")
ROWS = 50  # of a list, on one page

_INNER = re.compile(r"/(?![/\\])[^\x00-\x20\\]{0,500}")

# What a page may be asked to say when something was done; nobody else's words come in by an address.
DONE = {
    "added": "The job is added.",
    "changed": "The change is saved.",
    "unchanged": "Nothing was changed.",
    "removed": "The job is removed. Its history stays.",
    "paused": "Paused.",
    "resumed": "Resumed.",
    "started": "Started.",
    "cancelled": "Cancelled: the worker is told to end it.",
    "undone": "Taken back.",
    "rolled-back": "The job is as it was at that revision.",
    "draining": "The worker finishes what it has and takes nothing more.",
    "ready": "The worker takes runs again.",
    "saved": "Saved.",
    "ended": "Ended: whoever was signed in there has to sign in again.",
    "forgotten": "Nothing is expected of it any more.",
    "mailed": "If there is such an account, a mail with a link is on its way.",
    "reset": "The new password holds. Sign in with it.",
}


@define
class Visit(Asker):
    """What handlers are given."""

    csrf: str
    frame: dict[str, Any] = field(factory=dict)

    # --- questions ---

    async def look(self, *lines: str) -> list[Answer]:
        """The answers to these lines; those for the frame are asked with them."""
        answers = await self.ask_all(*FRAME, *lines)
        who, status, health = answers[: len(FRAME)]
        self.frame = frame_of(who, status, health)
        return answers[len(FRAME) :]

    async def read(self, line: str) -> Answer:
        """The answer to the one line that a page is about; raises Refusal."""
        (answer,) = await self.look(line)
        return answer.check()

    def only(self, is_allowed: bool) -> None:
        """Raises Refusal: nobody fills in a form that would be refused."""
        if not is_allowed:
            raise Refusal("denied", f"the role {self.frame['role']} does not change this")

    # --- what was asked for ---

    def query(self, key: str, default: str = "") -> str:
        return str(self.request.query_params.get(key, default)).strip()

    @property
    def number(self) -> int:
        """Of the page of a list, from 1."""
        text = self.query("page", "1")
        return max(1, min(int(text), MAX_PAGE)) if text.isdecimal() and len(text) < 9 else 1

    @property
    def span(self) -> str:
        """limit= and offset= of this page, and the wish to know how many there are."""
        return f"limit={ROWS} offset={(self.number - 1) * ROWS} count=yes"

    @property
    def one_more(self) -> str:
        """The same of a list that is not counted: one more than is shown tells whether there are more."""
        return f"limit={ROWS + 1} offset={(self.number - 1) * ROWS}"

    def asked(self, **fits: Callable[[str], object]) -> dict[str, str]:
        """What an address asks for, as options of a line; one whose value does not fit is as not said."""
        found = {key: self.query(key) for key in fits}
        return {key: value if fits[key](value) else "" for key, value in found.items()}

    def options(self, **values: str) -> str:
        """Words of a line: those that say something."""
        return " ".join(format_option(key, value) for key, value in values.items() if value)

    async def form(self) -> dict[str, str]:
        """What was filled in, without blanks around it; CR LF of text areas as newlines."""
        form: FormMultiDict = await self.request.form()
        return {
            key: value.replace("\r\n", "\n").strip() for key, value in form.items() if isinstance(value, str)
        }

    # --- answers ---

    def page(
        self,
        template: str,
        *nc: str,
        status: int = 200,
        error: Refusal | Refused | None = None,
        **context: Any,
    ) -> Page:
        """The page; `nc`: the lines that tell the same to netcat; `error`: what was refused, as it tells."""
        wrong = getattr(error, "option", "")  # the field that it is about
        whole = self._context(nc) | self.frame | {"wrong": wrong} | context | {"error": error}
        if error:
            status = getattr(error, "status", 422)
        return Response(paper.render(template, whole), status_code=status, media_type=MediaType.HTML)

    def stream(
        self, template: str, *nc: str, later: Callable[[], Awaitable[dict[str, Any]]], **context: Any
    ) -> Stream:
        """The page in two pieces: its beginning at once, and the rest when the daemon has looked for it.

        What stands in old files takes as long as it takes. `x.html` is followed by `x_later.html`, within the
        same main part, and by the frame's end.
        """
        whole = self._context(nc) | self.frame | context
        begin, _, end = paper.render(template, whole | {"later": LATER}).partition(LATER)

        async def pieces() -> AsyncGenerator[bytes, None]:
            yield begin.encode()
            try:
                rest = paper.render(template.replace(".", "_later."), whole | await later())
            except (Refusal, Unreachable) as error:
                rest = paper.render("refused.html", whole | {"message": str(error)})
            except Exception:
                log.exception("%s", self.request.url.path)
                rest = paper.render("refused.html", whole | {"message": "a fault of ours"})
            yield (rest + end).encode()

        return Stream(pieces(), media_type=MediaType.HTML)

    def sure(self, line: str, what: str, text: str, button: str, back: str, **form: str) -> Page:
        """Asks before anything is gone; `form` is sent to the same path by whoever is sure."""
        return self.page("sure.html", line, title=what, text=text, button=button, back=back, sent=form)

    def go(self, path: str, done: str = "") -> Redirect:
        """On to another page, which says what was done."""
        mark = "&" if "?" in path else "?"
        return Redirect(path + (f"{mark}{urlencode({'done': done})}" if done else ""), status_code=303)

    def _context(self, nc: tuple[str, ...]) -> dict[str, Any]:
        theme = self.request.cookies.get("theme", "auto")
        query = [(key, value) for key, value in self.request.query_params.multi_items() if key != "done"]
        return {
            "path": self.request.url.path,
            "here": self.request.url.path + (f"?{urlencode(query)}" if query else ""),
            "second_word": self.csrf,
            "theme": theme if theme in THEMES else "auto",
            "nc": nc,
            "nc_of": self.netcat,
            "done": DONE.get(self.query("done"), ""),
            "link": self.link,
            "rows_a_page": ROWS,
            "number": self.number,
            "later": "",
            "name": "",
            "role": "",
            "may": lambda _: False,
            "health": "",
            "paused_all": None,
            "form": {},  # what was filled in and refused
        }

    def netcat(self, line: str) -> str:
        """What a shell is told to say the same."""
        path = self.daemon.where.removeprefix("unix:")
        host, _, port = path.rpartition(":")
        where = f"-NU {shlex.quote(path)}" if path != self.daemon.where else f"{host.strip('[]')} {port}"
        return f"echo {shlex.quote(line)} | nc {where}"

    def link(self, **changes: Any) -> str:
        """This page with other words in its address; an empty one takes the word away."""
        query = {
            key: value for key, value in self.request.query_params.items() if key not in ("done", "page")
        }
        query |= changes
        words = urlencode({key: value for key, value in query.items() if value not in ("", None)})
        return self.request.url.path + (f"?{words}" if words else "")


def frame_of(who: Answer, status: Answer, health: Answer) -> dict[str, Any]:
    """What every page tells around what it is about."""
    role = str(who.status.get("role", ""))
    rank = ROLES.index(role) if role in ROLES else -1
    pairs = status.check().pairs
    return {
        "name": who.status.get("name", ""),
        "role": role,
        "may": lambda wanted: rank >= ROLES.index(wanted),
        "status": pairs,
        "now": wording.parse_time(pairs["now"]),
        "zone": paper.zone_of(pairs["zone"]),
        "zone_name": pairs["zone"],
        "paused_all": wording.pause_of(pairs.get("paused-all")),
        "health": "" if health.status["ok"] else health.status["message"],
    }


def inner(path: str) -> str:
    """Where to go on: a path of ours, and nobody else's address."""
    return path if _INNER.fullmatch(path) else "/"


Visitor = NamedDependency[Visit]


async def make_visit(request: AnyRequest) -> Visit:
    """The visit of whoever is signed in; raises Refused."""
    caller = await caller_of(request)
    who = by_cookie(request)
    return Visit(request, daemon_of(request), caller, identity_of(request).csrf(who) if who else "")


def make_guest(request: AnyRequest) -> Visit:
    """The visit of somebody who has not signed in yet."""
    return Visit(request, daemon_of(request), nobody(address_of(request)), "")


# --- what went wrong ------------------------------------------------------------------------------


# What a form sends goes to the page itself, or below the page of one thing.
_SENT_FROM = re.compile(
    r"/(?:users|tokens|secrets|sessions|undo|workers|heartbeats|line)\b|/(?:jobs|runs|flows)/[A-Za-z0-9._-]+(?:/edit\b)?"
)
TITLES = {
    400: "That cannot be done as it was said", 403: "You may not do this", 404: "There is no such thing",
    405: "There is no such thing", 409: "Something is in the way", 500: "That is a fault of ours",
    503: "The daemon takes no changes now",
}  # fmt: skip


def on_error(request: AnyRequest, error: Exception) -> Response[Any]:
    """As a page for whoever reads those; what the framework refuses, for all others as the API says it."""
    is_page = "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")
    if isinstance(error, HTTPException) and not is_page:
        return envelope.on_error(request, error)
    refused = as_refused(request, error)
    status, message = refused.status, refused.message
    if status == 401:
        return to_sign_in(request)
    title, back = TITLES.get(status, "That did not work"), sent_from(request)
    if isinstance(error, Unreachable):
        again = (
            "What you sent may not be done: load this page again to send it again"
            if back
            else "This page looks again by itself"
        )
        title, message = "The daemon does not answer", f"{error}. {again}."
    elif isinstance(error, HTTPException):
        message = error.detail
    answer = make_guest(request).page(
        "sorry.html", status=status, title=title, message=message, code=status, back=back
    )
    answer.headers |= getattr(error, "headers", None) or {}  # of 405, which methods there are
    return answer


def sent_from(request: AnyRequest) -> str:
    """The page that a form was sent from, or one that is about the same; empty where nothing was sent."""
    if request.method in ("GET", "HEAD"):
        return ""
    found = _SENT_FROM.match(request.url.path)
    return found[0] if found else "/"


def to_sign_in(request: AnyRequest) -> Redirect:
    """First who you are, then back here; whoever was signed in is told that he is no longer."""
    back = sent_from(request)
    path = back or request.url.path + (f"?{request.url.query}" if request.url.query else "")
    words = {"over": ("sent" if back else "yes") if request.cookies.get(COOKIE) else ""}
    words |= {"next": path if path != "/" else ""}
    said = urlencode({key: value for key, value in words.items() if value})
    return Redirect(f"/login?{said}" if said else "/login", status_code=303)
