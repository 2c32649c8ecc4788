"""Pages before a whole daemon: what hostile values become, what is refused, and who is shown which button."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import orjson
import pytest

from cronflowd.base.errors import Refusal
from cronflowd.journal.journal import FileJournal
from cronflowd.web.line import Unreachable
from cronflowd.web.pages import job_form
from tests.lib.asgi import Browser, InMemory, Response, a_door
from tests.lib.web_api import make_app

HTML = {"accept": "text/html"}
BAD = "<script>alert(1)</script>\u202e\"'&"
SECOND_WORD = re.compile('name="csrf" value="([0-9a-f]+)"')


@asynccontextmanager
async def _house(data: Path, role: str = "admin") -> AsyncIterator[tuple[Browser, InMemory]]:
    """Somebody of this role who has signed in as `ann`."""
    async with a_door(data, make_app) as (app, daemon):
        await daemon.say("USER ADD root role=admin password=correct-horse")
        await daemon.say(f"USER ADD ann role={role} password=correct-horse")
        browser = Browser(app, headers=dict(HTML))
        answer = await browser.ask("POST", "/login", form={"user": "ann", "password": "correct-horse"})
        assert (answer.status, answer.headers["location"]) == (303, "/")
        yield browser, daemon


async def _send(browser: Browser, path: str, **form: str) -> Response:
    """A form, with the second word that the page before it had."""
    word = SECOND_WORD.search((await browser.get("/more")).text)
    assert word
    return await browser.ask("POST", path, form={"csrf": word[1], **form})


async def test_hostile_names_commands_and_reasons_are_text_on_every_page(tmp_path: Path) -> None:
    """Who may add a job must not become whoever looks at it."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say(
            f'ADD name=bad tags=x title="{_quoted(BAD)}" desc="{_quoted(BAD)}" @daily echo {BAD}'
        )
        await daemon.say(f'PAUSE bad why="{_quoted(BAD)}"')
        await daemon.say(f'EXPECT beat every=1d desc="{_quoted(BAD)}"')
        await daemon.say(f'USER SET ann desc="{_quoted(BAD)}"')
        for path in (
            "/", "/jobs", "/jobs/bad", "/jobs/bad/edit", "/jobs/bad/history", "/jobs/bad/pause", "/pauses",
            "/changes", "/heartbeats", "/users", "/audit", f"/jobs?search={'%3Cscript%3E%22'}",
            "/jobs/new?schedule=%3Cscript%3E&command=%22%3E%3Cscript%3E",
        ):  # fmt: skip
            answer = await browser.get(path)
            assert answer.status == 200, path
            assert "<script>" not in answer.text.replace("<script src=", ""), path
            assert "\u202e" not in answer.text, path
            assert "a fault of ours" not in answer.text, path


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


@pytest.mark.parametrize(
    "path",
    ["/jobs/a%20limit=1", "/jobs/a%0aCLEAR%20all", "/jobs/..%2f", "/jobs/nobody", "/runs?job=a%20state=ok"],
)
async def test_an_address_never_becomes_other_words_of_a_line(tmp_path: Path, path: str) -> None:
    """What stands behind /jobs/ is said to the daemon: it is one word, or nothing at all."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say("ADD name=a @daily a")
        where, _, query = path.partition("?")
        answer = await browser.get(unquote(where) + (f"?{query}" if query else ""))
        assert answer.status == 404
        assert len(await daemon.say("LIST")) == 1


async def test_nobody_is_let_in_without_a_session_and_comes_back_to_where_he_was_going(
    tmp_path: Path,
) -> None:
    """A link in a mail leads to its page by way of the sign-in, and to no other host."""
    async with a_door(tmp_path, make_app) as (app, daemon):
        await daemon.say("USER ADD ann role=viewer password=correct-horse")
        browser = Browser(app, headers=dict(HTML))
        answer = await browser.get("/runs/7?x=1")
        assert answer.headers["location"] == "/login?next=%2Fruns%2F7%3Fx%3D1"
        who = {"user": "ann", "password": "correct-horse"}
        for said, led in (
            ("/runs/7?x=1", "/runs/7?x=1"),
            ("//evil.example", "/"),
            ("https://evil.example", "/"),
        ):
            answer = await Browser(app, headers=dict(HTML)).ask("POST", "/login", form=who | {"next": said})
            assert (answer.status, answer.headers["location"]) == (303, led)
        answer = await browser.ask("POST", "/login", form=who | {"password": "wrong-one"})
        assert answer.status == 401
        assert "not the right one" in answer.text


async def test_a_form_of_another_site_changes_nothing(tmp_path: Path) -> None:
    """The browser sends the cookie with it; the second word it cannot know."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say("ADD name=a @daily a")
        answer = await browser.ask("POST", "/jobs/a/remove", form={"csrf": "0" * 64})
        assert answer.status == 403
        assert len(await daemon.say("LIST")) == 1
        assert (await _send(browser, "/jobs/a/remove")).status == 303
        assert await daemon.say("LIST") == []


