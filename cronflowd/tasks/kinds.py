"""What each type of work means by its command and its options, checked when a task is added.

Whatever could not be carried out is refused here, while the one who wrote it is still
listening; the executors say how it is done. To add a type: its name in TYPES, the options
it knows in WHOSE, its command in `_COMMANDS`, rows in protocol.md, and an executor.

A definition names a secret: `secret:NAME` as a whole value, or `{{secret:NAME}}` inside one. The name alone
stands in definitions, and so wherever these are shown or kept; see engine/secrets.py.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import orjson

from ..base.errors import Refusal, naming, naming_option
from ..base.names import NAME, check_form, check_mail_address
from ..base.text import CONTROL, escape
from . import arithmetic

# --- how a definition names a secret --------------------------------------------------------------


WHOLE = re.compile(rf"secret:({NAME})")
INSIDE = re.compile(rf"\{{\{{secret:({NAME})\}}\}}")
_MEANT = re.compile(r"\{\{secret:(.*?)(?:\}\}|$)")
TAKES = ("payload", "body", "stdin", "secret")  # options that may name one, beside env.X and header.X


def is_whole(text: str) -> bool:
    """Whether the value is nothing but a secret's."""
    return WHOLE.fullmatch(text) is not None


def names_in(texts: Iterable[str]) -> tuple[str, ...]:
    """The secrets that are named in these values, sorted."""
    found: set[str] = set()
    for text in texts:
        if "secret:" in text:
            whole = WHOLE.fullmatch(text)
            found.update([whole[1]] if whole else INSIDE.findall(text))
    return tuple(sorted(found))


def check_reference(key: str, text: str) -> None:
    """Raises Refusal (`bad-option`) for a reference whose name no secret can have."""
    if not (key in TAKES or key.startswith(("env.", "header."))):
        return
    meant = [text.removeprefix("secret:")] if text.startswith("secret:") else _MEANT.findall(text)
    for name in meant:
        with naming_option(escape(key)):
            check_form(name, "secret's name")


# --- types ------------------------------------------------------------------------------


MAX_COMMAND_BYTES = 60_000  # leaves room for the options on the worker's RUN line
MAX_RECIPIENTS = 100

TYPES = ("shell", "script", "http", "webhook", "email", "custom", "echo", "sleep", "calculate")
PROGRAMS = ("shell", "script")  # types whose command begins with the name of a program
# Who knows an option that is not for all. `echo` and `sleep` pass over cwd= and env.X=, since
# they always did.
WHOSE: dict[str, tuple[str, ...]] = {
    "payload": ("http", "webhook", "email", "custom"),
    "header.X": ("http", "webhook"),
    "body": ("http",),
    "expect": ("http", "webhook"),
    "secret": ("webhook", "email"),
    "stdin": PROGRAMS,
    "user": (*PROGRAMS, "custom"),
    "cwd": (*PROGRAMS, "custom", "echo", "sleep"),
    "env.X": (*PROGRAMS, "custom", "echo", "sleep"),
}
METHODS = frozenset("GET HEAD POST PUT PATCH DELETE OPTIONS TRACE".split())
# What frames a request, or is one connection's affair: the worker writes it.
_OUR_HEADERS = frozenset("connection content-length expect te trailer transfer-encoding upgrade".split())
_WEBHOOK_HEADERS = frozenset("content-type cronflow-signature idempotency-key".split())

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")  # RFC 9110: a method, a header's name
_STATUSES = re.compile(r"([1-9][0-9]{2})(?:-([1-9][0-9]{2}))?")
_NOT_IN_MAIL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


# --- commands ---------------------------------------------------------------------------


def check_command(command: str, kind: str) -> None:
    """Raises Refusal (`syntax`) for a command that could not travel verbatim or says nothing."""
    try:
        if match := CONTROL.search(command):
            character, column = escape(match[0]), match.start() + 1
            why = f"the command holds the control character {character} at column {column}"
            hint = "; it is one line: several belong in a file, or in stdin=" if character == "\\n" else ""
            raise Refusal("syntax", why + hint)
        if not command or command.isspace():
            raise Refusal("syntax", "the command is empty")
        if len(command) > MAX_COMMAND_BYTES // 4 and len(command.encode()) > MAX_COMMAND_BYTES:
            raise Refusal("too-long", f"the command is longer than {MAX_COMMAND_BYTES} bytes")
        if check := _COMMANDS.get(kind):
            check(command)
    except Refusal as refusal:
        refusal.option = "command"
        raise


