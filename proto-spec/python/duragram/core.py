"""What both faces share: records go in, receipts come out; messages, batches and the machine are inside. No I/O."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Optional, Union

from . import wire
from .machine import Machine
from .message import FINAL, Config, Message, Outcome, Stats


@dataclass(slots=True)
class Receipt:
    """Proof that a record is on the server's disk (or as safe as `durability` says)."""

    epoch: int
    #: The number of the record's datagram in that epoch.
    seq: int
    #: The record's place in its datagram; above 0 only with batching.
    index: int = 0
    #: 0 synced to disk, 1 handed to the operating system, 2 replicated.
    durability: int = 0


class SendError(Exception):
    """A record has no receipt."""


class TooLarge(SendError, ValueError):
    """It fits in no datagram. It was not sent."""


class Rejected(SendError):
    """The server will never take it. It was not journaled; other records are not concerned."""

    def __init__(self, code: int) -> None:
        super().__init__(f"refused by the server: {FINAL.get(code, f'code {code}')}")
        self.code = code


class Abandoned(SendError):
    """Given up by `abandon_oldest`. It may have been journaled all the same."""


class Closed(SendError):
    """The client was closed before the ack came. If it had been sent it may have been journaled."""


class Incomplete(Exception):
    """What `close` could not finish: records without an answer, and records that the server refused."""

    def __init__(self, unacked: int, failed: int) -> None:
        super().__init__(f"{unacked} records were not acked in time and {failed} were refused by the server")
        self.unacked = unacked
        self.failed = failed


@dataclass
class Options:
    """What a client is, and its limits. Only `server` is needed."""

    #: `host:port`
    server: str
    #: Who it is; random if not given, which is right for a program that runs once.
    client_id: Optional[int] = None
    #: This run's number, which this client id must never have used before; by default the server gives one.
    epoch: Optional[int] = None
    #: Datagrams that may be unacked at once, 1 to 65,536. `send` waits when it is full.
    window: int = 1024
    #: The longest UDP payload to send.
    datagram_bytes_max: int = wire.DATAGRAM_RECOMMENDED
    #: Let small records share datagrams: at once when nothing is under way, else when one is full or `linger` has passed.
    batch: bool = False
    #: Seconds.
    linger: float = 0.001
    #: The longest interval between two tries while the server is away, in seconds.
    retry_interval_max: float = 10.0
    #: 32 bytes, shared with the server: sealed mode. Needs the package `cryptography`.
    key: Optional[bytes] = None
    #: With `key` and `epoch`: a count of this client's starts, stored before it is used.
    boot_count: Optional[int] = None

    def __post_init__(self) -> None:
        overhead = wire.PLAIN_MIN if self.key is None else 52
        if self.client_id is None:
            self.client_id = secrets.randbits(64)
        _check("client_id", self.client_id, 0, wire.U64_MAX)
        if self.epoch is not None:
            _check("epoch", self.epoch, 1, wire.U32_MAX)
        if self.boot_count is not None:
            _check("boot_count", self.boot_count, 0, wire.U32_MAX)
        _check("window", self.window, 1, 65536)
        _check("datagram_bytes_max", self.datagram_bytes_max, overhead + 1, wire.DATAGRAM_MAX)

    def machine(self) -> Machine:
        client = self.client_id or 0
        config = Config(self.datagram_bytes_max, self.window, rto_max=self.retry_interval_max, unix_time=time.time)
        link: wire.Wire = wire.Plain(client)
        if self.key is not None:
            from .seal import Sealed

            link = Sealed(client, self.key, self.boot_count)
        return Machine(client, self.epoch or 0, link, config)

    def address(self) -> tuple[str, int]:
        host, _, port = self.server.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(f"the server is HOST:PORT, not {self.server!r}")
        return host.strip("[]"), int(port)


def _check(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} is {value}; it must be from {least} to {most}")


