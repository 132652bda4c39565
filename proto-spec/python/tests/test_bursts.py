"""A burst of losses in a wide window is made good within twelve round trips and one timeout (PROTOCOL.md#duty-loss)."""

from __future__ import annotations

import copy
import heapq
import os
import random
import sys
import unittest
from typing import NamedTuple
from unittest import mock

from duragram import wire
from duragram.machine import Machine
from duragram.message import Config
from duragram.wire import Ack

from .bench import CLIENT

WINDOW = 4096
#: One way, and what the server needs, in seconds.
DELAY = 0.005
SYNC = 0.0002
ROUND_TRIPS_MAX = 12
#: Datagrams that one ACK covers, and the time that a datagram takes on the path.
FLIGHT = 20
EACH = 1e-6


class Burst(NamedTuple):
    share: int
    length: int
    answers: bool
    payload: int
    more: int


class World:
    """A path of constant delay to a model of the server with one session."""

    def __init__(self, payload: int) -> None:
        config = Config(window=65_536)
        self.machine = Machine(CLIENT, 7, wire.Plain(CLIENT), config, random.Random(3))
        self.payload = bytes(payload)
        self.now = 1.0
        self.floor = self.bits = 0
        self.count = self.put_at = 0
        self.free_at = 0.0
        self.way: list[tuple[float, int, bytes]] = []
        self.arrived: list[bytes] = []
        self.sent = self.answered = 0
        self.lost_from = self.lost_to = 0
        self.lose_answers = False
        self.share = 0.0
        self.random = random.Random(7)
        self.rto_max = 0.0

    def offer(self, count: int) -> None:
        for _ in range(count):
            self.machine.send(self.now, self.payload)

    def is_lost(self, number: int) -> bool:
        return self.lost_from < number <= self.lost_to and self.random.random() < self.share

    def push(self, at: float, bytes_: bytes) -> None:
        self.count += 1
        heapq.heappush(self.way, (at, self.count, bytes_))

    def step(self) -> None:
        machine = self.machine
        for datagram in machine.transmit(self.now, 100_000):
            self.sent += 1
            self.free_at = max(self.free_at, self.now) + EACH
            if self.lose_answers or not self.is_lost(self.sent):
                self.push(self.free_at + DELAY, datagram)
        self.rto_max = max(self.rto_max, machine._rto())
        due = min([at for at in (machine.deadline, self.way[0][0] if self.way else None) if at is not None])
        self.now = max(self.now, due)
        while self.way and self.way[0][0] <= self.now:
            _, _, bytes_ = heapq.heappop(self.way)
            if bytes_[0] & 15 == wire.ACK:
                machine.handle_datagram(self.now, bytes_)
            else:
                self.take(bytes_)
        machine.handle_timeout(self.now)

    def take(self, bytes_: bytes) -> None:
        seq, span = wire.HEAD.unpack_from(bytes_)[5], wire.HEAD.unpack_from(bytes_)[2]
        assert seq - span - 1 <= self.floor, "it claims an ack that was never made"
        if seq > self.floor:
            self.bits |= 1 << (seq - self.floor - 1)
            ones = (~self.bits & (self.bits + 1)).bit_length() - 1
            self.bits >>= ones
            self.floor += ones
        self.arrived.append(bytes_)
        following = self.way[0] if self.way else None
        quiet = following is None or following[0] > self.now + 3 * EACH or following[2][0] & 15 == wire.ACK
        if len(self.arrived) >= FLIGHT or quiet:
            self.arrived.clear()
            self.answered += 1
            if not self.lose_answers or not self.is_lost(self.answered):
                self.push(self.now + SYNC + DELAY, self.ack(len(bytes_) - wire.PLAIN_MIN))

    def ack(self, room: int) -> bytes:
        told = self.bits & ((1 << 64 * min(room // 8, 16)) - 1)
        bitmap = told.to_bytes(-(-told.bit_length() // 64) * 8, "little")
        return wire.encode(Ack(CLIENT, 7, self.floor, WINDOW, delay_us=int(SYNC * 1e6), bitmap=bitmap, complete=told == self.bits))


def warm(payload: int) -> World:
    """A client whose window has opened as wide as it can."""
    world = World(payload)
    # One alone, for the shortest answer that the path gives.
    world.offer(1)
    while world.machine.queued:
        world.step()
    # More than the window in one go, so that the congestion window is the limit.
    world.offer(16_000)
    while world.machine.queued:
        world.step()
    assert world.machine.congestion.window >= WINDOW and world.machine.stats.retransmissions == 0, world.machine.stats
    # The server's window is the limit from here on.
    world.machine.congestion.window = WINDOW
    world.machine.take_decided()
    return world


def recover(world: World, burst: Burst) -> tuple[float, int]:
    """Round trips until the burst is acked, and timeouts. What the timeout takes is not counted."""
    world = copy.deepcopy(world)
    begin, stats, acked = world.now, world.machine.stats, world.machine.stats.acked
    before = stats.timeouts
    world.lose_answers, world.share, world.rto_max = burst.answers, burst.share / 100, 0.0
    world.lost_from = world.answered if burst.answers else world.sent
    world.lost_to = world.lost_from + (burst.length // FLIGHT if burst.answers else burst.length)
    first = world.machine._queue.next_seq
    world.offer(burst.length + burst.more)
    while world.machine._queue.base < first + burst.length and world.now < begin + 30:
        world.step()
    assert stats.acked > acked
    timeouts = stats.timeouts - before
    waited = world.rto_max * 1.25 if timeouts else 0.0
    return (world.now - begin - waited) / (2 * DELAY + SYNC + WINDOW * EACH), timeouts


class Bursts(unittest.TestCase):
    def test_a_burst_of_losses_is_made_good_within_twelve_round_trips_and_a_timeout(self) -> None:
        cases = [
            Burst(share, length, answers, payload, more)
            for payload in (0, 8, 20, 100)
            for share in (5, 30, 60, 100)
            for length in (64, 1500, 4096)
            for answers in (False, True)
            for more in (0, 3000)
        ]
        # All of them take a minute.
        if not os.environ.get("DURAGRAM_ALL_BURSTS"):
            cases = random.Random(11).sample(cases, 24)
        worlds = {payload: warm(payload) for payload in {case.payload for case in cases}}
        for case in cases:
            with self.subTest(case):
                round_trips, timeouts = recover(worlds[case.payload], case)
                self.assertLessEqual(timeouts, 1)
                self.assertLessEqual(round_trips, ROUND_TRIPS_MAX)

    def test_a_lossy_stretch_longer_than_the_window_is_passed_without_falling_silent(self) -> None:
        for share, length, seconds in ((30, 6000, 0.5), (60, 3500, 1.3)):
            with self.subTest(share=share):
                took = sorted(stretch(share, length, seed) for seed in range(1, 4))
                self.assertLessEqual(took[1], seconds, took)


def stretch(share: int, length: int, seed: int) -> float:
    """Seconds that 12,000 messages take through a stretch in which a share of all that is sent is lost, on a short path whose queue
    the client itself fills."""
    with mock.patch.multiple(sys.modules[__name__], DELAY=0.0001, EACH=5e-6):
        world = World(100)
        world.random = random.Random(seed)
        world.share, world.lost_from, world.lost_to = share / 100, 3000, 3000 + length
        begin, left = world.now, 12_000
        while (left or world.machine.queued) and world.now < begin + 30:
            more = min(left, 512 - world.machine.queued)
            world.offer(more)
            left -= more
            world.step()
            world.machine.take_decided()
        return world.now - begin


if __name__ == "__main__":
    unittest.main()
