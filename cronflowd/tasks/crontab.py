"""crontab(5), read line by line and written again: moving in from cron, and out again.

What is read is what Debian's cron (3.0pl1) makes of a line, which is not always what its
manual says; all of it was tried with the program itself:

- A setting is `NAME = value`, blanks and quotes around both. Blanks at the value's end go,
  also inside quotes. `NAME=` without anything is no setting; `NAME=""` is.
- In a command, `%` ends it; what follows goes to its standard input, each further `%` a new
  line. `\\%` is a percent sign, and `\\\\` is one backslash (cronie's cron keeps both). In the
  input only `\\%` means anything.
- LOGNAME cannot be set. HOME is also where the command starts.

What cron takes and its writer hardly meant (a `%` within quotes, a comment behind SHELL=) stays
what cron makes of it, with a warning and the way to write it.

Nothing here is remembered from line to line: settings are the caller's dictionary. To write,
everything that an import makes of a command is recognised and undone, so what came in as
`mail joe%Hi` goes out as that.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping

from attrs import evolve, frozen

from ..base.errors import Refusal
from ..base.names import NAME, check_mail_address
from ..base.text import CONTROL, escape, format_option
from ..schedules.describe import cron_forms
from ..schedules.schedule import Schedule, parse_schedule
from ..schedules.words import is_phrase
from ..schedules.zones import parse_zone
from . import slips
from .environment import CRON_PATH, CRON_SHELL, differences
from .kinds import PROGRAMS, split_words
from .options import DEFAULTS, format_options, masked, set_options
from .programs import is_program, name_of
from .reasons import in_words
from .targets import MAX_TARGETS, UNSAID
from .task import TaskSpec

FALLBACK_NAME = "job"  # of a command whose program has no name that a task can have
_CRONS_OWN = {"PATH": CRON_PATH}  # what a setting was before it was made
MAX_CRON_BYTES = 998  # of a command or a setting that Debian's cron takes
MAX_SETTINGS_BYTES = 32_768  # remembered from the lines before
NOT_ENV = ("CRON_TZ", "LOGNAME", "MAILTO", "SHELL")  # settings that are more, or less, than a variable


@frozen
class Nothing:
    """A blank line or a comment."""

    about: str = ""  # the task that it names, if it is a comment such as `Writer` makes
    user: str = ""  # and as whom it says that this runs


@frozen
class Setting:
    """`NAME=value`, for all lines that follow."""

    name: str
    value: str
    differences: tuple[str, ...] = ()  # what is not as in cron, each a clause
    warnings: tuple[str, ...] = ()  # what is as in cron, and hardly meant so


@frozen
class Entry:
    """A line that has something done."""

    schedule: str
    command: str  # for /bin/sh, whatever SHELL was
    options: dict[str, str]  # as ADD takes them
    name: str  # after its program, not yet unique
    differences: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


Line = Nothing | Setting | Entry


# --- reading -----------------------------------------------------------------------------------

_SETTING = re.compile(
    r"""(?:'([^'=]*)'|"([^"=]*)"|([^\s='"][^\s=]*|))   # the name
        [ \t]*=[ \t]*
        (?:'([^']*)'|"([^"]*)"|([^\s'"].*))[ \t]*$           # the value""",
    re.VERBOSE,
)
_ENTRY = re.compile(r"(@[^ \t]*|[^ \t@][^ \t]*(?:[ \t]+[^ \t]+){4})(?:[ \t]+(.*))?$", re.DOTALL)
_TOLD = r'[^"]|"(?:[^"\\]|\\.)*"'  # what stands in quotes is the value of another option
_ABOUT = re.compile(rf"# ({NAME})(?:;(?: not in cron: (?:(?:{_TOLD})* )?user=([^ ;\"]+)(?![^ ;]))?.*)?$")
_BLANKS = re.compile(r"[ \t]+")
_COMMAND = re.compile(r"(?:[^\\%]|\\.|\\$)*", re.DOTALL)
_COMMAND_ESCAPE = re.compile(r"\\([\\%])")
_INPUT_PERCENT = re.compile(r"\\?%")


