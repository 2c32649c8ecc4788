"""What a client writes costs no more than its length: twice the line, about twice the work.

The work is the thread's own processor time, where it matters the least of some tries, so that a
busy machine does not count. Each line is tried long and four times as long: a square shows as sixteen
times the work, and what is over in a few milliseconds even at its longest harms nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from time import thread_time

import pytest

from cronflowd.ask import commands, grammar, listing
from cronflowd.ask import questions as q
from cronflowd.base.errors import Refusal
from cronflowd.engine import orders as o
from cronflowd.net.lines import MAX_LINE_BYTES
from cronflowd.tasks import crontab
from tests.lib.engine_driver import Driver

LONG = MAX_LINE_BYTES - 1000
HARMLESS_S = 0.012  # a slice is 5 ms; this leaves room for a slow machine
MOST = 7.5  # times the work of a quarter: it would be 4, and 16 for a square

Maker = Callable[[int], str]


def repeated(text: str, before: str = "", after: str = "") -> Maker:
    return lambda size: before + text * max(1, (size - len(before) - len(after)) // len(text)) + after


def numbered(form: str, before: str = "", after: str = "") -> Maker:
    def make(size: int) -> str:
        length = len(form.format(n=10_000))
        words = (form.format(n=10_000 + n) for n in range(max(1, (size - len(before)) // length)))
        return before + "".join(words) + after

    return cache(make)  # for the next verb, too


def nested(begin: str, end: str, before: str = "") -> Maker:
    return lambda size: before + begin * (size // len(begin + end)) + "1" + end * (size // len(begin + end))


def framed(before: str, make: Maker, after: str = "") -> Maker:
    return lambda size: before + make(size) + after


# What is written where a word, a quoted text, an option, a time or a schedule may stand.
ANYWHERE: dict[str, Maker] = {
    "one word": repeated("a"),
    "words": repeated("a "),
    "quoted words": repeated('"a" '),
    "options": numbered("k{n}=v "),
    "words and options": numbered("k{n}=v w "),
    "heads": repeated("HEAD=yes width=3 "),
    "quotes": repeated('"'),
    "an open quote": repeated("a", '"'),
    "backslashes": repeated("\\", '"'),
    "blanks": repeated(" ", "x", "y"),
    "digits": repeated("9"),
    "brackets": repeated("[a-"),
    "stars": repeated("*a"),
    "equals": repeated("="),
    "control characters": repeated("\x01"),
    "an option nested": nested('{"a":', "}", "k="),
    "an option of arrays": repeated("[", 'k={"a":'),
    "objects": numbered('"k{n}":1,', "{", '"a":1}'),
    "objects nested": nested('{"a":', "}"),
    "many fields": repeated("1-5,", "", "1 * * * x"),
    "fields": repeated("* "),
    "a phrase": repeated("monday and ", '"every ', '"'),
    "times": repeated("9:00 ", '"daily at ', '"'),
    "a far moment": repeated("1", '"in ', ' minutes"'),
    "a long period": repeated("1h", "@every "),
}
# What stands in an option's value.
VALUES: dict[str, Maker] = {
    "a word": repeated("a"),
    "digits": repeated("9"),
    "a list": numbered("t{n},"),
    "commas": repeated(","),
    "colons": repeated(":"),
    "brackets": repeated("[a-"),
    "stars": repeated("*a"),
    "durations": repeated("1h"),
    "events": repeated("failure+", "", "failure:mailto:a@b"),
    "an address": repeated("a.", "mailto:", "@b"),
    "a host": repeated("a:", "http://"),
    "retries": repeated(":x2", "exp:3:1s"),
    "an object": numbered('"k{n}":1,', "{", '"a":1}'),
    "an object with its last key twice": numbered('"k{n}":1,', "{", '"a":1,"a":1}'),
    "backslashes": repeated("\\\\", '{"a":"', '"}'),
}
TASK = '"schedule":"* * * * *","command":"GET http://x/","type":"http"'
SPECIAL: dict[str, Maker] = {
    "ADD headers": numbered("header.H{n}=v ", "ADD type=http ", "* * * * * GET http://x/"),
    "ADD variables": numbered("env.K{n}=v ", "ADD ", "* * * * * x"),
    "ADD headers in JSON": numbered(',"header.H{n}":"v"', "ADD {" + TASK, "}"),
    "ADD tags in JSON": numbered('"t{n}",', "ADD {" + TASK + ',"tags":[', '"t"]}'),
    "ADD a payload of many keys": numbered(
        '"t{n}":{{"a":1}},', 'ADD {"schedule":"* * * * *","payload":{', '"a":1}}'
    ),
    "RUN arguments": numbered("arg.K{n}=v ", "RUN x "),
    "SET variables": numbered("env.K{n}=v ", "SET x "),
    "SET an option twice": numbered("env.K{n}=v ", "SET x ", "env.K10000=v"),
    "PAUSE a reason of reasons": repeated("why=", "PAUSE x "),
    "IMPORT a setting with blanks in it": repeated(" ", "IMPORT A=x", "y"),
}
KEYS = {
    "ADD": "name desc tags tz type payload body prio after retry timeout overlap catchup grace lost jitter"
    " spread on skip start end count keep notify cwd expect secret header.X env.K",
    "SET": "schedule command name tags after retry skip start notify on",
    "LIST": "state tag name search sort limit offset",
    "RUNS": "state run since until limit offset",
    "PAUSE": "until why",
    "NEXT": "n tz from by last",
    "DESCRIBE": "tz",
    "DST": "until",
    "TZDIFF": "until n",
    "EXPECT": "every grace notify start desc",
    "HELLO": "name",
    "STATS": "by since until",
    "FAILED": "since",
    "RUN": "arg.K",
    "WATCH": "id since",
    "REMOVE": "force",
    "IMPORT": "--system --dry-run",
}


class Asked:
    """A daemon's parser and engine with one task, asked one line at a time."""

    def __init__(self) -> None:
        self.driver = Driver()
        self.driver.line("ADD name=x * * * * * echo")

    def answer(self, line: str) -> None:
        """Parses and decides one line, or answers it from the state."""
        driver = self.driver
        verb, rest = commands.find_verb(line)
        order = verb.parse(rest, commands.Context(driver.now, "UTC"))
        if type(order).__module__ == o.__name__:
            driver.engine.decide(order, driver.now)
        elif not isinstance(verb.answer, str):
            list(verb.answer(driver.state, order, driver.now).rows)
        elif isinstance(order, q.ImportLine):
            crontab.parse_line(order.line, {}, order.is_system)