async def test_a_form_in_parts_is_not_read(tmp_path: Path) -> None:
    """No page of ours sends one, and what is no text in it was a fault of ours."""
    async with a_door(tmp_path, make_app) as (app, _):
        body = b'--x\r\nContent-Disposition: form-data; name="user"\r\n\r\n\xff\r\n--x--\r\n'
        said = {"content_type": "multipart/form-data; boundary=x", **HTML}
        assert (await Browser(app).ask("POST", "/login", body=body, **said)).status == 415


async def test_what_is_tried_is_the_command_that_stands_in_the_form(tmp_path: Path) -> None:
    """`A=1 env` sets a variable for the shell; before a command of NOW it was an option, or none."""
    async with _house(tmp_path) as (browser, daemon):
        form = {"type": "shell", "schedule": "@daily", "name": "job", "env": "B=x y", "try": "yes"}
        for at, command in enumerate(("A=1 env", "on=nowhere echo hi")):
            page = await _send(browser, "/jobs/new", **form, command=command)
            assert page.status == 200, page.text
            tried = (await daemon.say("LIST"))[at]
            job = {row["key"]: row["value"] for row in await daemon.say(f"GET {tried['id']}")}
            assert (job["command"], job["env.B"], job["on"]) == (command, "x y", "any")


async def test_braces_in_a_form_are_braces(tmp_path: Path) -> None:
    """What somebody fills in is no pattern that is filled in again."""
    async with _house(tmp_path) as (browser, _):
        for form in ({"email": "{x}@e.org"}, {"email": "{name.__class__}@e.org"}):
            answer = await _send(browser, "/users", deed="add", name="bob", role="user", **form)
            assert answer.status in (303, 422, 200), answer.text
            assert "class &#39;str&#39;" not in answer.text
        answer = await _send(browser, "/secrets", deed="put", name="key", value='{name} \\ "x"\r\n{')
        assert answer.status == 303, answer.text


async def test_json_on_several_lines_is_taken(tmp_path: Path) -> None:
    """The field has four lines and asks for JSON; a line of the protocol, and of tasks.db, is one."""
    async with _house(tmp_path) as (browser, daemon):
        form = {"type": "webhook", "command": "http://x/", "schedule": "@daily", "name": "hook"}
        answer = await _send(browser, "/jobs/new", **form, payload='{\r\n "a": 1,\r\n "b": "x  y"\r\n}')
        assert answer.status == 303, answer.text
        job = {row["key"]: row["value"] for row in await daemon.say("GET hook")}
        assert orjson.loads(job["payload"]) == {"a": 1, "b": "x  y"}
        answer = await _send(browser, "/jobs/hook/edit", **form, payload='{"a":\n2}')
        assert answer.status == 303, answer.text
        answer = await _send(browser, "/jobs/new", **form | {"name": "bad"}, payload="no\nJSON")
        assert 'id="wrong-payload"' in answer.text


