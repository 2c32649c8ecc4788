"""The dashboard in a real browser: six stories of people who have never seen it, and every page as it looks.

No page asks another host for anything, reports an error, or breaks its policy: each test ends with that.
With CRONFLOWD_PICTURES=1 each page's pictures lie in build/screenshots afterwards, light and dark, wide and
narrow, and the README's picture is taken, too.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.lib.busy_month import write
from tests.lib.waiting import PATIENCE_S
from tests.real.running import ROOT, Daemon

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
pytestmark = [
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="there is no chromium on this machine"),
]
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
).split()
PICTURES = bool(os.environ.get("CRONFLOWD_PICTURES"))
SHOTS = ROOT / "build" / "screenshots"
AXE = ROOT / "tests" / "data" / "axe" / "axe.min.js"
WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 360, "height": 740}
PATIENCE_MS = 1000 * PATIENCE_S
EMAIL, PASSWORD = "ann@example.org", "correct-horse-battery"
PAGES = {
    "home": "/", "jobs": "/jobs", "job": "/jobs/1", "new": "/jobs/new?schedule=30+2+*+*+*&command=echo+hi",
    "edit": "/jobs/11/edit", "history": "/jobs/11/history?from=1&to=2", "pause": "/jobs/1/pause",
    "remove": "/jobs/1/remove", "runs": "/runs?state=failed,timeout,lost,missed", "run": "", "week": "/week",
    "statistics": "/statistics", "flows": "/flows", "flow": "/flows/2", "workers": "/workers",
    "heartbeats": "/heartbeats", "pauses": "/pauses", "changes": "/changes", "undo": "/undo",
    "clock-changes": "/clock-changes", "users": "/users", "tokens": "/tokens", "secrets": "/secrets",
    "audit": "/audit", "sessions": "/sessions", "line": "/line?say=STATUS", "more": "/more",
    "nothing": "/jobs?search=nothing-like-that", "login": "/login", "forgot": "/forgot",
    "reset": "/reset?token=x",
}  # fmt: skip

Page = Any


class House:
    """A daemon with a month behind it, its dashboard, and a browser of somebody who is signed in."""

    def __init__(self, daemon: Daemon, browser: Any) -> None:
        self.daemon, self.browser = daemon, browser
        self.url = f"http://127.0.0.1:{daemon.http_port}"
        self.state: Any = None  # the cookies of Ann

    def context(self, **more: Any) -> Any:
        context = self.browser.new_context(base_url=self.url, storage_state=self.state, **more)
        context.set_default_timeout(PATIENCE_MS)
        return context


sync_api.expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One for all stories: they tell of different jobs."""
    data = tmp_path_factory.mktemp("month") / "data"
    data.mkdir()
    tz = write(data).tz
    daemon = Daemon(data, "--http", "127.0.0.1:0", "--local-worker", "3", "--tz", tz)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        daemon.start()
        try:
            found = House(daemon, browser)
            found.state = _first_visit(found)
            yield found
        finally:
            browser.close()
            daemon.close()