def parse_line(text: str, settings: Mapping[str, str], is_system: bool = False) -> Line:
    """What a line says under the settings before it; Refusal names what is wrong with it.

    The system form (/etc/crontab, /etc/cron.d) has a user's name before the command.
    """
    if match := CONTROL.search(text):
        raise Refusal(
            "bad-line", f"column {match.start() + 1} holds the control character {escape(match[0])}"
        )
    text = text.lstrip(" \t")
    if not text or text.startswith("#"):
        match = _ABOUT.match(text)
        return Nothing(match[1], match[2] or "") if match else Nothing()
    if match := _SETTING.match(text):
        return _setting(match)
    if re.fullmatch(r"[^\s=]+[ \t]*=[ \t]*", text):
        raise Refusal("bad-line", f'"{escape(text[:64])}": cron wants NAME="" for an empty value')
    return _entry(text, settings, is_system)


def _setting(match: re.Match[str]) -> Setting:
    name = next(part for part in match.groups()[:3] if part is not None)
    value = next(part for part in match.groups()[3:] if part is not None).rstrip(" \t")
    set_options(DEFAULTS, {f"env.{name}": value})  # for its refusals
    return Setting(name, value, tuple(_setting_differs(name, value)), tuple(_setting_warns(name, value)))


def _setting_warns(name: str, value: str) -> Iterator[str]:
    if match := re.search(r"(?<![ \t])[ \t]+#", value):
        kept = value[: match.start()].strip("'\"")
        yield f"to cron the comment is part of the value; write {name}={kept}, and the comment before it"
    if re.search(r"\$[A-Za-z_{(]|`|^~|:~", value):
        yield f'nothing in "{value[:80]}" is replaced, as in cron: write all of it out'
    if name == "CRON_TZ":
        try:
            parse_zone(value)
        except Refusal as refusal:
            yield f"the lines that follow will be refused: {refusal.message}"
    if name == "SHELL" and not re.fullmatch(r"/\S+(?:[ \t]+#.*)?", value):
        yield "it is not just an absolute path, so every command fails; write SHELL=/bin/bash"


def _setting_differs(name: str, value: str) -> Iterator[str]:
    if name == "MAILTO" and value:
        targets, others = _mail_targets(value)
        if targets:
            shown = ",".join(targets)
            yield f"the tasks that follow get notify={shown}: a mail when one fails, not for what it writes"
        if others:
            yield f"nothing is mailed to {', '.join(others)}, which is no address such as ops@example.org"
    elif name == "LOGNAME":
        yield "it is passed over, as cron does"
    elif name == "CRON_TZ":
        yield f"the tasks that follow get tz={value}, as in cronie; Debian's cron does not heed it"
    elif name == "RANDOM_DELAY":
        yield "it delays nothing; SET a task's jitter= for that"
    elif name == "HOME" and not value.startswith("/"):
        yield "it is no absolute path, so commands start in the worker's directory"


