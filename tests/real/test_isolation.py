"""The shipped set-up, played without systemd: what a job finds of the daemon, its keys and its doors."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.test_systemd import PROGRAM, directives
from tests.real.running import PATIENCE_S, READY, ROOT, wait_until

pytestmark = pytest.mark.real
DAEMON, WORKER = "61001", "61002"  # as DynamicUser= would number them
PROBE = """
import ctypes, json, os, socket, sys
paths, files, pids, unix, control, workers = json.loads(sys.argv[1])
got = []
def tries(what, attempt):
    try:
        if attempt():
            got.append(what)
    except OSError:
        pass
def talk(family, address, line):
    with socket.socket(family) as peer:
        peer.settimeout(10)
        peer.connect(address)
        peer.sendall(line)
        return not peer.recv(4096).startswith(b"ERR ")
for path in paths:
    tries(path, lambda: os.listdir(path))
for path in files:
    tries(path, lambda: open(path, "rb").read(1))
for pid in pids:
    for name in ("environ", "maps"):
        tries(f"{name} of {pid}", lambda: open(f"/proc/{pid}/{name}", "rb").read(1))
    tries(f"mem of {pid}", lambda: open(f"/proc/{pid}/mem", "rb"))
    tries(f"input of {pid}", lambda: open(f"/proc/{pid}/fd/0", "rb"))
    if os.getuid():
        tries(f"ptrace of {pid}", lambda: ctypes.CDLL(None).ptrace(16, int(pid), 0, 0) == 0)
for path in unix:
    tries(path, lambda: talk(socket.AF_UNIX, path, b"LIST\\n"))
tries("orders", lambda: talk(socket.AF_INET, ("127.0.0.1", control), b"ADD * * * * * x\\n"))
hello = b"HELLO name=local slots=1\\n"
tries("a worker's place", lambda: talk(socket.AF_INET, ("127.0.0.1", workers), hello))
print(json.dumps(got))
print(json.dumps(sorted(os.environ.values())))
"""


def become(user: str, *command: str) -> list[str]:
    bare = [
        "setpriv",
        "--reuid",
        user,
        "--regid",
        user,
        "--clear-groups",
        "--no-new-privs",
        "--bounding-set=-all",
    ]
    return [*bare, "--inh-caps=-all", "--", *command]


def is_possible() -> bool:
    if os.geteuid() or not shutil.which("setpriv"):
        return False
    tried = subprocess.run(become(WORKER, sys.executable, "-c", "import cronflowd"), cwd=ROOT, check=False)
    return tried.returncode == 0


def is_for_all(python: str) -> bool:
    """Whether a job can start it: setpriv itself still has root's ways to a file."""
    command = become(WORKER, "/bin/sh", "-c", f"exec {python} -c pass")
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def command_of(unit: str) -> list[str]:
    """What the unit starts, with this program in the place of the installed one."""
    return [
        sys.executable,
        "-m",
        "cronflowd",
        *directives(unit)["ExecStart"][0].removeprefix(PROGRAM).split(),
    ]


