"""Sinks that take what a test allows: a peer whose socket buffer is as small as the test wants."""

from __future__ import annotations

from cronflowd.net.outbox import Bell


class SmallSink:
    """A socket that takes what the test allows it to take."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.sends: list[bytes] = []
        self.room = room
        self.has_ended = False
        self.was_aborted = False
        self.error: OSError | None = None
        self._bell = Bell()

    @property
    def sent(self) -> bytes:
        return b"".join(self.sends)

    def send_now(self, data: memoryview) -> int:
        if self.error:
            raise self.error
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        if taken:
            self.sends.append(taken)
        return len(taken)

    async def wait_writable(self) -> None:
        while not self.room:
            await self._bell.wait()

    def shutdown(self) -> None:
        self.has_ended = True

    def abort(self) -> None:
        self.was_aborted = True

    def take(self, size: int) -> None:
        """The peer reads so many bytes more."""
        self.room += size
        self._bell.ring()
