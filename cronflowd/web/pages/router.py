"""All pages together, with what they share."""

from __future__ import annotations

from litestar import Router, post
from litestar.datastructures import Cookie
from litestar.di import Provide
from litestar.response import Redirect

from ..identity import AnyRequest
from ..rest import handlers_in
from . import entrance, fleet, flows, home, job_form, jobs, lines, people, runs, week
from .paper import static
from .visit import THEMES, inner, make_visit, on_error

A_YEAR_S = 365 * 86_400


@post("/theme")
async def theme(request: AnyRequest) -> Redirect:
    """Light, dark, or as the system has it: kept by the browser, and by nobody else."""
    form = await request.form()
    wanted = str(form.get("theme", "auto"))
    answer = Redirect(inner(str(form.get("next", "/"))), status_code=303)
    value = wanted if wanted in THEMES else "auto"
    answer.set_cookie(
        Cookie(key="theme", value=value, max_age=A_YEAR_S, path="/", samesite="strict", httponly=True)
    )
    return answer


PAGES = [
    Router(
        path="/",
        # The form before the page of one job: `new` is no job.
        route_handlers=handlers_in(home, job_form, jobs, runs, week, flows, fleet, people, lines),
        dependencies={"visit": Provide(make_visit)},
        exception_handlers={Exception: on_error},
        include_in_schema=False,
    ),
    Router(
        path="/",
        route_handlers=[static, theme, *handlers_in(entrance)],
        exception_handlers={Exception: on_error},
        include_in_schema=False,
    ),
]
