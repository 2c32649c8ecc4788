"""The command line: reads arguments, starts the rest, and turns what went wrong into an exit code.

The flags of a program come from its table in config.py; here is only what to do with them.
Programs are imported when they are started, so that `cronflowd --version` and the worker do
not pay for the daemon.
"""

from __future__ import annotations

import argparse
import atexit
import errno
import gc
import importlib.util
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .. import __version__
from ..base.errors import Exit, Fatal, leaves
from ..base.nearest import meant
from ..host import config, logs, secrets
from ..host.config import AnySettings, ClientSettings, Settings, WebSettings, WorkerSettings
from ..host.setting import Setting
from ..tasks.options import KEEP, parse_keep
from .completion import SHELLS

TOKEN_NAME = "token"  # noqa: S105  # a file's name, in the data directory, made by `init`
Command = Callable[[argparse.Namespace], int]
INTERRUPTED = 128 + signal.SIGINT
BROKEN_PIPE = 128 + signal.SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """The whole program; returns its exit code, except for --help and --version, which exit."""
    # It may have been started with one of its streams closed. No file of ours may get that number; what
    # it is to say on stdout cannot be said, and what it would log is not missed.
    while (fd := os.open(os.devnull, os.O_RDONLY)) <= 2:
        pass
    os.close(fd)
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # as long as the program
    # Or deaf: a TERM that is blocked would not be heard, and where the ends of children are passed over, the
    # kernel tells nobody how a job ended.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if os.getpid() == 1:  # in a container the kernel would do nothing, where it ends any other process
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
    # What is loaded is no garbage. Those who stay set their own bound when they begin.
    gc.set_threshold(100_000)
    try:
        status = _run(list(sys.argv[1:] if arguments is None else arguments))
        if isinstance(why := logs.untold(), BrokenPipeError):
            return status or BROKEN_PIPE
        if why:
            raise Fatal(Exit.IO, f"standard output: {why.strerror}")
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  # here a bug becomes an exit code
        return _report(error)


def _run(arguments: list[str]) -> int:
    arguments, job = _without_job(_with_command(arguments))
    if arguments[0] in _SPEAK_UTF8 and sys.getfilesystemencoding() != "utf-8":
        _begin_in_utf8()
    found = parser(with_verbs=arguments[0] not in _WITHOUT_VERBS)
    parsed, rest = found.parse_known_args(arguments, argparse.Namespace(job=job, parser=found))
    if rest:
        parsed.known_by.error(f"unrecognized arguments: {' '.join(rest)}")
    command: Command = parsed.command
    return command(parsed)


def _begin_in_utf8() -> None:
    """Anew, as the same process: in a locale of another encoding, jobs would be given other bytes."""
    option = ["-X", "utf8"]
    if sys.orig_argv[1:3] != option:  # where even that says otherwise, it must do
        os.execv(sys.executable, [sys.executable, *option, *sys.orig_argv[1:]])  # noqa: S606  # itself


def _with_command(arguments: list[str]) -> list[str]:
    """`cronflowd --data x` is `cronflowd serve --data x`."""
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version")):
        return ["serve", *arguments]
    return arguments


def _without_job(arguments: list[str]) -> tuple[list[str], list[str]]:
    """`run … -- COMMAND ARG…`: what stands behind `--` is the job's own, whatever it looks like."""
    if arguments[:1] != ["run"] or "--" not in arguments:
        return arguments, []
    cut = arguments.index("--")
    return arguments[:cut], arguments[cut + 1 :]


def _report(error: Exception) -> int:
    """Say what went wrong: a line for what we know, a traceback for what is a bug."""
    causes = [_of_the_machine(each) for each in leaves(error)]
    fatal = next((each for each in causes if isinstance(each, Fatal)), None)
    if fatal is None or not all(isinstance(each, Fatal) for each in causes):
        logs.last_words("".join(traceback.format_exception(error)).rstrip("\n"))
    if fatal is None:
        return Exit.BUG
    logs.last_words(f"cronflowd: error: {fatal.message}")
    return fatal.status


