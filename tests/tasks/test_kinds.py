"""What types mean by their commands and options; refusals in their words are in transcripts/kinds.txt."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cronflowd.base.errors import Refusal
from cronflowd.base.names import check_mail_address
from cronflowd.engine import facts as f
from cronflowd.engine.engine import Engine
from cronflowd.engine.orders import PlaceRuns
from cronflowd.engine.placement import accepts
from cronflowd.engine.state import State
from cronflowd.tasks.kinds import (
    MAX_RECIPIENTS,
    TYPES,
    WHOSE,
    check_command,
    parse_payload,
    split_recipients,
    split_words,
)
from cronflowd.tasks.options import DEFAULTS, RULES, set_options
from cronflowd.tasks.task import TaskSpec, make_spec, parse_record, task_record
from cronflowd.worker.executors.job import parse_order
from tests.lib.calls import calls_of

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
LINE = st.text(st.characters(blacklist_categories=["Cc", "Cs"]), max_size=40)


def make(kind: str, command: str, **words: str) -> TaskSpec:
    texts = {key.replace("__", "."): text for key, text in words.items()}
    return make_spec("x", "@daily", command, set_options(DEFAULTS, {"type": kind, **texts}), "UTC")


def test_whose_names_options_and_types_that_there_are() -> None:
    """A slip in the table would refuse what is good."""
    assert {key for key in WHOSE if not key.endswith(".X")} <= RULES.keys()
    assert {kind for kinds in WHOSE.values() for kind in kinds} <= set(TYPES)


@pytest.mark.parametrize(
    "address", ["a@b", "first.last+tag@mail.example.org", "o'neill@x.ie", "a@xn--bcher-kva.example"]
)
def test_an_address_is_taken(address: str) -> None:
    """As they are in use."""
    check_mail_address(address)


@pytest.mark.parametrize(
    "address",
    ["", "a", "@b", "a@", "a@b@c", "a b@c", "a@b.", "a@.b", ".a@b", "<a@b>", "Bob <a@b>", '"a b"@c', "ä@b",
     "a@b\r\nRCPT TO:<c@d>", "a@[127.0.0.1]", "a@" + "b" * 64, "a@" + ".".join(["b" * 60] * 5)],
)  # fmt: skip
def test_what_is_no_address_is_refused(address: str) -> None:
    """It is handed to a mail server as it is."""
    with pytest.raises(Refusal):
        check_mail_address(address)


def test_a_blank_after_a_handler_s_name_means_nothing() -> None:
    """As after any other command; the worker is looked for without it."""
    assert make("custom", "greet ").work == "custom:greet"
    with pytest.raises(Refusal):
        make("custom", "greet me")


def test_recipients_are_bounded_and_each_is_written_to_once() -> None:
    """A list that grows belongs on the mail server."""
    assert split_recipients("a@b, c@d,a@b") == ["a@b", "c@d"]
    check_command(",".join(f"a{n}@b" for n in range(MAX_RECIPIENTS)), "email")
    with pytest.raises(Refusal, match="more than 100"):
        check_command(",".join(f"a{n}@b" for n in range(MAX_RECIPIENTS + 1)), "email")


@pytest.mark.parametrize(
    "text", ['{"a": 1.0}', " [1, 2 ] ", '"text"', "5", "true", "null", '{"a": {"a": 1}}']
)
def test_a_payload_is_kept_as_it_is_written(text: str) -> None:
    """To read and write a number anew might change it."""
    assert parse_payload(text) == text


@pytest.mark.parametrize(
    "text",
    ["{", "{'a': 1}", "NaN", "[1,]", '{"a":1} x', '{"a":1,"a":2}', '[{"a":{"b":1,"b":1}}]', '"\\ud800"',
     "[" * 100_000, '{"a":' * 2000 + "1" + "}" * 2000],
)  # fmt: skip
def test_what_is_no_json_is_refused(text: str) -> None:
    """By name, and never with another exception."""
    with pytest.raises(Refusal) as caught:
        parse_payload(text)
    assert caught.value.code == "bad-option"


def test_a_record_may_hold_the_payload_itself_and_is_written_as_text() -> None:
    """A person writes JSON in JSON; the file holds what is sent."""
    record = {"schedule": "@daily", "command": "backup", "type": "custom", "payload": {"a": [1, "ü"]}}
    _, spec = parse_record(record, "UTC")
    assert spec.options.payload == '{"a":[1,"ü"]}'
    assert parse_record(task_record(7, spec), "UTC")[1] == spec


def test_headers_are_set_changed_and_taken_out_whatever_their_case() -> None:
    """HTTP does not tell Accept from accept, so two of them would be a riddle."""
    options = set_options(DEFAULTS, {"header.B": "2", "header.Accept": "a"})
    assert options.headers == (("Accept", "a"), ("B", "2"))
    options = set_options(options, {"header.ACCEPT": "b", "header.b": " "})
    assert options.headers == (("ACCEPT", "b"),)
    assert set_options(options, {"header.accept": ""}) == DEFAULTS


@pytest.mark.parametrize(
    ("can", "is_sent"),
    [(["custom"], True), (["custom:backup"], True), (["custom:other", "shell"], False), (["shell"], False)],
)
def test_a_custom_run_goes_to_who_has_the_handler(can: list[str], is_sent: bool) -> None:
    """A worker without it could only fail."""
    state = State("UTC")
    state.apply(f.WorkerJoined("w", 1, {}, can, "here", [], NOW), NOW, 1)
    assert accepts(state.workers["w"], make("custom", "backup").work, "any") is is_sent


@given(LINE, LINE, LINE, LINE, st.dictionaries(LINE, LINE, max_size=3))
def test_what_a_task_says_is_what_the_worker_reads(
    header: str, secret: str, tail: str, body: str, payload: dict[str, str]
) -> None:
    """Quotes, blanks, ` :` and backslashes in any value must not reach into the next one."""
    words = {"header.X-A": header, "payload": json.dumps(payload), "secret": f"s{secret}", "expect": "204"}
    hook = make("webhook", "http://localhost/?" + tail.replace(" ", "").replace("\\", ""), **words)
    put = make("http", "PUT http://localhost/", body=body)
    for spec in (hook, put):
        order = parse_order(_run_line(spec).removeprefix("RUN "))
        assert order.command == spec.command
        given_options = {key: text for key, text in spec.record.items() if key in order.options}
        assert given_options == {key: order.options[key] for key in given_options}
        for key in ("payload", "secret", "expect", "body", "header.X-A"):
            assert order.options.get(key) == spec.record.get(key)


def _run_line(spec: TaskSpec) -> str:
    engine = Engine(State("UTC"))
    told: list[f.Fact] = [
        f.TaskAdded(1, spec.record, NOW, None),
        f.WorkerJoined("w", 1, {}, list(TYPES), "here", [], NOW),
        f.RunQueued(1, 1, NOW, "manual"),
    ]
    for seq, fact in enumerate(told, 1):
        engine.state.apply(fact, NOW, seq)
    ((_, line),) = engine.decide(PlaceRuns([(1, "w")]), NOW).messages
    return line


@settings(deadline=None, max_examples=300)
@given(st.text(st.sampled_from("ab' \"\\\t\n\xa0é;$#"), max_size=12))
def test_words_are_those_of_a_posix_shell(command: str) -> None:
    """The same as the worker's, which runs them; also what is wrong with those that are none."""
    try:
        expected: Any = shlex.split(command)
    except ValueError as error:
        expected = str(error)
    try:
        found: Any = split_words(command)
    except ValueError as error:
        found = str(error)
    assert found == expected


def test_a_long_word_is_not_read_character_by_character() -> None:
    """One of 60,000 took 60 ms, at each start again: what stood before it was copied for each."""
    assert calls_of(lambda: check_command("x" * 60_000, "script")) < 30