async def test_who_may_change_only_his_own_jobs_is_shown_buttons_for_these_alone(tmp_path: Path) -> None:
    """A button that answers `denied` teaches people not to press buttons."""
    async with _house(tmp_path, "user") as (browser, daemon):
        await daemon.say("ADD name=other @daily a")
        await _send(browser, "/jobs/new", schedule="@daily", command="a", name="own")
        for name, is_shown in (("own", True), ("other", False)):
            page = (await browser.get(f"/jobs/{name}")).text
            assert ("Run now" in page, "/remove" in page, "/edit" in page) == (is_shown,) * 3
            for form in "edit", "pause", "remove":
                answer = await browser.get(f"/jobs/{name}/{form}")
                assert answer.status == (200 if is_shown else 403), "nor is it found by its address"
        await daemon.say("PAUSE other own")
        page = (await browser.get("/pauses")).text
        assert "Pause more" not in page
        assert ("Resume own" in page, "Resume other" in page) == (True, False)
        await daemon.say("RESUME all")
        await daemon.world.play("w", None, "HELLO name=w1 slots=4")
        for run, name in enumerate(("other", "own"), 1):
            await daemon.say(f"RUN {name}")
            assert (await browser.get(f"/runs/{run}/cancel")).status == (200 if name == "own" else 403)
            await daemon.world.play("w", None, f"DONE {run} 1 3")
        page = (await browser.get("/")).text
        buttons = [f"/jobs/{row['id']}/run" in page for row in await daemon.say("LIST sort=name")]
        assert ("other" in page, buttons) == (True, [False, True])
        assert (await _send(browser, "/jobs/other/run")).status == 403


async def test_taking_back_takes_back_what_was_shown_and_nothing_that_came_since(tmp_path: Path) -> None:
    """Between the look and the button somebody else may have changed something."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say("ADD name=a @daily a")
        page = (await browser.get("/undo")).text
        shown = re.search(r'name="newest" value="(\d+)"', page)
        assert shown
        await daemon.say("ADD name=b @daily b")
        answer = await _send(browser, "/undo", n="1", newest=shown[1])
        assert answer.headers["location"] == "/undo?n=1"
        assert len(await daemon.say("LIST")) == 2


async def test_a_daemon_that_does_not_answer_is_said_and_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a white page: the process of the pages is well."""
    async with _house(tmp_path) as (browser, daemon):

        async def nobody(*_: Any) -> Any:
            raise Unreachable("unix:/x: no such file")

        monkeypatch.setattr(daemon, "ask_all", nobody)
        answer = await browser.get("/")
        assert answer.status == 503
        assert "The daemon does not answer" in answer.text
        assert '<meta http-equiv="refresh"' in answer.text


async def test_the_beginning_of_a_page_does_not_wait_for_old_files(tmp_path: Path) -> None:
    """The sentence on top is there while a year of history is still being read; a refusal there is told."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say("ADD name=a @daily a")
        async with browser.open("GET", "/") as answer:
            parts = [part async for part in answer.parts()]
        assert b"<h1>" in parts[0]
        assert b'id="needs"' in parts[1]
        assert parts[1].rstrip().endswith(b"</html>")


async def test_a_run_that_is_not_known_has_no_page_and_one_that_is_over_is_not_cancelled(
    tmp_path: Path,
) -> None:
    """A link into the past said 200, and what asks before it cancels read all of history for it."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say("ADD name=a @daily a")
        await daemon.say("RUN a")
        assert (await browser.get("/runs/1")).status == 200
        assert "Cancel run 1 of a?" in (await browser.get("/runs/1/cancel")).text
        await daemon.say("CANCEL 1")
        asked = daemon.lines
        asked.clear()
        answer = await browser.get("/runs/1/cancel")
        assert (answer.status, answer.headers["location"]) == (303, "/runs/1")
        assert [line for line in asked if line.startswith("RUNS")] == [
            "RUNS run=1 state=queued,sent,running limit=1"
        ]
        answer = await browser.get("/runs/99")
        assert (answer.status, "no run 99" in answer.text) == (404, True)


