"""Scenarios of REJECTs, one for each code, and of a server that lies."""

from __future__ import annotations

import struct
import time
from typing import Optional

from duragram import wire
from duragram.wire import Ack, Data, Datagram, Hello, Ping, Reject, Welcome

from .run import Scenario

RACE = 0.03


class RefusedForGood(Scenario):
    about = "seq 3 is refused: code {}"
    code = 0
    succeeds = False
    refuses = True
    #: The version nibble of the REJECT.
    version = wire.VERSION

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Data) and datagram.seq == 3:
            refusal = Reject(datagram.client, datagram.epoch, self.code, 3)
            if self.version == wire.VERSION:
                self.lie(refusal)
            else:
                # Another version's may be longer.
                body = wire.encode(refusal)[1:-4] + bytes(8)
                self.lie(wire.with_crc(bytes([self.version << 4 | wire.REJECT]) + body))
            return
        self.answer(datagram)

    def expect(self) -> None:
        name = f"code {self.code}" + (f" in version {self.version}" if self.version != wire.VERSION else "")
        refused = [d for d in self.data if d.seq == 3]
        lost = set(refused[0].payload.splitlines()) if refused else set()
        records = wire.records(refused[0].payload) if refused and refused[0].batch else [refused[0].payload] if refused else []
        missing = set(self.lines) - set(self.model.journal) - set(records or [])
        self.verdict("duty-reject", bool(lost) and not missing, f"{name}: the others go on ({len(missing)} missing)")
        self.verdict("duty-reject", self.exit_code not in (None, 0), f"{name}: the application is told (exit code {self.exit_code})")
        self.verdict("duty-reject", len(refused) == 1, f"{name}: it is not sent again ({len(refused)} times)")
        above = [d for d in self.data if d.seq - d.span > 3]
        skipped = [d for d in above if d.skip]
        self.verdict("duty-skip", bool(skipped), f"{name}: SKIP is set where base lies above it ({len(skipped)} of {len(above)} times)")


class RefusedRun(Scenario):
    about = "ten seqs in a row are refused, the window is 4"
    succeeds = False
    refuses = True

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.model.window = 4
        self.refused: Optional[int] = None

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Data):
            self.refused = self.refused or datagram.epoch
            if datagram.epoch == self.refused and 3 <= datagram.seq <= 12:
                self.lie(Reject(datagram.client, datagram.epoch, wire.REJECT_CHANNEL, datagram.seq))
                return
        self.answer(datagram)

    def expect(self) -> None:
        # Rule 4: beyond floor 2 + window 4 the server could not tell it from lost data.
        beyond = [d for d in self.data if d.epoch == self.refused and d.seq - d.span - 1 > 2 + 4]
        self.verdict("duty-window", not beyond, f"a run of refused seqs longer than the window leads to a new epoch {beyond[:1] or ''}")
        more = len({d.epoch for d in self.data})
        self.verdict("duty-window", self.exit_code is not None and more > 1, f"and goes on there ({more} epochs)")


class Stale(Scenario):
    about = "seq 4 is answered STALE_EPOCH"
    exactly_once = False
    times = 1
    patience = 40.0

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.stale: list[int] = []

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Data):
            if datagram.epoch not in self.stale and len(self.stale) < self.times and datagram.seq >= self.from_seq():
                self.stale.append(datagram.epoch)
            if datagram.epoch in self.stale:
                self.lie(Reject(datagram.client, datagram.epoch, wire.REJECT_STALE_EPOCH, datagram.seq))
                return
        self.answer(datagram)

    def from_seq(self) -> int:
        return 4

    def expect(self) -> None:
        epochs = list(dict.fromkeys(d.epoch for d in self.data))
        self.verdict("duty-epoch", len(epochs) == self.times + 1, f"opens a new epoch after STALE_EPOCH ({len(epochs) - 1} of {self.times})")
        order = [self.lines.index(line) for d in self.data if d.epoch == epochs[-1] for line in self._lines(d) if not d.attempt]
        self.verdict("duty-epoch", order == sorted(order) and self.exit_code == 0, "what is unacked goes there, in order")

    @staticmethod
    def _lines(d: Data) -> list[bytes]:
        return (wire.records(d.payload) or []) if d.batch else [d.payload]


