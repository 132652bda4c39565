"""A sealed client (PROTOCOL.md#sealed-client)."""

from __future__ import annotations

import unittest
from typing import Optional

from duragram import seal, wire
from duragram.message import Outcome
from duragram.seal import Keys, Sealed
from duragram.wire import Ack, Data, Hello, Ping, Reject, Welcome

from .bench import CLIENT, Bench

KEY = bytes(range(32))


class SealedBench(Bench):
    """Answers are sealed as the server would, and what is sent is opened as the server would."""

    def __init__(self, epoch: int = 7, boot_count: Optional[int] = None) -> None:
        super().__init__(epoch, Sealed(CLIENT, KEY, boot_count))
        self.counter = 1_000
        self.used: set[tuple[int, int]] = set()

    def transmit_all(self) -> list[wire.Datagram]:
        return [self.opened(bytes_) for bytes_ in self.machine.transmit(self.now, 1000)]

    def opened(self, bytes_: bytes) -> wire.Datagram:
        head = seal.peek(bytes_)
        if head.fields.kind != wire.HELLO:
            assert (head.keys_epoch, head.counter) not in self.used, "a counter was used twice"
            self.used.add((head.keys_epoch, head.counter))
        return seal.unseal(bytes_, Keys(KEY, CLIENT, head.keys_epoch))

    def receive(self, datagram: wire.Datagram) -> Optional[str]:
        self.counter += 1
        epoch = 0 if isinstance(datagram, (Welcome, Hello)) else datagram.epoch
        bytes_ = seal.seal(datagram, Keys(KEY, datagram.client, epoch), self.counter)
        return self.machine.handle_datagram(self.now, bytes_)


