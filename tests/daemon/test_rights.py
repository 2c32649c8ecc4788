"""Every verb with every role, with what is one's own and with what is another's."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
import trio

from cronflowd.ask.commands import VERBS, Verb
from cronflowd.base.errors import Refusal
from cronflowd.base.replies import Reply
from cronflowd.engine.access import RANK, ROLES
from cronflowd.engine.access_facts import Refused
from cronflowd.engine.accounts import keep_to_own
from cronflowd.engine.calendars import CalendarRead
from cronflowd.engine.definitions import AT_ONCE, finish
from cronflowd.engine.facts import RunSent
from cronflowd.engine.orders import ClearTasks
from cronflowd.engine.state import State
from tests.lib.access_driver import House, hash_quickly

NOBODY, GATEWAY = "", "gateway"  # whoever comes; root by the unix socket
OWNED = "takes the role (user|operator|admin)"

# A line that ann says, and the least role that may. Of a pair the first is what she may do with her own.
LINES: list[tuple[str, str]] = [
    ("ADD name=new @daily x", "user"),
    ("ADD name=new owner=ann @daily x", "user"),
    ("ADD name=new owner=bob @daily x", "admin"),
    ("ADD name=hers replace=yes @hourly y", "user"),
    ("ADD name=his replace=yes @hourly y", "operator"),
    ("ADD name=his replace=yes owner=ann @hourly y", "admin"),
    ('ADD {"schedule": "@daily", "command": "x", "jobName": "new", "owner": "bob"}', "admin"),
    ('ADD {"schedule": "@daily", "command": "x", "jobName": "new"}', "user"),
    ("ADD from=given name=new @daily x", "admin"),
    ("ADD from=plain name=new @daily x", "user"),
    ("LIST", "viewer"), ("GET his", "viewer"),
    ("SET hers prio=high", "user"), ("SET his prio=high", "operator"), ("SET 3 prio=high", "operator"),
    ("SET hers owner=bob", "admin"), ("SET his owner=ann", "admin"), ("SET hers owner=", "admin"),
    ("SET tag=both prio=high", "user"), ("SET name=h* owner=ann", "admin"),
    ("TEMPLATE ADD t prio=high", "operator"), ("TEMPLATE ADD t owner=bob", "admin"),
    ("TEMPLATE REMOVE plain", "operator"), ("TEMPLATE LIST", "viewer"),
    ("REMOVE hers", "user"), ("REMOVE his", "operator"), ("REMOVE tag=both", "user"),
    ("CLEAR all", "operator"),
    ("STATUS", "viewer"), ("HEALTH late=1h", "viewer"), ("SUMMARY", "viewer"), ("CLOCK", "viewer"),
    ("METRICS", "viewer"),
    ("SAVE", "operator"), ("LOAD tasks.db", "operator"), ("BACKUP", "admin"),
    ("IMPORT 0 9 * * * /bin/new", "user"), ("IMPORT --dry-run 0 9 * * * /bin/new", "viewer"),
    ("EXPORT", "viewer"), ("EXPORT his", "viewer"),
    ("PAUSE hers", "user"), ("PAUSE his", "operator"), ("PAUSE hers his", "operator"),
    ("PAUSE all", "operator"),
    ("PAUSE tag=both", "user"), ("DISABLE his", "operator"), ("DISABLE hers", "user"),
    ("RESUME hers", "user"), ("RESUME his", "operator"), ("RESUME all", "operator"),
    ("ENABLE hers", "user"), ("ENABLE his", "operator"), ("RESUME name=h*", "user"),
    ("HISTORY", "viewer"), ("HISTORY his", "viewer"),
    ("ROLLBACK hers 1", "user"), ("ROLLBACK his 1", "operator"),
    ("UNDO", "user"), ("UNDO 2", "operator"),
    ("ONCE k RUN hers", "user"), ("ONCE k RUN his", "operator"), ("ONCE k CLEAR all", "operator"),
    ("RUN hers", "user"), ("RUN his", "operator"), ("RUN tag=both", "user"),
    ("FLOW", "viewer"), ("FLOW hers", "viewer"), ("FLOW hers RUNS", "viewer"), ("FLOW hers RUN", "user"),
    ("EMIT hers", "user"), ("EMIT both", "operator"), ("EMIT nobody", "user"),
    ("NOW x", "user"), ("NOW owner=bob x", "admin"), ('AT "in 1 hour" x', "user"),
    ("CANCEL 1", "user"), ("CANCEL 2", "operator"), ("CANCEL 3", "operator"),
    ("RUNS", "viewer"), ("STATS", "viewer"), ("FAILED", "viewer"), ("PROVE", "viewer"), ("WHY his", "viewer"),
    ("LOG 1", "viewer"), ("NEXT his", "viewer"), ("DEPS his", "viewer"), ("DESCRIBE his", "viewer"),
    ("DST", "viewer"), ("TZDIFF /usr/share/zoneinfo", "viewer"),
    ("EXPECT new every=1d", "operator"), ("BEAT e", "user"), ("EXPECTS", "viewer"), ("FORGET e", "operator"),
    ("WORKERS", "viewer"), ("TYPES", "viewer"), ("DRAIN w1", "operator"), ("UNDRAIN w1", "operator"),
    ("NODES", "viewer"), ("LOCAL", "viewer"), ("STEPDOWN", "admin"),
    ("WATCH", "viewer"), ("WHOAMI", "viewer"),
    ("USER ADD eve password=eve-knows-it", "admin"), ("USER SET bob email=b@example.org", "admin"),
    ("USER REMOVE bob", "admin"), ("USER LIST", "viewer"), ("USER PASSWORD bob other-one", "admin"),
    ("USER PASSWORD ann other-one", "viewer"),
    ("TOKEN ADD user=ann", "admin"), ("TOKEN LIST", "viewer"), ("TOKEN REVOKE 1", "admin"),
    ("AUDIT", "viewer"),
    ("SESSION ADD ann", GATEWAY), ("SESSION RENEW word1word2", GATEWAY), ("SESSION END 1", "viewer"),
    ("SESSION END 2", "admin"), ("SESSION END word3word4", GATEWAY), ("SESSION LIST", "viewer"),
    ("USER FORGOT ann", GATEWAY), ("USER RESET word5 other-one", GATEWAY),
    ("AS ann", GATEWAY), ("AS from=192.0.2.9", GATEWAY), ("AS", GATEWAY),
    # These may be said by anybody, of whom nothing is known.
    ("HELLO", NOBODY), ("FORMAT json", NOBODY), ("HELP", NOBODY), ("PING", NOBODY), ("QUIT", NOBODY),
    ("AUTH ann correct-horse", NOBODY),
]  # fmt: skip
LINES += [
    ("SECRET PUT s value", "admin"), ("SECRET REMOVE s", "admin"), ("SECRET LIST", "viewer"),
] if "SECRET" in VERBS else []  # fmt: skip


@asynccontextmanager
async def a_house(data: Path) -> AsyncIterator[House]:
    """Runs 1 to 3 are of ann's task, of bob's, and of one of his that is gone. The last change is ann's."""
    house = House(data)
    root = house.session("root", "admin")
    bob, ann = house.session("bob", "user"), house.session("ann", "user")
    for line in (
        "USER ADD root role=admin password=battery-staple", "USER ADD ann password=correct-horse",
        "USER ADD bob password=battery-staple", "TOKEN ADD name=ci", "EXPECT e every=1d",
        "TEMPLATE ADD given owner=bob", "TEMPLATE ADD plain prio=high",
    ):  # fmt: skip
        await house.ask(root, line)
    await house.ask(ann, "ADD name=hers tags=both overlap=allow @on hers x")
    await house.ask(ann, "ADD name=also-hers tags=both @on both x")
    await house.ask(bob, "ADD name=his tags=both overlap=allow @on both x")
    await house.ask(bob, "ADD name=gone @daily x")
    for session, ref in (ann, "hers"), (bob, "his"), (bob, "gone"):
        await house.ask(session, f"RUN {ref}")
    for line in "SESSION ADD ann", "SESSION ADD bob", "USER FORGOT bob":
        await house.ask(house.session(address=_UNIX[GATEWAY]), line)
    house.state.apply(RunSent(3, 1, "w1"), house.clock.now(), house.core.last_seq)
    await house.ask(bob, "REMOVE gone force=yes")
    await house.ask(ann, "PAUSE hers")
    await house.ask(root, "SAVE")
    house.facts.clear()
    yield house


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hash takes its time, and so does the wait for a wrong word; that is another test's subject."""
    hash_quickly(monkeypatch)
    words = map("word{}".format, count(1))
    monkeypatch.setattr("cronflowd.daemon.logins.new_token", lambda: next(words))


