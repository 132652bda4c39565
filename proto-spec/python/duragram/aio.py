"""The asyncio face."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
import warnings
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Iterable, Optional, Sequence

from . import process
from .aio_pending import AsyncAsk, AsyncPending, AsyncWait
from .asks import ASKS_MAX, WAIT_MAX
from .core import Core, Face
from .errors import Answer, Closed, Full, Incomplete
from .link import Link, logger
from .options import Options, copied, held, integer, named, seconds
from .route import AddressInfo
from .wire import DATAGRAM_RECOMMENDED

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["AsyncAsk", "AsyncClient", "AsyncPending"]


class AsyncClient(Face):
    """Sends records to a Duragram server.

        async with AsyncClient("127.0.0.1:7117", client_id=0xA1) as client:
            first = await client.send(b"21.5")     # waits for room only
            print("on disk:", await first)         # waits for the receipt

    Leaving the block waits until all records have their receipts, and raises `Incomplete` if not all got one. Options are
    those of `Options`. It belongs to the event loop in which it was connected, and to its process: elsewhere its methods
    raise `Closed`. Needs an event loop with `add_reader` (on Windows the SelectorEventLoop).
    """

    def __init__(
        self,
        server: str,
        *,
        client_id: Optional[int] = None,
        epoch: Optional[int] = None,
        window: int = 1024,
        datagram_bytes_max: int = DATAGRAM_RECOMMENDED,
        batch: bool = False,
        linger: float = 0.001,
        retry_interval_max: float = 10.0,
        key: Optional[Buffer] = None,
        boot_count: Optional[int] = None,
        waiting: Iterable[tuple[int, int]] = (),
    ) -> None:
        self.options = Options(
            server,
            client_id=client_id,
            epoch=epoch,
            window=window,
            datagram_bytes_max=datagram_bytes_max,
            batch=batch,
            linger=linger,
            retry_interval_max=retry_interval_max,
            key=None if key is None else copied(key, "a key"),
            boot_count=boot_count,
            waiting=waiting,
        )
        self._link = Link(self.options)
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._watched: Optional[socket.socket] = None
        self._watched_number = -1
        self._writes = False
        self._timer: Optional[asyncio.TimerHandle] = None
        self._timer_at = 0.0
        self._pump_due = False
        self._closed = False
        self._cause: Optional[BaseException] = None
        self._lost = 0
        self._serials = itertools.count(1)
        self._room: deque[asyncio.Future[None]] = deque()
        self._ask_room: deque[asyncio.Future[None]] = deque()
        self._flushes: list[tuple[int, asyncio.Future[None]]] = []
        self._look_up_task: Optional[asyncio.Task[None]] = None

    async def __aenter__(self) -> AsyncClient:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if kind is None:
            await self.close()
        else:
            self._give_up()

    def __del__(self) -> None:
        if getattr(self, "_watched", None) is None or self._closed or self._link.is_foreign:
            return
        warnings.warn(f"{self!r} was dropped without close()", ResourceWarning, stacklevel=2)
        # Its loop is gone: it would else have kept this object. What is unacked has the end of the program as its last
        # chance.
        if self._link.core.unacked:
            process.keep(self._link)
        else:
            self._link.close()

    async def connect(self) -> None:
        """Resolves the server's name and opens a socket. Does not wait for the server. A second call does nothing."""
        self._check_process()
        self._check_open()
        if self._link.socket is None:
            self._loop = asyncio.get_running_loop()
        loop = self._own_loop()
        if self._link.socket is not None:
            return
        host, port = self.options.address()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        if self._link.socket is not None:
            return  # two tasks connected it at once
        self._check_open()
        self._link.open(found)
        try:
            self._watch_socket()
        except NotImplementedError:
            self._link.close()
            raise RuntimeError(f"{type(loop).__name__} has no add_reader, which a client needs") from None
        process.born(self)

    async def send(self, record: Buffer, channel: int = 0, *, timeout: Optional[float] = None) -> AsyncPending:
        """Takes a copy of a record. Waits until there is room for it, not for its receipt; raises `Full` if that takes
        longer than so many seconds."""
        payload, channel = self._copied(record), _channel(channel)
        timeout = seconds("timeout", timeout)
        self._check()
        if self._room or not self._link.core.has_room(channel, payload):
            await self._wait_for_room(channel, payload, timeout)
        pending = self._push(channel, payload)
        if self._room:
            self._give_turn()
        return pending

    def send_nowait(self, record: Buffer, channel: int = 0) -> AsyncPending:
        """As `send`, but raises `Full` instead of waiting."""
        payload, channel = self._copied(record), _channel(channel)
        self._check()
        if self._room or not self._link.core.has_room(channel, payload):
            raise Full("the window is full")
        return self._push(channel, payload)

    async def send_many(
        self, records: Iterable[Buffer], channel: int = 0, *, timeout: Optional[float] = None
    ) -> list[AsyncPending]:
        """Takes records in their order. All are looked at before the first is taken: a wrong one raises, and none is
        sent. When there is no room for all within so many seconds it raises `Full`, which names those that were taken."""
        channel, timeout = _channel(channel), seconds("timeout", timeout)
        payloads = [self._copied(record) for record in records]
        taken: list[AsyncPending] = []
        until = None if timeout is None else time.monotonic() + timeout
        self._check()
        try:
            for payload in payloads:
                left = None if until is None else max(until - time.monotonic(), 0)
                taken.append(await self.send(payload, channel, timeout=left))
        except Full as full:
            raise Full(f"there was room for {len(taken)} of {len(payloads)} records", tuple(taken)) from full
        return taken

    # Asking.

    async def ask(
        self, record: Buffer, channel: int = 0, *, wait: float = WAIT_MAX, timeout: Optional[float] = None
    ) -> AsyncAsk:
        """Takes a copy of a record, to which the service behind the server is to answer: what this returns is awaited for the
        answer, its `.receipt` for the receipt.

        Waits until there is room for it, and until fewer than 64 messages that asked are unfinished; raises `Full` if that takes
        longer than `timeout` seconds. `wait`: for how long the server may hold a TAKE, in seconds, at most 20: the first for a second,
        each after one that came too early for twice as long, and none for longer than this. With 0 it is not
        taken until the server says that it is ready (`ready`), or by `take`. Of `batch` it is no part."""
        payload, channel, wait = self._copied(record), _channel(channel), held(wait)
        timeout = seconds("timeout", timeout)
        until = None if timeout is None else time.monotonic() + timeout
        self._check()
        core = self._link.core
        while core.machine.asks.unfinished >= ASKS_MAX or not core.has_room(channel, payload, asks=True):
            left = None if until is None else max(until - time.monotonic(), 0)
            if core.machine.asks.unfinished >= ASKS_MAX:
                await self._wait_to_ask(left)
            else:
                await self._wait_for_room(channel, payload, left)
        asked = AsyncAsk(next(self._serials), self, wait)
        core.push(time.monotonic(), channel, payload, asked.receipt)
        self._pump_soon()
        self._give_turn()
        return asked

    async def take(self, epoch: int, seq: int, wait: float = 0.0, *, timeout: Optional[float] = None) -> Answer:
        """What has become of a message that asked, in this run or in an earlier one: its receipt has epoch and seq.

        The server may hold the question for `wait` seconds, at most 20; what is not answered by then is `Status.PENDING`. Raises
        `Gone` if no answer will come, `TimeoutError` when nothing was heard in `timeout` seconds, and `Full` if 64 others wait."""
        epoch, seq = named(epoch, seq)
        wait, timeout = held(wait), seconds("timeout", timeout)
        self._check()
        reply: AsyncWait[Answer] = AsyncWait(next(self._serials), self)
        refused = self._link.core.take_answer(epoch, seq, wait, reply)
        if refused is not None:
            raise refused
        self._pump_soon()

        async def come() -> Answer:
            return await reply

        try:
            return await asyncio.wait_for(come(), timeout)
        except asyncio.TimeoutError:
            raise TimeoutError("no reply yet") from None
        finally:
            if reply.outcome is None:
                self._link.core.machine.asks.give_up_takers(reply)

    def waiting(self) -> list[tuple[int, int]]:
        """Epoch and seq of what has asked, is on the server's disk and has no answer yet: who stores this can take the answers in a
        later run. An answer may be had twice then, but none is lost. After `close` too."""
        self._check_process()
        return self._link.core.machine.asks.waiting()

    @property
    def full(self) -> bool:
        """Whether there is no room for a further datagram: `send` may wait."""
        core = self._link.core
        return bool(self._room) or not core.has_room(-1, b"")

    @property
    def unacked(self) -> int:
        """Records without an outcome."""
        return self._link.core.unacked

    @property
    def closed(self) -> bool:
        """Whether it has ended: nothing can be sent any more."""
        return self._closed or self._link.is_foreign

    async def flush(self) -> None:
        """Waits until every record taken so far has its outcome. For ever, if the server stays away."""
        self._check_process()
        if self._cause is not None:
            self._check_open()
        if self._closed:
            return
        self._check()
        loop, core = self._own_loop(), self._link.core
        core.flush_batch(time.monotonic())
        self._pump_soon()
        if not core.unacked:
            return
        entry = (next(self._serials), loop.create_future())
        self._flushes.append(entry)
        try:
            await entry[1]
        finally:
            if entry in self._flushes:
                self._flushes.remove(entry)
        if self._cause is not None:
            raise self._closed_error()

    async def close(self, patience: Optional[float] = None) -> None:
        """Waits until all records have their outcome, at most so many seconds, and ends the client.

        Raises `Incomplete` if not every record is on the server's disk, as far as the client knows."""
        patience = seconds("patience", patience)
        if self._link.is_foreign:
            return  # the parent's records are not this copy's
        loop_is_gone = self._loop is not None and self._loop.is_closed()
        if self._link.socket is not None and not loop_is_gone:
            self._own_loop()
        try:
            if self._link.socket is not None and not loop_is_gone:
                await asyncio.wait_for(self.flush(), patience)
        except (asyncio.TimeoutError, Closed):
            pass
        except asyncio.CancelledError:
            self._give_up()
            raise
        self._end()
        if self._lost or self.failed:
            raise Incomplete(self._lost, self.failed) from self._cause

    def abandon_oldest(self) -> bool:
        """Gives up the oldest unacked message, to make room for newer ones; `False` when there is none."""
        self._check()
        abandoned = self._link.core.abandon_oldest(time.monotonic())
        self._pump_soon()
        return abandoned

    # Who may call.

    @property
    def _core(self) -> Core:  # type: ignore[override]
        return self._link.core

    def _check(self) -> None:
        """Whether a record can be taken."""
        self._check_process()
        self._check_open()
        if self._link.socket is None:
            raise Closed("the client is not connected: `async with` connects it, or connect()")
        self._own_loop()

    def _check_process(self) -> None:
        if self._link.is_foreign:
            raise self._link.foreign()

    def _check_open(self) -> None:
        if self._closed:
            raise self._closed_error()

    def _closed_error(self) -> Closed:
        if self._cause is None:
            return Closed("the client is closed")
        error = Closed(f"the client has failed: {self._cause!r}")
        error.__cause__ = self._cause
        return error

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise Closed("no event loop runs here: call the client from the one in which it was connected") from None
        if loop is not self._loop and self._loop is not None:
            gone = ", which is closed" if self._loop.is_closed() else ""
            raise Closed(f"the client belongs to another event loop{gone}: create one in each")
        return loop

    # Within.

    def _copied(self, record: Buffer) -> bytes:
        return copied(record, most=self._link.core.payload_max)

    def _push(self, channel: int, payload: bytes) -> AsyncPending:
        pending = AsyncPending(next(self._serials), self)
        self._link.core.push(time.monotonic(), channel, payload, pending)
        self._pump_soon()
        return pending

    async def _wait_for_room(self, channel: int, payload: bytes, timeout: Optional[float]) -> None:
        core = self._link.core
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            turn = self._own_loop().create_future()
            self._room.append(turn)
            try:
                await asyncio.wait_for(turn, None if until is None else max(until - time.monotonic(), 0))
            except asyncio.TimeoutError:
                self._check()
                # The place that was offered at the last moment is for the next.
                self._give_turn()
                raise Full("the window is full") from None
            except asyncio.CancelledError:
                self._give_turn()
                raise
            self._check()
            if core.has_room(channel, payload):
                return

    async def _wait_to_ask(self, timeout: Optional[float]) -> None:
        turn = self._own_loop().create_future()
        self._ask_room.append(turn)
        try:
            await asyncio.wait_for(turn, timeout)
        except asyncio.TimeoutError:
            self._check()
            raise Full(f"{ASKS_MAX} asks are not answered") from None
        finally:
            if turn in self._ask_room:
                self._ask_room.remove(turn)
        self._check()

    def _pump_soon(self) -> None:
        if not self._pump_due and not self._closed and self._loop is not None:
            self._pump_due = True
            self._loop.call_soon(self._pump)

    def _readable(self) -> None:
        self._pump(read=True)

    def _pump(self, read: bool = False) -> None:
        self._pump_due = False
        if self._closed or self._link.socket is None or self._link.is_foreign:
            return
        try:
            self._turn(read)
        except Exception as error:
            self._cause = error
            logger.error("%s has failed", self._link, exc_info=error)
            self._end()

    def _turn(self, read: bool) -> None:
        link, now = self._link, time.monotonic()
        deadline = link.core.machine.deadline
        if read or (deadline is not None and deadline <= now):
            # The loop may have been busy elsewhere: what has come meanwhile is no reason for a timeout.
            link.receive(now)
        settled, more = link.turn(now)
        if settled:
            self._give_turn()
            if self._ask_room and link.core.machine.asks.unfinished < ASKS_MAX:
                for turn in self._ask_room:
                    if not turn.done():
                        turn.set_result(None)
            oldest = link.core.oldest()
            for serial, future in self._flushes:
                if (oldest is None or serial < oldest) and not future.done():
                    future.set_result(None)
        if more:
            self._pump_soon()
        if link.looks_up(now):
            assert self._loop is not None
            self._look_up_task = self._loop.create_task(self._look_up())
        self._watch_socket()
        self._set_timer(now)

    def _give_turn(self) -> None:
        """Wakes the first that waits for room; each wakes the next."""
        while self._room:
            turn = self._room.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _watch_socket(self) -> None:
        loop, sock, writes = self._loop, self._link.socket, bool(self._link.outbox)
        assert loop is not None
        if sock is not self._watched:
            # The one before is closed, and its number may be that of the new one.
            if self._watched is not None:
                self._writes = False
            self._watched = sock
            if sock is not None:
                self._watched_number = sock.fileno()
                loop.add_reader(self._watched_number, self._readable)
        if sock is not None and writes != self._writes:
            self._writes = writes
            if writes:
                loop.add_writer(self._watched_number, self._pump)
            else:
                loop.remove_writer(self._watched_number)

    def _unwatch(self) -> None:
        """Before the socket is closed."""
        if self._watched is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._watched_number)
            if self._writes:
                self._loop.remove_writer(self._watched_number)
        self._watched, self._writes = None, False

    def _set_timer(self, now: float) -> None:
        deadline = self._link.deadline
        if self._timer is not None:
            # One that is early does no harm: it sets itself anew.
            if deadline is not None and self._timer_at <= deadline:
                return
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            assert self._loop is not None
            self._timer_at = deadline
            self._timer = self._loop.call_later(max(deadline - now, 0), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._pump()

    async def _look_up(self) -> None:
        assert self._loop is not None
        found: Sequence[AddressInfo] = ()
        host, port = self.options.address()
        try:
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except OSError as error:
            logger.info("%s: %s", self._link, error)
        self._look_up_task = None
        if not self._closed and not self._link.is_foreign:
            self._unwatch()
            self._link.looked_up(time.monotonic(), found)
            self._pump()

    def _give_up(self) -> None:
        """Ends it at once, because of an exception that says nothing of the records."""
        if self._link.is_foreign:
            return
        self._end()
        if self._lost:
            logger.warning("%s: closed by an exception with %d records unacked", self._link, self._lost)

    def _end(self) -> None:
        if self._closed:
            return
        self._closed = True
        process.ended(self)
        try:
            self._lost = self._link.core.close(self._closed_error)
        except Exception as error:
            logger.error("%s: %r", self._link, error)  # what has failed may fail again
        if self._timer is not None:
            self._timer.cancel()
        if self._look_up_task is not None:
            self._look_up_task.cancel()
        self._unwatch()
        self._link.close()
        if self._loop is None or self._loop.is_closed():
            return
        for waiting in [*self._room, *self._ask_room, *(future for _, future in self._flushes)]:
            if not waiting.done():
                waiting.set_result(None)
        self._room.clear()

    # The process.

    def leave(self) -> None:
        self._link.leave()

    @property
    def lost(self) -> int:
        return self._lost

    def end_at_exit(self, deadline: float) -> None:
        """The loop runs no more: what is unacked is sent without it."""
        if self._link.is_foreign or self._closed:
            return
        self._unwatch()
        try:
            self._link.drain(deadline)
        except Exception as error:
            self._cause = error
        finally:
            self._end()


def _channel(channel: int) -> int:
    if type(channel) is int and 0 <= channel <= 65535:
        return channel
    return integer("channel", channel, 0, 65535)
