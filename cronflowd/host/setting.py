"""What a setting is: a row from which its flag, variable, key, default and help are made, and its parser.

Every source gives text, and every text goes through the same parser, which says in a ValueError
or a Refusal what it cannot take. The tables of settings stand in config.py.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import attrs
from attrs import field, frozen

from ..base.errors import Exit, Fatal, Refusal
from ..base.names import check_worker_name
from ..schedules.zones import parse_duration, parse_zone

Address = tuple[str, int]  # host and port, as a person wrote the host; port 0 means any free one

CONTROL_PORT, WORKERS_PORT = 5050, 5051
WORKERS_PATH = "/agents/ws"  # of the HTTP door: where workers come in by WebSocket
# Listened on by default, and quietly left out where the machine has no IPv6.
OPTIONAL_LISTENERS: frozenset[Address] = frozenset({("::1", CONTROL_PORT), ("::1", WORKERS_PORT)})

VARIABLE_PREFIX = "CRONFLOWD_"
MAX_CONFIG_BYTES = 1 << 20

# --- from text to value; each parser says in a ValueError what it cannot take -------------------


@frozen
class Kind:
    """What sort of value a setting has: what help writes for it, and how it is read."""

    metavar: str  # empty for a switch
    parse: Callable[[str], Any]


def bounded(metavar: str, parse: Callable[[str], float]) -> Callable[[str, str], Kind]:
    """A kind of numbers, each setting with its own bounds."""

    def between(low: str, high: str) -> Kind:
        def parse_one(text: str) -> float:
            if not parse(low) <= (value := parse(text)) <= parse(high):
                raise ValueError(f"is not between {low} and {high}")
            return value

        return Kind(metavar, parse_one)

    return between


def parse_whole(text: str) -> int:
    if not re.fullmatch("[0-9]+", text):
        raise ValueError("is not a whole number")
    return int(text[:19])  # beyond every limit in any case


def parse_size(text: str) -> int:
    """Bytes, from `512`, `512K`, `16M` or `1G`; a K is 1024."""
    match = re.fullmatch("([0-9]+)([KMG]?)", text)
    if not match:
        raise ValueError("is not a size such as 512K, 16M or 1G")
    return int(match[1][:19]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]


def parse_path(text: str) -> Path:
    """A path that stays right when the program changes its directory."""
    try:
        return Path(text).expanduser().absolute()
    except FileNotFoundError as error:
        raise ValueError("cannot be found from a working directory that has been removed") from error


def _switch(text: str) -> bool:
    if text.lower() in ("true", "yes", "on", "1"):
        return True
    if text.lower() in ("false", "no", "off", "0"):
        return False
    raise ValueError("is neither true nor false")


def one_of(metavar: str, *words: str) -> Kind:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"is none of {', '.join(words)}")
        return text

    return Kind(metavar, parse)


def _address(text: str) -> Address:
    """`HOST:PORT`, with an IPv6 host in brackets: `[::1]:5050`."""
    match = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^\[\]:]+)):([0-9]{1,5})", text)
    if not match:
        raise ValueError("is not HOST:PORT, or [IPV6]:PORT")
    if int(match[3]) > 65535:
        raise ValueError(f"has port {match[3]}, and ports end at 65535")
    try:
        (host := match[1] or match[2]).encode("idna")  # as every look-up of a name does
    except UnicodeError:
        raise ValueError("has a host that no name can be: a part of it is empty, or too long") from None
    return host, int(match[3])


def format_address(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_server(text: str) -> Address | Path:
    if text.startswith("unix:") and text != "unix:":
        return parse_path(text.removeprefix("unix:"))
    return _address(text)


def format_server(server: Address | Path | WebAddress) -> str:
    if isinstance(server, tuple):
        return format_address(server)
    return f"unix:{server}" if isinstance(server, Path) else str(server)


def parse_web_url(text: str) -> str:
    """`https://cron.example.net`, without a path or with one, and no slash at its end."""
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", text):
        raise ValueError("is not an address such as https://cron.example.net")
    return text.rstrip("/")


@frozen
class WebAddress:
    """Where a worker comes in by WebSocket."""

    host: str
    port: int
    path: str
    is_tls: bool

    @property
    def authority(self) -> str:
        return format_address((self.host, self.port))

    def __str__(self) -> str:
        return f"{'wss' if self.is_tls else 'ws'}://{self.authority}{self.path}"


def parse_worker_port(text: str) -> Address | Path | WebAddress:
    """The daemon's worker port, or the HTTP door before it."""
    if not text.startswith(("ws://", "wss://")):
        return parse_server(text)
    match = re.fullmatch("(wss?)://([^/@ ]+?)(?::([0-9]+))?(?:/([A-Za-z0-9._~%/-]*))?", text)
    if not match:
        raise ValueError("is not ws://HOST:PORT or wss://HOST:PORT, perhaps with a path behind it")
    scheme, host, port, path = match.groups()
    address = _address(f"{host}:{port or (443 if scheme == 'wss' else 80)}")
    return WebAddress(*address, f"/{path}" if path else WORKERS_PATH, scheme == "wss")


