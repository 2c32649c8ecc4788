"""Connections: bytes in and out, who may stay, who is cut.

The one rule: it decides nothing about tasks; it hands lines in and carries lines out, and no
peer is ever waited for.

Read in this order: `lines`, `telnet`, `outbox` (what is owed to a peer), `poller` (waiting for all
of them), `listeners`, `tls`, `clients` (port 5050), `workers` (port 5051) with `hello`
(who comes) and `rivals` (two of one name).
"""
