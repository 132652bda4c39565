"""Scenarios of the path and of an honest server: losses, silence, little credit, restarts."""

from __future__ import annotations


from typing import Optional

from duragram import wire
from duragram.wire import Ack, Data, Datagram, Hello, Ping, Reject, Welcome

from .run import Scenario

#: What was on its way when an answer was sent does not count against the client, for so many seconds.
RACE = 0.03


class Clean(Scenario):
    about = "a path without faults"

    def expect(self) -> None:
        first = next((seen.datagram for seen in self.trace if not seen.sent), None)
        self.verdict("duty-epoch", isinstance(first, (Hello, Data)), "begins with HELLO or in an epoch of its own")
        again = sum(d.attempt > 0 for d in self.data)
        # A few: on a busy machine this server is late too, and says nothing of it.
        self.verdict("duty-retransmission", again <= self.records // 10, f"sends nothing twice without need ({again})")


class Small(Scenario):
    about = "many small records: a client that batches will do so"
    records = 300
    record_bytes = 20

    def handle(self, now: float, datagram: Datagram) -> None:
        self.answer(datagram, 0.002)


class FirstFlight(Scenario):
    about = "the first acks take half a second"
    records = 24

    def handle(self, now: float, datagram: Datagram) -> None:
        self.answer(datagram, 0.0 if isinstance(datagram, Hello) else 0.5)

    def expect(self) -> None:
        acked = next((at for at, seen in enumerate(self.trace) if seen.sent), len(self.trace))
        flight = sum(isinstance(seen.datagram, Data) for seen in self.trace[:acked])
        self.verdict("duty-congestion", 1 <= flight <= 10, f"{flight} datagrams before the first ack, at most 10")


class Lossy(Scenario):
    about = "a path that loses 10 % each way, repeats and reorders"
    records = 80
    patience = 60.0

    def handle(self, now: float, datagram: Datagram) -> None:
        if self.random.random() < 0.1:
            return
        # A client with an epoch of its own may take the very first one, doubled, for another run's (PROTOCOL.md#epoch-used).
        doubled = self.random.random() < 0.2 and len(self.data) > 1
        for _ in range(1 + doubled):
            reply = self.model.answer(datagram)
            if reply is not None and self.random.random() > 0.1:
                self.send(reply, self.random.choice([0.0, 0.0, 0.01]))

    def expect(self) -> None:
        self.verdict("duty-retransmission", any(d.attempt for d in self.data), "sends again what is lost")


class Hole(Scenario):
    about = "seq 5 is lost, what follows is acked by bitmaps"
    records = 60
    #: Seconds: a client that waits for its timer is later than this.
    delay = 0.1

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.told_at = 0.0

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Data) and datagram.seq == 5 and datagram.attempt == 0:
            return
        reply = self.model.answer(datagram)
        if reply is not None:
            self.send(reply, self.delay)
        if isinstance(reply, Ack) and not self.told_at and len(reply.bitmap) and bin(int.from_bytes(reply.bitmap, "little")).count("1") >= 3:
            self.told_at = now + self.delay

    def expect(self) -> None:
        again = [at for d, at in self.data_at if d.seq == 5]
        if not self.told_at or len(again) < 2:
            self.verdict("duty-loss", None, "never had three later datagrams acked")
            return
        late = again[1] - self.told_at
        # On a busy machine all is late; who sends something else first has not seen the loss.
        first = {d.seq for d, at in self.data_at if self.told_at + RACE < at < again[1] and d.attempt == 0}
        said = f"({1000 * late:.0f} ms after the ack that shows it)"
        self.verdict("duty-loss", late < 0.08 or not first, f"sends a lost one again at once, and before others {said}")
        known: dict[int, float] = {}
        wasted = []
        for seen in self.trace:
            if isinstance(seen.datagram, Ack):
                bits = int.from_bytes(seen.datagram.bitmap, "little")
                for seq in [seen.datagram.floor + 1 + i for i in range(bits.bit_length()) if bits >> i & 1]:
                    known.setdefault(seq, seen.at)
            elif isinstance(seen.datagram, Data) and seen.at > known.get(seen.datagram.seq, 1e18) + RACE:
                wasted.append(seen.datagram.seq)
        self.verdict("duty-loss", not wasted, f"does not repeat what a bitmap has acked {wasted[:5] or ''}")