def _entry(text: str, settings: Mapping[str, str], is_system: bool) -> Entry:
    match = _ENTRY.match(text)
    if match is None or is_phrase(match[1]):
        wanted = "five fields (or @daily and the like)" + (", a user" if is_system else "") + " and a command"
        hint = "; cron knows no export: write NAME=value" if text.startswith("export ") else ""
        raise Refusal("bad-schedule", f'"{escape(text.strip()[:64])}": {wanted} are wanted{hint}')
    schedule, rest = _BLANKS.sub(" ", match[1]), match[2] or ""
    tz = settings.get("CRON_TZ", "")
    if schedule.lower() in ("@every", "@at", "@after", "@on"):
        raise Refusal("bad-schedule", f"cron has no {schedule}; ADD takes it")
    parse_schedule(schedule, tz or "UTC")
    if why := _cron_schedules(parse_schedule(schedule, "UTC"))[1]:
        raise Refusal("bad-schedule", f'"{schedule}": {why}; ADD takes it')
    user, differences, warnings = "", [], []
    if schedule == "@reboot":
        differences.append("it runs at each start of the daemon, not only of the machine")
    if is_system:
        user, _, rest = (_BLANKS.sub(" ", rest, count=1)).partition(" ")
        if is_program(user) or re.match("[ \t]*-", rest):
            form = "in the system form a user stands before the command"
            raise Refusal(
                "bad-line", f'{form}, and "{escape(user[:64])}" is none; without --system there is no user'
            )
    elif re.match(r"(?:root|nobody|daemon|www-data|postgres|mysql)[ \t]+(?!-)", rest):
        warnings.append(f'the command begins with "{rest.split()[0]}": the system form wants IMPORT --system')
    if not rest.strip():
        raise Refusal("syntax", f'there is no command after "{escape(match[0].strip()[:64])}"')
    command, lines, has_collapsed = split_command_line(rest.lstrip(" \t"))
    if not command.strip():
        raise Refusal("syntax", "there is no command before the %")
    warnings += _command_warns(schedule, rest.strip(" \t"), command)
    if has_collapsed:
        differences.append("a doubled backslash is one, as in Debian's cron; cronie keeps both")
    shell = settings.get("SHELL", CRON_SHELL)
    options = _options(settings) | ({"tz": tz} if tz else {}) | ({"user": user} if user else {})
    name = name_of(command) or FALLBACK_NAME
    return Entry(schedule, wrap(command, lines, shell), options, name, tuple(differences), tuple(warnings))


def _command_warns(schedule: str, field: str, command: str) -> Iterator[str]:
    """What cron makes of a command field, and its writer hardly meant."""
    is_cut = len(command) < len(field) and _PERCENT.search(field)
    if is_cut and (_is_unfinished(command) or command.endswith("+")):
        meant = _PERCENT.sub(r"\\%", field)
        yield f"the first % ends the command, as in cron; a percent sign is \\%, so write: {meant}"
    elif slips.is_open(command):
        yield "a quote is not closed, so the shell will refuse the command"
    if re.search(r"(?<!\\)(?:\\\\)*\\$", field):
        yield "it ends with a backslash: cron joins no lines, and the next one stands by itself"
    if len(field.encode()) > MAX_CRON_BYTES:
        yield f"it is longer than the {MAX_CRON_BYTES} bytes that Debian's cron takes"
    try:
        slips.check_command_word(schedule, command)
    except Refusal as refusal:
        yield f"what follows the fifth field is the command, as in cron. {refusal.message}"


_PERCENT = re.compile(r"(?<!\\)%")


def _is_unfinished(command: str) -> bool:
    """Whether a quote, a `$(` or a backquote is still open at its end."""
    return slips.is_open(command) or command.count("$(") > command.count(")") or command.count("`") % 2 > 0


def split_command_line(text: str) -> tuple[str, tuple[str, ...], bool]:
    """A command field as (command, lines of its input, whether a doubled backslash became one)."""
    match = _COMMAND.match(text)
    assert match
    command = _COMMAND_ESCAPE.sub(r"\1", match[0])
    has_collapsed = any(found == "\\" for found in _COMMAND_ESCAPE.findall(match[0]))
    given = _INPUT_PERCENT.sub(lambda percent: percent[0][1:] or "\n", text[match.end() + 1 :])
    lines = given.removesuffix("\n").split("\n") if given else ()
    return command, tuple(lines), has_collapsed


def _mail_targets(value: str) -> tuple[list[str], list[str]]:
    """The addresses of MAILTO as notify= has them, and the words that are none: users of the machine."""
    words = [word for word in re.split(r"[,\s]+", value) if word]
    targets = [f"mailto:{word}" for word in words if _is_address(word)][:MAX_TARGETS]
    return targets, [word for word in words if f"mailto:{word}" not in targets]


def _is_address(word: str) -> bool:
    try:
        check_mail_address(word)
    except Refusal:
        return False
    return True


def _options(settings: Mapping[str, str]) -> dict[str, str]:
    options = {f"env.{name}": value for name, value in settings.items() if name not in NOT_ENV}
    if settings.get("SHELL", CRON_SHELL) != CRON_SHELL:
        options["env.SHELL"] = settings["SHELL"]
    if settings.get("HOME", "").startswith("/"):
        options["cwd"] = settings["HOME"]
    if targets := _mail_targets(settings.get("MAILTO", ""))[0]:
        options["notify"] = ",".join(targets)
    return options


