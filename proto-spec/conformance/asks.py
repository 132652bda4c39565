"""What a server keeps of asks, answers and held TAKEs (PROTOCOL.md#answers-server), in memory. Time is passed in."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Any, NamedTuple, Optional

from duragram import wire
from duragram.wire import Answer, Data, Take

#: Of one client, over all its epochs.
ASKS_MAX = 64
#: Of one session.
HELD_MAX = 16
#: Seconds.
HOLD_MAX = 20.0


class Outcome(NamedTuple):
    """What a handler says of a record."""

    status: int
    body: bytes = b""


def handled(payload: bytes) -> tuple[float, Outcome]:
    """What the handler of this kit makes of a record, and after how many seconds. `handler.py` does the same for a real server."""
    words = payload.split(b" ")
    if words[0] == b"wait":
        return float(words[1]), Outcome(wire.DONE, b"did " + payload)
    if words[0] == b"retry":
        return 2.0, Outcome(wire.DONE, b"did " + payload)
    if words[0] == b"fail":
        return 0.0, Outcome(wire.FAILED)
    if words[0] == b"quiet":
        return 0.0, Outcome(wire.DONE)
    return 0.0, Outcome(wire.DONE, b"did " + payload[:1000])


@dataclass
class Held:
    """A TAKE that waits for its answer."""

    take: Take
    until: float
    #: Where its answer goes: whatever the caller passed in.
    peer: Any


class Due(NamedTuple):
    """An ANSWER that is to be sent now."""

    answer: Answer
    peer: Any


class Asks:
    """The ask part of a model server. `None` for the outcome of an ask: it is open."""

    def __init__(self) -> None:
        self.asks: dict[tuple[int, int], dict[int, Optional[Outcome]]] = {}
        self.held: dict[tuple[int, int, int], Held] = {}
        self.work: list[tuple[float, int, tuple[int, int, int], Outcome]] = []
        self._made = count()

    # The parts of which each is broken by a sabotage.

    def has_room(self, client: int, epoch: int) -> bool:
        """PROTOCOL.md#rule-a1. A newer epoch takes the place of the lowest (PROTOCOL.md#rule-a8)."""
        while sum(len(of) for (run, _), of in self.asks.items() if run == client) >= ASKS_MAX:
            older = [of for run, of in self.asks if run == client and of < epoch and self.asks[run, of]]
            if not older:
                return False
            lowest = self.asks[client, min(older)]
            del lowest[min(lowest)]
        return True

    def open(self, d: Data, now: float) -> None:
        """PROTOCOL.md#rule-a1: of what was just journaled, never of a duplicate."""
        self.asks.setdefault((d.client, d.epoch), {})[d.seq] = None
        after, outcome = handled(d.payload)
        heappush(self.work, (now + after, next(self._made), (d.client, d.epoch, d.seq), outcome))

    def repeated(self, d: Data, now: float) -> None:
        """PROTOCOL.md#rule-a1: a duplicate makes no ask."""

    def close(self, name: tuple[int, int, int], outcome: Outcome) -> None:
        """PROTOCOL.md#rule-a2: the first answer of an open ask stands."""
        of = self.asks.get(name[:2], {})
        if name[2] in of and of[name[2]] is None:
            of[name[2]] = outcome

    def forget(self, take: Take) -> None:
        """PROTOCOL.md#rule-a4: what lies below seq - span."""
        of = self.asks.get((take.client, take.epoch), {})
        for seq in [seq for seq in of if seq < take.seq - take.span]:
            del of[seq]

    def cut(self, take: Take, answer: Answer) -> Answer:
        """PROTOCOL.md#rule-a5: never longer than the TAKE."""
        return answer if len(answer.body) <= take.room else answer._replace(body=b"")

    def hold(self, take: Take, now: float, peer: Any) -> bool:
        """PROTOCOL.md#rule-a6"""
        name = take.client, take.epoch, take.seq
        session = [held for held in self.held if held[:2] == name[:2] and held != name]
        if take.wait_ms == 0 or len(session) >= HELD_MAX:
            self.held.pop(name, None)
            return False
        self.held[name] = Held(take, now + min(take.wait_ms / 1000, HOLD_MAX), peer)
        return True

    def pending(self, held_to_its_end: bool) -> int:
        """PROTOCOL.md#rule-a7: milliseconds."""
        return 0 if held_to_its_end else 1000

    def is_ready(self, client: int, epoch: int) -> bool:
        """PROTOCOL.md#ready"""
        return any(outcome is not None for outcome in self.asks.get((client, epoch), {}).values())

    # What the server does with them.

    def take(self, take: Take, now: float, peer: Any = None) -> Optional[Answer]:
        """What it draws at once; `None`: it is held."""
        self.step(now)
        self.forget(take)
        of = self.asks.get((take.client, take.epoch), {})
        answer = Answer(take.client, take.epoch, take.seq, wire.GONE)
        if take.seq not in of:
            return answer
        if of[take.seq] is None:
            if self.hold(take, now, peer):
                return None
            return answer._replace(status=wire.PENDING, number=self.pending(False))
        self.held.pop((take.client, take.epoch, take.seq), None)
        return self.answered(take)

    def answered(self, take: Take) -> Answer:
        """DONE or FAILED."""
        outcome = self.asks[take.client, take.epoch][take.seq]
        assert outcome is not None
        answer = Answer(take.client, take.epoch, take.seq, outcome.status, len(outcome.body), outcome.body)
        return self.cut(take, answer)

    def step(self, now: float) -> None:
        """Handlers end."""
        while self.work and self.work[0][0] <= now:
            _, _, name, outcome = heappop(self.work)
            self.close(name, outcome)

    def due(self, now: float) -> list[Due]:
        """What ends held TAKEs."""
        self.step(now)
        ended = []
        for name, held in list(self.held.items()):
            of = self.asks.get(name[:2], {})
            answer = Answer(*name, wire.GONE)
            if name[2] in of and of[name[2]] is None:
                if now < held.until:
                    continue
                answer = answer._replace(status=wire.PENDING, number=self.pending(True))
            elif name[2] in of:
                answer = self.answered(held.take)
            # A held TAKE whose ask was forgotten meanwhile gets GONE, as it would if it came now.
            del self.held[name]
            ended.append(Due(answer, held.peer))
        return ended
