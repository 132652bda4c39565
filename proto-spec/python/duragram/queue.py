"""The messages of a session that wait, are in flight or have ended, and which seq is whose. It knows nothing of time,
windows or datagrams."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Any, Optional

from .message import DECIDED, HELD, IN_FLIGHT, LOST, OVERTAKEN, UNSENT, Message, Outcome
from .wire import SPAN_MAX


class Queue:
    """Messages in the order of `send`; those that were transmitted in this epoch have a seq."""

    def __init__(self) -> None:
        #: Not transmitted in this epoch.
        self.waiting: deque[Message] = deque()
        #: Transmitted and undecided, by seq.
        self.sent: dict[int, Message] = {}
        #: The seq that the next message gets.
        self.next_seq = 1
        #: The lowest seq that is neither acked nor given up.
        self.base = 1
        #: The highest seq below `base` that will never come.
        self.skipped = 0
        #: How many may be on the path.
        self.in_flight = 0
        #: How many have left it, and it is not known whether they arrived.
        self.overtaken = 0
        self._decided: list[Message] = []
        #: Seqs from `base` on that will never come.
        self._holes: set[int] = set()
        #: In flight, in the order of transmission. Entries that were acked, lost or sent again are passed over when they are met.
        self._flying: deque[tuple[int, Message]] = deque()
        #: Those that were overtaken, by transmission and by seq, with such entries too.
        self._overtaken: deque[tuple[int, Message]] = deque()
        self._overtaken_seqs: list[tuple[int, int, Message]] = []
        #: A heap of seqs. Entries that were acked are passed over when they are met.
        self._lost: list[int] = []
        #: A heap of what the server has no room for now: until when, and which. With such entries too.
        self._held: list[tuple[float, int, Message]] = []

    @property
    def awaited(self) -> int:
        """How many were transmitted and are neither decided nor lost."""
        return self.in_flight + self.overtaken

    @property
    def undecided(self) -> int:
        return len(self.waiting) + len(self.sent)

    def oldest_token(self) -> Any:
        """Of the oldest message that has not ended: what was transmitted is older than what was not."""
        message = self.sent.get(self.base) or (self.waiting[0] if self.waiting else None)
        return None if message is None else message.token

    def candidate(self) -> tuple[Optional[Message], int]:
        """What to transmit next, and its seq: the lowest lost one, else the first that was not transmitted."""
        while self._lost:
            message = self.sent.get(self._lost[0])
            if message is not None and message.state is LOST:
                return message, message.seq
            heappop(self._lost)
        if not self.waiting or self.next_seq - self.base > SPAN_MAX:
            return None, 0
        return self.waiting[0], self.next_seq

    def transmit(self, message: Message, epoch: int, now: float, transmission: int, missed: bool) -> bool:
        """The candidate is transmitted; `missed`: the server is known not to have it. Returns whether it was transmitted
        before, in this epoch."""
        again = message.state is LOST
        if again:
            heappop(self._lost)
            message.attempt += 1
        else:
            self.waiting.popleft()
            message.seq, message.epoch, message.attempt = self.next_seq, epoch, 0
            self.sent[self.next_seq] = message
            self.next_seq += 1
        message.state = IN_FLIGHT
        message.sent_at = now
        message.transmission = transmission
        message.missed = missed
        self._flying.append((transmission, message))
        self.in_flight += 1
        return again

    def overtake(self, last: int) -> None:
        """Transmissions up to this one have left the path."""
        flying = self._flying
        while flying and flying[0][0] <= last:
            transmission, message = flying.popleft()
            if message.state is IN_FLIGHT and message.transmission == transmission:
                message.state = OVERTAKEN
                self.in_flight -= 1
                self.overtaken += 1
                self._overtaken.append((transmission, message))
                heappush(self._overtaken_seqs, (message.seq, transmission, message))

    def oldest_overtaken(self) -> Optional[Message]:
        """The one whose latest transmission is the oldest."""
        while self._overtaken:
            transmission, message = self._overtaken[0]
            if message.state is OVERTAKEN and message.transmission == transmission:
                return message
            self._overtaken.popleft()
        return None

    def lowest_overtaken(self) -> Optional[Message]:
        """The one with the lowest seq."""
        while self._overtaken_seqs:
            _, transmission, message = self._overtaken_seqs[0]
            if message.state is OVERTAKEN and message.transmission == transmission:
                return message
            heappop(self._overtaken_seqs)
        return None

    def mark_lost(self, message: Message) -> None:
        """A transmitted one is to be transmitted again; but not yet, if it is held."""
        if message.state is LOST or message.state is HELD:
            return
        self._leave_path(message)
        message.state = LOST
        heappush(self._lost, message.seq)

    def hold(self, message: Message, until: float) -> None:
        """A transmitted one is to be transmitted again after that time. Others go on."""
        if message.state is not HELD:
            self._leave_path(message)
            message.state = HELD
            heappush(self._held, (until, message.seq, message))

    @property
    def held_until(self) -> Optional[float]:
        """When the first of those that are held is to be released."""
        while self._held and self._held[0][2].state is not HELD:
            heappop(self._held)
        return self._held[0][0] if self._held else None

    def release(self, now: float) -> None:
        """What was held for long enough is to be transmitted again."""
        while (until := self.held_until) is not None and until <= now:
            _, seq, message = heappop(self._held)
            message.state = LOST
            heappush(self._lost, seq)

    def lowest_transmitted(self) -> Optional[Message]:
        """The lowest that is undecided and not held."""
        base = self.sent.get(self.base)
        if base is None or base.state is not HELD:
            return base
        return min((one for one in self.sent.values() if one.state is not HELD), key=lambda one: one.seq, default=None)

    def lose_all(self) -> None:
        """All that was transmitted is to be transmitted again."""
        for message in self.sent.values():
            self.mark_lost(message)
        self._flying.clear()
        self._overtaken.clear()
        self._overtaken_seqs.clear()

    def _leave_path(self, message: Message) -> None:
        self.in_flight -= message.state is IN_FLIGHT
        self.overtaken -= message.state is OVERTAKEN

    def end(self, message: Message, outcome: Outcome) -> None:
        """A message has ended. `pass_decided` is to follow."""
        self._leave_path(message)
        if message.state is not UNSENT:
            del self.sent[message.seq]
            if outcome is not Outcome.ACKED:
                self._holes.add(message.seq)
        message.state = DECIDED
        message.outcome = outcome
        self._decided.append(message)

    def end_oldest(self, outcome: Outcome, code: int = 0) -> Optional[Message]:
        """Ends the oldest; `None` when there is none. One that was never transmitted takes no seq with it."""
        message = self.sent.get(self.base)
        if message is None:
            if not self.waiting:
                return None
            message = self.waiting.popleft()
        message.code = code
        self.end(message, outcome)
        self.pass_decided()
        return message

    def end_all(self, outcome: Outcome, epoch: int, code: int = 0) -> None:
        """Ends all that there is, in that epoch."""
        while (message := self.end_oldest(outcome, code)) is not None:
            message.epoch = epoch

    def pass_decided(self) -> None:
        """Moves `base` over what has ended."""
        base, sent = self.base, self.sent
        while base < self.next_seq and base not in sent:
            if base in self._holes:
                self._holes.discard(base)
                self.skipped = base
            base += 1
        self.base = base

    def take_decided(self) -> list[Message]:
        """The messages that have ended since the last call."""
        decided, self._decided = self._decided, []
        return decided

    def renumber(self) -> None:
        """A new epoch: what is undecided gets new seqs, from 1 on and without holes, and counts as not transmitted."""
        for message in sorted(self.sent.values(), key=lambda message: message.seq, reverse=True):
            message.state = UNSENT
            self.waiting.appendleft(message)
        self.sent.clear()
        self._flying.clear()
        self._overtaken.clear()
        self._overtaken_seqs.clear()
        self._lost.clear()
        self._held.clear()
        self._holes.clear()
        self.next_seq = self.base = 1
        self.skipped = self.in_flight = self.overtaken = 0
