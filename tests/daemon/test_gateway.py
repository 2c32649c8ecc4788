"""A gateway speaks for others, line by line on one connection, and none of them becomes another."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import evolve

from cronflowd.base.addresses import origin, parse_peer
from cronflowd.base.replies import Reply
from cronflowd.engine import access_facts as af
from cronflowd.engine import accounts
from cronflowd.engine.access import MAX_LOGINS_EACH
from cronflowd.engine.access_facts import Refused, SignedIn
from cronflowd.engine.encoding import encode
from cronflowd.engine.rules import deed_of, rows_of
from cronflowd.net.clients import Session
from tests.lib.access_driver import House, a_house, hash_quickly
from tests.lib.harness import run_here

ROOT = "unix:pid=9,uid=0"
RIGHT, WRONG = "AUTH ann correct-horse", "AUTH ann incorrect-horse"


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that take no time, and no thread."""
    hash_quickly(monkeypatch)
    monkeypatch.setattr(trio.to_thread, "run_sync", run_here)


def tokens_of(reply: Reply) -> str:
    """The word that a reply shows once."""
    return dict(reply.rows)["token"]  # type: ignore[arg-type]


async def said(house: House, session: Session, *lines: str) -> list[str]:
    return [await house.says(session, line) for line in lines]


def test_it_is_whom_it_says_to_be_until_it_says_otherwise(tmp_path: Path) -> None:
    """Rights, names and addresses are those of whoever sits before the browser."""

    async def speak() -> None:
        house = await a_house(tmp_path)
        await house.ask(house.session("bob", "user"), "ADD name=his @daily x")
        gateway = house.session(address=ROOT)
        assert await said(
            house, gateway,
            "AS ann from=198.51.100.7", "WHOAMI", "ADD name=hers @daily x", "SET his prio=high",
            "AS root from=[2001:db8::7]:443", "SET his prio=high", "AS", "WHOAMI", "SET his prio=low",
        ) == [
            "OK ann role=user", "OK ann role=user", "OK 2 hers next=2030-01-02T00:00:00Z",
            'ERR denied "his" belongs to bob; that takes the role operator',
            "OK root role=admin", "OK 1 rev=2", "OK cronflowd role=admin", "OK cronflowd role=admin",
            "OK 1 rev=3",
        ]  # fmt: skip
        assert [row[2] for row in (await house.ask(gateway, "HISTORY")).rows][:4] == [
            "unix:root", "root@[2001:db8::7]:443", "ann@198.51.100.7", "bob@192.0.2.7:40001",
        ]  # fmt: skip
        refused = [fact for fact in house.facts if isinstance(fact, Refused)]
        assert [(fact.who, fact.address) for fact in refused] == [("ann", "198.51.100.7")]
        assert house.state.find("hers").spec.options.owner == "ann"  # type: ignore[union-attr]

    trio.run(speak)


@pytest.mark.parametrize(
    "line",
    [
        "AS eve",
        "AS ann bob",
        "AS ann from=nowhere",
        "AS gone",
        'AS "ann',
        "AS ann to=x",
        "AS from=",
        "AS only=yes",
        "AS ann only=perhaps",
        "AS eve only=yes",
    ],
)
def test_what_follows_a_refused_as_is_done_for_nobody(line: str, tmp_path: Path) -> None:
    """The lines behind it are on their way already, and must not be done for the one before."""

    async def speak() -> None:
        for before in "AS", "AS root":
            house = await a_house(tmp_path)
            await house.ask(house.session("root", "admin"), "USER ADD gone password=correct-horse")
            await house.ask(house.session("root", "admin"), "USER SET gone disabled=yes")
            gateway = house.session(address=ROOT)
            found = await said(house, gateway, before, line, "ADD name=a @daily x", "WHOAMI", "AS ann")
            assert found[1].split(" ")[:2] in (["ERR", "denied"], ["ERR", "syntax"], ["ERR", "bad-option"])
            assert [text.split(" ")[1] for text in found[2:4]] == ["auth-required"] * 2
            assert (found[4], gateway.closing, house.state.tasks) == ("OK ann role=user", False, {})

    trio.run(speak)


