"""The daemon's side of the worker port, as far as a worker can tell: a listener for tests.

It decides nothing. A test accepts a worker, says what it wants said, and waits for lines;
every wait ends with an error after `PATIENCE_S`, so a worker that stays silent fails the
test instead of hanging it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from cronflowd.base.proofs import DAEMON, Handshake, Seal, key_name, key_of, make_nonce
from cronflowd.base.text import split_options
from cronflowd.host.clock import steady_now
from tests.lib.waiting import PATIENCE_S


class Visitor:
    """One connection of a worker. Its first BEAT is answered and not shown; the others are the test's."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.hello = ""  # and what came with its proof, if it gave one
        self.seal: Seal | None = None  # puts on orders what such a worker asks for
        self.lines: list[str] = []  # all lines read so far, HELLO left out
        self.reads = 0  # pieces they came in
        self.first_beat = ""
        self._next = 0  # the first line that no `expect` has looked at
        self._rest = b""

    async def say(self, *lines: str) -> None:
        """Sends the lines in one piece."""
        await self.stream.send_all("".join(line + "\n" for line in lines).encode())

    async def line(self) -> str:
        """The next line. Raises EOFError when the worker has left, TooSlowError when it sleeps."""
        with trio.fail_after(PATIENCE_S):
            while self._next >= len(self.lines):
                await self._read()
        self._next += 1
        return self.lines[self._next - 1]

    async def expect(self, start: str) -> str:
        """The next line that begins so; what comes before it stays in `lines`."""
        while not (line := await self.line()).startswith(start):
            pass
        return line

    async def expect_all(self, *starts: str) -> list[str]:
        """For each the next line that begins so: of two jobs it is open which is heard first."""
        found: dict[str, str] = {}
        while len(found) < len(starts):
            line = await self.line()
            if start := next((each for each in starts if each not in found and line.startswith(each)), None):
                found[start] = line
        return [found[start] for start in starts]

    def forget(self) -> None:
        """Drops the lines that were looked at."""
        del self.lines[: self._next]
        self._next = 0

    async def until_done(self, run: int) -> list[str]:
        """All lines about a run, up to its DONE."""
        await self.expect(f"DONE {run} ")
        return [line for line in self.lines if line.split(" ")[1:2] == [str(run)]]

    async def closed(self) -> None:
        """Waits until the worker has closed the connection."""
        with trio.fail_after(PATIENCE_S):
            try:
                while True:
                    await self._read()
            except (EOFError, trio.BrokenResourceError):
                pass

    async def close(self) -> None:
        await self.stream.aclose()

    async def _read(self) -> None:
        data = await self.stream.receive_some(1 << 20)
        if not data:
            raise EOFError("the worker closed the connection")
        self.reads += 1
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"BEAT") and not self.first_beat:
                self.first_beat = line.decode()
                await self.say("OK")
            else:
                self.lines.append(line.decode())


class FakeDaemon:
    """A listening socket that hands out its visitors one by one."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self.listener = listener
        self.visitors: list[Visitor] = []
        self.tokens: tuple[str, ...] = ()  # that it knows
        self.offered: list[str] = []  # which of those that a test knows was meant; by its key's name
        self.answer = "OK {name} heartbeat=10 lease=30 output=1048576"

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.listener.socket.getsockname()[:2]
        return host, port

    async def knock(self) -> Visitor:
        """The next connection, its HELLO read but not answered."""
        with trio.fail_after(PATIENCE_S):
            visitor = Visitor(await self.listener.accept())
        self.visitors.append(visitor)
        visitor.hello = await visitor.line()
        if " nonce=" in visitor.hello:
            await self._prove(visitor)
        visitor.forget()
        return visitor

    async def _prove(self, visitor: Visitor) -> None:
        """Shows a worker that the token it means is known, if so; whoever hears a wrong proof leaves."""
        options = split_options(visitor.hello.removeprefix("HELLO "))[0]
        self.offered.append(options["key"])
        keys = {key_name(key): key for key in (key_of(token.encode()) for token in self.tokens)}
        key = keys.get(options["key"])
        handshake = Handshake(key or bytes(32), options["name"], options["nonce"], make_nonce())
        visitor.seal = Seal(handshake, steady_now())
        await visitor.say(f"CHALLENGE {handshake.our_nonce} {handshake.proof(DAEMON)}")
        if key:
            visitor.hello += " " + await visitor.line()

    async def worker(self) -> Visitor:
        """The next connection, welcomed."""
        visitor = await self.knock()
        await visitor.say(self.answer.format(name="w1"))
        return visitor

    async def close(self) -> None:
        """As a daemon that was killed: no listener, and every connection cut."""
        await self.listener.aclose()
        for visitor in self.visitors:
            await visitor.close()


@asynccontextmanager
async def fake_daemon(where: tuple[str, int] | Path = ("127.0.0.1", 0)) -> AsyncIterator[FakeDaemon]:
    """A daemon that listens while the block runs."""
    if isinstance(where, Path):
        sock = trio.socket.socket(trio.socket.AF_UNIX)
        await sock.bind(str(where))
    else:
        sock = trio.socket.socket(trio.socket.AF_INET)
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
        await sock.bind(where)
    sock.listen(16)
    daemon = FakeDaemon(trio.SocketListener(sock))
    try:
        yield daemon
    finally:
        with trio.CancelScope(shield=True):
            await daemon.close()
