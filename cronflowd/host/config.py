"""Settings as one frozen value, read from flags, variables, a file, and defaults.

The classes below are the tables, and there is no other: a field made with `setting`
is a flag (`heartbeat_s`: `--heartbeat 10s`), a variable (`CRONFLOWD_HEARTBEAT=10s`) and a key
of the TOML file (`heartbeat = "10s"`), has its default, and tells its help. To add a setting,
add a field; to read one, name the field.

Flag goes before variable, variable before file, file before default. Every source gives text
and every text goes through the same parser, so what is refused in one place is refused in all,
with the name of the place.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import attrs
from attrs import evolve, field, frozen

from ..base.errors import Exit, Fatal, Refusal
from ..base.names import check_mail_address, check_user_name, parse_label
from ..base.nearest import meant
from ..schedules.zones import parse_zone
from ..tasks.kinds import TYPES
from ..tasks.options import KEEP, RULES, Keep, Retry, parse_keep, parse_retry, parse_timeout
from ..tasks.targets import Target, parse_limit, parse_target
from .disk import or_fatal, read_small
from .setting import (
    ADDRESS,
    DIR,
    FILE,
    MAX_CONFIG_BYTES,
    MILLION,
    NAME,
    NUMBER,
    SIZE,
    SWITCH,
    TIME,
    WORD,
    WORKERS_PORT,
    Address,
    Kind,
    Setting,
    WebAddress,
    bounded,
    host_name,
    machine_zone,
    one_of,
    parse_path,
    parse_server,
    parse_variable,
    parse_web_url,
    parse_whole,
    parse_worker_port,
    setting,
    several,
    state_dir,
)

# --- the table ----------------------------------------------------------------------------------

OWN_NAME = partial(setting, NAME, "the host's name", make=lambda _: host_name())
DATA = partial(setting, DIR, make=lambda _: state_dir("cronflowd"))


@frozen(kw_only=True)
class Common:
    """What the daemon and the worker have in common."""

    section: ClassVar[str] = ""  # the table of the TOML file that holds this program's keys

    token_file: Path | None = setting(FILE, None, "the secret that both sides know; see `cronflowd init`")
    log_format: str = setting(one_of("FORM", "text", "json"), "text", "text (logfmt) or json, on stderr")
    log_level: str = setting(
        one_of("LEVEL", "debug", "info", "warning", "error"), "info", "debug, info, warning or error"
    )
    config: Path | None = setting(FILE, None, "a TOML file of settings", sources="flag variable")
    # What the command line gave, kept so that a reload can put it on top of the file again.
    flags: Mapping[str, tuple[str, ...]] = field(factory=dict, eq=False, repr=False)


@frozen(kw_only=True, slots=False)  # others come beside it
class HttpDoor(Common):
    """What the HTTP door was told, by the daemon that starts it or on its own command line."""

    http: tuple[Address, ...] = several(ADDRESS, "browsers and REST come in here, by a process of its own")
    http_name: tuple[str, ...] = several(
        WORD, "a name by which browsers may call the door, besides its addresses"
    )
    http_url: str | None = setting(
        Kind("URL", parse_web_url), None, "where people reach it, for links in mails"
    )
    cors_origin: tuple[str, ...] = several(
        Kind("ORIGIN", parse_web_url), "pages of this origin may use the API"
    )
    allow_registration: bool = setting(SWITCH, "false", "whoever comes by HTTP may make himself an account")


@frozen(kw_only=True, slots=False)  # others come beside it
class Clustered(Common):
    """What a node of a cluster was told."""

    etcd: tuple[Address, ...] = several(
        ADDRESS, "an etcd member: several daemons with the same --cluster there are one, of which one decides"
    )
    cluster: str = setting(NAME, "main", "which of the clusters on that etcd")
    node: str = OWN_NAME("this daemon's name in the cluster")
    output_copied: int = setting(
        SIZE("0", "1G"),
        "4K",
        "of an attempt's output, what goes through etcd; the rest goes from node to node",
    )
    leader_lease_s: float = setting(
        TIME("2s", "60s"),
        "3s",
        "how long a leader that is not heard of leads; the cluster's first one counts",
    )
    advertise: Address | None = setting(
        ADDRESS, None, "where the other nodes reach the control port (default: the first --listen)"
    )
    advertise_workers: Address | None = setting(
        ADDRESS, None, "where workers reach this node (default: the first --listen-workers)"
    )
    etcd_ca: Path | None = setting(FILE, None, "speak TLS with etcd, and believe this authority")
    etcd_cert: Path | None = setting(FILE, None, "the certificate to show to etcd")
    etcd_key: Path | None = setting(FILE, None, "its key, where the same file does not hold it")
    etcd_user: str | None = setting(WORD, None, "the login at etcd")
    etcd_password_file: Path | None = setting(FILE, None, "what holds its password")
    rejoin: bool = setting(
        SWITCH, "false", "a journal with another history is set aside as journal.aside, once"
    )


@frozen(kw_only=True)
class Settings(HttpDoor, Clustered):
    """What the daemon was told. Seconds end in `_s`; sizes are bytes."""

    data: Path = DATA(
        "$STATE_DIRECTORY, else $XDG_STATE_HOME/cronflowd, else ~/.local/state/cronflowd",
        "where tasks.db and the journal live",
    )
    listen: tuple[Address, ...] = setting(
        ADDRESS,
        "127.0.0.1:5050,[::1]:5050",
        "the control port; repeatable; port 0 is any free one; `none` for none",
        many=True,
    )
    listen_workers: tuple[Address, ...] = setting(
        ADDRESS, "127.0.0.1:5051,[::1]:5051", "the worker port; repeatable; `none` for none", many=True
    )
    socket: Path = setting(
        Kind("PATH", parse_path),
        "DATA/control.sock",
        "the control protocol on a unix socket",
        make=lambda self: self.data / "control.sock",
    )
    local_worker: int = setting(
        bounded("SLOTS", parse_whole)("0", "10000"),
        "4",
        "a child process that runs so many jobs at a time; 0 for none",
    )
    tz: str = setting(
        Kind("ZONE", parse_zone),
        "the machine's zone",
        "the zone of tasks without tz=",
        make=lambda _: machine_zone(),
    )
    insecure: bool = setting(
        SWITCH, "false", "listen beyond this machine without a secret, and speak plain text with etcd there"
    )
    require_auth: bool = setting(
        SWITCH, "false", "whoever comes has to say who it is, also from this machine and over the unix socket"
    )
    require_proof: bool = setting(
        SWITCH, "false", "workers prove that they have a token (nonce=); token= is not taken"
    )
    sign_orders: bool = setting(
        SWITCH, "false", "sign orders with DATA/order.key, made at first use; see `cronflowd key`"
    )
    check_config: bool = setting(
        SWITCH, "false", "read the settings, tell what is wrong, exit", sources="flag"
    )

    tls_cert: Path | None = setting(FILE, None, "both ports speak TLS, and show this certificate (PEM)")
    tls_key: Path | None = setting(FILE, None, "its key, where the same file does not hold it")
    tls_client_ca: Path | None = setting(
        FILE, None, "whoever comes by TCP shows a certificate of this authority"
    )

    heartbeat_s: float = setting(
        TIME("50ms", "1h"),
        "10s; with --etcd a third of --leader-lease",
        "how often a worker shows life; three missed: gone",
        make=lambda self: self.leader_lease_s / 3 if self.etcd else 10.0,
    )
    lease_s: float = setting(TIME("50ms", "1d"), "30s", "how long a silent worker keeps its runs")
    kill_grace_s: float = setting(TIME("0s", "1d"), "10s", "from TERM to KILL for a job that must end")
    first_byte_wait_s: float = setting(
        TIME("0s", "1h"), "1s", "a first byte later than this is a person typing"
    )
    end_wait_s: float = setting(TIME("0s", "1h"), "200ms", "silence after which a script's input has ended")
    more_wait_s: float = setting(TIME("0s", "1h"), "5s", "the same, once more input came after an answer")
    linger_s: float = setting(TIME("0s", "1h"), "10s", "how long input is read after the server said its end")
    silent_close_s: float = setting(TIME("50ms", "1d"), "60s", "a connection that sends nothing is closed")
    session_idle_s: float = setting(TIME("50ms", "1d"), "300s", "a session that falls silent is closed")

    notify: tuple[Target, ...] = several(
        Kind("TARGET", parse_target),
        "who is told of failures: mailto:ADDRESS, URL or slack+URL, with EVENTS: before it",
    )
    notify_limit: tuple[int, float] = setting(
        Kind("N/TIME", parse_limit), "1/1h", "how often an event of one task is told; the others are counted"
    )

    retry: Retry = setting(Kind("RETRY", parse_retry), "none", "the retry= of tasks that say nothing of it")
    timeout_s: float = setting(Kind("TIME", parse_timeout), "none", "their timeout=")
    overlap: str = setting(one_of("WORD", *RULES["overlap"].words), "skip", "their overlap=")
    keep: Keep = setting(Kind("KEEP", parse_keep), KEEP.text, "their keep=")

    max_clients: int = setting(MILLION, "1000", "control connections at a time")
    max_workers: int = setting(MILLION, "1000", "worker connections at a time")
    max_per_address: int = setting(MILLION, "250", "of them from one other machine, on each of the two ports")
    max_failures: int = setting(
        MILLION, "10", "wrong tokens or passwords of one address, before each ends its connection"
    )
    max_locked_lines: int = setting(
        MILLION, "100", "lines a second of one address, before AUTH where that is asked for"
    )
    max_tasks: int = setting(NUMBER("1", "100000000"), "2000000", "tasks")
    max_outbox: int = setting(
        SIZE("64K", "1024G"),
        "4M",
        "unread replies for which a reader is cut that takes nothing for 1 s (10 s below this)",
    )
    output_limit: int = setting(SIZE("0", "1G"), "1M", "output kept of a run: its head and its tail")
    history: int = setting(SIZE("0", "1048576G"), "1G", "ended runs and their output kept on disk")
    segment: int = setting(SIZE("4K", "4G"), "16M", "a journal file of this size is closed")
    recent_runs: int = setting(NUMBER("0", "10000000"), "10000", "ended runs kept in memory")


@frozen(kw_only=True, slots=False)  # others come beside it
class Dialling(Common):
    """What those have in common who dial the daemon."""

    tls: bool = setting(SWITCH, "false", "speak TLS, and verify the daemon's name")
    tls_ca: Path | None = setting(FILE, None, "the authority to believe, not the system's; implies --tls")
    tls_cert: Path | None = setting(
        FILE, None, "the certificate to show, where the daemon asks; implies --tls"
    )
    tls_key: Path | None = setting(FILE, None, "its key, where the same file does not hold it")

    @property
    def speaks_tls(self) -> bool:
        return self.tls or self.tls_ca is not None or self.tls_cert is not None


@frozen(kw_only=True, slots=False)  # others come beside it
class Mailing(Common):
    """How mail leaves."""

    smtp: Address | None = setting(
        ADDRESS, None, "the mail server, for jobs of type email and forgotten passwords"
    )
    smtp_tls: str = setting(
        one_of("WORD", "required", "auto", "off", "implicit"),
        "auto",
        "required (STARTTLS), auto (where the server offers it; required for a login), off, or"
        " implicit (TLS from the first byte)",
    )
    smtp_user: str | None = setting(WORD, None, "the login at the mail server")
    smtp_password_file: Path | None = setting(FILE, None, "what holds its password")
    smtp_from: str = setting(
        Kind("ADDRESS", check_mail_address),
        "cronflowd@ and the host's name",
        "the sender of emails",
        make=lambda _: f"cronflowd@{host_name().replace('_', '-')}",
    )


@frozen(kw_only=True)
class WorkerSettings(Dialling, Mailing):
    """What a worker was told; in the file, the table [worker]."""

    section: ClassVar[str] = "worker"

    connect: tuple[Address | Path | WebAddress, ...] = setting(
        Kind("HOST:PORT", parse_worker_port),
        "127.0.0.1:5051",
        "the daemon's worker port; or unix:PATH; or ws://HOST:PORT, wss://HOST:PORT of its HTTP door;"
        " of several nodes, each: repeatable",
        many=True,
    )
    name: str = OWN_NAME("how on= and WORKERS call it")
    slots: int = setting(NUMBER("1", "10000"), "4", "jobs at a time")
    label: tuple[tuple[str, str], ...] = several(Kind("K=V", parse_label), "what on=label:K=V looks for")
    handlers: Path | None = setting(
        DIR, None, "the Python handlers of type=custom: NAME.py with handle(data, context)"
    )
    spool: Path = setting(
        DIR,
        "cronflowd-worker/NAME in $STATE_DIRECTORY, else $XDG_STATE_HOME, else ~/.local/state",
        "where reports wait for their acknowledgement",
        # Each name has its own place, since two workers cannot share one.
        make=lambda self: state_dir("") / "cronflowd-worker" / self.name,
    )
    pass_env: tuple[str, ...] = several(
        Kind("NAME", parse_variable), "a variable of the worker's own that jobs find too, NAME or PREFIX*"
    )
    http_private: str = setting(
        one_of("WORD", "allow", "refuse"),
        "allow",
        "allow or refuse: whether http and webhook jobs reach this machine and private networks",
    )
    order_key: Path | None = setting(
        FILE, None, "what `cronflowd key` shows: no order runs that is not signed by that key"
    )
    allow_command: tuple[str, ...] = several(Kind("GLOB", str), "commands that it runs, and no others")
    allow_type: tuple[str, ...] = several(one_of("TYPE", *TYPES), "types that it runs, and no others")
    allow_env: tuple[str, ...] = several(
        Kind("NAME", parse_variable),
        "a variable that it takes of tasks (env.NAME=), and no others, NAME or PREFIX*; where --allow-command"
        " limits what it runs, or --allow-type to neither shell nor script, it takes those alone",
    )
    users: tuple[str, ...] = setting(
        Kind("USER", check_user_name),
        "none",
        "whom tasks may run as with user=, where the worker is root; else its own user alone",
        many=True,
    )
    silent_after_s: float = setting(
        TIME("50ms", "30d"), "5m", "a daemon that is silent for so long has --silent-hook run"
    )
    silent_hook: str | None = setting(
        Kind("COMMAND", str), None, "for /bin/sh; once then, once when it is back"
    )
    # The daemon that started it, by its process number; 0 = nobody's.
    local: int = setting(NUMBER("0", "999999999"), "0", "", sources="flag")


@frozen(kw_only=True)
class ClientSettings(Dialling):
    """What clients were told; in the file, the table [client]."""

    section: ClassVar[str] = "client"

    server: Address | Path | None = setting(
        Kind("HOST:PORT|unix:PATH", parse_server),
        None,
        "the daemon's control port (default: unix:DATA/control.sock, else 127.0.0.1:5050)",
    )
    data: Path = DATA("as the daemon's", "the data directory of a daemon on this machine")


@frozen(kw_only=True)
class WebSettings(HttpDoor, Mailing):
    """What the HTTP door was told; in the file, the table [web]."""

    section: ClassVar[str] = "web"

    http: tuple[Address, ...] = several(ADDRESS, "browsers and REST come in here", "127.0.0.1:3000")
    data: Path = DATA(
        "as the daemon's",
        "the data directory of a daemon on this machine, and of the key that signs sessions",
    )
    control: Address | Path = setting(
        Kind("HOST:PORT|unix:PATH", parse_server),
        "unix:DATA/control.sock",
        "the daemon's control port",
        make=lambda self: self.data / "control.sock",
    )
    worker_door: Address | Path = setting(
        Kind("HOST:PORT|unix:PATH", parse_server),
        "unix:DATA/workers.sock, or port 5051 of --control",
        "the daemon's worker port, for workers that come by WebSocket",
        make=lambda self: (
            self.data / "workers.sock" if isinstance(self.control, Path) else (self.control[0], WORKERS_PORT)
        ),
    )
    insecure: bool = setting(SWITCH, "false", "listen beyond this machine where nobody has an account")
    tls: bool = setting(SWITCH, "false", "speak TLS with the daemon, and verify its name")
    tls_ca: Path | None = setting(FILE, None, "the authority to believe then; implies --tls")
    tls_cert: Path | None = setting(FILE, None, "speak HTTPS, and show this certificate (PEM)")
    tls_key: Path | None = setting(FILE, None, "its key, where the same file does not hold it")
    max_http: int = setting(MILLION, "2000", "HTTP connections at a time")
    max_http_per_address: int = setting(MILLION, "250", "of them from one other machine")
    max_requests: int = setting(MILLION, "500", "requests a second of one address, and of one account")
    max_sign_ins: int = setting(
        MILLION, "30", "passwords and new accounts a minute that come from one address"
    )
    # Of the daemon that started it: a pipe that ends when it ends, and the sockets it has opened.
    leash: int = setting(NUMBER("0", "999999999"), "0", "", sources="flag")
    handed: tuple[int, ...] = setting(NUMBER("0", "999999999"), "none", "", sources="flag", many=True)

    @property
    def speaks_tls(self) -> bool:
        return self.tls or self.tls_ca is not None


PROGRAMS: tuple[type[Common], ...] = (Settings, WorkerSettings, WebSettings, ClientSettings)
AnySettings = TypeVar("AnySettings", bound=Common)


def table(kind: type[Common]) -> Iterator[Setting]:
    """The settings of one program, in the order in which help tells them."""
    for each in sorted(attrs.fields(kind), key=lambda each: bool(each.inherited)):
        if row := each.metadata.get("row"):
            yield evolve(row, field=each.name)


# --- from sources to value ----------------------------------------------------------------------


@frozen
class Given:
    """The texts one source gives one setting, and how to tell of them when they are wrong."""

    texts: tuple[str, ...]
    origin: str  # "--listen", "CRONFLOWD_LISTEN", "/etc/cronflowd.toml: listen"
    status: Exit  # a bad flag is bad usage, anything else bad configuration


def load(kind: type[AnySettings], flags: Mapping[str, tuple[str, ...]]) -> AnySettings:
    """The settings of one program; `flags` holds the texts of the command line by field name."""
    rows = {row.field: row for row in table(kind)}
    given = _from_environ(rows) | {
        name: Given(texts, rows[name].flag, Exit.USAGE) for name, texts in flags.items()
    }
    if "config" in given:
        given = _from_file(kind, _value(rows["config"], given["config"])) | given
    settings = kind(flags=flags, **{name: _value(rows[name], each) for name, each in given.items()})
    _check_together(settings)
    return settings


def reload(settings: AnySettings) -> AnySettings:
    """The same command line over today's file and variables; what is wrong leaves the old value alone."""
    return load(type(settings), settings.flags)


