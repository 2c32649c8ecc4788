"""What a job writes, bounded: the first half streamed, of the rest the last half.

A job may write gigabytes while the link is slow or cut. It is never stopped for that, and
it must not cost the worker memory, so of each run at most `limit` bytes are held: the head
goes out as it comes; once it is used up, what follows falls into a ring that forgets its
oldest part; at the end a remark tells how much was forgotten, and the ring follows.

What a line is, a newline ends, or a carriage return, as of a progress bar. An unfinished one waits
for its end, but not long: whoever looks must see the question that a job hangs at.

Output is held as chunks of bytes, as they were read. They are cut into rows and made text only when
they are sent, because most of a flood is never sent. No byte is changed: see base/output.py.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from ...base.masks import Mask
from ...base.output import GOES_ON, is_whole, parse_line, text_of
from ...base.text import escape, to_bytes

# Of one row. A byte can become six in the JSON that a client reads (a NUL is `\\u0000`) and more than
# one in base64 beside it, and such a line, too, must stay below net.lines.MAX_LINE_BYTES.
MAX_TEXT_BYTES = 8 * 1024
CHUNK_BYTES = 32 * 1024  # small writes are gathered up to this, so that they cost no object each
MAX_CHUNKS = 8192  # a job that alternates between its two outputs makes many small ones
REMARK = 0  # the fd of remarks that are not the job's own words
MISSING = "… {} characters are missing: the worker was killed before it had sent them …\n"

Chunk = tuple[int, bytearray]  # fd, bytes
# A carriage return belongs to the newline behind it.
_ROW = re.compile(rb"[^\r\n]*(?:\r?\n|\r|\Z)")


class Output:
    """The output of one job on its way to the daemon."""

    def __init__(
        self,
        run: str,
        limit: int,
        on_waiting: Callable[[Output], object] = lambda _: None,
        on_unfinished: Callable[[Output], object] = lambda _: None,
        now: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.run = run
        self.omitted = 0  # bytes forgotten
        self._on_waiting = on_waiting
        self._on_unfinished = on_unfinished  # called when there is something to `show` later,
        self.is_watched = False  # if nobody sees to that yet,
        self.on_end: Callable[[], object] = lambda: None  # for whoever does
        self._now = now
        self.mask: Mask | None = None  # hides what must not be shown
        self._held: dict[int, bytes] = {}  # by fd: what may be the beginning of a secret
        self._head_left = limit - limit // 2  # bytes that may still be sent as they come
        self._tail_limit = limit // 2
        self._waiting: deque[Chunk] = deque()  # to be sent
        self._tail: deque[Chunk] = deque()  # to be sent at the end, or forgotten
        self._tail_bytes = 0
        self._unfinished = {1: b"", 2: b""}  # by fd: a line that is still coming
        self._since = {1: 0.0, 2: 0.0}  # by fd: when that began
        self._remarks: list[Chunk] = []
        self.taken = 0  # chunks, ever
        self._taken: deque[Chunk] = deque()  # the last of them, which may not have arrived
        self._arrived = 0  # characters of all before
        self._kept_size: int | None = None  # how many there are, where another worker took them
        self._is_unwanted = False  # nobody keeps it any more

    @classmethod
    def kept(cls, run: str, begin: int, size: int, lines: Iterable[str]) -> Output:
        """What another worker left of `size` characters: OUT lines from `begin` on, if it kept any."""
        output = cls(run, 0)
        output._arrived, output._kept_size = begin, size
        output._taken.extend(map(_parse_output, lines))
        return output

    @property
    def is_waiting(self) -> bool:
        """Whether there is something to send."""
        return bool(self._waiting)

    def feed(self, fd: int, data: bytes) -> None:
        """Takes what the job wrote; never waits and never refuses."""
        if self._is_unwanted:
            return
        if self.mask:
            data, self._held[fd] = self.mask.hide(self._held.get(fd, b"") + data, False)
        self._feed(fd, data)

    def _feed(self, fd: int, data: bytes) -> None:
        data = self._unfinished[fd] + data
        # A carriage return at the very end may have its newline still to come.
        end = max(data.rfind(b"\n"), data.rfind(b"\r", 0, max(0, len(data) - 1))) + 1
        if len(data) - end > MAX_TEXT_BYTES:
            end = _whole_characters(data)
        self._cut(fd, data, end)
        if self._unfinished[fd] and not self.is_watched:
            self.is_watched = True
            self._on_unfinished(self)

    def show(self, upto: float) -> None:
        """Lets go out what has had no end since then; of a character that has only begun, the next time."""
        for fd, rest in self._unfinished.items():
            if rest and self._since[fd] <= upto:
                self._cut(fd, rest, _whole_characters(rest) or len(rest))

    @property
    def unfinished_since(self) -> float | None:
        """When the oldest line began that has no end yet; None when there is none."""
        return min((self._since[fd] for fd, rest in self._unfinished.items() if rest), default=None)

    def remark(self, text: str) -> None:
        """What the worker has to say of it, after all that the job wrote."""
        text = self.mask.hide_text(text) if self.mask else text
        self._remarks.append((REMARK, bytearray(text.encode() + b"\n")))

    def end(self) -> None:
        """No more will come: what was held back may go out."""
        self.on_end()
        if self._is_unwanted:
            return
        if self.mask:
            for fd, rest in self._held.items():
                self._feed(fd, self.mask.hide(rest, True)[0])
            self._held.clear()
        for fd, rest in self._unfinished.items():
            if rest:
                self._cut(fd, rest, len(rest))
        self._head_left = 0
        self._forget_excess()
        if self.omitted:
            self._waiting.append((REMARK, bytearray(f"… {self.omitted} bytes omitted …\n".encode())))
        self._waiting += self._tail
        self._tail.clear()
        self._waiting += self._remarks
        if self._waiting:
            self._on_waiting(self)

    def take(self, max_bytes: int) -> str:
        """OUT lines of about `max_bytes` of output, at least one chunk of it."""
        texts = []
        while self._waiting and max_bytes > 0:
            fd, chunk = self._waiting.popleft()
            max_bytes -= len(chunk)
            texts.append(format_output(self.run, fd, bytes(chunk)))
            self._taken.append((fd, chunk))
        self.taken += len(texts)
        return "".join(texts)

    def confirm(self, taken: int) -> bool:
        """The first so many chunks that were taken have arrived; whether others may not have."""
        while self._taken and self.taken - len(self._taken) < taken:
            fd, chunk = self._taken.popleft()
            self._arrived += _size(chunk) if fd else 0
        return bool(self._taken)

    def resume(self, arrived: int | None) -> None:
        """What was taken is taken again, but for so many characters that have arrived; None: nobody knows."""
        again: deque[Chunk] = deque()
        taken, self._taken = self._taken, deque()
        if arrived is None:
            if self._kept_size is not None:
                self._waiting.extendleft(reversed(taken))
            return
        # It may know of less than it said had come: it was killed when its disk was full.
        self._arrived = min(self._arrived, arrived)
        for fd, row in ((fd, row) for fd, chunk in taken for row in _cut_rows(bytes(chunk))):
            size = _size(row) if fd else 0
            if again or self._arrived + size > arrived or (not fd and self._arrived == arrived):
                _append(again, fd, row)
            else:
                self._arrived += size
        self._arrived = self._arrived if again else arrived
        self._waiting.extendleft(reversed(again))
        if self._kept_size is not None:
            missing, self._kept_size = self._kept_size - self.extent[1], None
            if missing > 0:
                self._waiting.append((REMARK, bytearray(MISSING.format(missing).encode())))

    def forget(self) -> None:
        """Nothing of it is told any more."""
        self._is_unwanted = True
        for chunks in (self._waiting, self._tail, self._taken):
            chunks.clear()
        self._unfinished = {1: b"", 2: b""}

    @property
    def extent(self) -> tuple[int, int]:
        """Characters: how many have surely come, and how many there are."""
        end = sum(_size(chunk) for fd, chunk in chain(self._taken, self._waiting) if fd)
        return self._arrived, self._arrived + end

    def unheard(self) -> str:
        """OUT lines of all that may not have come, sent or not."""
        chunks = chain(self._taken, self._waiting)
        return "".join([format_output(self.run, fd, bytes(chunk)) for fd, chunk in chunks])

    def _cut(self, fd: int, data: bytes, end: int) -> None:
        if end or not self._unfinished[fd]:
            self._since[fd] = self._now()
        self._unfinished[fd] = data[end:]
        if end:
            self._keep(fd, data if end == len(data) else data[:end])

    def _keep(self, fd: int, data: bytes) -> None:
        if self._head_left > 0:
            data = self._keep_head(fd, data)
        if data:
            _append(self._tail, fd, data)
            self._tail_bytes += len(data)
            self._forget_oldest()

    def _keep_head(self, fd: int, data: bytes) -> bytes:
        """Lets as much as may go out at once wait to be sent; returns the rest."""
        end = len(data)
        if end > self._head_left:
            end = data.rfind(b"\n", 0, self._head_left) + 1 or _whole_characters(data[: self._head_left])
        self._head_left -= end
        if end < len(data) or len(self._waiting) >= MAX_CHUNKS:
            self._tail_limit += self._head_left  # so that what is within the limit is kept whole
            self._head_left = 0
        if end:
            _append(self._waiting, fd, data[:end])
            self._on_waiting(self)
        return data[end:]

    def _forget_oldest(self) -> None:
        """Drops whole chunks while enough is left without them."""
        tail = self._tail
        while tail and (len(tail) > MAX_CHUNKS or self._tail_bytes - len(tail[0][1]) >= self._tail_limit):
            _, chunk = tail.popleft()
            self._tail_bytes -= len(chunk)
            self.omitted += len(chunk)

    def _forget_excess(self) -> None:
        """Cuts the oldest chunk at a line's end, so that the ring holds no more than it may."""
        excess = self._tail_bytes - self._tail_limit
        if excess > 0:
            fd, oldest = self._tail.popleft()
            cut = oldest.find(b"\n", excess - 1) + 1 or excess
            self.omitted += cut
            if cut < len(oldest):
                self._tail.appendleft((fd, oldest[cut:]))


