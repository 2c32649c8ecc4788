"""Telnet's own bytes taken out of what a person typed, and every option declined (RFC 854).

A telnet client may begin by negotiating. Nothing is agreed to, so from then on it sends
and shows plain lines, which is all that the control port speaks.
"""

from __future__ import annotations

IAC, SB, SE = 0xFF, 0xFA, 0xF0
WILL, WONT, DO, DONT = 0xFB, 0xFC, 0xFD, 0xFE
SLICE_BYTES = 4096
MAX_OPTION = 47  # the options in use; higher numbers in their place are somebody's letters


class Telnet:
    """Takes telnet's negotiation out of the input and declines every option (RFC 854)."""

    def __init__(self) -> None:
        self._rest = b""  # the beginning of a sequence whose end has not come
        self._is_inside = False  # a subnegotiation, of which nothing matters but its end

    @staticmethod
    def greeted_by(data: bytes) -> Telnet | None:
        """A Telnet, if these bytes at a line's start begin a negotiation and not just a bad line."""
        if data[:1] != b"\xff" or len(data) < 2:
            return None
        if WILL <= data[1] <= DONT:
            is_telnet = len(data) > 2 and data[2] <= MAX_OPTION and data[2] not in b"\r\n"
        else:
            is_telnet = data[1] == SB or (SE < data[1] < SB and data[2:3] in (b"", b"\xff"))
        return Telnet() if is_telnet else None

    def strip(self, data: bytes) -> tuple[bytes, bytes]:
        """What the person wrote, and our answers to what their telnet wrote.

        Each sequence costs; whoever has much to strip does it in slices of SLICE_BYTES.
        """
        data = self._rest + data
        kept, answers = bytearray(), bytearray()
        at = 0
        while at < len(data):
            if self._is_inside:
                end = data.find(_END, at)
                if end < 0:
                    at = max(at, len(data) - data.endswith(b"\xff"))
                    break
                self._is_inside = False
                at = end + 2
            found = data.find(IAC, at)
            kept += data[at : found if found >= 0 else len(data)]
            if found < 0:
                at = len(data)
                break
            at = found
            size = _sequence_size(data, at)
            if at + size > len(data):
                break
            answers += _decline(data[at : at + size])
            kept += b"\xff" * (data[at : at + 2] == b"\xff\xff")
            self._is_inside = data[at + 1] == SB
            at += size
        self._rest = data[at:]  # of two bytes at most
        return bytes(kept), bytes(answers)


_END = bytes((IAC, SE))


def _sequence_size(data: bytes, at: int) -> int:
    """How long the sequence beginning at `at` is; of a subnegotiation, its beginning."""
    command = data[at + 1] if at + 1 < len(data) else None
    return 3 if command is not None and WILL <= command <= DONT else 2


def _decline(sequence: bytes) -> bytes:
    """The answer that refuses what a sequence offers or asks for; most need none."""
    if sequence[1] == DO:
        return bytes((IAC, WONT, sequence[2]))
    if sequence[1] == WILL:
        return bytes((IAC, DONT, sequence[2]))
    return b""
