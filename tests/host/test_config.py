"""Settings: four sources, one parser, and an error that says whose fault it is."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import attrs
import pytest

from cronflowd.base.errors import Exit, Fatal
from cronflowd.host import config
from cronflowd.host.config import Settings, WorkerSettings
from cronflowd.host.setting import OPTIONAL_LISTENERS, WebAddress, format_address, machine_zone


def write(tmp_path: Path, text: str) -> dict[str, tuple[str, ...]]:
    """Flags that name a file which holds this text."""
    file = tmp_path / "c.toml"
    file.write_text(text, encoding="utf-8")
    return {"config": (str(file),)}


def refused(kind: type[config.Common], flags: dict[str, tuple[str, ...]]) -> tuple[Exit, str]:
    with pytest.raises(Fatal) as caught:
        config.load(kind, flags)
    return caught.value.status, caught.value.message


def test_the_defaults_are_those_that_scripts_rely_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """protocol.md and every example name these; a default that moves breaks somebody's script."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("TZ", "Europe/Paris")
    expected = Settings(
        data=tmp_path,
        listen=(("127.0.0.1", 5050), ("::1", 5050)),
        listen_workers=(("127.0.0.1", 5051), ("::1", 5051)),
        socket=tmp_path / "control.sock",
        local_worker=4,
        tz="Europe/Paris",
        token_file=None,
        insecure=False,
        heartbeat_s=10.0,
        lease_s=30.0,
        kill_grace_s=10.0,
        first_byte_wait_s=1.0,
        end_wait_s=0.2,
        more_wait_s=5.0,
        linger_s=10.0,
        silent_close_s=60.0,
        session_idle_s=300.0,
        notify=(),
        notify_limit=(1, 3600.0),
        max_clients=1000,
        max_workers=1000,
        max_tasks=2_000_000,
        max_outbox=4 << 20,
        output_limit=1 << 20,
        history=1 << 30,
        segment=16 << 20,
        recent_runs=10_000,
        log_format="text",
        log_level="info",
    )
    assert config.load(Settings, {}) == expected


def test_what_is_optional_among_the_default_listeners_is_a_default_listener() -> None:
    """The two are written in two places, and only ::1 may be missing without a word."""
    optional = {address for address in Settings().listen + Settings().listen_workers if address[0] == "::1"}
    assert optional == OPTIONAL_LISTENERS


def test_flag_goes_before_variable_before_file_before_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each source leaves room for a nearer one, setting by setting."""
    flags = write(tmp_path, "[worker]\nslots = 2\nname = 'file'\nlog_level = 'error'\n")
    monkeypatch.setenv("CRONFLOWD_SLOTS", "3")
    monkeypatch.setenv("CRONFLOWD_NAME", "variable")
    settings = config.load(WorkerSettings, flags | {"slots": ("9",)})
    found = (settings.slots, settings.name, settings.log_level, settings.log_format)
    assert found == (9, "variable", "error", "text")


SAMPLES = {  # a text for each kind of value, and for the settings that are particular
    "int": "7", "bool": "true", "float": "3s", "str": "x", "tz": "Asia/Tokyo", "log_format": "json",
    "log_level": "debug", "label": "a=b", "lease_s": "40s", "max_outbox": "1M", "segment": "1M",
    "http_private": "refuse", "http_url": "http://x", "cors_origin": "http://x", "handed": "7",
    "notify": "lost:https://example.org/", "notify_limit": "3/1d",
    "silent_hook": "x",
    "pass_env": "AWS_*", "allow_env": "PG*",
    "smtp_tls": "required", "retry": "fixed:3:1s", "overlap": "queue", "keep": "9",
    "smtp_from": "cron@example.org", "allow_command": "x *", "allow_type": "http", "users": "ann",
}  # fmt: skip


def sample(kind: type[config.Common], field: str, path: Path) -> str:
    value_type = str(attrs.fields_dict(kind)[field].type)
    if value_type.startswith("Path"):
        return str(path)
    return SAMPLES.get(field) or SAMPLES.get(value_type, "127.0.0.1:1")


@pytest.mark.parametrize("kind", config.PROGRAMS)
def test_every_setting_can_be_said_in_every_place(
    kind: type[config.Common], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One table: the name decides flag, variable and key, and the same text means the same."""
    empty = tmp_path / "empty.toml"
    empty.touch()
    for row in config.table(kind):
        text = sample(kind, row.field, empty)
        expected = getattr(config.load(kind, {row.field: (text,)}), row.field)
        if "variable" in row.sources:
            with monkeypatch.context() as context:
                context.setenv(row.variable, text)
                assert getattr(config.load(kind, {}), row.field) == expected
        if "file" in row.sources:
            section = f"[{kind.section}]\n" if kind.section else ""
            flags = write(tmp_path, f'{section}{row.key} = "{text}"')
            assert getattr(config.load(kind, flags), row.field) == expected


