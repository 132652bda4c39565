"""Scenarios of pace: when a client asks again, how its timer and its congestion window follow what it hears."""

from __future__ import annotations

from typing import Optional

from duragram.wire import Ack, Data, Datagram, Ping

from .run import Scenario


class PingStorm(Scenario):
    about = "each PING is answered at once, without credit, for 3 seconds"
    records = 20
    #: Seconds.
    drought = 3.0
    #: With one RTO of 10 ms and doubling: 10, 20, 40 … 1,280, 2,560 ms.
    pings_max = 9

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.closed_at = 0.0

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Data) and datagram.seq >= 3 and not self.closed_at:
            self.closed_at, self.model.credit = now, 0
        if self.closed_at and now > self.closed_at + self.drought:
            self.model.credit = 10
        self.answer(datagram)

    def expect(self) -> None:
        if not self.closed_at:
            self.verdict("duty-probe", None, "never sent three messages")
            return
        until = self.closed_at + self.drought
        asked = [seen.at for seen in self.came(Ping) if self.closed_at < seen.at < until]
        said = f"{len(asked)} in {self.drought:.0f} s, at most {self.pings_max}"
        self.verdict("duty-probe", 1 <= len(asked) <= self.pings_max, f"an answer without credit does not bring the next PING forward ({said})")


class ShortTimeout(Scenario):
    about = "answers come at once, then none for half a second"
    records = 60
    #: The least that PROTOCOL.md#duty-retransmission allows, less what clocks and a busy machine may err.
    rto_min = 0.008

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.silent_at = 0.0

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Data) and datagram.seq >= 30 and not self.silent_at:
            self.silent_at = self.data_at[-1][1]
        if not self.silent_at or now > self.silent_at + 0.5:
            self.answer(datagram)

    def expect(self) -> None:
        silence = [(d, at) for d, at in self.data_at if self.silent_at <= at < self.silent_at + 0.5]
        again = next((at for d, at in silence if d.attempt > 0), None)
        # The timer runs from the last ack, or from the first transmission after it.
        if not self.silent_at:
            self.verdict("duty-retransmission", None, "never sent thirty messages")
        elif again is None:
            self.verdict("duty-retransmission", True, "its timeout is not below the minimum (none in half a second)")
        else:
            waited = again - self.silent_at
            said = f"({1000 * waited:.1f} ms)"
            self.verdict("duty-retransmission", waited >= self.rto_min, f"its timeout is not below the minimum {said}")


class Karn(Scenario):
    about = "the first message is acked right after it was sent again; then silence"
    records = 6
    patience = 30.0

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.acked_at = 0.0

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Data):
            if not self.acked_at:
                if datagram.seq == 1 and datagram.attempt > 0:
                    # Of the first alone: what was sent once gives no sample yet.
                    self.acked_at = now
                    self.model.data(datagram)
                    self.send(Ack(datagram.client, datagram.epoch, 1, self.model.window, delay_us=0))
                return
            if now < self.acked_at + 3.0:
                return
        self.answer(datagram)

    def expect(self) -> None:
        if not self.acked_at:
            self.verdict("duty-retransmission", False, "does not send again what is not acked")
            return
        # The ack shows what was sent before the second transmission to be lost: that goes out again at once, and then waits.
        sent: dict[int, list[float]] = {}
        for d, at in self.data_at:
            if self.acked_at < at < self.acked_at + 3.0 and d.seq > 1:
                sent.setdefault(d.seq, []).append(at)
        again = min((b - a for times in sent.values() for a, b in zip(times, times[1:])), default=3.0)
        said = f"({again:.2f} s)"
        self.verdict("duty-retransmission", again >= 0.7, f"takes no sample from what was sent twice: its timeout is still that of an unknown path {said}")