class Pending:
    """A record's outcome to come."""

    __slots__ = ("outcome",)

    def __init__(self) -> None:
        self.outcome: Union[Receipt, SendError, None] = None

    def settled(self) -> None:
        """`outcome` is there."""


class Core:
    """Records to messages, and outcomes back. Times as in `Machine`."""

    def __init__(self, options: Options) -> None:
        self.machine = options.machine()
        self.acked = 0
        self.failed = 0
        #: Records that have no outcome.
        self.unacked = 0
        #: Records that had none when it was closed.
        self.lost_at_close = 0
        self._window = options.window
        self._linger = options.linger if options.batch else None
        self._batch: list[bytes] = []
        self._batch_pending: list[Pending] = []
        self._batch_bytes = 0
        self._batch_channel = 0
        self._batch_due = 0.0

    def check(self, record: bytes) -> None:
        """`TooLarge` if the record can never be sent."""
        if len(record) > self.machine.payload_max:
            raise TooLarge(
                f"a record of {len(record)} bytes does not fit in a datagram: at most {self.machine.payload_max}"
            )

    def has_room(self, channel: int, record: bytes) -> bool:
        """Whether `push` may be called now."""
        if not self._batch:
            return self.machine.queued < self._window
        if self._joins(channel, record):
            return True
        return self.machine.queued + 1 < self._window or self.machine.queued == 0

    def push(self, now: float, channel: int, record: bytes, pending: Pending) -> None:
        """Takes a record for which there is room."""
        self.unacked += 1
        if self._linger is None or len(record) + 2 > self.machine.payload_max:
            self.flush_batch(now)
            self.machine.send(now, record, channel, token=(pending,))
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

    def advance(self, now: float) -> bool:
        """Does what is due and settles what has ended. Returns whether there was any of the latter."""
        if self.machine.deadline is not None:
            self.machine.handle_timeout(now)
        decided = self.machine.take_decided()
        for ended in decided:
            self._settle(ended)
        if self._batch and (self.machine.queued == 0 or self._batch_due <= now):
            self.flush_batch(now)
        return bool(decided)

    def _settle(self, message: Message) -> None:
        pendings: tuple[Pending, ...] = message.token
        self.unacked -= len(pendings)
        if message.outcome is Outcome.ACKED:
            self.acked += len(pendings)
            for index, pending in enumerate(pendings):
                pending.outcome = Receipt(message.epoch, message.seq, index, message.durability)
                pending.settled()
            return
        self.failed += len(pendings) * (message.outcome is Outcome.FAILED)
        for pending in pendings:
            pending.outcome = Rejected(message.code) if message.outcome is Outcome.FAILED else Abandoned()
            pending.settled()

    def close(self) -> None:
        """What is unacked gets the outcome `Closed`."""
        self.flush_batch(0.0)
        for ended in self.machine.take_decided():
            self._settle(ended)
        self.lost_at_close, self.unacked = self.unacked, 0
        while (message := self.machine.abandon_oldest()) is not None:
            for pending in message.token:
                pending.outcome = Closed()
                pending.settled()

    def raise_if_incomplete(self) -> None:
        """`Incomplete` if not every record got its receipt before `close`."""
        if self.lost_at_close or self.failed:
            raise Incomplete(self.lost_at_close, self.failed)

    @property
    def deadline(self) -> Optional[float]:
        """When `advance` is due."""
        deadline = self.machine.deadline
        if self._batch and (deadline is None or self._batch_due < deadline):
            return self._batch_due
        return deadline


class Face:
    """What both faces tell about themselves."""

    _core: Core

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
    def unacked(self) -> int:
        """Records without an outcome."""
        return self._core.unacked

    @property
    def epoch(self) -> int:
        """The session's epoch; 0 until the server has given one."""
        return self._core.machine.epoch

    @property
    def rtt(self) -> Optional[float]:
        """The smoothed round-trip time without the server's own delay, in seconds; `None` before the first answer."""
        return self._core.machine.rtt.smoothed
