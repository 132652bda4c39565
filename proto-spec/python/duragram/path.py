"""What is known of the path to the server: its round-trip time, and how many datagrams it bears. Times in seconds."""

from __future__ import annotations

import enum
from random import Random
from typing import Optional

#: Timers of the caller may be coarse: RFC 6298's G, as RFC 9002 chooses it.
GRANULARITY = 0.001
#: After a loss the window is not made smaller than this (RFC 9002 §7.2), nor on a short path than what leaves in the shortest
#: timeout at one datagram a round trip.
WINDOW_AFTER_LOSS_MIN = 2
WINDOW_SHORT_MAX = 16
SHORT = 0.010


class Rtt:
    """Round-trip time and timeout after RFC 6298, the server's delay taken out (PROTOCOL.md#duty-retransmission)."""

    def __init__(self) -> None:
        self.smoothed: Optional[float] = None
        self.variance = 0.0
        #: The shortest that any answer took, the server's delay included. An answer sooner than this after a
        #: retransmission is to an earlier transmission (RFC 8985 §6.2).
        self.least = 0.0
        #: The shortest RTT without the server's delay: a queue that the client itself has filled is not in it.
        self.path = 0.0
        #: The server's delay: its recent peak.
        self.delay = 0.0

    def sample(self, elapsed: float, delay: float) -> None:
        """An ACK came `elapsed` after the only transmission of what it covers; `delay` of it was the server's own."""
        delay = min(delay, elapsed)
        self.delay = max(delay, self.delay - self.delay / 16)
        rtt = elapsed - delay
        if self.smoothed is None:
            self.least, self.path, self.smoothed, self.variance = elapsed, rtt, rtt, rtt / 2
            return
        self.least, self.path = min(self.least, elapsed), min(self.path, rtt)
        self.variance = (3 * self.variance + abs(self.smoothed - rtt)) / 4
        self.smoothed = (7 * self.smoothed + rtt) / 8

    @property
    def window_short(self) -> int:
        """How many datagrams leave in the shortest timeout at one a round trip; that many are no burden for a short path."""
        if self.smoothed is None:
            return 1
        return max(1, min(int(SHORT / max(self.path, 1e-6)), WINDOW_SHORT_MAX))

    def timeout(self, initial: float, least: float) -> float:
        """The server's delay is on top: a disk that syncs slowly has lost nothing."""
        if self.smoothed is None:
            return initial
        return max(self.smoothed + max(GRANULARITY, 4 * self.variance), least) + self.delay


class Congestion:
    """NewReno in datagrams (PROTOCOL.md#duty-congestion). Transmissions are numbered in the order of their making."""

    def __init__(self, initial: int, most: int) -> None:
        self.most = max(most, 1)
        self.initial = min(max(initial, 1), self.most)
        self.reset()

    def reset(self) -> None:
        """Another path."""
        self.window = self.initial
        self.threshold = 2**32
        self._acked = 0
        #: Transmissions before this one belong to a loss episode that was answered already.
        self.episode_end = 0

    def acked(self, count: int) -> None:
        """`count` datagrams, none of them sent before the last loss, were acked while the window was the limit."""
        fast = min(count, max(self.threshold - self.window, 0))
        self.window = min(self.window + fast, self.most)
        self._acked += count - fast
        while self._acked >= self.window:
            self._acked -= self.window
            self.window = min(self.window + 1, self.most)

    def lost(self, transmission: int, following: int, short: int = 1) -> None:
        """Halves the window (but never raises it), once for all that was transmitted before the loss was seen. `short`: the
        window that a short path bears after all losses."""
        if transmission < self.episode_end:
            return
        self._cut(following, short)
        self.window, self._acked = min(self.window, self.threshold), 0

    def restart_after_expiry(self, following: int) -> None:
        """Losses before an expiry: no acks have set the pace since, so it opens again by slow start."""
        self.episode_end = following
        self.window, self._acked = min(self.window, self.initial), 0

    def collapse(self, following: int, short: int = 1) -> None:
        """A second timeout in a row: nothing is known of the path any more."""
        self._cut(following, short)
        self.window, self._acked = min(short, self.most), 0

    def fall_silent(self, following: int) -> None:
        """And those after it: what was sent since is no reason for another cut."""
        self.episode_end, self._acked = following, 0

    def _cut(self, following: int, short: int) -> None:
        self.episode_end = following
        self.threshold = max(self.window // 2, WINDOW_AFTER_LOSS_MIN, short)

    def resume(self) -> None:
        """Sending was suspended for a reason that is not the path's: begins with one datagram, and back up fast."""
        self.threshold = max(self.threshold, self.window)
        self._restart()

    def _restart(self) -> None:
        self.window = 1
        self._acked = 0


class WaitsFor(enum.Enum):
    """What a client's timer is set for."""

    #: The end of a wait that the server asked for.
    RESUME = 1
    #: A WELCOME.
    EPOCH = 2
    #: An ACK of what is in flight, or the next try in silence.
    ACK = 3
    #: An ACK with more credit; nothing is in flight (PROTOCOL.md#duty-probe).
    CREDIT = 4


def interval(base: float, tries: int, most: float, random: Random) -> float:
    """The wait before try number `tries` (0 is the first): doubling, bounded, up to a quarter more at random."""
    return min(base * 2.0 ** min(tries, 64), most) * random.uniform(1, 1.25)