def test_names_follow_from_the_field() -> None:
    """The documentation tells the rule once, so there are no exceptions to it."""
    row = next(row for row in config.table(Settings) if row.field == "first_byte_wait_s")
    assert (row.flag, row.variable, row.key) == (
        "--first-byte-wait",
        "CRONFLOWD_FIRST_BYTE_WAIT",
        "first_byte_wait",
    )


def test_a_file_may_use_numbers_switches_and_lists(tmp_path: Path) -> None:
    """TOML has types, and nobody wants to quote a number."""
    flags = write(
        tmp_path,
        "listen = ['127.0.0.1:1', '[::1]:2']\nlisten-workers = []\n"
        "insecure = true\nheartbeat = 2.5\nmax_tasks = 9\n",
    )
    settings = config.load(Settings, flags)
    assert settings.listen == (("127.0.0.1", 1), ("::1", 2))
    assert settings.listen_workers == ()
    assert (settings.insecure, settings.heartbeat_s, settings.max_tasks) == (True, 2.5, 9)


def test_one_file_serves_both_programs(tmp_path: Path) -> None:
    """Daemon and worker of one machine are configured in one place, each with its own names."""
    flags = write(tmp_path, "log_level = 'debug'\n[worker]\nlabel = ['gpu=yes', 'room=2']\n")
    assert config.load(Settings, flags).log_level == "debug"
    worker = config.load(WorkerSettings, flags)
    assert (worker.log_level, worker.label) == ("info", (("gpu", "yes"), ("room", "2")))


