"""The machine against a model of the server, over a path that loses, repeats and reorders; time is simulated."""

from __future__ import annotations

import heapq
import random
import unittest
from typing import Optional

from duragram import wire
from duragram.asks import ASKS_MAX, TAKES_MAX, Ask
from duragram.message import Outcome
from duragram.wire import Ack, Data, Datagram, Hello, Ping, Reject, Welcome

from .answering import AnsweringServer
from .bench import CLIENT, Bench


class ModelServer:
    """The server's rules (PROTOCOL.md#server-rules) in memory. `journal` is what it has, in the order of arrival."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.journal: list[bytes] = []
        self.sessions: dict[int, tuple[int, set[int]]] = {}
        self.epochs: dict[int, int] = {}
        self.lost_claims = 0
        #: Servers older than the flag never set it.
        self.tells_complete = True

    def handle(self, datagram: Datagram) -> Optional[Datagram]:
        if isinstance(datagram, Hello):
            epoch = self.epochs.setdefault(datagram.nonce, 100 + len(self.epochs))
            return Welcome(CLIENT, epoch, self.window, datagram.nonce)
        if isinstance(datagram, Ping):
            return self.ack(datagram.epoch, 0)
        assert isinstance(datagram, Data)
        d, base = datagram, datagram.seq - datagram.span
        floor, above = self.sessions.get(d.epoch, (base - 1, set()))
        if base - 1 > floor + self.window:
            return Reject(CLIENT, d.epoch, wire.REJECT_STALE_EPOCH, d.seq)
        missing = [seq for seq in range(floor + 1, base) if seq not in above]
        if missing and not d.skip:
            self.lost_claims += 1
        moved = max(floor, base - 1)
        if d.seq > moved + self.window:
            return Reject(CLIENT, d.epoch, wire.REJECT_BEYOND_WINDOW, d.seq)
        if d.seq > moved and d.seq not in above:
            self.journal.append(d.payload)
            above.add(d.seq)
        while moved + 1 in above:
            moved += 1
        self.sessions[d.epoch] = (moved, {seq for seq in above if seq > moved})
        return self.ack(d.epoch, len(d.payload))

    def ack(self, epoch: int, room: int) -> Ack:
        floor, above = self.sessions.get(epoch, (0, set()))
        told = [seq for seq in above if seq - floor <= 64 * min(room // 8, 16)]
        bits = sum(1 << (seq - floor - 1) for seq in told)
        bitmap = bits.to_bytes(-(-bits.bit_length() // 64) * 8, "little")
        return Ack(CLIENT, epoch, floor, self.window, bitmap=bitmap, complete=self.tells_complete and len(told) == len(above))


class World:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.server = ModelServer(self.random.choice([1, 4, 64, 4096]))
        self.bench = Bench(epoch=self.random.choice([0, 7]), window=self.random.choice([1, 8, 300]))
        self.server.tells_complete = seed % 4 != 0
        self.loss = self.random.choice([0.0, 0.1, 0.4])
        self.on_the_way: list[tuple[float, int, bool, bytes]] = []
        self.count = 0

    def put(self, to_server: bool, bytes_: bytes) -> None:
        for _ in range(1 + (self.random.random() < 0.1)):
            if self.random.random() >= self.loss:
                self.count += 1
                due = self.bench.now + self.random.uniform(0.01, 0.05)
                heapq.heappush(self.on_the_way, (due, self.count, to_server, bytes_))

    def run(self, messages: int) -> None:
        machine, taken = self.bench.machine, 0
        while taken < messages or machine.queued:
            while taken < messages and machine.queued < machine.config.window:
                self.bench.send(b"%06d" % taken + bytes(self.random.choice([0, 60, 200])))
                taken += 1
            for bytes_ in machine.transmit(self.bench.now):
                self.put(True, bytes_)
            due = min([at for at in (machine.deadline, *(way[0] for way in self.on_the_way[:1])) if at is not None])
            assert due < self.bench.now + 100 and self.bench.now < 10_000, "it makes no progress"
            self.bench.now = max(due, self.bench.now)
            if self.on_the_way and self.on_the_way[0][0] <= self.bench.now:
                _, _, to_server, bytes_ = heapq.heappop(self.on_the_way)
                if not to_server:
                    machine.handle_datagram(self.bench.now, bytes_)
                elif (reply := self.server.handle(wire.decode(bytes_))) is not None:
                    encoded = wire.encode(reply)
                    assert len(encoded) <= len(bytes_), "no amplification"
                    self.put(False, encoded)
            machine.handle_timeout(self.bench.now)


class AskingWorld:
    """A machine that asks, and a server that answers, restarts and ends epochs."""

    def __init__(self, seed: int) -> None:
        rng = self.random = random.Random(seed)
        slow = rng.choice([0.0, 0.05, 5.0])
        self.server = AnsweringServer(lambda payload: (wire.DONE, payload[::-1]), lambda: rng.uniform(0, slow), rng.choice([8, 64, 1024]))
        self.bench = Bench(epoch=rng.choice([0, 7]), window=rng.choice([4, 200]))
        self.loss = rng.choice([0.0, 0.1, 0.4])
        self.wait = rng.choice([0.1, 2.0, 20.0])
        self.ends_epochs = seed % 4 == 0
        self.on_the_way: list[tuple[float, int, bool, bytes]] = []
        self.count = 0
        self.heard: list[int] = []

    def put(self, to_server: bool, bytes_: bytes) -> None:
        for _ in range(1 + (self.random.random() < 0.1)):
            if self.random.random() >= self.loss:
                self.count += 1
                due = self.bench.now + self.random.uniform(0.01, 0.05)
                heapq.heappush(self.on_the_way, (due, self.count, to_server, bytes_))

    def run(self, messages: int) -> None:
        machine, server, asks, taken = self.bench.machine, self.server, self.bench.machine.asks, 0
        while taken < messages or machine.queued or not asks.is_idle or self.on_the_way:
            while taken < messages and machine.queued < machine.config.window and asks.unfinished < ASKS_MAX:
                if self.random.random() < 0.7:
                    self.bench.send(b"%06d" % taken, ask=Ask(self.wait, taken))
                else:
                    self.bench.send(b"%06d" % taken)
                    self.heard.append(taken)
                taken += 1
            for bytes_ in machine.transmit(self.bench.now):
                self.put(True, bytes_)
            assert sum(ask.is_open for ask in asks.unfinished_asks()) <= TAKES_MAX
            due = [at for at in (machine.deadline, server.due(), *(way[0] for way in self.on_the_way[:1])) if at is not None]
            if not due:
                return  # the last TAKE was lost, which does no harm
            assert min(due) < self.bench.now + 100 and self.bench.now < 10_000, "it makes no progress"
            self.bench.now = max(min(due), self.bench.now)
            if self.random.random() < 0.002:
                server.restart()
                if self.ends_epochs and len(server.stale) < 3:
                    server.stale.add(machine.epoch)
            for _, answer in server.step(self.bench.now):
                self.put(False, wire.encode(answer))
            if self.on_the_way and self.on_the_way[0][0] <= self.bench.now:
                _, _, to_server, bytes_ = heapq.heappop(self.on_the_way)
                if not to_server:
                    machine.handle_datagram(self.bench.now, bytes_)
                for _, reply in server.handle(self.bench.now, None, wire.decode(bytes_)) if to_server else []:
                    self.put(False, wire.encode(reply))
            machine.handle_timeout(self.bench.now)
            machine.take_decided()
            for ask in asks.take_finished():
                assert (ask.status, ask.body) == (wire.DONE, (b"%06d" % ask.token)[::-1]), (ask.status, ask.body)
                self.heard.append(ask.token)


class Simulated(unittest.TestCase):
    def test_every_ask_is_answered_once_whatever_path_and_server_do(self) -> None:
        for seed in range(60):
            with self.subTest(seed=seed):
                world = AskingWorld(seed)
                world.run(150)
                self.assertEqual(sorted(world.heard), list(range(150)))
                # The late PENDING of a TAKE that was repeated meanwhile ends the repeated one for the client, not for the server.
                self.assertEqual([wrong for wrong in world.server.wrong if not wrong.endswith("is the 17th")], [])
                epoch = world.bench.machine.epoch
                if not world.server.stale and world.loss == 0:
                    self.assertEqual([name for name in world.server.asks if name[1] == epoch], [], "all were said to be had")

    def test_everything_arrives_exactly_once_whatever_the_path_does(self) -> None:
        for seed in range(60):
            with self.subTest(seed=seed):
                world = World(seed)
                world.run(300)
                numbers = sorted(int(payload[:6]) for payload in world.server.journal)
                self.assertEqual(numbers, list(range(300)))
                self.assertEqual(world.server.lost_claims, 0)
                ended = world.bench.machine.take_decided()
                self.assertEqual(len(ended), 300)
                self.assertTrue(all(message.outcome is Outcome.ACKED for message in ended))

    def test_on_a_clean_path_nothing_is_sent_twice(self) -> None:
        for seed in range(20):
            world = World(seed)
            world.loss = 0.0
            world.run(200)
            self.assertEqual(world.bench.machine.stats.timeouts, 0, f"seed {seed}")

    def test_whatever_a_server_says_each_message_ends_once_and_only_what_was_sent_is_acked(self) -> None:
        for seed in range(300):
            rng = random.Random(seed)
            bench = Bench(epoch=rng.choice([0, 3]))
            machine, taken, nonce = bench.machine, 0, 0
            sent: dict[tuple[int, int], bytes] = {}
            ended: set[int] = set()
            for _ in range(120):
                step = rng.randrange(8)
                epoch = rng.choice([machine.epoch, machine.epoch, rng.randrange(12)])
                seq = rng.choice([rng.randrange(40), rng.getrandbits(64)])
                if step < 2:
                    bench.send(b"%d" % taken, token=taken)
                    taken += 1
                elif step == 2:
                    for datagram in bench.transmit_all():
                        if isinstance(datagram, Data):
                            before = sent.setdefault((datagram.epoch, datagram.seq), datagram.payload)
                            self.assertEqual(before, datagram.payload, "a seq was used twice")
                        elif isinstance(datagram, Hello):
                            nonce = datagram.nonce
                elif step == 3:
                    bench.now += rng.choice([0.01, 100.0])
                    machine.handle_timeout(bench.now)
                elif step == 4:
                    bitmap = bytes(rng.choice([0, 0, 0, rng.randrange(256)]) for _ in range(8 * rng.randrange(17)))
                    bench.receive(Ack(CLIENT, epoch or 1, seq, rng.randrange(70), delay_us=seq & 0xFFFF, bitmap=bitmap))
                elif step == 5:
                    refused = nonce if epoch == 0 else seq
                    bench.receive(Reject(CLIENT, epoch, rng.randrange(12), refused, rng.getrandbits(32)))
                elif step == 6:
                    fresh = max([used for used, _ in sent], default=0) + 1
                    bench.receive(Welcome(CLIENT, fresh, rng.randrange(70), rng.choice([nonce, 1])))
                else:
                    machine.handle_datagram(bench.now, rng.randbytes(rng.randrange(80)))
                    if rng.random() < 0.2:
                        machine.abandon_oldest()
                for message in machine.take_decided():
                    self.assertNotIn(message.token, ended)
                    ended.add(message.token)
                    if message.outcome is Outcome.ACKED:
                        self.assertEqual(sent[message.epoch, message.seq], b"%d" % message.token)
                self.assertLessEqual(machine.in_flight, machine.queued)
            self.assertEqual(len(ended) + machine.queued, taken)