async def test_a_run_that_waits_tells_what_for(tmp_path: Path) -> None:
    """It was under way, said its page, while there was no worker."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say("ADD name=a @daily a")
        await daemon.say("RUN a")
        page = (await browser.get("/runs/1")).text
        assert "waits for a worker that can do shell" in page
        assert "It waits to begin." in page and "under way" not in page


async def test_what_is_not_there_is_said_in_the_form_of_whoever_asks(tmp_path: Path) -> None:
    """A person is led back to a page, a program has its error as JSON."""
    async with a_door(tmp_path, make_app) as (app, _):
        answer = await Browser(app, headers=dict(HTML)).get("/no/such/page")
        assert (answer.status, "To last night" in answer.text) == (404, True)
        for path, headers in (("/no/such/page", {}), ("/api/nothing", HTML)):
            assert (await Browser(app, headers=dict(headers)).get(path)).error == (404, "not-found")


async def test_a_list_is_told_a_page_at_a_time(tmp_path: Path) -> None:
    """Ten thousand jobs are no page; what was looked for is looked for on the next one, too."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.ask_all([f"ADD name=job-{number} tags=t @daily a" for number in range(112)])
        for number, rows, others in ((1, 50, "next"), (2, 50, "prev next"), (3, 12, "prev")):
            page = (await browser.get(f"/jobs?tag=t&page={number}")).text
            assert page.count('<th scope="row"') == rows
            assert "of 112" in page
            found = re.findall(r'rel="(\w+)" href="/jobs\?tag=t&amp;page=(\d)"', page)
            assert found == [(word, str(number + (1 if word == "next" else -1))) for word in others.split()]


async def test_a_page_behind_the_last_one_says_so_and_none_leads_to_it(tmp_path: Path) -> None:
    """`No job yet` stood where a page of jobs had been; of a job's changes no page told but the last 50."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say("ADD name=a @daily a")
        for number in range(49):
            await daemon.say(f"SET a desc={number}")
        for path in ("/changes", "/jobs/a/history"):
            page = (await browser.get(path)).text
            assert page.count("<tr>") == 51 and "Older" not in page, path
        await daemon.say("SET a desc=last")
        for path in ("/changes", "/jobs/a/history"):
            assert f'<a rel="next" href="{path}?page=2">' in (await browser.get(path)).text
            assert (await browser.get(f"{path}?page=2")).text.count("<tr>") == 2, "with its head"
        for path in ("/jobs?tag=x&page=2", "/runs?page=2", "/changes?page=3"):
            page = (await browser.get(path)).text
            assert "The list does not go that far" in page and " yet</h2>" not in page, path


async def test_a_list_that_is_cut_says_so(tmp_path: Path) -> None:
    """Who does not find a secret there must not believe that there is none."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.ask_all([f"SECRET PUT s{number} x" for number in range(203)])
        page = (await browser.get("/secrets")).text
        assert page.count('<th scope="row">') == 200
        assert "and 3 more: SECRET LIST tells all" in page
        await daemon.ask_all(
            [
                f"ADD name=n{number} after=n{number - 1} @after x" if number else "ADD name=n0 @daily x"
                for number in range(203)
            ]
        )
        assert "and 3 more: FLOW n0 tells all" in (await browser.get("/flows/n0")).text
        assert '<a rel="next" href="/audit?page=2">' in (await browser.get("/audit")).text
        page = (await browser.get("/audit?page=2")).text
        assert page.count('<th scope="row">') == 50 and "ADD n202<" not in page


async def test_who_waits_for_whom_is_cut_where_it_is_very_long(tmp_path: Path) -> None:
    """Of 300 tasks that each wait for a hundred a page was 4 MB, and held up all others while it was made."""
    async with _house(tmp_path) as (browser, daemon):
        names: list[str] = []
        for number in range(30):
            waits = f"after={','.join(names)} @after" if names else "@daily"
            await daemon.say(f"ADD name=w{number} {waits} x")
            names.append(f"w{number}")
        lines = len(await daemon.say("DEPS w29"))
        page = (await browser.get("/jobs/w29")).text
        tree = page.partition('<ul class="tree">')[2].partition("</ul>")[0]
        assert tree.count("<li>") == 300 < lines
        assert f"and {lines - 300} more: DEPS w29 tells all" in page
        await daemon.ask_all(["ADD name=a @daily x", "ADD name=b after=a @after x"])
        assert "tells all" not in (await browser.get("/jobs/b")).text