@pytest.mark.parametrize(("line", "least"), LINES)
def test_a_verb_takes_the_role_that_the_table_says(line: str, least: str, tmp_path: Path) -> None:
    """Who has less is refused by name of what it takes, has changed nothing, and stands in AUDIT."""
    trio.run(_walk_roles, line, least, tmp_path)


_UNIX = {"": "unix:pid=9,uid=4711", GATEWAY: "unix:pid=9,uid=0"}


async def _walk_roles(line: str, least: str, data: Path) -> None:
    async with a_house(data) as house:
        for role in ("", *ROLES, GATEWAY):  # the first: a user of this machine without account
            asking = house.session("ann", role) if role in ROLES else house.session(address=_UNIX[role])
            before = house.carried()
            said = await house.says(asking, line)
            denied = [fact for fact in house.facts if isinstance(fact, Refused)]
            if role == least:
                assert not said.startswith(("ERR denied", "ERR internal"))
                assert not denied
                return
            assert said.startswith("ERR denied ")
            assert re.search("has no account here.*uid=4711" if not role else OWNED, said)
            assert [(fact.verb, fact.who) for fact in denied] == [
                (
                    line.removeprefix("ONCE k " if RANK.get(role, 0) else "").split(maxsplit=1)[0],
                    "ann" if role else "uid=4711",
                )
            ]
            assert (house.carried(), house.facts) == (before, denied)
            house.facts.clear()
    raise AssertionError("nobody may")


