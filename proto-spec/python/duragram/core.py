"""What both faces share: records go in, receipts come out; messages, batches and the machine are inside. No I/O."""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, Generic, Optional, TypeVar, Union

from . import wire
from .asks import ASKS_MAX, Ask
from .errors import (
    Abandoned, Answer, BodyTooLarge, Closed, EpochUsed, Full, Gone, Receipt, Rejected, SendError, Status, TooLarge,
)  # fmt: skip
from .message import Message, Outcome, Stats
from .options import Options


Got = TypeVar("Got")


class Waiting(Generic[Got]):
    """Something to come: a receipt, an answer."""

    __slots__ = ("outcome", "serial", "__weakref__")

    def __init__(self, serial: int) -> None:
        self.outcome: Union[Got, SendError, None] = None
        #: Counts what a client was given, in the order in which it was taken.
        self.serial = serial

    def settled(self) -> None:
        """`outcome` is there."""


class Pending(Waiting[Receipt]):
    """A record's outcome to come."""

    __slots__ = ()

    #: What is to come of it besides its receipt: of an ask the token is a `Waiting[Answer]`.
    ask: Optional[Ask] = None


TakenPending = TypeVar("TakenPending", bound=Pending)


class Core:
    """Records to messages, and outcomes back. Times as in `Machine`."""

    def __init__(self, options: Options) -> None:
        self.machine = options.machine()
        self.acked = 0
        self.failed = 0
        #: Records that have no outcome.
        self.unacked = 0
        self._window = options.window
        self._linger = options.linger if options.batch else None
        self._batch: list[bytes] = []
        self._batch_pending: list[Pending] = []
        self._batch_bytes = 0
        self._batch_channel = 0
        self._batch_due = 0.0
        for epoch, seq in options.waiting:
            self.machine.asks.adopt(epoch, seq, is_whole=True)

    @property
    def payload_max(self) -> int:
        return self.machine.payload_max

    def has_room(self, channel: int, record: bytes, asks: bool = False) -> bool:
        """Whether `push` may be called now."""
        if not self._batch:
            return self.machine.queued < self._window
        if not asks and self._joins(channel, record):
            return True
        return self.machine.queued + 1 < self._window or self.machine.queued == 0

    def push(self, now: float, channel: int, record: bytes, pending: Pending) -> None:
        """Takes a record for which there is room."""
        self.unacked += 1
        if self._linger is None or pending.ask is not None or len(record) + 2 > self.machine.payload_max:
            self.flush_batch(now)
            self.machine.send(now, record, channel, token=(pending,), ask=pending.ask)
            return
        if not self._joins(channel, record):
            self.flush_batch(now)
        if not self._batch:
            self._batch_channel, self._batch_due = channel, now + self._linger
        self._batch.append(record)
        self._batch_pending.append(pending)
        self._batch_bytes += len(record) + 2
        if self.machine.queued == 0:
            self.flush_batch(now)

    def take(self, now: float, records: deque[tuple[int, bytes, TakenPending]]) -> None:
        """Takes those for which there is room: channel, record, and what becomes of it."""
        if self._linger is not None:
            while records and self.has_room_for(records[0]):
                self.push(now, *records.popleft())
            return
        send = self.machine.send
        for _ in range(min(len(records), self._window - self.machine.queued)):
            channel, record, pending = records.popleft()
            self.unacked += 1
            send(now, record, channel, token=(pending,), ask=pending.ask)

    def has_room_for(self, record: tuple[int, bytes, TakenPending]) -> bool:
        """As `has_room`."""
        return self.has_room(record[0], record[1], record[2].ask is not None)

    def _joins(self, channel: int, record: bytes) -> bool:
        fits = self._batch_bytes + len(record) + 2 <= self.machine.payload_max
        return bool(self._batch) and fits and channel == self._batch_channel

    def flush_batch(self, now: float) -> None:
        """The records that wait for company go now."""
        if not self._batch:
            return
        alone = len(self._batch) == 1
        payload = self._batch[0] if alone else wire.batch(self._batch)
        self.machine.send(now, payload, self._batch_channel, batch=not alone, token=tuple(self._batch_pending))
        self._batch, self._batch_pending, self._batch_bytes = [], [], 0

    def abandon_oldest(self, now: float) -> bool:
        """Gives up the oldest unacked message; `False` when there is none."""
        if not self.machine.queued:
            self.flush_batch(now)
        return self.machine.abandon_oldest() is not None

    def oldest(self) -> Optional[int]:
        """The serial of the oldest record without an outcome."""
        token = self.machine.oldest_token()
        if token is not None:
            first: Pending = token[0]
            return first.serial
        return self._batch_pending[0].serial if self._batch_pending else None

    def advance(self, now: float, timers: bool = True) -> bool:
        """Does what is due and settles what has ended. Returns whether there was any of the latter."""
        if timers and self.machine.deadline is not None:
            self.machine.handle_timeout(now)
        decided = self.machine.take_decided()
        for ended in decided:
            self._settle(ended)
        news = bool(decided)
        if self.machine.asks.has_news:
            self._tell_answers()
            news = True
        if self._batch and (self.machine.queued == 0 or self._batch_due <= now):
            self.flush_batch(now)
        return news

    def _settle(self, message: Message) -> None:
        pendings: tuple[Pending, ...] = message.token
        self.unacked -= len(pendings)
        if message.outcome is Outcome.ACKED:
            self.acked += len(pendings)
            for index, pending in enumerate(pendings):
                pending.outcome = Receipt(message.epoch, message.seq, index, message.durability)
                pending.settled()
            return
        self.failed += len(pendings) * (message.outcome is not Outcome.ABANDONED)
        for pending in pendings:
            pending.outcome = self._error(message)
            pending.settled()
            end_ask(pending, pending.outcome)

    def _tell_answers(self) -> None:
        asks = self.machine.asks
        for ask in asks.take_finished():
            if ask.token is not None:
                _settle_by_answer(ask.token, ask)
        for taker, ask in asks.take_replies():
            _settle_by_answer(taker, ask)

    def take_answer(self, epoch: int, seq: int, wait: float, taker: Waiting[Answer]) -> Optional[SendError]:
        """The taker is settled by the next reply, PENDING too. Else why not."""
        asks = self.machine.asks
        if asks.find(epoch, seq) is None and asks.unfinished >= ASKS_MAX:
            return Full(f"{ASKS_MAX} asks are not answered")
        return None if self.machine.take(epoch, seq, wait, taker) else Gone(epoch, seq)

    def _error(self, message: Message) -> SendError:
        if message.outcome is Outcome.FAILED:
            return Rejected(message.code)
        if message.outcome is Outcome.TOO_LONG:
            size = len(message.payload) + self.machine.config.datagram_bytes_max - self.machine.payload_max
            return TooLarge(f"a datagram of {size} bytes is longer than this machine's UDP carries to that server")
        if message.outcome is Outcome.EPOCH_USED:
            return EpochUsed(self.machine.client, message.epoch)
        return Abandoned("given up by abandon_oldest")

    def close(self, why: Callable[[], Closed]) -> int:
        """What is unacked ends as `why` says. Returns how many records that were."""
        for ended in self.machine.take_decided():
            self._settle(ended)
        lost, self.unacked = self.unacked, 0
        left = list(self._batch_pending)
        self._batch, self._batch_pending, self._batch_bytes = [], [], 0
        while (message := self.machine.abandon_oldest()) is not None:
            left.extend(message.token)
        for pending in left:
            pending.outcome = why()
            pending.settled()
            end_ask(pending, pending.outcome)
        # What is on the server's disk waits there, for `waiting` to tell.
        self.machine.take_decided()
        self._tell_answers()
        for ask in self.machine.asks.unfinished_asks():
            for waiting in [*([] if ask.token is None else [ask.token]), *(token for token, _ in ask.takers)]:
                waiting.outcome = why()
                waiting.settled()
            ask.token, ask.takers = None, []
        return lost

    @property
    def deadline(self) -> Optional[float]:
        """When `advance` is due."""
        deadline = self.machine.deadline
        if self._batch and (deadline is None or self._batch_due < deadline):
            return self._batch_due
        return deadline