def local_worker(settings: Settings) -> WorkerSettings:
    """What the worker that the daemon starts beside itself will read; Fatal if it could not."""
    slots = (str(settings.local_worker),)
    ours = {"connect": ("unix:/socket",), "name": ("local",), "slots": slots, "spool": ("/spool",)}
    return load(WorkerSettings, ours | _same_file(settings))


def http_door(settings: Settings) -> WebSettings:
    """The same of the HTTP door that it starts beside itself."""
    return load(WebSettings, {"data": ("/data",), "control": ("unix:/socket",)} | _same_file(settings))


def check_beside(settings: Settings) -> None:
    """Fatal if one of them would die of its settings, again and again."""
    if settings.local_worker:
        local_worker(settings)
    if settings.http:
        http_door(settings)


def _same_file(settings: Settings) -> dict[str, tuple[str, ...]]:
    return {"config": (str(settings.config),)} if settings.config else {}


def _from_environ(rows: Mapping[str, Setting]) -> dict[str, Given]:
    # Variables that begin like ours and are none of ours are left alone: Kubernetes sets
    # CRONFLOWD_PORT and more for any service that is called cronflowd.
    return {
        row.field: Given((os.environ[row.variable],), row.variable, Exit.CONFIG)
        for row in rows.values()
        if "variable" in row.sources and row.variable in os.environ
    }


