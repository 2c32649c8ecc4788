"""Forms of the pages: nothing that was typed is lost, or done twice, and nothing else is changed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cronflowd.web.line import Unreachable
from tests.web.pages.test_pages import SECOND_WORD, _house, _send


async def test_a_refusal_stands_at_its_field_and_nothing_that_was_filled_in_is_lost(tmp_path: Path) -> None:
    """Whoever typed twenty fields types one again."""
    async with _house(tmp_path) as (browser, daemon):
        form = {"schedule": "@daily", "command": "a", "name": "job", "timeout": "soon", "env": "A=1\nB=x y"}
        answer = await _send(browser, "/jobs/new", **form)
        assert answer.status == 422
        field = re.search(r'<input id="f-timeout"[^>]*>', answer.text)
        assert field
        assert 'aria-invalid="true" aria-describedby="wrong-timeout"' in field[0]
        assert 'value="soon"' in field[0]
        assert ">A=1\nB=x y</textarea>" in answer.text
        for change, wrong in (
            ({"timeout": "", "schedule": "61 * * * *"}, "schedule"),
            ({"timeout": "", "after": "nobody"}, "after"),
            ({"timeout": "", "env": "no sign"}, "env"),
            ({"timeout": "", "command": ""}, "command"),
        ):
            answer = await _send(browser, "/jobs/new", **(form | change))
            assert f'id="wrong-{wrong}"' in answer.text, wrong
        assert (await _send(browser, "/jobs/new", **(form | {"timeout": ""}))).status == 303
        job = {row["key"]: row["value"] for row in await daemon.say("GET job")}
        assert (job["env.A"], job["env.B"]) == ("1", "x y")


@pytest.mark.parametrize(
    ("path", "form", "wrong"),
    [
        ("/heartbeats", {"name": "offsite", "every": "often", "desc": "a copy"}, "every"),
        ("/heartbeats", {"name": "of site", "every": "1d", "desc": "a copy"}, "name"),
        ("/users", {"deed": "add", "name": "b c", "email": "b@example.org", "role": "viewer"}, "name"),
        ("/users", {"deed": "add", "name": "bob", "email": "nowhere", "role": "viewer"}, "email"),
        ("/tokens", {"deed": "add", "name": "ci", "ttl": "ever", "role": "viewer"}, "ttl"),
        ("/secrets", {"deed": "put", "name": "d b", "value": "hunter3"}, "name"),
    ],
)
async def test_so_it_is_in_every_form_that_makes_something(
    tmp_path: Path, path: str, form: dict[str, str], wrong: str
) -> None:
    """Heartbeats were a page of errors, and of the others all that was typed was lost."""
    async with _house(tmp_path) as (browser, _):
        answer = await _send(browser, path, **form)
        assert answer.status == 422
        assert f'aria-invalid="true" aria-describedby="wrong-{wrong}"' in answer.text
        assert f'<p class="refusal" id="wrong-{wrong}">' in answer.text
        fields = dict(re.findall(r'<input id="([a-z]+)"[^>]* value="([^"]*)"', answer.text))
        typed = {key: value for key, value in form.items() if key not in ("deed", "role", "value")}
        assert typed.items() <= fields.items()
        assert "role" not in form or "<option selected>viewer" in answer.text.partition('id="role"')[2]
        assert "hunter3" not in answer.text


async def test_only_what_was_changed_in_the_form_is_said_to_the_daemon(tmp_path: Path) -> None:
    """A secret that is shown as stars stays what it is, and so does what somebody else changes meanwhile."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say(
            'ADD name=job type=webhook secret=hunter2 header.X-A="1 2" timeout=5m @daily http://x/'
        )
        page = (await browser.get("/jobs/job/edit")).text
        assert "hunter2" not in page
        form = {
            "schedule": "@daily", "command": "http://x/", "name": "job", "type": "webhook", "secret": "***",
            "header": "X-A=1 3", "timeout": "", "overlap": "skip", "prio": "medium", "desc": "",
        }  # fmt: skip
        assert (await _send(browser, "/jobs/job/edit", **form)).status == 303
        (newest, *_) = await daemon.say("HISTORY job limit=1")
        assert newest["change"] == "header.X-A: 1 2 -> 1 3; timeout: 5m -> none"
        answer = await _send(browser, "/jobs/job/edit", **form)
        assert answer.headers["location"] == "/jobs/job?done=unchanged"


