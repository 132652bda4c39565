"""The asyncio face."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from types import TracebackType
from typing import Any, Generator, Optional, Union

from .core import Closed, Core, Face, Options, Pending, Receipt, SendError
from .route import REPLY_BYTES, SILENCE_FIRST, SILENCE_MOST, open_socket

#: Datagrams handled between two chances for other tasks to run.
BURST = 256


class AsyncPending(Pending):
    """A receipt to come: `await` it. Dropping it does not take the record back."""

    __slots__ = ("_future",)

    def __init__(self) -> None:
        super().__init__()
        self._future: Optional[asyncio.Future[None]] = None

    def __await__(self) -> Generator[Any, None, Receipt]:
        if self.outcome is None:
            if self._future is None:
                self._future = asyncio.get_running_loop().create_future()
            # Whoever gives up waiting must not take the receipt from others.
            yield from asyncio.shield(self._future).__await__()
        if isinstance(self.outcome, Receipt):
            return self.outcome
        raise self.outcome or Closed()

    def done(self) -> bool:
        """Whether awaiting it returns at once."""
        return self.outcome is not None

    def settled(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class AsyncClient(Face):
    """Sends records to a Duragram server.

        async with AsyncClient("127.0.0.1:7117", client_id=0xA1) as client:
            first = await client.send(b"21.5")     # waits for room only
            print("on disk:", await first)         # waits for the receipt

    Leaving the block waits until all records have their receipts, and raises `Incomplete` if not all got one. Options are
    those of `Options`. Needs an event loop with `add_reader` (on Windows the SelectorEventLoop).
    """

    def __init__(self, server: str, **options: Any) -> None:
        self.options = Options(server, **options)
        self._core = Core(self.options)
        self._socket: Optional[socket.socket] = None
        self._address: Optional[tuple[Any, ...]] = None
        self._timer: Optional[asyncio.TimerHandle] = None
        self._pump_due = False
        self._closed = False
        self._room: deque[asyncio.Future[None]] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._silent_since: Optional[float] = None
        self._patience = SILENCE_FIRST
        self._route_task: Optional[asyncio.Task[None]] = None

    async def __aenter__(self) -> AsyncClient:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if kind is None:
            await self.close()
        else:
            self._end()

    async def connect(self) -> None:
        """Resolves the server's name and opens a socket. Does not wait for the server."""
        self._loop = asyncio.get_running_loop()
        host, port = self.options.address()
        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        self._use(open_socket(found), found[0][4])

    def _use(self, sock: socket.socket, address: tuple[Any, ...]) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
        self._socket, self._address = sock, address
        self._loop.add_reader(sock.fileno(), self._readable)

    async def send(self, record: bytes, channel: int = 0) -> AsyncPending:
        """Takes a record. Waits until there is room for it, not for its receipt."""
        core = self._core
        core.check(record)
        while self._room or not core.has_room(channel, record):
            if self._closed:
                break
            turn = self._loop.create_future()
            self._room.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._give_turn()
                raise
            if core.has_room(channel, record):
                break
        if self._closed or self._socket is None:
            raise Closed("the client is not connected")
        pending = AsyncPending()
        core.push(time.monotonic(), channel, record, pending)
        self._pump_soon()
        if self._room:
            self._give_turn()
        return pending

    async def flush(self) -> None:
        """Waits until every record taken so far has its outcome. For ever, if the server stays away."""
        self._core.flush_batch(time.monotonic())
        self._pump_soon()
        while self._core.unacked and not self._closed:
            idle = self._loop.create_future()
            self._idle.append(idle)
            await idle

    async def close(self, patience: Optional[float] = None) -> None:
        """Waits until all records have their outcome, at most so many seconds, and ends the client.

        Raises `Incomplete` if not every record is on the server's disk, as far as the client knows."""
        if self._socket is not None:
            try:
                await asyncio.wait_for(self.flush(), patience)
            except asyncio.TimeoutError:
                pass
        self._end()
        self._core.raise_if_incomplete()

    def abandon_oldest(self) -> bool:
        """Gives up the oldest unacked message, to make room for newer ones; `False` when there is none."""
        abandoned = self._core.machine.abandon_oldest() is not None
        self._pump_soon()
        return abandoned

    # Within.

    def _pump_soon(self) -> None:
        if not self._pump_due and not self._closed:
            self._pump_due = True
            self._loop.call_soon(self._pump)

    def _readable(self) -> None:
        self._receive(time.monotonic())
        self._pump()

    def _receive(self, now: float) -> None:
        if self._socket is None:
            return
        receive, handle = self._socket.recv, self._core.machine.handle_datagram
        for _ in range(BURST):
            try:
                datagram = receive(REPLY_BYTES)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                continue  # nobody listens there now; as good as lost on the way
            if handle(now, datagram) is None:
                self._silent_since = None
                self._patience = SILENCE_FIRST

    def _pump(self) -> None:
        self._pump_due = False
        if self._closed or self._socket is None:
            return
        now, core = time.monotonic(), self._core
        if core.machine.deadline is not None and core.machine.deadline <= now:
            # The loop was busy elsewhere: what has come meanwhile is no reason for a timeout.
            self._receive(now)
        if core.advance(now):
            self._give_turn()
            if not core.unacked:
                for idle in self._idle:
                    if not idle.done():
                        idle.set_result(None)
                self._idle.clear()
        datagrams = core.machine.transmit(now, BURST)
        for datagram in datagrams:
            try:
                self._socket.send(datagram)
            except OSError:
                pass  # lost on the way; the machine will send it again
        if len(datagrams) == BURST:
            self._pump_soon()
        self._watch_silence(now)
        self._set_timer()

    def _give_turn(self) -> None:
        """Wakes the first that waits for room; each wakes the next."""
        while self._room:
            turn = self._room.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _set_timer(self) -> None:
        deadline = self._core.deadline
        if self._silent_since is not None:
            tired = self._silent_since + self._patience
            deadline = tired if deadline is None else min(deadline, tired)
        if self._timer is not None:
            # One that is early does no harm: it sets itself anew.
            if deadline is not None and self._timer.when() - self._loop.time() <= deadline - time.monotonic():
                return
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer = self._loop.call_later(max(deadline - time.monotonic(), 0), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._pump()

    def _watch_silence(self, now: float) -> None:
        """Nothing heard for long: the server's name may lead elsewhere, or the socket's way be gone."""
        if not self._core.unacked:
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = now
        elif now >= self._silent_since + self._patience and self._route_task is None:
            self._silent_since, self._patience = now, min(self._patience * 2, SILENCE_MOST)
            self._route_task = self._loop.create_task(self._reroute())

    async def _reroute(self) -> None:
        try:
            host, port = self.options.address()
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
            if self._closed:
                return
            before = self._address
            self._use(open_socket(found), found[0][4])
            if self._address != before:
                self._core.machine.path_changed(time.monotonic())
            self._pump_soon()
        except OSError:
            pass  # the old socket stays, the next try follows
        finally:
            self._route_task = None

    def _end(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._core.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._route_task is not None:
            self._route_task.cancel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        for waiting in [*self._room, *self._idle]:
            if not waiting.done():
                waiting.set_result(None)
        self._room.clear()
        self._idle.clear()