def _from_file(kind: type[Common], path: Path) -> dict[str, Given]:
    """This program's part of the file; the other's is looked through for names that nobody knows."""
    document = _read_toml(path)
    parts = {each.section: document.pop(each.section, {}) for each in PROGRAMS if each.section}
    parts[""] = document
    found = {each: _from_part(each, path, parts[each.section]) for each in PROGRAMS}
    return found[kind]


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with or_fatal(str(path), Exit.CONFIG):
            return tomllib.loads(read_small(path, MAX_CONFIG_BYTES).decode())
    except ValueError as error:
        raise Fatal(Exit.CONFIG, f"{path}: {error}") from error


def _from_part(kind: type[Common], path: Path, part: object) -> dict[str, Given]:
    where = f"{path}: {kind.section}." if kind.section else f"{path}: "
    if not isinstance(part, dict):
        raise Fatal(Exit.CONFIG, f"{path}: {kind.section} is not a table")
    rows = {row.key: row for row in table(kind) if "file" in row.sources}
    found: dict[str, Given] = {}
    for name, value in part.items():
        row = rows.get(name.replace("-", "_"))
        if row is None:
            raise Fatal(Exit.CONFIG, f"{where}{name}: there is no such setting{meant(name, [*rows])}")
        if row.field in found:
            raise Fatal(Exit.CONFIG, f"{where}{name}: it is given twice")
        found[row.field] = Given(_file_texts(row, where + name, value), where + name, Exit.CONFIG)
    return found


