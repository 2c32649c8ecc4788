"""notify= and its limit in words: what is read, what is refused, and how it is kept."""

from __future__ import annotations

import pytest

from cronflowd.base.errors import Refusal
from cronflowd.tasks.targets import USUAL, parse_limit, parse_notify, parse_target
from cronflowd.tasks.task import parse_record, task_record


@pytest.mark.parametrize(
    ("text", "form", "address", "events"),
    [
        ("mailto:ops@example.org", "mail", "ops@example.org", USUAL),
        ("failure:mailto:a@b", "mail", "a@b", {"failure"}),
        ("first+lost:https://x.org/?a=b:c", "webhook", "https://x.org/?a=b:c", {"first", "lost"}),
        ("http://localhost:8080/mailto:a", "webhook", "http://localhost:8080/mailto:a", USUAL),
        ("worker:slack+https://x.org/", "slack", "https://x.org/", {"worker"}),
    ],
)
def test_a_target_is_read(text: str, form: str, address: str, events: set[str]) -> None:
    """Events, then a colon, then what looks like any address of that kind."""
    target = parse_target(text)
    assert (target.form, target.address, target.events) == (form, address, events)


@pytest.mark.parametrize(
    "text",
    ["", "mailto:", "mailto:a", "ftp://x", "https://", "slack+mailto:a@b", "failure:", "x:mailto:a@b",
     "failure+:mailto:a@b", "mailto:a@b,", "mailto:a@b,none", "worker:mailto:a@b", "https://x/" + "a" * 5000,
     ",".join(["mailto:a@b"] * 11), "https://me:secret@x/", "slack+https://x /"],
)  # fmt: skip
def test_what_cannot_be_told_is_refused_when_it_is_said(text: str) -> None:
    """Nobody looks whether a notification would work until he needs it."""
    with pytest.raises(Refusal) as caught:
        parse_notify(text)
    assert caught.value.code == "bad-option"


@pytest.mark.parametrize("text", ["", "10", "0/1h", "x/1h", "1/0s", "1/x", "-1/1h"])
def test_a_limit_is_a_number_and_a_time(text: str) -> None:
    """A limit of nothing would be a way to switch all of it off by mistake."""
    with pytest.raises(Refusal):
        parse_limit(text)


@pytest.mark.parametrize("text", ["https://x/?a=1,2", "mailto:a@b,https://x/,y", "slack+https://x/,none"])
def test_a_comma_in_a_url_is_told_how_to_write(text: str) -> None:
    """What stands after it looks like a target that nobody wrote."""
    with pytest.raises(Refusal, match="write %2C for a comma in a URL"):
        parse_notify(text)
    assert len(parse_notify("https://x/?a=1%2C2").targets) == 1


def test_notify_is_kept_in_files() -> None:
    """As every option, in the words in which it was said."""
    words = "failure:https://example.org/,lost:mailto:a@example.org"
    _, spec = parse_record({"schedule": "@daily", "command": "x", "notify": words}, "UTC")
    assert task_record(1, spec)["notify"] == words
