"""A machine with a clock in the test's hand, and answers made to order."""

from __future__ import annotations

import random
from typing import Any, Optional

from duragram import wire
from duragram.asks import Ask
from duragram.machine import Machine
from duragram.message import Config, Message, Outcome
from duragram.wire import Ack, Answer, Data, Hello, Ping, Reject, Take, Welcome

CLIENT = 0xA1


class Bench:
    def __init__(self, epoch: int = 7, link: Optional[wire.Wire] = None, **config: Any) -> None:
        self.now = 1.0
        self.machine = Machine(CLIENT, epoch, link or wire.Plain(CLIENT), Config(**config), random.Random(5))

    @classmethod
    def in_flight(cls, count: int, **config: Any) -> Bench:
        bench = cls(**config)
        for _ in range(count):
            bench.send()
        assert len(bench.transmit()) == count
        return bench

    def send(self, payload: bytes = bytes(64), **more: Any) -> Message:
        return self.machine.send(self.now, payload, **more)

    def ask(self, wait: float = 20.0, payload: bytes = bytes(64)) -> Ask:
        ask = Ask(wait)
        self.send(payload, ask=ask)
        return ask

    @classmethod
    def asked(cls, count: int, wait: float = 20.0, **config: Any) -> tuple[Bench, list[Ask]]:
        """So many have asked and are acked; nothing was taken yet."""
        bench = cls(**config)
        asks = [bench.ask(wait) for _ in range(count)]
        while bench.machine.queued:
            seqs = bench.seqs()
            bench.now += 0.05
            bench.ack(seqs[-1])
        return bench, asks

    def takes(self) -> list[Take]:
        """The TAKEs that are sent now."""
        return [datagram for datagram in self.transmit_all() if isinstance(datagram, Take)]

    def taken(self) -> list[int]:
        return [take.seq for take in self.takes()]

    def answer(self, seq: int, status: int = wire.DONE, body: bytes = b"", number: Optional[int] = None, **more: Any) -> Optional[str]:
        length = len(body) if number is None else number
        return self.receive(Answer(CLIENT, more.pop("epoch", self.machine.epoch), seq, status, length, body, **more))

    def answered(self) -> list[tuple[int, Optional[int], bytes]]:
        """Seq, status and body of what is finished."""
        return [(ask.seq, ask.status, ask.body) for ask in self.machine.asks.take_finished()]

    def transmit(self) -> list[Data]:
        """The DATA that are sent now."""
        return [datagram for datagram in self.transmit_all() if isinstance(datagram, Data)]

    def transmit_all(self) -> list[wire.Datagram]:
        return [wire.decode(bytes_) for bytes_ in self.machine.transmit(self.now, 100_000)]

    def seqs(self) -> list[int]:
        return [data.seq for data in self.transmit()]

    def hello(self) -> Optional[Hello]:
        found = [datagram for datagram in self.transmit_all() if isinstance(datagram, Hello)]
        return found[0] if found else None

    def pings(self) -> int:
        return sum(isinstance(datagram, Ping) for datagram in self.transmit_all())

    def time_out(self) -> float:
        """Goes on to the deadline; returns how long that was."""
        assert self.machine.deadline is not None
        waited = self.machine.deadline - self.now
        self.now = self.machine.deadline
        self.machine.handle_timeout(self.now)
        return waited

    def receive(self, datagram: wire.Datagram) -> Optional[str]:
        return self.machine.handle_datagram(self.now, wire.encode(datagram))

    def ack(self, floor: int, above: tuple[int, ...] = (), credit: int = 64, **more: Any) -> Optional[str]:
        bits = sum(1 << (seq - floor - 1) for seq in above)
        bitmap = bits.to_bytes(-(-bits.bit_length() // 64) * 8, "little")
        ack = Ack(CLIENT, more.pop("epoch", self.machine.epoch), floor, credit, bitmap=bitmap, **more)
        return self.receive(ack)

    def reject(self, seq: int, code: int, retry_after_ms: int = 0) -> Optional[str]:
        return self.receive(Reject(CLIENT, self.machine.epoch, code, seq, retry_after_ms))

    def welcome(self, nonce: int, epoch: int, credit: int = 64) -> Optional[str]:
        return self.receive(Welcome(CLIENT, epoch, credit, nonce))

    def ended(self) -> list[tuple[int, Optional[Outcome]]]:
        """Seq and outcome of what has ended."""
        return [(message.seq, message.outcome) for message in self.machine.take_decided()]
