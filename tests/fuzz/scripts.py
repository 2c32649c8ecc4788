"""What strangers, clients and workers may say, made from the tables of verbs and options and then spoiled.

A script is a list of steps, and a step one line of text, so that what was found can be read, kept
in `corpus/` and edited by hand:

    open              nobody has to say who he is (else everybody has to), before anything else
    C viewer PING\\n   a client of this role sends these bytes: `\\n`, `\\xff` as Python writes them
    w w1 BEAT\\n       a worker of this name does
    X viewer          it is cut off; the next step of it is a new connection
    T 30              so many seconds pass
    D                 the daemon is killed and started again
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from random import Random
from typing import NamedTuple

from cronflowd.ask.commands import VERBS
from cronflowd.ask.parsers import RUN_STATES, TASK_STATES
from cronflowd.tasks.kinds import TYPES
from cronflowd.tasks.options import RULES

ROLES = ("viewer", "user", "operator", "admin")
CLIENTS = ("stranger", "somebody", *ROLES)  # the second is a user of the machine, on the unix socket
WORKERS = ("w1", "w2", "nobody")  # the last one has no token, the others one for their name
MOST_STEPS = 40


class Step(NamedTuple):
    """Who does what."""

    kind: str
    who: str = ""
    data: bytes = b""


def format_step(step: Step) -> str:
    text = step.data.decode("latin-1").encode("unicode_escape").decode()
    return " ".join(filter(None, (step.kind, step.who, text)))


def parse_step(line: str) -> Step:
    kind, _, rest = line.partition(" ")
    who, _, text = rest.partition(" ")
    return Step(kind, who, text.encode("latin-1").decode("unicode_escape").encode("latin-1"))


# --- words ----------------------------------------------------------------------------------------

NAMES = ["a", "b", "c", "task_1", "t1", "local", "a.b-c_d", "w1", "w2", "viewer", "user", "admin"]
ODD = [
    "", "-1", "0", "00", "1e9", "99999999999999999999", "9" * 400, "nan", "*", "a*", "[", "[!", "%s%n",
    "../../etc/passwd", "/", ".", "..", "a b", '"', '"a', '""', "\\", '"\\"', "\u202e", "\ud7ff", "ß", "İ",
    "\u0660\u0661", "x" * 300, "x" * 70_000, "{{secret:a}}", "{{secret:", "secret:a", "secret:", "=", "a=b",
    "all", "true", "null", "\u2028", "\x1b[2J", "\x00", "\t", "\r", "@1", "@reboot", "{", "{}", "[" * 5000,
]  # fmt: skip
TIMES = [
    "1s", "90s", "5m", "1h", "2d", "0s", "1w", "1000000d", "-5m", "2030-01-01T12:00:00Z", "2030-02-30",
    '"2030-01-01 12:05"', '"in 10 minutes"', "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "now",
    "today", '"tomorrow at 9"', '"last friday"', "1.5h", "1h30m",
]  # fmt: skip
SCHEDULES = [
    "* * * * *", "*/5 9-17 * * 1-5", "0 0 30 2 *", "0 18 L * *", "0 9 * * 5#2", "@hourly", "@every 1s",
    "@every 90s", "@at 2030-01-01T12:01:00Z", "@after", "@on e", "@reboot", '"every 5 minutes"',
    '"* * * * * */10"', '"daily at 3 AM"', "1-59/61 * * * *", "60 * * * *", "0 0 * * 8", "* * * *",
    ",".join(["0-59"] * 300) + " * * * *", "@every 0.0001s", "@yearly", "0 0 1W * *", '"every blue moon"',
]  # fmt: skip
JSON = [
    '{"schedule":"* * * * *","command":"x"}', '{"jobName":"a","schedule":"@hourly","command":"x"}',
    '{"id":1,"jobName":"b","schedule":"* * * * *","command":"x","timeZone":"UTC"}', "{}", "[]", "{",
    '{"schedule":1,"command":[]}', '{"a":' * 200 + "1" + "}" * 200,
    '{"schedule":"* * * * *","command":"\\ud800"}',
    '{"payload":{"a":NaN}}', '{"schedule":"@every 1s","command":"x","env":{"A":1e999}}',
]  # fmt: skip
COMMANDS = [
    "true",
    "echo hi",
    "sleep 1",
    "GET http://h/",
    "a@b.c",
    "2 + 3",
    "9**9**9",
    "x" * 60_001,
    "(" * 400,
]
ZONES = ["UTC", "Europe/Paris", "Etc/GMT+12", "../UTC", "Nowhere/Land", "Asia/Kathmandu"]
RUNS = ["1", "2", "3", "4", "5", "12", "999999"]
WORDS: dict[str, list[str]] = {
    "REF": [*NAMES, "1", "2", "3", "4", "tag=t", "name=*"], "STATE": [*RUN_STATES, *TASK_STATES],
    "TAG": ["t", "u"], "NAME": NAMES, "GLOB": ["*", "a*", "[ab]", "w*", "[" * 50], "OWNER": [*ROLES],
    "N": ["0", "1", "2", "5", "100", "1000", "1000000"], "TIME": TIMES, "DURATION": TIMES, "ZONE": ZONES,
    "WORKER": ["w1", "w2", "local"], "RUN": RUNS, "FILE": ["tasks.db", "x.db", "../x.db", "a.tar", "journal"],
    "LINE": ["* * * * * x", "@daily y", "A=1", "MAILTO=a@b.c", "5 4 * * sun root z"], "EVENT": ["e", "f"],
    "SCHEDULE": SCHEDULES, "COMMAND": COMMANDS, "TEXT": ["hello", '"a b"'], "STATUS": ["0", "1", "255"],
    "TARGET": ["mail:a@b.c", "http://127.0.0.1:1/", "shell:x", "file:///etc/passwd"], "ROLE": list(ROLES),
    "TOKEN": ["file-token", "token-viewer", "token-admin", "secret", "f" * 64], "USER": list(ROLES),
    "PASSWORD": ["password-user", "password-admin", "wrong"], "WORD": ["password-new", "short"],
    "ADDRESS": ["a@b.c"], "ID": ["1", "2", "9"], "REV": ["1", "2"], "@REV": ["@1", "@2", "@0"],
    "VALUE": ["v", "secret value"], "DIRECTORY": ["/usr/share/zoneinfo", "/", "."], "VERB": list(VERBS),
    "OPTION": list(RULES), "TYPE": list(TYPES), "{JSON}": JSON, "NAME=VALUE": ["x=1"],
}  # fmt: skip
OPTIONS: dict[str, list[str]] = {
    "retry": ["fixed:3:1s", "exp:5:1s:300s", "exp:3:5s:x5", "none", "fixed:1000:0s", "fixed:9999:1s"],
    "overlap": ["skip", "queue1", "queue", "allow", "replace"], "catchup": ["once", "all", "skip"],
    "lost": ["fail", "rerun"], "prio": ["high", "low", "medium"], "on": ["all", "w1", "w2", "label:k=v"],
    "skip": ["holidays:FR", "file:days", "file:../x", "holidays:XX"], "keep": ["50,30d,10M", "0", "1,1s,1k"],
    "after": ["a", "b", "a,b", "c", "a,a", ",".join("abc" * 60)], "type": list(TYPES), "tz": ZONES,
    "payload": JSON, "notify": WORDS["TARGET"], "count": WORDS["N"],
    "tags": ["t", "t,u", ",".join(["t"] * 40)],
    "owner": list(ROLES), "from": ["a", "tpl"], "paused": ["yes", "no"], "replace": ["yes", "no"],
    "timeout": TIMES, "grace": TIMES, "jitter": TIMES, "spread": TIMES, "start": TIMES, "end": TIMES,
    "env.A": ["1", "secret:a", "{{secret:a}}"], "header.X": ["1", "{{secret:a}}"], "name": NAMES,
}  # fmt: skip
GREETINGS = [
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\nCLEAR all\r\n", b"POST / HTTP/1.0\n\nADD * * * * * x\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\xff\xfd\x01\xff\xfb\x1f\xff\xfa\x18\x00xterm\xff\xf0",
    b"\xff\xfa" + b"A" * 9000, b"\xff" * 5000, b"SSH-2.0-x\r\n", b"\x00" * 3000, b"\x80\x02\x01\x03",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", b"*1\r\n$4\r\nPING\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"#!/bin/sh\nclear\nrun a\n", b"\n" * 3000, b"# \n" * 2000, b"\xef\xbb\xbfPING\n", b"\xfe\xffP\x00",
]  # fmt: skip


_TRANSCRIPTS = Path(__file__).parents[1] / "transcripts"
_TEXT = "".join(path.read_text() for path in sorted(_TRANSCRIPTS.iterdir()))
SAID = {who: re.findall(rf"^{who}(?: [^:]*)?: (.+)$", _TEXT, re.MULTILINE) for who in "Cw"}


def word(rng: Random, kind: str) -> str:
    """What may stand in a place of this kind; now and then something else."""
    if rng.random() < 0.06:
        return rng.choice(ODD)
    return rng.choice(WORDS.get(kind, NAMES))


def quoted(rng: Random, text: str) -> str:
    return (
        text
        if rng.random() < 0.1 or not re.search(r"[ \t\"]", text)
        else '"' + text.replace('"', '\\"') + '"'
    )


def option(rng: Random) -> str:
    """`key=value`, mostly a key that there is."""
    key = rng.choice([*RULES, *OPTIONS, *OPTIONS])
    known = OPTIONS.get(key) or rng.choice([TIMES, NAMES, WORDS["N"], JSON])
    return f"{key}={quoted(rng, rng.choice(ODD) if rng.random() < 0.08 else rng.choice(known))}"


def _words(rng: Random, usage: str) -> list[str]:
    """One of the ways of a usage, with words in its places."""
    found: list[str] = []
    for optional, plain in re.findall(r"\[([^]]*)\]|(\S+)", usage):
        if optional and rng.random() < 0.6:
            continue
        for part in (optional or plain).split(" ") * (1 + (optional.endswith("…") and rng.randrange(3))):
            if part == "…":
                continue
            part = rng.choice(part.split("|"))
            key, equals, kind = part.replace('"', "").rpartition("=")
            if part == "key=value" or (key == "key" and equals):
                found += [option(rng) for _ in range(rng.randrange(4))]
            elif equals:
                found.append(f"{key}={quoted(rng, word(rng, kind))}")
            elif part.strip('"…') == "SCHEDULE" and '"' in part:
                found.append('"' + word(rng, "SCHEDULE").strip('"') + '"')
            else:
                found.append(part if part.islower() or part.startswith("--") else word(rng, part.strip("…")))
    return found


def order(rng: Random) -> str:
    """A line that one verb might take, or that stands in a transcript."""
    if rng.random() < 0.15:
        return rng.choice(SAID["C"])
    verb = rng.choice(("ADD", "ADD", "ADD", "NOW", "RUN", "SET", *VERBS))
    if verb == "ADD" and rng.random() < 0.15:
        return f"ADD {word(rng, '{JSON}')}"
    rest = VERBS[verb].usage.partition(" ")[2]
    if verb in ("USER", "TOKEN", "SECRET", "TEMPLATE"):  # ways with words of their own
        ways = re.split(r"\|(?=[A-Z]+(?: |$))", VERBS[verb].usage.partition(" ")[2])
        head, _, rest = rng.choice(ways).partition(" ")
        return " ".join([verb, head, *_words(rng, rest)])
    line = " ".join([verb, *_words(rng, rest)])
    return line.lower() if rng.random() < 0.03 else line


def report(rng: Random) -> str:
    """What a worker may say, of its own runs and of others'."""
    if rng.random() < 0.1:
        return rng.choice(SAID["w"])
    run, attempt = rng.choice(RUNS), rng.choice(("1", "1", "1", "2", "0", "9" * 15, "x"))
    return rng.choice((
        f"STARTED {run} {attempt}", f"STARTED {run} {attempt}",
        f"DONE {run} {attempt} {rng.choice(('0', '0', '1', '-9', '255', '9' * 15, 'x', ''))}",
        f"DONE {run} {attempt} 0 why={quoted(rng, word(rng, 'TEXT'))}",
        f"OUT {run} {rng.choice('0123')} {word(rng, 'TEXT')}", f"OUT {run} 1", "BEAT", "BYE",
        f"BEAT now={rng.choice(TIMES)} rtt={word(rng, 'N')}", f"REFUSED {run} {attempt} no", "PROVE ff",
        f"REFUSED {run} {attempt} altered held=yes why=x",
        f"HELD {run}:{attempt}", f"RUN {run} 1 type=shell :x", f"KILL {run} {attempt}",
        f"ACK {run} {attempt}",
    ))  # fmt: skip


