"""The daemon: the loop that takes orders, decides, journals and lets answers go.

The one rule: decide, append, apply, commit, send; nothing waits in between, and nothing leaves
before it is on disk.

Read in this order: `core` (the loop), `strangers`, `access` and `logins` (who may do what), `turns` (what
takes long), `feeds` (WATCH, LOG follow), `bulk` (changes of very many tasks), `files` (tasks.db, calendars),
`hindsight` (what has ended: RUNS, STATS, WHY, LOG), `figures` (METRICS), `answers` (questions),
`crontab_orders`, `upkeep` (what is done now and then), `daemon` (starts and stops it all); and where several
are one: `sealed` (how nodes speak to each other), `peers` (what nodes ask each other), `roster` (who is
there), `cluster` (a node), `keeper` (what a leader does for etcd) and `standby` (its doors
while another leads).
"""
