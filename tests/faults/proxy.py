"""TCP links that can fail: each forwards one port of this machine to another.

Every client of the system under test reaches each broker and Redis over a link of its own, so that
any pair can be parted. What a link does to the bytes on it:

    open       forwards
    slow       forwards each chunk `delay` seconds later, in order
    hole       takes connections and bytes and forwards nothing; what it took goes on when it opens
    cut        resets every connection, and every new one

and `abandon` leaves the connections of the moment half-open: this side stays connected to nobody.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Literal

from tests.faults.ports import LOOPBACK, fresh_port

Mode = Literal["open", "slow", "hole", "cut"]
_CHUNK = 65_536
_CALL_SECONDS = 10.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


class Link:
    """One forwarded port; made by `Links.add`. Its methods may be called from any thread."""

    def __init__(self, links: Links, target: int) -> None:
        self.port = fresh_port()
        self.target = target
        self.mode: Mode = "open"
        self.delay = 0.0
        self._links = links
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._connections: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._server: asyncio.Server | None = None

    def set(self, mode: Mode, *, delay: float = 0.0) -> None:
        self._links.call(self._set(mode, delay))

    def retarget(self, port: int) -> None:
        """Forward new connections to another port and reset the old ones, as a failover does."""
        self._links.call(self._retarget(port))

    def abandon(self) -> int:
        """Leave every connection half-open; returns how many."""
        return self._links.call(self._abandon())

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._reset()

    async def _set(self, mode: Mode, delay: float) -> None:
        self.mode, self.delay = mode, delay
        if mode == "hole":
            self._flowing.clear()
        else:
            self._flowing.set()
        if mode == "cut":
            self._reset()

    async def _retarget(self, port: int) -> None:
        self.target = port
        self._reset()

    async def _abandon(self) -> int:
        abandoned = list(self._connections.items())
        self._connections.clear()
        for task, writers in abandoned:
            task.cancel()
            for writer in writers[1:]:
                _abort(writer)
        # Kept, or their sockets would be closed and the other side told.
        self._links.half_open += [writers[0] for _, writers in abandoned]
        return len(abandoned)

    def _reset(self) -> None:
        for task, writers in list(self._connections.items()):
            task.cancel()
            for writer in writers:
                _abort(writer)
        self._connections.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if self.mode == "cut" or task is None:
            _abort(writer)
            return
        writers = [writer]
        self._connections[task] = writers
        with suppress(OSError, asyncio.CancelledError):
            await self._serve(reader, writers)
        if self._connections.pop(task, None) is not None:
            for each in writers:
                _abort(each)

    async def _serve(
        self, reader: asyncio.StreamReader, writers: list[asyncio.StreamWriter]
    ) -> None:
        await self._flowing.wait()
        back, forth = await asyncio.open_connection(LOOPBACK, self.target)
        writers.append(forth)
        pumps = [
            asyncio.ensure_future(self._pump(reader, forth)),
            asyncio.ensure_future(self._pump(back, writers[0])),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self._flowing.wait()
                writer.write(chunk)
                await writer.drain()


class Links:
    """All links, in an event loop of their own thread."""

    def __init__(self) -> None:
        self.half_open: list[asyncio.StreamWriter] = []
        self._links: list[Link] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)
        self._thread.start()

    def add(self, target: int) -> Link:
        """A link to `target`, open."""
        link = Link(self, target)
        self.call(link.listen())
        self._links.append(link)
        return link

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_CALL_SECONDS)

    def hang_up(self) -> None:
        """Reset what was left half-open, as the other side's operating system does in the end."""
        self.call(self._hang_up())

    def close(self) -> None:
        self.hang_up()
        for link in self._links:
            self.call(link.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_SECONDS)
        self._loop.close()

    async def _hang_up(self) -> None:
        for writer in self.half_open:
            _abort(writer)
        self.half_open.clear()


def _abort(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
