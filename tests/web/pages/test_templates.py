"""Templates and static files as they lie there: what the policy would refuse, and what escapes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cronflowd.web.pages import paper

TEMPLATES = sorted((paper.HERE / "templates").iterdir())
STATIC = sorted((paper.HERE / "static").iterdir())


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_has_what_the_policy_refuses(path: Path) -> None:
    """A script or style within a page would not run, and somebody would loosen the policy for it."""
    text = path.read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|<script(?![^>]*\ssrc=)", text)
    assert not re.search(r"(?:href|src|action)=\"(?:https?:)?//", text)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_nothing_in_a_template_turns_escaping_off(path: Path) -> None:
    """Escaping is by the environment; one `safe` would be a hole for whoever names a job."""
    assert not re.search(r"\|\s*safe|autoescape|Markup", path.read_text())
    paper.environment().get_template(path.name)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_form_that_changes_something_has_the_second_word(path: Path) -> None:
    """Without it the server refuses: only those who are not signed in yet have none."""
    forms = re.findall(r'<form method="post" action="([^"]*)"[^>]*>(.*?)</form>', path.read_text(), re.DOTALL)
    nobodys = {"/theme", "/login", "/welcome", "/forgot", "/reset"}
    assert [to for to, inside in forms if to not in nobodys and "csrf()" not in inside] == []


@pytest.mark.parametrize("path", STATIC, ids=lambda path: path.name)
def test_no_static_file_fetches_from_elsewhere(path: Path) -> None:
    """What a page needs comes from where it comes from: there may be no way out, and nobody is to know."""
    text = re.sub(r"/\*.*?\*/|http://www\.w3\.org/[0-9]+/\w+", "", path.read_text(), flags=re.DOTALL)
    if path.suffix != ".LICENSE":
        assert not re.search(r"https?://|@import|url\(", text)
        assert f"/static/{path.name}?v=" in paper.static_url(path.name)


@pytest.mark.parametrize("value", ['<img src=x onerror="x">', "a\u202eb", "\x00\x1b[31m", "{{ 7 * 7 }}"])
def test_whatever_a_value_is_it_stands_in_a_page_as_text(value: str) -> None:
    """Names, commands and reasons are whoever's."""
    made = paper.environment().from_string('<a title="{{ value }}">{{ value }}</a>').render(value=value)
    assert re.fullmatch(r'<a title="[^<>"\x00-\x1f\u202e]*">[^<>"\x00-\x1f\u202e]*</a>', made)
    assert "49" not in made
