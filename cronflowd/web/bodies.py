"""Why what was sent is none of what is taken, in words by which it can be mended."""

from __future__ import annotations

import re
from typing import Any

from msgspec import inspect

from ..base.nearest import meant

# What other schedulers call our fields, in lower case.
_ALSO = {
    "cronExpression": "cron cron_expression expression", "scheduledAt": "runat run_at startat date",
    "timezone": "tz zone", "onWorker": "on worker workerid agent agentid agent_id", "description": "desc",
    "maxRetries": "retries attempts maxattempts maxretryattempts", "priority": "prio",
    "retryPolicy": "retry backoff retrydelay retrydelayms", "delayMs": "delay", "maxDelayMs": "maxdelay cap",
    "notify": "notifications notifyonfailure notifyoncompletion email", "metadata": "meta",
    "dependencies": "after dependson depends_on",
    "payload": "args params config commandargs http script url method headers body to subject text handler",
    "data": "payload args", "password": "newpassword", "why": "reason",
}  # fmt: skip


def explain(kind: Any, message: str, path: str | None) -> tuple[str, str | None]:
    """What msgspec says of what stands at a path in a value that was to be of this type; and the field."""
    if found := re.search("unknown field `(.*)`", message):
        known = [each.encode_name for part in _at(kind, path) for each in getattr(part, "fields", ())]
        field = f"{path}.{found[1][:80]}" if path else found[1][:80]
        return f'there is no field "{field}"' + meant(found[1], known, _ALSO), field
    if found := re.search("missing required field `(.*)`", message):
        return f"no {found[1]}", f"{path}.{found[1]}" if path else found[1]
    if found := re.search("Invalid enum value '(.*)'", message, re.DOTALL):
        words = [str(word) for part in _at(kind, path) for word in getattr(part, "values", ())]
        return f'"{found[1][:80]}" is not one of {", ".join(words)}' + meant(found[1], words), path
    return message, path and path.removesuffix("[...]")  # any of an object's values: nobody says which


def _at(kind: Any, path: str | None) -> list[inspect.Type]:
    """The types that may stand there."""
    found = _parts(inspect.type_info(kind))
    for name in path.split(".") if path else ():
        found = [
            part
            for each in found
            for field in getattr(each, "fields", ())
            if field.encode_name == name
            for part in _parts(field.type)
        ]
    return found


def _parts(kind: inspect.Type) -> list[inspect.Type]:
    return list(kind.types) if isinstance(kind, inspect.UnionType) else [kind]
