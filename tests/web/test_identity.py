"""Who asks: what is believed, what is not, and what a page of another site can make a browser do."""

from __future__ import annotations

import base64
import hashlib
import hmac
import multiprocessing
import os
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio
from litestar import Litestar, Request, route
from litestar.datastructures import State

from cronflowd.base.errors import Fatal
from cronflowd.host.clock import wall_now
from cronflowd.host.config import WebSettings
from cronflowd.web import envelope
from cronflowd.web.guard import Limits
from cronflowd.web.identity import COOKIE, Identity, SignedIn, caller_of, make_identity
from tests.lib.asgi import Browser, Response

KEY = b"k" * 64
ANN = SignedIn("ann", 7)


@route("/who", http_method=["GET", "POST", "PUT", "PATCH", "DELETE"], status_code=200)
async def who(request: Request[Any, Any, Any]) -> str:
    return b"; ".join((await caller_of(request)).words).decode()


def a_browser(key: bytes = KEY, **cookies: str) -> Browser:
    app = Litestar(
        [who],
        state=State({"identity": Identity(key, False), "account_limits": Limits(99, 99)}),
        openapi_config=None,
    )
    app.exception_handlers[envelope.Refused] = envelope.on_error  # type: ignore[assignment]
    return Browser(app, "192.0.2.7", cookies=cookies)


def shown(key: bytes = KEY, for_s: float = 900, who: SignedIn = ANN) -> str:
    return Identity(key, False).sign(who, for_s, wall_now())


def ask(browser: Browser, method: str = "GET", **more: Any) -> Response:
    return trio.run(lambda: browser.ask(method, "/who", **more))


def forged(header: dict[str, Any], claims: dict[str, Any], key: bytes = KEY) -> str:
    """A token made by hand, rightly signed by SHA-256 under `key`."""
    parts = [base64.urlsafe_b64encode(orjson.dumps(part)).rstrip(b"=") for part in (header, claims)]
    signature = hmac.new(key, b".".join(parts), hashlib.sha256).digest()
    return b".".join((*parts, base64.urlsafe_b64encode(signature).rstrip(b"="))).decode()


def test_an_access_token_names_the_account_and_its_session() -> None:
    """The daemon is asked about the session with every request, so an ended one counts no more."""
    answer = ask(a_browser(), authorization=f"Bearer {shown()}")
    assert (answer.status, answer.text) == (200, "AS ann from=192.0.2.7 session=7")
    assert ask(a_browser(), authorization=f"bearer  {shown()} ").text == answer.text


def test_a_word_that_is_no_jwt_is_shown_to_the_daemon() -> None:
    """API tokens are its to know."""
    assert ask(a_browser(), authorization="Bearer 12ab").text == "AS from=192.0.2.7; AUTH 12ab"


NOW = 4_000_000_000
WHOLE = {"sub": "ann", "sid": 7, "exp": NOW}
HS256 = {"alg": "HS256", "typ": "JWT"}


@pytest.mark.parametrize(
    "token",
    [
        forged({"alg": "none"}, WHOLE), forged({"alg": "none"}, WHOLE).rpartition(".")[0] + ".",
        forged({"alg": "HS384"}, WHOLE), forged({"alg": "RS256"}, WHOLE),
        forged(HS256, WHOLE, b"x" * 64), forged(HS256, WHOLE)[:-2] + "AA", forged(HS256, WHOLE, b""),
        forged(HS256 | {"crit": ["x"], "x": 1}, WHOLE), forged(HS256, {"sub": "ann", "sid": 7}),
        forged(HS256, WHOLE | {"exp": 1}), forged(HS256, WHOLE | {"exp": True}),
        forged(HS256, WHOLE | {"exp": None}), forged(HS256, WHOLE | {"exp": str(NOW)}),
        forged(HS256, WHOLE | {"exp": 1e400}), forged(HS256, WHOLE | {"sid": "7 from=1.2.3.4"}),
        forged(HS256, WHOLE | {"sid": True}), forged(HS256, WHOLE | {"sub": ["ann"]}),
        forged(HS256, [1]), "eyJ..", "eyJhbGciOiJIUzI1NiJ9..", "eyJ" + "a" * 3000 + "." + "b" * 3000 + ".c",
        shown(for_s=-1), shown(b"x" * 64),
    ],
)  # fmt: skip
def test_a_token_that_we_have_not_made_or_that_is_over_is_nobodys(token: str) -> None:
    """Each is a way that has let strangers in elsewhere; the last is of a key that was changed."""
    assert ask(a_browser(), authorization=f"Bearer {token}").error == (401, "auth-required")
    assert ask(a_browser(**{COOKIE: token})).error == (401, "auth-required")


def test_what_is_whole_is_taken() -> None:
    """So that the refusals above are of what they say."""
    assert ask(a_browser(), authorization=f"Bearer {forged(HS256, WHOLE)}").status == 200


