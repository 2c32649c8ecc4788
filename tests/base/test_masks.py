"""What must not be shown, in whatever pieces it comes."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronflowd.base.masks import Mask
from tests.lib.calls import counting

VALUES = st.text(min_size=1, max_size=40).map(str.encode).filter(bytes.strip)
SOME = st.sampled_from([b"a", b"aab", b"abaab", b".*", b"\n", b"line 1\nline 2\n", b'say "x"\\', b"\xc3\xbc"])


@given(st.data())
def test_no_cut_makes_a_difference(data: st.DataObject) -> None:
    """Output comes in pieces as the kernel and the link please; half a password is none the less one."""
    values = data.draw(st.lists(VALUES | SOME.filter(bytes.strip), min_size=1, max_size=3))
    mask = Mask((f"s{number}", value) for number, value in enumerate(values))
    text = b"".join(data.draw(st.lists(st.sampled_from(values) | SOME | st.binary(max_size=5), max_size=12)))
    whole, rest = mask.hide(text, True)
    assert rest == b""
    shown, held, at = b"", b"", 0
    for cut in sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8))):
        more, held = mask.hide(held + text[at:cut], False)
        shown, at = shown + more, cut
        assert not any(
            value.strip() in more for value in values if value.strip() not in b"[secret:0123456789]"
        )
    assert shown + mask.hide(held + text[at:], True)[0] == whole


@given(st.binary(max_size=200))
def test_what_holds_no_value_is_left_byte_for_byte(text: bytes) -> None:
    """A log that was changed where nothing is secret would be worse than none."""
    assert Mask([("x", b"no such value")]).hide(text, True) == (text, b"")


@pytest.mark.parametrize(
    "form",
    [
        json.dumps('p"w\n&ü+/long')[1:-1],
        json.dumps('p"w\n&ü+/long', ensure_ascii=False)[1:-1],
        quote('p"w\n&ü+/long', safe=""),
        'p"w\r\n&ü+/long',
        "&ü+/long",  # a line of it alone
    ],
)
def test_it_is_found_as_encoders_write_it(form: str) -> None:
    """A server that answers with the request it got writes it as JSON does."""
    assert Mask([("x", 'p"w\n&ü+/long\n'.encode())]).hide_text(f"<{form}>") == "<[secret:x]>"


@pytest.mark.parametrize("before", ["", "u", "us", "use"])
@pytest.mark.parametrize("encode", [b64encode, urlsafe_b64encode])
def test_it_is_found_in_base64_wherever_it_stands(before: str, encode: object) -> None:
    """Basic authentication puts a name before it; the bytes beside it change what it looks like."""
    assert callable(encode)
    value = "\xbf\xff>>hunter2 is my password"
    text = encode(f"{before}:{value} and more".encode()).decode()
    hidden = Mask([("x", value.encode())]).hide_text(text)
    assert "[secret:x]" in hidden
    assert len(hidden) - len("[secret:x]") < len(text) - len(value)


def test_what_is_masked_already_stays_as_it_is() -> None:
    """The worker does it, for its own files, and the daemon again, for workers that do not."""
    mask = Mask([("db", b"db"), ("secret", b"secret:")])
    once = mask.hide_text("db secret: x")
    assert once == "[secret:db] [secret:secret] x"
    assert mask.hide_text(once) == once


def test_the_longest_goes_first() -> None:
    """Of two values of which one begins the other, the rest of the longer would be left."""
    mask = Mask([("short", b"hunter"), ("long", b"hunter2-again")])
    assert mask.hide(b"hunter2-aga", False) == (b"", b"hunter2-aga")
    assert mask.hide(b"hunter2-again hunter", True) == (b"[secret:long] [secret:short]", b"")


def test_a_key_file_makes_a_flood_of_output_no_dearer() -> None:
    """The daemon looks through all that such jobs write, and nobody else is served meanwhile."""
    value = b"\n".join(f"{number * 7919:064x}".encode() for number in range(200))
    mask, text = Mask([("key", value)]), b"what a job writes, line by line\n" * 3000
    with counting() as calls:
        assert mask.hide(text, False) == (text, b"")
    assert calls[0] < 50