class Halving(Scenario):
    about = "acks take 60 ms, the credit is 64; once the client uses it, one datagram is lost"
    records = 900
    patience = 30.0
    #: Seconds.
    round_trip = 0.06
    #: Some time after so many are in flight, one is lost.
    grown = 24

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.model.credit = 64
        self.grown_at = 0.0
        self.lost: Optional[tuple[float, int]] = None

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Data) and self.lost is None and datagram.attempt == 0:
            if not self.grown_at and datagram.span >= self.grown:
                self.grown_at = now
            # The window grows while it is the limit: by now the credit is.
            if self.grown_at and now > self.grown_at + 4 * self.round_trip:
                self.lost = now, datagram.seq
                return
        # A client that never has many in flight is not kept for a minute.
        slow = isinstance(datagram, Data) and (self.grown_at or datagram.seq < 100)
        self.answer(datagram, self.round_trip if slow else 0.0)

    def most(self, since: float, until: float) -> int:
        """The most DATA that came in a round trip which began between the two."""
        times = [at for _, at in self.data_at]
        return max((sum(began <= at < began + self.round_trip for at in times) for began in times if since <= began < until), default=0)

    def expect(self) -> None:
        again = next((at for d, at in self.data_at if self.lost and d.seq == self.lost[1] and d.attempt > 0), 0.0)
        last = self.data_at[-1][1] if self.data else 0.0
        if self.lost is None or last < again + 4 * self.round_trip:
            self.verdict("duty-congestion", None, f"never had {self.grown} in flight for long")
            return
        before = self.most(self.lost[0] - 3 * self.round_trip, self.lost[0] - self.round_trip)
        after = self.most(again + self.round_trip, again + 3 * self.round_trip)
        said = f"({before} in a round trip before, {after} after it)"
        self.verdict("duty-congestion", after <= 0.8 * before, f"a loss halves what it sends {said}")


class BurstLoss(Scenario):
    about = "acks take 60 ms and have no room for bitmaps; of a whole window 60 % are lost"
    records = 3000
    patience = 40.0
    #: Seconds.
    round_trip = 0.06
    #: Once the client has had time to open its window.
    from_seq = 1500
    #: With fewer in flight there is no burst to lose.
    wide = 32
    #: Twelve round trips and a timeout, and half a second for a busy machine.
    bound = 12 * round_trip + 0.5

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.lines = [b"%07d" % n for n in range(self.records)]
        self.width = 0
        self.left: Optional[int] = None
        #: When which seq was lost, and when it was there.
        self.lost: dict[int, float] = {}
        self.came_at: dict[int, float] = {}

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Data):
            if datagram.seq > self.from_seq - 100 and self.left is None:
                self.width = max(self.width, datagram.span)
            if datagram.seq >= self.from_seq and self.left is None and self.width >= self.wide:
                self.left = self.width
            if self.left and datagram.attempt == 0:
                self.left -= 1
                if self.random.random() < 0.6:
                    self.lost[datagram.seq] = self.data_at[-1][1]
                    return
            if datagram.seq in self.lost:
                self.came_at.setdefault(datagram.seq, self.data_at[-1][1])
        # A client that never has many in flight is not kept for minutes.
        slow = isinstance(datagram, Data) and (datagram.seq < 100 or datagram.span >= self.wide // 2 or bool(self.lost))
        self.answer(datagram, self.round_trip if slow else 0.0)

    def expect(self) -> None:
        if not self.lost:
            self.verdict("duty-loss", None, f"never had {self.wide} in flight")
            return
        still = len(self.lost) - len(self.came_at)
        took = max(self.came_at.values(), default=0.0) - max(self.lost.values())
        said = f"({len(self.lost)} of {self.width}: {took:.2f} s, at most {self.bound:.2f})" if not still else f"({still} never came)"
        self.verdict("duty-loss", not still and took <= self.bound, f"a lost burst costs a few round trips, not one for each datagram {said}")


class LostFlight(Scenario):
    about = "loses every first transmission, before a round trip was measured"
    records = 3
    patience = 20.0
    #: Seconds. The timeout of an unknown path is longer by far.
    bound = 0.5

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        #: When which seq was lost, and when it was there.
        self.lost: dict[int, float] = {}
        self.came_at: dict[int, float] = {}

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Data):
            if datagram.attempt == 0:
                self.lost[datagram.seq] = now
                return
            self.came_at.setdefault(datagram.seq, now)
        self.answer(datagram)

    def expect(self) -> None:
        # One that goes alone, to settle an epoch, is no flight.
        last = max(self.lost.values(), default=0.0)
        flight = [seq for seq, at in self.lost.items() if at > last - self.bound]
        came = [self.came_at[seq] for seq in flight if seq in self.came_at]
        if len(flight) < 2:
            self.verdict("duty-loss", None, "never had two in flight")
            return
        took = max(came, default=0.0) - min(came, default=0.0)
        said = f"({len(flight)}: {took:.2f} s)" if len(came) == len(flight) else f"({len(flight) - len(came)} never came)"
        fulfilled = len(came) == len(flight) and took <= self.bound
        self.verdict("duty-loss", fulfilled, f"the answer to a timeout's datagram shows all that was lost with it, the last ones too {said}")


SCENARIOS: list[type[Scenario]] = [PingStorm, ShortTimeout, Karn, Halving, BurstLoss, LostFlight]