class SealedClient(unittest.TestCase):
    def test_a_session_from_hello_to_ack_uses_each_counter_once(self) -> None:
        bench = SealedBench(epoch=0)
        for _ in range(4):
            bench.send(b"secret")
        hello = bench.hello()
        assert hello is not None
        bench.time_out()
        self.assertEqual(bench.hello(), hello)
        bench.welcome(hello.nonce, 50)
        self.assertEqual(bench.seqs(), [1, 2, 3, 4])
        for _ in range(5):
            bench.time_out()
            self.assertEqual(bench.seqs(), [1])
        self.assertIsNone(bench.ack(4))
        self.assertEqual(bench.machine.queued, 0)
        self.assertEqual(len(bench.used), 9)

    def test_plain_replies_and_those_of_other_keys_are_ignored(self) -> None:
        bench = SealedBench()
        bench.send()
        bench.transmit()
        ack = Ack(CLIENT, 7, 1, 64)
        refused = Reject(CLIENT, 7, wire.REJECT_SEALED_ONLY, 1)
        handle = bench.machine.handle_datagram
        plain: list[wire.Datagram] = [ack, refused, refused._replace(code=wire.REJECT_VERSION)]
        for datagram in plain:
            self.assertEqual(handle(bench.now, wire.encode(datagram)), "not_sealed")
        sealed = seal.seal(ack, Keys(KEY, CLIENT, 7), 5)
        for at in range(len(sealed)):
            self.assertIsNotNone(handle(bench.now, sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]), at)
        self.assertEqual(handle(bench.now, seal.seal(ack, Keys(bytes(32), CLIENT, 7), 5)), "bad_seal")
        self.assertEqual(handle(bench.now, seal.seal(ack._replace(epoch=6), Keys(KEY, CLIENT, 6), 5)), "other_epoch")
        self.assertEqual(bench.receive(Ping(CLIENT, 7)), "for_servers")
        self.assertEqual(bench.machine.queued, 1)
        self.assertIsNone(handle(bench.now, sealed))
        self.assertEqual(bench.machine.queued, 0)

    def test_one_sealed_ack_of_what_was_never_sent_betrays_a_used_epoch(self) -> None:
        bench = SealedBench()
        bench.machine._doubt.doubted = True
        bench.send()
        bench.transmit()
        self.assertEqual(bench.ack(5), "never_sent")
        self.assertEqual(bench.ended(), [(1, Outcome.EPOCH_USED)])

    def counters(self, bench: SealedBench) -> list[int]:
        return [seal.peek(bytes_).counter for bytes_ in bench.machine.transmit(bench.now, 100)]

    def doubting(self, first: Optional[int] = None, boot_count: Optional[int] = None) -> SealedBench:
        bench = SealedBench(boot_count=boot_count)
        bench.machine._doubt.doubted = True
        if first is not None:
            link = bench.machine._wire
            assert isinstance(link, Sealed)
            link._counter = first
        for _ in range(4):
            bench.send()
        return bench

    def test_each_silence_in_a_doubted_epoch_lifts_the_counter_half_of_the_way_to_where_random_ones_end(self) -> None:
        bench = self.doubting(first=5)
        (counter,) = self.counters(bench)
        self.assertEqual(counter, 5)
        for _ in range(8):
            bench.time_out()
            before, (counter,) = counter, self.counters(bench)
            self.assertIn(counter - before - (2**63 - before) // 2, (0, 1))
        # Settled, it goes on one by one.
        bench.ack(1)
        self.assertEqual(self.counters(bench), [counter + 1])
        bench.time_out()
        self.assertEqual(self.counters(bench), [counter + 2])

    def test_a_counter_stops_to_rise_while_chance_still_keeps_it_apart_from_others(self) -> None:
        benches = [self.doubting(first) for first in (0, 2**60 + 17, 2**63 - 2**55, 2**63 - 2, 2**63 + 9)]
        for bench in benches:
            first = (counter := self.counters(bench)[0])
            for _ in range(100):
                bench.time_out()
                before, (counter,) = counter, self.counters(bench)
                self.assertGreater(counter, before)
                risen = counter != before + 1
                self.assertEqual(risen, 2**63 - before - 1 > 2**55, f"{before:x}")
            if first < 2**63 - 200:
                self.assertLess(counter, 2**63 - 2**53)
                self.assertGreaterEqual(counter, 2**63 - 2**55)

    def test_no_silence_lifts_the_counter_of_a_boot_or_of_an_epoch_without_doubt(self) -> None:
        for bench, first in [(self.doubting(boot_count=5), 5 << 32), (self.doubting(first=0), 0)]:
            bench.machine._doubt.doubted = first != 0
            (counter, *_) = self.counters(bench)
            self.assertEqual(counter, first)
            highest = max(counter, bench.machine._wire._counter - 1)  # type: ignore[attr-defined]
            for count in range(1, 40):
                bench.time_out()
                self.assertEqual(self.counters(bench), [highest + count])

    def test_a_welcome_must_lead_upwards(self) -> None:
        bench = SealedBench(epoch=0)
        bench.send()
        hello = bench.hello()
        assert hello is not None
        bench.welcome(hello.nonce, 50)
        bench.transmit()
        bench.reject(1, wire.REJECT_STALE_EPOCH)
        hello = bench.hello()
        assert hello is not None
        self.assertEqual(bench.welcome(hello.nonce, 49), "unasked")
        self.assertEqual(bench.welcome(hello.nonce, 50), "unasked")
        self.assertIsNone(bench.welcome(hello.nonce, 51))

    def test_a_used_up_boot_count_leads_to_the_next_epoch(self) -> None:
        link = Sealed(CLIENT, KEY, boot_count=3)
        bench = SealedBench(boot_count=3)
        bench.machine._wire = link
        link.enter(7)
        self.assertEqual(link._counter, 3 << 32)
        link._counter = link._last - 1
        for _ in range(3):
            bench.send()
        sent = bench.transmit()
        self.assertEqual([(data.epoch, data.seq) for data in sent], [(7, 1), (7, 2)])
        bench.ack(2)
        sent = bench.transmit()
        self.assertEqual([(data.epoch, data.seq) for data in sent], [(8, 1)])

    def test_the_payload_is_shorter_by_the_seal(self) -> None:
        bench = SealedBench()
        self.assertEqual(bench.machine.payload_max, 1200 - 52)
        bench.send(bytes(1148))
        (bytes_,) = bench.machine.transmit(bench.now)
        self.assertEqual(len(bytes_), 1200)
        opened = bench.opened(bytes_)
        assert isinstance(opened, Data)
        self.assertEqual(opened.payload, bytes(1148))