def test_a_connection_that_is_only_somebody_is_no_gateway_any_more(tmp_path: Path) -> None:
    """What he says is passed on as it came, so it must not be able to speak for others."""

    async def speak() -> None:
        house = await a_house(tmp_path)
        for name, before in ("1", "AS"), ("2", "AS root"):
            gateway = house.session(address=ROOT)
            found = await said(
                house, gateway, before, "AS ann from=198.51.100.7 only=yes", "AS root", "USER FORGOT bob",
                "SESSION ADD root", "AS", f"ADD name=hers-{name} @daily x",
            )  # fmt: skip
            assert found[1] == "OK ann role=user"
            assert all(each.startswith("ERR denied this takes the role admin") for each in found[2:6])
            assert found[6].startswith(f"OK {name} hers-{name} ")
            assert house.state.find(f"hers-{name}").spec.options.owner == "ann"  # type: ignore[union-attr]

    trio.run(speak)


def test_whom_only_does_not_name_has_to_show_who_he_is(tmp_path: Path) -> None:
    """As a stranger from there, be it on the socket of this machine's root."""

    async def speak() -> None:
        house = await a_house(tmp_path)
        gateway = house.session(address=ROOT)
        found = await said(
            house, gateway, "AS from=198.51.100.7 only=yes", "LIST", "AS ann", WRONG, "LIST", RIGHT, "LIST",
            "AS root",
        )  # fmt: skip
        assert found[0] == "OK nobody role=none"
        assert [each.partition(" from")[0][:17] for each in found[1:5]] == [
            "ERR auth-required", "ERR auth-required", "ERR denied the na", "ERR auth-required",
        ]  # fmt: skip
        assert (found[5:7], found[7][:10]) == (["OK ann role=user", "OK 0"], "ERR denied")
        # What it shows with each request is told once a minute.
        token = tokens_of(await house.ask(house.session("root", "admin"), "TOKEN ADD user=ann"))
        for _ in range(3):
            each = house.session(address=ROOT)
            await said(house, each, "AS from=198.51.100.9 only=yes", f"AUTH {token}")
        assert [fact.address for fact in house.facts if isinstance(fact, SignedIn)].count("198.51.100.9") == 1
        # It ends as any other one of hers does, and whoever waits there is told why.
        await house.ask(house.session("root", "admin"), "USER SET ann disabled=yes")
        found = await said(house, gateway, "LIST", RIGHT)
        assert [each.split(" ")[1] for each in found] == ["auth-required", "denied"]

    trio.run(speak)


def test_only_right_of_the_machine_makes_a_gateway(tmp_path: Path) -> None:
    """An admin's account, or a token of his, must not speak as another one."""

    async def speak() -> None:
        house = await a_house(tmp_path, asks=True, tokens=(b"of-the-file",))
        root = house.session()
        await house.ask(root, "AUTH root battery-staple")
        token = next(iter((await house.ask(root, "TOKEN ADD role=admin")).rows))[1]
        own = house.core.admission.gateway_token.decode()
        for auth, may in (
            ("AUTH root battery-staple", False), (f"AUTH {token}", False), ("AUTH of-the-file", True),
            (f"AUTH {own}", True),
        ):  # fmt: skip
            asking = house.session()
            assert (await house.says(asking, "AS ann")).startswith("ERR auth-required")
            await house.ask(asking, auth)
            assert await house.says(asking, "AS ann") == (
                "OK ann role=user" if may
                else "ERR denied this takes the role admin by right of the machine: the unix socket, or the"
                " token file"
            )  # fmt: skip
            assert await house.says(asking, "WHOAMI") == (
                "OK ann role=user"
                if may
                else asking.known.name_shown and f"OK {asking.known.name_shown} role=admin"
            )
        assert house.core.admission.worker_token(own) is None
        plain = await a_house(tmp_path)  # where nobody has to say who he is, over TCP
        for asking in plain.session(), plain.session(address="unix:pid=9,uid=4711"):
            assert (await plain.says(asking, "AS ann")).startswith("ERR denied ")

    trio.run(speak)


