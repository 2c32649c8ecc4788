"""What systemd and the daemon say to each other, and what systemd says of the units in contrib/."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from cronflowd.base.errors import Exit, Fatal
from cronflowd.cli import cli
from cronflowd.host import systemd
from cronflowd.host.config import Settings, WebSettings, WorkerSettings
from cronflowd.host.setting import format_address
from tests.lib.ports import free_ports
from tests.lib.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "contrib" / "systemd"
PROGRAM = "/usr/local/bin/cronflowd"

analyze = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
activate = pytest.mark.skipif(
    not shutil.which("systemd-socket-activate"), reason="systemd-socket-activate is not installed"
)


def test_a_program_that_cannot_begin_anew_ends() -> None:
    """Its package was removed meanwhile, say: a thread alone would end, and the rest go on as it was."""
    script = (
        "import sys, threading; from cronflowd.host import systemd; sys.executable = '/nowhere'\n"
        "thread = threading.Thread(target=systemd.begin_anew, args=({},)); thread.start(); thread.join()\n"
        "print('it goes on')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stdout) == (Exit.TRY_AGAIN, "")
    assert done.stderr == "cronflowd: it cannot begin anew: /nowhere: No such file or directory\n"


def test_a_program_that_begins_anew_has_what_a_shell_gave_it(tmp_path: Path) -> None:
    """A node that lost its lease found neither its settings nor its token any more, and ended."""
    script = tmp_path / "twice.py"
    script.write_text(
        "import sys; from pathlib import Path; from cronflowd.host import disk, secrets, systemd\n"
        "print(disk.read_small(sys.argv[1]), secrets.read_tokens(Path(sys.argv[2])), flush=True)\n"
        "if 'TWICE' not in systemd.os.environ: systemd.begin_anew({}, TWICE='1')\n"
    )
    command = f"exec {sys.executable} {script} <(echo a) <(echo b)"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        check=True,
        timeout=PATIENCE_S,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == b"b'a\\n' (b'b',)\n" * 2


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """systemd's end of NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(PATIENCE_S)
        yield receiver