@pytest.mark.parametrize("blank", ["\x0b", "\xa0", "\u3000"])
def test_no_odd_blank_makes_an_order_of_a_look(blank: str, tmp_path: Path) -> None:
    """What words only read is told by a pattern, and the words are read by something else."""

    async def say() -> None:
        async with a_house(tmp_path) as house:
            line = f'FLOW 1{blank}"RUN"'
            assert not VERBS["FLOW"].only_reads(line.removeprefix("FLOW "))
            assert (await house.says(house.session("ann", "viewer"), line)).startswith("ERR denied ")

    trio.run(say)


def test_an_order_that_was_taken_for_a_look_is_refused_to_whom_only_looks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A pattern that lets too much through must not be all that stands between a viewer and a task."""

    async def say() -> None:
        async with a_house(tmp_path) as house:
            monkeypatch.setattr(Verb, "only_reads", lambda verb, rest: True)
            for line in ("FLOW hers RUN", "TEMPLATE REMOVE plain", "RUN hers", "IMPORT 0 9 * * * /bin/new"):
                before = house.carried()
                assert (await house.says(house.session("ann", "viewer"), line)).startswith("ERR denied "), (
                    line
                )
                assert house.carried() == before

    trio.run(say)


def test_the_table_holds_every_verb() -> None:
    """One that is forgotten here may be open to everybody."""
    assert {line.split(" ")[0] for line, _ in LINES} == set(VERBS)


def test_a_flow_belongs_to_whom_all_of_its_tasks_belong(tmp_path: Path) -> None:
    """A run of it runs them all; and what hangs together with one's own may be another's."""

    async def flow() -> None:
        house = House(tmp_path)
        ann, bob = house.session("ann", "user"), house.session("bob", "user")
        await house.ask(ann, "ADD name=a @daily x")
        await house.ask(ann, "ADD name=b after=a @after x")
        assert await house.says(ann, "FLOW b PAUSE") == "OK 2 paused"
        assert await house.says(ann, "FLOW b RESUME") == "OK 2 resumed"
        assert await house.says(ann, "FLOW b RUN") == "OK 1 tasks=2"
        for line in ("FLOW a RUN", "FLOW a CANCEL", "FLOW #1 CANCEL", "FLOW a RETRY", "FLOW a PAUSE"):
            assert (await house.says(bob, line)).startswith("ERR denied "), line
        await house.ask(bob, "ADD name=c after=b @after x")
        for line in ("FLOW a PAUSE", "PAUSE flow=a", "RESUME flow=c"):
            assert (await house.says(ann, line)).startswith("ERR denied "), line
        assert await house.says(ann, "FLOW #1 CANCEL") == "OK 1 cancelled"  # its tasks were hers alone

    trio.run(flow)


def test_a_change_of_very_many_keeps_to_ones_own(tmp_path: Path) -> None:
    """It is worked out in other functions than that of a few, and must not forget whose they are."""

    async def change() -> None:
        house = House(tmp_path)
        ann, bob = house.session("ann", "user"), house.session("bob", "user")
        await house.ask(house.session(), "USER ADD ann password=correct-horse")
        for number in range(AT_ONCE + 5):
            for session in (ann, bob):
                await house.ask(session, f"ADD name={session.known.account}-{number} tags=t @daily x")
        await house.ask(house.session(), "ADD name=nobodys tags=t @daily x")
        assert await house.says(ann, "PAUSE tag=t") == f"OK {AT_ONCE + 5} paused"
        assert await house.says(ann, "REMOVE name=*") == f"OK {AT_ONCE + 5} removed"
        assert {task.spec.options.owner for task in house.state.tasks.values()} == {"bob", None}
        assert not any(task.paused for task in house.state.tasks.values())
        assert (await house.says(bob, "UNDO")).startswith("ERR denied the change ")
        assert await house.says(ann, "UNDO 2") == "OK 2 undone"
        assert len(house.state.tasks) == 2 * (AT_ONCE + 5) + 1

    trio.run(change)


def test_what_was_given_away_is_not_taken_back_by_its_former_owner(tmp_path: Path) -> None:
    """UNDO and ROLLBACK of one's own change would be a way around owner=."""

    async def change() -> None:
        house = House(tmp_path)
        ann, root = house.session("ann", "user"), house.session("root", "admin")
        await house.ask(root, "USER ADD ann password=correct-horse")
        await house.ask(ann, "ADD name=a @daily x")
        await house.ask(root, "SET a owner=bob")
        assert (await house.says(ann, "ROLLBACK a 1")).startswith('ERR denied "a" belongs to bob')
        assert await house.says(house.session("bob", "user"), "ROLLBACK a 1") == "OK 1 rev=3"
        assert house.state.tasks[1].spec.options.owner == "bob"
        await house.ask(root, "SET a owner=ann")
        await house.ask(ann, "SET a prio=high")
        await house.ask(root, "SET a owner=bob")
        await house.ask(root, "UNDO")
        await house.ask(root, "SET a owner=bob")
        await house.ask(ann, "ADD name=b @daily x")
        assert await house.says(ann, "UNDO") == "OK 1 undone"
        assert (await house.says(ann, "UNDO 3")).startswith("ERR denied the change")

    trio.run(change)