class StaleThrice(Stale):
    about = "three epochs in a row are answered STALE_EPOCH at their first seq"
    times = 3

    def from_seq(self) -> int:
        return 1

    def expect(self) -> None:
        super().expect()
        asked = any(isinstance(seen.datagram, Hello) for seen in self.trace)
        self.verdict("duty-epoch", asked, "asks by HELLO where its own epochs are refused")


class BeyondWindow(Scenario):
    about = "seqs from 4 on are answered BEYOND_WINDOW, and no ack comes for 0.4 s"

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.first: Optional[float] = None
        self.third: Optional[tuple[float, Data]] = None
        self.answered = False

    def handle(self, now: float, datagram: Datagram) -> None:
        if not isinstance(datagram, Data) or datagram.seq < 3 or (self.third and now > self.third[0] + 0.4):
            self.answer(datagram)
        elif datagram.seq == 3:
            self.third = self.third or (now, datagram)
        else:
            self.first = self.first or now
            self.lie(Reject(datagram.client, datagram.epoch, wire.REJECT_BEYOND_WINDOW, datagram.seq))

    def tick(self, now: float) -> None:
        if self.third and now > self.third[0] + 0.4 and not self.answered:
            self.answer(self.third[1])
            self.answered = True

    def expect(self) -> None:
        if self.first is None:
            self.verdict("duty-reject", None, "code 5: never had a seq beyond another")
            return
        acked_at = self.third[0] + 0.4 if self.third else 1e18
        early = [d.seq for d, at in self.data_at if self.first + RACE < at < acked_at and d.seq >= 4]
        self.verdict("duty-reject", not early, f"code 5: waits for the next ACK {early[:5] or ''}")
        self.verdict("duty-reject", self.exit_code == 0, "code 5: then sends again")


class Wait(Scenario):
    about = "code {}: wait for a second"
    code = 0

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.first: Optional[float] = None
        self.resumed: Optional[float] = None

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Data) and datagram.seq >= 3:
            if self.first is None or now < self.first + 0.2:
                self.first = self.first or now
                self.lie(Reject(datagram.client, datagram.epoch, self.code, datagram.seq, 1000))
                return
            if self.resumed is None:
                self.resumed = self.data_at[-1][1]
        self.answer(datagram, 0.1 if self.resumed and now < self.resumed + 0.05 else 0.0)

    def expect(self) -> None:
        name = f"code {self.code}"
        if self.first is None or self.resumed is None:
            self.verdict("duty-reject", False, f"{name}: does not go on")
            return
        waited = self.resumed - self.first
        early = [d for d, at in self.data_at if self.first + RACE < at < self.first + 1.0]
        self.verdict("duty-reject", not early, f"{name}: sends nothing for retry_after_ms ({len(early)} early)")
        self.verdict("duty-reject", 1.0 <= waited < 2.1, f"{name}: goes on after that and up to half of it ({waited:.2f} s)")
        acked = next((seen.at for seen in self.trace if seen.sent and seen.at > self.resumed), 1e18)
        # Before a timeout can have expired: after two in a row a short path gets several.
        flight = {d.seq for d, at in self.data_at if self.resumed <= at < min(acked, self.resumed + 0.008)}
        self.verdict("duty-reject", len(flight) == 1, f"{name}: begins again with one datagram ({len(flight)})")


class HelloBusy(Scenario):
    about = "HELLO is answered BUSY for a second"
    records = 5

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Hello) and len(self.came(Hello)) == 1:
            self.lie(Reject(datagram.client, 0, wire.REJECT_BUSY, datagram.nonce, 1000))
            return
        self.answer(datagram)

    def expect(self) -> None:
        hellos = [seen for seen in self.came(Hello)]
        if not hellos:
            self.verdict("duty-reject", None, "HELLO refused: sends none")
            return
        same = len(hellos) == 2 and hellos[0].datagram == hellos[1].datagram
        waited = hellos[1].at - hellos[0].at if same else 0.0
        self.verdict("duty-reject", same and 1.0 <= waited < 2.1, f"HELLO refused with BUSY: waits, asks again ({waited:.2f} s)")


