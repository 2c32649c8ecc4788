"""What a command line may be called: after the program, script or module that does the work.

A shell's grammar is not read here, only guessed at. What comes before the program is passed over:
assignments, `cd … &&`, tests, and programs that start another one, with their own options. Of an
interpreter its script or module counts, and of `sh -c '…'` what stands in the quotes.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

MAX_READ = 4096  # characters of a command
MAX_DEPTH = 4  # of shells in shells

_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
_KEYWORDS = frozenset("if then elif else while until do ! { }".split())
# They do nothing by themselves; only where nothing else is there, one of them gives the name.
_BY_THE_WAY = frozenset(
    "cd pushd test [ [[ true false : . source export set unset umask ulimit sleep trap read echo printf exit"
    " return which type hash wait ionice renice date mkdir pgrep pidof".split()
)
_GRAMMAR = frozenset("for case select done fi esac".split())  # of the shell: they name nothing
# Programs that start another one: name, which of its options have an argument, how many words are its own.
_STARTERS = {
    name: (letters, int(count or 0))
    for name, letters, count in (
        f"{row}::".split(":")[:3]
        for row in (
            "exec:a command builtin nohup time:fo env:uC sudo:ugphCDRTrtU doas:uC nice:n ionice:cnpPu"
            " timeout:ks:1 flock:wE:1 setlock::1 lockf:t:1 chrt:TPD:1 taskset::1 setsid stdbuf:ioe chronic"
            " cronic unbuffer systemd-cat:tp xvfb-run:enpsf script:ct run-one faketime:f:1 eval su:sgGw"
            " runuser:usgGw caffeinate:tw"
        ).split()
    )
}
_RUNNERS = re.compile(r"(?:bundle exec|(?:poetry|pipenv|uv|pdm|rye|hatch) run) ")  # and they start one, too
_WITH_CODE = ("su", "runuser", "flock", "script")  # behind -c
_LONG_WITH_WORD = frozenset(
    "--user --group --signal --kill-after --wait --timeout --adjustment --chdir --unset --class --classdata"
    " --conflict-exit-code --shell --output --error --input --identifier --priority".split()
)
_SHELLS = re.compile(r"(?:ba|da|z|k|a|fi|c|tc)?sh")
_INTERPRETERS = re.compile(
    r"(?:python|pypy|perl|ruby|node|nodejs|(?:ea-)?php|lua|tclsh|Rscript|java|deno|bun)[0-9.]*"
)
_CODE = ("-c", "-e", "-E", "-r", "-p")  # code follows, which has no name
_WITH_WORD = ("-W", "-X", "-d", "-I", "-cp", "-classpath", "-o", "-O")

# First words that no crontab's user is called.
NOT_USERS = _BY_THE_WAY | _KEYWORDS | _GRAMMAR | _STARTERS.keys()


def name_of(command: str) -> str:
    """A name that a task can have; empty if there is none in the command."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", _program(command).rpartition("/")[2]).strip("-.")[:48]
    is_usable = name and not name.isdigit() and name.lower() != "all" and not name.startswith("task_")
    return name if is_usable else ""


def is_program(word: str) -> bool:
    """Whether a word is rather a program than a user's name."""
    return word in NOT_USERS or bool(
        _SHELLS.fullmatch(word) or _INTERPRETERS.fullmatch(word) or not _USER.fullmatch(word)
    )


_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*(?<!\.sh|\.py|\.pl|\.rb)(?<!\.php)\$?")


def _program(command: str, depth: int = 0) -> str:
    found = ""
    for words in _simple_commands(command[:MAX_READ]):
        name, is_work = _of_words(words, depth)
        if name and is_work:
            return name
        found = name or found
    return found


def _simple_commands(command: str) -> Iterator[list[str]]:
    """The words between `;`, `&&`, `|` and brackets, without what is redirected."""
    command = _FOUND_BY.sub(r"\1", command)
    tokens = shlex.shlex(_SUBSTITUTED.sub("0", command), posix=True, punctuation_chars=";&|()<>")
    tokens.commenters, tokens.whitespace_split = "", True
    words: list[str] = []
    is_target = False
    try:
        for token in tokens:
            if is_target:
                is_target = False
            elif token.strip(";&|()<>"):
                words.append(token)
            elif "<" in token or ">" in token:
                is_target = not token.startswith((")", "("))
                words = words[:-1] if words and words[-1].isdigit() else words
            else:
                yield words
                words = []
    except ValueError:
        pass  # a quote is open, which is the shell's business
    yield words


_FOUND_BY = re.compile(r"(?:\$\(|`)(?:which|command -v) ([^ ()`]+)(?:\)|`)")
_SUBSTITUTED = re.compile(r"\$\(\([^()]*\)\)|\$\([^()]*\)|`[^`]*`")


def _of_words(words: list[str], depth: int) -> tuple[str, bool]:
    """The name of a simple command's program, and whether that is what the line is about."""
    base = ""
    while words:
        word = words[0]
        starter = _STARTERS.get(_base(word))
        if _ASSIGNMENT.match(word) or word in _KEYWORDS:
            words = words[1:]
        elif _RUNNERS.match(f"{_base(word)} {' '.join(words[1:2])} "):
            words = _behind(words[2:], "", 0)
        elif starter:
            base = _base(word)
            has_code = base in _WITH_CODE and "-c" in words[:5]
            words = ["sh", *words[words.index("-c") :]] if has_code else _behind(words[1:], *starter)
        else:
            break
    if not words or words[0] in _GRAMMAR:
        return "", False
    program = _base(words[0])
    if _SHELLS.fullmatch(program) or _INTERPRETERS.fullmatch(program):
        script = _script(program, words[1:], depth)
        return script, script != program  # code by itself may be `sleep`, before what the line is about
    if " " in words[0].strip() and base == "eval" and depth < MAX_DEPTH:
        return _program(words[0], depth + 1) or words[0], True
    return words[0], program not in _BY_THE_WAY


def _behind(words: list[str], with_word: str, count: int) -> list[str]:
    """What stands behind a starter's options and its own words."""
    while words and words[0].startswith("-"):
        word, *words = words
        if word == "--":
            break
        takes_word = word in _LONG_WITH_WORD or (
            not word.startswith("--") and word[-1] in with_word and len(word) > 1
        )
        words = words[takes_word:]
    return words[count:]


def _script(program: str, words: list[str], depth: int) -> str:
    """What an interpreter runs: a script, a module, or code in quotes."""
    is_shell = bool(_SHELLS.fullmatch(program))
    while words:
        word, *words = words
        if is_shell and re.fullmatch("-[a-z]*c", word):
            return (_program(words[0], depth + 1) if words and depth < MAX_DEPTH else "") or program
        if word in ("-m", "-jar", "-f"):
            return words[0] if words else program
        if word in _CODE and not (program.startswith("php") and word == "-c"):
            return program
        if word in _WITH_WORD or word == "-c":
            words = words[1:]
        elif not word.startswith("-"):
            return word
    return program


def _base(word: str) -> str:
    return word.rpartition("/")[2]
