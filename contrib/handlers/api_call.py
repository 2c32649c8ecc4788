"""Calls an HTTP interface, JSON in and out, and tries again when it is the other side's fault.

    ADD type=custom payload={"url":"https://api.example.org/v1/refresh","method":"POST",
        "json":{"all":true},"headers_env":{"Authorization":"API_AUTH"}} @hourly api_call

    url          http:// or https://
    method       GET, or POST where there is `json`
    json         what is sent, as JSON
    headers      {"name": "text"}
    headers_env  {"name": "VARIABLE"}: the text is in a variable that the worker passes on (--pass-env
                 VARIABLE), or in env.VARIABLE=; so no secret has to stand in a task
    expect       the statuses that are good, [200, 201, 202, 204] by default
    retries      3: how often it is tried again after a 5xx, or if there was no answer
    delay        1: seconds before that, doubled each time
    timeout      30: seconds for each attempt

The result is {"status": …, "body": …}, the body as JSON if it is some. Redirects are not followed:
they could carry the secret elsewhere. Proxies are those of the environment (`HTTPS_PROXY` and the like,
if they are passed on), which type=http does not use. `Idempotency-Key` is the same in all attempts of a
fire, so that a server which knows this header does nothing twice.
"""

import json
import os
import time
import urllib.error
import urllib.request

MAX_ANSWER_BYTES = 1024 * 1024


def handle(data, context):
    request = make_request(data, context)
    retries, delay = data.get("retries", 3), data.get("delay", 1)
    for attempt in range(1, retries + 2):
        try:
            status, body = send(request, data.get("timeout", 30))
            trouble = f"status {status}" if status >= 500 else ""
        except OSError as error:  # urllib's errors are of this kind too
            trouble = str(getattr(error, "reason", error))
        if not trouble:
            break
        context.log(f"attempt {attempt}: {trouble}")
        if attempt > retries:
            raise RuntimeError(f"{request.full_url}: {trouble}, {attempt} times")
        wait(delay, context)
        delay *= 2
    if status not in data.get("expect", [200, 201, 202, 204]):
        raise RuntimeError(f"{request.full_url}: status {status}: {body[:200]!r}")
    return {"status": status, "body": parse(body)}


def make_request(data, context):
    url = data["url"]
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError(f"{url}: only http:// and https:// are called")
    body = json.dumps(data["json"]).encode() if "json" in data else None
    headers = {"Accept": "application/json", "Idempotency-Key": context.fire_id}
    if body is not None:
        headers["Content-Type"] = "application/json"
    headers |= data.get("headers", {})
    for name, variable in data.get("headers_env", {}).items():
        if variable not in os.environ:
            raise ValueError(f"the variable {variable}, for the header {name}, is not set")
        headers[name] = os.environ[variable]
    method = data.get("method", "GET" if body is None else "POST")
    return urllib.request.Request(url, body, headers, method=method)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def send(request, timeout):
    """Status and body of the answer; OSError if there was none."""
    try:
        with urllib.request.build_opener(NoRedirect).open(request, timeout=timeout) as answer:
            return answer.status, answer.read(MAX_ANSWER_BYTES)
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.read(MAX_ANSWER_BYTES)


def wait(seconds, context):
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        context.check_cancelled()
        time.sleep(min(left, 0.2))


def parse(body):
    text = body.decode(errors="replace")
    try:
        return json.loads(text)
    except ValueError:
        return text