def _of_the_machine(error: BaseException) -> BaseException:
    """A file that the machine does not give, as one that a restore left to another user, is no bug."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        ours = " (ulimit -n)" * (error.errno == errno.EMFILE)  # else all of the machine have too many
        return Fatal(Exit.TRY_AGAIN, f"{error.strerror}{ours}")
    if isinstance(error, OSError) and error.filename:
        return Fatal(Exit.IO, f"{error.filename}: {error.strerror}")
    if isinstance(error, BlockingIOError) or str(error) == "can't start new thread":
        return Fatal(Exit.TRY_AGAIN, getattr(error, "strerror", None) or f"{error} (ulimit -u)")
    return error


# --- what may be said ---------------------------------------------------------------------------


# What other programs call these flags.
_ALSO = {
    "--slots": "capacity concurrency", "--connect": "host url", "--http": "port bind",
    "--listen": "port bind host address", "--name": "id hostname", "--label": "tag tags",
    "--data": "db dir data-dir", "--token-file": "token secret jwt-secret", "--tz": "timezone",
}  # fmt: skip
_NO_COMMAND = re.compile(r"argument COMMAND: invalid choice: '(.*?)' \(choose from (.*)\)")


class _Parser(argparse.ArgumentParser):
    """Bad usage is one line on stderr, like every other end; `--help` tells the rest."""

    def error(self, message: str) -> NoReturn:
        if match := _NO_COMMAND.match(message):
            from ..ask.commands import ALSO_CALLED

            also = {name.lower(): others for name, others in ALSO_CALLED.items()}
            hint = meant(match[1], re.findall(r"[\w-]+", match[2]), also)
            message = f'there is no command "{match[1]}"{hint}'
        elif message.startswith("unrecognized arguments:"):
            from ..ask.commands import VERBS
            from .verbs import ALIASES

            known = (word for word in message.split() if word in ALIASES or word in map(str.lower, VERBS))
            if command := next(known, None):
                message += f"; a command comes first: cronflowd {command} …"
            elif flag := next((word for word in message.split() if word.startswith("--")), None):
                known_flags = {each[2:]: each for each in self._option_string_actions if each[:2] == "--"}
                message += meant(flag[2:].partition("=")[0], known_flags, _ALSO)
        raise Fatal(Exit.USAGE, f"{message} (try `{self.prog} --help`)")


def parser(with_verbs: bool = True) -> argparse.ArgumentParser:
    """Every command, and every flag there is; without verbs for what does not pay for them."""
    top = _Parser(
        prog="cronflowd",
        description="Schedule with netcat, run on workers that dial in. Without a command: serve.",
        allow_abbrev=False,
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    def add(name: str, run: Command, **told: Any) -> argparse.ArgumentParser:
        found = commands.add_parser(name, allow_abbrev=False, **told)
        found.set_defaults(command=run, known_by=found)
        return found

    serve = add("serve", _serve, help="the daemon", description=_SETTINGS)
    worker = add("worker", _work, help="an agent that runs jobs", description=_SETTINGS)
    web = add("web", _serve_web, help="REST and a dashboard for a daemon", description=_SETTINGS)
    for each in (top, serve, worker, web):
        each.add_argument("--version", action="version", version=f"cronflowd {__version__}")
    _add_upkeep(add)
    clients = _add_clients(add)
    completion = add("completion", _complete, help="what a shell reads to complete these commands")
    completion.add_argument("shell", choices=tuple(SHELLS))
    if with_verbs:
        from . import verbs

        for name, verb, usage, summary in verbs.commands(commands.choices):
            asked = add(name, _ask, help=summary, usage=f"%(prog)s [option …]{usage}")
            asked.set_defaults(verb=verb)
            asked.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
            clients.append(asked)
    programs = (serve, Settings), (worker, WorkerSettings), (web, WebSettings)
    for flags, kind in (*programs, *((each, ClientSettings) for each in clients)):
        for row in config.table(kind):
            if kind is not ClientSettings or not row.field.startswith("log_"):  # a client says all on stderr
                _add_flag(flags, row)
    return top


def _add_clients(add: Callable[..., argparse.ArgumentParser]) -> list[argparse.ArgumentParser]:
    """What speaks to a daemon in its own way, and not as any verb does."""
    take = add("import", _import, help="take over a crontab")
    take.add_argument("file", metavar="FILE", help="a crontab; - is standard input")
    take.add_argument(
        "--system", action="store_true", help="as /etc/crontab: a user's name stands before the command"
    )
    take.add_argument("--dry-run", action="store_true", help="only tell what would come of each line")
    take.add_argument("--replace", action="store_true", help="a task that has the name becomes this one")
    export = add("export", _export, help="tasks as a crontab")
    export.add_argument("refs", metavar="REF", nargs="*", help="a task's name or id; none: all tasks")
    usage = "%(prog)s [-h] [option …] [key=value …] -- COMMAND [ARG …], or REF [arg.NAME=VALUE …]"
    run = add("run", _run_job, help="run a command on a worker and wait for it", usage=usage)
    run.set_defaults(verb="RUN")
    run.add_argument(
        "words", metavar="key=value", nargs="*", help="any option of ADD, as env.LANG=C; or a task"
    )
    for key in _RUN_KEYS:
        run.add_argument(f"--{key}", metavar=key.upper(), help=f"the same as {key}={key.upper()}")
    return [take, export, run]


def _add_upkeep(add: Callable[..., argparse.ArgumentParser]) -> None:
    """What is done with files, beside a daemon or without one."""
    check = add("check", _check, help="examine a data directory")
    check.add_argument(
        "directory", metavar="DIR", type=Path, help="the data directory of a daemon that is not running"
    )
    check.add_argument(
        "--fix", action="store_true", help="mend what can be mended; what is cut off is kept aside"
    )
    restore = add("restore", _restore, help="take back a BACKUP")
    restore.add_argument("file", metavar="FILE", type=Path, help="what BACKUP has written")
    restore.add_argument("--force", action="store_true", help="move aside what stands in the directory")
    init = add("init", _init, help="make the secret for --token-file, and the key of secrets")
    key = add("key", _show_key, help="show the public key of --sign-orders, for --order-key of workers")
    for each in (restore, init, key):
        _add_flag(each, next(row for row in config.table(Settings) if row.field == "data"))
    certs = add("certs", _make_certs, help="make a private authority, and certificates for --tls-cert")
    certs.add_argument("directory", metavar="DIR", type=Path, help="where they are written")
    certs.add_argument("names", metavar="NAME", nargs="+", help="a host or address; of several names: A,B")
    cluster = add("cluster", _cluster, help="end a cluster, and go on with one of its directories alone")
    cluster.add_argument("what", choices=("leave",), help="all nodes are stopped; DATA fetches what it lacks")
    for row in config.table(Settings):
        if row.field in ("cluster", "insecure") or row.field.startswith("etcd"):
            _add_flag(cluster, row)
            _add_flag(check, row)
        elif row.field == "data":
            _add_flag(cluster, row)
    compact = add("compact", _compact)  # no help: it is for the daemon's own use, and does not show
    compact.add_argument("directory", metavar="DIR", type=Path)
    compact.add_argument("history", metavar="BYTES", type=int)
    compact.add_argument("keep", nargs="?", default=KEEP.text)


# What these are asked for has nothing to do with the verbs, of which very much would be loaded.
_WITHOUT_VERBS = frozenset(
    "serve worker web compact cluster import export run check restore init key certs --version".split()
)
# Whatever the locale; what is typed at a terminal may be in its encoding.
_SPEAK_UTF8 = ("serve", "worker", "web")
_RUN_KEYS = ("name", "timeout", "retry", "on")
_SETTINGS = (
    "Every flag is also a variable (--max-tasks: CRONFLOWD_MAX_TASKS) and a key of the file that"
    " --config names (max_tasks; a worker's stand in its table [worker]). Flag goes before"
    " variable, variable before file."
)


def _add_flag(parser: argparse.ArgumentParser, row: Setting) -> None:
    """A flag gives text only; config.py reads it, as it reads variables and files."""
    text = row.told.replace("%", "%%") if row.help else argparse.SUPPRESS
    if row.metavar:
        names = (row.flag, "--connect") if row.field == "server" else (row.flag,)
        parser.add_argument(*names, dest=row.field, metavar=row.metavar, action="append", help=text)
    else:
        parser.add_argument(row.flag, dest=row.field, action="append_const", const="true", help=text)


# --- the commands -------------------------------------------------------------------------------


def _load(kind: type[AnySettings], parsed: argparse.Namespace) -> AnySettings:
    flags = {row.field: getattr(parsed, row.field, None) for row in config.table(kind)}
    return config.load(kind, {name: tuple(texts) for name, texts in flags.items() if texts})


def _let_hup_kill_nobody() -> None:
    """Where nobody listens for HUP yet, or any more, there is nothing to read again."""
    signal.signal(signal.SIGHUP, lambda *_: None)  # what is only ignored, jobs would ignore as well
    atexit.register(signal.signal, signal.SIGHUP, signal.SIG_IGN)  # then the interpreter takes handlers away


def _serve(parsed: argparse.Namespace) -> int:
    settings = _load(Settings, parsed)
    logs.set_up(settings.log_format, settings.log_level)
    config.check_beside(settings)  # now, since they would only die of it, again and again
    if settings.local_worker:
        _check_handlers(settings)
    if settings.http:
        _check_web()
    if settings.check_config:
        secrets.check_doors(settings, secrets.exposed(settings), lambda: _has_admin(settings))
        if settings.token_file is not None:
            secrets.read_tokens(settings.token_file)
        from ..host.tls import read_tls

        read_tls(settings)
        logs.tell("cronflowd: the configuration is good")
        return Exit.OK
    from ..daemon import daemon

    secrets.hide_memory()
    _let_hup_kill_nobody()
    return daemon.run(settings)


def _has_admin(settings: Settings) -> bool:
    """As the journal tells it; a daemon may be writing it."""
    from ..engine.state import State
    from ..host.clock import wall_now
    from ..journal.files import journal_dir
    from ..journal.replay import Replay

    state = State(settings.tz, 0)
    for seq, at, fact in Replay(journal_dir(settings.data)):
        state.apply(fact, at, seq)
    return state.access.has_admin(wall_now())


def _check_handlers(settings: Settings) -> None:
    handlers = config.local_worker(settings).handlers
    if handlers is not None:
        from ..worker.executors import custom

        custom.check(handlers)


def _work(parsed: argparse.Namespace) -> int:
    settings = _load(WorkerSettings, parsed)
    logs.set_up(settings.log_format, settings.log_level)
    from ..worker import program

    secrets.hide_memory()
    _let_hup_kill_nobody()
    return program.run(settings)


def _serve_web(parsed: argparse.Namespace) -> int:
    settings = _load(WebSettings, parsed)
    logs.set_up(settings.log_format, settings.log_level)
    _check_web()
    from ..web import serve

    secrets.hide_memory()
    _let_hup_kill_nobody()
    return serve.run(settings)


def _check_web() -> None:
    """Raises Fatal where the HTTP door's packages are not installed."""
    for name in ("litestar", "hypercorn", "joserfc", "jinja2"):
        if importlib.util.find_spec(name) is None:
            why = f"the HTTP door needs the package {name}: pip install 'cronflowd[web]'"
            raise Fatal(Exit.CONFIG, why)


