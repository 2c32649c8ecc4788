"""The man page is made from the same table as the flags, so it cannot tell of others.

`make golden` (CRONFLOWD_GOLDEN=1) writes contrib/cronflowd.1 anew.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cronflowd import __version__
from cronflowd.ask.commands import VERBS
from cronflowd.cli import cli
from cronflowd.host.config import ClientSettings, Common, Settings, WebSettings, WorkerSettings, table
from cronflowd.host.setting import Setting

PAGE = Path(__file__).parents[2] / "contrib" / "cronflowd.1"

HEAD = r"""\
.\" Made from the table of settings by tests/cli/test_man_page.py.
.TH CRONFLOWD 1 "" "cronflowd VERSION" "User Commands"
.SH NAME
cronflowd \- schedule with netcat, run on workers that dial in, lose nothing
.SH SYNOPSIS
.B cronflowd
.RB [ serve ]
.RI [ option \&.\|.\|.]
.br
.B cronflowd worker
.RI [ option \&.\|.\|.]
.br
.B cronflowd web
.RI [ option \&.\|.\|.]
.br
.B cronflowd check
.I DIR
.RB [ \-\-fix ]
.br
.B cronflowd restore
.RB [ \-\-data
.IR DIR ]
.RB [ \-\-force ]
.I FILE
.br
.B cronflowd init
.RB [ \-\-data
.IR DIR ]
.br
.B cronflowd key
.RB [ \-\-data
.IR DIR ]
.br
.B cronflowd certs
.I DIR NAME
.RI [ NAME \&.\|.\|.]
.br
.B cronflowd cluster leave
.RB [ \-\-data
.IR DIR ]
.B \-\-etcd
.I HOST:PORT
.br
.B cronflowd import
.RB [ \-\-system ]
.RB [ \-\-dry\-run ]
.RB [ \-\-replace ]
.IR FILE |\-
.br
.B cronflowd export
.RI [ REF \&.\|.\|.]
.br
.B cronflowd run
.RI [ option \&.\|.\|.]
.RI [ key = value \&.\|.\|.]
.B \-\-
.I COMMAND
.RI [ ARG \&.\|.\|.]
.br
.B cronflowd
.I verb
.RI [ option \&.\|.\|.]
.RI [ word \&.\|.\|.]
.br
.B cronflowd log
.IR REF | RUN
.RI [ \-N ]
.RB [ \-f ]
.br
.B cronflowd completion
.BR bash | zsh | fish
.br
.B cronflowd \-\-version
.SH DESCRIPTION
.B cronflowd serve
is the daemon. It takes lines of text on port 5050,
.RS
.nf

echo 'ADD * * * * * echo Hello every minute!' | nc localhost 5050
echo 'LIST' | nc localhost 5050