def common_differences(settings: Mapping[str, str], has_user: bool = False) -> tuple[str, ...]:
    """What is otherwise than in cron for every entry under these settings."""
    found = [
        "a moment that comes while it still runs is skipped (overlap=)",
        "one that was missed while the daemon was down is caught up (catchup=)",
    ]
    found += differences(settings)
    if not ("HOME" in settings or has_user):
        found.append("it starts in the worker's directory, where cron starts it in the user's home")
    if "MAILTO" not in settings:
        found.append("LOG keeps what it writes, where cron mails it")
    return tuple(found)


# --- commands ----------------------------------------------------------------------------------

_PLAIN = re.compile(r"[A-Za-z0-9_@+:,./ -][A-Za-z0-9_@%+=:,./ -]*")  # means the same on either side of a pipe
_PRINTF = "printf '%s\\n' "


def wrap(command: str, lines: Iterable[str], shell: str) -> str:
    """One line for /bin/sh that has `shell` run the command, with these lines as its input."""
    inner = f"{shlex.quote(shell)} -c {shlex.quote(command)}"
    if not lines:
        return command if shell == CRON_SHELL else f"exec {inner}"
    if shell == CRON_SHELL and _PLAIN.fullmatch(command):
        inner = command
    return f"{_PRINTF}{' '.join(_quote(line) for line in lines)} | {inner}"


def _quote(line: str) -> str:
    return "'" + line.replace("'", "'\"'\"'") + "'"


def unwrap(command: str, shell: str) -> tuple[str, tuple[str, ...]] | None:
    """What `wrap` was given, if this is what it made of it."""
    head = _INPUT.match(command)
    lines = tuple(map(_unquote, _QUOTED.findall(head[1]))) if head else ()
    tail = command[head.end() :] if head else command.removeprefix("exec ")
    inner = _unquote(tail.removeprefix(f"{shlex.quote(shell)} -c "))
    return next(
        ((text, lines) for text in (inner, tail) if text and wrap(text, lines, shell) == command), None
    )


_ONE_QUOTED = r"""'(?:[^']|'"'"')*'"""
_QUOTED = re.compile(_ONE_QUOTED)
_INPUT = re.compile(rf"printf '%s\\n' ({_ONE_QUOTED}(?: {_ONE_QUOTED})*) \| ")


def _unquote(word: str) -> str:
    return word[1:-1].replace("'\"'\"'", "'") if word.startswith("'") else word


# --- writing -----------------------------------------------------------------------------------

_NOT_IN_CRON = ("tz", "type", "cwd")  # options that are said in another way
_FIELDS = re.compile(r"@[a-z]+|[^ @]+(?: [^ ]+){4}")
_UNSAYABLE = re.compile(r"[lLwW]")


@frozen
class Exported:
    """A task that goes out."""

    spec: TaskSpec
    why_off: str = ""  # why it must not start in cron; empty if it may
    lacks: str = ""  # why it would run without what it needs there, likewise


