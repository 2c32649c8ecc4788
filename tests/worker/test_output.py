"""What a job writes, as lines: whole, bounded, and the same bytes at the other end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronflowd.base.output import COLUMNS, parse_line, row_of, size_of
from cronflowd.base.replies import format_row
from cronflowd.net.lines import MAX_LINE_BYTES
from cronflowd.worker.executors.output import CHUNK_BYTES, MAX_TEXT_BYTES, Output, format_output
from tests.lib.out_lines import bytes_of, take_all, texts_of

MEBIBYTE = 1024 * 1024


@pytest.fixture
def small() -> Output:
    """An output that keeps 100 bytes of its head and 100 of its tail."""
    return Output("7", 200)


def test_lines_go_out_as_they_come_and_parts_of_lines_wait(small: Output) -> None:
    """A line cut where the pipe happened to end would be no line of the job."""
    small.feed(1, b"one\ntw")
    small.feed(2, b"err\n")
    assert texts_of(take_all(small)) == ["1 one", "2 err"]
    small.feed(1, b"o\nlast")
    assert texts_of(take_all(small)) == ["1 two"]
    small.end()
    assert texts_of(take_all(small)) == ["1 last\\"]


def test_a_flood_is_told_by_its_head_its_tail_and_what_is_missing(small: Output) -> None:
    """The head tells what it was about, the tail how it ended."""
    lines = [f"{number:09d}".encode() for number in range(100)]
    for line in lines:
        small.feed(1, line + b"\n")
    assert texts_of(take_all(small)) == [f"1 {line.decode()}" for line in lines[:10]]
    small.end()
    remark, *tail = texts_of(take_all(small))
    assert remark == f"0 … {small.omitted} bytes omitted …"
    assert tail == [f"1 {line.decode()}" for line in lines[-10:]]
    assert small.omitted == 800


def test_output_that_just_fits_is_whole_and_in_order(small: Output) -> None:
    """No remark where nothing is missing."""
    for number in range(20):
        small.feed(1 + number % 2, f"{number:09d}\n".encode())
    small.end()
    assert texts_of(take_all(small)) == [f"{1 + number % 2} {number:09d}" for number in range(20)]
    assert small.omitted == 0


def test_what_a_run_holds_is_bounded_whatever_it_writes() -> None:
    """While the link is cut a job may write gigabytes, in pieces of any size."""
    for piece in (b"\n", b"x" * 65536, b"y\n" * 30000, b"half a line without end"):
        output = Output("7", MEBIBYTE)
        for number in range(4 * MEBIBYTE // len(piece) // 2 if len(piece) > 1 else 100_000):
            output.feed(1 + number % 2, piece)
        held = [*output._waiting, *output._tail]
        assert sum(len(chunk) for _, chunk in held) <= MEBIBYTE + 2 * 65536 + CHUNK_BYTES
        assert len(held) < 20_000


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=60)), max_size=40),
    st.integers(0, 400),
)
def test_what_is_kept_and_what_is_omitted_are_all_there_was(
    pieces: list[tuple[int, bytes]], limit: int
) -> None:
    """The remark must be true: nothing is lost silently and nothing is told twice."""
    output = Output("7", limit)
    for fd, piece in pieces:
        output.feed(fd, piece)
    output.end()
    kept = {1: b"", 2: b""}
    remarks = 0
    for fd, chunk in output._waiting:
        if fd == 0:
            remarks += 1
        else:
            kept[fd] += chunk
    written = sum(len(piece) for _, piece in pieces)
    assert len(kept[1]) + len(kept[2]) + output.omitted == written
    assert len(kept[1]) + len(kept[2]) <= limit
    assert remarks == (output.omitted > 0)
    if not output.omitted:
        for fd in (1, 2):
            assert kept[fd] == b"".join(piece for of, piece in pieces if of == fd)


@given(
    st.lists(
        st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"\0", b"\\", b"\xc3", b"\xa9", b"\xff"]), max_size=30
    )
)
def test_any_bytes_travel_as_lines_and_come_back(pieces: list[bytes]) -> None:
    """Output is whatever it is; the line around it must stay one line of UTF-8."""
    data = b"".join(pieces)
    text = format_output("7", 1, data)
    assert "\r" not in text
    assert {1: data} == bytes_of(text) or not data


@pytest.mark.parametrize("unit", [b"x", b"\xff", b"\0", "€".encode(), "\u2028".encode(), "😀".encode()])
def test_a_line_too_long_is_cut_between_characters(unit: bytes) -> None:
    """Every piece must fit on the wire however long its escapes are, and none cuts a character."""
    data = unit * (100_000 // len(unit))
    output = Output("7", MEBIBYTE)
    for at in range(0, len(data), 4099):
        output.feed(1, data[at : at + 4099])
    output.end()
    text = take_all(output)
    lines = [parse_line(1, line.removeprefix("OUT 7 1 ")) for line in text.splitlines()]
    rows = [format_row(COLUMNS, row_of(line), as_json) for line in lines for as_json in (False, True)]
    assert all(len(line.encode()) < MAX_LINE_BYTES for line in [*rows, *text.splitlines()])
    assert len(lines) < 4 * len(data) / MAX_TEXT_BYTES + 2
    assert bytes_of(text) == {1: data}
    assert unit == b"\xff" or all("\\udc" not in line[1] for line in lines)


@pytest.mark.parametrize("size", [1, MAX_TEXT_BYTES, MAX_TEXT_BYTES + 1, 300_000, MEBIBYTE - 1, MEBIBYTE])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r", b"\r\n"])
def test_a_line_of_any_length_within_the_limit_is_whole(size: int, end: bytes) -> None:
    """JSON is one line, and whoever parses it has no use for most of it."""
    data = b"x" * (size - len(end)) + end
    output = Output("7", MEBIBYTE)
    for at in range(0, len(data), 65536):
        output.feed(1, data[at : at + 65536])
    output.end()
    assert (bytes_of(take_all(output)), output.omitted) == ({1: data}, 0)


def test_a_carriage_return_is_a_place_to_cut(small: Output) -> None:
    """A progress bar moves; a newline that a carriage return stands before ends one line, not two."""
    small.feed(1, b"10%\r20%\r")
    assert texts_of(take_all(small)) == ["1 10%\\r\\"]
    small.feed(1, b"30%\r")
    assert texts_of(take_all(small)) == ["1 20%\\r\\"]
    small.feed(1, b"\ndos\r\n")
    assert texts_of(take_all(small)) == ["1 30%\\r", "1 dos\\r"]


def test_what_has_no_end_is_shown_when_it_is_old_and_goes_on_where_it_was_cut() -> None:
    """The question that a job hangs at; dots, one by one; and half a character of a slow writer."""
    now, watched = 0.0, 0

    def watch(_: Output) -> None:
        nonlocal watched
        watched += 1

    output = Output("7", 200, on_unfinished=watch, now=lambda: now)
    output.feed(1, b"whole\n")
    assert (output.unfinished_since, watched) == (None, 0)
    output.feed(1, b"Pass")
    now = 5.0
    output.feed(1, b"word: caf\xc3")
    output.feed(2, b".")
    assert (output.unfinished_since, watched) == (0.0, 1)
    take_all(output)
    output.show(4.0)
    assert texts_of(take_all(output)) == ["1 Password: caf\\"]
    output.feed(1, b"\xa9\n")
    output.show(4.9)
    assert (texts_of(take_all(output)), output.unfinished_since) == (["1 é"], 5.0)
    output.feed(2, b".\xe9")
    output.show(5.0)
    assert texts_of(take_all(output)) == ["2 ..\\"]
    output.show(5.0)
    assert (texts_of(take_all(output)), output.unfinished_since) == (["2 \\udce9\\"], None)


PIECES = st.lists(
    st.tuples(st.sampled_from([1, 2]), st.sampled_from([b"a", b"\\", b"\n", b"\xc3", b"\xa9\n", b"\r"]))
)


@given(
    PIECES,
    st.integers(0, 60),
    st.integers(0, 60),
)
def test_output_that_broke_off_goes_on_where_it_arrived(
    pieces: list[tuple[int, bytes]], confirmed: int, arrived: int
) -> None:
    """The daemon tells only how many characters it has; rows that it has not come again, each once."""
    output = Output("7", 60)
    for fd, piece in pieces:
        output.feed(fd, piece)
    output.end()
    chunks = [output.take(1) for _ in range(len(pieces) + 2)]
    lines = "".join(chunks).splitlines(keepends=True)
    output.confirm(min(confirmed, len([chunk for chunk in chunks if chunk])))
    sizes = [size_of([parse_line(1, line[8:-1])]) if line[6] != "0" else 0 for line in lines]
    at = min(len(lines), max(arrived, len("".join(chunks[:confirmed]).splitlines())))
    output.resume(sum(sizes[:at]))
    again = take_all(output).splitlines(keepends=True)
    # A remark between them says nothing of how far it came, and may come twice.
    assert again in (lines[at:], lines[max(0, at - 1) :])
    assert again == lines[at:] or again[0].startswith("OUT 7 0")


@given(PIECES, st.integers(0, 20), st.integers(0, 20), st.integers(0, 60))
def test_whoever_comes_after_goes_on_with_it_as_the_one_who_took_it(
    pieces: list[tuple[int, bytes]], taken: int, confirmed: int, arrived: int
) -> None:
    """From its lines in the spool, wherever the other one broke off; with a link again and again."""
    output = Output("7", 60)
    for fd, piece in pieces:
        output.feed(fd, piece)
    output.end()
    sent = "".join(output.take(1) for _ in range(taken)).splitlines()
    output.confirm(confirmed)
    heir = Output.kept("7", *output.extent, output.unheard().splitlines())
    assert (heir.extent, heir.unheard()) == (output.extent, output.unheard())
    had = size_of([parse_line(int(line[6]), line[8:]) for line in sent[:arrived] if line[6] != "0"])
    output.resume(max(output.extent[0], had))
    heir.resume(max(heir.extent[0], had))
    remarks = [line for line in texts_of(heir.unheard()) if line.startswith("0 …")]
    assert len(remarks) == (output.omitted > 0 and any(line[0] == "0" for line in texts_of(output.unheard())))
    assert bytes_of(heir.unheard()) == bytes_of(output.unheard())


@pytest.mark.parametrize(("had", "missing"), [(2, 7), (5, 4), (9, 0)])
def test_what_a_killed_worker_could_not_send_is_told_by_its_number(had: int, missing: int) -> None:
    """It had noted only how much there was: a log that just ends would look as if that were all."""
    output = Output.kept("7", 2, 9, [])
    output.resume(had)
    told = f"0 … {missing} characters are missing: the worker was killed before it had sent them …"
    assert texts_of(take_all(output)) == [told] * (missing > 0)
    output.resume(had)
    assert texts_of(take_all(output)) == [told] * (missing > 0)