async def test_a_theme_is_kept_by_the_browser(tmp_path: Path) -> None:
    """Also for whoever has not signed in."""
    async with a_door(tmp_path, make_app) as (app, _):
        browser = Browser(app, headers=dict(HTML))
        answer = await browser.ask("POST", "/theme", form={"theme": "dark", "next": "/login"})
        assert (answer.status, answer.headers["location"]) == (303, "/login")
        assert '<html lang="en" data-theme="dark">' in (await browser.get("/forgot")).text


def _full(*_: object) -> int:
    raise Refusal("disk-full", "no space")


async def test_one_sees_where_one_is_signed_in_and_ends_one_session_or_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser left open somewhere needs no admin to be signed out, and is not only said to be."""
    async with _house(tmp_path, "viewer") as (browser, daemon):
        others = [Browser(browser.app, headers=dict(HTML)) for _ in range(3)]
        for other in others:
            await other.ask("POST", "/login", form={"user": "ann", "password": "correct-horse"})
        await browser.ask("POST", "/login", form={"user": "root", "password": "correct-horse"})
        assert (await browser.get("/sessions")).text.count("End session") == 1  # root's
        first = others[0]
        page = (await first.get("/sessions")).text
        assert (page.count("End session"), page.count("this one"), "End all others" in page) == (4, 1, True)
        mine = int(re.findall(r'<th scope="row">(\d+) <span', page)[0])
        assert (await _send(first, "/sessions", session=str(mine + 1))).status == 303
        assert [(await each.get("/sessions")).status for each in others] == [200, 303, 200]
        root = str((await daemon.ask("SESSION LIST user=root")).rows[0]["id"])
        assert (await _send(first, "/sessions", session=root)).status == 404
        with monkeypatch.context() as patch:
            patch.setattr(FileJournal, "append", _full)
            assert (await _send(first, "/sessions", session="others")).status == 503
        await _send(first, "/sessions", session="others")
        assert [(await each.get("/sessions")).status for each in others] == [200, 303, 303]
        assert (await browser.get("/sessions")).status == 200


async def test_any_line_may_be_typed_into_a_page(tmp_path: Path) -> None:
    """With the rights of whoever types, and what comes back is text."""
    async with _house(tmp_path, "user") as (browser, daemon):
        page = (await browser.get("/line?say=CLEAR+all")).text
        assert 'value="CLEAR all"' in page and await daemon.say("LIST") == []
        answer = await _send(browser, "/line", line=f'ADD name=a desc="{_quoted(BAD)}" @daily x')
        assert answer.status == 200 and "jobName=a" in answer.text
        page = (await _send(browser, "/line", line="GET a")).text
        assert "&lt;script&gt;" in page and "\u202e" not in page
        assert "<code>balanced</code>" in (await _send(browser, "/line", line="PROVE")).text
        for line, status, told in (
            ("LITS", 400, "did you mean LIST?"), ("CLEAR", 403, "this takes the role operator"),
            ("AS root", 403, "takes the role admin"), ("", 400, "HELP lists them"),
            ("FORMAT text", 400, "every answer is JSON here"), ("GET a\nREMOVE a", 400, "a newline"),
        ):  # fmt: skip
            answer = await _send(browser, "/line", line=line)
            assert (answer.status, told in answer.text) == (status, True), line
        assert (await browser.ask("POST", "/line", form={"line": "REMOVE a"})).status == 403
        assert len(await daemon.say("LIST")) == 1


async def test_rows_of_which_one_tells_more_than_another_are_shown(tmp_path: Path) -> None:
    """A LOG whose first row no newline ends was a fault of ours, and of a later one nobody saw that."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say("ADD name=a @daily x")
        await daemon.world.play("w", None, "HELLO name=w1 slots=9 can=shell")
        for fds in (1, 2), (2, 1):
            run = (await daemon.ask("RUN a")).status["run"]
            for fd in fds:
                await daemon.world.play("w", None, f"OUT {run} {fd} " + ("really? \\" if fd == 1 else "x"))
            await daemon.world.play("w", None, f"DONE {run} 1 0")
            answer = await _send(browser, "/line", line=f"LOG {run}")
            assert answer.status == 200
            assert 'data-label="end">no-newline<' in answer.text and 'data-label="end">–<' in answer.text