def test_rows_that_are_made_later_are_of_who_asked_for_them(tmp_path: Path) -> None:
    """AS is behind it in the pipe, and the crontab of a viewer would hold what only the next one may see."""

    async def export() -> None:
        house = await a_house(tmp_path)
        gateway = house.session(address=ROOT)
        await said(house, gateway, "ADD name=a env.TOKEN=s3cr3t @daily x", "AS ann")
        asked = await house.ask(gateway, "EXPORT")
        await said(house, gateway, "AS root")
        assert "***" in repr(rows := list(asked.rows))
        assert "s3cr3t" not in repr(rows)

    trio.run(export)


def test_our_own_gateway_is_told_of_once_a_minute(tmp_path: Path) -> None:
    """It has a connection for each stranger, who would fill the disk by asking."""

    async def come() -> None:
        house = await a_house(tmp_path, tokens=(b"of-the-file",))
        for word in [house.core.admission.gateway_token.decode()] * 5 + ["of-the-file"] * 2:
            assert await house.says(house.session(address=ROOT), f"AUTH {word}") == "OK admin role=admin"
        assert len([fact for fact in house.facts if isinstance(fact, SignedIn)]) == 3
        # One that comes from elsewhere is known as such when it speaks.
        house.core.tokens += (b"of-a-gateway",)
        for _ in range(5):
            gateway = house.session()
            await said(house, gateway, "AUTH of-a-gateway", "AS ann from=198.51.100.7 only=yes", "WHOAMI")
        assert len([fact for fact in house.facts if isinstance(fact, SignedIn)]) == 4

    trio.run(come)


def test_an_account_that_changes_leaves_nobody_behind(tmp_path: Path) -> None:
    """Its lines count no more at once; those of others, which come by the same connection, do."""

    async def change() -> None:
        house = await a_house(tmp_path)
        root, gateway, watching = house.session(), house.session(address=ROOT), house.session(address=ROOT)
        for line in (
            "USER SET ann role=viewer", "USER PASSWORD ann another-one", "USER SET ann disabled=yes",
            "USER SET ann disabled=no", "USER REMOVE ann",
        ):  # fmt: skip
            await house.says(gateway, "AS ann")
            await house.ask(root, line)
            assert (await house.says(gateway, "WHOAMI")).startswith("ERR auth-required ")
            assert await house.says(gateway, "AS root") == "OK root role=admin"
            assert not gateway.closing
        await house.ask(watching, "AS root")
        await house.ask(watching, "WATCH")
        await house.ask(root, "USER SET root uid=12")
        assert watching.closing  # it would go on seeing

    trio.run(change)


def test_a_line_that_the_token_file_has_no_more_ends_its_gateway(tmp_path: Path) -> None:
    """Whomever it speaks for at that moment."""

    async def change() -> None:
        house = await a_house(tmp_path, tokens=(b"old",))
        gateways = [house.session() for _ in range(4)]
        for gateway, line in zip(
            gateways, ("AS", "AS ann", "AS ann only=yes", "AS from=192.0.2.9 only=yes"), strict=True
        ):
            await said(house, gateway, "AUTH old", line)
        house.core.admission.take_tokens((b"new",))
        for gateway in gateways[:2]:
            assert gateway.closing
            assert gateway.outbox.why_cut == "its account or token was changed"
        for gateway in gateways[2:]:  # somebody waits for what is answered there
            assert (await house.says(gateway, "LIST")).startswith("ERR auth-required ")

    trio.run(change)


