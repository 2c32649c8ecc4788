"""Records when Debian's cron itself runs its jobs, which schedules/test_cron_recording.py is held against.

    sudo python3 -m tests.lib.record_debian_cron [--output FILE] [SCENARIO ...]

Needs root (for namespaces), cc, libfaketime and apt-get; takes half a minute and writes
tests/data/debian_cron_recording.json. Not part of the test suite.

The binary is taken from its package, which is unpacked and not installed, and runs unchanged. It
sees a root directory of its own, in mount and PID namespaces of its own: the system's /usr read
only, and an /etc, /var and /run with nothing in them but what is written here. So no crontab of
this machine is ever read, and all that was started ends with the namespace.

Time is libfaketime's, which takes it at every call from a file's time of modification (a number
written into a file would go through mktime, and that guesses in repeated hours). It stands still
while cron works; only cron's own `sleep` moves it, by the seconds asked for. For that a few lines
of C stand in for `sleep`: they wait until all jobs have ended, tell the number here and wait for a
byte. Nothing depends on how fast this machine is, so a second recording is equal to the first.
Each job is `date`, under the same clock, so it is the job that says when it ran.

Between the jobs of a leap cron sleeps ten seconds, unless a job's end wakes it. In scenarios with
quick jobs that sleep ends at once, as it does for jobs that take no time; with slow ones it lasts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple, TextIO

RECORDING = Path(__file__).parents[1] / "data" / "debian_cron_recording.json"
PACING_S = 10  # what cron sleeps between the jobs of a leap

SLEEP_C = r"""
#include <errno.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

unsigned sleep(unsigned seconds)
{
    char go;
    ssize_t n;
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        ;
    dprintf(OUT, "%u\n", seconds);
    while ((n = read(IN, &go, 1)) < 0 && errno == EINTR)
        ;
    if (n == 0)
        _exit(0);
    return 0;
}
"""

# Becomes cron, as process 1 of its namespace; $1 is the new root directory, $2 the zone.
SETUP_SH = r"""
set -e
for dir in usr bin sbin lib lib64; do
    if [ -L "/$dir" ]; then
        ln -sf "$(readlink "/$dir")" "$1/$dir"
    elif [ -d "/$dir" ]; then
        mkdir -p "$1/$dir"
        mount --bind "/$dir" "$1/$dir"
        mount -o remount,bind,ro "$1/$dir"
    fi
done
mount --bind /dev/null "$1/dev/null"
exec chroot "$1" /usr/bin/env -i TZ="$2" LD_PRELOAD="/sleep.so $3" \
    FAKETIME=%x0 FAKETIME_FOLLOW_FILE=/clock FAKETIME_DONT_RESET=1 FAKETIME_NO_CACHE=1 \
    NO_FAKE_STAT=1 /cron -f -L 0
