"""Where the values of secrets go, and what is kept of what runs write."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cronflowd.base.masks import Mask
from cronflowd.base.output import is_whole, parse_line, text_of
from cronflowd.base.text import to_bytes
from cronflowd.engine import encoding
from cronflowd.engine import facts as f
from cronflowd.engine import orders as o
from cronflowd.engine.rules import Limits
from cronflowd.host.vault import Vault
from cronflowd.tasks.targets import parse_target
from cronflowd.worker.executors.job import parse_order
from cronflowd.worker.executors.output import format_output
from tests.lib.engine_driver import Driver

VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)
VALUES = VALUES.filter(str.strip).filter(lambda value: value.encode().strip())


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Vault:
    vault = Vault(tmp_path_factory.mktemp("data"))
    vault.make_key()
    return vault


class Place:
    """An engine with a key and a worker."""

    def __init__(self, vault: Vault, limits: Limits | None = None) -> None:
        self.driver = Driver(limits or Limits())
        self.vault = self.driver.state.access.vault = vault
        self.driver.do(o.StartDaemon("1", "UTC"))
        can = ("shell", "shell+stdin", "http", "webhook", "email")
        self.driver.do(o.JoinWorker("w", 99, {}, can, "here", (), True, "i"))

    def put(self, name: str, value: str) -> None:
        self.driver.do(o.PutSecret(name, self.vault.seal(name, value.encode())))

    def run(self, line: str) -> Any:
        """The order that a task's first run leads to, as a worker reads it."""
        self.driver.line(line)
        ((_, said),) = self.driver.pump()
        return parse_order(said.removeprefix("RUN "))

    def restart(self) -> None:
        self.driver.restart()
        self.driver.state.access.vault = self.vault
        self.driver.do(o.JoinWorker("w", 99, {}, ("shell",), "here", ((1, 1),), True, "i"))

    def told(self, fd: int) -> bytes:
        """All that the journal holds of what was written there."""
        facts = (encoding.decode(line)[2] for line in self.driver.journal)
        lines = [line for fact in facts if isinstance(fact, f.OutputReceived) for line in fact.lines]
        return b"".join(to_bytes(text_of(line) + "\n" * is_whole(line)) for line in lines if line[0] == fd)


def unlike_all(value: str) -> str:
    """No word that the journal holds anyway, as `schedule` is one."""
    return f"{value[: len(value) // 2]}☃{value[len(value) // 2 :]}"


@given(value=VALUES, other=VALUES)
def test_a_value_arrives_as_it_is_whatever_it_holds(vault: Vault, value: str, other: str) -> None:
    """A password with a quote must neither break the line nor arrive as another one."""
    value = unlike_all(value)
    place = Place(vault)
    place.put("a", value)
    place.put("b", other)
    place.driver.line(
        'ADD name=t env.A=secret:a env.B="<{{secret:a}}|{{secret:b}}>" stdin=secret:b @every 1h echo :"x'
    )
    order = place.run("RUN t")
    assert order.options["env.A"] == value
    assert order.options["env.B"] == f"<{value}|{other}>"
    assert b64decode(order.options["stdin"]).decode() == other
    assert order.command == 'echo :"x'
    place.driver.line(
        'ADD name=h type=http payload={"a":"{{secret:a}}","b":["{{secret:b}}"]} @daily POST http://h/'
    )
    assert json.loads(place.run("RUN h").options["payload"]) == {"a": value, "b": [other]}
    place.driver.line("ADD name=w type=webhook secret=<{{secret:a}}> @daily http://h/")
    assert place.run("RUN w").options["secret"] == f"<{value}>"
    place.driver.line('ADD name=m type=email payload={"text":"x {{secret:b}}"} @daily a@example.org')
    bad = any((ord(char) < 32 and char not in "\t\n") or 126 < ord(char) < 160 for char in other)
    if not bad:
        assert json.loads(place.run("RUN m").options["payload"]) == {"text": f"x {other}"}
    journal = b"".join(place.driver.journal)
    assert json.dumps(value, ensure_ascii=False)[1:-1].encode() not in journal