@pytest.mark.parametrize(
    "header",
    ["Bearer", "Bearer ", "Basic YW5uOng=", "Bearer ann correct-horse", "Bearer a\tb", "Bearer \xe4"],
)
def test_only_one_word_is_a_token(header: str) -> None:
    """`AUTH ann correct-horse` would be a password, guessed at without the limits of signing in."""
    assert ask(a_browser(), authorization=header).error == (401, "auth-required")


def test_nobody_is_told_how_to_sign_in() -> None:
    """A 401 says which way it wants."""
    answer = ask(a_browser())
    assert answer.error == (401, "auth-required")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_cookie_alone_reads_and_changes_nothing() -> None:
    """A page of another site can have a browser send it, and cannot read what goes besides."""
    browser, csrf = a_browser(**{COOKIE: shown()}), Identity(KEY, False).csrf(ANN)
    assert ask(browser).text == "AS ann from=192.0.2.7 session=7"
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for wrong in ({}, {"x_csrf_token": ""}, {"x_csrf_token": csrf[:-1]}, {"x_csrf_token": "\xe4"}):
            assert ask(browser, method, **wrong).error == (403, "denied")
        assert ask(browser, method, x_csrf_token=csrf).status == 200
    assert ask(browser, "POST", form={"csrf": csrf}).status == 200
    assert ask(browser, "POST", form={"csrf": "x"}).error == (403, "denied")
    assert ask(browser, "POST", json={"csrf": csrf}).error == (403, "denied")


def test_the_second_word_is_of_one_session() -> None:
    """Whoever has an account of his own must not be able to use his word with another's cookie."""
    other = Identity(KEY, False).csrf(SignedIn("ann", 8))
    assert ask(a_browser(**{COOKIE: shown()}), "POST", x_csrf_token=other).error == (403, "denied")


def test_what_the_header_says_goes_before_the_cookie() -> None:
    """A program in a browser says whom it means; a wrong word does not fall back to somebody else."""
    browser = a_browser(**{COOKIE: shown()})
    assert ask(browser, authorization="Bearer 12ab").text == "AS from=192.0.2.7; AUTH 12ab"
    assert ask(browser, authorization="Bearer x y").error == (401, "auth-required")


def test_a_cookie_is_out_of_the_reach_of_scripts_and_other_sites(tmp_path: Path) -> None:
    """And travels by TLS alone where people come by TLS."""
    for url, is_tls in (None, False), ("http://a.example", False), ("https://a.example", True):
        identity = make_identity(WebSettings(data=tmp_path, http_url=url))
        said = identity.cookie(ANN, wall_now()).to_header(header="")
        flags = {part.strip().lower() for part in said.split(";")[1:]}
        assert {"httponly", "samesite=strict", "path=/", "max-age=604800"} <= flags
        assert ("secure" in flags) is is_tls


# --- the key ------------------------------------------------------------------------------------


def test_the_key_is_made_once_and_nobody_else_reads_it(tmp_path: Path) -> None:
    """Whoever has it is everybody."""
    settings = WebSettings(data=tmp_path / "new")
    made = make_identity(settings).sign(ANN, 60, wall_now())
    assert make_identity(settings).read(made, wall_now()) == ANN
    (key,) = (tmp_path / "new").iterdir()
    assert (key.name, stat.S_IMODE(key.stat().st_mode)) == ("web.key", 0o600)


def test_a_key_that_others_may_write_or_that_is_short_is_refused(tmp_path: Path) -> None:
    """An empty one, as a full disk leaves it, would sign for anybody."""
    settings, path = WebSettings(data=tmp_path), tmp_path / "web.key"
    for text, mode, why in (
        ("", 0o600, "shorter"),
        ("x" * 31, 0o600, "shorter"),
        ("x" * 64, 0o666, "change"),
    ):
        path.write_text(text)
        path.chmod(mode)
        with pytest.raises(Fatal, match=why):
            make_identity(settings)


def test_all_nodes_of_a_cluster_have_one_key(tmp_path: Path) -> None:
    """Whoever had signed in at one was a stranger at the next, and behind a balancer at every other page."""
    nodes = [make_identity(WebSettings(data=tmp_path / name), b"k" * 64) for name in "ab"]
    assert nodes[1].read(nodes[0].sign(ANN, 60, wall_now()), wall_now()) == ANN
    assert not list(tmp_path.iterdir())


def _sign(data: Path, start: Any) -> str:
    start.wait()
    return make_identity(WebSettings(data=data)).sign(ANN, 60, wall_now() + timedelta(days=1))


def test_processes_that_start_at_once_have_one_key(tmp_path: Path) -> None:
    """Two of them sign out everybody whom the other one lets in."""
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager, context.Pool(8) as pool:
        for each in range(10):
            start = manager.Barrier(8)
            data = tmp_path / str(each)
            made = pool.starmap(_sign, [(data, start)] * 8)
            identity = make_identity(WebSettings(data=data))
            assert all(identity.read(token, wall_now()) == ANN for token in made)
            assert os.listdir(data) == ["web.key"]
