"""The dashboard: pages that the server makes, for people who have never seen them before.

The one rule: a page says first what went wrong and why, and works without JavaScript; a script only makes
it live. Nobody is shown a button for what he may not do, and every page tells its line for netcat.

Pure functions of what the daemon answered: `wording` (times, sentences), `terminal` (a job's output),
`drawing` (dependencies as SVG, load and days as grids).
What every page shares: `paper` (templates, static files), `visit` (one request: who asks, the frame, forms).
One module a topic: `entrance` (signing in), `home`, `jobs` (and pauses, history, undo), `job_form`, `runs`,
`week`, `flows`, `fleet` (workers, expectations, clock changes), `people` (users, tokens, secrets, audit).
`router` puts them together.
"""