def _first_visit(house: House) -> Any:
    """Nobody has an account: whoever sits at this machine makes the first one."""
    context = house.context()
    page = context.new_page()
    page.goto("/")
    assert "/welcome" in page.url
    _take(page, "welcome-light-1440")
    page.get_by_label("Your name").fill("ann")
    page.get_by_label("Mail address").fill(EMAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Make the admin").click()
    page.wait_for_url(house.url + "/")
    state = context.storage_state()
    context.close()
    return state


def _take(page: Page, name: str) -> None:
    """A picture of the whole page, if pictures are wanted."""
    if PICTURES:
        page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


@pytest.fixture
def watched(house: House) -> Iterator[Callable[..., Page]]:
    """Opens pages, and looks in the end at what they asked for and said."""
    wrong: list[str] = []
    contexts = []

    def open_one(path: str = "/", expected: str = "", **more: Any) -> Page:
        context = house.context(**more)
        contexts.append(context)
        page = context.new_page()
        _listen(page, house, wrong, expected)
        page.goto(path)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert wrong == []


def _listen(page: Page, house: House, wrong: list[str], expected: str = "") -> None:
    """Notes what a page asks of others, and what the browser says against it."""

    def on_console(message: Any) -> None:
        if message.type in ("error", "warning") and not (expected and re.search(expected, message.text)):
            wrong.append(f"{page.url}: {message.text}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
    page.on("request", lambda asked: _is_ours(asked.url, house) or wrong.append(f"asked for {asked.url}"))


def _is_ours(url: str, house: House) -> bool:
    return url.startswith("data:") or urlsplit(url).netloc == urlsplit(house.url).netloc


def see(page: Page, where: str, text: Any) -> None:
    """It comes to stand there: a page that is on its way is waited for."""
    sync_api.expect(page.locator(where).first).to_contain_text(text)


def count(page: Page, where: str, number: int) -> None:
    sync_api.expect(page.locator(where)).to_have_count(number)


# --- the six stories ------------------------------------------------------------------------------


def test_last_nights_failure_its_cause_and_its_output_are_on_the_first_screen_of_a_telephone(
    house: House, watched: Callable[..., Page]
) -> None:
    """Ten seconds is how long somebody looks who was woken up."""
    page = watched("/", viewport=NARROW)
    see(page, "h1", "2 jobs failed, 1 is silent")
    card = page.locator("article", has_text="nightly-backup")
    for part in (card.get_by_text("/backup is 100 % full"), card.locator("pre", has_text="No space left")):
        box = part.first.bounding_box()
        assert 0 <= box["y"] < NARROW["height"] - 60, "it is to be seen without scrolling"
    assert card.locator("pre .f1").inner_text().startswith("pg_dump: error"), "in the colours it had"
    assert page.locator("article").nth(0).locator("h2").inner_text() == "nightly-backup", "newest first"
    assert page.get_by_text("index-search").first.is_visible(), "what went well the next time is told, below"
    card.get_by_role("link", name="Output").click()
    see(page, "h1", "Run ")
    see(page, "#out", "No space left on device")
    page.go_back()
    card.get_by_role("button", name="Run again").click()
    sync_api.expect(page.locator("#out")).to_contain_text("done, 48213 rows")
    sync_api.expect(page.locator("#run-head .s-ok")).to_be_visible()
    page.goto("/")
    see(page, "h1", "1 job failed, 1 is silent")


def test_a_job_is_made_with_its_meaning_and_moments_while_typing_and_tried_before_it_is_saved(
    watched: Callable[..., Page],
) -> None:
    """A schedule that is seen wrong before it is saved never wakes anybody."""
    page = watched("/jobs/new", expected="status of 422")
    page.get_by_label("Command line").fill("echo tried; echo warned >&2")
    page.get_by_label("When", exact=True).press_sequentially("30 2 * * *")
    page.get_by_label("Time zone").fill("Europe/Paris")
    preview = page.locator("#preview")
    sync_api.expect(preview).to_contain_text("very day at 2:30")
    sync_api.expect(preview.locator("li")).to_have_count(5)
    sync_api.expect(preview).to_contain_text("a jump of up to 3 hours")
    page.get_by_label("When", exact=True).fill("61 * * * *")
    sync_api.expect(preview).to_contain_text("61 is not in 0-59")
    page.get_by_label("When", exact=True).fill("weekdays at 9")
    sync_api.expect(preview.locator("li")).to_have_count(5)
    page.get_by_label("Name", exact=True).fill("made-here")
    page.get_by_label("Try again").fill("often")
    page.get_by_role("button", name="Add the job").click()
    wrong = page.get_by_label("Try again")
    sync_api.expect(wrong).to_have_attribute("aria-invalid", "true")
    assert '"often" is not none' in page.locator(f"#{wrong.get_attribute('aria-describedby')}").inner_text()
    wrong.fill("fixed:2:1m")
    page.get_by_role("button", name="Try it once").click()
    sync_api.expect(page.locator("#tried pre")).to_contain_text("tried")
    sync_api.expect(page.locator("#tried")).to_contain_text("It has ended.")
    page.get_by_role("button", name="Add the job").click()
    see(page, "h1", "made-here")
    see(page, ".means", "weekdays")
    see(page, "main", "fixed:2:1m")


def test_a_run_is_read_while_it_goes_on_searched_saved_and_ended(
    house: House, watched: Callable[..., Page], tmp_path: Path
) -> None:
    """What is under way is what one is most afraid for."""
    page = watched("/jobs/new")
    colours = (
        r"for i in 1 2 3 4 5 6; do printf '\033[32mstep\033[0m %s <b>\n' $i; sleep 0.2; done; exec sleep 60"
    )
    page.get_by_label("Command line").fill(colours)
    page.get_by_label("When", exact=True).fill("@yearly")
    page.get_by_label("Name", exact=True).fill("slow")
    page.get_by_role("button", name="Add the job").click()
    page.get_by_role("button", name="Run now").click()
    out = page.locator("#out")
    sync_api.expect(out).to_contain_text("step 2 <b>")
    sync_api.expect(out.locator(".f2")).to_have_count(6)
    page.get_by_label("Search in the output").fill("step 3")
    sync_api.expect(page.locator("[data-count]")).to_have_text("1 line")
    assert out.locator(".l:visible").count() == 1
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    saved = tmp_path / "run.log"
    download.value.save_as(saved)
    assert saved.read_bytes().startswith(b"\x1b[32mstep\x1b[0m 1 <b>\n"), "byte for byte"
    other = watched(urlsplit(page.url).path)
    page.get_by_role("link", name="Cancel").click()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.method))

    def hold(route: Any) -> None:
        """The answer is on its way for as long as another page needs to see the run's end."""
        answer = route.fetch(max_redirects=0)
        sync_api.expect(other.locator("#run-head .s-cancelled")).to_be_visible()
        assert asked[-1] == "POST", "a page that is being left asks for nothing any more"
        route.fulfill(response=answer)

    page.route("**/cancel", hold)
    page.get_by_role("button", name="Cancel the run").click()
    sync_api.expect(page.locator("#run-head .s-cancelled")).to_be_visible()
    sync_api.expect(page.get_by_role("button", name="Run again")).to_be_visible()


