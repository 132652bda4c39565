"""Servers with answers, over UDP: the model, right and with one rule broken. The kit must notice each."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any, Optional

from duragram import wire
from duragram.wire import Ack, Answer, Data, DecodeError, Take

from .asks import Asks, Due, Outcome, handled
from .model import Model


class ModelServer:
    """The model behind a socket, for as long as it is not closed."""

    def __init__(self, asks: Optional[Asks]) -> None:
        self.model = Model()
        self.model.asks = asks
        self.asks = asks
        self.latest: dict[tuple[int, int], Any] = {}
        if asks is not None and hasattr(asks, "latest"):
            asks.latest = self.latest
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(0.002)
        self.address = "127.0.0.1:%d" % self.socket.getsockname()[1]
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended:
            with contextlib.suppress(OSError):
                bytes_, peer = self.socket.recvfrom(65536)
                self._handle(bytes_, peer)
            for due in self.asks.due(time.monotonic()) if self.asks is not None else []:
                self._send(due.answer, due.peer)

    def _handle(self, bytes_: bytes, peer: Any) -> None:
        try:
            datagram = wire.decode(bytes_)
        except DecodeError:
            return
        if isinstance(datagram, (wire.Reject, wire.Ack, wire.Welcome, wire.Answer)):
            return
        if isinstance(datagram, (Data, Take, wire.Ping)):
            self.latest[datagram.client, datagram.epoch] = peer
        reply = self.model.answer(datagram, peer)
        if isinstance(self.asks, AcksWhenProcessed) and isinstance(reply, Ack) and isinstance(datagram, Data):
            time.sleep(handled(datagram.payload)[0])
        if reply is not None:
            self._send(reply, peer)

    def _send(self, reply: wire.Datagram, peer: Any) -> None:
        with contextlib.suppress(OSError):
            self.socket.sendto(wire.encode(reply), peer)

    def close(self) -> None:
        self._ended = True
        self._thread.join()
        self.socket.close()


class AcksWhenProcessed(Asks):
    """The ack waits for the handler."""


class AsksAnew(Asks):
    """A duplicate makes an ask."""

    def repeated(self, d: Data, now: float) -> None:
        if d.seq not in self.asks.get((d.client, d.epoch), {}):
            self.open(d, now)


class Boundless(Asks):
    def has_room(self, client: int, epoch: int) -> bool:
        return True


class AnswersTwice(Asks):
    """From the second time on another answer."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[tuple[int, int, int]] = set()

    def answered(self, take: Take) -> Answer:
        answer, name = super().answered(take), (take.client, take.epoch, take.seq)
        again = name in self._told and answer.body
        self._told.add(name)
        return answer._replace(body=answer.body[::-1]) if again else answer


class TellsBeforeTheEffect(Asks):
    def open(self, d: Data, now: float) -> None:
        super().open(d, now)
        self.asks[d.client, d.epoch][d.seq] = handled(d.payload)[1]


class NeverForgets(Asks):
    def forget(self, take: Take) -> None:
        pass


class ForgetsTooMuch(Asks):
    """Span is left aside."""

    def forget(self, take: Take) -> None:
        super().forget(take._replace(span=0))


class DoneOfTheUnknown(Asks):
    def take(self, take: Take, now: float, peer: Any = None) -> Optional[Answer]:
        answer = super().take(take, now, peer)
        return answer._replace(status=wire.DONE) if answer is not None and answer.status == wire.GONE else answer


class LongerThanTheTake(Asks):
    def cut(self, take: Take, answer: Answer) -> Answer:
        return answer


class CutsTheBody(Asks):
    """Says of a part that it is the whole."""

    def cut(self, take: Take, answer: Answer) -> Answer:
        return answer._replace(body=answer.body[: take.room], number=min(answer.number, take.room))


class Pushes(Asks):
    """Sends what is answered to who has not asked for it now."""

    def __init__(self) -> None:
        super().__init__()
        self.latest: dict[tuple[int, int], Any] = {}
        self._pushed: list[Due] = []

    def close(self, name: tuple[int, int, int], outcome: Outcome) -> None:
        super().close(name, outcome)
        # Of what is slow, since the others are taken at once.
        if name not in self.held and name[:2] in self.latest and b"wait" in outcome.body:
            self._pushed.append(Due(Answer(*name, outcome.status, len(outcome.body)), self.latest[name[:2]]))

    def due(self, now: float) -> list[Due]:
        ended = super().due(now)
        ended, self._pushed = ended + self._pushed, []
        return ended


