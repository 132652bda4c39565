"""The blocking face: a thread sends, receives and keeps the time."""

from __future__ import annotations

import time
import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Iterable, Optional

from .core import Core, Face
from .asks import ASKS_MAX, WAIT_MAX
from .blocking_pending import BlockingAsk, BlockingPending, BlockingWait
from .engine import Engine
from .errors import Answer, Closed, Full, Incomplete
from .link import logger
from .options import Options, copied, held, integer, named, seconds
from .process import EXIT_PATIENCE
from .wire import DATAGRAM_RECOMMENDED

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["BlockingAsk", "BlockingPending", "Client"]


class Client(Face):
    """Sends records to a Duragram server.

        with Client("127.0.0.1:7117", client_id=0xA1) as client:
            first = client.send(b"21.5")               # waits for room only
            print("on disk:", first.result())          # waits for the receipt

    Leaving the block waits until all records have their receipts, and raises `Incomplete` if not all got one. Options are
    those of `Options`. Threads may share a client; processes may not: in a forked child every call raises `Closed`.
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
        self._engine = Engine(self.options)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if kind is None:
            self.close()
            return
        if kind is SystemExit and not self.closed:
            # The end of the program is no reason to lose records; without the block it would wait for them too.
            self._engine.flush(EXIT_PATIENCE)
        self._give_up()

    def __del__(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is None or engine.has_ended or engine.link.is_foreign or engine.is_orphaned:
            return
        engine.orphan()
        warnings.warn(f"{self!r} was dropped without close()", ResourceWarning, stacklevel=2)

    def send(self, record: Buffer, channel: int = 0, *, timeout: Optional[float] = None) -> BlockingPending:
        """Takes a copy of a record. Waits until there is room for it, not for its receipt; raises `Full` if that takes
        longer than so many seconds."""
        engine, payload, channel = self._engine, self._copied(record), _channel(channel)
        if timeout is not None:
            timeout = seconds("timeout", timeout)
        engine.check()
        if self._must_wait():
            self._wait_for_room(None if timeout is None else time.monotonic() + timeout)
        pending = engine.put(channel, payload)
        engine.wake()
        return pending

    def send_nowait(self, record: Buffer, channel: int = 0) -> BlockingPending:
        """As `send`, but raises `Full` instead of waiting."""
        engine, payload, channel = self._engine, self._copied(record), _channel(channel)
        engine.check()
        if self.full:
            raise Full("the window is full")
        pending = engine.put(channel, payload)
        engine.wake()
        return pending

    def send_many(
        self, records: Iterable[Buffer], channel: int = 0, *, timeout: Optional[float] = None
    ) -> list[BlockingPending]:
        """Takes records in their order. All are looked at before the first is taken: a wrong one raises, and none is
        sent. When there is no room for all within so many seconds it raises `Full`, which names those that were taken."""
        channel, timeout = _channel(channel), seconds("timeout", timeout)
        payloads = [self._copied(record) for record in records]
        engine, taken = self._engine, list[BlockingPending]()
        until = None if timeout is None else time.monotonic() + timeout
        engine.check()
        try:
            for payload in payloads:
                if self._must_wait():
                    engine.wake()
                    self._wait_for_room(until)
                taken.append(engine.put(channel, payload))
        except Full as full:
            raise Full(f"there was room for {len(taken)} of {len(payloads)} records", tuple(taken)) from full
        finally:
            engine.wake()
        return taken

    # Asking.

    def ask(
        self, record: Buffer, channel: int = 0, *, wait: float = WAIT_MAX, timeout: Optional[float] = None
    ) -> BlockingAsk:
        """Takes a copy of a record, to which the service behind the server is to answer: `.receipt` of what this returns is as
        what `send` returns, its own `result` waits for the answer.

        Waits until there is room for it, and until fewer than 64 messages that asked are unfinished; raises `Full` if that takes
        longer than `timeout` seconds. `wait`: for how long the server may hold a TAKE, in seconds, at most 20: the first for a second,
        each after one that came too early for twice as long, and none for longer than this. With 0 it is not
        taken until the server says that it is ready (`ready`), or by `take`. Of `batch` it is no part."""
        engine, payload, channel, wait = self._engine, self._copied(record), _channel(channel), held(wait)
        timeout = seconds("timeout", timeout)
        until = None if timeout is None else time.monotonic() + timeout
        engine.check()
        if self._must_wait():
            self._wait_for_room(until)
        if not engine.may_ask:
            self._wait_to_ask(until)
        asked = engine.put_ask(channel, payload, wait)
        engine.wake()
        return asked

    def take(self, epoch: int, seq: int, wait: float = 0.0, *, timeout: Optional[float] = None) -> Answer:
        """What has become of a message that asked, in this run or in an earlier one: its receipt has epoch and seq.

        The server may hold the question for `wait` seconds, at most 20; what is not answered by then is `Status.PENDING`. Raises
        `Gone` if no answer will come, `TimeoutError` when nothing was heard in `timeout` seconds, and `Full` if 64 others wait."""
        epoch, seq = named(epoch, seq)
        wait, timeout, engine = held(wait), seconds("timeout", timeout), self._engine
        engine.check()
        engine.check_not_within()
        reply: BlockingWait[Answer] = BlockingWait(next(engine.serials), engine)
        refused = engine.call(lambda now: self._core.take_answer(epoch, seq, wait, reply))
        if refused is not None:
            raise refused
        try:
            return reply.result(timeout)
        finally:
            if reply.outcome is None:
                engine.command(lambda now: self._core.machine.asks.give_up_takers(reply))

    def waiting(self) -> list[tuple[int, int]]:
        """Epoch and seq of what has asked, is on the server's disk and has no answer yet: who stores this can take the answers in a
        later run. An answer may be had twice then, but none is lost. After `close` too."""
        engine = self._engine
        if engine.link.is_foreign:
            raise engine.link.foreign()
        asks = self._core.machine.asks
        if engine.has_ended:
            return asks.waiting()
        try:
            return engine.call(lambda now: asks.waiting())
        except Closed:
            return asks.waiting()  # it has ended meanwhile

    @property
    def full(self) -> bool:
        """Whether `send` would wait now."""
        return self._engine.load >= self.options.window

    @property
    def unacked(self) -> int:
        """Records without an outcome."""
        return self._engine.unacked

    @property
    def unanswered(self) -> int:
        """Messages that asked and are not finished: neither answered, nor gone, nor failed. At most 64."""
        return len(self._engine.asks) + self._core.machine.asks.adopted

    @property
    def closed(self) -> bool:
        """Whether it has ended: nothing can be sent any more."""
        return self._engine.has_ended or self._engine.link.is_foreign

    def flush(self, timeout: Optional[float] = None) -> bool:
        """Waits until every record taken so far has its outcome; `False` when the time is over before."""
        timeout, engine = seconds("timeout", timeout), self._engine
        if engine.link.is_foreign:
            engine.check()
        try:
            flushed = engine.has_ended or engine.flush(timeout)
        except Closed:
            flushed = True  # closed by another thread meanwhile: all have their outcome
        if engine.cause is not None:
            raise engine.closed()
        return flushed

    def close(self, patience: Optional[float] = None) -> None:
        """Waits until all records have their outcome, at most so many seconds, and ends the client.

        Raises `Incomplete` if not every record is on the server's disk, as far as the client knows."""
        patience, engine = seconds("patience", patience), self._engine
        if engine.link.is_foreign:
            return  # the parent's records are not this copy's
        if engine.is_within:
            # A callback cannot wait, so nobody can be told of what fails from here on but by its outcome.
            engine.orphan()
            return
        try:
            if not engine.has_ended:
                engine.flush(patience)
        except Closed:
            pass  # by another thread
        except BaseException:
            self._give_up()
            raise
        engine.end()
        if engine.lost or self.failed:
            raise Incomplete(engine.lost, self.failed) from engine.cause

    def abandon_oldest(self) -> bool:
        """Gives up the oldest unacked message, to make room for newer ones; `False` when there is none."""
        engine = self._engine
        engine.check()
        return engine.call(engine.abandon_oldest)

    # Within.

    @property
    def _core(self) -> Core:  # type: ignore[override]
        return self._engine.link.core

    def _copied(self, record: Buffer) -> bytes:
        return copied(record, most=self._engine.link.core.payload_max)

    def _must_wait(self) -> bool:
        # Behind those that wait already: they wait for more than one place.
        engine = self._engine
        return engine.load >= engine.window or (bool(engine.room.waiting) and not engine.has_room)

    def _wait_for_room(self, until: Optional[float]) -> None:
        engine = self._engine
        if engine.is_within:
            raise Full("the window is full, and a done callback must not wait for its own client")
        if engine.link.is_foreign:
            raise engine.link.foreign()
        timeout = None if until is None else until - time.monotonic()
        engine.room.wait(lambda: engine.has_ended or engine.has_room, timeout)
        engine.check()
        if self.full:
            raise Full("the window is full")

    def _wait_to_ask(self, until: Optional[float]) -> None:
        engine = self._engine
        if engine.is_within:
            raise Full(f"{ASKS_MAX} asks are not answered, and a done callback must not wait for its own client")
        timeout = None if until is None else until - time.monotonic()
        engine.ask_room.wait(lambda: engine.has_ended or engine.may_ask, timeout)
        engine.check()
        if not engine.may_ask:
            raise Full(f"{ASKS_MAX} asks are not answered")

    def _give_up(self) -> None:
        """Ends it at once, because of an exception that says nothing of the records."""
        engine = self._engine
        engine.end()
        if engine.lost and not engine.link.is_foreign:
            logger.warning("%s: closed by an exception with %d records unacked", engine.link, engine.lost)


def _channel(channel: int) -> int:
    if type(channel) is int and 0 <= channel <= 65535:
        return channel
    return integer("channel", channel, 0, 65535)