def test_the_coming_week_is_a_map_and_the_past_a_calendar_with_charts(watched: Callable[..., Page]) -> None:
    """When there is room for one more, and since when it is like this."""
    page = watched("/week")
    count(page, "table.load tbody tr", 8)
    assert page.locator("table.load td[title*=fires]").count() > 150
    see(page, "main", "Busiest:")
    page.goto("/jobs/1")
    assert page.locator("table.days td.d-good").count() >= 26
    count(page, "table.days td.d-bad, table.days td.d-some", 1)
    count(page, ".plot canvas", 1)
    page.locator("table.days td.d-bad a, table.days td.d-some a").first.click()
    count(page, "tbody .s-failed", 1)
    page.goto("/statistics")
    count(page, ".plot canvas", 2)
    assert page.locator("#days tbody tr").count() >= 28


def test_a_tag_and_all_are_paused_with_a_reason_seen_everywhere_and_changes_are_compared_and_taken_back(
    watched: Callable[..., Page],
) -> None:
    """Who comes after must see why nothing runs, and undo what was not meant."""
    page = watched("/pauses")
    page.get_by_label("or all tagged").fill("finance")
    page.get_by_label("For", exact=True).select_option("2 hours")
    page.get_by_label("Why").fill("books are closed")
    page.get_by_role("button", name="Pause", exact=True).click()
    count(page, "tr:has-text('books are closed')", 2)
    for path in ("/jobs?tag=finance", "/jobs/11"):
        page.goto(path)
        see(page, "main", "books are closed")
    page.goto("/pauses")
    page.get_by_label("Why").fill("fire drill")
    page.get_by_role("button", name="Pause", exact=True).click()
    for path in ("/", "/week", "/users"):
        page.goto(path)
        see(page, "#frame", "fire drill")
    page.get_by_role("button", name="Resume all").click()
    page.goto("/jobs/11/edit")
    page.get_by_label("End it after").fill("2h")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("link", name="All revisions").click()
    page.get_by_label("from revision 2").check()
    page.get_by_label("to revision 3").check()
    page.get_by_role("button", name="Compare").click()
    see(page, ".diff tbody tr", re.compile(r"timeout\s*45m\s*2h"))
    page.get_by_role("button", name="Set it as it was at revision 2").click()
    see(page, "main", "45m")
    page.goto("/changes")
    see(page, "tbody tr >> nth=0", "ROLLBACK")
    page.get_by_role("link", name="Take back the last").click()
    page.get_by_role("button", name="Take back").click()
    page.goto("/jobs/11")
    see(page, ".pairs", "2h")