def _check(parsed: argparse.Namespace) -> int:
    from ..journal import check

    status = check.check(parsed.directory, parsed.fix)
    settings = _load(Settings, parsed)
    if status == Exit.OK and settings.etcd:
        from ..journal import leave

        return leave.compare(parsed.directory, settings)
    return status


def _restore(parsed: argparse.Namespace) -> int:
    from ..journal import backup

    return backup.restore(parsed.file, _load(Settings, parsed).data, parsed.force)


def _cluster(parsed: argparse.Namespace) -> int:
    from ..journal import leave

    return leave.leave(_load(Settings, parsed))


def _init(parsed: argparse.Namespace) -> int:
    from ..host import vault

    data = _load(Settings, parsed).data
    secrets.make_key(data / TOKEN_NAME, secrets.CHANGE)
    if not (data / vault.KEY_NAME).exists():  # the first SECRET PUT may have made it
        secrets.make_key(data / vault.KEY_NAME, vault.FOR_EVER)
    logs.tell(data / TOKEN_NAME)
    return Exit.OK


def _show_key(parsed: argparse.Namespace) -> int:
    from ..host import vault

    logs.tell(vault.public_key(_load(Settings, parsed).data))
    return Exit.OK


def _make_certs(parsed: argparse.Namespace) -> int:
    from ..host import clock, tls

    for path in tls.make_certificates(parsed.directory, parsed.names, clock.wall_now()):
        logs.tell(path)
    return Exit.OK


