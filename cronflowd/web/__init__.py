"""The HTTP door: REST, metrics, events and a dashboard, by a process of its own.

The one rule: it translates and decides nothing. All it knows it asks over the line protocol, and it
keeps nothing that must outlive it.

Read in this order: `line` (the way to the daemon), `bodies` (what is wrong with what was sent),
`envelope` (what answers look like), `guard` (what every request passes), `identity` (who asks), `sign_in`
and `auth` (how somebody comes in), `health`; of the API `job` (a job in JSON), `fields` (what is said of
one, in the daemon's words), `outcomes` (runs in JSON), `talks` (what is said about both), `rest` (what
handlers share), `jobs` (and what ran of them), `monitoring` (and workers), `events`, `people`,
`lines` (any line), `openapi`, `older` (paths of older clients); `worker_door` (workers by WebSocket);
`app` (puts it together), `bounds` (of the server), `serve` (the process).
"""