def test_flows_are_drawn_workers_drained_and_all_that_is_expected_or_kept_is_found(
    watched: Callable[..., Page],
) -> None:
    """What else there is, and who may come in."""
    page = watched("/flows")
    count(page, "svg.graph a.box", 4)
    page.get_by_role("link", name="enrich-customers failed").click()
    see(page, "h1", "enrich-customers")
    page.goto("/workers")
    local = page.locator(".tile", has=page.get_by_role("heading", name="local"))
    local.get_by_role("button", name="Drain local").click()
    sync_api.expect(local.locator(".s-draining")).to_be_visible()
    local.get_by_role("button", name="Give it runs again").click()
    sync_api.expect(local.locator(".s-ready")).to_be_visible()
    page.goto("/heartbeats")
    assert page.locator("tbody tr").first.inner_text().startswith("door-sensor"), "the silent one first"
    page.goto("/clock-changes")
    assert "runs right after the jump" in page.locator("tr", has_text="invoice-run").first.inner_text()
    page.goto("/users")
    page.get_by_label("Name", exact=True).fill("bob")
    page.get_by_role("button", name="Add", exact=True).click()
    see(page, ".note pre", re.compile(".{12,}"))  # the password, this once
    page.goto("/users")
    count(page, ".note pre", 0)
    page.goto("/secrets")
    page.get_by_label("Name", exact=True).fill("db")
    page.get_by_label("Value").fill('hunter2 "quoted"')
    page.get_by_role("button", name="Put").click()
    see(page, "tbody", "db")
    assert "hunter2" not in page.content()
    page.goto("/tokens")
    page.get_by_label("Name", exact=True).fill("ci")
    page.get_by_role("button", name="Make it").click()
    see(page, ".note pre", re.compile("^[0-9a-f]{64}$"))
    page.goto("/audit")
    see(page, "tbody", "SECRET")


COUNT_LAYOUTS = """
const own = Object.getOwnPropertyDescriptor(Element.prototype, "scrollTop");
window.layouts = 0;
const set = function (to) { window.layouts += 1; own.set.call(this, to); };
Object.defineProperty(Element.prototype, "scrollTop", { ...own, set });
"""


def test_a_run_that_writes_much_does_not_stop_the_page(house: House, watched: Callable[..., Page]) -> None:
    """Each line was laid out for itself, below all before it: of 5,000 lines a browser had for a minute."""
    house.daemon.ask("ADD name=loud @yearly sleep 0.5; seq 1 3000; echo end")
    page = watched("/jobs/new")
    page.add_init_script(COUNT_LAYOUTS)
    page.goto("/jobs/loud")
    page.get_by_role("button", name="Run now").click()
    see(page, "[data-stream-end]", "It has ended.")
    assert page.locator("#out .l").last.inner_text() == "end\n"
    count(page, "#out .l", 2000)
    assert page.evaluate("layouts") < 300, "lines that come together are laid out together"
    house.daemon.ask("REMOVE loud")