class HelloRefused(Scenario):
    about = "HELLO is answered SEALED_ONLY"
    records = 5
    succeeds = False

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Hello):
            self.lie(Reject(datagram.client, 0, wire.REJECT_SEALED_ONLY, datagram.nonce))
            return
        self.answer(datagram)

    def expect(self) -> None:
        if not self.came(Hello):
            self.verdict("duty-reject", None, "HELLO refused for good: sends none")
            return
        self.verdict("duty-reject", self.exit_code not in (None, 0) and not self.data, "HELLO refused for good: all that waits fails")


class PingRefused(Scenario):
    about = "the credit is 1, then 0, and PING is answered SEALED_ONLY"
    # Few: one that sends a message at a time asks anew for each, ever more rarely.
    records = 4
    succeeds = False
    sealed_too = False

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.model.credit = 1

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Ping):
            self.lie(Reject(datagram.client, datagram.epoch, wire.REJECT_SEALED_ONLY, 0))
            return
        if isinstance(datagram, Data):
            self.model.credit = 0
        self.answer(datagram)

    def expect(self) -> None:
        if not self.came(Ping):
            self.verdict("duty-reject", None, "PING refused for good: sends none")
            return
        asked = len(self.came(Ping))
        # At most once for each message; more often asks who waits on, and gives up for another reason.
        right = self.exit_code not in (None, 0) and asked <= self.records
        self.verdict("duty-reject", right, f"PING refused for good: all that waits fails (exit code {self.exit_code}, {asked} PINGs)")


class Liar(Scenario):
    about = "for 1.2 s the server lies: acks of what was never sent, foreign epochs, garbage, forged WELCOME and REJECT"
    records = 30

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.truth_at = 0.0
        #: What was acked before the lies.
        self.true_floor = 0

    def lies(self, d: Data) -> list[bytes]:
        return lies(d)

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Data) and not self.truth_at and self._doubts(datagram):
            # Two forged ones do not make the epoch another run's: only where no true answer comes for seconds.
            for _ in range(2 * (self.seal is None)):
                self.lie(Ack(datagram.client, datagram.epoch, datagram.seq + 100_000, 500))
            self.answer(datagram)
            return
        if isinstance(datagram, Data):
            if not self.truth_at:
                told = self.model.told.get((datagram.client, datagram.epoch))
                self.truth_at, self.true_floor = now + 1.2, told.floor if told else 0
            for lie in self.lies(datagram):
                self.lie(lie)
            if now < self.truth_at:
                return
        self.answer(datagram)
        if isinstance(datagram, Data) and datagram.seq > 1:
            # Of what is acked already: no longer in flight.
            told = self.model.told.get((datagram.client, datagram.epoch))
            if told is not None and told.floor > 0:
                self.lie(Reject(datagram.client, datagram.epoch, wire.REJECT_CHANNEL, told.floor))
                self.lie(Reject(datagram.client, datagram.epoch, wire.REJECT_STALE_EPOCH, told.floor))

    def _doubts(self, d: Data) -> bool:
        """Whether the client may still look for another run in its epoch (PROTOCOL.md#epoch-used), and lies alone, with no true
        answer among them, would rightly make it believe in one."""
        return (d.client, d.epoch) not in self.model.given and d.seq == d.span + 1

    def expect(self) -> None:
        believed = [d for d, at in self.data_at if at < self.truth_at and d.seq - d.span > self.true_floor + 1]
        self.verdict("duty-ignore", not believed, f"believes no ack that is forged, foreign or malformed {believed[:1] or ''}")
        epochs = {d.epoch for d in self.data}
        self.verdict("duty-ignore", len(epochs) == 1, f"leaves no epoch for a forged WELCOME or REJECT ({len(epochs)} epochs)")
        self.verdict("duty-ignore", self.exit_code == 0 and not set(self.lines) - set(self.model.journal), "and all records arrive in the end")


