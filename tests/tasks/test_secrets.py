"""Values that are shown to nobody: secret=, and variables and headers whose names say so."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from cronflowd.ask import commands, listing, views
from cronflowd.ask.revisions import show_history
from cronflowd.base.errors import Refusal
from cronflowd.daemon.crontab_orders import export
from cronflowd.journal.tasks_file import prepare_tasks
from cronflowd.tasks.options import is_secret
from tests.lib.engine_driver import Driver

VALUE = "hunter2"
SECRETS = [
    "secret", "env.PASSWORD", "env.pgpass", "env.DB_PWD", "env.API_KEY", "env.GITHUB_TOKEN", "env.AWS_SECRET",
    "env.COOKIE_JAR", "env.GOOGLE_APPLICATION_CREDENTIALS", "header.Authorization",
    "header.Proxy-Authorization",
    "header.X-Api-Key", "header.Cookie", "header.X-Auth",
]  # fmt: skip
PLAIN = ["env.LANG", "env.PATH", "env.GIT_AUTHOR_NAME", "header.Accept", "body", "token", "desc", "password"]


def answers(driver: Driver) -> str:
    """All that is told of the task, now and as it was."""
    context = commands.Context(driver.now, "UTC")
    state = driver.state
    rows = [
        *views.get_task(state, commands.parse("GET a", context), driver.now).rows,
        *views.get_task(state, commands.parse("GET a @1", context), driver.now).rows,
        *show_history(state, commands.parse("HISTORY", context), driver.now).rows,
        *show_history(state, commands.parse("HISTORY a", context), driver.now).rows,
        *listing.list_tasks(state, commands.parse("LIST", context), driver.now).rows,
    ]
    return "\n".join(map(str, rows))


def say(driver: Driver, line: str) -> None:
    """A client's order, which becomes a change."""
    order = commands.parse(line, commands.Context(driver.now, "UTC"))
    decide = driver.engine.decide
    driver.engine.decide = lambda order, now, who=None: decide(order, now, "ann")  # type: ignore[method-assign]
    driver.do(order)
    driver.engine.decide = decide  # type: ignore[method-assign]


@pytest.mark.parametrize("key", SECRETS)
def test_a_secret_is_told_to_be_there_and_not_what_it_is(key: str, tmp_path: Path) -> None:
    """Whoever may look at a task need not learn the password of the database."""
    assert is_secret(key)
    kind = "shell echo" if key.startswith("env.") else "webhook http://localhost/"
    driver = Driver()
    say(driver, f"ADD name=a type={kind.split(' ', maxsplit=1)[0]} {key}={VALUE} @daily {kind.split(' ')[1]}")
    say(driver, f"SET a {key}={VALUE}3")
    say(driver, "SET a desc=other")
    told = answers(driver)
    assert VALUE not in told
    assert f"SET a {key}=***" in told
    assert f"('{key}', '***')" in told
    assert f"{key}: another one" in told
    # What has to work goes on to have it: the file that is loaded again, and the worker.
    (tmp_path / "x").mkdir()
    prepared = prepare_tasks(tmp_path / "x" / "tasks.db", [(1, driver.state.tasks[1].spec)])
    prepared.publish()
    assert orjson.loads((tmp_path / "x" / "tasks.db").read_text())[key] == f"{VALUE}3"


@pytest.mark.parametrize("key", PLAIN)
def test_what_is_no_secret_is_shown(key: str) -> None:
    """A rule that hides too much is one that people work around."""
    assert not is_secret(key)


@pytest.mark.parametrize(
    "line",
    [
        "SET a env.PASSWORD=***",
        "ADD env.PASSWORD=*** @daily x",
        "NOW env.PASSWORD=*** x",
        'AT "in 1 minute" env.PASSWORD=*** x',
        'ADD {"schedule":"@daily","command":"x","env.PASSWORD":"***"}',
    ],
)
def test_the_stars_of_an_answer_do_not_take_the_place_of_a_secret(line: str) -> None:
    """GET, edit, SET: what was not shown must stay as it is, and not become three stars in silence."""
    driver = Driver()
    driver.line(f"ADD name=a env.PASSWORD={VALUE} @daily x")
    with pytest.raises(Refusal, match=r"env\.PASSWORD=: \*\*\* stands for a value that is not shown"):
        driver.line(line)
    assert dict(driver.state.tasks[1].spec.options.env) == {"PASSWORD": VALUE}
    driver.line("SET a env.STARS=***")
    assert dict(driver.state.tasks[1].spec.options.env)["STARS"] == "***"


def test_an_export_has_what_cron_needs() -> None:
    """A crontab with stars for a password would run, every night, and fail."""
    driver = Driver()
    driver.line(f"ADD name=a env.PASSWORD={VALUE} 0 3 * * * x")
    question = commands.parse("EXPORT a", commands.Context(driver.now, "UTC"))
    lines = [row[0] for row in export(driver.state, question, driver.now, lambda _: True).rows if row]
    assert f"PASSWORD={VALUE}" in lines


def test_a_record_that_cannot_be_read_keeps_its_secrets_too() -> None:
    """GET shows such a record as it stands, but for these."""
    driver = Driver()
    driver.line(f"ADD name=a env.PASSWORD={VALUE} @daily x")
    driver.journal = [line.replace(b'"command"', b'"moon":"full","command"') for line in driver.journal]
    driver.restart()
    get = commands.parse("GET a", commands.Context(driver.now, "UTC"))
    shown = dict(views.get_task(driver.state, get, driver.now).rows)
    assert (shown["moon"], shown["env.PASSWORD"]) == ("full", "***")
    assert VALUE not in str(shown)