def test_what_was_typed_is_there_again_when_a_session_ended_amid_the_form(
    house: House, watched: Callable[..., Page]
) -> None:
    """Whoever typed twenty fields, was asked who he is, and found twenty empty ones, is not coming again."""
    page = watched("/jobs/new")
    page.get_by_label("Command line").fill("echo kept")
    page.get_by_label("When", exact=True).fill("@yearly")
    page.get_by_label("Name", exact=True).fill("kept")
    page.get_by_text("Its surroundings").click()
    page.get_by_label("Variables").fill("A=1\nB=2")
    page.get_by_label("Begin paused").check()
    held = page.context.cookies()
    page.context.clear_cookies()
    page.context.add_cookies([each | {"value": "x" + each["value"]} for each in held])
    page.get_by_role("button", name="Add the job").click()
    see(page, "main", "Your session has ended")
    page.wait_for_load_state()  # nobody signs in before the page's script has run
    page.get_by_label("Name or mail address").fill("ann")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    see(page, "[role=status]", "It stands here again")
    see(page, "#preview", "very year")
    assert page.get_by_label("Variables").input_value() == "A=1\nB=2"
    page.get_by_role("button", name="Add the job").click()
    see(page, "h1", "kept paused")
    page.goto("/jobs/new")
    assert page.get_by_label("Command line").input_value() == "", "it was done, and is forgotten"
    page.get_by_label("Command line").fill("echo mine")
    page.get_by_label("When", exact=True).fill("@yearly")
    page.context.clear_cookies()
    page.get_by_role("button", name="Add the job").click()
    see(page, "h1", "Sign in")
    page.wait_for_load_state()
    page.get_by_label("Name or mail address").fill("eve")
    page.get_by_label("Password").fill(house.daemon.ask("USER ADD eve role=user")[0].split()[1])
    page.get_by_role("button", name="Sign in").click()
    see(page, ".who", "eve")
    assert page.get_by_label("Command line").input_value() == "", "it is not shown to somebody else"


def test_two_clicks_send_a_form_once(watched: Callable[..., Page]) -> None:
    """A slow answer is a reason to press again, and so there were two of it."""
    page = watched("/jobs/5", expected="status of 409")
    place = page.get_by_role("button", name="Run now").bounding_box()
    sent: list[str] = []

    def hold(route: Any) -> None:
        sent.append(route.request.url)
        if len(sent) == 1:
            page.mouse.click(place["x"] + 5, place["y"] + 5)
        route.continue_()

    page.route("**/jobs/5/run", hold)
    page.mouse.click(place["x"] + 5, place["y"] + 5)
    see(page, "h1", re.compile("Run |409"))
    assert len(sent) == 1


def test_what_was_typed_for_another_type_is_not_sent(watched: Callable[..., Page]) -> None:
    """It was refused at a field that nobody saw."""
    page = watched("/jobs/new?type=http&schedule=@yearly&name=typed&command=POST+http://localhost/")
    page.get_by_label("Body").fill("hello")
    page.get_by_label("What is to be done").select_option("Shell command")
    page.get_by_label("Command line").fill("true")
    page.get_by_role("button", name="Add the job").click()
    see(page, "h1", "typed")
    see(page, ".note.good", "The job is added.")
    sync_api.expect(page).not_to_have_url(re.compile("done="))
    page.reload()
    count(page, ".note.good", 0)  # nothing was added now


# --- for everybody --------------------------------------------------------------------------------