async def test_who_gives_a_job_another_name_comes_to_its_page(tmp_path: Path) -> None:
    """What it was called before leads nowhere any more."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say("ADD name=job @daily true")
        answer = await _send(browser, "/jobs/job/edit", name="other")
        assert (await browser.get(answer.headers["location"])).status == 200


@pytest.mark.parametrize("command", ["  indented", "behind  ", "turned\u202eround", "a\tb"])
async def test_what_a_page_shows_less_of_is_not_changed_with_something_else(
    tmp_path: Path, command: str
) -> None:
    """Who wrote what a job is for took the blanks of its command away, and the marks that nobody sees."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say(f'ADD name=job title=" t " env.X="a  " @daily {command}')
        page = (await browser.get("/jobs/job/edit")).text
        shown = re.search('name="command" class="code" value="([^"]*)"', page)
        assert shown
        form = {"command": shown[1], "title": "t", "env": "X=a", "desc": "new"}
        assert (await _send(browser, "/jobs/job/edit", **form)).status == 303
        (newest, *_) = await daemon.say("HISTORY job limit=1")
        assert newest["change"] == "desc: - -> new"


async def test_who_saves_what_another_has_changed_meanwhile_is_told_and_may_save_it_over_that(
    tmp_path: Path,
) -> None:
    """He was refused as often as he tried, until he typed it all again in a form that was opened anew."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say("ADD name=job timeout=5m env.A=1 @daily a")
        form = {
            "rev": "1", "name": "job", "schedule": "@daily", "command": "a", "timeout": "5m", "tags": "",
            "overlap": "skip", "desc": "mine", "env": "A=1\nB=2",
        }  # fmt: skip
        await daemon.say("SET job command=other desc=theirs timeout=9m overlap=queue")
        answer = await _send(browser, "/jobs/job/edit", **form)
        assert answer.status == 422 and "command: a -&gt; other" in answer.text
        fields = dict(re.findall(r'<input id="f-([a-z]+)"[^>]* value="([^"]*)"', answer.text))
        assert {key: fields[key] for key in ("command", "timeout", "desc")} == {
            "command": "other", "timeout": "9m", "desc": "mine",
        }  # fmt: skip
        assert "<option selected>queue</option>" in answer.text and ">A=1\nB=2</textarea>" in answer.text
        assert 'name="rev" value="2"' in answer.text
        again = form | fields | {"rev": "2", "overlap": "queue"}
        assert (await _send(browser, "/jobs/job/edit", **again)).status == 303
        (newest, *_) = await daemon.say("HISTORY job limit=1")
        assert newest["change"] == "desc: theirs -> mine; env.B: - -> 2"


async def test_what_one_page_sends_is_done_once(tmp_path: Path) -> None:
    """By two clicks, and by whoever sends it again since no answer came, there were two jobs."""
    async with _house(tmp_path) as (browser, _):
        form = {"schedule": "@daily", "command": "a"}
        once = re.search('name="once" value="([0-9a-f]{16})"', (await browser.get("/jobs/new")).text)
        assert once
        for path, command in (("/jobs/1", "a"), ("/jobs/1", "a"), ("/jobs/2", "b")):
            answer = await _send(browser, "/jobs/new", **(form | {"command": command, "once": once[1]}))
            assert answer.headers["location"] == f"{path}?done=added"
        answer = await _send(browser, "/jobs/new", **form, **{"once": once[1], "try": "yes"})
        assert f'name="once" value="{once[1]}"' not in answer.text, "what is tried again is to run again"
        answer = await _send(browser, "/jobs/new", **form, once="x CLEAR all")
        assert answer.headers["location"] == "/jobs/4?done=added"


async def test_what_was_sent_to_a_daemon_that_does_not_answer_may_be_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page looked again for what can only be sent, and told that there was no such thing."""
    async with _house(tmp_path) as (browser, daemon):
        word = SECOND_WORD.search((await browser.get("/more")).text)
        assert word

        async def nobody(*_: Any) -> Any:
            raise Unreachable("unix:/x: no such file")

        monkeypatch.setattr(daemon, "ask_all", nobody)
        for path, back in (
            ("/jobs/new", "/jobs/new"), ("/jobs/a/edit", "/jobs/a/edit"), ("/jobs/a/run", "/jobs/a"),
            ("/heartbeats", "/heartbeats"), ("/pause", "/"),
        ):  # fmt: skip
            answer = await browser.ask("POST", path, form={"csrf": word[1]})
            assert answer.status == 503
            assert "What you sent may not be done" in answer.text
            assert f'<a class="button main" href="{back}">Back' in answer.text
            assert 'http-equiv="refresh"' not in answer.text and "by itself" not in answer.text


