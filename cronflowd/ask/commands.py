"""The verbs of the control port, a row each: how it is written, what it is for, who answers it.

To add one: a class in orders.py or questions.py, a function in parsers.py, its row here, and a
section in protocol.md, whose table of verbs is made from these rows, as HELP is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from attrs import field, frozen

from ..base.errors import Refusal
from ..base.nearest import meant
from ..base.replies import Reply
from ..base.text import ODD_BLANK, escape
from ..engine import expectations
from ..engine import orders as o
from ..engine.access import RANK
from ..engine.state import State
from . import accounts as a
from . import flows, listing, overview, revisions, views
from . import parsers as p
from . import questions as q
from .grammar import Context, Parser, WrongWords, cut_word, nothing, one

View = Callable[[State, Any, datetime], Reply]  # Any is what the verb's words were read as


@frozen
class Verb:
    """One row of the table."""

    read: Parser  # what follows the verb
    usage: str
    summary: str
    # Who answers it: what looks at the tables and no further, or by name a method of the daemon's.
    answer: View | str = ""
    always: Reply | None = None  # the answer, where it is always the same; with neither, it is an order
    changes: bool = False  # although it is answered so
    anybody: bool = False  # may be said before AUTH
    about_days: bool = False  # tells of days off, so calendars are looked at first
    looks: str = ""  # the words behind a verb that changes something with which it changes nothing
    surely: str = ""  # alone it concerns all there is: how it is said where it may be said by mistake
    role: str = ""  # the least that may say it, or two: to read, and to change; empty: viewer, and user
    own: str = ""  # the words behind it with which everybody may say it of himself
    gateway: str | None = None  # the words behind it that a gateway may say, whoever it speaks for
    reads: bool = field(init=False)  # changes nothing, so it counts even as an unfinished last line

    @reads.default
    def _reads(self) -> bool:
        return bool(self.answer or self.always) and not self.changes

    @property
    def name(self) -> str:
        return self.usage.split(" ")[0]

    def only_reads(self, rest: str) -> bool:
        """The same with these words."""
        return self.reads or bool(self.looks and re.match(self.looks, rest, re.IGNORECASE))

    def rank(self, rest: str) -> int:
        """What role it takes to say this, as a number that grows with the rights."""
        if self.anybody:
            return -1
        if self.own and re.match(self.own, rest, re.IGNORECASE):
            return 0
        return RANK[self.roles[0 if self.only_reads(rest) else -1]]

    def is_for_gateway(self, rest: str) -> bool:
        return self.gateway is not None and bool(re.match(self.gateway, rest, re.IGNORECASE))

    def may_tell(self, word: str) -> bool:
        """Whether AUDIT may hold its first word: behind USER, TOKEN and SECRET it may let in."""
        return self.role != "viewer admin" or word.upper() in re.split("[^A-Z]+", self.usage)

    @property
    def roles(self) -> list[str]:
        """The least that may say it: to read, and to change."""
        return self.role.split() or ["viewer", "user"]

    def parse(self, rest: str, context: Context) -> Any:
        """The order or question; raises Refusal, which names the word that is wrong."""
        try:
            return self.read(rest, context)
        except WrongWords as wrong:
            hint = escape(_hint_at_options(self.usage, rest))
            raise Refusal(wrong.code, f"{wrong.message}{hint}; usage: {self.usage}") from None


def _hint_at_options(usage: str, rest: str) -> str:
    """How an option is written, where words look like one: `limit 5`, `tag:night`, `name=a b`."""
    if split := _SPLIT_VALUE.search(rest):
        return f'; a value with blanks stands in quotes: {split[1]}="{split[2]}"'
    known = re.findall(r"\b([a-z]+)=", usage)
    if match := re.search(rf"(?<![^ \t])({'|'.join(known) or '-'})(?::|[ \t]+|$)([^ \t]*)", rest):
        return f"; did you mean {match[1]}={match[2] or 'VALUE'}?"
    if match := _SURPLUS.search(rest):
        keys = ("last", "until", "every") if match[2] else ("n", "limit", "width")
        return next((f"; did you mean {key}={match[1]}?" for key in keys if key in known), "")
    return ""


_SURPLUS = re.compile("(?<![^ \t])([0-9]{1,9}(s|m|min|h|d|days?)?)[ \t]*$")


_SPLIT_VALUE = re.compile(r'(?<![^ \t])([a-z][A-Za-z._]*)=([^ \t"{]+(?:[ \t]+[^ \t="]+(?![^ \t]))+)')


def parse(line: str, context: Context) -> Any:
    """The order or question that `line` asks."""
    verb, rest = find_verb(line)
    return verb.parse(rest, context)


def find_verb(line: str) -> tuple[Verb, str]:
    """The row that a line is for, and what follows the verb. Raises Refusal."""
    word, _, rest = line.partition(" ")
    if verb := VERBS.get(word):
        return verb, rest
    word, rest = cut_word(line)
    verb = VERBS.get(word.upper())
    if verb is None:
        raise Refusal("unknown-command", f'"{escape(word[:40])}" is not a command; {_hint(line, word)}')
    return verb, rest


def _hint(line: str, word: str) -> str:
    """What may have been meant by a line that begins with no verb."""
    line = line.strip(" \t")
    if _LIKE_A_CRONTAB.match(line):
        return "a line of a crontab stands behind IMPORT, or behind ADD"
    if match := ODD_BLANK.search(word):
        return f"it holds {match[0]!a}, which looks like a blank and is none"
    if line.startswith("{"):
        return "a task as JSON stands behind ADD"
    if not word[:1].isalpha():
        return "a line begins with a verb, without quotes; HELP lists them"
    return f"HELP lists them{meant(word, list(VERBS), ALSO_CALLED)}"


# An entry, or a setting.
_LIKE_A_CRONTAB = re.compile(r"[0-9*][^ \t]*(?:[ \t]+[^ \t]+){4}[ \t]|@[a-z]+[ \t]|[A-Z][A-Z0-9_]*[ \t]*=")


def check_meant(line: str, is_refused: bool, is_script: bool) -> None:
    """Refuses what a person may not have meant for us, behind a line that was not for us either.

    Whoever pastes a script into the wrong window sends `clear`, and `run backup`.
    """
    word, rest = cut_word(line)
    verb = VERBS[word.upper()]
    if verb.surely and not rest.strip() and (is_script or (is_refused and verb.read is p.clear)):
        why = "what came before was not for me" if is_script else "the line before was refused"
        raise Refusal("syntax", f"{why}, so this must be said in full: {verb.surely}")
    if is_script and is_refused and not verb.reads and word.islower():
        raise Refusal("syntax", f"this looks like a script; if it is meant for me, write {word.upper()}")


# What others call it.
ALSO_CALLED = {
    "ADD": "create new insert register schedule every crontab cron submit put define",
    "LIST": "ls show jobs tasks ps all dir crons",
    "GET": "info cat view inspect details describe-task print",
    "SET": "edit update modify change config alter reschedule rename patch move mv",
    "REMOVE": "delete rm del drop unschedule erase destroy unregister remove-job",
    "CLEAR": "flush truncate purge reset wipe flushall",
    "STATUS": "stat uptime state sysinfo version", "CLOCK": "time date ntp",
    "METRICS": "prometheus openmetrics metric",
    "SAVE": "backup dump bgsave write persist", "LOAD": "restore reload read source",
    "PAUSE": "suspend hold freeze deactivate off mute skip",
    "RESUME": "unpause continue unfreeze activate on", "HISTORY": "changes changelog revisions versions",
    "UNDO": "revert undelete",
    "RUN": "start trigger exec execute fire retry rerun force run-now launch",
    "NOW": "batch immediately", "AT": "in later", "ONCE": "idempotent unique",
    "CANCEL": "kill stop abort terminate end",
    "RUNS": "executions results builds queue queues pending",
    "STATS": "statistics report analytics performance trends",
    "FAILED": "errors failures broken dead", "LOG": "logs output tail stdout journal",
    "WHY": "reason explain", "NEXT": "when preview upcoming forecast calendar agenda",
    "DEPS": "dependencies tree graph",
    "FLOW": "flows dag dags pipeline pipelines workflow workflows",
    "DESCRIBE": "translate human", "EXPECT": "monitor deadman", "BEAT": "heartbeat alive",
    "HEALTH": "healthz healthcheck check probe", "SUMMARY": "overview dashboard totals",
    "TYPES": "kinds capabilities", "WORKERS": "agents hosts servers", "DRAIN": "cordon",
    "NODES": "cluster members leader peers", "STEPDOWN": "failover handover",
    "UNDRAIN": "uncordon",
    "EMIT": "publish send notify signal event", "TEMPLATE": "templates profile preset",
    "WATCH": "subscribe follow listen events", "AUTH": "login token", "WHOAMI": "id me",
    "AS": "su sudo impersonate",
    "USER": "account users accounts passwd password role roles",
    "TOKEN": "tokens key apikey", "SESSION": "sessions signin", "AUDIT": "security accesslog",
    "SECRET": "secrets vault credential credentials",
    "HELLO": "hi ehlo helo client", "HELP": "? h man usage commands",
    "QUIT": "exit bye q logout close disconnect",
}  # fmt: skip


def only_reads(line: str) -> bool:
    """Whether a line without its newline may be taken for whole: it changes nothing, or is nonsense."""
    word, rest = cut_word(line)
    verb = VERBS.get(word.upper())
    return verb is None or verb.only_reads(rest)


_ROWS = (
    Verb(p.add, "ADD [key=value …] SCHEDULE COMMAND", "adds a task; also ADD {JSON}"),
    Verb(
        p.list_tasks,
        "LIST [state=STATE,…] [tag=TAG] [name=GLOB] [owner=NAME] [type=TYPE] [search=TEXT]"
        " [sort=[-]id|name|next|state|last] [limit=N] [offset=N] [count=yes]",
        "all tasks", listing.list_tasks,
    ),
    Verb(p.get, "GET REF [@REV]", "everything about one task; or as it was at a revision", views.get_task),
    Verb(
        p.set_task, "SET REF|tag=TAG|name=GLOB [rev=N] key=value …",
        "changes tasks; schedule= command= name= too",
    ),
    Verb(
        p.template, "TEMPLATE ADD NAME key=value …|REMOVE NAME|LIST",
        "options for tasks to come: ADD from=NAME", "template", changes=True,
        looks=r"[ \t]*LIST\b", role="viewer operator",
    ),
    Verb(p.remove, "REMOVE REF|tag=TAG|name=GLOB [force=yes] [rev=N]", "removes a task, or some"),
    Verb(p.clear, "CLEAR [all]", "removes all tasks", surely="CLEAR all", role="operator"),
    Verb(nothing(q.Alone), "STATUS", "how the daemon is", "status", about_days=True),
    Verb(p.health, "HEALTH [late=1m] [queue=10000]", "whether all is well, or what is not", "health"),
    Verb(
        nothing(q.Alone), "SUMMARY", "the tasks, the last day and the next moments in figures",
        overview.summarize, about_days=True,
    ),
    Verb(p.metrics, "METRICS [NAME]", "figures for Prometheus, a line of its text a row", "metrics"),
    Verb(nothing(q.Alone), "CLOCK", "the time here, and how far off the workers' clocks are", "clock"),
    Verb(p.file(q.SaveTasks), "SAVE [FILE]", "writes all tasks to a file (tasks.db)", "save", changes=True,
         role="operator"),
    Verb(p.file(q.LoadFile), "LOAD [FILE]", "replaces all tasks by those of a file", "load", changes=True,
         surely="LOAD tasks.db", role="operator"),
    Verb(
        p.file(q.BackUp, "backup.tar"), "BACKUP [FILE]", "writes the whole data directory to a file",
        "backup", changes=True, role="admin",
    ),
    Verb(
        p.import_line, "IMPORT [--system] [--dry-run] [--replace] LINE", "adds a line of a crontab", "import",
        changes=True, looks=r"[ \t]*(--[a-z-]+[ \t]+)*--dry-run[ \t]",
    ),
    Verb(p.export, "EXPORT [REF…]", "tasks as a crontab", "export"),
    Verb(p.pause, "PAUSE REF…|all|tag=TAG|name=GLOB|flow=REF [until=TIME] [why=TEXT]", "starts no new runs"),
    Verb(p.resume, "RESUME REF…|all|tag=TAG|name=GLOB|flow=REF", "the opposite"),
    Verb(p.pause, "DISABLE REF…|all|tag=TAG|name=GLOB|flow=REF [until=TIME] [why=TEXT]", "the same as PAUSE"),
    Verb(p.resume, "ENABLE REF…|all|tag=TAG|name=GLOB|flow=REF", "the same as RESUME"),
    Verb(
        p.history, "HISTORY [REF] [limit=N] [offset=N]", "who changed what, newest first",
        revisions.show_history,
    ),
    Verb(
        p.roll_back, "ROLLBACK REF REV", "sets a task as it was at a revision", "roll_back", changes=True
    ),
    Verb(p.undo, "UNDO [N]", "takes back the last changes of tasks", surely="UNDO 1"),
    Verb(p.run, "RUN REF|tag=TAG|name=GLOB [arg.NAME=VALUE …]", "runs a task now, or some"),
    Verb(
        p.flow, "FLOW [REF|#N] [RUN|RUNS|RETRY [N]|CANCEL [N]|PAUSE|RESUME] [key=value …]",
        "tasks that hang together by after=, as one", "flow", changes=True,
        looks=r"[ \t]*+\S*+([ \t]++(runs|[^\s=]++=\S*+))*+[ \t]*+$",  # in one pass, however long it is
    ),
    Verb(
        p.emit, "EMIT EVENT [NAME=VALUE …]", "starts the tasks that wait for an event (@on)", "emit",
        changes=True,
    ),
    Verb(p.now, "NOW [key=value …] COMMAND", "runs a command once, now; also NOW {JSON}"),
    Verb(p.at, "AT TIME [key=value …] COMMAND", "runs a command once, at a time; also AT TIME {JSON}"),
    Verb(p.cancel, "CANCEL RUN", "ends a run"),
    Verb(
        p.once, "ONCE KEY LINE", "does a line that changes something, once: not again with the same key",
        "once", changes=True,
    ),
    Verb(
        p.runs,
        "RUNS [REF] [run=N] [state=STATE,…] [worker=NAME] [exit=N] [tag=TAG] [flow=N]"
        " [last=TIME] [since=TIME] [until=TIME]"
        " [limit=N] [offset=N] [count=yes]",
        "what ran, newest first", "runs",
    ),
    Verb(
        p.stats, "STATS [REF] [by=day|hour] [tz=ZONE] [last=TIME] [since=TIME] [until=TIME]",
        "how often, how well, how long, how late", "stats",
    ),
    Verb(
        p.failed, "FAILED [last=TIME] [since=TIME]", "tasks whose last fire did not end well",
        views.list_failed,
    ),
    Verb(
        p.prove, "PROVE [last=TIME] [since=TIME] [until=TIME]", "that every fire is accounted for",
        views.prove,
    ),
    Verb(p.why, "WHY REF [TIME]", "why a task ran, or did not", "why", about_days=True),
    Verb(
        p.log, "LOG RUN|REF [-N] [follow] [fd=N] [tail=N]",
        "what a run wrote; or a task's newest, or one before", "log",
    ),
    Verb(
        p.next_moments, 'NEXT REF|all|"SCHEDULE" [n=5] [last=DURATION] [tz=ZONE] [from=TIME] [by=hour]',
        "the next moments, or how many", overview.next_moments,
        about_days=True,
    ),
    Verb(p.dependencies, "DEPS [REF]", "which tasks wait for which", flows.show_dependencies),
    Verb(
        p.describe, 'DESCRIBE REF|"SCHEDULE" [tz=ZONE]', "what a schedule means, in English",
        views.describe_schedule,
    ),
    Verb(
        p.clock_changes, "DST [REF|all] [until=TIME]", "what the next clock changes do", "dst",
        about_days=True,
    ),
    Verb(
        p.zone_differences, "TZDIFF DIRECTORY [REF|all] [until=TIME] [n=3]",
        "what other zone data would change", "tzdiff", about_days=True,
    ),
    Verb(
        p.expect, 'EXPECT NAME every=TIME|"SCHEDULE" [grace=TIME] [notify=TARGET] [start=TIME] [desc=TEXT]',
        "tells when NAME falls silent", role="operator",
    ),
    Verb(p.beat, "BEAT NAME [ok|fail|STATUS [TEXT]]", "NAME shows life"),
    Verb(nothing(q.Alone), "EXPECTS", "who has to show life, and when", expectations.show),
    Verb(one(o.ForgetExpectation, "name"), "FORGET NAME", "expects nothing of NAME any more",
         role="operator"),
    Verb(nothing(q.Alone), "WORKERS", "who runs the jobs", "workers"),
    Verb(nothing(q.Alone), "NODES", "the daemons that are one, and which of them leads", "cluster"),
    Verb(
        p.step_down, "STEPDOWN [NODE]", "has another node lead", "cluster", changes=True, role="admin"
    ),
    Verb(nothing(q.AnswerAlone), "LOCAL", "first: this node answers by itself", "cluster"),
    Verb(nothing(q.Alone), "TYPES", "the types of jobs, and who can do which", views.list_types),
    Verb(p.drain(True), "DRAIN WORKER", "sends a worker no more runs", role="operator"),
    Verb(p.drain(False), "UNDRAIN WORKER", "sends it runs again", role="operator"),
    Verb(
        p.watch, "WATCH [tasks] [runs] [workers] [accounts] [id=REF] [since=SEQ]",
        "a row for everything that happens", "watch",
    ),
    Verb(p.hello, "HELLO [name=NAME]", "keeps the connection open until QUIT", "hello", anybody=True),
    Verb(
        a.authenticate, "AUTH TOKEN|USER PASSWORD", "shows who you are, where that is asked for",
        "authenticate", anybody=True,
    ),
    Verb(
        a.act_as, "AS [NAME] [from=ADDRESS] [session=ID] [only=yes]",
        "a gateway speaks for an account, or for nobody yet", "act_as", role="admin", gateway="",
    ),
    Verb(nothing(q.Alone), "WHOAMI", "who you are here, and what you may do", "whoami"),
    Verb(
        a.user,
        "USER ADD NAME [role=ROLE] [email=ADDRESS] [uid=N] [password=WORD] [desc=TEXT] [first=yes]|"
        "LIST [NAME]|SET NAME key=value …|PASSWORD [NAME] [WORD]|REMOVE NAME|FORGOT NAME|RESET TOKEN [WORD]",
        "accounts: who may come in, and what each may do", "user", changes=True, role="viewer admin",
        looks=r"[ \t]*LIST\b", own=r"[ \t]*PASSWORD\b", gateway=r"[ \t]*(?:FORGOT|RESET)\b",
    ),
    Verb(
        a.token, "TOKEN ADD [name=NAME] [role=ROLE] [user=NAME] [worker=GLOB] [ttl=30d]|LIST|REVOKE ID",
        "words that let programs and workers in", "token", changes=True, role="viewer admin",
        looks=r"[ \t]*LIST\b",
    ),
    Verb(
        a.session, "SESSION ADD NAME [ttl=7d]|RENEW TOKEN|END TOKEN|END ID|LIST [user=NAME]",
        "who stays signed in through a gateway", "login", changes=True, role="viewer admin",
        looks=r"[ \t]*LIST\b", own=r"[ \t]*END\b", gateway=r"[ \t]*(?:ADD|RENEW|END)\b",
    ),
    Verb(
        a.secret, "SECRET PUT NAME VALUE|LIST|REMOVE NAME [force=yes]",
        "values that jobs are given and nobody is shown", "secret", changes=True, role="viewer admin",
        looks=r"[ \t]*LIST\b",
    ),
    Verb(
        a.audit,
        "AUDIT [since=TIME] [until=TIME] [last=TIME] [who=NAME] [verdict=ok|denied] [limit=100] [offset=0]",
        "who came in, what was changed, and what was refused", "audit",
    ),
    Verb(
        p.set_format, "FORMAT json|text|table [width=N]", "how replies look on this connection", "format",
        anybody=True,
    ),
    Verb(
        p.help_about, "HELP [VERB|OPTION|TYPE|schedule|time]", "this list; or more about one word", "help",
        anybody=True,
    ),
    Verb(nothing(q.Alone), "PING", "PONG", always=Reply("", {"pong": True}, word="PONG"), anybody=True),
    Verb(nothing(q.Alone), "QUIT", "ends the connection", "quit", anybody=True),
)  # fmt: skip
VERBS = {row.name: row for row in _ROWS}
