"""What a job writes, bounded: the first half streamed, of the rest the last half.

A job may write gigabytes while the link is slow or cut. It is never stopped for that, and
it must not cost the worker memory, so of each run at most `limit` bytes are held: the head
goes out as it comes; once it is used up, what follows falls into a ring that forgets its
oldest part; at the end a remark tells how much was forgotten, and the ring follows.

Output is held as chunks of whole lines, as they were read. They are cut into lines and
made UTF-8 only when they are sent, because most of a flood is never sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from ...base.text import escape

# A byte can become five on the wire (one that is no UTF-8 is told as `\\xff`), and a line
# with its `OUT 123 1 ` in front must stay below wire.MAX_LINE_BYTES.
MAX_TEXT_BYTES = 12 * 1024
CHUNK_BYTES = 32 * 1024  # small writes are gathered up to this, so that they cost no object each
MAX_CHUNKS = 8192  # a job that alternates between its two outputs makes many small ones
REMARK = 0  # the fd of remarks that are not the job's own words

Chunk = tuple[int, bytearray]  # fd, lines with their ends (a cut one lacks its end)


class Output:
    """The output of one job on its way to the daemon."""

    def __init__(self, run: str, limit: int, on_waiting: Callable[[], None] = lambda: None) -> None:
        self.run = run
        self.omitted = 0  # bytes forgotten
        self._on_waiting = on_waiting
        self._head_left = limit - limit // 2  # bytes that may still be sent as they come
        self._tail_limit = limit // 2
        self._waiting: deque[Chunk] = deque()  # to be sent
        self._tail: deque[Chunk] = deque()  # to be sent at the end, or forgotten
        self._tail_bytes = 0
        self._unfinished = {1: b"", 2: b""}  # by fd: a line that is still coming

    @property
    def is_waiting(self) -> bool:
        """Whether there is something to send."""
        return bool(self._waiting)

    def feed(self, fd: int, data: bytes) -> None:
        """Takes what the job wrote; never waits and never refuses."""
        data = self._unfinished[fd] + data
        end = data.rfind(b"\n") + 1
        if len(data) - end > MAX_TEXT_BYTES:
            end = _whole_characters(data)
        self._unfinished[fd] = data[end:]
        if end:
            self._keep(fd, data if end == len(data) else data[:end])

    def end(self) -> None:
        """No more will come: what was held back may go out."""
        for fd, rest in self._unfinished.items():
            if rest:
                self._keep(fd, rest)
        self._unfinished = {1: b"", 2: b""}
        self._head_left = 0
        self._forget_excess()
        if self.omitted:
            self._waiting.append((REMARK, bytearray(f"… {self.omitted} bytes omitted …".encode())))
        self._waiting += self._tail
        self._tail.clear()
        if self._waiting:
            self._on_waiting()

    def take(self, max_bytes: int) -> str:
        """OUT lines of about `max_bytes` of output, at least one chunk of it."""
        texts = []
        while self._waiting and max_bytes > 0:
            fd, chunk = self._waiting.popleft()
            max_bytes -= len(chunk)
            texts.append(format_output(self.run, fd, bytes(chunk)))
        return "".join(texts)

    def take_all(self) -> str:
        """OUT lines of all that waits."""
        return self.take(sum(len(chunk) for _, chunk in self._waiting))

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
            end = data.rfind(b"\n", 0, self._head_left) + 1
        self._head_left -= end
        if end < len(data) or len(self._waiting) >= MAX_CHUNKS:
            self._head_left = 0
        if end:
            _append(self._waiting, fd, data[:end])
            self._on_waiting()
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
        if last_fd == fd and len(last) + len(data) <= CHUNK_BYTES and last.endswith(b"\n"):
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
    """Whole lines of output as OUT lines."""
    prefix = f"OUT {run} {fd} "
    data = data.removesuffix(b"\n")
    if len(data) > MAX_TEXT_BYTES:
        data = b"\n".join(piece for line in data.split(b"\n") for piece in _pieces(line))
    text = data.decode(errors="backslashreplace")
    if escape(flat := text.replace("\n", " ")) is flat:
        return prefix + text.replace("\n", "\n" + prefix) + "\n"
    return "".join([f"{prefix}{escape(line)}\n" for line in text.split("\n")])


def _pieces(line: bytes) -> Iterator[bytes]:
    """A line too long for the wire, in pieces that are not."""
    while len(line) > MAX_TEXT_BYTES:
        end = _whole_characters(line[:MAX_TEXT_BYTES])
        yield line[:end]
        line = line[end:]
    yield line