def hello(rng: Random, name: str) -> str:
    """How a worker comes in, mostly as itself."""
    word_of = "wrong" if name == "nobody" else f"token-{name}"
    if rng.random() < 0.1:
        name = rng.choice(("w1", "w2", rng.choice(ODD)))
    line = f"HELLO name={quoted(rng, name)} slots={rng.choice(('1', '4', '10000', '0', 'x'))}"
    key = hashlib.sha256(hashlib.sha256(word_of.encode()).hexdigest().encode()).hexdigest()[:16]
    proof = f" key={key} nonce={rng.randrange(1 << 128):032x}"  # the arena answers the challenge
    line += rng.choice(("", " nonce=0f", f" token={word_of}", f" token={word_of}", proof, proof))
    for more in (
        "can=shell,sleep,echo,http,calculate", "labels=k=v", "running=1:1,2:1", "running=1:9,7:1", "held=all",
        "instance=i", "more=1", "labels=" + "k=v," * 100, "can=" + "x," * 300,
    ):  # fmt: skip
        if rng.random() < 0.2:
            line += f" {more}"
    return line


def spoil(rng: Random, data: bytes) -> bytes:
    """The same with something wrong."""
    at = rng.randrange(len(data) + 1)
    end = rng.randrange(at, len(data) + 1)
    return rng.choice((
        data[:at] + bytes([rng.randrange(256)]) + data[at:], data[:at] + data[end:], data[:at],
        data[:end] + data[at:], data[:at] + rng.choice(ODD).encode() + data[at:], data + data,
        data.replace(b" ", rng.choice((b"\t", b"  ", b"\xc2\xa0", b"\x0b"))), data.replace(b"\n", b"\r\n"),
        data[:at] + rng.choice((b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80")) + data[at:],
        data.replace(b"=", b'="', 1), data[:at] + b"\n" + data[at:], data.swapcase(),
    ))  # fmt: skip


def say(rng: Random, who: str, is_worker: bool, is_new: bool) -> Step:
    """Some bytes of one connection."""
    if is_new and rng.random() < 0.07:
        return Step("w" if is_worker else "C", who, rng.choice(GREETINGS))
    lines = [hello(rng, who)] if is_worker and (is_new or rng.random() < 0.03) else []
    lines += [report(rng) if is_worker else order(rng) for _ in range(rng.choice((1, 1, 1, 2, 5)))]
    if "nonce=" in lines[0] and rng.random() < 0.8:
        del lines[1:]  # what is said next is the proof
    data = "".join(f"{line}\n" for line in lines).encode()
    while rng.random() < 0.2:
        data = spoil(rng, data)
    if who not in ("admin", "w1", "w2"):  # nobody knows what is not his
        data = re.sub(rb"(file|token|password)-", b"no-", data)
    return Step("w" if is_worker else "C", who, data[:200_000])


def make_script(rng: Random) -> list[Step]:
    """A whole story."""
    steps = [Step("open")] if rng.random() < 0.3 else []
    known: set[str] = set()
    for _ in range(rng.randrange(1, MOST_STEPS)):
        what = rng.random()
        who = rng.choice((*CLIENTS, "admin", "admin", *WORKERS, "w1"))
        if what < 0.04:
            steps.append(Step("X", who))
            known.discard(who)
        elif what < 0.14:
            steps.append(Step("T", rng.choice(("1", "5", "31", "60", "120"))))
        elif what < 0.16:
            steps.append(Step("D"))
            known.clear()
        else:
            steps.append(say(rng, who, who in WORKERS, who not in known))
            known.add(who)
    return steps