class Writer:
    """Writes tasks as lines, and knows which settings are in force after them."""

    def __init__(self, tz: str, before: Mapping[str, str] | None = None) -> None:
        before = before or {}
        self._tz = before.get("CRON_TZ") or tz  # cron's own, until CRON_TZ says another
        self._mail = _addresses(_mail_targets(before.get("MAILTO", ""))[0])
        self._settings = {
            name: value for name, value in before.items() if name == "SHELL" or name not in NOT_ENV
        }

    def lines(self, task: Exported) -> Iterator[str]:
        """A comment that names it, the settings it needs, and its entries."""
        spec = task.spec
        schedules, why = _cron_schedules(spec.schedule)
        settings, field = self._needs(spec) if not why else ({}, "")
        if len(field.encode()) > MAX_CRON_BYTES:
            why = (
                f"its command would be longer than {MAX_CRON_BYTES} bytes, and cron then reads nothing at all"
            )
        if why := task.why_off or _why_not(spec) or why or task.lacks:
            yield f"# {spec.name} is not for cron: {why}"
            yield f"# {_BLANKS.sub(' ', spec.schedule.text)} {spec.command}"
            return
        yield f"# {spec.name}{''.join(_told(spec))}"
        if spec.schedule.kind != "reboot" and spec.schedule.tz != self._tz:
            self._tz = spec.schedule.tz
            yield f"CRON_TZ={self._tz}"
        if (mail := _mail_of(spec)) != self._mail:
            self._mail = mail
            yield f"MAILTO={_format_value(mail)}"
        self._settings |= settings
        yield from (f"{name}={_format_value(value)}" for name, value in settings.items())
        yield from (f"{schedule} {field}" for schedule in schedules)

    def _needs(self, spec: TaskSpec) -> tuple[dict[str, str], str]:
        """Settings to be changed, and the command field, which does what no setting can say."""
        env = dict(spec.options.env)
        shell, text = env.pop("SHELL", CRON_SHELL), _as_shell(spec)
        before = [
            f"export {name}={shlex.quote(env.pop(name))}; "
            for name, value in tuple(env.items())
            if not _can_be_set(name, value)
        ]
        gone = sorted(self._settings.keys() - env.keys() - {"SHELL"})
        before += [f"unset {name}; " for name in gone if name not in _CRONS_OWN]
        if spec.options.cwd and env.get("HOME") != spec.options.cwd:
            before.append(f"cd {shlex.quote(spec.options.cwd)} || exit; ")
        found = unwrap(text, shell)
        if found is None or not _reads_back(*found) or (before and shell != CRON_SHELL):
            # What stands before a command is for /bin/sh, which then starts the other shell.
            before += [f"export SHELL={shlex.quote(shell)}; "] if shell != CRON_SHELL else []
            found, shell = (text, ()), CRON_SHELL
        command, lines = found
        wanted = {"SHELL": shell} | {name: _CRONS_OWN[name] for name in gone if name in _CRONS_OWN} | env
        settings = {
            name: value
            for name, value in wanted.items()
            if self._settings.get(name, CRON_SHELL if name == "SHELL" else None) != value
        }
        return settings, format_command_line("".join(before) + command, lines)


def weight(task: Exported, tz: str) -> tuple[object, ...]:
    """Those with few settings come first: a crontab can set a variable, and never take it back."""
    names, zone = [name for name, _ in task.spec.options.env], task.spec.schedule.tz
    return len(names), names, zone != tz, zone, _mail_of(task.spec)


def is_written(line: Entry, spec: TaskSpec, settings: Mapping[str, str], tz: str) -> bool:
    """Whether this entry, under these settings, is what `Writer` makes of the task.

    Who is mailed does not count: nobody wants a command to run twice because somebody else is told.
    """
    if line.options.get("user", "") != spec.options.user:
        return False
    before = {name: value for name, value in settings.items() if name != "MAILTO"}
    _, *texts = Writer(tz, before).lines(Exported(untold(spec)))
    found = [parse_line(text, before) for text in texts]
    entries = [each for each in found if isinstance(each, Entry)]
    # A setting among them would be one that the crontab has otherwise.
    return len(entries) == len(found) and _meaning(line) in map(_meaning, entries)


def untold(spec: TaskSpec) -> TaskSpec:
    """The same, of which nobody is told, whosever it is."""
    return evolve(spec, options=evolve(spec.options, notify=UNSAID, owner=None))


def _meaning(line: Entry) -> tuple[object, ...]:
    options = {key: text for key, text in line.options.items() if key not in ("notify", "user")}
    return line.schedule, line.command, options


_BOUNDS = ("start", "end", "count", "spread", "skip", "after")  # without them it would run at other times


def _why_not(spec: TaskSpec) -> str:
    if spec.unread:
        return in_words(spec.unread.reason)
    if spec.options.type not in PROGRAMS:
        return f"its type is {spec.options.type}"
    if bounds := [key for key in _BOUNDS if key in format_options(spec.options)]:
        return f"cron has no {'=, '.join(bounds)}="
    return ""


