"""Accounts, tokens, roles and owners at random: a checkpoint tells all, and a role loses no rights."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from cronflowd.engine.access import ROLES
from cronflowd.engine.encoding import decode, encode
from tests.lib.access_driver import House, hash_quickly

NAMES, TASKS = ("ann", "bob", "eve"), ("a", "b")
name, task = st.sampled_from(NAMES), st.sampled_from(TASKS)
role = st.sampled_from(ROLES)
account = st.builds("USER ADD {} role={} password=correct-horse".format, name, role) | st.one_of(
    st.builds("USER SET {} role={}".format, name, role),
    st.builds("USER SET {} disabled={} uid={}".format, name, st.sampled_from(("yes", "no")), st.just("7")),
    st.builds("USER SET {} uid= email={}@example.org".format, name, name),
    st.builds("USER REMOVE {}".format, name),
)
token = st.builds("TOKEN ADD user={} role={}".format, name, role) | st.one_of(
    st.builds("TOKEN ADD name={} ttl=1h".format, name),
    st.just("TOKEN ADD worker=web*"),
    st.builds("TOKEN REVOKE {}".format, st.integers(1, 4)),
)
has_come = st.sampled_from((*NAMES, "root"))
login = st.builds("SESSION ADD {} ttl={}".format, has_come, st.sampled_from(("1h", "7d"))) | st.one_of(
    st.builds("SESSION END {}".format, st.integers(1, 4)),
    st.builds("USER FORGOT {}".format, has_come),
    st.builds("USER PASSWORD {} another-one".format, name),
)  # fmt: skip
tasks = st.builds("ADD name={} tags=t @on {} x".format, task, task) | st.one_of(
    st.builds("SET {} owner={}".format, task, name),
    st.builds("SET {} prio=high".format, task),
    st.builds("ADD name={} replace=yes @daily y".format, task),
    st.builds("REMOVE {} force=yes".format, task),
    st.builds("PAUSE {}".format, st.sampled_from(("a", "b", "all", "tag=t"))),
    st.builds("RESUME {}".format, st.sampled_from(("a", "b", "all", "name=*"))),
    st.builds("RUN {}".format, st.sampled_from(("a", "b", "tag=t"))),
    st.builds("CANCEL {}".format, st.integers(1, 3)),
    st.builds("UNDO {}".format, st.integers(1, 2)),
    st.builds("ROLLBACK {} 1".format, task),
    st.builds("EMIT {}".format, task),
)
steps = st.lists(
    st.tuples(st.sampled_from((*NAMES, "root")), role, account | token | login | tasks), max_size=25
)
ASKED = ("USER LIST", "TOKEN LIST", "SESSION LIST", "LIST", "LIST owner=ann", "GET a", "GET b", "HISTORY")


@pytest.fixture(autouse=True, scope="module")
def _quickly() -> None:
    """Not as slow as passwords are."""
    patch = pytest.MonkeyPatch()
    hash_quickly(patch)
    yield
    patch.undo()


def again(house: House, data: Path) -> House:
    """As a start from a checkpoint finds it."""
    found = House(data, is_bare=True)
    for fact in house.carried():
        _, at, read, _ = decode(encode(1, house.clock.now(), fact, more=True))
        found.state.apply(read, at, 1)
    return found


async def answers(house: House) -> list[str]:
    root = house.session("root", "admin")
    rows = []
    for line in ASKED:
        try:
            rows += [line, *map(repr, (await house.ask(root, line)).rows)]
        except Exception as error:  # is told alike
            rows += [line, repr(error)]
    return rows


@settings(deadline=None, max_examples=40)
@given(steps, account | token | tasks)
def test_rights_come_back_with_the_journal_and_grow_with_the_role(
    said: list[tuple[str, str, str]], last: str
) -> None:
    """Whatever was changed before: what stands in memory alone would be lost, and with it who may what."""
    trio.run(_check, said, last)


async def _check(said: list[tuple[str, str, str]], last: str) -> None:
    with TemporaryDirectory() as directory:
        house = House(Path(directory))
        await house.ask(house.session(), "USER ADD root role=admin password=battery-staple")
        for who, as_role, line in said:
            is_for_gateway = line.startswith(("SESSION", "USER FORGOT"))
            by = house.session(address="unix:pid=9,uid=0") if is_for_gateway else house.session(who, as_role)
            await house.says(by, line)
        restarted = again(house, Path(directory))
        assert restarted.carried() == house.carried()
        assert await answers(restarted) == await answers(house)
        verdicts = []
        for each in ROLES:
            fresh = again(house, Path(directory))
            answer = await fresh.says(fresh.session("ann", each), last)
            is_denied = answer.startswith("ERR denied") and "the last admin" not in answer
            assert not is_denied or fresh.carried() == house.carried()
            verdicts.append(is_denied)
        assert verdicts == sorted(verdicts, reverse=True)
        assert not verdicts[-1]