class LiarSealed(Liar):
    about = "the same, in sealed datagrams whose tags are wrong"
    plain_too = False

    def lies(self, d: Data) -> list[bytes]:
        told: list[Datagram] = [Ack(d.client, d.epoch, d.seq, 500), Reject(d.client, d.epoch, wire.REJECT_CHANNEL, d.seq), Welcome(d.client, d.epoch + 1, 9, 1)]
        return [sealed[:-1] + bytes([sealed[-1] ^ 1]) for sealed in [self._encode(one) for one in told]]


def lies(d: Data) -> list[bytes]:
    """What an attacker or a broken path may send after a DATA. None of it may change anything."""
    ack = Ack(d.client, d.epoch, d.seq, 500)
    good = wire.encode(ack)
    body = good[:-4]
    reject = Reject(d.client, d.epoch, wire.REJECT_CHANNEL, d.seq)
    epoch = d.epoch % 0xFFFFFFFF + 1
    return [
        wire.encode(ack._replace(floor=d.seq + 100_000)),
        wire.encode(ack._replace(floor=2**64 - 1)),
        # The whole ack is ignored, also the floor that would be right.
        wire.encode(ack._replace(bitmap=bytes(120) + b"\0\0\0\0\0\0\0\x80")),
        wire.encode(ack._replace(epoch=epoch)),
        wire.encode(ack._replace(client=d.client ^ 1)),
        good[:-1] + bytes([good[-1] ^ 1]),
        good[:31],
        good + b"\0",
        wire.with_crc(body + b"\x02" + bytes(135)),
        wire.with_crc(body + b"\x02\0\0\0"),
        wire.with_crc(bytes([body[0], wire.DURABILITY]) + body[2:]),
        wire.with_crc(bytes([body[0], wire.SEALED]) + body[2:]),
        wire.with_crc(bytes([0x22]) + body[1:]),
        wire.with_crc(bytes([0x17]) + body[1:]),
        wire.encode(Welcome(d.client, epoch, 100, 12345)),
        wire.encode(Welcome(d.client, d.epoch, 0, 0)),
        wire.encode(reject._replace(refused=d.seq + 100_000)),
        wire.encode(reject._replace(refused=d.seq + 100_000, code=wire.REJECT_STALE_EPOCH)),
        wire.encode(reject._replace(refused=0, code=wire.REJECT_STALE_EPOCH)),
        wire.encode(reject._replace(epoch=epoch)),
        wire.encode(reject._replace(epoch=0, refused=0)),
        wire.encode(reject._replace(client=d.client ^ 1)),
        wire.with_crc(wire.encode(reject)[:-4] + bytes(8)),
        wire.with_crc(bytes([0x23]) + wire.encode(reject)[1:-4]),  # another version's CHANNEL: only VERSION is known
        wire.encode(d),
        wire.encode(wire.Ping(d.client, d.epoch)),
        b"",
        b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
        struct.pack("<d", time.time()) * 9,
    ]


def variants() -> list[type[Scenario]]:
    made: list[type[Scenario]] = []
    for code in (wire.REJECT_VERSION, wire.REJECT_UNSUPPORTED, wire.REJECT_TOO_LARGE, wire.REJECT_CHANNEL, wire.REJECT_SEALED_ONLY):
        about = RefusedForGood.about.format(code)
        made.append(type(f"Refused{code}", (RefusedForGood,), {"code": code, "about": about}))
    about = "seq 3 is refused by a server of version 2"
    made.append(type("RefusedByVersion2", (RefusedForGood,), {"code": wire.REJECT_VERSION, "version": 2, "about": about, "sealed_too": False}))
    for code in (wire.REJECT_BUSY, wire.REJECT_STORAGE, 4711):
        made.append(type(f"Wait{code}", (Wait,), {"code": code, "about": Wait.about.format(code)}))
    return made


SCENARIOS: list[type[Scenario]] = [
    *variants(), RefusedRun, Stale, StaleThrice, BeyondWindow, HelloBusy, HelloRefused, PingRefused, Liar, LiarSealed,
]  # fmt: skip