async def test_a_method_that_there_is_not_is_answered_with_those_there_are(tmp_path: Path) -> None:
    """Whoever asks for a page learns as much as whoever asks for JSON."""
    async with _house(tmp_path) as (browser, _):
        answer = await browser.ask("DELETE", "/theme", x_csrf_token="x")
        assert (answer.status, "POST" in answer.headers.get("allow", "")) == (405, True)


async def test_all_are_paused_by_the_form_and_a_word_that_is_no_name_is_refused(tmp_path: Path) -> None:
    """`all` is no job's name, and means all only where that was asked for."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say("ADD name=a @daily a")
        for what, paused in (("a", "yes"), ("all", "yes, like all"), ("", "yes, like all")):
            assert (await _send(browser, "/pause", what=what)).status == 303
            assert (await daemon.ask("GET a")).pairs["paused"] == paused
            await daemon.ask_all(["RESUME a", "RESUME all"])
        assert (await _send(browser, "/jobs/all/run")).status == 404


async def test_a_file_says_once_how_it_is_written(tmp_path: Path) -> None:
    """`charset` stood twice in the type of scripts, styles and outputs: a strict reader takes none of it."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say("ADD name=a @daily true")
        await daemon.say("RUN a")
        types = {path: (await browser.get(path)).headers["content-type"] for path in FILES}
    assert types == FILES


FILES = {
    "/static/app.css": "text/css; charset=utf-8",
    "/static/app.js": "text/javascript; charset=utf-8",
    "/static/icon.svg": "image/svg+xml",
    "/runs/1/log": "text/plain; charset=utf-8",
}


async def test_what_a_job_was_is_told_when_it_is_gone(tmp_path: Path) -> None:
    """One that is tried once is gone soon, and its revisions answered with a fault of ours."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say("ADD name=a @daily x")
        await daemon.say("SET a command=y")
        await daemon.say("REMOVE a")
        for path in ("/jobs/1/history", "/jobs/a/history?from=1&to=2"):
            answer = await browser.get(path)
            assert answer.status == 200, path
            assert "Revisions of" in answer.text and 'action="/jobs/1/rollback"' not in answer.text


async def test_a_page_tells_from_where_on_it_is_to_be_told_more(tmp_path: Path) -> None:
    """What happens while it is on its way must not be missed."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say("ADD name=a @daily x")
        seq = (await daemon.ask("STATUS")).pairs["journal-seq"]
        assert f'class="live" hidden data-seq="{seq}"' in (await browser.get("/jobs/a")).text


