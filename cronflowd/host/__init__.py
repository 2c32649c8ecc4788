"""The machine we run on: its disk, clock, settings, logs, and systemd.

The one rule: only `clock` reads the clock; nothing here knows what a run is.

Read in this order: `disk` (what the kernel must do), `clock`, `setting` and `config` (settings
from four sources), `secrets` (the token, passwords), `vault` (the keys), `tls` (certificates), `mail`,
`calendar_files`, `logs`, `resources`, `threads`, `systemd`.
"""