def _append(chunks: deque[Chunk], fd: int, data: bytes) -> None:
    """Adds to the last chunk where that is possible."""
    if chunks:
        last_fd, last = chunks[-1]
        if last_fd == fd and len(last) + len(data) <= CHUNK_BYTES:
            last += data
            return
    chunks.append((fd, bytearray(data)))


def _whole_characters(data: bytes) -> int:
    """Where to cut so that no UTF-8 character is cut in two."""
    end = len(data)
    for back in range(1, min(4, end) + 1):
        if data[-back] & 0xC0 != 0x80:
            # A lead byte tells how many follow; an ASCII byte or garbage ends by itself.
            lead = data[-back]
            length = 4 if lead >= 0xF0 else 3 if lead >= 0xE0 else 2 if lead >= 0xC0 else 1
            return end - back if length > back else end
    return end


def format_output(run: str, fd: int, data: bytes) -> str:
    """Output as OUT lines, a row each."""
    prefix = f"OUT {run} {fd} "
    if data.endswith(b"\n") and max(map(len, lines := data[:-1].split(b"\n"))) <= MAX_TEXT_BYTES:
        text = b" ".join(lines).decode(errors="surrogateescape")
        if escape(text) is text:
            return prefix + data[:-1].decode().replace("\n", "\n" + prefix) + "\n"
    return "".join([f"{prefix}{_format_row(row)}\n" for row in _cut_rows(data)])


def _parse_output(line: str) -> Chunk:
    _, _, fd, text = line.split(" ", 3)
    parsed = parse_line(int(fd), text)
    return int(fd), bytearray(to_bytes(text_of(parsed)) + b"\n" * is_whole(parsed))


def _cut_rows(data: bytes) -> Iterator[bytes]:
    for line in _ROW.findall(data):
        rest = line
        while len(rest) > MAX_TEXT_BYTES + rest.endswith(b"\n"):
            end = _whole_characters(rest[:MAX_TEXT_BYTES])
            yield rest[:end]
            rest = rest[end:]
        if rest:
            yield rest


def _format_row(row: bytes) -> str:
    text = escape(row.removesuffix(b"\n").decode(errors="surrogateescape"))
    return text if row.endswith(b"\n") else text + GOES_ON


def _size(data: bytes | bytearray) -> int:
    """As the daemon counts, which has only the text."""
    return len(data.decode(errors="surrogateescape"))
