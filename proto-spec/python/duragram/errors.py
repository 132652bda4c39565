"""How a record ends: with a receipt, or with one of these errors."""

from __future__ import annotations

from dataclasses import dataclass

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


class SendError(Exception):
    """A record has no receipt."""


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
    had been sent before may have been journaled."""


class Incomplete(Exception):
    """What `close` could not finish: records without an answer, and records that failed."""

    def __init__(self, unacked: int, failed: int) -> None:
        super().__init__(f"{unacked} records were not acked in time and {failed} failed")
        self.unacked = unacked
        self.failed = failed
