"""That both know a token is shown without saying it; an order counts once, unchanged, soon, in its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cronflowd.base.proofs import (
    DAEMON,
    MAX_AGE_S,
    WORKER,
    Check,
    Forged,
    Handshake,
    Seal,
    key_name,
    key_of,
)

PROTOCOL = (Path(__file__).parents[2] / "protocol.md").read_text(encoding="utf-8")
KEY = key_of(b"correct-horse-battery-staple")
HANDSHAKE = Handshake(KEY, "pi", "00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100")
LINES = [
    'RUN 7 1 due=2030-01-01T12:00:00Z fire=1/2030-01-01T12:00:00Z type=shell task=1 env.A="b c" :echo "hi" é',
    "KILL 7 1",
    "RUN 8 2 type=echo task=2 name=a :mac=00 n=1 at=1.000",
]  # fmt: skip


def check(handshake: Handshake = HANDSHAKE) -> Check:
    return Check(handshake, begun_s=50.0)


def sealed(count: int = 1, line: str = LINES[0]) -> str:
    """The last of so many orders of a session, all given 3 s after it began."""
    seal = Seal(HANDSHAKE, begun_s=1000.0)
    return [seal.seal(line, 1003.0) for _ in range(count)][-1]


def code_of(line: str, by: Check, now_s: float = 53.0) -> str:
    """Why an order is refused; `ok` where it is not."""
    try:
        by.open(line, now_s)
    except Forged as forged:
        return forged.code
    return "ok"


def test_the_numbers_of_the_reference_are_what_we_compute() -> None:
    """Somebody writes a worker by them, in another language."""
    seal = Seal(HANDSHAKE, 0.0)
    seal.count = 1
    for number in (
        KEY.hex(), key_name(KEY), HANDSHAKE.proof(DAEMON), HANDSHAKE.proof(WORKER),
        HANDSHAKE.session_key.hex(), seal.seal("KILL 7 1", 4.5),
    ):  # fmt: skip
        assert re.search(rf"^\| .* \| `{re.escape(number)}` \|$", PROTOCOL, re.MULTILINE)


def test_a_proof_is_of_one_side_one_worker_and_one_session() -> None:
    """Whoever hears one, or has the daemon give him some, can show it nowhere else."""
    proof = HANDSHAKE.proof(WORKER)
    assert HANDSHAKE.is_proof(WORKER, proof)
    others = [
        Handshake(key_of(b"guess"), "pi", HANDSHAKE.its_nonce, HANDSHAKE.our_nonce),
        Handshake(KEY, "pj", HANDSHAKE.its_nonce, HANDSHAKE.our_nonce),
        Handshake(KEY, "pi", "0" * 32, HANDSHAKE.our_nonce),
        Handshake(KEY, "pi", HANDSHAKE.its_nonce, "0" * 32),
        Handshake(KEY, "pi", HANDSHAKE.our_nonce, HANDSHAKE.its_nonce),
    ]
    assert not any(each.is_proof(WORKER, proof) for each in others)
    assert not HANDSHAKE.is_proof(DAEMON, proof)
    assert not any(
        HANDSHAKE.is_proof(WORKER, text) for text in ("", proof[:-1], proof.upper(), "é", proof + " ")
    )


@pytest.mark.parametrize("line", LINES)
def test_what_was_sealed_is_opened_as_it_was(line: str) -> None:
    """Not a byte of a command may be another."""
    assert check().open(sealed(line=line), 53.0) == line.partition(" ")[2]


def test_each_order_of_a_session_counts_once_and_in_its_place() -> None:
    """A cleanup that is repeated is as bad as one that was never asked for."""
    seal, by = Seal(HANDSHAKE, 0.0), check()
    first, second, third, fourth, fifth = [seal.seal(LINES[0], 1.0) for _ in range(5)]
    told = [code_of(line, by, 51.0) for line in (first, first, second, fourth, third, fifth, first)]
    assert told == ["ok", "replayed", "ok", "out-of-order", "replayed", "ok", "replayed"]


@pytest.mark.parametrize(("late_s", "code"), [(0.0, "ok"), (MAX_AGE_S, "ok"), (MAX_AGE_S + 0.01, "expired")])
def test_an_order_that_was_kept_back_expires(late_s: float, code: str) -> None:
    """What was right to do an hour ago may be the worst that can be done now."""
    assert code_of(sealed(), check(), 53.0 + late_s) == code


def test_an_order_looks_never_younger_than_it_is() -> None:
    """The worker counts from its HELLO, before the daemon began to, however slow the way was."""
    hello_took_s = 9.0
    by = Check(HANDSHAKE, begun_s=50.0 - hello_took_s)
    assert code_of(sealed(), by, 53.0 + MAX_AGE_S - hello_took_s + 0.01) == "expired"


def test_an_order_for_another_worker_or_session_is_refused() -> None:
    """The order to empty the test machine's disk is a good one, and was not for this machine."""
    for other in (
        Handshake(KEY, "pj", HANDSHAKE.its_nonce, HANDSHAKE.our_nonce),
        Handshake(KEY, "pi", "0" * 32, HANDSHAKE.our_nonce),
        Handshake(key_of(b"another"), "pi", HANDSHAKE.its_nonce, HANDSHAKE.our_nonce),
    ):
        assert code_of(sealed(), check(other)) == "altered"


