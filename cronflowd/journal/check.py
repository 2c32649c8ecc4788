"""`cronflowd check`: is the data directory whole, and if not, where and how to go on.

It reads every file there is, also those a start would pass over, and says of each what
it holds. With `--fix` the longest valid prefix stays and everything after it is set
aside under another name; nothing is ever deleted, but for an index, which is made anew.
Offline only: it takes the lock.

`Recount` counts all fires once more, from the facts alone. It shares nothing with the tables of `State`: what
both say must be the same, or one of them is wrong, or the journal tells what cannot have happened.

Files can be whole and what they tell still wrong: a fire that ended twice, an order sent twice,
an account that does not balance. That is a bug, told and left alone.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attrs import Factory, define

from ..base.errors import Exit, Fatal
from ..engine import facts as f
from ..engine.state import State
from ..host.disk import DISK, free_name, lock_directory, of_file, plain, sync_directory, write_atomically
from ..host.logs import tell
from ..host.vault import KEY_NAME, WEB_KEY_NAME
from . import apart, files, history, index, tasks_file
from .gaps import gaps
from .journal import set_aside
from .records import HEAD, Corrupt, Header, NotUnderstood, Reader, read_newest
from .replay import Replay, Tail, check_checkpoint

# --- the account of all fires once more -----------------------------------------------------------


MAX_FAULTS = 20  # more would say nothing new


@define
class Open:
    """A run that has not ended."""

    due_at: Any
    sent: int = 0  # its last attempt that was given to a worker


class Recount:
    """Sees every fact in order, before it is applied."""

    def __init__(self) -> None:
        self.due = 0
        self.ends: Counter[str] = Counter()
        self.open: dict[int, Open] = {}
        self.faults: list[str] = []
        self._last_run = 0

    def see(self, fact: f.Fact) -> None:
        """One more fact."""
        if (look := _LOOKS.get(type(fact))) is not None:
            look(self, fact)

    def compare(self, state: State) -> list[str]:
        """All that is wrong, in words; `state` is what the same facts have made."""
        balance = state.ledger.balance(state.runs.values())
        if balance.trouble:
            self._find(f"the ledger is {balance.trouble}")
        self._same("fires due", balance.due, self.due)
        for name, number in balance.ends.items():
            self._same(f"fires {name}", number, self.ends[name])
            self._same(f"fires {name} in all", state.totals.get(name, 0), self.ends[name])
        self._same("runs not ended", len(state.runs), len(self.open))
        return self.faults

    def _same(self, what: str, told: int, counted: int) -> None:
        if told != counted:
            self._find(f"{what}: the state says {told}, the records say {counted}")

    def _find(self, fault: str) -> None:
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(fault)

    # --- facts ---

    def _passed(self, fact: f.FiresPassed) -> None:
        self.due += fact.count
        self.ends[fact.state] += fact.count

    def _queued(self, fact: f.RunQueued) -> None:
        if fact.run <= self._last_run:
            self._find(f"run {fact.run} was queued twice")
        self._last_run = max(self._last_run, fact.run)
        self.due += 1
        self.open[fact.run] = Open(fact.due_at, int(bool(fact.worker)))

    def _sent(self, fact: f.RunSent) -> None:
        run = self.open.get(fact.run)
        if run is None:
            self._find(f"run {fact.run} was sent and had ended, or never begun")
        elif fact.attempt <= run.sent:
            self._find(f"attempt {fact.attempt} of run {fact.run} was sent twice")
        else:
            run.sent = fact.attempt

    def _ended(self, fact: f.RunEnded) -> None:
        run = self.open.get(fact.run)
        if run is None:
            self._find(f"run {fact.run} ended and had ended before, or never begun")
        elif run.due_at != fact.due_at:
            self._find(f"run {fact.run} ended as that of another moment")
        if fact.final:
            self.ends[fact.state] += 1
            self.open.pop(fact.run, None)

    def _state_carried(self, fact: f.StateCarried) -> None:
        self._last_run = fact.next_run - 1
        self.ends.update(fact.totals)
        self.due += sum(fact.totals.values())

    def _run_carried(self, fact: f.RunCarried) -> None:
        self.due += 1
        self.open[fact.run] = Open(fact.due_at, fact.attempt - (fact.state == "queued"))


_LOOKS: dict[type[f.Fact], Callable[[Recount, Any], None]] = {
    f.FiresPassed: Recount._passed,
    f.RunQueued: Recount._queued,
    f.RunSent: Recount._sent,
    f.RunEnded: Recount._ended,
    f.StateCarried: Recount._state_carried,
    f.RunCarried: Recount._run_carried,
}


# --- looking --------------------------------------------------------------------------------


def check(data: Path, fix: bool = False) -> int:
    """Prints what was found and done; 0 = whole (or mended), 65 = damaged. Raises Fatal, 75 if in use."""
    directory = files.journal_dir(data)
    if not directory.is_dir():
        raise Fatal(Exit.USAGE, f"{data}: there is no journal in it")
    with contextlib.closing(lock_directory(data)):
        found = examine(data)
        for line in found.lines:
            tell(line)
        if found.damages and not fix:
            tell(f"{data}: damaged; with --fix:")
        for words in _mend(data, found, fix) if found.damages else ():
            tell(f"  {words}")
        if found.faults:
            tell(f"{data}: what the records tell cannot all be true; please report this")
        elif not found.damages:
            tell(f"{data}: whole")
        is_good = not found.damages or (fix and found.can_mend)
        return Exit.OK if is_good and not found.faults else Exit.CORRUPT


@define
class Findings:
    """What stands in a data directory."""

    replay: Replay
    lines: list[str] = Factory(list)  # the report
    damages: list[str] = Factory(list)
    faults: list[str] = Factory(list)  # of the account: the files are as they were written, and still wrong
    broken: Corrupt | None = None  # why the daemon would refuse to start
    spare: list[Reader] = Factory(list)  # damaged files that no start needs: old segments and checkpoints
    history: list[Reader] = Factory(list)  # damaged history files
    indexes: list[Path] = Factory(list)  # by which not all is found that stands in their files
    can_mend: bool = True

    def tell(self, path: Path, words: str, damage: str = "") -> None:
        self.lines.append(f"{path.name}: {words}" + (f"; {damage}" if damage else ""))
        if damage:
            self.damages.append(damage)


def examine(data: Path) -> Findings:
    """Reads everything and changes nothing."""
    directory = files.journal_dir(data)
    found = Findings(Replay(directory))
    for _, path in files.list_checkpoints(directory):
        reader, problem = check_checkpoint(path)
        found.tell(path, "a checkpoint", f"DAMAGED {problem}" if problem else "")
        if problem:
            found.spare.append(reader)
    for file in files.list_history(directory):
        reader = _examine_lines(found, file.path)
        if reader.damage:
            found.history.append(reader)
    damaged = [_examine_lines(found, path) for _, path in files.list_segments(directory)]
    for _, path in files.list_all(directory):
        if index.is_wrong(path):
            found.indexes.append(path.with_suffix(index.SUFFIX))
            found.tell(found.indexes[-1], "what stands where in that file", "DAMAGED: it is another")
    lacking, sizes = set(history.lacking(data)), apart.sizes(directory)
    if lacking or sizes:
        words = f"long output of {len(sizes)} runs, {sum(sizes.values())} bytes"
        found.lines.append(f"{apart.FOLDER}: {words}; of {len(lacking)} runs a part is not here")
    found.lines += [f"history: records {first} to {last} are not here" for first, last in gaps(directory)]
    state = _examine_state(found)
    found.spare += [reader for reader in damaged if reader.damage and reader.path not in _told(found)]
    for path in sorted(directory.glob("*.tail-*")) + sorted(directory.glob("*.damaged*")):
        found.lines.append(f"{path.name}: {path.stat().st_size} bytes set aside earlier")
    if state:
        _examine_tasks(data, found, state)
    return found


def _told(found: Findings) -> list[Path]:
    """Files that the replay, or its failure, accounts for."""
    replay, paths = found.replay, _after(found.replay) if found.broken else []
    paths += [replay.open] if replay.open else []
    return [*paths, replay.tail.path, *replay.tail.junk] if replay.tail else paths


def _examine_lines(found: Findings, path: Path) -> Reader:
    reader = Reader(path)
    count, first, last = 0, b"", b""
    for last in reader:
        count += 1
        first = first or last
    words = f"{count} records"
    if count:
        words += f", {_seq_and_time(first)} to {_seq_and_time(last)}"
    damage = f"DAMAGED at byte {reader.offset}: {reader.damage}" if reader.damage else ""
    found.tell(path, words, damage)
    return reader


def _seq_and_time(line: bytes) -> str:
    # Without reading the fact: a newer release's has its place and time, too.
    match = HEAD.match(line)
    return f"{match[1].decode()} ({match[2].decode()})" if match else "one without number and time"


def _examine_state(found: Findings) -> State | None:
    """Whether a start would succeed; None if not."""
    state, recount = State(recent_runs=0), Recount()
    seq = 0
    try:
        for seq, at, fact in found.replay:
            recount.see(fact)
            state.apply(fact, at, seq)
    except Corrupt as error:
        found.broken, found.can_mend = error, not isinstance(error, NotUnderstood)
        found.damages.append(error.what)
        found.tell(error.path, f"at byte {error.offset}: {error.what}; the daemon refuses to start")
        return None
    except (AssertionError, LookupError, AttributeError, TypeError, ValueError) as error:
        # The bytes are what was written, so this is a bug; to cut here would lose what was acknowledged.
        found.can_mend = False
        found.damages.append("not replayable")
        found.lines += [f"ledger: {fault}" for fault in recount.faults]
        found.lines.append(f"record {seq} cannot be applied ({error!r}); please report this")
        return None
    if tail := found.replay.tail:
        found.tell(tail.path, f"the end from byte {tail.offset} on is not whole ({tail.damage})")
        found.damages.append(tail.damage)
    found.lines.append(
        f"state: {len(state.tasks)} tasks, {len(state.runs)} runs not ended, up to record {found.replay.last}"
    )
    _examine_account(found, state, recount)
    return state


def _examine_account(found: Findings, state: State, recount: Recount) -> None:
    """Whether every fire has one end, and the ledger says so."""
    found.faults = recount.compare(state)
    balance = state.ledger.balance(state.runs.values())
    ends = ", ".join(f"{number} {name}" for name, number in balance.ends.items() if number)
    words = "balanced" if not found.faults else "WRONG"
    found.lines.append(
        f"ledger: {words}: {balance.due} fires due: {ends or 'none ended'}, {balance.pending} pending"
    )
    found.lines += [f"ledger: {fault}" for fault in found.faults]


def _examine_tasks(data: Path, found: Findings, state: State) -> None:
    known = [(saved.size, saved.file_crc) for saved in state.saved]
    content = tasks_file.fingerprint(data / f.TASKS_NAME, known)
    if content is None:
        words = "not there; SAVE writes it"
    elif content in known:
        words = "as it was saved"
    else:
        words = "edited by hand, or not written by this journal's daemon; LOAD takes it over"
    found.lines.append(f"{f.TASKS_NAME}: {words}")
    if state.access.secrets and not (data / KEY_NAME).exists():
        found.lines.append(
            f"secrets: {len(state.access.secrets)}; the key that opens them is not here, nor in any backup"
        )


# --- mending --------------------------------------------------------------------------------


def _mend(data: Path, found: Findings, fix: bool) -> Iterator[str]:
    """Tells each step; takes it, too, with `fix`."""
    if not found.can_mend:
        yield "nothing is changed: the files are whole, but the program cannot read them"
        return
    directory = files.journal_dir(data)
    if fix:
        files.clear_leftovers(directory)
    yield from _mend_past(found, fix)
    if found.broken:
        yield from _mend_journal(found.broken, found.replay, fix)
    elif found.replay.tail:
        tail = found.replay.tail
        yield f"{tail.path.name}: cut at byte {tail.offset}; the rest is set aside"
        if fix:
            set_aside(tail)
    for reader in found.spare:
        yield f"{reader.path.name}: set aside"
        if fix and reader.path.exists():
            _rename(reader.path)
    if fix:
        _make_open_segment(found.replay)
        newest = max((first for first, _ in files.list_segments(directory)), default=0)
        if read_newest(directory) > newest:
            # What it names is given up; the next start names another.
            (directory / files.NEWEST_NAME).unlink()
        sync_directory(directory)


def _mend_past(found: Findings, fix: bool) -> Iterator[str]:
    for path in found.indexes:
        yield f"{path.name}: removed; it is made anew when it is needed"
        if fix:
            path.unlink()
    for reader in found.history:
        yield f"{reader.path.name}: the {reader.offset} valid bytes stay, the whole file is kept as .damaged"
        if fix:
            _mend_history(reader)


def _make_open_segment(replay: Replay) -> None:
    """After a checkpoint there must be a file to go on in: that it is missing would be damage, too."""
    if replay.last and not files.list_segments(replay.directory):
        header = Header("segment", replay.last + 1, replay.chain)
        write_atomically(files.segment_path(replay.directory, header.seq), [header.line()])


def _mend_history(reader: Reader) -> None:
    with of_file(reader.path), open(reader.path, "rb", opener=plain) as file:
        valid = file.read(reader.offset)
    kept = _damaged_name(reader.path)
    with contextlib.suppress(FileNotFoundError):
        kept.hardlink_to(reader.path)
    if valid:
        write_atomically(reader.path, [valid])
    else:
        reader.path.unlink()  # its other name stays


def _mend_journal(broken: Corrupt, replay: Replay, fix: bool) -> Iterator[str]:
    """The prefix up to the last whole decision before the damage stays."""
    if replay.open is None and not replay.last:
        yield "nothing before the damage is valid: everything is set aside, and the next start begins anew,"
        yield "with the tasks of tasks.db if that is there"
        # Numbers begin again at 1, and old history would be taken for that of the new ones.
        for file in files.list_history(replay.directory) if fix else ():
            _rename(file.path)
    elif replay.open and replay.open == broken.path:
        yield f"{replay.open.name}: cut at byte {replay.size}, after record {replay.last}; the rest set aside"
        if fix:
            set_aside(Tail(replay.open, replay.size, broken.what))
    for path in _after(replay):
        yield f"{path.name}: set aside"
        if fix:
            _rename(path)
    if fix:  # sessions at the HTTP door are numbered on from there: none of before may go on
        replay.directory.with_name(WEB_KEY_NAME).unlink(missing_ok=True)
    if replay.last:
        yield f"the daemon will go on after record {replay.last}; all later ones are lost to it"


def _after(replay: Replay) -> list[Path]:
    """The segments behind the damage."""
    kept = replay.open_first if replay.open else replay.last
    return [path for first, path in files.list_segments(replay.directory) if first > kept]


def _rename(path: Path) -> None:
    DISK.rename(path, _damaged_name(path))


def _damaged_name(path: Path) -> Path:
    return free_name(path.with_name(f"{path.name}.damaged"))