class Silence(Scenario):
    about = "the server is silent for 8 seconds"
    records = 20
    patience = 40.0

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.until = 0.0

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Data) and not self.until:
            self.until = now + 8.0
        if isinstance(datagram, Hello) or now > self.until:
            self.answer(datagram)

    def expect(self) -> None:
        times = [(at, d) for d, at in self.data_at if at < self.until]
        start = times[0][0] if times else 0.0
        flight = [d for at, d in times if at < start + 0.3]
        later = [(at, d) for at, d in times if at >= start + 0.3]
        waits = [b - a for a, b in zip([start] + [at for at, _ in later], [at for at, _ in later])]
        said = ", ".join(f"{wait:.2f}" for wait in waits)
        self.verdict("duty-retransmission", bool(waits) and 0.8 <= waits[0] <= 1.6, f"first try after about a second ({said} s)")
        doubles = len(waits) >= 2 and all(after > 1.4 * before for before, after in zip(waits, waits[1:]))
        self.verdict("duty-expiry", doubles, f"each wait is about twice the one before, and one datagram each ({said} s)")
        lowest = all(d.seq == 1 for _, d in later)
        self.verdict("duty-expiry", bool(later) and lowest, f"retransmits the lowest unacked of {len(flight)}")


class LittleCredit(Scenario):
    about = "the credit is 3"
    records = 40

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.model.credit = 3

    def expect(self) -> None:
        told = next((seen.at for seen in self.trace if seen.sent), 1e18)
        if self.came(Hello):
            told = 0.0
        beyond = [d for d, at in self.data_at if at > told + RACE and d.span >= 3]
        self.verdict("duty-window", not beyond, f"stays within base - 1 + credit {beyond[:1] or ''}")


class NoCredit(Scenario):
    about = "the credit goes to 0, and comes back in the answer to a PING after a second"
    records = 30
    forgets = False

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.closed_at = 0.0
        self.opened_at = 0.0
        self.pings: list[float] = []

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Data) and datagram.seq >= 3 and not self.opened_at:
            self.model.credit = 0
            self.closed_at = self.closed_at or now
        if isinstance(datagram, Ping) and not self.opened_at:
            self.pings.append(now)
            # So long that a busy machine's own delays do not count.
            if len(self.pings) < 3 or now < self.pings[0] + 1.0:
                return
            if self.forgets:
                self.model.forget()
            self.model.credit, self.opened_at = 10, now
        self.answer(datagram)

    def expect(self) -> None:
        pinged = len(self.pings) >= 3
        said = ", ".join(f"{b - a:.2f}" for a, b in zip(self.pings, self.pings[1:]))
        self.verdict("duty-probe", pinged, f"asks by PING when nothing is in flight ({said} s between)")
        if pinged:
            slower = self.pings[-1] - self.pings[-2] > 1.4 * (self.pings[1] - self.pings[0])
            self.verdict("duty-probe", slower, f"asks ever more rarely ({said} s)")
        data = [seen for seen in self.came(Data) if self.closed_at + RACE < seen.at < (self.opened_at or 1e18)]
        self.verdict("duty-window", not data, f"sends no DATA without credit ({len(data)})")


class NoCreditForgotten(NoCredit):
    about = "the same, and the server has forgotten the session: floor 0"
    forgets = True
    exactly_once = False


class LateAcks(Scenario):
    about = "old acks without credit come late, again and again"
    records = 40

    def handle(self, now: float, datagram: Datagram) -> None:
        self.answer(datagram)
        if isinstance(datagram, Data) and datagram.seq - datagram.span > 2:
            self.lie(Ack(datagram.client, datagram.epoch, 1, 0))

    def expect(self) -> None:
        pings = len(self.came(Ping))
        self.verdict("duty-window", pings == 0, f"takes the credit of the ack with the highest floor ({pings} PINGs)")