def _file_texts(row: Setting, where: str, value: object) -> tuple[str, ...]:
    """What TOML holds, as the text that a flag would have had."""
    if isinstance(value, list) and row.many:
        return tuple(text for each in value for text in _file_texts(row, where, each)) or ("none",)
    if isinstance(value, bool):
        return ("true" if value else "false",)
    if isinstance(value, str | int | float):
        return (str(value),)
    raise Fatal(Exit.CONFIG, f"{where}: {type(value).__name__} is not what this setting takes")


def _value(row: Setting, given: Given) -> Any:
    def parse(text: str) -> Any:
        if not text.strip():
            raise Fatal(given.status, f"{given.origin}: it is empty")
        try:
            return row.parse(text)
        except ValueError as error:
            raise Fatal(given.status, f"{given.origin}: {text[:80]!r} {error}") from error
        except Refusal as error:
            raise Fatal(given.status, f"{given.origin}: {error.message}") from error

    return row.read(given.texts, parse)


def _check_together(settings: Common) -> None:
    """What no setting can know alone."""
    if isinstance(settings, Settings) and settings.lease_s < settings.heartbeat_s:
        raise Fatal(
            Exit.CONFIG,
            f"lease: {settings.lease_s:g} s is shorter than a heartbeat ({settings.heartbeat_s:g} s),"
            " so every run would be taken for lost",
        )
    if isinstance(settings, WorkerSettings) and settings.speaks_tls:
        for where in settings.connect:
            if isinstance(where, WebAddress) and not where.is_tls:
                raise Fatal(Exit.CONFIG, f"connect: {where} speaks no TLS; with it, say wss://")