@settings(max_examples=40)
@given(st.data())
def test_what_a_run_writes_is_kept_without_them_and_else_unchanged(vault: Vault, data: st.DataObject) -> None:
    """Whatever cuts the link makes, over starts of the daemon, and with values that change meanwhile."""
    draw = data.draw
    values = draw(st.lists(VALUES.filter(lambda value: len(value.strip()) > 3), min_size=2, max_size=2))
    values[0] = unlike_all(values[0])
    place = Place(vault)
    place.put("a", values[0])
    place.put("b", values[1])
    place.driver.line("ADD name=t env.A=secret:a env.B=secret:b retry=fixed:1:1s @every 1h t")
    place.run("RUN t")
    if draw(st.booleans()):
        place.put("a", "another one")
    filler = st.binary(max_size=6) | st.sampled_from([b"\n", b"\r", b"\r\n", b"[secret:"])
    pieces = st.lists(filler | st.sampled_from(values).map(str.encode), max_size=10)
    written: dict[int, bytes] = {fd: b"".join(draw(pieces)) for fd in (1, 2)}
    at = {1: 0, 2: 0}
    while any(at[fd] < len(written[fd]) for fd in at):
        fd = draw(st.sampled_from([fd for fd in at if at[fd] < len(written[fd])]))
        end = draw(st.integers(at[fd] + 1, len(written[fd])))
        rows = format_output("1", fd, written[fd][at[fd] : end]).splitlines()
        lines = [parse_line(fd, row.split(" ", 3)[3]) for row in rows]
        at[fd] = end
        place.driver.do(o.ReportOutput("w", 1, lines))
        if draw(st.integers(0, 4)) == 0:
            place.restart()
    place.driver.do(o.ReportEnded("w", 1, 1, 1, {"why": f"no: {values[0]}"}))
    known = [(name, value.encode()) for name, value in zip("ab", values, strict=True)]
    for fd in written:
        told = place.told(fd)
        for bare in (value.encode().strip() for value in values):
            assert bare not in told.replace(b"[secret:a]", b"\0").replace(b"[secret:b]", b"\0")
        assert told == Mask(known).hide(written[fd], True)[0]
    assert values[0].strip().encode() not in b"".join(place.driver.journal)
    assert not place.driver.state.runs[1].held


def test_a_second_attempt_hides_the_value_of_the_first_too(vault: Vault) -> None:
    """A job may print what it kept from before."""
    place = Place(vault)
    place.put("a", "the first value")
    place.driver.line("ADD name=t env.A=secret:a retry=fixed:1:1s @every 1h t")
    place.run("RUN t")
    place.driver.do(o.ReportEnded("w", 1, 1, 1, {}))
    place.put("a", "the second value")
    ((_, said),) = place.driver.wait(1)
    assert parse_order(said.removeprefix("RUN ")).options["env.A"] == "the second value"
    place.driver.do(o.ReportOutput("w", 1, [[1, "the first value, the second value"]]))
    assert place.told(1) == b"[secret:a], [secret:a]\n"


def test_a_checkpoint_holds_what_a_run_was_given(vault: Vault) -> None:
    """Compaction forgets the records that told it."""
    place = Place(vault)
    place.put("a", "the first value")
    place.driver.line("ADD name=t env.A=secret:a @every 1h t")
    place.run("RUN t")
    place.driver.line("SET t env.A=x")
    place.driver.do(o.RemoveSecret("a"))
    place.driver.do(o.ReportOutput("w", 1, [[1, "the fir", False]]))
    carried = list(place.driver.state.carry())
    place.driver.journal = [
        encoding.encode(seq, place.driver.now, fact, False) for seq, fact in enumerate(carried, 1)
    ]
    place.restart()
    place.driver.do(o.ReportOutput("w", 1, [[1, "st value"]]))
    assert place.told(1) == b"[secret:a]\n"


