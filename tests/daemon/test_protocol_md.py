"""Every conversation in the documents happens, word for word.

A code block with marked lines (`C:`, `S:` and so on, see harness.py) is a conversation.
Those under one heading are one world; lines in a comment that begins with `<!-- setup`
are said in it, too, but not shown. `make golden` writes what is said now.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import Factory, define

from cronflowd.ask.commands import VERBS, Verb
from cronflowd.base.errors import CODES
from cronflowd.host.config import PROGRAMS, table
from cronflowd.host.setting import Setting
from cronflowd.tasks.kinds import TYPES
from cronflowd.tasks.options import DEFAULTS, RULES, format_option_of
from tests.lib.harness import INPUT, play

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "docs" / "tour.md", ROOT / "protocol.md", ROOT / "README.md"]
GOLDEN = os.environ.get("CRONFLOWD_GOLDEN") == "1"
SETUP, FENCE, MARK = "<!-- setup", "```", "#### block"


@define
class Block:
    """Some lines of a document that are played."""

    first: int  # number of the first line, from 0
    lines: list[str]
    is_shown: bool


@define
class Chapter:
    """What stands under one heading."""

    title: str
    blocks: list[Block] = Factory(list)


def needs(verb: Verb) -> list[str]:
    """The roles, for people: the least that may say it, and where that only reads, another one."""
    least = verb.roles[0 if verb.reads else -1]
    return [least, f"{verb.roles[0]} to look"] if verb.looks and verb.roles[0] != least else [least]


def chapters(text: str) -> Iterator[Chapter]:
    """The chapters that hold a conversation."""
    chapter, block, end = Chapter("top"), None, ""
    for number, line in enumerate(text.split("\n")):
        if block is not None:
            if line.startswith(end):
                if INPUT.fullmatch("".join(block.lines[:1])):
                    chapter.blocks.append(block)
                block = None
            else:
                block.lines.append(line)
        elif line.startswith((SETUP, FENCE)):
            end = "-->" if line.startswith(SETUP) else FENCE
            block = Block(number + 1, [], end == FENCE)
        elif line.startswith("#"):
            if chapter.blocks:
                yield chapter
            chapter = Chapter(line.strip("# "))
    if chapter.blocks:
        yield chapter


def cases() -> Iterator[object]:
    for path in DOCUMENTS:
        for chapter in chapters(path.read_text(encoding="utf-8")) if path.exists() else ():
            yield pytest.param(path, chapter, id=f"{path.stem}: {chapter.title}")


@pytest.mark.parametrize(("path", "chapter"), list(cases()))
def test_the_document_says_what_happens(
    path: Path, chapter: Chapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes a client or a worker from the document alone must be right."""
    lines = [line for block in chapter.blocks for line in (MARK, *block.lines)]
    said = "\n".join(play(lines, tmp_path, monkeypatch)).split(MARK)[1:]
    for block, text in zip(chapter.blocks, said, strict=True):
        if not block.is_shown:
            continue
        played = text.strip("\n").split("\n")
        if GOLDEN:
            rewrite(path, block.lines, played)
        else:
            assert block.lines == played, f"{path.name} line {block.first + 1}"


def rewrite(path: Path, old: list[str], new: list[str]) -> None:
    text = path.read_text(encoding="utf-8")
    before, after = ("\n".join(["", *lines, FENCE]) for lines in (old, new))
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")


# --- nothing is left out ------------------------------------------------------------------

PROTOCOL = (ROOT / "protocol.md").read_text(encoding="utf-8")


SECTIONS = {
    verb: heading
    for heading in re.findall(r"^### (.*)$", PROTOCOL.partition("## The worker port")[0], re.MULTILINE)
    for verb in re.findall("[A-Z]+", heading)
}


def test_the_table_of_verbs_says_what_the_rows_say() -> None:
    """HELP and the document are two sights of one table, and a verb that is not told exists for nobody."""
    head, marks = "| verb | what for | role | changes something |\n|---|---|---|---|\n", ("", " yes")
    rows = "".join(
        f"| [`{name}`](#{SECTIONS[name].lower().replace(',', '').replace(' ', '-')}) | {verb.summary} "
        f"| {'none' if verb.anybody else '; '.join(needs(verb))} |{marks[not verb.reads]} |\n"
        for name, verb in VERBS.items()
    )
    told = PROTOCOL.partition(head)[2].partition("\n\n")[0] + "\n"
    if GOLDEN:
        path = ROOT / "protocol.md"
        path.write_text(path.read_text(encoding="utf-8").replace(told, rows), encoding="utf-8")
    else:
        assert told == rows


@pytest.mark.parametrize("verb", VERBS)
def test_the_section_of_a_verb_begins_with_its_form(verb: str) -> None:
    """Two forms of one verb, and nobody knows which of them is true."""
    section = PROTOCOL.partition(f"### {SECTIONS[verb]}\n")[2].partition("\n##")[0]
    assert f"\n    {VERBS[verb].usage}\n" in section


@pytest.mark.parametrize("key", [*RULES, "name"])
def test_every_option_is_in_the_table(key: str) -> None:
    """The same for options."""
    assert f"\n| `{key}=` |" in PROTOCOL


@pytest.mark.parametrize("key", RULES)
def test_the_table_has_the_default_that_help_tells(key: str) -> None:
    """A default that is told wrongly is relied on."""
    default = format_option_of(DEFAULTS, key)
    row = re.search(rf"^\| `{key}=` \| ([^|]*) \|", PROTOCOL, re.MULTILINE)
    assert row is None or row[1] == f"`{default}`" or not default


@pytest.mark.parametrize(
    "row", {row.flag: row for each in PROGRAMS for row in table(each)}.values(), ids=lambda row: row.flag
)
def test_every_setting_for_people_is_told(row: Setting) -> None:
    """A limit that only --help knows is looked for in vain by whoever meets it."""
    told = PROTOCOL + (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
    assert f"`{row.flag}" in told or not row.help


@pytest.mark.parametrize("word", sorted({*CODES, *TYPES}))
def test_every_code_and_type_is_told(word: str) -> None:
    """Programs switch on these words."""
    assert f"`{word}`" in PROTOCOL


def test_every_link_within_the_document_leads_somewhere() -> None:
    """A table of contents that leads nowhere is worse than none."""
    headings = re.findall(r"^#+ (.*)$", PROTOCOL, re.MULTILINE)
    anchors: set[str] = set()
    for heading in headings:
        anchor = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        anchors.add(f"{anchor}-1" if anchor in anchors else anchor)
    assert {*re.findall(r"\]\(#([\w-]+)\)", PROTOCOL)} <= anchors


def test_the_lines_of_the_readme_are_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever tries cronflowd types them, one after the other."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    \$ echo '(.*)' \| nc localhost 5050$", readme, re.MULTILINE)
    assert len(lines) > 8
    said = play(["w: HELLO name=local slots=4", *(f"C: {line}" for line in lines)], tmp_path, monkeypatch)
    assert [line for line in said if line.startswith("S: ERR")] == []
