"""What the acks of a session tell: which transmissions have arrived, which seqs are missing, and whether the session is
this run's own. Transmissions are numbered in the order of their making."""

from __future__ import annotations

from typing import Final, Optional

from .message import Message
from .wire import Ack

#: Above every seq.
EVERY_SEQ: Final = 2**64
#: The part of the shortest answer's time before which none is expected.
SOONER: Final = 0.75


class Arrivals:
    """PROTOCOL.md#duty-loss"""

    def __init__(self) -> None:
        #: The highest transmission that is known to have arrived.
        self.newest = 0
        #: What is not acked up to this seq was missing when the ack with the highest floor was made.
        self.told = 0
        #: The first transmission after an expiry, until it is known whether that has arrived; 0 for none.
        self.expired = 0

    def note_told(self, ack: Ack) -> None:
        """Of the ack with the highest floor so far."""
        self.told = EVERY_SEQ if ack.complete else ack.floor + max(8 * len(ack.bitmap), 1)

    def is_missed(self, seq: int, transmission: int) -> bool:
        """Whether the server is known not to have what is transmitted now."""
        return seq <= self.told or transmission == self.expired

    def learn(self, now: float, ack: Ack, newly: list[Message], shortest: float) -> bool:
        """`newest` rises with what an ack newly covers. `shortest`: no answer took less, as far as is known. Returns
        whether the lowest message is to be sent again at once, to hear of the rest."""
        once, again = 0, None
        for message in newly:
            if message.attempt == 0:
                once = max(once, message.transmission)
            elif message.missed and (again is None or message.transmission > again.transmission):
                again = message
        answers_probe = again is not None and again.transmission == self.expired
        # A server that stood still and reads what it got meanwhile: the answer may be to an earlier transmission.
        reading = ack.complete and not any(ack.bitmap) and once > 0
        self.newest = max(self.newest, once)
        # Far sooner than any answer was: it is the answer to an earlier transmission, which says nothing of this one. What is sent
        # again goes in small flights, and may be answered a little sooner than those that were measured.
        if again is not None and not reading and (answers_probe or now - again.sent_at >= shortest * SOONER):
            self.newest = max(self.newest, again.transmission)
        return reading and answers_probe


#: After so many retransmissions of the first message an ack of what was never sent betrays another user of the epoch, where
#: nothing vouches for who made it: some seconds of lies must not end a run.
RETRANSMISSIONS: Final = 2


class Doubt:
    """Whether an epoch that was given from outside is another run's (PROTOCOL.md#epoch-used)."""

    #: How long the true answer may take to come after a strange one, in seconds.
    TRUTH_WAIT: Final = 1.0

    def __init__(self, doubted: bool, is_sealed: bool) -> None:
        self.is_sealed = is_sealed
        #: It was another run's.
        self.is_used = False
        self.begin(doubted)

    def begin(self, doubted: bool) -> None:
        """An epoch begins."""
        #: Nothing has shown yet that the epoch is this run's own: the first message goes alone.
        self.doubted = doubted
        #: Whether a PING was sent, after which a duplicate is no sign.
        self.pinged = False
        #: After so many retransmissions of the first message the last ack of what was never sent came.
        self._strange = -1

    def ack_of_what_was_never_sent(self, first: Optional[Message]) -> bool:
        """Whether that shows it to be used; `first` is the message in flight. A seal cannot be forged."""
        if first is not None:
            self._strange = first.attempt
        return self.doubted and self.is_sealed

    def is_exposed(self, first: Optional[Message]) -> bool:
        """Whether it is used if no true answer comes: in plain mode anyone can have made a strange ack, but who answers one
        transmission after the other so, and lets no true answer through, is the server, or could have acked what is not
        journaled just as well."""
        return self.doubted and first is not None and first.attempt == self._strange >= RETRANSMISSIONS

    def ack(self, ack: Ack, newly: list[Message]) -> bool:
        """Whether an ack shows it to be used: what was sent once and is a duplicate was there before."""
        if not self.doubted or not newly:
            return False
        self.doubted = False
        return ack.duplicate and not self.pinged and any(message.attempt == 0 for message in newly)