"""

NIGHT = """
30 2 * * *
0 2 * * *
0 3 * * *
59 1 * * *
0 0 * * *
5-5 2-2 * * *
15 1-4 * * *
0,30 2,3 * * *
0-59/20 0-5 * * *
30,*/50 2 * * *
17 2 29 * sun
*/20 0-4 * * *
@hourly
@daily
@weekly
@monthly
*/15 2 * * *
* 2 * * 0
*/25,30 3 * * *
0 */2 * * *
45 */3 * * *
""".strip().splitlines()
DAY = """
30 12 * * *
0 0,12 30,31 12 *
0 6-18/6 * * *
0 9 * * fri
0 9 31 * fri
0 9 */2 * fri
0 */6 * * *
*/30 12 * * *
0 * 30 12 *
""".strip().splitlines()
DAYS = """
0 3 */2 * *
0 3 */10 * 1
0 3 1-31/10 * 1
0 3 13,*/10 * 1
0 3 *,13 * 1
0 3 13 * fri
0 3 13 * */2
0 3 13 * 1-6/2
0 3 * * 0
0 3 * * 7
0 3 * * 5-7
0 3 * FEB-apr Mon
0 3 31 * *
0 3 29-31 2,3 *
30 4 1,15 */2 wed
30 2 */7 * *
30 2 * * sun
*/40 2 8 3 *
0 */8 8-14 * 0
7 * 8 3 mon
@midnight
@weekly
@monthly
""".strip().splitlines()
SET = """
0 11 * * *
15 11 * * *
32 10 * * *
0-59/4 10 * * *
10 9-15 * * *
*/20 * * * *
*/2 10 * * *
35 */1 * * *
0 */3 * * *
""".strip().splitlines()
CROWDED = """
0-59/6 2 * * *
57-59 2 * * *
1 3 * * *
* 2 * * *
*/10 * * * *
""".strip().splitlines()


class Scenario(NamedTuple):
    """What cron is shown; all times are UTC, and of a clock that nobody sets."""

    name: str
    tz: str
    begin: str
    end: str
    expressions: list[str]
    sets: tuple[tuple[str, int], ...] = ()  # at a moment the clock is moved by so many minutes
    slow: bool = False  # whether every job takes longer than cron's pause between two of them


def around(tz: str, change: str, expressions: list[str], before_h: int = 6, after_h: int = 27) -> Scenario:
    at = datetime.fromisoformat(change)
    begin, end = at - timedelta(hours=before_h, minutes=1), at + timedelta(hours=after_h)
    name = f"{tz} {change[:10]}"
    return Scenario(name, tz, f"{begin:%FT%H:%M}", f"{end:%FT%H:%M}", expressions)


def clock_set(minutes: int) -> Scenario:
    """At half a minute past 10:30 somebody moves the clock."""
    sets = (("2026-06-03T10:30:30", minutes),)
    return Scenario(f"clock set {minutes:+} min", "UTC", "2026-06-03T07:59", "2026-06-03T17:00", SET, sets)


SCENARIOS = [
    around("Europe/Paris", "2026-03-29T01:00", NIGHT),
    around("Europe/Paris", "2026-10-25T01:00", NIGHT),
    around("America/New_York", "2026-03-08T07:00", NIGHT),
    around("America/New_York", "2026-11-01T06:00", NIGHT),
    around("Australia/Lord_Howe", "2026-04-04T15:00", NIGHT),  # half an hour back
    around("Australia/Lord_Howe", "2026-10-03T15:30", NIGHT),  # half an hour forward
    around("Asia/Tehran", "2022-03-21T20:30", NIGHT),  # midnight itself
    around("Antarctica/Troll", "2026-03-29T01:00", NIGHT),  # two hours
    around("Antarctica/Troll", "2026-10-25T01:00", NIGHT),
    around("Antarctica/Casey", "2009-10-17T18:00", NIGHT),  # three hours forward
    around("Antarctica/Casey", "2010-03-04T15:00", NIGHT),  # three hours back
    around("Asia/Kathmandu", "1985-12-31T18:30", NIGHT),  # a quarter of an hour
    around("America/Havana", "2026-11-01T05:00", NIGHT),  # midnight twice
    around("Pacific/Chatham", "2026-09-26T14:00", NIGHT),  # at 02:45
    around("Africa/Casablanca", "2026-02-15T02:00", NIGHT),  # for Ramadan
    around("Asia/Kolkata", "2026-03-29T01:00", NIGHT, after_h=24),  # none
    around("Pacific/Apia", "2011-12-30T10:00", DAY, before_h=36, after_h=36),  # a day that never was
    around("Pacific/Kwajalein", "1993-08-21T12:00", DAY, before_h=36, after_h=36),  # another
    Scenario("days", "America/New_York", "2026-02-19T12:00", "2026-04-05T12:00", DAYS),
    *[clock_set(n) for n in (2, 4, 5, 45, 179, 180, 181, 300, -1, -2, -45, -179, -180, -181, -300)],
    Scenario(
        "clock set two hours ahead, and back the day after",
        "UTC", "2026-06-03T07:59", "2026-06-05T00:00", SET,
        (("2026-06-03T10:30:30", 120), ("2026-06-04T11:40:30", -120)),
    ),
    around("Europe/Paris", "2026-03-29T01:00", CROWDED, 2, 2)._replace(name="a crowded gap", slow=True),
]  # fmt: skip


class Machine(NamedTuple):
    """What every scenario needs, once."""

    work: Path
    cron: Path
    libfaketime: str


class Fire(NamedTuple):
    """A job that ran: when, by a clock that nobody sets, and the local time that it saw itself."""

    expression: str
    utc: int
    seen: str


def record(machine: Machine, scenario: Scenario) -> list[Fire]:
    """Runs one scenario; what is started here has ended when it returns."""
    root = make_root(machine, scenario)
    asked, tell = os.pipe()  # cron asks for sleep
    go, let_go = os.pipe()
    source = root / "sleep.c"
    source.write_text(SLEEP_C)
    subprocess.run(
        ["cc", "-shared", "-fPIC", f"-DOUT={tell}", f"-DIN={go}", "-o", root / "sleep.so", source], check=True
    )
    set_clock(root, seconds(scenario.begin))
    unshare = subprocess.Popen(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL",
         "sh", "-c", SETUP_SH, "sh", root, scenario.tz, machine.libfaketime],
        pass_fds=[tell, go], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(tell)
    os.close(go)
    try:
        with open(asked) as lines, open(root / "fires") as fires:
            return list(drive(scenario, root, lines, fires, let_go))
    finally:
        unshare.kill()
        unshare.wait()
        os.close(let_go)


def drive(scenario: Scenario, root: Path, lines: TextIO, fires: TextIO, let_go: int) -> Iterator[Fire]:
    """Lets cron sleep, and the clock go on by as much, until the scenario ends."""
    now, end = seconds(scenario.begin), seconds(scenario.end)
    sets = [(seconds(at), minutes * 60) for at, minutes in scenario.sets]
    reading = now
    while now < end:
        line = lines.readline()
        if not line:
            raise SystemExit("cron ended by itself")
        for fire in fires:
            number, seen = fire.split()
            assert reading == datetime.fromisoformat(seen).timestamp()
            yield Fire(scenario.expressions[int(number)], now, seen)
        if scenario.slow or int(line) != PACING_S:
            now += int(line)
        reading = now + sum(by for at, by in sets if at <= now)
        set_clock(root, reading)
        os.write(let_go, b".")


def set_clock(root: Path, reading: int) -> None:
    """What cron and its jobs take for the time."""
    os.utime(root / "clock", (reading, reading))


def make_root(machine: Machine, scenario: Scenario) -> Path:
    """A root directory with nothing of this machine's in it."""
    root = Path(tempfile.mkdtemp(dir=machine.work))
    for name in ("dev", "etc/cron.d", "etc/pam.d", "root", "run", "tmp", "var/spool/cron/crontabs"):
        (root / name).mkdir(parents=True)
    (root / "dev/null").touch()
    (root / "var/run").symlink_to("/run")
    shutil.copy(machine.cron, root / "cron")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    permit = "".join(f"{kind} required pam_permit.so\n" for kind in ("auth", "account", "session"))
    for service in ("cron", "other"):
        (root / "etc/pam.d" / service).write_text(permit)
    lines = [
        "SHELL=/bin/sh", 'MAILTO=""', f"TZ={scenario.tz}", f"LD_PRELOAD={machine.libfaketime}",
        "FAKETIME=%x0", "FAKETIME_FOLLOW_FILE=/clock", "FAKETIME_DONT_RESET=1", "FAKETIME_NO_CACHE=1",
    ]  # fmt: skip
    for number, expression in enumerate(scenario.expressions):
        lines.append(f"{expression} root exec date +'{number} \\%FT\\%T\\%:z' >>/fires")
    (root / "etc/crontab").write_text("\n".join(lines) + "\n")
    (root / "clock").touch()
    (root / "fires").touch()
    return root


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def entry(scenario: Scenario, fires: list[Fire]) -> dict[str, object]:
    """A scenario as it stands in the recording."""
    found: dict[str, list[str]] = {expression: [] for expression in scenario.expressions}
    for fire in fires:
        wall = datetime.fromisoformat(fire.seen).replace(tzinfo=UTC)
        ahead = wall - datetime.fromtimestamp(fire.utc, UTC)
        found[fire.expression].append(wall.replace(tzinfo=timezone(ahead)).isoformat())
    return {
        "name": scenario.name,
        "tz": scenario.tz,
        "begin": f"{scenario.begin}:00Z",
        "end": f"{scenario.end}:00Z",
        "sets": [{"at": f"{at}Z", "by_min": minutes} for at, minutes in scenario.sets],
        "jobs": "slow" if scenario.slow else "quick",
        "fires": {expression: " ".join(times) for expression, times in found.items()},
    }