EDITS = st.tuples(
    st.sampled_from(["insert", "delete", "replace", "swap", "copy"]),
    st.integers(0, 400),
    st.integers(0, 400),
    st.characters(blacklist_characters="\n", blacklist_categories=["Cs"]),
)


def edited(line: str, how: str, at: int, to: int, character: str) -> str:
    at, to = at % (len(line) or 1), to % (len(line) or 1)
    low, high = sorted((at, to))
    return {
        "insert": line[:at] + character + line[at:],
        "delete": line[:low] + line[high + 1 :],
        "replace": line[:at] + character + line[at + 1 :],
        "swap": line[:low] + line[high:] + line[low:high],
        "copy": line[:at] + line[low:high] + line[at:],
    }[how]


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(LINES), st.lists(EDITS, min_size=1, max_size=3))
def test_of_a_thousand_altered_orders_none_is_opened(
    line: str, edits: list[tuple[str, int, int, str]]
) -> None:
    """Every byte of an order is covered, its seal's own too."""
    whole = forged = sealed(line=line)
    for edit in edits:
        forged = edited(forged, *edit)
    assume(forged != whole)
    by = check()
    assert code_of(forged, by) in ("altered", "unsealed")
    assert code_of(whole, by) == "ok"  # and the right one still counts


def test_a_signature_is_by_the_key_and_of_this_session() -> None:
    """Whoever has the token has all that a MAC takes, and could keep orders of before."""
    signed: list[bytes] = []

    def sign(text: bytes) -> bytes:
        signed.append(text)
        return text[:64].ljust(64)

    def is_signed(signature: bytes, text: bytes) -> bool:
        return signature == text[:64].ljust(64) and text in signed

    line = Seal(HANDSHAKE, 1000.0, sign).seal(LINES[0], 1003.0)
    again = Handshake(KEY, "pi", "0" * 32, HANDSHAKE.our_nonce)
    assert code_of(line, Check(HANDSHAKE, 50.0, is_signed)) == "ok"
    assert code_of(sealed(), Check(HANDSHAKE, 50.0, is_signed)) == "unsigned"
    assert code_of(line, Check(HANDSHAKE, 50.0)) == "ok"  # who was given no key takes it by its MAC
    signature = re.search(" sig=[^ ]+", line)
    assert signature
    forged = Seal(again, 1000.0).seal(LINES[0], 1003.0)
    with_old = re.sub(r"( mac=[0-9a-f]{64})", rf"\g<1>{signature[0]}", forged)
    assert code_of(with_old, Check(again, 50.0, is_signed)) == "forged"
