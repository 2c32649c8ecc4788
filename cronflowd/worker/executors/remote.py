"""What jobs that talk to a server have in common: how one goes wrong, in curl's numbers, and ends."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable

from .job import Ended, Job, ended_by_signal

# The exit codes are curl's, so that whoever knows those knows these.
BAD_URL = 3
NO_HOST = 6
NO_CONNECTION = 7
NO_HTTP = 8
PARTIAL = 18
UNEXPECTED_STATUS = 22
TIMED_OUT = 28
NO_TLS = 35
EMPTY_ANSWER = 52
NOT_SENT = 55  # of a mail: not accepted
BROKEN = 56
NOT_TRUSTED = 60
TLS_NOT_OFFERED = 64
LOGIN_DENIED = 67


class Failure(Exception):
    """There is no whole answer, or not the one that was wanted."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


async def converse(job: Job, talk: Callable[[], Awaitable[Ended]], why_late: Callable[[], str]) -> Ended:
    """Talks as a job: with its timeout, which `why_late` tells of, and its KILL."""
    job.start()
    with job.life:
        try:
            return await talk()
        except Failure as failure:
            return Ended(failure.code, why=str(failure))
    if job.timed_out:
        return Ended(TIMED_OUT, why=why_late(), timed_out=True)
    return ended_by_signal(job)


def tls_failure(error: BaseException | None) -> Failure | None:
    """Why there is no TLS, if that is what is behind an error; the certificate's fault is told apart."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return Failure(NOT_TRUSTED, f"the certificate is not trusted: {error.verify_message}")
        if isinstance(error, ssl.SSLError):
            return Failure(NO_TLS, f"TLS: {error.reason or error}")
        error = error.__cause__ or error.__context__
    return None