# --- notify -------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_abstract", [False, True])
def test_a_message_arrives_whole(
    is_abstract: bool, manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd uses a path, containers often an abstract socket, which is written with an @."""
    name = f"{tmp_path}/notify"
    manager.bind("\0" + name if is_abstract else name)
    monkeypatch.setenv("NOTIFY_SOCKET", "@" + name if is_abstract else name)
    assert systemd.notify("READY=1\nSTATUS=3 tasks") is True
    assert manager.recv(4096) == b"READY=1\nSTATUS=3 tasks"


@pytest.mark.parametrize("address", ["", "vsock:2:1", "relative"])
def test_without_a_manager_nothing_is_said(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started from a shell, the daemon works the same."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert systemd.notify("READY=1") is False
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert systemd.notify("READY=1") is False


def test_a_manager_that_is_gone_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost notification is no reason to stop serving."""
    monkeypatch.setenv("NOTIFY_SOCKET", f"{tmp_path}/nobody")
    assert systemd.notify("WATCHDOG=1") is False


def test_a_manager_that_does_not_read_is_not_waited_for(
    manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dispatch loop feeds the watchdog, so a message that blocked would stop all schedules."""
    manager.bind(f"{tmp_path}/notify")
    monkeypatch.setenv("NOTIFY_SOCKET", f"{tmp_path}/notify")
    assert False in [systemd.notify("WATCHDOG=1") for _ in range(10_000)]


# --- watchdog -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        ("30000000", None, 30.0),
        ("500000", "ours", 0.5),
        ("30000000", "1", None),
        ("30000000", "", None),
        (None, None, None),
        ("0", None, None),
        ("soon", None, None),
    ],
)
def test_the_watchdog_s_interval_is_that_of_this_process(
    usec: str | None, pid: str | None, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child inherits the variables but is not watched; what it sent would keep a dead parent alive."""
    if usec is not None:
        monkeypatch.setenv("WATCHDOG_USEC", usec)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "ours" else pid)
    assert systemd.watchdog_interval_s() == expected


# --- sockets ------------------------------------------------------------------------------------


def hand_over(monkeypatch: pytest.MonkeyPatch, names: str, count: int, pid: int | None = None) -> None:
    monkeypatch.setenv("LISTEN_PID", str(pid or os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", str(count))
    monkeypatch.setenv("LISTEN_FDNAMES", names)


def test_without_systemd_nothing_is_inherited() -> None:
    """The usual start."""
    assert systemd.inherited() == {}


def test_sockets_meant_for_another_process_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell in between inherits the variables too; these descriptors are then somebody else's."""
    hand_over(monkeypatch, "control", 1, pid=1)
    assert systemd.inherited() == {}


@pytest.mark.parametrize(
    ("names", "count"), [("unknown", 1), ("control:metrics", 2), ("control", 2), ("", 1)]
)
def test_a_socket_without_a_known_name_is_refused(
    names: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guessed wrong, commands would be taken where workers report."""
    hand_over(monkeypatch, names, count)
    with pytest.raises(Fatal, match="FileDescriptorName") as caught:
        systemd.inherited()
    assert caught.value.status == Exit.CONFIG


REPORT_SOCKETS = """
import os, socket, sys
sys.path.insert(0, {root!r})
from cronflowd.host import systemd
from tests.lib.ports import free_ports
found = {{}}
for name, fds in systemd.inherited().items():
    for fd in fds:
        port = socket.socket(fileno=os.dup(fd)).getsockname()[1]
        found.setdefault(name, []).append((fd, port, os.get_inheritable(fd)))
left = sorted(name for name in os.environ if name.startswith("LISTEN_"))
print((found, left, systemd.inherited()), flush=True)
"""


@activate
def test_systemd_s_own_tool_hands_over_named_sockets(tmp_path: Path) -> None:
    """The real protocol: two names, three sockets, none of which a job may inherit or hear of."""
    script = tmp_path / "report.py"
    script.write_text(REPORT_SOCKETS.format(root=str(ROOT)), encoding="utf-8")
    ports = free_ports(3)
    command = ["systemd-socket-activate", "--fdname=control:control:workers"]
    command += [f"--listen=127.0.0.1:{port}" for port in ports]
    with subprocess.Popen(
        [*command, sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            knock(ports[0])
            assert process.stdout is not None
            said = process.stdout.readline()
        finally:
            process.send_signal(signal.SIGTERM)
    found, left, again = ast.literal_eval(said)
    assert found == {
        "control": [(3, ports[0], False), (4, ports[1], False)],
        "workers": [(5, ports[2], False)],
    }
    assert (left, again) == ([], {})


def knock(port: int) -> None:
    """The tool starts its program when somebody connects."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        else:
            return


@activate
@pytest.mark.real
def test_a_whole_life_under_systemd(manager: socket.socket, tmp_path: Path) -> None:
    """Sockets by name, ready, watchdog fed by the loop, a reload, TERM and goodbye, in that order."""
    manager.bind(f"{tmp_path}/notify")
    control, workers = free_ports(2)
    command = ["systemd-socket-activate", "--fdname=control:workers"]
    command += [f"--listen=127.0.0.1:{control}", f"--listen=127.0.0.1:{workers}"]
    command += ["-E", f"NOTIFY_SOCKET={tmp_path}/notify", "-E", "WATCHDOG_USEC=300000", "-E", "TZ=UTC"]
    command += ["-E", f"PYTHONPATH={ROOT}", "-E", f"STATE_DIRECTORY={tmp_path}/data"]
    command += [sys.executable, "-m", "cronflowd", "serve", "--local-worker", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path
    ) as process:
        try:
            knock(control)
            assert process.stdout is not None
            ready = process.stdout.readline()
            assert f"control=127.0.0.1:{control} workers=127.0.0.1:{workers} pid={process.pid}" in ready
            assert wait_message(manager, "READY=1")
            assert wait_message(manager, "WATCHDOG=1")
            assert wait_message(manager, "WATCHDOG=1")
            with socket.create_connection(("127.0.0.1", control), timeout=PATIENCE_S) as client:
                client.sendall(b"PING\nQUIT\n")
                assert client.makefile().read() == "PONG\nOK bye\n"
            process.send_signal(signal.SIGHUP)
            assert wait_message(manager, "RELOADING=1")
            assert wait_message(manager, "READY=1")
            process.send_signal(signal.SIGTERM)
            assert wait_message(manager, "STOPPING=1")
            assert process.wait(timeout=PATIENCE_S) == 0
        finally:
            process.kill()
    assert (tmp_path / "data" / "tasks.db").exists()


def wait_message(manager: socket.socket, wanted: str) -> bool:
    """Reads on until this is said; the socket's own time limit ends a wait in vain."""
    while wanted not in manager.recv(4096).decode().splitlines():
        pass
    return True


# --- the units ----------------------------------------------------------------------------------


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, but with a program that exists on every machine: the checks look for it."""
    for path in UNITS.rglob("*.*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8").replace(PROGRAM, "/bin/true")
            there = tmp_path / path.relative_to(UNITS)
            there.parent.mkdir(exist_ok=True)
            there.write_text(text, encoding="utf-8")
    return tmp_path


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@analyze
def test_systemd_finds_no_fault_with_the_units(units: Path) -> None:
    """A misspelled directive is only a warning in the journal, and the sandbox has a hole."""
    said = run("systemd-analyze", "verify", "--man=no", *map(str, sorted(units.glob("*.s*t*"))))
    # What the machine's own units have to answer for is none of our business.
    assert [line for line in said.splitlines() if "cronflowd" in line] == []


@analyze
@pytest.mark.parametrize(
    ("unit", "limit"),
    [("cronflowd.service", 1.5), ("cronflowd-web.service", 1.5), ("cronflowd-worker.service", 3.5)],
)
def test_the_services_are_exposed_little(unit: str, limit: float, units: Path) -> None:
    """The daemon runs nothing and needs next to nothing; jobs need more to be of use."""
    said = run("systemd-analyze", "security", "--offline=true", "--no-pager", str(units / unit))
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert exposure is not None, said
    assert float(exposure[1]) <= limit


def directives(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (UNITS / unit).read_text(encoding="utf-8").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            found.setdefault(name, []).append(value)
    return found


def test_no_job_answers_where_the_daemon_and_the_http_door_do() -> None:
    """The door shows its daemon an admin's token; a job had only to wait until that was started anew."""
    denied: set[int] = set()
    for rule in directives("cronflowd-worker.service")["SocketBindDeny"]:
        first, _, last = rule.removeprefix("tcp:").partition("-")
        denied |= {*range(int(first), int(last or first) + 1)}
    doors = (*Settings().listen, *Settings().listen_workers, *WebSettings().http)
    assert denied == {port for _, port in doors}


def test_the_daemon_s_unit_says_what_the_daemon_does() -> None:
    """Readiness, the watchdog and the state directory only work when both sides speak of them."""
    unit = directives("cronflowd.service")
    expected = {
        "Type": ["notify"],
        "NotifyAccess": ["main"],
        "StateDirectory": ["cronflowd"],
        "StateDirectoryMode": ["0700"],
        "ExecStart": [
            f"{PROGRAM} serve --local-worker 0 --require-auth --token-file ${{CREDENTIALS_DIRECTORY}}/token"
        ],
        "LoadCredential": ["token:/etc/cronflowd/token", "key:/etc/cronflowd/key"],
        "WatchdogSec": ["30"],
    }
    assert {name: unit[name] for name in expected} == expected


def test_the_http_door_s_unit_finds_the_daemon_and_stays_apart_from_it() -> None:
    """It holds an administrator's token: a job of any worker must reach neither its files nor its memory."""
    unit = directives("cronflowd-web.service")
    program, command, *words = unit["ExecStart"][0].split()
    assert (program, command) == (PROGRAM, "web")
    said = dict(zip(words[::2], words[1::2], strict=True))
    assert said == {
        "--control": format_address(Settings().listen[0]),
        "--worker-door": format_address(Settings().listen_workers[0]),
        "--token-file": "${CREDENTIALS_DIRECTORY}/token",
    }
    assert cli.parser().parse_args([command, *words])
    assert unit["LoadCredential"] == ["token:/etc/cronflowd/token"]
    assert unit["Type"] == ["notify"]
    states = [
        directives(f"{name}.service")["StateDirectory"]
        for name in ("cronflowd", "cronflowd-web", "cronflowd-worker")
    ]
    assert states == [["cronflowd"], ["cronflowd-web"], ["cronflowd-worker"]]
    assert unit["DynamicUser"] == ["yes"]
    assert "User" not in unit


@pytest.mark.parametrize("unit", ["cronflowd.service", "cronflowd-web.service"])
def test_only_what_may_mend_itself_is_started_again(unit: str) -> None:
    """A full disk or a busy directory passes; corrupt data, refused doors and typing errors do not."""
    stays = {int(word) for word in directives(unit)["RestartPreventExitStatus"][0].split()}
    corrupt = {Exit.CORRUPT} if unit == "cronflowd.service" else set()  # the HTTP door has none
    assert stays == {Exit.USAGE, Exit.CANNOT_CREATE, Exit.REFUSED, Exit.CONFIG} | corrupt


@pytest.mark.parametrize(
    ("unit", "name", "addresses"),
    [
        ("cronflowd.socket", "control", Settings().listen),
        ("cronflowd-workers.socket", "workers", Settings().listen_workers),
    ],
)
def test_the_socket_units_open_the_default_doors(
    unit: str, name: str, addresses: tuple[tuple[str, int], ...]
) -> None:
    """With or without them the ports are the same, and the names are those the daemon looks for."""
    found = directives(unit)
    assert found["FileDescriptorName"] == [name]
    assert name in systemd.SOCKET_NAMES
    ports = {address[1] for address in addresses}
    assert found["ListenStream"] == [f"{host}:{port}" for host in ("127.0.0.1", "[::1]") for port in ports]
    assert found["Service"] == ["cronflowd.service"]


def test_a_host_of_a_cluster_is_told_by_settings_that_there_are() -> None:
    """A misspelt variable is no error to anybody: the node would begin a cluster of its own."""
    text = (UNITS / "cronflowd.service.d" / "cluster.conf").read_text(encoding="utf-8")
    daemons, _, workers = text.partition("/etc/default/cronflowd-worker")
    here, _, rest = workers.partition("#   /etc/cronflowd\n")
    for names, settings in ((daemons + rest, Settings), (here, WorkerSettings)):
        found = set(re.findall("CRONFLOWD_([A-Z_]+)=", names))
        assert found
        assert found <= {field.name.upper() for field in attrs.fields(settings)}
    unit = directives("cronflowd.service.d/cluster.conf")
    handed = {credential.partition(":")[0] for credential in unit["LoadCredential"]}
    assert handed == set(re.findall(r"%d/(\S+)", text)) == {"ca.pem", "host.pem", "host.key"}
    assert int(unit["RestartPreventExitStatus"][0]) == Exit.BUG


@analyze
def test_the_sandbox_allows_the_calls_that_the_daemon_makes() -> None:
    """Calls that are filtered fail with EPERM, deep inside, and only on a real installation."""
    filters = directives("cronflowd.service")["SystemCallFilter"]
    allowed = system_calls("@system-service")
    for group in filters[1].removeprefix("~").split():
        allowed -= system_calls(group)
    needed = "timerfd_create timerfd_settime epoll_wait fdatasync fsync flock prlimit64 openat rename"
    needed += " renameat accept4 sendto recvfrom execve vfork clone wait4 kill pipe2 fallocate ftruncate"
    assert set(needed.split()) - allowed == set()


def system_calls(group: str) -> set[str]:
    """All calls of a group such as @system-service, which is partly made of other groups."""
    words = [line.strip() for line in run("systemd-analyze", "syscall-filter", group).splitlines()[1:]]
    calls = {word for word in words if re.fullmatch("[a-z0-9_]+", word)}
    return calls.union(*(system_calls(word) for word in words if word.startswith("@")))
