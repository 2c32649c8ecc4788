"""What a task is: its options, its type, whom it notifies, and how crontabs say it.

The one rule: values only. A task here has no state and no history; those are the engine's.

Read in this order: `task` (task, run, worker), `options` (a row each), `kinds` (what a
command means, and how a secret is named), `environment` (what a job finds there), `arithmetic`, `targets`
(notify=), `reasons` (why something came as it did), `slips` (what was meant otherwise), `programs`
(what a command may be called), `crontab`.
"""
