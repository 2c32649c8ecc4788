"""What decides: orders in, facts and messages out.

The one rule: `decide` looks and never touches, `State.apply` touches and never refuses; no
clock, no file, no socket, so that a replayed day is the day that was.

Read in this order: `orders`, `fact` and `facts` (as JSON: `encoding`); then what is true: `tables` with its
members `lanes`, `alarms`, `beats`, `ledger`, `changelog`, `unfinished` and `flow_runs`, and `state` (with
`carried` and `steps`), where facts change it; then what decides: `rules` (what a rule is), `fires` (what
becomes of a due moment), `dependencies`, `placement`, `definitions`, `undo`, `runs`, `workers`,
`expectations`, `notices`, `flows` (what hangs together, as one), `many` (all that tag= and name= choose),
`slices` (very many tasks, a few at a time), and `engine`, which puts them together.
"""
