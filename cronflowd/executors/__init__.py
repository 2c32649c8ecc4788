"""What a worker can carry out, by type. To add a type: an executor, and a row in TABLE.

job         what an executor is given and gives back
output      what a job writes, bounded
processes   processes as jobs
shell       shell and script
builtin     echo and sleep
"""

from __future__ import annotations

from .builtin import ECHO, SLEEP
from .job import Executor
from .shell import SCRIPT, SHELL

TABLE: dict[str, Executor] = {"shell": SHELL, "script": SCRIPT, "echo": ECHO, "sleep": SLEEP}