class FollowsTheAddress(Asks):
    """A held TAKE is answered to where the session's newest datagram came from."""

    def __init__(self) -> None:
        super().__init__()
        self.latest: dict[tuple[int, int], Any] = {}

    def due(self, now: float) -> list[Due]:
        return [Due(due.answer, self.latest[due.answer.client, due.answer.epoch]) for due in super().due(now)]


class AnswersEachHeldTake(Asks):
    """A newer TAKE of the same seq ends none."""

    def __init__(self) -> None:
        super().__init__()
        self._older: list[tuple[tuple[int, int, int], Any]] = []

    def hold(self, take: Take, now: float, peer: Any) -> bool:
        name = take.client, take.epoch, take.seq
        if name in self.held:
            self._older.append((name, peer))
        return super().hold(take, now, peer)

    def due(self, now: float) -> list[Due]:
        ended = super().due(now)
        names = {(due.answer.client, due.answer.epoch, due.answer.seq): due.answer for due in ended}
        return ended + [Due(names[name], peer) for name, peer in self._older if name in names]


class NeverHolds(Asks):
    def hold(self, take: Take, now: float, peer: Any) -> bool:
        return False


class HoldsOn(Asks):
    """Beyond what the client has named."""

    def hold(self, take: Take, now: float, peer: Any) -> bool:
        return super().hold(take._replace(wait_ms=take.wait_ms and 20_000), now, peer)


class HoldsAny(Asks):
    """However many the session has held."""

    def hold(self, take: Take, now: float, peer: Any) -> bool:
        others = {name: held for name, held in self.held.items() if name[2] != take.seq}
        for name in others:
            del self.held[name]
        is_held = super().hold(take, now, peer)
        self.held.update(others)
        return is_held


class AtOnceAgain(Asks):
    """PENDING with 0, though the TAKE was not held."""

    def pending(self, held_to_its_end: bool) -> int:
        return 0


class SlowAfterAHold(Asks):
    def pending(self, held_to_its_end: bool) -> int:
        return 1000


class NoRoomForANewerEpoch(Asks):
    def has_room(self, client: int, epoch: int) -> bool:
        return sum(len(of) for (run, _), of in self.asks.items() if run == client) < 64


class WaitsForAll(Asks):
    """Flushes what its handler has done a while after, and only when nothing is left to do."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[tuple[tuple[int, int, int], Outcome]] = []

    def open(self, d: Data, now: float) -> None:
        super().open(d, now + 0.2)

    def close(self, name: tuple[int, int, int], outcome: Outcome) -> None:
        self._kept.append((name, outcome))
        if not self.work:
            kept, self._kept = self._kept, []
            for one, of in kept:
                super().close(one, of)


class NeverReady(Asks):
    def is_ready(self, client: int, epoch: int) -> bool:
        return False


class AlwaysReady(Asks):
    def is_ready(self, client: int, epoch: int) -> bool:
        return True


#: Each with the sections under which it is to be noticed: one of them at least.
SABOTAGES: dict[type[Asks], str] = {
    AcksWhenProcessed: "ask", AsksAnew: "rule-a1", Boundless: "rule-a1", AnswersTwice: "rule-a2", TellsBeforeTheEffect: "rule-a3",
    NeverForgets: "rule-a4", ForgetsTooMuch: "rule-a4", DoneOfTheUnknown: "rule-a4", LongerThanTheTake: "take", CutsTheBody: "take",
    Pushes: "rule-a5", FollowsTheAddress: "rule-a5", AnswersEachHeldTake: "rule-a6", NeverHolds: "rule-a6", HoldsOn: "rule-a6",
    HoldsAny: "rule-a6", AtOnceAgain: "rule-a7", SlowAfterAHold: "rule-a7", NoRoomForANewerEpoch: "rule-a8", WaitsForAll: "rule-a9", NeverReady: "ready",
    AlwaysReady: "ready",
}  # fmt: skip