def test_all_of_it_goes_without_javascript(watched: Callable[..., Page]) -> None:
    """A script that did not come must not stand between somebody and last night."""
    page = watched("/", java_script_enabled=False)
    see(page, "h1", "failed")
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.get_by_role("link", name="Add a job").click()
    page.get_by_label("Command line").fill("echo plain")
    page.get_by_label("When", exact=True).fill("@hourly")
    page.get_by_label("Name", exact=True).fill("plain")
    page.get_by_role("button", name="Add the job").click()
    see(page, "h1", "plain")
    page.get_by_role("button", name="Run now").click()
    see(page, "h1", "Run ")
    page.goto("/jobs?search=plain")
    page.get_by_role("link", name="plain").click()
    page.get_by_role("link", name="Remove").click()
    page.get_by_role("button", name="Remove the job").click()
    assert "removed" in page.get_by_role("status").inner_text()


def test_the_keyboard_reaches_everything_and_colours_are_kept(watched: Callable[..., Page]) -> None:
    """The first stop passes the menu over; a slash looks for a job."""
    page = watched("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the page"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("/")
    page.keyboard.type("backup")
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs?search=backup")
    count(page, "tbody tr", 1)
    page.get_by_role("button", name="Colours: auto; change to dark").click()
    sync_api.expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 18, 23)"
    assert "/jobs?search=backup" in page.url


BEHIND = """() => {
    const here = document.activeElement, box = here.getBoundingClientRect();
    const x = Math.min(innerWidth - 2, Math.max(1, box.left + box.width / 2));
    const bar = document.elementFromPoint(x, box.top + box.height / 2)?.closest(".top, .side, .stick");
    return here !== document.body && bar && !bar.contains(here) ? here.id || here.textContent : null;
}"""


@pytest.mark.parametrize(
    "size", [WIDE, NARROW, {"width": 320, "height": 400}], ids=lambda size: size["width"]
)
def test_what_the_keyboard_reaches_is_behind_no_bar(gallery: Page, size: dict[str, int]) -> None:
    """The buttons of a form, and the menu of a telephone, stood before the field in which one typed."""
    gallery.set_viewport_size(size)
    for path in PAGES["new"], "/jobs":
        gallery.goto(path)
        behind = []
        for key in ["Tab"] * 70 + ["Shift+Tab"] * 50:
            gallery.keyboard.press(key)
            behind.append(gallery.evaluate(BEHIND))
        assert set(behind) == {None}, path


def test_a_page_that_is_open_shows_what_happens_without_being_asked(watched: Callable[..., Page]) -> None:
    """Nobody presses reload on a screen that hangs on a wall."""
    page, other = watched("/"), watched("/jobs/5")
    sync_api.expect(page.locator(".live")).to_be_visible()
    other.get_by_role("button", name="Run now").click()
    other.wait_for_url("**/runs/*")
    number = other.url.rpartition("/")[2].partition("?")[0]
    sync_api.expect(other.locator("#run-head .s-ok")).to_be_visible()
    page.goto("/runs?job=5")
    sync_api.expect(page.locator("tbody tr").first).to_contain_text(number)
    other.get_by_role("button", name="Run again").click()
    sync_api.expect(page.locator("tbody tr").first).not_to_contain_text(number)


def test_who_only_looks_is_shown_no_button_that_changes_anything(house: House) -> None:
    """A button that answers `denied` is worse than none."""
    password = house.daemon.ask("USER ADD vera role=viewer")[0].split()[1]
    context = house.browser.new_context(base_url=house.url)
    page = context.new_page()
    page.goto("/jobs/1")
    page.get_by_label("Name or mail address").fill("vera")
    page.get_by_label("Password").fill("wrong-one")
    page.get_by_role("button", name="Sign in").click()
    see(page, "[role=alert]", "not the right one")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/jobs/1")
    for path in PAGES.values():
        if path and not path.startswith(("/login", "/forgot", "/reset")):  # of those who come in
            posts = re.findall(
                '<form method="post" action="([^"]*)"',
                context.request.get(path, headers={"Accept": "text/html"}).text(),
            )
            own = {"/theme", "/logout", "/sessions"}
            assert set(posts) <= {*own, "/line"}, path  # what is said there may be a look
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/login")
    page.goto("/jobs")
    assert "/login" in page.url
    context.close()