class SlowDisk(Scenario):
    about = "each ack takes 400 ms, of which delay_us tells"
    records = 40

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.model.delay_us = 400_000

    def handle(self, now: float, datagram: Datagram) -> None:
        self.answer(datagram, 0.0 if isinstance(datagram, Hello) else 0.4)

    def expect(self) -> None:
        again = sum(d.attempt > 0 for d in self.data)
        self.verdict("duty-retransmission", again <= self.records // 10, f"waits for a slow disk instead of repeating ({again} repeated)")


class HelloLost(Scenario):
    about = "the first two HELLOs are lost, and a WELCOME with another nonce comes"
    records = 5

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Hello) and len(self.came(Hello)) < 3:
            self.lie(Welcome(datagram.client, 77, 100, datagram.nonce ^ 1))
            self.lie(Welcome(datagram.client ^ 1, 78, 100, datagram.nonce))
            self.lie(Reject(datagram.client, 0, wire.REJECT_SEALED_ONLY, datagram.nonce ^ 1))
            return
        self.answer(datagram)

    def expect(self) -> None:
        hellos = self.came(Hello)
        if not hellos:
            self.verdict("duty-epoch", None, "has an epoch of its own, sends no HELLO")
            return
        nonces = {seen.datagram.nonce for seen in hellos if isinstance(seen.datagram, Hello)}
        self.verdict("duty-epoch", len(nonces) == 1, "repeats a HELLO with its nonce")
        early = [seen for seen in self.trace if seen.at < hellos[-1].at and not isinstance(seen.datagram, Hello)]
        self.verdict("duty-epoch", not early, "sends nothing else until WELCOME")
        self.verdict("duty-ignore", {d.epoch for d in self.data} == {self.model.highest_epoch}, "ignores a WELCOME with another nonce")
        waits = [b.at - a.at for a, b in zip(hellos, hellos[1:])]
        slower = len(waits) >= 2 and waits[0] > 0.8 and waits[1] > 1.4 * waits[0]
        self.verdict("duty-epoch", slower, f"waits as for retransmission ({', '.join(f'{wait:.2f}' for wait in waits)} s)")


class Restart(Scenario):
    about = "the server is away for 1.5 s and has forgotten the session"
    records = 60
    patience = 40.0
    exactly_once = False

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.back_at = 0.0

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Data) and datagram.seq >= 15 and not self.back_at:
            self.back_at = now + 1.5
            self.model.forget()
        if not self.back_at or now > self.back_at:
            self.answer(datagram)

    def expect(self) -> None:
        done = self.exit_code == 0
        self.verdict("duty-retransmission", done, "goes on when a server has come back that has forgotten the session")


class UsedEpoch(Scenario):
    about = "another run has left five messages in the epoch that the client chooses"
    records = 20
    patience = 30.0
    succeeds = False
    exactly_once = False
    former = 5

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.model.former = self.former

    def expect(self) -> None:
        if self.came(Hello) and isinstance(self.trace[0].datagram, Hello):
            self.verdict("epoch-used", None, "asks by HELLO")
            return
        missing = set(self.lines) - set(self.model.journal)
        right = self.exit_code is not None and (self.exit_code != 0 or not missing)
        self.verdict("epoch-used", right, f"does not count as acked what another run sent (exit code {self.exit_code}, {len(missing)} not journaled)")


class UsedEpochOnce(UsedEpoch):
    about = "another run has left one message in it"
    former = 1


SCENARIOS: list[type[Scenario]] = [
    Clean, Small, FirstFlight, Lossy, Hole, Silence, LittleCredit, NoCredit, NoCreditForgotten, LateAcks, SlowDisk, HelloLost, Restart,
    UsedEpoch, UsedEpochOnce,
]  # fmt: skip