def test_whoever_only_reads_is_shown_no_secret(tmp_path: Path) -> None:
    """A viewer is often a screen on a wall."""

    async def look() -> None:
        house = House(tmp_path)
        ann, viewer = house.session("ann", "user"), house.session("eve", "viewer")
        await house.ask(ann, "ADD name=a type=webhook secret=s3cr3t @daily https://x.example/")
        await house.ask(ann, "ADD name=b env.PASSWORD=s3cr3t @daily x")
        await house.ask(ann, "SET b env.PASSWORD=s3cr3t-2")
        await house.ask(house.session(), "TEMPLATE ADD t env.PASSWORD=s3cr3t")
        for line in (
            "LIST", "GET a", "GET b", "GET b @1", "HISTORY", "HISTORY b", "EXPORT", "TEMPLATE LIST", "DEPS",
            "WHY a",
        ):  # fmt: skip
            assert "s3cr3t" not in repr(list((await house.ask(viewer, line)).rows)), line
        assert "s3cr3t-2" in repr(list((await house.ask(ann, "EXPORT")).rows))

    trio.run(look)


def test_a_token_does_not_give_itself_a_password(tmp_path: Path) -> None:
    """One that may only read, or for a day, would become all that its account may, for ever."""

    async def change() -> None:
        house = House(tmp_path)
        root = house.session("root", "admin")
        await house.ask(root, "USER ADD ann role=admin password=correct-horse")
        made = await house.ask(root, "TOKEN ADD user=ann role=viewer ttl=1d")
        token = house.session()
        await house.ask(token, f"AUTH {next(iter(made.rows))[1]}")
        for line in ("USER PASSWORD", "USER PASSWORD another-one", "USER PASSWORD ann another-one"):
            assert (await house.says(token, line)).startswith("ERR denied "), line
        assert await house.says(house.session(), "AUTH ann correct-horse") == "OK ann role=admin"

    trio.run(change)


def test_who_may_not_choose_a_user_does_not_change_what_runs_as_one(tmp_path: Path) -> None:
    """An operator has her task run as root; another command in it would be root's as well."""

    async def change() -> None:
        house = House(tmp_path)
        ann, operator = house.session("ann", "user"), house.session("otto", "operator")
        await house.ask(ann, "ADD name=a tags=t @daily x")
        await house.ask(operator, "SET a user=root")
        for line in ("SET a command=y", "SET tag=t env.PATH=/tmp", "SET a prio=high"):
            assert (await house.says(ann, line)).startswith("ERR denied "), line
        assert await house.says(ann, "PAUSE a") == "OK 1 paused"
        assert await house.says(operator, "SET a command=y") == "OK 1 rev=3"
        assert await house.says(ann, "SET a command=z user=ann") == "OK 1 rev=4"
        assert await house.says(ann, "SET tag=t command=z2") == "OK 1 changed"

    trio.run(change)