async def test_whoever_is_signed_in_no_longer_is_told_so(tmp_path: Path) -> None:
    """A form that was sent led to an empty door: nobody knew whether it was done, or why it asked again."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say("ADD name=a @daily x")
        page = (await browser.get("/jobs/a")).text
        assert '<p class="note warn" id="gone" role="alert" hidden>' in page
        word = SECOND_WORD.search(page)
        assert word
        await daemon.say("SESSION END 1")
        for path, back, words in (
            ("/jobs/a/run", "%2Fjobs%2Fa", "What you sent was not done"), ("/jobs/new", "%2Fjobs%2Fnew", ""),
            ("/users", "%2Fusers", ""), ("/pause", "", ""),
        ):  # fmt: skip
            answer = await browser.ask("POST", path, form={"csrf": word[1]})
            to = "/login?over=sent" + (f"&next={back}" if back else "")
            assert (answer.status, answer.headers["location"]) == (303, to)
            assert words in (await browser.get(to)).text
        seen = await browser.get("/jobs/a")
        assert seen.headers["location"] == "/login?over=yes&next=%2Fjobs%2Fa"
        door = (await browser.get(seen.headers["location"])).text
        assert "Your session has ended" in door and "not done" not in door
        assert "Your session" not in (await Browser(browser.app, headers=dict(HTML)).get("/login")).text


async def test_a_day_of_a_job_is_one_of_the_daemons_zone(tmp_path: Path) -> None:
    """What ran at two in the morning of Kiritimati stood under the day before, and its link led beside it."""
    async with _house(tmp_path) as (browser, daemon):
        daemon.world.core.state.default_tz = "Pacific/Kiritimati"
        await daemon.say("ADD name=a @daily x")
        await daemon.say("RUN a")
        await daemon.world.play("w", None, "HELLO name=w1 slots=4")
        await daemon.world.play("w", None, "DONE 1 1 0")
        page = (await browser.get("/jobs/a")).text
        assert "since=2030-01-01T10:00:00Z&amp;until=2030-01-02T09:59:59.999Z" in page
        where = "/runs?job=1&since=2030-01-01T10:00:00Z&until=2030-01-02T09:59:59.999Z"
        runs = (await browser.get(where)).text
        assert "<h1>Runs of a</h1>" in runs
        assert re.search("due since <time[^>]*>00:00</time> until <time[^>]*>23:59</time>", runs)
        for since in ("2h", "T", "20300101", "2030-13-01T00:00:00Z", "9999-12-31T23:59:59Z"):
            answer = await browser.get(f"/runs?job=gone&since={since}")
            assert answer.status == 200 and f"due since {since}" in answer.text


async def test_what_a_job_waits_for_in_vain_stands_on_its_page(tmp_path: Path) -> None:
    """As netcat is told it by ADD; whoever has used the form saw that the job was added, and no more."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.world.play("w", None, "HELLO name=w1 slots=4")
        answer = await _send(browser, "/jobs/new", type="custom", command="nope", schedule="@daily")
        text = (await browser.get(answer.headers["location"].partition("?")[0])).text
        assert text.count("no connected worker can do custom:nope: its runs wait for one") == 1


async def test_the_form_offers_the_templates_there_are(tmp_path: Path) -> None:
    """What several share is said once; of a job that is there nobody knows any more what it came from."""
    async with _house(tmp_path) as (browser, daemon):
        assert 'name="from"' not in (await browser.get("/jobs/new")).text
        await daemon.say("TEMPLATE ADD nightly type=http retry=fixed:3:1m")
        assert '<option value="nightly">' in (await browser.get("/jobs/new")).text
        form = {"type": "shell", "command": "GET http://a/", "schedule": "@daily", "from": "nightly"}
        assert "/jobs/1?" in (await _send(browser, "/jobs/new", **form)).headers["location"]
        job = (await daemon.ask("GET 1")).pairs
        assert (job["type"], job["retry"]) == ("http", "fixed:3:1m")
        assert 'name="from"' not in (await browser.get("/jobs/1/edit")).text
        # What was typed beside it wins, as by ADD, also where it is what a task has that says nothing.
        assert (
            "/jobs/2?" in (await _send(browser, "/jobs/new", **form | {"retry": "none"})).headers["location"]
        )
        assert (await daemon.ask("GET 2")).pairs["retry"] == "none"
        wrong = (await _send(browser, "/jobs/new", **form | {"from": "nightli"})).text
        assert 'id="wrong-from">from=: no template &#34;nightli&#34;; did you mean nightly?' in wrong


async def test_the_form_offers_the_workers_and_the_handlers_there_are(tmp_path: Path) -> None:
    """Nobody knows by heart what another machine calls itself."""
    async with _house(tmp_path) as (browser, daemon):
        assert "There are" not in (await browser.get("/jobs/new")).text
        await daemon.world.play("w", None, "HELLO name=pi slots=4 can=shell,custom:backup,custom:greet")
        text = (await browser.get("/jobs/new")).text
        places = re.findall('<option value="([^"]*)">', text.partition('<datalist id="places">')[2])
        assert places == ["any", "all", "pi"] and 'list="places"' in text
        assert "data goes to it. There are: backup, greet." in text


