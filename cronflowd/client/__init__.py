"""A client for Python programs: jobs by the names that people know, over HTTP or over the line protocol.

    from cronflowd.client import Client

    with Client("http://localhost:3000", token="…") as client:
        job = client.create_job({"name": "Weekly report", "schedule": "0 9 * * 1", "command": "report"})
        client.execute_job_now(job["id"])

The one rule: it says the same whichever door it goes through. Read in this order: `over_http` and
`over_lines` (a connection of each kind, and what each call is there), `api` (Client, and AsyncClient for
trio).
"""

from .api import AsyncClient, Client
from .over_http import CronflowError

__all__ = ["AsyncClient", "Client", "CronflowError"]