def test_what_waits_for_ones_own_task_stays_as_its_owner_made_it(tmp_path: Path) -> None:
    """REMOVE force=yes has others wait no longer, so it changes them."""

    async def remove() -> None:
        house = House(tmp_path)
        ann, bob = house.session("ann", "user"), house.session("bob", "user")
        await house.ask(ann, "ADD name=a tags=t @daily x")
        await house.ask(ann, "ADD name=a2 after=a tags=t @daily x")
        await house.ask(bob, "ADD name=b after=a @daily x")
        for line in ("REMOVE a force=yes", "REMOVE tag=t force=yes"):
            assert "ERR denied" in (said := await house.says(ann, line)) and '"b"' in said, line
        assert await house.says(ann, "REMOVE a2 force=yes") == "OK 2 removed"
        assert await house.says(house.session("otto", "operator"), "REMOVE a force=yes") == "OK 1 removed"

    trio.run(remove)


def test_an_order_of_which_nothing_is_known_is_nobodys_own() -> None:
    """Whoever makes a new one, and forgets to say whose tasks it is about, opens nothing."""
    with pytest.raises(Refusal, match="denied"):
        finish(keep_to_own(State("UTC"), ClearTasks(), "ann"))


def test_first_secrets_that_come_at_one_moment_are_all_kept(tmp_path: Path) -> None:
    """One of them makes the key; the others were refused, since there was one by then."""

    async def put() -> None:
        house = House(tmp_path)
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(house.ask, house.session(), f"SECRET PUT s{number} value")
        assert len(house.state.access.secrets) == 3

    trio.run(put)


@pytest.mark.parametrize(
    "line",
    ["ADD name=b skip=file:days @daily x", "USER ADD eve password=eve-knows-it", "ROLLBACK a 1",
     "USER PASSWORD bob other-one", "SECRET PUT s value", "SET name=* prio=low"],
)  # fmt: skip
def test_what_was_awaited_is_not_done_for_whom_was_sent_away(line: str, tmp_path: Path) -> None:
    """A thread reads, or hashes, and meanwhile an account is disabled: what it asked last does not count."""

    async def change() -> None:
        house = House(tmp_path)
        (tmp_path / "days").write_text("2030-01-01\n")
        root, ann = house.session(), house.session("ann", "admin")
        for before in (
            "USER ADD root role=admin password=correct-horse",
            "USER ADD ann role=admin password=correct-horse", "USER ADD bob password=correct-horse",
            "SECRET PUT first value", "ADD name=a owner=ann @daily x",
        ):  # fmt: skip
            await house.ask(root, before)
        for number in range(AT_ONCE if "SET" in line else 1):
            await house.ask(root, f"ADD name=t{number} owner=ann @daily x")
        await house.ask(root, "SET a prio=high")
        asked = house.answers.handle(line, ann, house.clock.now())
        assert not isinstance(asked, Reply)
        await house.ask(root, "USER SET ann role=user")
        before_it = house.carried()
        with pytest.raises(Refusal, match="denied"):
            await asked
        # What a file of dates says is true whoever had it read.
        assert [each for each in house.carried() if not isinstance(each, CalendarRead)] == before_it

    trio.run(change)


def test_what_was_another_change_when_it_was_asked_is_looked_at_again(tmp_path: Path) -> None:
    """UNDO of very many begins a little later, and the newest change may be somebody else's then."""

    async def change() -> None:
        house = House(tmp_path)
        ann, bob = house.session("ann", "user"), house.session("bob", "user")
        await house.ask(house.session(), "USER ADD ann password=correct-horse")
        for number in range(AT_ONCE + 5):
            await house.ask(ann, f"ADD name=a{number} @daily x")
        await house.ask(ann, "PAUSE name=*")
        asked = house.answers.handle("UNDO", ann, house.clock.now())
        assert not isinstance(asked, Reply)
        await house.ask(bob, "ADD name=b @daily x")
        with pytest.raises(Refusal, match="was not made by ann"):
            await asked
        assert house.state.find("b")

    trio.run(change)


def test_a_list_that_is_being_read_bears_what_is_revoked_meanwhile(tmp_path: Path) -> None:
    """The rows of a long one are made while its reader takes them."""

    async def read() -> None:
        house = House(tmp_path)
        for _ in range(3):
            await house.ask(house.session(), "TOKEN ADD name=ci")
        rows = iter((await house.ask(house.session(), "TOKEN LIST")).rows)
        assert next(rows)[0] == 1
        await house.ask(house.session(), "TOKEN REVOKE 2")
        assert [row[0] for row in rows] == [2, 3]

    trio.run(read)
