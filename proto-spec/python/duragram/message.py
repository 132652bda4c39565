"""What a client is told and tells: its limits, its messages and how they end, its counters."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Callable, Final, Optional

from . import wire
from .asks import Ask

#: The codes that are final for a message (PROTOCOL.md#duty-reject).
FINAL: Final = {
    wire.REJECT_VERSION: "the server speaks another version of the protocol",
    wire.REJECT_UNSUPPORTED: "the server does not have a feature that the message needs",
    wire.REJECT_TOO_LARGE: "longer than the server accepts",
    wire.REJECT_CHANNEL: "the server does not accept the channel",
    wire.REJECT_SEALED_ONLY: "the server takes sealed traffic alone",
}


@dataclass
class Config:
    """The limits of a client, in seconds, bytes and datagrams."""

    datagram_bytes_max: int = wire.DATAGRAM_RECOMMENDED
    #: Messages that it holds, waiting or in flight.
    window: int = 1024
    rto_initial: float = 1.0
    rto_min: float = 0.01
    rto_max: float = 60.0
    #: The longest wait that a REJECT can impose: a forged one cannot silence the client for weeks.
    retry_after_max: float = 60.0
    congestion_window_initial: int = 10
    #: The epoch was given from outside, so another run may have used it: the first datagram goes alone, and its ack is
    #: looked at for signs of that (PROTOCOL.md#epoch-used).
    epoch_doubted: bool = False
    #: Unix time, if the clock is right: a new epoch after STALE_EPOCH is then at least that.
    unix_time: Optional[Callable[[], float]] = None


class Outcome(enum.Enum):
    """How a message ended."""

    ACKED = "acked"
    #: The server will never take it: `Message.code` says why.
    FAILED = "failed"
    #: Longer than this machine's UDP carries: it cannot be sent.
    TOO_LONG = "too long"
    #: Its epoch is another run's: what the server holds under its number is other data.
    EPOCH_USED = "epoch used"
    #: Given up by the application; it may have been journaled all the same.
    ABANDONED = "abandoned"


class State(enum.IntEnum):
    UNSENT = 0
    IN_FLIGHT = 1
    #: It has left the path, whether it has arrived or not: later ones have (PROTOCOL.md#duty-loss).
    OVERTAKEN = 2
    LOST = 3
    #: The server has no room for it now: it is sent again later, and keeps no other back.
    HELD = 4
    DECIDED = 5


UNSENT: Final = State.UNSENT
IN_FLIGHT: Final = State.IN_FLIGHT
OVERTAKEN: Final = State.OVERTAKEN
LOST: Final = State.LOST
HELD: Final = State.HELD
DECIDED: Final = State.DECIDED


class Message:
    """A message, from `send` until it has ended. `token` is the caller's."""

    __slots__ = (
        "payload", "channel", "word", "flags", "token", "ask", "outcome", "code", "durability", "epoch", "seq",
        "state", "attempt", "transmission", "sent_at", "missed",
    )  # fmt: skip

    def __init__(self, payload: bytes, channel: int, batch: bool, token: Any, ask: Optional[Ask] = None) -> None:
        self.payload = payload
        self.channel = channel
        #: Its options above.
        self.word = channel if ask is None else channel | wire.ASK << 16
        #: What is to come of it, if it asks.
        self.ask = ask
        self.flags = wire.WHOLE | wire.BATCH * batch
        self.token = token
        self.outcome: Optional[Outcome] = None
        self.code = 0
        self.durability = 0
        self.epoch = 0
        self.seq = 0
        self.state: State = UNSENT
        self.attempt = 0
        self.transmission = 0
        self.sent_at = 0.0
        #: The server did not have it when it was transmitted last.
        self.missed = False


@dataclass
class Stats:
    """Counters since the beginning, in datagrams."""

    transmissions: int = 0
    retransmissions: int = 0
    losses: int = 0
    timeouts: int = 0
    acked: int = 0
    rejects: int = 0
    #: Of `rejects`; the code of the last one stands last.
    rejects_by_code: dict[int, int] = field(default_factory=dict)
    #: What came and made no sense here, by reason.
    ignored: dict[str, int] = field(default_factory=dict)

    def count_reject(self, code: int) -> None:
        self.rejects += 1
        self.rejects_by_code[code] = self.rejects_by_code.pop(code, 0) + 1
