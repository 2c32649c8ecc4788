"""The program that runs jobs: it dials in, takes runs, and answers for each.

The one rule: a report is kept until the daemon has acknowledged it.

Read in this order: `spool` (what outlives a kill), `reports` (what is still to be told), `silence` (nobody
answers), `executors/` (one module a type), `rules` (what it refuses), `ways` (where the daemon is),
`websocket` (lines through a proxy), `welcome` (the way to the daemon), `agent`, `program` (the process).
"""
