"""How a record ends: with a receipt, or with one of these errors; and what comes of one that asks: an answer, or such an error."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from . import wire
from .message import FINAL


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


class Status(enum.IntEnum):
    """What has become of a message that asked."""

    #: It was processed.
    DONE = wire.DONE
    #: The service has given it up. An operator may still have it processed, without a further answer.
    FAILED = wire.FAILED
    #: It is on the server's disk and not answered yet. Only `take` returns this.
    PENDING = wire.PENDING


@dataclass(slots=True)
class Answer:
    """What the service answered to a message that asked."""

    status: Status
    #: What its handler gave; often nothing.
    body: bytes = b""


class SendError(Exception):
    """A record has no receipt, or a message that asked no answer."""


class TooLarge(SendError, ValueError):
    """It fits in no datagram, or is longer than this machine's UDP carries. It did not reach the server."""


class Full(SendError, TimeoutError):
    """There was no room for the record in time. It was not taken: send it again later, or drop it.

    `taken` is what `send_many` had taken before: those records are on their way."""

    def __init__(self, text: str, taken: tuple[object, ...] = ()) -> None:
        super().__init__(text)
        self.taken = taken


class Rejected(SendError):
    """The server will never take it. It was not journaled; other records are not concerned."""

    def __init__(self, code: int) -> None:
        super().__init__(f"refused by the server: {FINAL.get(code, f'code {code}')}")
        self.code = code


class EpochUsed(SendError):
    """The epoch that the client was given was used before: the server holds other data under its numbers, so nothing of
    this run counts as delivered. Every later record fails so too; a new client needs a new epoch, or none."""

    def __init__(self, client: int, epoch: int) -> None:
        super().__init__(
            f"epoch {epoch} was used before by client {client:016x}: the server holds other data under these numbers; "
            "nothing of this run counts as delivered; choose a new epoch, or let the server give one"
        )
        self.epoch = epoch


class Abandoned(SendError):
    """Given up by `abandon_oldest`. It may have been journaled all the same."""


class Closed(SendError):
    """The client has ended (or is not yet connected, or belongs to another process), and the text says why. A record that
    had been sent before may have been journaled; what had its receipt and was not answered is named by `waiting`."""


class Gone(SendError):
    """No answer will come: it was had already, or has expired, or was lost, or nothing was asked under that name. That says
    nothing of the effect: the message was journaled all the same, and may have been processed."""

    def __init__(self, epoch: int, seq: int) -> None:
        super().__init__(f"no answer to message {seq} of epoch {epoch} will come; it may have been processed all the same")
        self.epoch = epoch
        self.seq = seq


class BodyTooLarge(SendError):
    """It was answered, but the body fits in no datagram of `datagram_bytes_max`, or of this machine's UDP."""

    def __init__(self, status: Status, length: int) -> None:
        super().__init__(f"{status.name}, with a body of {length} bytes, which is longer than this client's datagrams carry")
        self.status = status
        #: Of the body, in bytes.
        self.length = length


class Incomplete(Exception):
    """What `close` could not finish: records without an answer, and records that failed."""

    def __init__(self, unacked: int, failed: int) -> None:
        super().__init__(f"{unacked} records were not acked in time and {failed} failed")
        self.unacked = unacked
        self.failed = failed
