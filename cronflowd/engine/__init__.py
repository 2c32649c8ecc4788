"""What decides: orders in, facts and messages out.

The one rule: `decide` looks and never touches, `State.apply` touches and never refuses; no clock, no file,
no socket, so that a replayed day is the day that was.

Read in this order: `orders`, `facts` and `access_facts` (as JSON: `encoding`); then what is true:
`tables` with its members `lanes`, `alarms`, `beats`, `ledger`, `changelog`, `unfinished`, `flow_runs` and
`access`, `once` (not to be done again), `calendars` (days off), and `state` (with `carried` and `hearing`),
where facts change it; then what decides: `rules` (what a rule is, and what AUDIT tells), `fires` (what
becomes of a due moment), `dependencies`, `secrets` (into orders, and out of what comes back), `placement`,
`definitions`, `undo`, `runs` (and who carries them out), `accounts` (who may come in, and what is its own),
`expectations`, `notices`, `flows` (what hangs together, as one), `many` (all that tag= and name= choose),
`slices` (very many tasks, a few at a time), and `engine`, which puts them together.
"""