async def test_a_time_that_is_none_is_told_where_a_pause_was_typed(tmp_path: Path) -> None:
    """The reason that was written is not lost for it."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say("ADD name=a tags=db @daily x")
        form = {"until": "soon", "why": "the disk is full", "next": "/jobs/a"}
        for chosen in ({"what": "a"}, {"tag": "db"}, {}):
            answer = await _send(browser, "/pause", **form, **chosen)
            assert answer.status == 422
            assert 'value="soon" aria-invalid="true" aria-describedby="wrong-until"' in answer.text
            assert 'value="the disk is full"' in answer.text and 'href="/jobs/a">Leave' in answer.text
            for name in ("what", "tag"):
                assert f'name="{name}" value="{chosen.get(name, "")}"' in answer.text
        answer = await _send(browser, "/pause", **(form | {"what": "a", "until": "2h"}))
        assert (answer.status, answer.headers["location"]) == (303, "/jobs/a?done=paused")
        assert (await _send(browser, "/pause", **(form | {"what": "b"}))).status in (404, 422)


@pytest.mark.parametrize(
    ("path", "form", "line", "gone"),
    [
        ("/users", {"deed": "remove", "name": "bob"}, "USER LIST", "bob"),
        ("/tokens", {"deed": "revoke", "name": "1"}, "TOKEN LIST", "ci"),
        ("/secrets", {"deed": "remove", "name": "db"}, "SECRET LIST", "db"),
        ("/heartbeats", {"forget": "yes", "name": "offsite"}, "EXPECTS", "offsite"),
    ],
)
async def test_what_cannot_be_taken_back_is_asked_first(
    tmp_path: Path, path: str, form: dict[str, str], line: str, gone: str
) -> None:
    """One touch beside the right one, and a secret was gone that nobody can show again."""
    async with _house(tmp_path) as (browser, daemon):
        for said in (
            "USER ADD bob role=user",
            "TOKEN ADD name=ci",
            "SECRET PUT db x",
            "EXPECT offsite every=1d",
        ):
            await daemon.say(said)
        asked = await _send(browser, path, **form)
        assert (asked.status, f'href="{path}"' in asked.text) == (200, True)
        assert gone in [row["name"] for row in await daemon.say(line)]
        sent = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', asked.text))
        assert (await _send(browser, path, **{key: sent[key] for key in sent if key != "csrf"})).status == 303
        assert gone not in [row["name"] for row in await daemon.say(line)]


async def test_a_new_password_is_asked_for_twice_and_shown_once(tmp_path: Path) -> None:
    """The old one, and all its sessions, end with it."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say("USER ADD bob role=user")
        form = {"deed": "password", "name": "bob"}
        assert "Make a new password: bob?" in (await _send(browser, "/users", **form)).text
        assert "shown once" in (await _send(browser, "/users", **form, sure="yes")).text