def split_words(command: str) -> list[str]:
    """What `shlex.split` gives, which takes the longer for each character the longer its word is.

    Raises ValueError.
    """
    words: list[str] = []
    parts: list[str] = []
    for part in _PARTS.finditer(command):
        blank, plain, escaped, single, double, cut, other = part.groups()
        if cut is not None or other:
            raise ValueError("No escaped character" if "\\" in (cut, other) else "No closing quotation")
        if not blank:
            parts.append(plain or escaped or single or (_ESCAPED.sub(r"\1", double) if double else ""))
        elif parts:
            words.append("".join(parts))
            parts.clear()
    return [*words, "".join(parts)] if parts else words


_PARTS = re.compile(
    r"""([ \t\r\n]++)|([^'"\\ \t\r\n]++)|\\(.)|'([^']*+)'|"((?:[^"\\]++|\\.)*+)(?:"|(\\?+\Z))|(.)""",
    re.DOTALL,
)
_ESCAPED = re.compile(r'\\(["\\])')


def _check_script(command: str) -> None:
    try:
        split_words(command)
    except ValueError as error:
        raise Refusal("syntax", f"type=script wants words as POSIX splits them: {error}") from None


def _check_sleep(command: str) -> None:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", command.strip()):
        raise Refusal("syntax", f'type=sleep wants a number of seconds, not "{escape(command[:40])}"')


def split_request(command: str) -> tuple[str, str]:
    """`METHOD URL` as its two words; a known method in upper case, however it was written."""
    method, _, url = command.strip().partition(" ")
    known = method.upper()
    return (known if known in METHODS else method), url.strip()


def _check_http(command: str) -> None:
    method, url = split_request(command)
    if not url or not _TOKEN.fullmatch(method):
        shown = escape(command[:40])
        raise Refusal(
            "syntax", f'type=http wants METHOD URL, such as GET https://example.org/, not "{shown}"'
        )
    if method.upper() == "CONNECT":
        raise Refusal("syntax", "CONNECT asks for a tunnel, which is no job")
    check_url(url)


def check_url(url: str) -> None:
    """Raises Refusal (`syntax`) for what no request can be sent to."""
    why = _url_fault(url)
    if why:
        raise Refusal("syntax", f'the URL "{escape(url[:80])}" {why}')


def _url_fault(url: str) -> str:
    if re.search(r"[ \t\\]", url):
        return "holds a blank or a backslash; write %20 or %5C"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return f"cannot be read: {error}"
    if parts.scheme not in ("http", "https"):
        return "does not begin with http:// or https://"
    if not parts.hostname:
        return "names no host"
    if "@" in parts.netloc:
        # A command is shown by LIST and WATCH, and in a worker's process list.
        return "holds a user or a password, which everybody would read in LIST; use header.Authorization="
    return ""


def split_recipients(command: str) -> list[str]:
    """The addresses of an email, each once."""
    return list(dict.fromkeys(word.strip() for word in command.split(",")))


def _check_email(command: str) -> None:
    recipients = split_recipients(command)
    if len(recipients) > MAX_RECIPIENTS:
        raise Refusal("syntax", f"more than {MAX_RECIPIENTS} recipients")
    for address in recipients:
        with naming("type=email wants addresses, comma between", "syntax"):
            check_mail_address(address)


def _check_custom(command: str) -> None:
    if not re.fullmatch(NAME, command.strip()):
        form = "1 to 64 letters, digits, `.`, `_` or `-`"
        raise Refusal("syntax", f'type=custom wants a handler\'s name, {form}, not "{escape(command[:40])}"')


_COMMANDS: dict[str, Callable[[str], object]] = {
    "script": _check_script,
    "sleep": _check_sleep,
    "http": _check_http,
    "webhook": lambda command: check_url(command.strip()),
    "email": _check_email,
    "custom": _check_custom,
    "calculate": arithmetic.parse,
}


# --- options: each by itself ------------------------------------------------------------


def parse_payload(text: str) -> str:
    """One JSON value, kept as it was written. Refusal (`bad-option`) for anything else."""
    if is_whole(text):
        return text  # looked at when the secret takes its place
    try:
        value = orjson.loads(text)
        # The decoder lets the last of two equal keys win; a slip must not pass so quietly.
        if isinstance(value, dict | list):
            json.loads(text, object_pairs_hook=refuse_duplicates("bad-option"))
    except RecursionError:
        raise Refusal("bad-option", "JSON in JSON in JSON, too deep to be a payload") from None
    except ValueError as error:
        raise Refusal("bad-option", f"not a JSON value: {error}") from None
    return text


def parse_meta(text: str) -> str:
    """The same of a JSON object, in which no secret takes a place. Raises Refusal."""
    if is_whole(text) or not parse_payload(text).lstrip().startswith("{"):
        raise Refusal("bad-option", f'"{escape(text[:40])}" is not a JSON object')
    return text