def test_a_wrong_word_costs_the_browser_that_it_came_from(tmp_path: Path) -> None:
    """All of them come by one address, and none may be made to wait for another's guesses."""

    async def guess() -> None:
        house = await a_house(tmp_path)
        house.core.settings = evolve(house.core.settings, max_failures=3)
        gateway = house.session(address=ROOT)
        await house.ask(gateway, "AS from=198.51.100.7")
        waits = []
        for _ in range(3):
            began = trio.current_time()
            waits.append(((await house.says(gateway, WRONG)).split(" ")[1], trio.current_time() - began))
            assert (await house.says(gateway, "LIST")).startswith("ERR auth-required ")
        assert waits == [("denied", 0.25), ("denied", 0.5), ("too-many", 1.0)]
        assert not gateway.closing
        began = trio.current_time()
        assert await said(house, gateway, "AS from=198.51.100.8", RIGHT, "WHOAMI", "AS") == [
            "OK nobody role=none", "OK ann role=user", "OK ann role=user", "OK cronflowd role=admin",
        ]  # fmt: skip
        assert trio.current_time() == began
        told = [fact for fact in house.facts if isinstance(fact, SignedIn | Refused)]
        assert [fact.address for fact in told] == ["198.51.100.7"] * 3 + ["198.51.100.8"]

    trio.run(guess, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_token_that_is_shown_with_each_request_is_told_once_a_minute(tmp_path: Path) -> None:
    """A commit each would be what a request costs; and AS itself journals nothing at all."""

    async def ask() -> None:
        house = await a_house(tmp_path)
        made = await house.ask(house.session(), "TOKEN ADD name=ci role=viewer ttl=1d")
        token, gateway = next(iter(made.rows))[1], house.session(address=ROOT)
        other = tokens_of(await house.ask(house.session(), "TOKEN ADD name=cd role=viewer"))
        house.facts.clear()
        for _ in range(5):
            await said(house, gateway, "AS from=198.51.100.7", f"AUTH {token}", "AS ann", "AS")
            await said(house, gateway, "AS from=198.51.100.7", f"AUTH {other}")
        assert [type(fact) for fact in house.facts] == [SignedIn] * 2
        await trio.sleep(60)
        await said(house, gateway, "AS from=198.51.100.7", f"AUTH {token}")
        assert len(house.facts) == 3
        house.clock.move(house.clock.now() + timedelta(days=2))
        assert (await house.says(gateway, "LIST")).startswith("ERR auth-required the token has expired")
        assert not gateway.closing

    trio.run(ask, clock=trio.testing.MockClock(autojump_threshold=0))


def test_where_a_browser_is_is_counted_as_other_addresses_are() -> None:
    """Whoever has one IPv6 address has 2^64."""
    for text, shown, counted in (
        ("192.0.2.7", "192.0.2.7", "192.0.2.7"), ("192.0.2.7:80", "192.0.2.7:80", "192.0.2.7"),
        ("2001:DB8::1", "[2001:db8::1]", "2001:db8::/64"), ("[2001:db8::2]:9",) * 2 + ("2001:db8::/64",),
        ("[2001:db8::2]", "[2001:db8::2]", "2001:db8::/64"), ("fe80::1%eth0", "[fe80::1]", "fe80::/64"),
        ("::ffff:192.0.2.7",) + ("192.0.2.7",) * 2,
    ):  # fmt: skip
        assert (parse_peer(text), origin(shown)) == (shown, counted)
    for text in ("", "here", "1.2.3", "1.2.3.4:x", ":80", "1.2.3.4:5:6"):
        with pytest.raises(ValueError, match="does not appear"):
            parse_peer(text)


# --- who stays signed in ---


def told(house: House) -> list[tuple[str, ...]]:
    """What AUDIT tells of all that was journaled since."""
    deeds = [deed_of(fact, house.clock.now()) for fact in house.facts]
    return [row for deed in deeds if deed for row in rows_of(deed, "owner")]


def test_each_token_of_a_session_counts_once_and_an_old_one_ends_it(tmp_path: Path) -> None:
    """Of a thief and whom he stole from, one shows an old one sooner or later."""

    async def renew() -> None:
        house = await a_house(tmp_path)
        gateway = house.session(address=ROOT)
        await house.ask(gateway, "AS from=198.51.100.7")
        first = tokens_of(await house.ask(gateway, "SESSION ADD ann ttl=1h"))
        house.clock.move(house.clock.now() + timedelta(minutes=59))
        renewed = await house.ask(gateway, f"SESSION RENEW {first}")
        second = tokens_of(renewed)
        assert renewed.text == "1 ann role=user"
        house.clock.move(house.clock.now() + timedelta(minutes=59))
        third = tokens_of(await house.ask(gateway, f"SESSION RENEW {second}"))
        assert len({first, second, third}) == 3
        assert await said(house, gateway, "AS ann session=1", "AS from=198.51.100.8") == [
            "OK ann role=user", "OK nobody role=none",
        ]  # fmt: skip
        assert await said(
            house, gateway, f"SESSION RENEW {first}", f"SESSION RENEW {third}", "AS ann session=1"
        ) == [
            "ERR denied a token of the session 1 was shown again; the session has ended",
            "ERR denied the session is over, or there was none",
            "ERR denied the session 1 is over",
        ]
        assert told(house) == [
            ("ann", "198.51.100.7", "SESSION", "1", "ok"), ("ann", "198.51.100.8", "SESSION", "1", "denied"),
            ("ann", "198.51.100.8", "SESSION", "1", "ok"), ("", "198.51.100.8", "SESSION", "RENEW", "denied"),
        ]  # fmt: skip

    trio.run(renew)


@pytest.mark.parametrize(
    "line",
    ["USER SET ann role=viewer", "USER PASSWORD ann another-one", "USER SET ann disabled=yes",
     "USER REMOVE ann", "SESSION END 1",],
)  # fmt: skip
def test_a_session_ends_with_what_let_it_in(line: str, tmp_path: Path) -> None:
    """Or whoever has its token would come back with it."""

    async def end() -> None:
        house = await a_house(tmp_path)
        gateway, live, root = house.session(address=ROOT), house.session(address=ROOT), house.session()
        token = tokens_of(await house.ask(gateway, "SESSION ADD ann"))
        for each in gateway, live:
            await house.ask(each, "AS ann session=1")
        await house.ask(live, "WATCH")
        await house.ask(root, line)
        assert (await house.says(gateway, "WHOAMI")).startswith("ERR auth-required ")
        assert (live.closing, gateway.closing) == (True, False)
        assert await house.says(root, "SESSION LIST") == "OK 0"
        assert (await house.says(gateway, f"SESSION RENEW {token}")).startswith("ERR denied ")
        assert (await house.says(gateway, "AS ann session=1")).startswith("ERR denied ")

    trio.run(end)


def test_a_session_ends_for_who_has_it(tmp_path: Path) -> None:
    """By its token, also an old one or one of which nothing else is known; by its id it is one's own."""

    async def end() -> None:
        house = await a_house(tmp_path)
        gateway = house.session(address=ROOT)
        await house.ask(gateway, "AS from=198.51.100.7")
        token = tokens_of(await house.ask(gateway, "SESSION ADD ann"))
        for name in "ann", "root", "eve":
            await house.says(gateway, f"SESSION ADD {name}")
        assert await said(
            house, gateway, f"SESSION END {token}", f"SESSION END {token}", "AS ann", "SESSION END 3",
            "SESSION END 2", "SESSION LIST user=ann", "SESSION LIST", "AS root", "SESSION END 2",
            "SESSION END 3",
        ) == [
            "OK 1 ended", "ERR denied the session is over, or there was none", "OK ann role=user",
            "ERR denied the session of others takes the role admin", "OK 2 ended", "OK 0", "OK 1",
            "OK root role=admin", "ERR not-found no session 2", "OK 3 ended",
        ]  # fmt: skip

    trio.run(end)


def test_no_more_sessions_are_kept_than_are_of_use(tmp_path: Path) -> None:
    """Whoever signs in ten thousand times a day must not keep others from it."""

    async def begin() -> None:
        house = await a_house(tmp_path)
        gateway, access = house.session(address=ROOT), house.state.access
        for _ in range(MAX_LOGINS_EACH + 2):
            await house.ask(gateway, "SESSION ADD ann")
        assert min(access.logins) == 3
        assert len(access.logins) == len(access.by_family) == MAX_LOGINS_EACH
        house.clock.move(house.clock.now() + timedelta(days=7))
        assert await house.says(gateway, "SESSION LIST") == "OK 0"
        assert await house.says(gateway, "AS ann session=3") == "ERR denied the session 3 is over"
        await house.ask(gateway, "SESSION ADD root ttl=1h")
        assert list(access.logins) == [MAX_LOGINS_EACH + 3]

    trio.run(begin)


def test_who_signs_in_very_often_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where strangers may register, a hundred accounts of one could take every session there may be."""
    monkeypatch.setattr(accounts, "MAX_LOGINS", 5)

    async def begin() -> None:
        house = await a_house(tmp_path)
        gateway, access = house.session(address=ROOT), house.state.access
        for name in "ann", "root", "ann", "ann", "root", "root", "root":
            house.clock.move(house.clock.now() + timedelta(seconds=1))
            assert (await house.says(gateway, f"SESSION ADD {name}")).startswith("OK")
        assert [(each.id, each.user) for each in access.logins.values()] == [
            (3, "ann"), (4, "ann"), (5, "root"), (6, "root"), (7, "root"),
        ]  # fmt: skip

    trio.run(begin)


def test_a_forgotten_password_is_set_once(tmp_path: Path) -> None:
    """The word comes by mail, which others read as well."""

    async def reset() -> None:
        house = await a_house(tmp_path)
        root, gateway = house.session(), house.session(address=ROOT)
        await house.ask(root, "USER SET ann email=Ann@example.org")
        await house.ask(gateway, "AS from=198.51.100.7")
        await house.ask(gateway, "SESSION ADD ann")
        before, late = (
            await house.ask(gateway, "USER FORGOT ann"),
            await house.ask(gateway, "USER FORGOT ann@EXAMPLE.org"),
        )
        assert list(late.rows)[1] == ("email", "Ann@example.org")
        assert (late.text, await house.says(gateway, "USER FORGOT nobody@example.org")) == (
            "ann", "ERR not-found no such account that may come in",
        )  # fmt: skip
        word = tokens_of(late)
        wrong = "ERR denied the word is not the right one, was used, or has expired"
        lines = f"USER RESET {tokens_of(before)} chosen-one", f"USER RESET {word} short"
        assert await said(house, gateway, *lines) == [
            wrong, "ERR bad-option a password has 8 to 256 characters",
        ]  # fmt: skip
        found: dict[str, str] = {}

        async def race(number: int) -> None:
            other = house.session(address=ROOT)
            found[await house.says(other, f"USER RESET {word} chosen-one-{number}")] = f"chosen-one-{number}"

        async with trio.open_nursery() as nursery:
            for number in range(2):
                nursery.start_soon(race, number)
        assert sorted(found) == [wrong, "OK ann"]
        assert await house.says(root, "SESSION LIST") == "OK 0"
        assert await house.says(house.session(), f"AUTH ann {found['OK ann']}") == "OK ann role=user"
        again = tokens_of(await house.ask(gateway, "USER FORGOT ann"))
        house.clock.move(house.clock.now() + timedelta(minutes=30))
        assert await house.says(gateway, f"USER RESET {again}") == wrong

    trio.run(reset, clock=trio.testing.MockClock(autojump_threshold=0))


def test_an_account_is_found_by_its_address_for_mail(tmp_path: Path) -> None:
    """People know it better than a name; but it must be one account's, and guesses count for that one."""

    async def find() -> None:
        house = await a_house(tmp_path)
        root = house.session()
        assert await said(
            house, root, "USER SET ann email=ann@example.org", "USER SET root email=ANN@example.org",
            "USER ADD eve email=ann@Example.org password=correct-horse",
        ) == [
            "OK ann", 'ERR exists the address ANN@example.org is that of "ann" already',
            'ERR exists the address ann@Example.org is that of "ann" already',
        ]  # fmt: skip
        assert await house.says(house.session(), "AUTH Ann@example.org correct-horse") == "OK ann role=user"
        waits = []
        for address, name in (
            ("192.0.2.1:1", "ann"),
            ("192.0.2.2:1", "ann@example.org"),
            ("192.0.2.3:1", "ann"),
        ):
            began = trio.current_time()
            assert (await house.says(house.session(address=address), f"AUTH {name} wrong")).startswith(
                "ERR denied"
            )
            waits.append(trio.current_time() - began)
        assert waits == [0.25, 0.5, 1.0]
        # A journal of before may hold an address twice.
        twice = af.AccountSet(
            "eve", "user", house.clock.now(), "ann@example.org", password="hash of correct-horse"
        )
        house.state.apply(twice, house.clock.now(), 99)
        assert (await house.says(house.session(), "AUTH ann@example.org correct-horse")).startswith(
            "ERR denied"
        )

    trio.run(find, clock=trio.testing.MockClock(autojump_threshold=0))


def test_of_two_first_visits_one_makes_the_admin(tmp_path: Path) -> None:
    """Both found no account, and each hashes its password meanwhile."""

    async def visit() -> None:
        house, found = House(tmp_path), []

        async def one(name: str) -> None:
            line = f"USER ADD {name} role=admin first=yes password=correct-horse"
            found.append(await house.says(house.session(address=ROOT), line))

        async with trio.open_nursery() as nursery:
            for name in "ann", "eve":
                nursery.start_soon(one, name)
        assert sorted(text[:10].rstrip() for text in found) == [
            "ERR exists",
            f"OK {next(iter(house.state.access.accounts))}",
        ]

    trio.run(visit)


def test_nobody_is_the_first_where_he_has_to_say_who_he_is(tmp_path: Path) -> None:
    """Whoever set a secret has not left the machine to whoever visits it first."""

    async def visit() -> None:
        for number, told in enumerate(({"asks": True, "tokens": (b"word",)}, {"tokens": (b"word",)})):
            house = House(tmp_path / str(number), **told)
            gateway = house.session(address=ROOT)
            await house.says(gateway, "AUTH word")
            line = "USER ADD eve role=admin password=correct-horse"
            assert (await house.says(gateway, f"{line} first=yes")).startswith("ERR denied who comes has to")
            assert await house.says(gateway, line) == "OK eve"

    trio.run(visit)


def test_one_account_alone_is_listed(tmp_path: Path) -> None:
    """A gateway shows who has signed in, and there may be thousands."""

    async def look() -> None:
        house = await a_house(tmp_path)
        root = house.session("root", "admin")
        for line, names in (
            ("USER LIST ann", ["ann"]),
            ("USER LIST eve", []),
            ("USER LIST", ["ann", "root"]),
        ):
            assert [row[0] for row in (await house.ask(root, line)).rows] == names
        assert (await house.says(root, "USER LIST ann root")).startswith("ERR syntax")

    trio.run(look)


def test_nothing_that_lets_in_is_journaled(tmp_path: Path) -> None:
    """Backups hold the journal, and everybody reads AUDIT."""

    async def look() -> None:
        house = await a_house(tmp_path)
        gateway = house.session(address=ROOT)
        first = tokens_of(await house.ask(gateway, "SESSION ADD ann"))
        second = tokens_of(await house.ask(gateway, f"SESSION RENEW {first}"))
        word = tokens_of(await house.ask(gateway, "USER FORGOT ann"))
        for line in (
            f"SESSION RENEW {first}", f"SESSION END {second}", f"SESSION RENEW {second} x",
            f"USER RESET {word} {word} x",
            f"USER RESET {word} {word}", f"USER FORGOT {word}",
        ):  # fmt: skip
            for session in house.session("ann", "viewer"), gateway:
                await house.says(session, line)
        written = b"".join(encode(1, house.clock.now(), fact, False) for fact in house.facts).decode()
        written = written.replace(f"hash of {word}", "")
        assert not [
            half
            for each in (first, second, word)
            for half in (each[:64], each[64:])
            if half and half in written
        ]

    trio.run(look)
