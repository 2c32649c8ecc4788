"""What the API takes and answers, told to programs (OpenAPI 3.1) and to people, of the handlers themselves.

The page for people is made here, without scripts and without anything from another host.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from html import escape
from typing import Any

import msgspec
import orjson
from litestar import Litestar, MediaType, get
from litestar.enums import OpenAPIMediaType
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.openapi.spec import Components, Reference, SecurityScheme
from msgspec import Struct

from .. import __version__
from .identity import COOKIE, CSRF_HEADER, AnyRequest
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
    for path, method, operation in operations(schema):
        operation["tags"] = [path.removeprefix(PATH).split("/")[1]]
        operation["operationId"] = f"{method} {path.removeprefix(PATH)}"
        # Whatever it is about, it may be refused, and always in this form.
        operation["responses"] |= {status: each for status, each in _failures().items() if path not in PUBLIC}
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


def _failures() -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Failure"}}}
    return {str(status): {"description": why, "content": content} for status, why in ERRORS.items()}


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


@get("/docs.css", include_in_schema=False, media_type=MediaType.CSS, sync_to_thread=False)
def docs_style() -> str:
    return STYLE


STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 0 auto; padding: 1rem }
section { border-top: 1px solid #8888; margin-top: 1rem }
code, pre { font-family: ui-monospace, monospace; overflow-wrap: anywhere }
h3 code { font-weight: 600 }
dt { font-family: ui-monospace, monospace; float: left; clear: left; min-width: 14rem; padding-right: 1rem }
dd { margin-left: 15rem; min-height: 1.5em }
@media (max-width: 40rem) { dt { float: none } dd { margin-left: 1rem } }
"""


@cache
def _page(app: Litestar) -> str:
    schema = schema_of(app)
    by_topic: dict[str, list[str]] = {}
    for path, method, operation in operations(schema):
        by_topic.setdefault(operation["tags"][0], []).append(_operation(schema, path, method, operation))
    topics = "".join(f'<li><a href="#{topic}">{topic}</a></li>' for topic in by_topic)
    body = "".join(f'<h2 id="{topic}">{topic}</h2>{"".join(parts)}' for topic, parts in by_topic.items())
    structs = schema["components"]["schemas"]
    forms = "".join(_form(name, structs[name]) for name in sorted(structs) if not name.startswith(_FRAMES))
    title = f"cronflowd {__version__}: the API"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/docs.css"></head>'
        f'<body><h1>{title}</h1><p>{_prose(WHAT)} <a href="{PATH}/openapi.json">openapi.json</a></p>'
        f'<nav><ul>{topics}<li><a href="#forms">forms</a></li></ul></nav><main>{body}'
        f'<h2 id="forms">forms</h2>{forms}</main></body></html>'
    )


_FRAMES = ("Success_", "Listing_")


def _operation(schema: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    parts = [f"<section><h3><code>{method.upper()} {escape(path)}</code> {_prose(operation['summary'])}</h3>"]
    parts.append(f"<p>{_prose(operation.get('description', ''))}</p><dl>")
    for each in operation["parameters"]:
        what = " ".join([_kind(each["schema"]), each.get("description", "")])
        parts.append(f"<dt>{escape(each['name'])}</dt><dd>{_prose(what)}</dd>")
    if body := operation.get("requestBody"):
        parts.append(f"<dt>body</dt><dd>{_kind(_content(body), True)}</dd>")
    for status, answer in operation["responses"].items():
        if status < "300":
            parts.append(f"<dt>{status}</dt><dd>{_kind(_content(answer), True)}</dd>")
    return "".join([*parts, "</dl></section>"])


def _content(where: dict[str, Any]) -> dict[str, Any]:
    kinds: dict[str, Any] = where.get("content", {})
    found: dict[str, Any] = next((each.get("schema", {}) for each in kinds.values()), {})
    return found


def _form(name: str, schema: dict[str, Any]) -> str:
    rows = "".join(
        f"<dt>{escape(field)}</dt><dd>{_kind(each, True)}</dd>"
        for field, each in schema.get("properties", {}).items()
    )
    what = _prose(schema.get("description", ""))
    return f'<section><h3 id="form-{name}"><code>{name}</code></h3><p>{what}</p><dl>{rows}</dl></section>'


def _kind(schema: dict[str, Any], is_html: bool = False) -> str:
    """What a value is, in a few words."""
    if ref := schema.get("$ref"):
        name = ref.rpartition("/")[2]
        return _link(name) if is_html else name
    if either := schema.get("oneOf") or schema.get("anyOf"):
        return " or ".join(_kind(each, is_html) for each in either)
    if words := schema.get("enum"):
        return " | ".join(escape(str(word)) for word in words)
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}), is_html)}"
    bounds = [f"{schema[key]:g}" for key in ("minimum", "maximum") if key in schema]
    return f"{kind} ({' to '.join(bounds)})" if bounds else str(kind)


def _link(name: str) -> str:
    for frame in _FRAMES:
        if name.startswith(frame):
            inner = name.removeprefix(frame)
            is_list = inner.startswith("list_") or frame == "Listing_"
            inner = inner.removeprefix("list_")
            return f"data: {'list of ' if is_list else ''}" + (_link(inner) if inner.isalpha() else "object")
    return f'<a href="#form-{name}">{name}</a>'


def _prose(text: str) -> str:
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


DOCS = [docs, docs_style]