# --- how it looks ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gallery(house: House) -> Iterator[Page]:
    """One page for all that are only looked at."""
    context, wrong = house.context(viewport=WIDE, reduced_motion="reduce"), list[str]()
    page = context.new_page()
    _listen(page, house, wrong)
    yield page
    context.close()
    assert wrong == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_readable_by_everybody_in_both_colours_and_widths(gallery: Page, name: str) -> None:
    """axe finds nothing serious; nothing sticks out sideways."""
    gallery.emulate_media(color_scheme="light")
    gallery.set_viewport_size(WIDE)
    path = PAGES[name]
    if name == "run":
        gallery.goto("/runs?job=1&state=failed")
        path = gallery.locator('tbody a[href^="/runs/"]').first.get_attribute("href")
    gallery.goto(path)
    gallery.evaluate(AXE.read_text())
    for colours in ("light", "dark"):
        gallery.emulate_media(color_scheme=colours)
        only = {"runOnly": ["color-contrast"]} if colours == "dark" else {}
        found = gallery.evaluate(
            "options => axe.run(document, {resultTypes: ['violations'], ...options})", only
        )
        grave = [
            f"{each['id']}: {node['html'][:200]}"
            for each in found["violations"]
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"]
        ]
        assert grave == [], f"in {colours}"
        for size in (WIDE, NARROW) if colours == "light" or PICTURES else ():
            gallery.set_viewport_size(size)
            assert gallery.evaluate("document.documentElement.scrollWidth") <= size["width"]
            _take(gallery, f"{name}-{colours}-{size['width']}")


def test_long_words_are_broken_and_widen_no_page(house: House, gallery: Page) -> None:
    """A name of 64 letters, a reason that is an address: what stood beside them was out of sight."""
    name, word = "n" * 64, "https://example.org/" + "w" * 250
    tags = "t" * 64
    house.daemon.ask(
        f"ADD name={name} tags={tags} title={word} desc={word} notify={word} @yearly echo {word}"
    )
    house.daemon.ask(f"ADD name=behind after={name} @after true")
    house.daemon.ask(f"SET {name} title=other env.A={word}")
    house.daemon.ask(f'PAUSE {name} why="{word}"')
    house.daemon.ask(f"EXPECT {name} every=1d desc={word}")
    house.daemon.ask(f"USER ADD {name} desc={word} email={'m' * 60}@example.org")
    try:
        for size in (320, WIDE["width"]):
            gallery.set_viewport_size({"width": size, "height": 700})
            for path in (
                f"/jobs?tag={tags}", f"/jobs/{name}", f"/jobs/{name}/history?from=1&to=2",
                f"/jobs/{name}/remove", f"/jobs/{name}/pause", f"/flows/{name}",
                "/pauses", "/changes", "/heartbeats", "/users",
            ):  # fmt: skip
                gallery.goto(path)
                assert gallery.evaluate("document.documentElement.scrollWidth") <= size, path
    finally:
        house.daemon.ask(f"REMOVE behind {name}")
        house.daemon.ask(f"FORGET {name}")
        house.daemon.ask(f"USER REMOVE {name}")


@pytest.mark.skipif(not PICTURES, reason="the README's picture is taken on demand")
def test_the_picture_for_the_readme(house: House) -> None:
    """docs/dashboard.png, small enough to be looked at everywhere."""
    context = house.context(viewport={"width": 1100, "height": 690}, color_scheme="light")
    page = context.new_page()
    page.goto("/")
    page.screenshot(path=ROOT / "docs" / "dashboard.png")
    context.close()
    assert (ROOT / "docs" / "dashboard.png").stat().st_size < 150_000