class Shipped:
    """Root's files in `etc`, what systemd hands out, and the two services as their users."""

    def __init__(self, place: Path) -> None:
        self.etc, self.given = place / "etc", place / "credentials"
        self.data, self.spool = place / "daemon", place / "worker"
        self.log = place / "log"
        for directory, user in ((self.given, DAEMON), (self.data, DAEMON), (self.spool, WORKER)):
            directory.mkdir(mode=0o700)
            os.chown(directory, int(user), int(user))
        self.run("init", "--data", str(self.etc))
        self.token = (self.etc / "token").read_text().strip()
        for credential in directives("cronflowd.service")["LoadCredential"]:
            name, _, source = credential.partition(":")
            copy = self.given / name
            copy.write_bytes((self.etc / Path(source).name).read_bytes())
            copy.chmod(0o400)
            os.chown(copy, int(DAEMON), int(DAEMON))
        self.started: list[subprocess.Popen[str]] = []
        self.control = self.workers = 0

    def run(self, *words: str) -> str:
        command = [sys.executable, "-m", "cronflowd", *words]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert ran.returncode == 0, ran.stderr + (self.log.read_text() if self.log.exists() else "")
        return ran.stdout

    def start(self, user: str, command: list[str], stdin: int, **variables: str) -> subprocess.Popen[str]:
        with self.log.open("a") as log:
            self.started.append(subprocess.Popen(
                become(user, *command), stdin=stdin, stdout=subprocess.PIPE, stderr=log,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables},
                text=True, umask=0o077, cwd="/",
            ))  # fmt: skip
        return self.started[-1]

    def start_daemon(self) -> None:
        command = [
            word.replace("${CREDENTIALS_DIRECTORY}", str(self.given))
            for word in command_of("cronflowd.service")
        ]
        anywhere = dict.fromkeys(("CRONFLOWD_LISTEN", "CRONFLOWD_LISTEN_WORKERS"), "127.0.0.1:0")
        process = self.start(
            DAEMON, command, subprocess.DEVNULL,
            STATE_DIRECTORY=str(self.data), CREDENTIALS_DIRECTORY=str(self.given), **anywhere,
        )  # fmt: skip
        assert process.stdout
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE_S)
        match = READY.fullmatch(process.stdout.readline() if ready else "")
        assert match, self.log.read_text()
        self.control, self.workers = int(match[1]), int(match[2])

    def start_worker(self) -> None:
        """With a token that root made, as the unit tells it."""
        words = ["add", "name=local", "role=worker", "worker=local"]
        server = ["--server", f"127.0.0.1:{self.control}", "--token-file", str(self.etc / "token")]
        source = self.etc / Path(directives("cronflowd-worker.service")["StandardInput"][0]).name
        source.touch(0o600)
        source.write_text(self.run("token", *server, *words).split("\t")[1])
        name = directives("cronflowd-worker.service")["Environment"]
        variables = dict(each.split("=", 1) for each in name if each.startswith("CRONFLOWD_"))
        with source.open() as stdin:
            self.start(
                WORKER, command_of("cronflowd-worker.service"), stdin.fileno(),
                STATE_DIRECTORY=str(self.spool), HOME=str(self.spool),
                CRONFLOWD_CONNECT=f"127.0.0.1:{self.workers}", **variables,
            )  # fmt: skip
        wait_until(lambda: "local\tready" in self.ask("WORKERS"))

    def ask(self, *lines: str) -> str:
        said = "\n".join([f"AUTH {self.token}", *lines, "QUIT", ""])
        with socket.create_connection(("127.0.0.1", self.control), timeout=PATIENCE_S) as client:
            client.sendall(said.encode())
            return b"".join(iter(lambda: client.recv(65_536), b"")).decode()

    def stop(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
            assert process.stdout
            process.stdout.close()


@pytest.fixture
def shipped() -> Iterator[Shipped]:
    if not is_possible():
        pytest.skip("nobody here can become another user who can start this Python")
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        found = Shipped(Path(place))
        try:
            found.start_daemon()
            found.start_worker()
            yield found
        finally:
            found.stop()


def test_a_job_of_the_shipped_set_up_finds_no_way_to_give_orders(shipped: Shipped) -> None:
    """Whoever may add a task would otherwise be the administrator after its first run."""
    daemon, worker = (process.pid for process in shipped.started)
    shipped.ask("ADD @hourly x", "SAVE")
    journal = next(path for path in shipped.data.rglob("*") if path.is_file() and path.suffix != ".db")
    files = [shipped.data / "tasks.db", journal, *shipped.etc.iterdir(), *shipped.given.iterdir()]
    assert len(files) == 7
    probe = shipped.etc.parent / "probe.py"
    probe.write_text(PROBE)
    asked = json.dumps([
        list(map(str, (shipped.data, shipped.etc, shipped.given))), list(map(str, files)), [daemon, worker],
        [str(shipped.data / name) for name in ("control.sock", "workers.sock")],
        shipped.control, shipped.workers,
    ])  # fmt: skip
    by_root = subprocess.run([sys.executable, str(probe), asked], capture_output=True, text=True, check=True)
    assert len(json.loads(by_root.stdout.splitlines()[0])) >= 3 + 7 + 2 * 3, "the probe finds what there is"
    python = next((each for each in (sys.executable, "/usr/bin/python3") if is_for_all(each)), None)
    if python is None:
        pytest.skip("no Python here is anybody's to start")
    shipped.ask(f"NOW type=script {python} {probe} '{asked}'")
    wait_until(lambda: "OK 2" in shipped.ask("LOG 1"))
    got, values = (json.loads(row.split("\t", 1)[1]) for row in shipped.ask("LOG 1").splitlines()[1:3])
    assert got == []
    assert not any(str(shipped.given) in value or shipped.token in value for value in values)


def test_nothing_secret_stands_where_a_user_of_the_machine_reads(shipped: Shipped) -> None:
    """`ps`, the variables of jobs, core files: places that are read by whoever comes by."""
    tokens = [
        shipped.token,
        (shipped.etc / "worker-token").read_text(),
        (shipped.etc / "key").read_text().strip(),
    ]
    shipped.ask("NOW sleep 30")
    wait_until(lambda: "\trunning\t" in shipped.ask("RUNS"))
    seen = b""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            user = process.stat().st_uid
            seen += (process / "cmdline").read_bytes()
            if user == int(WORKER):
                seen += (process / "environ").read_bytes()
        except OSError:
            continue  # it has ended
    assert not [token for token in tokens if token.encode() in seen]
    # What may be dumped belongs to its user; of these two, and of no job, it is root's.
    owners = {process.pid: Path(f"/proc/{process.pid}/environ").stat().st_uid for process in shipped.started}
    assert set(owners.values()) == {0}
    assert not any(token in shipped.log.read_text() for token in tokens)