def parse_variable(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*\*?", text):
        raise ValueError("is no variable's name, or the beginning of one and *")
    return text


NUMBER, TIME, SIZE = bounded("N", parse_whole), bounded("TIME", parse_duration), bounded("SIZE", parse_size)
FILE, DIR = Kind("FILE", parse_path), Kind("DIR", parse_path)
ADDRESS, SWITCH, MILLION = Kind("HOST:PORT", _address), Kind("", _switch), NUMBER("1", "1000000")
NAME, WORD = Kind("NAME", check_worker_name), Kind("NAME", str)

# --- defaults that depend on the machine --------------------------------------------------------


def state_dir(name: str) -> Path:
    """Where this user's programs keep what must survive; systemd's StateDirectory= goes first."""
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    home = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification asks that a relative path here be ignored.
    return (Path(home) if home.startswith("/") else parse_path("~/.local/state")) / name


def machine_zone(etc: Path = Path("/etc")) -> str:
    """The zone this machine's own cron would use: $TZ, /etc/localtime, /etc/timezone, else UTC.

    /etc/localtime goes before /etc/timezone because the C library reads only the former, and
    the latter is left behind when somebody moves the link by hand. Raises Fatal.
    """
    local = etc / "localtime"
    if (given := os.environ.get("TZ", "").removeprefix(":")) not in ("", str(local)):
        try:
            return _zone_name({"UTC0": "UTC"}.get(given, given))
        except Refusal:
            # A rule such as CET-1CEST has no zone's history behind it, and to take UTC instead
            # would run every task at a wrong hour without a word.
            why = f"TZ: {given!r} is not the name of a time zone; give one with --tz"
            raise Fatal(Exit.CONFIG, why) from None
    with suppress(OSError, Refusal):
        return _zone_name(str(local.readlink()))
    told = ""
    with suppress(OSError, UnicodeDecodeError, Refusal):
        told = _zone_name((etc / "timezone").read_text(encoding="ascii").strip())
    if local.is_file():
        return _zone_of_copy(local, told)
    return told or "UTC"


def _zone_of_copy(copy: Path, told: str) -> str:
    """The zone whose clock goes as that of a copied file, as containers are given the host's; or Fatal.

    What /etc/timezone tells is the image's own as a rule, so it counts only if it agrees.
    """
    from importlib.resources import files  # which takes long, and is seldom needed

    usual = set[str]()  # not those called Japan, where that can be had
    with suppress(ImportError, OSError):
        table = (files("tzdata") / "zoneinfo" / "zone1970.tab").read_text(encoding="utf-8").splitlines()
        usual = {line.split("\t")[2] for line in table if not line.startswith("#")}
    names = (told, "UTC", *sorted(available_timezones(), key=lambda name: (name not in usual, name)))
    with suppress(OSError, ValueError), copy.open("rb") as file:
        here = ZoneInfo.from_file(file)
        for year in (1900, 1970, 2020):  # of another release of the data, the past may be another
            weeks = [datetime(year, 1, 1, tzinfo=UTC) + timedelta(weeks=n) for n in range(52 * (2037 - year))]
            for name in filter(None, names):
                with suppress(ZoneInfoNotFoundError):
                    zone = ZoneInfo(name)
                    if all(here.utcoffset(at) == zone.utcoffset(at) for at in weeks):
                        return name
    raise Fatal(Exit.CONFIG, f"{copy}: no link, and the data of no zone that is known; give one with --tz")


def _zone_name(text: str) -> str:
    """The IANA name in `Europe/Berlin` or `/usr/share/zoneinfo/Europe/Berlin`; Refusal for no zone."""
    return parse_zone(text.rpartition("zoneinfo/")[2].removeprefix("posix/"))


def host_name() -> str:
    return re.sub("[^A-Za-z0-9._-]", "-", socket.gethostname())[:64] or "worker"


# --- what a setting is --------------------------------------------------------------------------


@frozen
class Setting:
    """One row of the table: all that flags, variables, keys and help are made from."""

    field: str  # its name in Settings: "heartbeat_s"
    parse: Callable[[str], Any]
    default: str  # as help tells it
    metavar: str  # what help writes for the value; empty for a switch
    help: str  # empty for a flag that is not for people
    many: bool  # a tuple: the flag may be repeated, and commas separate
    sources: frozenset[str]  # where it may stand: "flag", "variable", "file"

    @property
    def key(self) -> str:
        return self.field.removesuffix("_s")

    @property
    def flag(self) -> str:
        return "--" + self.key.replace("_", "-")

    @property
    def told(self) -> str:
        """The help, with the default; of `commands that it runs, and no others` none is not that."""
        is_told = self.default and self.metavar and not (self.many and self.default == "none")
        return self.help + (f" (default: {self.default})" if is_told else "")

    @property
    def variable(self) -> str:
        return VARIABLE_PREFIX + self.key.upper()

    def read(self, texts: tuple[str, ...], parse: Callable[[str], Any]) -> Any:
        """The value of the texts of one source, each of whose parts `parse` reads."""
        if not self.many:
            return parse(texts[-1])
        return () if texts == ("none",) else tuple(parse(part) for text in texts for part in text.split(","))


def several(kind: Kind, told: str, default: str = "none", **more: Any) -> Any:
    """A setting whose flag may be repeated."""
    return setting(kind, default, f"{told}; repeatable", many=True, **more)


def setting(
    kind: Kind,
    default: str | None,
    told: str,
    *,
    make: Callable[[Any], Any] | None = None,
    many: bool = False,
    sources: str = "flag variable file",
) -> Any:
    """A field of the table. `make` computes a default that the text `default` only describes."""
    row = Setting("", kind.parse, default or "", kind.metavar, told, many, frozenset(sources.split()))
    value = attrs.Factory(make, takes_self=True) if make else None
    if default is not None and not make:
        value = row.read((default,), row.parse)
    return field(default=value, metadata={"row": row})
