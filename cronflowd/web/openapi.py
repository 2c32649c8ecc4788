"""What the API takes and answers, told by the handlers to programs (OpenAPI 3.1) and to people."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec
import orjson
from litestar import Litestar, MediaType, get
from litestar.enums import OpenAPIMediaType
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.openapi.spec import Components, Reference, SecurityScheme
from markupsafe import Markup, escape
from msgspec import Struct

from .. import __version__
from .identity import COOKIE, CSRF_HEADER, AnyRequest
from .pages.paper import render
from .rest import ERRORS
from .talks import KEY_HEADER

PATH = "/api/v1"
WHAT = (
    "Jobs that run by a schedule, on many machines. All that is done here is said to the daemon in its line"
    " protocol, which can do the same. Successes are `{success, data, meta}`,"
    " failures `{success, error: {code, message, field}}`."
)
METHODS = ("get", "post", "put", "patch", "delete")


class _Schema(OpenAPIRenderPlugin):
    """The document, with what the framework does not know."""

    def render(self, request: AnyRequest, openapi_schema: dict[str, Any]) -> bytes:
        return orjson.dumps(schema_of(request.app))


def config() -> OpenAPIConfig:
    shown = "An access token, or one of TOKEN ADD"
    schemes: dict[str, SecurityScheme | Reference] = {
        "bearer": SecurityScheme(type="http", scheme="bearer", description=shown),
        "cookie": SecurityScheme(
            type="apiKey",
            security_scheme_in="cookie",
            name=COOKIE,
            description=f"A browser's; with {CSRF_HEADER}",
        ),
    }
    return OpenAPIConfig(
        title="cronflowd",
        version=__version__,
        description=WHAT,
        path=f"{PATH}/openapi.json",  # below it, what is not found is answered by the framework
        create_examples=False,
        use_handler_docstrings=True,
        components=Components(security_schemes=schemes),
        security=[{"bearer": []}, {"cookie": []}],
        render_plugins=[_Schema(path="/", media_type=OpenAPIMediaType.OPENAPI_JSON)],
    )


@cache
def schema_of(app: Litestar) -> dict[str, Any]:
    """The document; only what stands below /api/v1 is in it."""
    text = orjson.dumps(app.openapi_schema.to_schema()).decode()
    text = re.sub(r"cronflowd\.web\.\w+\.", "", text)
    text = re.sub(r"(schemas/|\")((?:Success|Listing)_[\w.]+?)_+(?=\")", r"\1\2", text)
    schema: dict[str, Any] = orjson.loads(text)
    schema["paths"] = {path: each for path, each in schema["paths"].items() if path.startswith(f"{PATH}/")}
    # The decoder tells what it takes more exactly than the framework does.
    _, structs = msgspec.json.schema_components(_structs(), ref_template="#/components/schemas/{name}")
    schema["components"]["schemas"] |= structs
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Failure"}}}
    failures = {str(status): {"description": why, "content": content} for status, why in ERRORS.items()}
    for path, method, operation in operations(schema):
        operation["tags"] = [path.removeprefix(PATH).split("/")[1]]
        operation["operationId"] = f"{method} {path.removeprefix(PATH)}"
        # Whatever it is about, it may be refused, and always in this form.
        operation["responses"] |= {} if path in PUBLIC else failures
        parameters = operation.setdefault("parameters", [])
        if path in PUBLIC or (path.startswith(f"{PATH}/auth/") and method == "post"):
            operation["security"] = []
        if method == "post":
            parameters.append(_header(KEY_HEADER, "Done once, however often it is sent"))
        elif method in ("put", "patch", "delete"):
            parameters.append(_header("If-Match", "The ETag of the job as it was seen"))
    log = schema["paths"][f"{PATH}/executions/{{run}}/log"]["get"]["responses"]["200"]["content"]
    log |= {"text/plain": {"schema": {"type": "string"}}, "text/event-stream": {"schema": {"type": "string"}}}
    return schema


PUBLIC = (f"{PATH}/monitoring/health",)


def _structs() -> list[type]:
    """Every form of a body or an answer that is no frame around others."""
    found = [each for each in Struct.__subclasses__() if each.__module__.startswith(__package__ or "")]
    return [each for each in found if not getattr(each, "__parameters__", ())]


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in schema["paths"].items():
        for method in METHODS:
            if method in methods:
                yield path, method, methods[method]


def _header(name: str, what: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": what,
        "schema": {"type": "string"},
    }


# --- for people -------------------------------------------------------------------------------------


@get("/docs", include_in_schema=False, media_type=MediaType.HTML)
async def docs(request: AnyRequest) -> str:
    """The same document as a page."""
    return _page(request.app)


@cache
def _page(app: Litestar) -> str:
    schema = schema_of(app)
    topics: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, method, operation in operations(schema):
        topics.setdefault(operation["tags"][0], []).append((path, method, operation))
    structs = schema["components"]["schemas"]
    told = {
        "title": f"cronflowd {__version__}: the API", "what": WHAT, "root": PATH, "topics": topics,
        "forms": [(name, structs[name]) for name in sorted(structs) if not name.startswith(_FRAMES)],
        "kind": _kind, "content": _content, "prose": _prose,
    }  # fmt: skip
    return render("docs.html", told)


_FRAMES = ("Success_", "Listing_")


def _content(where: dict[str, Any]) -> Markup:
    kinds: dict[str, Any] = where.get("content", {})
    return _kind(next((each.get("schema", {}) for each in kinds.values()), {}))


def _kind(schema: dict[str, Any]) -> Markup:
    """What a value is, in a few words."""
    if ref := schema.get("$ref"):
        return _link(ref.rpartition("/")[2])
    if either := schema.get("oneOf") or schema.get("anyOf"):
        return Markup(" or ").join(_kind(each) for each in either)
    if words := schema.get("enum"):
        return Markup(" | ").join(map(str, words))
    kind = schema.get("type", "anything")
    if kind == "array":
        return Markup("list of ") + _kind(schema.get("items", {}))
    bounds = [f"{schema[key]:g}" for key in ("minimum", "maximum") if key in schema]
    return escape(f"{kind} ({' to '.join(bounds)})" if bounds else str(kind))


def _link(name: str) -> Markup:
    for frame in _FRAMES:
        if name.startswith(frame):
            inner = name.removeprefix(frame)
            is_list = inner.startswith("list_") or frame == "Listing_"
            inner = inner.removeprefix("list_")
            what = _link(inner) if inner.isalpha() else "object"
            return Markup("data: {}{}").format("list of " if is_list else "", what)
    return Markup('<a href="#form-{0}">{0}</a>').format(name)


def _prose(text: str) -> Markup:
    parts = re.split("`([^`]+)`", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if at % 2 else part for at, part in enumerate(parts)
    )