def _compact(parsed: argparse.Namespace) -> int:
    from ..journal import compaction

    logs.set_up("text", "warning")
    return compaction.main(parsed.directory, parsed.history, parse_keep(parsed.keep))


def _import(parsed: argparse.Namespace) -> int:
    from . import client

    flags = (parsed.system, parsed.dry_run, parsed.replace)
    return client.import_crontab(_load(ClientSettings, parsed), parsed.file, *flags)


def _export(parsed: argparse.Namespace) -> int:
    from . import client

    return client.export_crontab(_load(ClientSettings, parsed), parsed.refs)


def _run_job(parsed: argparse.Namespace) -> int:
    from . import client

    if not parsed.job and any("=" not in word for word in parsed.words):
        return _ask(parsed)
    if not parsed.job:
        raise Fatal(Exit.USAGE, "no command; usage: cronflowd run [option …] -- COMMAND [ARG …]")
    options = [(key, value) for key in _RUN_KEYS if (value := getattr(parsed, key))]
    for word in parsed.words:
        key, equals, value = word.partition("=")
        if not equals:
            raise Fatal(Exit.USAGE, f"{word!r} is not key=value; the command stands behind --")
        options.append((key, value))
    return client.run_command(_load(ClientSettings, parsed), options, parsed.job)


def _ask(parsed: argparse.Namespace) -> int:
    from . import verbs

    return verbs.ask(_load(ClientSettings, parsed), parsed.verb, parsed.words)


def _complete(parsed: argparse.Namespace) -> int:
    from . import completion

    logs.tell(completion.script(parsed.parser, parsed.shell), end="")
    return Exit.OK