def what_it_lacks(spec: TaskSpec) -> str:
    """Why the entry would run without what it needs, or empty; IMPORT takes it for the task all the same."""
    if spec.options.type not in PROGRAMS:
        return ""
    lacks = [*(["stdin="] if spec.options.stdin else []), *(f"secret:{name}" for name in spec.options.wants)]
    return f"cron has no {', '.join(lacks)}" if lacks else ""


def _cron_schedules(schedule: Schedule) -> tuple[tuple[str, ...], str]:
    """The schedules that say it in cron, or none and the reason."""
    texts = cron_forms(schedule) if schedule.rule else (_BLANKS.sub(" ", schedule.text),)
    texts = tuple(text[:-2] if re.fullmatch(r"\S+(?: \S+){4} 0", text) else text for text in texts)
    if schedule.kind in ("at", "on"):
        return (), "it is for one moment" if schedule.kind == "at" else "cron knows of no events"
    if schedule.kind == "every" and not schedule.rule:
        return (), "cron has no even intervals"
    if not texts:
        return (), "cron has no such schedule"
    for text in texts:
        if not _FIELDS.fullmatch(text):
            return (), "cron has no seconds"
        dom, dow = (text.split(" ") * 5)[2], text.split(" ")[-1]
        if not text.startswith("@") and (_UNSAYABLE.search(dom) or re.search("[#lL]", dow)):
            return (), "cron has no L, W and #"
    return texts, ""


def _told(spec: TaskSpec) -> Iterator[str]:
    """The options that cron has not."""
    texts = format_options(spec.options)
    words = [
        format_option(key, masked(key, value))
        for key, value in texts.items()
        if key not in _NOT_IN_CRON and not key.startswith("env.") and not (key == "notify" and _mail_of(spec))
    ]
    if words:
        yield f"; not in cron: {' '.join(words)}"
    if spec.schedule.rule:
        yield f"; {_BLANKS.sub(' ', spec.schedule.text)}"
    if "HOME" in dict(spec.options.env) and not spec.options.cwd:
        yield "; cron starts it in HOME"


def _mail_of(spec: TaskSpec) -> str:
    """The MAILTO of which an import makes just this notify=; empty if there is none."""
    targets = spec.options.notify.text.split(",")
    mail = _addresses(targets)
    is_sayable = _mail_targets(mail)[0] == targets and len(f"MAILTO={mail}") <= MAX_CRON_BYTES
    return mail if is_sayable else ""


def _addresses(targets: Iterable[str]) -> str:
    return ",".join(target.removeprefix("mailto:") for target in targets)


def _as_shell(spec: TaskSpec) -> str:
    return shlex.join(split_words(spec.command)) if spec.options.type == "script" else spec.command


def _can_be_set(name: str, value: str) -> bool:
    text = _format_value(value)
    return name not in NOT_ENV and text is not None and len(f"{name}={text}".encode()) <= MAX_CRON_BYTES


def _format_value(value: str) -> str | None:
    """A setting's value as cron reads it back; None if there is no way to write it."""
    if value and re.fullmatch(r"[^\s'\"]\S*", value):
        return value
    if value != value.rstrip(" \t"):
        return None
    if '"' not in value:
        return f'"{value}"'
    if "'" not in value:
        return f"'{value}'"
    return None if value[0] in " \t'\"" else value


def format_command_line(command: str, lines: Iterable[str] = ()) -> str:
    """A command field that means this command, with these lines as its input."""
    text = re.sub(r"(\\+)(?=(.)?)", _double, command).replace("%", "\\%")
    given = [line.replace("%", "\\%") for line in lines]
    if given and not given[-1]:
        given.append("")
    return "%".join([text, *given])


def _double(match: re.Match[str]) -> str:
    """A lone backslash stays as it is; one before a % or another one is written twice."""
    return match[1] * 2 if len(match[1]) > 1 or match[2] == "%" else match[1]


def _reads_back(command: str, lines: tuple[str, ...]) -> bool:
    return split_command_line(format_command_line(command, lines))[:2] == (command, lines)