.fi
.RE
and has workers run the jobs. It executes nothing itself; with
.B \-\-local\-worker
it keeps a worker of its own running beside it. The lines are described in protocol.md.
.PP
.B cronflowd worker
runs jobs for a daemon, on this machine or any other. TERM lets it finish what it has;
a second TERM ends that too.
.PP
.B cronflowd web
is the HTTP door: pages, REST and metrics of a daemon, which
.B \-\-http
has the daemon start by itself.
.PP
.B cronflowd check
looks through the data directory of a daemon that is not running. With
.B \-\-fix
it sets aside what cannot be used; nothing is deleted.
.PP
.B cronflowd restore
makes a data directory of a file that BACKUP wrote, once all of it is found whole. With
.B \-\-force
what stands there is moved aside.
.PP
.B cronflowd init
makes the secret for
.B \-\-token\-file
and prints the name of the file.
.B cronflowd key
shows the public key of
.BR \-\-sign\-orders ,
.B cronflowd certs
makes a private authority and certificates in DIR, and
.B cronflowd cluster leave
ends a cluster and goes on with one directory alone.
.PP
.B cronflowd import
adds the lines of a crontab, and tells of each what became of it and what is not as in cron.
.B \-\-system
is the form of /etc/crontab, with a user in each line;
.B \-\-dry\-run
only looks;
.B \-\-replace
has a task of that name become this one. The file \- is standard input.
.B cronflowd export
prints tasks as a crontab.
.PP
.B cronflowd run
runs a command once, on a worker, shows what it writes, and ends with its exit status.
.BR \-\-name ,
.BR \-\-timeout ,
.B \-\-retry
and
.B \-\-on
are options of the task, as is each
.IR key = value .
INT and TERM cancel the run.
.PP
Any verb of the control port is a command in lower case, and
.B ls
is LIST. Rows go to standard output, as a table where that is a terminal; ERR is one line on standard error.
.B cronflowd log
shows what a run wrote, of a task its newest one;
.B \-f
goes on until it has ended.
.B cronflowd completion
prints what has a shell complete all of these.
.SH SETTINGS
Every flag is also a variable
.RB ( \-\-max\-tasks :
.BR CRONFLOWD_MAX_TASKS )
and a key of the TOML file that
.B \-\-config
names
.RB ( max_tasks ;
a worker's stand in its table
.BR [worker] ,
those of clients in
.BR [client] ).
Flag goes before variable, variable before file. Times are 250ms, 30s, 5m, 1h30m or seconds; sizes are bytes,
or 64K, 16M, 1G.
"""

FOOT = r"""\
.SH SIGNALS
TERM and INT end the daemon; running jobs go on in their workers.
HUP has it read configuration and zone data again.
.SH EXIT STATUS
.TS
l l.
0	ended by order
2	bad usage; of a verb: the line was refused
65	the data are damaged; import: a line was refused
69	the server cannot be reached
70	a bug
73	a file or a socket cannot be made
74	the disk failed
75	in use, busy, or full: try again; run: lost, or not taken
77	refused: open to others without a secret, or a wrong one
78	bad configuration
124	run: the time given by \-\-timeout was over
130	run: it was cancelled
.TE
.SH FILES
In the data directory:
.TP
.B tasks.db
the tasks, one JSON object a line; may be edited by hand and taken over with LOAD
.TP
.B *.tar
what BACKUP wrote; see
.B cronflowd restore
.TP
.B journal/
every change and every run
.TP
.B control.sock
the control port as a unix socket
.SH SEE ALSO
.BR crontab (5),
.BR nc (1),
protocol.md
"""


def page() -> str:
    head = HEAD.removeprefix("\\\n").replace("VERSION", __version__)
    foot = ".SH SIGNALS" + FOOT.removeprefix("\\\n").removeprefix(".SH SIGNALS")
    return (
        head
        + "".join(
            [
                *_section("THE DAEMON", Settings),
                *_section("A WORKER", WorkerSettings),
                *_section("THE HTTP DOOR", WebSettings),
                *_section("CLIENTS", ClientSettings),
                ".SH LINES ON PORT 5050\n",
                *(f".TP\n.B {_plain(verb.usage)}\n{_plain(verb.summary)}\n" for verb in VERBS.values()),
            ]
        )
        + foot
    )


def _section(title: str, kind: type[Common]) -> Iterator[str]:
    yield f".SH OPTIONS OF {title}\n"
    for row in table(kind):
        if row.help and not (kind is ClientSettings and row.field.startswith("log_")):
            yield from _option(row)


def _option(row: Setting) -> Iterator[str]:
    flag = row.flag.replace("-", "\\-")
    yield f'.TP\n.BI {flag} " {row.metavar}"\n' if row.metavar else f".TP\n.B {flag}\n"
    yield _plain(row.told) + "\n"


def _plain(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq").replace("…", "\\&...")


def test_the_man_page_tells_the_settings_there_are() -> None:
    """Nobody remembers to change a man page."""
    if os.environ.get("CRONFLOWD_GOLDEN") == "1":
        PAGE.write_text("'\\\" t\n" + page(), encoding="utf-8")
    assert "'\\\" t\n" + page() == PAGE.read_text(encoding="utf-8")


def test_every_command_for_people_stands_in_the_man_page() -> None:
    """Some came, and only those who read --help knew of them."""
    (commands,) = (
        each for each in cli.parser(with_verbs=False)._actions if isinstance(each, argparse._SubParsersAction)
    )
    names = {shown.dest for shown in commands._choices_actions}
    assert {name for name in names if f"cronflowd {name}" not in HEAD and f"[ {name} ]" not in HEAD} == set()


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_understands_the_man_page() -> None:
    """A page that warns is shown with holes in it."""
    done = subprocess.run(
        ["groff", "-t", "-man", "-ww", "-Tutf8", str(PAGE)], capture_output=True, check=False, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