ABOUT = """\
When Debian's cron itself ran its jobs, under libfaketime; written by tests/lib/record_debian_cron.py, which \
tells how. Per expression, each run: the local time that the job saw, and how far that was ahead of UTC by \
a clock that nobody sets. "sets": at that instant the clock was moved by so many minutes. "jobs": slow ones \
take longer than the ten seconds that cron waits between the jobs of a leap, quick ones take no time. What \
is due at "begin" itself cron does not run."""


def unpack_cron(work: Path) -> Path:
    subprocess.run(
        ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", "cron"], cwd=work, check=True
    )
    (package,) = work.glob("cron_*.deb")
    subprocess.run(["dpkg", "-x", package, work / "package"], check=True)
    return work / "package/usr/sbin/cron"


def version(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description="Record when Debian's cron runs its jobs.")
    parser.add_argument("--output", type=Path, default=RECORDING)
    parser.add_argument("scenario", nargs="*", help="part of a scenario's name (all)")
    args = parser.parse_args()
    chosen = [
        scenario
        for scenario in SCENARIOS
        if not args.scenario or any(part in scenario.name for part in args.scenario)
    ]
    (libfaketime,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    with tempfile.TemporaryDirectory(prefix="record-cron-") as name:
        work = Path(name)
        work.chmod(0o755)
        cron = unpack_cron(work)
        (package,) = work.glob("cron_*.deb")
        recording: dict[str, object] = {
            "about": ABOUT,
            "cron": version("dpkg-deb", "-f", package, "Version"),
            "libfaketime": version("dpkg-query", "-Wf", "${Version}", "libfaketime"),
            "tzdata": version("dpkg-query", "-Wf", "${Version}", "tzdata"),
        }
        entries = []
        for scenario in chosen:
            begin = time.monotonic()
            fires = record(Machine(work, cron, str(libfaketime)), scenario)
            print(f"{scenario.name}: {len(fires)} runs, {time.monotonic() - begin:.1f} s", flush=True)
            entries.append(entry(scenario, fires))
    args.output.parent.mkdir(exist_ok=True)
    args.output.write_text(json.dumps({**recording, "scenarios": entries}, indent=1) + "\n")


if __name__ == "__main__":
    main()