def test_a_list_can_be_repeated_or_written_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable holds one text, so commas have to do there what repeating does for a flag."""
    expected = (("127.0.0.1", 1), ("127.0.0.1", 2))
    assert config.load(Settings, {"listen": ("127.0.0.1:1", "127.0.0.1:2")}).listen == expected
    monkeypatch.setenv("CRONFLOWD_LISTEN", "127.0.0.1:1,127.0.0.1:2")
    assert config.load(Settings, {}).listen == expected
    assert config.load(Settings, {"listen": ("none",)}).listen == ()


NO_NAME = "has a host that no name can be: a part of it is empty, or too long"


@pytest.mark.parametrize(
    ("field", "text", "why"),
    [
        ("listen", "5050", "--listen: '5050' is not HOST:PORT, or [IPV6]:PORT"),
        ("listen", "::1:5050", "--listen: '::1:5050' is not HOST:PORT, or [IPV6]:PORT"),
        ("listen", "h:65536", "--listen: 'h:65536' has port 65536, and ports end at 65535"),
        ("listen", "a..b:1", f"--listen: 'a..b:1' {NO_NAME}"),
        ("listen", f"{'h' * 64}.de:1", f"--listen: '{'h' * 64}.de:1' {NO_NAME}"),
        ("listen", "h:1,", "--listen: it is empty"),
        ("data", "", "--data: it is empty"),
        ("data", " ", "--data: it is empty"),
        ("local_worker", "-1", "--local-worker: '-1' is not a whole number"),
        ("local_worker", "\u0663", "--local-worker: '\u0663' is not a whole number"),
        ("local_worker", "10001", "--local-worker: '10001' is not between 0 and 10000"),
        ("segment", "1T", "--segment: '1T' is not a size such as 512K, 16M or 1G"),
        ("max_tasks", "9" * 5000, f"--max-tasks: '{'9' * 80}' is not between 1 and 100000000"),
        ("history", "9" * 5000 + "G", f"--history: '{'9' * 80}' is not between 0 and 1048576G"),
        ("segment", "1K", "--segment: '1K' is not between 4K and 4G"),
        ("insecure", "maybe", "--insecure: 'maybe' is neither true nor false"),
        ("log_format", "xml", "--log-format: 'xml' is none of text, json"),
        ("heartbeat_s", "0s", "--heartbeat: '0s' is not between 50ms and 1h"),
    ],
)
def test_a_bad_flag_is_bad_usage_and_says_why(field: str, text: str, why: str) -> None:
    """The message names the flag, the text and the reason; exit 2, as every shell tool does."""
    assert refused(Settings, {field: (text,)}) == (Exit.USAGE, why)


@pytest.mark.parametrize(("field", "text"), [("heartbeat_s", "soon"), ("tz", "Mars/Olympus")])
def test_the_schedule_s_own_parsers_are_quoted(field: str, text: str) -> None:
    """Durations and zones are refused in the words that ADD uses for them."""
    status, message = refused(Settings, {field: (text,)})
    assert status == Exit.USAGE
    assert message.startswith("--heartbeat: " if field == "heartbeat_s" else "--tz: ")
    assert text in message


@pytest.mark.parametrize("text", ["any", "all", "two words", "x" * 65, "ümlaut"])
def test_a_worker_cannot_take_a_name_that_on_would_misread(text: str) -> None:
    """`on=any` and `on=all` have a meaning, and a name is a word of a line."""
    assert refused(WorkerSettings, {"name": (text,)})[0] == Exit.USAGE


@pytest.mark.parametrize(
    ("text", "expected"),
    [("db.example:1", ("db.example", 1)), ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)), ("unix:/a", Path("/a"))],
)
def test_a_worker_connects_to_an_address_or_a_socket(text: str, expected: object) -> None:
    """The local worker comes through a unix socket, everybody else over TCP."""
    assert config.load(WorkerSettings, {"connect": (text,)}).connect == (expected,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ws://cron.example:3000", WebAddress("cron.example", 3000, "/agents/ws", False)),
        ("wss://cron.example", WebAddress("cron.example", 443, "/agents/ws", True)),
        ("ws://[::1]/", WebAddress("::1", 80, "/agents/ws", False)),
        ("wss://[::1]:8443/cron/ws", WebAddress("::1", 8443, "/cron/ws", True)),
    ],
)
def test_a_worker_comes_in_by_websocket(text: str, expected: WebAddress) -> None:
    """Where a proxy lets nothing else through; the path is the one that the HTTP door has."""
    assert config.load(WorkerSettings, {"connect": (text,)}).connect == (expected,)


@pytest.mark.parametrize(
    "text", ["ws://", "wss:///x", "ws://a:70000", "ws://a:1/?x=1", "ws://a b", "http://a:1"]
)
def test_what_is_no_address_of_a_websocket_is_refused(text: str) -> None:
    """A worker that dialled somewhere else would look like one that finds no daemon."""
    status, why = refused(WorkerSettings, {"connect": (text,)})
    assert (status, why.partition(":")[0]) == (Exit.USAGE, "--connect")


def test_a_worker_that_was_told_of_certificates_does_not_speak_in_the_clear() -> None:
    """`ws://` and `--tls-ca` contradict each other; whoever wrote both believes that it is sealed."""
    flags = {"connect": ("ws://a:1",), "tls_ca": ("/ca.pem",)}
    why = "connect: ws://a:1/agents/ws speaks no TLS; with it, say wss://"
    assert refused(WorkerSettings, flags) == (Exit.CONFIG, why)
    assert config.load(WorkerSettings, flags | {"connect": ("wss://a:1",)}).tls_ca == Path("/ca.pem")


def test_a_bad_variable_is_bad_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd must tell it from bad usage, and the reader must know where to look."""
    monkeypatch.setenv("CRONFLOWD_SLOTS", "")
    assert refused(WorkerSettings, {}) == (Exit.CONFIG, "CRONFLOWD_SLOTS: it is empty")