def _settle_by_answer(waiting: Waiting[Answer], ask: Ask) -> None:
    if ask.status is None:
        waiting.outcome = Answer(Status.PENDING)
    elif ask.status == wire.GONE:
        waiting.outcome = Gone(ask.epoch, ask.seq)
    elif len(ask.body) < ask.length:
        waiting.outcome = BodyTooLarge(Status(ask.status), ask.length)
    else:
        waiting.outcome = Answer(Status(ask.status), ask.body)
    waiting.settled()


def end_ask(pending: Pending, error: SendError) -> None:
    """Its message has ended without a receipt: so has the answer."""
    if pending.ask is not None and pending.ask.token is not None:
        waiting: Waiting[Answer] = pending.ask.token
        waiting.outcome = error
        waiting.settled()


class Face:
    """What both faces tell about themselves."""

    _core: Core
    options: Options

    @property
    def stats(self) -> Stats:
        return self._core.machine.stats

    @property
    def acked(self) -> int:
        """Records with a receipt."""
        return self._core.acked

    @property
    def failed(self) -> int:
        """Records refused for good."""
        return self._core.failed

    @property
    def ready(self) -> bool:
        """Whether the server said in its latest ack that an answer of this session waits. A hint for those that sleep."""
        return self._core.machine.asks.is_ready

    @property
    def unanswered(self) -> int:
        """Messages that asked and are not finished: neither answered, nor gone, nor failed. At most 64."""
        return self._core.machine.asks.unfinished

    @property
    def epoch(self) -> int:
        """The session's epoch; 0 until the server has given one."""
        return self._core.machine.epoch

    @property
    def rtt(self) -> Optional[float]:
        """The smoothed round-trip time without the server's own delay, in seconds; `None` before the first answer."""
        return self._core.machine.rtt.smoothed

    def __reduce_ex__(self, protocol: object) -> Any:
        # A copy would go on with the same numbers, and with the same key.
        raise TypeError(f"a {type(self).__name__} is not to be copied or pickled: create one in each process")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.options.client_id:016x} to {self.options.server}>"