def cost(work: Callable[[str], object], line: str) -> float:
    """Seconds of this thread for the work with one line."""
    began = thread_time()
    try:
        work(line)
    except Refusal as refusal:
        assert refusal.code != "internal"
    return thread_time() - began


def check(work: Callable[[str], object], make: Maker) -> None:
    """Refuses what costs more than the line's length."""
    line, quarter = make(LONG), make(LONG // 4)
    assert len(line) <= MAX_LINE_BYTES
    if (long := cost(work, line)) < HARMLESS_S:
        return
    least = min(cost(work, quarter), cost(work, quarter))
    tries = 3
    while long >= max(HARMLESS_S, MOST * least):
        assert tries, f"{long / least:.1f} times the work of a quarter"
        tries -= 1
        long, least = min(long, cost(work, line)), min(least, cost(work, quarter))


@pytest.mark.parametrize("verb", commands.VERBS)
def test_a_line_costs_no_more_than_its_length(verb: str) -> None:
    """One line of 30 KB once stood the whole daemon still for 19 seconds."""
    answer = Asked().answer
    for make in ANYWHERE.values():
        check(answer, framed(f"{verb} ", make))
    for key in KEYS.get(verb, "").split():
        ref = "x " if verb in ("SET", "PAUSE", "NEXT", "EXPECT", "RUN", "REMOVE") else ""
        rest = " * * * * * x" if verb == "ADD" else ""
        equals = " " if key.startswith("--") else "="
        for make in VALUES.values():
            check(answer, framed(f"{verb} {ref}{key}{equals}", make, rest))


@pytest.mark.parametrize("name", SPECIAL)
def test_many_words_of_one_kind_cost_no_more_than_their_number(name: str) -> None:
    """Each was compared with all the others."""
    check(Asked().answer, SPECIAL[name])


def test_a_head_is_looked_for_at_a_cost_that_is_the_line_s_length() -> None:
    """HEAD= may stand anywhere behind any verb, so it is looked for in every line that can have one."""
    for make in (*ANYWHERE.values(), *VALUES.values()):
        for before in ("LIST ", "LIST HEAD=yes ", "LIST name="):
            check(grammar.take_head, framed(before, make))
    check(grammar.take_head, repeated('\\" ', "LIST HEAD=yes ", "\\"))  # open quotes


def test_a_pattern_longer_than_any_name_is_refused_with_the_limit() -> None:
    """A pattern is made into a matcher at a cost that is the square of its length."""
    with pytest.raises(Refusal, match="name=: longer than 128 characters"):
        Asked().driver.line("LIST name=" + "[a-" * 43)


def test_a_pattern_of_many_stars_is_cheap_for_every_name() -> None:
    """Matching must not try every way to share a name among the stars."""
    driver = Driver()
    for n in range(50):
        driver.line(f"ADD name={'a' * 60}{n:04} * * * * * echo")
    question = commands.parse(f"LIST name={'*a' * 60}b", commands.Context(driver.now, "UTC"))
    began = thread_time()
    assert not [row for row in listing.list_tasks(driver.state, question, driver.now).rows if row]
    assert thread_time() - began < 0.05