def test_a_variable_that_only_looks_like_ours_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes sets this one for every pod next to a service called cronflowd."""
    monkeypatch.setenv("CRONFLOWD_PORT", "tcp://10.0.0.1:5050")
    assert config.load(Settings, {"tz": ("UTC",)}).tz == "UTC"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("lisen = 'x'", "lisen: there is no such setting; did you mean listen?"),
        ("config = 'x'", "config: there is no such setting"),
        ("check_config = true", "check_config: there is no such setting"),
        ("heartbeat_s = 3", "heartbeat_s: there is no such setting; did you mean heartbeat?"),
        ("[worker]\nslotz = 3", "worker.slotz: there is no such setting; did you mean slots?"),
        ("[wrkr]\nslots = 3", "wrkr: there is no such setting"),
        ("worker = 3", "worker is not a table"),
        ("max-tasks = 1\nmax_tasks = 2", "max_tasks: it is given twice"),
        ("max_tasks = [1]", "max_tasks: list is not what this setting takes"),
        ("max_tasks = 1.5", "max_tasks: '1.5' is not a whole number"),
        ("data = ''", "data: it is empty"),
        ("data = 2026-01-01", "data: date is not what this setting takes"),
        ("listen = [['a:1', ''], {}]", "listen: dict is not what this setting takes"),
    ],
)
def test_a_bad_file_is_refused_with_the_key(text: str, why: str, tmp_path: Path) -> None:
    """A misspelled key that did nothing would be found only when it is needed."""
    flags = write(tmp_path, text)
    assert refused(Settings, flags) == (Exit.CONFIG, f"{flags['config'][0]}: {why}")


def test_the_other_program_s_keys_are_read_too(tmp_path: Path) -> None:
    """A misspelled key of the daemon shows when the worker starts, and the other way round."""
    assert refused(WorkerSettings, write(tmp_path, "lisen = 'x'"))[0] == Exit.CONFIG


@pytest.mark.parametrize("content", [b"a = \n", b"a = 1\na = 2\n", b"\xff = 1\n", b"#" * (1 << 21)])
def test_what_is_no_toml_is_refused_with_the_file(content: bytes, tmp_path: Path) -> None:
    """Also for bytes that are no text, and for what is no configuration at all but a disk image."""
    file = tmp_path / "c.toml"
    file.write_bytes(content)
    status, message = refused(Settings, {"config": (str(file),)})
    assert (status, message.startswith(f"{file}: ")) == (Exit.CONFIG, True)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody named it, so it is meant; and the variable names a file as well as the flag."""
    monkeypatch.setenv("CRONFLOWD_CONFIG", str(tmp_path / "none"))
    assert refused(Settings, {}) == (Exit.CONFIG, f"{tmp_path}/none: No such file or directory")


def test_a_lease_shorter_than_a_heartbeat_is_refused() -> None:
    """Every run would be taken for lost, though each of the two settings is fine alone."""
    status, message = refused(Settings, {"lease_s": ("5s",)})
    assert (status, message.startswith("lease: 5 s is shorter")) == (Exit.CONFIG, True)


def test_a_reload_reads_the_file_again_under_the_same_flags(tmp_path: Path) -> None:
    """HUP: the file may have changed, the command line cannot have."""
    flags = write(tmp_path, "max_tasks = 1\nmax_clients = 1")
    settings = config.load(Settings, flags | {"max_clients": ("5",)})
    write(tmp_path, "max_tasks = 2\nmax_clients = 2")
    again = config.reload(settings)
    assert (settings.max_tasks, again.max_tasks, again.max_clients) == (1, 2, 5)


