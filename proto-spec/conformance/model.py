"""A server in memory that keeps the server's rules (PROTOCOL.md#server-rules), and notes what it told its client."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from duragram import wire
from duragram.wire import Ack, Answer, Data, Datagram, Hello, Ping, Reject, Take, Welcome

from .asks import Asks


@dataclass
class Session:
    floor: int
    above: set[int] = field(default_factory=set)


@dataclass
class Told:
    """What acks told the client of a session: it may count these as delivered."""

    floor: int = 0
    above: set[int] = field(default_factory=set)


class Model:
    def __init__(self) -> None:
        self.window = 1024
        #: What acks tell; the window if None.
        self.credit: Optional[int] = None
        self.delay_us = 100
        self.sessions: dict[tuple[int, int], Session] = {}
        #: Outlives `forget`.
        self.told: dict[tuple[int, int], Told] = {}
        self.epochs: dict[int, int] = {}
        self.highest_epoch = 1_790_000_000
        #: Records in the order of arrival.
        self.journal: list[bytes] = []
        #: Seqs that the client counts as acked and this server does not have (rule 4).
        self.lost: list[int] = []
        #: What another run of the client has left in an epoch that it chooses itself: so many messages.
        self.former = 0
        #: `None`: a server without the extension for answers.
        self.asks: Optional[Asks] = Asks()
        #: By HELLO.
        self.given: set[tuple[int, int]] = set()

    def forget(self) -> None:
        """As a server that has lost or forgotten its sessions."""
        self.sessions.clear()
        if self.asks is not None:
            self.asks.asks.clear()

    def note_epoch(self, epoch: int) -> None:
        """The client has used it, whether that was refused or not: what a WELCOME gives is above it."""
        self.highest_epoch = max(self.highest_epoch, epoch)

    def answer(self, datagram: Datagram, peer: Any = None) -> Optional[Union[Ack, Reject, Welcome, Answer]]:
        """What it says at once. A TAKE that is held says nothing; its end comes from `asks.due`, with `peer`."""
        if isinstance(datagram, Take):
            return None if self.asks is None else self.asks.take(datagram, time.monotonic(), peer)
        if isinstance(datagram, Hello):
            if datagram.nonce not in self.epochs:
                self.highest_epoch += 1
                self.epochs[datagram.nonce] = self.highest_epoch
            self.given.add((datagram.client, self.epochs[datagram.nonce]))
            return Welcome(datagram.client, self.epochs[datagram.nonce], self._credit(), datagram.nonce)
        if isinstance(datagram, Ping):
            return self.ack(datagram.client, datagram.epoch, 0, duplicate=True)
        assert isinstance(datagram, Data)
        return self.data(datagram)

    def data(self, d: Data) -> Union[Ack, Reject]:
        base = d.seq - d.span
        asks = bool(d.options & wire.ASK)
        if d.options & ~wire.ASK or not d.begin or not d.end or asks and (d.batch or self.asks is None):
            return Reject(d.client, d.epoch, wire.REJECT_UNSUPPORTED, d.seq)
        session = self.sessions.get((d.client, d.epoch))
        if session is None:
            if d.span >= self.window:
                return Reject(d.client, d.epoch, wire.REJECT_BEYOND_WINDOW, d.seq)
            if asks and self.asks is not None and not self.asks.has_room(d.client, d.epoch):
                return Reject(d.client, d.epoch, wire.REJECT_BUSY, d.seq, 1000)
            used = self.former and (d.client, d.epoch) not in self.given
            session = self.sessions[d.client, d.epoch] = Session(self.former if used else base - 1)
        if base - 1 > session.floor + self.window:
            return Reject(d.client, d.epoch, wire.REJECT_STALE_EPOCH, d.seq)
        if base - 1 > session.floor:
            missing = [seq for seq in range(session.floor + 1, base) if seq not in session.above]
            if not d.skip:
                self.lost += missing
            session.floor = base - 1
            session.above = {seq for seq in session.above if seq > session.floor}
        if d.seq > session.floor + self.window:
            return Reject(d.client, d.epoch, wire.REJECT_BEYOND_WINDOW, d.seq)
        duplicate = d.seq <= session.floor or d.seq in session.above
        if duplicate and asks and self.asks is not None:
            self.asks.repeated(d, time.monotonic())
        if not duplicate:
            if asks and self.asks is not None:
                if not self.asks.has_room(d.client, d.epoch):
                    return Reject(d.client, d.epoch, wire.REJECT_BUSY, d.seq, 1000)
                self.asks.open(d, time.monotonic())
            session.above.add(d.seq)
            records = wire.records(d.payload) if d.batch else [d.payload]
            self.journal += records or []
        while session.floor + 1 in session.above:
            session.floor += 1
            session.above.discard(session.floor)
        return self.ack(d.client, d.epoch, len(d.payload), duplicate)

    def ack(self, client: int, epoch: int, room: int, duplicate: bool) -> Ack:
        """The session's ACK, its bitmap cut to what a datagram with so much payload has room for."""
        session = self.sessions.get((client, epoch), Session(0))
        most = 64 * min(room // 8, 16)
        bits = sum(1 << (seq - session.floor - 1) for seq in session.above if seq - session.floor <= most) if most else 0
        complete = not session.above or max(session.above) - session.floor <= most
        bitmap = bits.to_bytes(-(-bits.bit_length() // 64) * 8, "little")
        return Ack(
            client, epoch, session.floor, self._credit(),
            delay_us=self.delay_us, bitmap=bitmap, duplicate=duplicate, complete=complete,
            ready=self.asks is not None and self.asks.is_ready(client, epoch),
        )  # fmt: skip

    def note_told(self, ack: Ack) -> None:
        """This ack goes to the client."""
        told = self.told.setdefault((ack.client, ack.epoch), Told())
        told.floor = max(told.floor, ack.floor)
        bits = int.from_bytes(ack.bitmap, "little")
        told.above.update(ack.floor + 1 + i for i in range(bits.bit_length()) if bits >> i & 1)

    def _credit(self) -> int:
        return self.window if self.credit is None else self.credit
