"""A sealed client (PROTOCOL.md#sealed-client)."""

from __future__ import annotations

import unittest
from typing import Optional
from unittest import mock

from duragram import seal, wire
from duragram.message import Outcome
from duragram.seal import Keys, Sealed
from duragram.wire import Ack, Answer, Data, Hello, Ping, Reject, Take, Welcome

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


class SealedAsks(unittest.TestCase):
    def asked(self, bench: SealedBench, count: int) -> None:
        for _ in range(count):
            bench.ask()
        bench.transmit()
        bench.now += 0.05
        bench.ack(count)

    def test_c6_the_old_epoch_is_taken_in_with_its_keys_and_goes_on_with_its_counter(self) -> None:
        for boot_count in (None, 5):
            bench = SealedBench(boot_count=boot_count)
            self.asked(bench, 2)
            self.assertEqual(bench.taken(), [1, 2])
            bench.send()
            bench.transmit()
            bench.reject(3, wire.REJECT_STALE_EPOCH)
            bench.answer(1, wire.PENDING, epoch=7)
            self.assertEqual([data.epoch for data in bench.transmit()], [8])
            before = max(counter for epoch, counter in bench.used if epoch == 7)
            bench.now += 0.5
            # The bench sees that no counter comes twice.
            self.assertEqual([(take.epoch, take.seq) for take in bench.takes()], [(7, 1)])
            self.assertEqual(max(counter for epoch, counter in bench.used if epoch == 7), before + 1)
            bench.machine.path_changed(bench.now)
            self.assertIn((7, 1), [(take.epoch, take.seq) for take in bench.takes()])
            self.assertIsNone(bench.answer(1, wire.DONE, b"sealed", epoch=7))
            self.assertEqual(bench.answered(), [(1, wire.DONE, b"sealed")])

    def test_c6_what_can_be_taken_with_used_counters_alone_is_reported_as_gone(self) -> None:
        bench = SealedBench(boot_count=5)
        self.asked(bench, 2)
        link = bench.machine._wire
        assert isinstance(link, Sealed)
        link._counter = link._last
        self.assertEqual(bench.taken(), [1])
        self.assertEqual(bench.takes(), [])
        self.assertEqual(bench.answered(), [(1, wire.GONE, b""), (2, wire.GONE, b"")])
        self.assertIsNone(bench.machine.deadline)

    def test_c6_epochs_in_which_nothing_waits_are_taken_in_no_more(self) -> None:
        bench = SealedBench()
        self.asked(bench, 1)
        bench.takes()
        bench.answer(1)
        bench.takes()
        bench.send()
        bench.transmit()
        bench.reject(2, wire.REJECT_STALE_EPOCH)
        bench.transmit()
        self.assertFalse(bench.machine.take(7, 1, 0.0, None), "its counter is not known any more")
        self.assertEqual(bench.answer(1, epoch=7), "other_epoch")

    def test_c8_a_later_run_counts_above_what_earlier_ones_used_and_never_as_they_did(self) -> None:
        def taken_by(bench: SealedBench) -> int:
            for seq in (1, 2):
                bench.machine.take(7, seq, 0.0, None)
            self.assertEqual(bench.taken(), [1, 2])
            self.assertIsNone(bench.answer(1, wire.DONE, b"1", epoch=7))
            first, second = sorted(counter for epoch, counter in bench.used if epoch == 7)
            self.assertEqual(second, first + 1)
            return first

        with mock.patch("time.time", return_value=1_790_000_000.0):
            one, other = taken_by(SealedBench(epoch=0)), taken_by(SealedBench(epoch=9))
        self.assertNotEqual(one, other)
        self.assertTrue(min(one, other) >= seal.RANDOM_END)
        with mock.patch("time.time", return_value=1_790_000_000.001):
            self.assertGreater(taken_by(SealedBench(epoch=0)), max(one, other))
        bench = SealedBench(epoch=8, boot_count=5)
        self.assertTrue(5 << 32 < taken_by(bench) < 6 << 32)
        self.assertGreater(taken_by(SealedBench(epoch=9, boot_count=6)), 6 << 32)

    def test_c3_an_answer_sealed_with_another_epochs_keys_or_in_plain_is_ignored(self) -> None:
        bench = SealedBench()
        self.asked(bench, 1)
        bench.takes()
        answer = Answer(CLIENT, 7, 1, wire.DONE, 3, b"lie")
        self.assertEqual(bench.machine.handle_datagram(bench.now, wire.encode(answer)), "not_sealed")
        for keys in (Keys(KEY, CLIENT, 8), Keys(bytes(32), CLIENT, 7)):
            self.assertEqual(bench.machine.handle_datagram(bench.now, seal.seal(answer, keys, 1)), "bad_seal")
        own = seal.seal(Take(CLIENT, 7, 1), Keys(KEY, CLIENT, 7), 1)
        self.assertEqual(bench.machine.handle_datagram(bench.now, own), "for_servers")
        self.assertEqual(bench.answered(), [])

    def test_a_takes_room_is_under_the_seal_and_an_answers_body_is_not_to_be_read(self) -> None:
        keys = Keys(KEY, CLIENT, 7)
        take = seal.seal(Take(CLIENT, 7, 1, room=11), keys, 9)
        self.assertEqual(len(take), seal.SEALED_MIN + 11)
        with self.assertRaises(wire.DecodeError):
            seal.unseal(take[:36] + bytes(10) + take[47:], keys)
        answer = seal.seal(Answer(CLIENT, 7, 1, wire.DONE, 11, b"valve: open"), keys, 9)
        self.assertNotIn(b"valve", answer)
        self.assertEqual(len(answer), len(take))