@pytest.mark.parametrize("schedule", [value for value, _ in job_form.IDEAS])
async def test_what_the_form_offers_as_a_schedule_is_one(tmp_path: Path, schedule: str) -> None:
    """`@at tomorrow at 8 AM` was refused under the button that had filled it in."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say("ADD name=first @daily x")
        preview = await browser.get(f"/jobs/preview?schedule={quote(schedule)}")
        assert "refusal" not in preview.text and "refused" not in preview.text
        after = {"after": "first"} if schedule == "@after" else {}
        answer = await _send(browser, "/jobs/new", type="shell", command="x", schedule=schedule, **after)
        assert (answer.status, answer.headers["location"]) == (303, "/jobs/2?done=added")


async def test_what_was_to_run_once_and_failed_has_not_gone_well_again(tmp_path: Path) -> None:
    """It is gone, so FAILED does not name it; and the first page said that nothing needs anybody."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say("ADD name=flaky @daily x")
        await daemon.say("ADD name=fixed @daily x")
        await daemon.world.play("w", None, "HELLO name=w1 slots=9")
        for said, ended in (
            ("NOW name=import x", 'DONE 1 1 3 why="no such table"'),
            ("RUN flaky", "DONE 2 1 1"), ("RUN flaky", "DONE 3 1 0"),
            ("RUN fixed", "DONE 4 1 1"), ("RUN fixed", "DONE 5 1 0"),
            ("NOW name=again retry=fixed:1:1h x", "DONE 6 1 1"), ("NOW name=good x", "DONE 7 1 0"),
        ):  # fmt: skip
            await daemon.say(said)
            await daemon.world.play("w", None, ended)
        await daemon.say("REMOVE fixed")
        text = (await browser.get("/")).text
        assert "3 runs went well, 3 did not" in text and "Nothing needs you" not in text
        (card,) = re.findall("<article.*?</article>", text, re.DOTALL)
        assert "no such table (exit 3)" in card and "it is gone" in card and "Run again" not in card
        for path in re.findall('href="([^"]+)"', card):
            answer = await browser.get(path.partition("#")[0])
            assert (answer.status, answer.headers.get("location")) in ((200, None), (303, "/runs?job=3")), (
                path
            )
        assert (await browser.get("/jobs/99")).status == 404
        below = text.partition("Went wrong, then well again")[2]
        assert 'href="/jobs/2"' not in card and all(name in below for name in ("flaky", "fixed"))


async def test_only_a_notification_is_left_out_of_what_went_wrong(tmp_path: Path) -> None:
    """A job of anybody's may be called notify_customers; it failed, and the first page did not say so."""
    async with _house(tmp_path) as (browser, daemon):
        await daemon.say("ADD name=notify_staff notify=https://example.org/alarm @daily x")
        await daemon.world.play("w", None, "HELLO name=w1 slots=9 can=shell,webhook")
        for said, *ended in (
            ("NOW name=notify_customers notify=none x", "DONE 1 1 3"),
            ("RUN notify_staff", "DONE 2 1 4", "DONE 3 1 5"),  # and the first try of its notification
            ("RUN notify_staff", "DONE 4 1 0"),
        ):
            await daemon.say(said)
            for each in ended:
                await daemon.world.play("w", None, each)
        assert {row["jobName"] for row in await daemon.say("RUNS run=3")} == {"notify_3"}
        text = (await browser.get("/")).text
        (card,) = re.findall("<article.*?</article>", text, re.DOTALL)
        assert "notify_customers" in card and "it is gone" in card
        below = text.partition("Went wrong, then well again")[2].partition("</section>")[0]
        assert "notify_staff" in below and "notify_3" not in below


async def test_what_is_paused_with_all_others_tells_until_when(tmp_path: Path) -> None:
    """It said that somebody has to resume it, though the pause of all ends by itself."""
    async with _house(tmp_path) as (browser, daemon):
        for line in "ADD name=own @daily x", "ADD name=other @daily x", "PAUSE own why=mine":
            await daemon.say(line)
        await daemon.say('PAUSE all until=2h why="the disk is changed"')
        text = (await browser.get("/pauses")).text
        own, other = (re.search(f">{name}<.*?</tr>", text, re.DOTALL) for name in ("own", "other"))
        assert own and "resumed by hand" in own[0] and "mine" in own[0] and "disk" not in own[0]
        assert other and "resumed by hand" not in other[0] and "the disk is changed" in other[0]