def test_without_the_key_nothing_of_a_run_is_kept_that_may_hold_one(vault: Vault, tmp_path: Path) -> None:
    """Where it is not known what must be hidden, all of it must."""
    place = Place(vault)
    place.put("a", "the first value")
    place.driver.line("ADD name=t env.A=secret:a @every 1h t")
    place.run("RUN t")
    place.driver.do(o.ReportOutput("w", 1, [[1, "the fir", False]]))
    place.driver.state.access.vault = Vault(tmp_path)
    place.driver.do(o.ReportOutput("w", 1, [[1, "st value"]]))
    place.driver.do(o.ReportEnded("w", 1, 1, 1, {"why": "the first value"}))
    assert place.told(1) == b""
    assert b"there is no key" in place.told(0)
    assert b"first value" not in place.told(0)


def test_a_hooks_address_is_filled_in_and_what_a_run_wrote_is_not(vault: Vault) -> None:
    """Whoever can make a job print must not be able to have a secret sent somewhere."""
    target = parse_target("slack+https://hooks.example.org/{{secret:hook}}")
    place = Place(vault, Limits(notify=(target,)))
    place.put("hook", "T0/B0/x+y")
    place.put("a", "never told")
    place.driver.line("ADD name=t @every 1h t")
    place.run("RUN t")
    place.driver.do(o.ReportOutput("w", 1, [[1, "{{secret:a}} {{secret:b@d}}"]]))
    place.driver.do(o.ReportEnded("w", 1, 1, 1, {}))
    place.driver.restart()
    place.driver.state.access.vault = vault
    place.driver.do(o.JoinWorker("w", 99, {}, ("webhook", "http"), "here", (), True, "i"))
    ((_, said),) = place.driver.pump()
    order = parse_order(said.removeprefix("RUN "))
    assert order.command.endswith("https://hooks.example.org/T0/B0/x+y")
    assert "{{secret:a}} {{secret:b@d}}" in json.loads(order.options["payload"])["text"]
    place.driver.do(o.ReportEnded("w", 2, 1, 1, {"why": "cannot reach https://hooks.example.org/T0/B0/x+y"}))
    assert b"T0/B0" not in b"".join(place.driver.journal)


def test_one_that_is_missing_ends_its_run_alone(vault: Vault) -> None:
    """In one decision about many runs the others leave as they would have."""
    place = Place(vault)
    place.driver.line("ADD name=a 0 13 * * * a")
    place.driver.line("ADD name=b env.A=secret:none 0 13 * * * b")
    place.driver.line("ADD name=c 0 13 * * * c")
    sent = [said.rpartition(":")[2] for _, said in place.driver.wait(3600)]
    assert sent == ["a", "c"]
    (row,) = place.driver.state.outcomes[2]
    assert (row.state, row.why) == ("failed", {"code": "secret-missing", "name": "none"})


def test_of_secrets_under_several_keys_those_are_told_that_this_one_does_not_open(
    vault: Vault, tmp_path: Path
) -> None:
    """One was put while another key was there, and the first one, which stood for all, could be opened."""
    place, other = Place(vault), Vault(tmp_path)
    other.make_key()
    access = place.driver.state.access
    place.put("db", "one")
    place.put("web", "two")
    assert access.key_trouble == ""
    access.vault = place.vault = other
    why = "it was sealed under another key than this one"
    assert access.key_trouble == why
    place.put("db", "three")
    assert access.key_trouble == f"{why}: web"
    place.driver.do(o.RemoveSecret("web"))
    assert access.key_trouble == ""


def test_a_value_is_tried_once_with_a_key(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be very many of them, and STATUS is asked every few seconds."""
    place, tried = Place(vault), list[str]()
    monkeypatch.setattr(vault, "open", lambda name, sealed: tried.append(name) or b"")
    place.put("db", "one")
    for _ in range(3):
        assert place.driver.state.access.key_trouble == ""
    place.put("db", "two")
    assert place.driver.state.access.key_trouble == ""
    assert tried == ["db", "db"]