def refuse_duplicates(code: str) -> Callable[[list[tuple[str, Any]]], None]:
    """What json.loads is to be given, so that no key of an object stands in it twice."""

    def look(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            same = key.lower() if key.startswith("header.") else key  # whose names are the same in any case
            if same in seen:
                shown = escape(key[:80])
                raise Refusal(code, f'the key "{shown}" is given twice', shown)
            seen.add(same)

    return look


def parse_expect(text: str) -> str:
    """`200-299`, `200,204,301`: checked, and kept as it was written."""
    for word in text.split(","):
        match = _STATUSES.fullmatch(word)
        if not match or (match[2] and match[2] < match[1]):
            hint = f"; did you mean {word[0]}00-{word[0]}99?" if re.fullmatch("[1-5](?:xx|XX)", word) else ""
            raise Refusal(
                "bad-option", f'"{escape(word[:40])}" is not a status such as 204, or 200-299{hint}'
            )
    return text


def expects(text: str, status: int) -> bool:
    """Whether a status is one of those in an expect=."""
    for word in text.split(","):
        low, _, high = word.partition("-")
        if int(low) <= status <= int(high or low):
            return True
    return False


def parse_stdin(text: str) -> str:
    """Bytes in base64; or a secret, whose value they are. Raises Refusal."""
    if is_whole(text):
        return text
    try:
        b64decode(text, validate=True)
    except ValueError as error:
        raise Refusal("bad-option", f'"{escape(text[:40])}" is not base64: {error}') from None
    return text


def parse_secret(text: str) -> str:
    """Any text but the stars that GET shows in its place. Raises Refusal."""
    if not text.strip(" \t"):
        raise Refusal("bad-option", "a secret of blanks is none")
    if not text.strip("*"):
        raise Refusal("bad-option", "stars are what GET shows in place of a secret")
    return text


def check_header_name(name: str) -> None:
    """Raises Refusal (`bad-option`) for what is no header's name, or not the task's to write."""
    if not _TOKEN.fullmatch(name):
        why = f'header.{escape(name)}: "{escape(name[:80])}" is not a header\'s name'
        raise Refusal("bad-option", why, f"header.{name}")
    if name.lower() in _OUR_HEADERS:
        raise Refusal("bad-option", f"header.{name}: the worker itself writes this header", f"header.{name}")


# --- options: together ------------------------------------------------------------------


def check_options(kind: str, given: Iterable[str]) -> None:
    """Raises Refusal (`bad-option`) for an option of WHOSE that means nothing for this type."""
    for key in given:
        if kind not in (whose := WHOSE[rule_of(key)]):
            what = f"{key}= means nothing for type={kind}; it is for {', '.join(whose)}"
            raise Refusal("bad-option", what, key)


def rule_of(key: str) -> str:
    """`env.X` of `env.PATH`: how WHOSE has an option that is one of many."""
    return re.sub(r"\..*", ".X", key)


def check_request(kind: str, payload: str, body: str, headers: Iterable[str]) -> None:
    """What the options of http, webhook, email and custom must be together. Raises Refusal."""
    if payload and body:
        raise Refusal("bad-option", "body= and payload= are both the body; give one of them", "body")
    if kind == "webhook":
        for name in headers:
            if name.lower() in _WEBHOOK_HEADERS:
                raise Refusal(
                    "bad-option", f"header.{name}: a webhook writes this header itself", f"header.{name}"
                )
    if payload and is_whole(payload):
        return
    if payload and kind != "http" and not payload.lstrip().startswith("{"):
        raise Refusal("bad-option", f"payload=: type={kind} wants a JSON object", "payload")
    if kind == "email":
        _check_mail(payload)


def _check_mail(payload: str) -> None:
    content = orjson.loads(payload or "{}")
    for key, text in content.items():
        if key not in ("subject", "text", "html"):
            raise Refusal("bad-option", f'payload=: an email has no "{escape(key[:40])}"', "payload")
        if not isinstance(text, str):
            raise Refusal("bad-option", f'payload=: "{key}" is not a text', "payload")
        # A line end in the subject would begin another header.
        if match := (CONTROL if key == "subject" else _NOT_IN_MAIL).search(text):
            raise Refusal(
                "bad-option", f'payload=: "{key}" holds the control character {escape(match[0])}', "payload"
            )
    if not (content.get("text") or content.get("html")):
        raise Refusal(
            "bad-option", 'type=email needs payload={"subject": …, "text": …}, or "html"', "payload"
        )
