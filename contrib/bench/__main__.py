"""python -m contrib.bench [--only life,ping] [--rounds 5] [--scale 1] [--json FILE] [--against REV]."""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from contrib.bench.measure import OURS, Row, machine, run, table, write_json
from contrib.bench.processes import ROOT
from contrib.bench.rows import Sizes, rows


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m contrib.bench", description="What things cost.")
    parser.add_argument("--only", help="names of rows, comma between; a part of a name will do")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of all counts but those below")
    parser.add_argument("--tasks", type=int, default=1_000_000, help="in due, restart, idle and bulk")
    parser.add_argument("--queues", type=int, default=5000, help="in bulk")
    parser.add_argument("--watchers", type=int, default=1000, help="in bulk")
    parser.add_argument("--idle-s", type=float, default=60.0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--against", metavar="REV", help="another commit is the only peer (default row: life)"
    )
    return parser.parse_args()


@contextlib.contextmanager
def tree_of(revision: str) -> Iterator[Path]:
    """That commit's files, in a directory that goes away again."""
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), revision], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def against(row: Row, revision: str, then: Row) -> Row:
    """The same row with the other commit in the place of all peers."""
    lines = [line._replace(aims={}) for line in row.lines]
    return row._replace(sides={OURS: row.sides[OURS], revision: then.sides[OURS]}, lines=lines)


def main() -> None:
    flags = parse_flags()
    sizes = Sizes(flags.scale, flags.tasks, flags.queues, flags.watchers, flags.idle_s)
    only = (flags.only or ("life" if flags.against else "")).split(",")
    results = []
    with contextlib.ExitStack() as stack:
        wanted = [row for row in rows(sizes, ROOT) if any(part in row.name for part in only)]
        if not wanted:
            sys.exit("no such row; there are: " + " ".join(row.name for row in rows(sizes, ROOT)))
        if flags.against:
            old = {row.name: row for row in rows(sizes, stack.enter_context(tree_of(flags.against)))}
            wanted = [against(row, flags.against, old[row.name]) for row in wanted]
        for row in wanted:
            results.append(run(row, flags.rounds))
            print(f"\n{row.name}: {row.what}\n{table(results[-1:])}", flush=True)
    if len(results) > 1:
        print("\n" + table(results))
    print("\n" + ", ".join(f"{key} {value}" for key, value in machine().items()))
    if flags.json:
        write_json(flags.json, results, vars(flags))


if __name__ == "__main__":
    main()