def test_relative_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They mean what they meant when they were typed, wherever the program goes."""
    monkeypatch.chdir(tmp_path)
    settings = config.load(Settings, {"data": ("var",)})
    assert (settings.data, settings.socket) == (tmp_path / "var", tmp_path / "var/control.sock")


def test_a_working_directory_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a terminal is still in a clone that was removed: it ended with a traceback."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(Fatal, match=r"--data: 'var' cannot be found from a working directory") as refused:
        config.load(Settings, {"data": ("var",)})
    assert refused.value.status == Exit.USAGE
    monkeypatch.chdir("/")


@pytest.mark.parametrize(
    ("state", "xdg", "expected"),
    [
        ("/var/lib/cronflowd", "/xdg", "/var/lib/cronflowd"),
        ("/var/lib/a:/var/lib/b", "/xdg", "/var/lib/a"),
        (None, "/xdg", "/xdg/cronflowd"),
        ("", "", "/home/x/.local/state/cronflowd"),
        (None, "relative", "/home/x/.local/state/cronflowd"),
    ],
)
def test_the_data_directory_is_where_systems_keep_state(
    state: str | None, xdg: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd's word first, then the XDG rules, which ask that a relative path be ignored."""
    monkeypatch.setenv("HOME", "/home/x")
    monkeypatch.setenv("XDG_STATE_HOME", xdg)
    if state is not None:
        monkeypatch.setenv("STATE_DIRECTORY", state)
    assert config.load(Settings, {}).data == Path(expected)


@pytest.mark.parametrize(
    ("variable", "link", "file", "expected"),
    [
        ("Asia/Tokyo", "Europe/Berlin", "Europe/Paris", "Asia/Tokyo"),
        (":Asia/Tokyo", None, None, "Asia/Tokyo"),
        ("UTC0", "Europe/Berlin", None, "UTC"),
        ("/usr/share/zoneinfo/Asia/Tokyo", None, None, "Asia/Tokyo"),
        ("", "Europe/Berlin", "Europe/Paris", "Europe/Berlin"),
        ("", None, "Europe/Paris\n", "Europe/Paris"),
        ("", "posix/Europe/Berlin", None, "Europe/Berlin"),
        ("", "../no/zone", "nor this", "UTC"),
        ("", None, None, "UTC"),
    ],
)
def test_the_machine_s_zone_is_what_its_own_cron_goes_by(
    variable: str,
    link: str | None,
    file: str | None,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A schedule moved over from crontab must not move by an hour."""
    monkeypatch.setenv("TZ", variable)
    if link:
        (tmp_path / "localtime").symlink_to(f"/usr/share/zoneinfo/{link}")
    if file:
        (tmp_path / "timezone").write_text(file, encoding="ascii")
    assert machine_zone(tmp_path) == expected


@pytest.mark.parametrize("told", ["", "Etc/UTC", "nothing"])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "America/New_York"])
def test_a_copied_localtime_is_the_zone_that_it_is_a_copy_of(
    zone: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container has a copy of the host's and its own /etc/timezone: UTC would be a wrong hour, untold."""
    (tmp_path / "data").write_bytes((files("tzdata") / "zoneinfo" / zone).read_bytes())
    (tmp_path / "localtime").symlink_to(tmp_path / "data")
    (tmp_path / "timezone").write_text(told, encoding="ascii")
    for variable in ("", f":{tmp_path}/localtime"):
        monkeypatch.setenv("TZ", variable)
        assert machine_zone(tmp_path) == zone
    (tmp_path / "timezone").write_text("Arctic/Longyearbyen", encoding="ascii")
    expected = {"Europe/Berlin": "Arctic/Longyearbyen"}  # which goes alike, so it may be meant
    assert machine_zone(tmp_path) == expected.get(zone, zone)
    (tmp_path / "data").write_bytes(b"no zone")
    with pytest.raises(Fatal, match="--tz"):
        machine_zone(tmp_path)


def test_a_rule_in_tz_is_refused_rather_than_taken_for_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """TZ=CET-1CEST is good for the C library, but names no zone; --tz settles it."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    status, message = refused(Settings, {})
    assert (status, "--tz" in message) == (Exit.CONFIG, True)
    assert config.load(Settings, {"tz": ("UTC",)}).tz == "UTC"


def test_an_address_is_written_as_it_is_read() -> None:
    """The ready line is read by scripts, and an IPv6 host keeps its brackets there."""
    assert format_address(("::1", 5050)) == "[::1]:5050"
    assert format_address(("127.0.0.1", 5050)) == "127.0.0.1:5050"
