"""What is remembered: facts on disk, read back, made short, checked.

The one rule: what was acknowledged is on disk, and only an invalid tail is ever cut.

Read in this order: `files` (what they are called), `records` (a line and its seal), `replay` (files to
facts), `journal` (append and commit), `compaction`, `index` (where what stands), `history` (old runs),
`tasks_file`, `check` and `backup`; then, for several daemons, `etcd` (the client, and the lease), `shared`
(keys, transactions, and how full it is), `apart` (long output beside the journal), `shared_journal`, `gaps`
(what a node lacks, and is given by another), and `leave` (and compare).
"""
