"""Completion for bash, zsh and fish, made from the parser: there is no second list of commands to keep."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence

from ..tasks.options import RULES

_TASKS = "cronflowd ls 2>/dev/null | cut -f2"
_PLAIN = "[A-Za-z0-9=._-]*"
_FIRST = re.compile(r"(?:\] |\|)([A-Z]+)\b")
_OPTION = re.compile(r"([a-z]+=)")
# Where usage says key=value, these stand there; and for most of them, beside, the options of a task.
_KEYS = {
    "add": "name= from= paused= replace=", "now": "name= from=", "at": "name= from=", "run": "name=",
    "set": "schedule= command= unset=", "template": "", "flow": "limit= offset= until= why=",
}  # fmt: skip


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """What `source <(cronflowd completion bash)` reads."""
    return SHELLS[shell]([*_commands(parser)])


class _Command:
    """One command and what may follow it."""

    def __init__(self, name: str, told: str, parser: argparse.ArgumentParser) -> None:
        self.name = name
        self.told = re.sub(r"[^\w .,()/-]", "", told)  # in any shell's quotes
        shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
        flags = [flag for action in shown for flag in action.option_strings]
        usage = parser.usage or ""
        choices = [choice for action in shown for choice in action.choices or ()]
        if "|LIST" in usage:  # it has words of its own
            choices += map(str.lower, _FIRST.findall(usage))
        options = [word for word in _OPTION.findall(usage) if word != "key="]
        options += _KEYS.get(name, "").split()
        options += [f"{key}=" for key in RULES] if name in _KEYS and name != "flow" else []
        self.words = [*sorted(flags), *dict.fromkeys(options), *choices]
        self.wants_task = "REF" in usage

    @property
    def words_of_shell(self) -> str:
        """The words, and the tasks that there are when they are asked for."""
        return " ".join([*self.words, *([f"$({_TASKS})"] if self.wants_task else [])])


def _commands(parser: argparse.ArgumentParser) -> Iterator[_Command]:
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for shown in commands._choices_actions:  # those with a help text
        yield _Command(shown.dest, shown.help or "", commands.choices[shown.dest])


def _bash(commands: Sequence[_Command]) -> str:
    # What the server calls a task is expanded once, and so not carried out: anybody of this machine may serve
    # where no daemon does. Nor is it put into a line, where it would be.
    names = [each.name for each in commands]
    cases = [f'        {each.name}) words="{each.words_of_shell}" ;;\n' for each in commands]
    return f"""\
_cronflowd() {{
    local words
    case "${{COMP_WORDS[1]}}" in
{"".join(cases)}    esac
    [ "$COMP_CWORD" -gt 1 ] || words="{" ".join(names)}"
    COMPREPLY=($(compgen -W '$words' -- "${{COMP_WORDS[COMP_CWORD]}}" | LC_ALL=C grep -x '{_PLAIN}'))
    [[ ${{COMPREPLY[0]}} != *= ]] || compopt -o nospace 2>/dev/null
}}
complete -o default -F _cronflowd cronflowd
"""


def _zsh(commands: Sequence[_Command]) -> str:
    names = [f"        '{each.name}:{each.told}'\n" for each in commands]
    cases = [f"        {each.name}) compadd -- {each.words_of_shell} ;;\n" for each in commands]
    return f"""\
#compdef cronflowd
_cronflowd() {{
    local -a commands=(
{"".join(names)}    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    case $words[2] in
{"".join(cases)}    esac
    _files
}}
compdef _cronflowd cronflowd
"""


def _fish(commands: Sequence[_Command]) -> str:
    lines = []
    for each in commands:
        lines.append(f"complete -c cronflowd -n __fish_use_subcommand -a {each.name} -d '{each.told}'")
        words = " ".join([*each.words, f"({_TASKS})"] if each.wants_task else each.words)
        lines.append(f"complete -c cronflowd -n '__fish_seen_subcommand_from {each.name}' -a '{words}'")
    return "\n".join(lines) + "\n"


SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
