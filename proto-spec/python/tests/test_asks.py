"""The duties of a client that asks (PROTOCOL.md#answers-client), one by one, on a machine whose time is in the test's hand."""

from __future__ import annotations

import random
import unittest

from duragram import wire
from duragram.message import Outcome
from duragram.wire import Answer, Data, Take

from .bench import CLIENT, Bench

DONE, FAILED, PENDING, GONE = wire.DONE, wire.FAILED, wire.PENDING, wire.GONE


class Example(unittest.TestCase):
    def test_the_example_of_the_text_is_played_byte_by_byte(self) -> None:
        bench = Bench(epoch=3)
        for _ in range(4):
            bench.send()
        bench.transmit()
        bench.ack(4, credit=0x400)
        machine = bench.machine
        machine.asks.first_wait = 20.0  # as the text's client
        ask = bench.ask(payload=b"open valve 7")

        def sent() -> list[str]:
            return [bytes_.hex() for bytes_ in machine.transmit(bench.now)]

        def hear(text: str) -> None:
            self.assertIsNone(machine.handle_datagram(bench.now, bytes.fromhex(text)))

        self.assertEqual(sent(), ["1130000003000000a1000000000000000500000000000000000002006f70656e2076616c766520377334c469"])
        self.assertEqual(machine.asks.waiting(), [])
        hear("1200000403000000a1000000000000000500000000000000aa000000c01af895")
        self.assertEqual(sent(), ["1800000003000000a1000000000000000500000000000000204e00007cb46198"])
        self.assertEqual(machine.asks.waiting(), [(3, 5)])
        hear("1700000003000000a10000000000000005000000000000000b0000003227f09c")
        self.assertEqual(sent(), ["1800000003000000a1000000000000000500000000000000204e000000000000000000000000003860dfaf"])
        hear("1700000003000000a10000000000000005000000000000000b00000076616c76653a206f70656ed0109998")
        self.assertEqual(machine.asks.take_finished(), [ask])
        self.assertEqual((ask.status, ask.body), (DONE, b"valve: open"))
        # The text's client does not ask again, and names seq 6.
        self.assertEqual(bench.takes(), [Take(CLIENT, 3, 6 + 65535, 65535)])
        gone = bytes.fromhex("1700030003000000a1000000000000000600000000000000000000003b9f38ce")
        self.assertEqual(machine.handle_datagram(bench.now, gone), "not_waiting")
        self.assertEqual((machine.asks.take_finished(), machine.asks.waiting(), machine.deadline), ([], [], None))


class C1(unittest.TestCase):
    """PROTOCOL.md#duty-c1: at most 64 unfinished, and what a REJECT does to them."""

    def test_c1_the_65th_ask_waits_until_one_is_finished(self) -> None:
        bench = Bench(window=200)
        for _ in range(70):
            bench.ask()
        acked = 0
        while seqs := bench.seqs():
            acked = seqs[-1]
            bench.now += 0.05
            bench.ack(acked, credit=500)
        self.assertEqual((acked, bench.machine.asks.unfinished, bench.machine.queued), (64, 70, 6))
        bench.answer(1)
        bench.answer(2, GONE)
        self.assertEqual(bench.seqs(), [65, 66])

    def test_c1_reject_2_fails_the_message_and_nothing_is_taken(self) -> None:
        bench = Bench.in_flight(1)
        ask = bench.ask()
        bench.transmit()
        bench.reject(2, wire.REJECT_UNSUPPORTED)
        bench.ack(1)
        self.assertEqual(bench.ended(), [(2, Outcome.FAILED), (1, Outcome.ACKED)])
        self.assertEqual((bench.machine.asks.unfinished, bench.takes(), bench.machine.deadline), (0, [], None))
        self.assertFalse(ask.is_acked)

    def test_c1_reject_6_of_an_asking_message_holds_back_that_message_alone(self) -> None:
        bench = Bench()
        bench.ask()
        bench.send()
        bench.transmit()
        bench.reject(1, wire.REJECT_BUSY, 2000)
        bench.reject(1, wire.REJECT_BUSY, 9000)  # of its copy: it waits already
        bench.send()
        sent = bench.transmit()
        self.assertEqual([(data.seq, data.span) for data in sent], [(3, 2)])
        bench.now += 0.05
        bench.ack(0, (2, 3))
        waited = bench.time_out()
        self.assertTrue(2 <= waited <= 3, waited)
        (again,) = bench.transmit()
        self.assertEqual((again.seq, again.options, again.attempt), (1, wire.ASK, 1))
        bench.ack(3)
        self.assertEqual(bench.taken(), [1])

    def test_c1_timeouts_do_not_send_what_is_held_back(self) -> None:
        bench = Bench()
        bench.ask()
        bench.send()
        bench.transmit()
        bench.reject(1, wire.REJECT_BUSY, 60_000)
        for _ in range(4):
            bench.time_out()
            self.assertEqual(bench.seqs(), [2])
        bench.machine.path_changed(bench.now)
        self.assertEqual(bench.seqs(), [2])

    def test_c1_reject_6_of_others_stops_them_but_no_take(self) -> None:
        for code in (wire.REJECT_BUSY, wire.REJECT_STORAGE, wire.REJECT_BEYOND_WINDOW):
            bench, _ = Bench.asked(1)
            bench.send()
            sent = bench.transmit_all()
            self.assertEqual([type(datagram) for datagram in sent], [Take, Data])
            bench.reject(2, code, 5000)
            bench.answer(1, PENDING, number=1000)
            bench.now = bench.machine.asks.find(7, 1).due  # type: ignore[union-attr]
            self.assertEqual(bench.taken(), [1], f"code {code}")

    def test_c1_where_what_was_had_takes_up_the_room_the_server_is_told(self) -> None:
        """Nothing can be taken that would tell it, and without it the refused one would wait for ever."""
        bench, _ = Bench.asked(3)
        bench.takes()
        for _ in range(2):
            bench.ask()
        bench.transmit()
        for seq in (1, 2, 3):
            bench.answer(seq)
        self.assertEqual(bench.takes(), [], "4 is to say it")
        for seq in (4, 5):
            bench.reject(seq, wire.REJECT_BUSY, 1000)
        self.assertEqual(bench.takes(), [Take(CLIENT, 7, 3)])
        self.assertEqual(bench.answer(3), "not_waiting")
        bench.time_out()
        bench.reject(bench.seqs()[0], wire.REJECT_BUSY, 1000)
        self.assertEqual(bench.takes(), [Take(CLIENT, 7, 3)], "that one may be lost")
        bench.ack(4)
        self.assertEqual([(take.seq, take.span) for take in bench.takes()], [(4, 0)])

    def test_c1_what_was_had_above_one_that_is_not_acked_counts_as_it_does_at_the_server(self) -> None:
        """Else the server would be full of them, and refuse the lowest one for ever."""
        bench = Bench(window=200, congestion_window_initial=100)
        for _ in range(70):
            bench.ask()
        self.assertEqual(bench.seqs(), list(range(1, 65)))
        bench.ack(0, tuple(range(2, 65)), credit=500)
        bench.takes()
        for seq in range(2, 65):
            bench.answer(seq)
        self.assertEqual([seq for seq in bench.seqs() if seq > 64], [])
        bench.ack(64, credit=500)
        bench.now += 1
        bench.takes()
        bench.answer(1)
        self.assertEqual(bench.seqs(), list(range(65, 71)))

    def test_c1_it_is_told_so_too_where_the_last_take_was_lost(self) -> None:
        bench, _ = Bench.asked(1)
        bench.takes()
        bench.answer(1)
        self.assertEqual([take.span for take in bench.takes()], [65535])
        bench.ask()
        bench.transmit()
        bench.reject(2, wire.REJECT_BUSY, 1000)
        self.assertEqual(bench.takes(), [Take(CLIENT, 7, 1)])

    def test_c1_missing_credit_stops_no_take(self) -> None:
        bench, _ = Bench.asked(1)
        bench.ack(1, credit=0)
        bench.send()
        self.assertEqual([type(datagram) for datagram in bench.transmit_all()], [Take])


class C2(unittest.TestCase):
    """PROTOCOL.md#duty-c2: what a TAKE may name."""

    def test_c2_no_take_names_what_is_not_acked_and_span_reaches_to_the_lowest_that_is_not_finished(self) -> None:
        bench = Bench()
        for _ in range(4):
            bench.ask()
            bench.send()
        self.assertEqual(bench.seqs(), list(range(1, 9)))
        bench.now += 0.05
        bench.ack(0, (3, 5))
        # 1 is in flight: the server is not to forget its answer.
        self.assertEqual([(take.seq, take.span) for take in bench.takes()], [(3, 2), (5, 4)])
        bench.ack(8)
        bench.answer(1)
        self.assertEqual([(take.seq, take.span) for take in bench.takes()], [(7, 4)])
        bench.answer(3, FAILED)
        bench.time_out()
        self.assertIn((7, 2), [(take.seq, take.span) for take in bench.takes()])

    def test_c2_neither_ready_nor_a_caller_draws_a_take_of_what_is_not_acked(self) -> None:
        bench = Bench()
        for _ in range(3):
            bench.ask(wait=0.0)
        bench.transmit()
        self.assertTrue(bench.machine.take(7, 2, 0.0, "taker"))
        bench.ack(1, ready=True)
        self.assertEqual(bench.taken(), [1])
        bench.ack(3)
        self.assertEqual(bench.taken(), [2], "what the caller wanted to know")

    def test_c2_what_failed_or_was_given_up_does_not_hold_the_span(self) -> None:
        bench = Bench()
        for _ in range(3):
            bench.ask()
        bench.transmit()
        bench.reject(1, wire.REJECT_CHANNEL)
        bench.machine.abandon_oldest()
        bench.ended()
        bench.now += 0.05
        bench.ack(0, (3,))
        self.assertEqual([(take.seq, take.span) for take in bench.takes()], [(3, 0)])

    def test_c2_what_no_span_can_reach_over_waits_for_those_below(self) -> None:
        bench = Bench()
        for seq in (1, 66_002):
            bench.machine.asks.adopt(40, seq, is_whole=True)
        for seq in (66_002, 1):
            bench.machine.take(40, seq, 0.0, None)
        self.assertEqual(bench.taken(), [1])
        assert bench.machine.deadline is not None
        self.assertGreater(bench.machine.deadline, bench.now)
        bench.answer(1, epoch=40)
        self.assertEqual([(take.seq, take.span) for take in bench.takes()], [(66_002, 0)])


class C3(unittest.TestCase):
    """PROTOCOL.md#duty-c3: which ANSWER counts, and for what."""

    def test_c3_an_answer_of_another_client_epoch_or_seq_is_ignored(self) -> None:
        bench, _ = Bench.asked(2)
        bench.ask()
        bench.transmit_all()
        self.assertEqual(bench.receive(Answer(CLIENT ^ 1, 7, 1, DONE)), "other_client")
        self.assertEqual(bench.answer(1, epoch=8), "not_waiting")
        self.assertEqual(bench.answer(3), "not_waiting", "not acked")
        self.assertEqual(bench.answer(4), "not_waiting", "never asked")
        self.assertEqual(bench.answer(2**64 - 1), "not_waiting")
        self.assertEqual(bench.answered(), [])
        self.assertEqual(bench.machine.asks.waiting(), [(7, 1), (7, 2)])

    def test_c3_done_failed_and_gone_finish_and_are_heard_once(self) -> None:
        for status, body in ((DONE, b"yes"), (DONE, b""), (FAILED, b"no"), (GONE, b"")):
            bench, _ = Bench.asked(1)
            bench.takes()
            self.assertIsNone(bench.answer(1, status, body))
            self.assertEqual(bench.answer(1, status, body), "not_waiting")
            self.assertEqual(bench.answer(1, DONE, b"another"), "not_waiting")
            self.assertEqual(bench.answered(), [(1, status, body)])

    def test_c3_an_answer_acks_nothing_and_is_no_rtt_sample(self) -> None:
        bench, _ = Bench.asked(1)
        bench.send()
        bench.transmit_all()
        before, window = bench.machine.rtt.smoothed, bench.machine.congestion.window
        bench.now += 7
        bench.answer(1, DONE, b"late")
        self.assertEqual(bench.machine.rtt.smoothed, before)
        self.assertEqual((bench.machine.queued, bench.machine.in_flight, bench.machine.congestion.window), (1, 1, window))

    def test_c3_a_body_that_had_no_room_is_taken_again_with_as_many_zeros(self) -> None:
        bench, _ = Bench.asked(2)
        self.assertEqual([(take.seq, take.room) for take in bench.takes()], [(1, 0), (2, 0)])
        for _ in range(3):  # two of them are copies
            self.assertIsNone(bench.answer(1, DONE, number=300))
        self.assertEqual([(take.seq, take.room) for take in bench.takes()], [(1, 300)])
        for _ in range(3):
            bench.answer(1, DONE, number=300)
        self.assertEqual(bench.takes(), [])
        bench.answer(1, DONE, bytes(300))
        self.assertEqual(bench.answered(), [(1, DONE, bytes(300))])
        # The next may be as long.
        bench.answer(2, PENDING, number=1000)
        bench.time_out()
        self.assertEqual([(take.seq, take.room) for take in bench.takes()], [(2, 300)])

    def test_c3_a_body_that_no_datagram_of_the_client_carries_is_told_without_it(self) -> None:
        bench, (ask, _) = Bench.asked(2, datagram_bytes_max=132)
        bench.takes()
        bench.answer(1, DONE, number=100)
        self.assertEqual([take.room for take in bench.takes()], [100])
        bench.answer(1, FAILED, number=101)
        self.assertEqual((bench.answered(), ask.length), ([(1, FAILED, b"")], 101))

    def test_c3_a_take_that_is_longer_than_udp_carries_here_brings_no_body(self) -> None:
        bench, (first, second) = Bench.asked(2)
        bench.takes()
        bench.answer(1, DONE, bytes(600))
        bench.answer(2, PENDING)
        bench.time_out()
        # The room was a guess.
        (bytes_,) = bench.machine.transmit(bench.now)
        bench.machine.fail_too_long(bench.now, bytes_)
        self.assertEqual([(take.seq, take.room) for take in bench.takes()], [(2, 0)])
        bench.answer(2, FAILED, number=500)
        (bytes_,) = bench.machine.transmit(bench.now)
        bench.machine.fail_too_long(bench.now, bytes_)
        self.assertEqual((second.status, second.length, second.body), (FAILED, 500, b""))

    def test_c3_a_status_of_a_later_version_is_taken_for_pending(self) -> None:
        bench, _ = Bench.asked(1)
        bench.takes()
        self.assertIsNone(bench.answer(1, 4, b"what is this", number=1500))
        self.assertEqual(bench.answered(), [])
        waited = bench.time_out()
        self.assertTrue(1.5 <= waited <= 1.5 * 1.25, waited)
        self.assertEqual(bench.taken(), [1])

    def test_c3_whatever_answers_say_each_ask_is_heard_once_and_nothing_breaks(self) -> None:
        for seed in range(100):
            rng = random.Random(seed)
            bench, asks = Bench.asked(rng.randrange(1, 40), wait=rng.choice([0.0, 0.5, 20.0]))
            heard: list[int] = []
            for _ in range(150):
                step = rng.randrange(6)
                if step < 3:
                    number = rng.choice([0, 1, 5, 1500, 2**32 - 1])
                    body = bytes(rng.choice([0, number]) if number < 2000 else 0)
                    answer = Answer(CLIENT, rng.choice([7, 7, 7, 8]), rng.randrange(1, 50), rng.choice([0, 0, 1, 2, 3, 4, 65535]), number, body)
                    bench.machine.handle_datagram(bench.now, wire.encode(answer))
                elif step == 3:
                    bench.machine.handle_datagram(bench.now, wire.with_crc(bytes([0x17]) + rng.randbytes(rng.randrange(27, 60))))
                elif step == 4:
                    bench.ack(len(asks), ready=rng.random() < 0.5)
                elif bench.machine.deadline is not None:
                    bench.now = max(bench.now, bench.machine.deadline)
                for take in bench.takes():
                    self.assertLessEqual(take.room, bench.machine.payload_max)
                    self.assertLess(take.span, take.seq)
                self.assertFalse(bench.machine.deadline is not None and bench.machine.deadline <= bench.now and bench.takes() == [])
                heard += [seq for seq, _, _ in bench.answered()]
            self.assertEqual(len(heard), len(set(heard)))
            self.assertEqual(len(heard) + bench.machine.asks.unfinished, len(asks))


class C4(unittest.TestCase):
    """PROTOCOL.md#duty-c4: when a seq is taken again, and how many are taken at a time."""

    def test_c4_without_a_reply_it_is_taken_again_after_the_hold_and_an_rto_that_doubles_to_a_minute(self) -> None:
        for wait, first in ((20.0, 1.0), (0.5, 0.5)):
            bench, _ = Bench.asked(1, wait=wait)
            bench.takes()
            waits = []
            for _ in range(14):
                waits.append(bench.time_out())
                self.assertEqual(bench.taken(), [1])
            self.assertTrue(first + 0.05 <= waits[0] <= first + 0.3, waits)
            for before, after in zip(waits, waits[1:]):
                self.assertTrue(after - first >= min((before - first) * 1.5, 60), waits)
            self.assertTrue(first + 60 <= waits[-1] <= first + 75, waits)

    def test_c4_the_first_take_is_held_for_a_second_and_each_that_came_too_early_lets_the_next_be_held_for_longer(self) -> None:
        """Else a lost TAKE would cost twenty seconds where the answer is there after one."""
        for most, expected in ((20.0, [1000, 2000, 4000, 8000, 16000, 20000, 20000]), (3.0, [1000, 2000, 3000, 3000]), (0.5, [500, 500])):
            bench, _ = Bench.asked(1, wait=most)
            waits = []
            for _ in expected:
                waits += [take.wait_ms for take in bench.takes()]
                bench.answer(1, PENDING)
                bench.time_out()
            self.assertEqual(waits, expected)
        # One that is lost is sent again as it was.
        bench, _ = Bench.asked(1)
        for _ in range(3):
            self.assertEqual([take.wait_ms for take in bench.takes()], [1000])
            bench.time_out()

    def test_c4_who_waits_for_an_answer_hears_of_pending_when_his_time_is_over_and_not_after_each_hold(self) -> None:
        bench, _ = Bench.asked(1, wait=0.0)
        bench.machine.take(7, 1, 4.0, "patient")
        bench.machine.take(7, 1, 1.0, "hasty")
        told = []
        for held in (1000, 2000, 1000):
            self.assertEqual([take.wait_ms for take in bench.takes()], [held])
            bench.answer(1, PENDING)
            told.append([token for token, _ in bench.machine.asks.take_replies()])
            if len(told) < 3:
                bench.time_out()
        self.assertEqual(told, [["hasty"], [], ["patient"]])
        self.assertEqual((bench.takes(), bench.machine.deadline), ([], None), "it sleeps again")
        # What the server did not hold is told at once.
        bench.machine.take(7, 1, 4.0, "refused")
        bench.takes()
        bench.answer(1, PENDING, number=1000)
        self.assertEqual([token for token, _ in bench.machine.asks.take_replies()], ["refused"])

    def test_c4_after_pending_it_waits_as_long_as_the_server_asks_within_bounds(self) -> None:
        for number, least, most in ((1000, 1.0, 1.25), (0, 0.05, 0.4), (2**32 - 1, 60.0, 75.0)):
            bench, _ = Bench.asked(1)
            bench.takes()
            bench.answer(1, PENDING, number=number)
            bench.answer(1, PENDING, number=60_000)  # a copy says nothing new
            waited = bench.time_out()
            self.assertTrue(least <= waited <= most, (number, waited))
            self.assertEqual(bench.taken(), [1])

    def test_c4_at_most_16_are_open_and_each_has_its_turn(self) -> None:
        bench, _ = Bench.asked(40, congestion_window_initial=100)
        bench.now += 1
        self.assertEqual(bench.taken(), list(range(1, 17)))
        self.assertEqual(bench.takes(), [])
        for seq in range(1, 17):
            bench.answer(seq, PENDING)
        self.assertEqual(bench.taken(), list(range(17, 33)))
        bench.answer(20)
        self.assertEqual(bench.taken(), [33])
        for seq in range(17, 34):
            bench.answer(seq, PENDING)
        bench.now += 1
        self.assertEqual(bench.taken(), [*range(34, 41), *range(1, 10)])

    def test_c4_no_more_than_the_congestion_window_is_sent_in_a_round_trip(self) -> None:
        bench, _ = Bench.asked(12, congestion_window_initial=100)
        bench.now += 1
        bench.machine.congestion.window = 5
        round_trip = bench.machine.rtt.smoothed
        assert round_trip is not None
        self.assertEqual(bench.taken(), [1, 2, 3, 4, 5])
        self.assertAlmostEqual(bench.time_out(), round_trip)
        self.assertEqual(bench.taken(), [6, 7, 8, 9, 10])
        bench.now += round_trip / 2
        self.assertEqual(bench.taken(), [])
        bench.time_out()
        self.assertEqual(bench.taken(), [11, 12])

    def test_c4_another_path_draws_what_is_open_at_once(self) -> None:
        bench, _ = Bench.asked(2)
        bench.takes()
        bench.answer(2, PENDING, number=5000)
        bench.machine.path_changed(bench.now)
        self.assertEqual(bench.taken(), [1])


class C5(unittest.TestCase):
    """PROTOCOL.md#duty-c5: sleepers."""

    def test_c5_a_sleeper_takes_nothing_by_itself(self) -> None:
        bench, _ = Bench.asked(2, wait=0.0)
        self.assertEqual((bench.takes(), bench.machine.deadline), ([], None))
        self.assertEqual(bench.machine.asks.waiting(), [(7, 1), (7, 2)])

    def test_c5_when_it_wakes_it_sends_wait_0_and_on_pending_it_sleeps_again(self) -> None:
        bench, _ = Bench.asked(2, wait=0.0)
        self.assertTrue(bench.machine.take(7, 2, 0.0, "taker"))
        self.assertEqual([(take.seq, take.span, take.wait_ms) for take in bench.takes()], [(2, 1, 0)])
        bench.answer(2, PENDING, number=1000)
        (told,) = bench.machine.asks.take_replies()
        self.assertEqual((told[0], told[1].seq, told[1].status), ("taker", 2, None))
        self.assertEqual((bench.takes(), bench.machine.deadline), ([], None))

    def test_c5_whoever_wants_to_wait_for_it_has_it_held(self) -> None:
        bench, _ = Bench.asked(1, wait=0.0)
        for wait in (0.0, 5.0):
            bench.machine.take(7, 1, wait, wait)
        self.assertEqual([take.wait_ms for take in bench.takes()], [1000])
        bench.answer(1)
        self.assertEqual([token for token, _ in bench.machine.asks.take_replies()], [0.0, 5.0])

    def test_c5_ready_wakes_it_no_sooner_than_the_server_bears(self) -> None:
        bench, _ = Bench.asked(2, wait=0.0)
        bench.ack(2)
        self.assertFalse(bench.machine.asks.is_ready)
        bench.ack(2, ready=True)
        self.assertTrue(bench.machine.asks.is_ready)
        self.assertEqual([(take.seq, take.wait_ms) for take in bench.takes()], [(1, 0), (2, 0)])
        bench.answer(1, PENDING, number=1000)
        bench.answer(2, DONE, b"2")
        # While 1 waits the server cannot forget 2, and says READY with each ack.
        for _ in range(5):
            bench.ack(2, ready=True)
            self.assertEqual(bench.takes(), [])
        self.assertGreaterEqual(bench.time_out(), 1)
        self.assertEqual(bench.taken(), [1])

    def test_c5_a_reply_that_is_lost_is_asked_for_again_until_nobody_wants_it(self) -> None:
        bench, _ = Bench.asked(1, wait=0.0)
        taker = object()
        bench.machine.take(7, 1, 0.0, taker)
        bench.takes()
        self.assertLess(bench.time_out(), 1)
        self.assertEqual(bench.taken(), [1])
        bench.machine.asks.give_up_takers(taker)
        self.assertIsNone(bench.machine.deadline)
        self.assertIsNone(bench.answer(1, DONE, b"late, and welcome"))


class C6(unittest.TestCase):
    """PROTOCOL.md#duty-c6: a change of epoch."""

    def test_c6_what_waits_is_taken_in_the_old_epoch_and_what_is_sent_again_waits_in_the_new_one_only(self) -> None:
        bench = Bench()
        asks = [bench.ask() for _ in range(4)]
        bench.transmit()
        bench.ack(0, (1, 3))
        bench.reject(2, wire.REJECT_STALE_EPOCH)
        sent = bench.transmit_all()
        takes = [datagram for datagram in sent if isinstance(datagram, Take)]
        again = [datagram for datagram in sent if isinstance(datagram, Data)]
        self.assertEqual([(take.epoch, take.seq, take.span) for take in takes], [(7, 1, 0), (7, 3, 2)])
        self.assertEqual([(data.epoch, data.seq, data.options) for data in again], [(8, 1, wire.ASK), (8, 2, wire.ASK)])
        bench.ack(2)
        self.assertEqual(bench.machine.asks.waiting(), [(7, 1), (7, 3), (8, 1), (8, 2)])
        self.assertEqual(bench.machine.asks.unfinished, 4)
        self.assertEqual([(take.epoch, take.seq) for take in bench.takes()], [(8, 1), (8, 2)])
        self.assertEqual(bench.answer(2, epoch=7), "not_waiting", "it waits in epoch 8")
        bench.answer(1, DONE, b"old 1", epoch=7)
        bench.answer(1, DONE, b"new 1")
        self.assertEqual([(ask.status, ask.body) for ask in asks], [(DONE, b"old 1"), (DONE, b"new 1"), (None, b""), (None, b"")])
        bench.answer(3, epoch=7)
        self.assertEqual(bench.takes(), [], "of 2 and 4 of epoch 7 it says nothing")

    def test_c6_while_it_asks_for_an_epoch_it_takes_on_in_the_old_one(self) -> None:
        bench = Bench(epoch=0)
        bench.ask()
        hello = bench.hello()
        assert hello is not None
        bench.welcome(hello.nonce, 50)
        bench.transmit()
        bench.ack(1)
        bench.takes()
        bench.send()
        bench.transmit()
        bench.reject(2, wire.REJECT_STALE_EPOCH)
        bench.answer(1, PENDING, epoch=50)
        self.assertIsNotNone(bench.hello())
        bench.now += 0.5
        self.assertEqual([(take.epoch, take.seq) for take in bench.takes()], [(50, 1)])

    def test_c6_an_answer_does_not_end_the_silence_of_another_epoch_in_which_it_counts_for_nothing(self) -> None:
        bench, _ = Bench.asked(1)
        bench.takes()
        bench.send()
        bench.transmit()
        for _ in range(4):
            bench.now = bench.machine._due or bench.now
            bench.machine.handle_timeout(bench.now)
            bench.transmit_all()
        self.assertTrue(bench.machine._silent)
        self.assertEqual(bench.answer(1, epoch=8), "not_waiting")
        self.assertTrue(bench.machine._silent)
        self.assertIsNone(bench.answer(1))
        self.assertFalse(bench.machine._silent, "something was heard")


class C7(unittest.TestCase):
    """PROTOCOL.md#duty-c7: when nothing waits any more."""

    def test_c7_one_take_of_the_seq_after_the_last_ask_lets_the_server_forget(self) -> None:
        bench, _ = Bench.asked(2)
        bench.send()
        bench.transmit_all()
        bench.answer(1)
        self.assertEqual(bench.takes(), [])
        bench.answer(2)
        (last,) = bench.takes()
        self.assertEqual(last, Take(CLIENT, 7, 3 + 65535, 65535))
        self.assertEqual(bench.answer(3, GONE), "not_waiting")
        bench.ack(3)
        # Its loss does no harm, so it is not repeated.
        self.assertEqual((bench.takes(), bench.machine.deadline), ([], None))
        self.assertTrue(bench.machine.asks.is_idle)

    def test_c7_it_is_not_said_while_a_further_ask_is_under_way(self) -> None:
        bench, _ = Bench.asked(1)
        bench.takes()
        bench.ask()
        bench.answer(1)
        self.assertEqual([type(datagram) for datagram in bench.transmit_all()], [Data])
        bench.ack(2)
        self.assertEqual([(take.seq, take.span) for take in bench.takes()], [(2, 0)])
        bench.answer(2)
        self.assertEqual([take.seq - take.span for take in bench.takes()], [3])

    def test_c7_its_reply_names_no_seq_that_asks_soon(self) -> None:
        bench, _ = Bench.asked(1)
        bench.takes()
        bench.answer(1)
        (last,) = bench.takes()
        ask = bench.ask()
        self.assertEqual(bench.seqs(), [2])
        bench.ack(2)
        bench.takes()
        self.assertEqual(bench.answer(last.seq, GONE), "not_waiting")
        self.assertIsNone(ask.status)

    def test_c7_what_only_failed_leaves_nothing_to_forget(self) -> None:
        bench = Bench.in_flight(1)
        bench.ask()
        bench.transmit()
        bench.ack(1)
        bench.reject(2, wire.REJECT_UNSUPPORTED)
        bench.ended()
        self.assertEqual((bench.takes(), bench.machine.asks.is_idle), ([], True))


class C8(unittest.TestCase):
    """PROTOCOL.md#duty-c8: after a restart."""

    def test_c8_a_later_run_takes_what_was_stored_in_its_old_epoch_without_a_session(self) -> None:
        bench = Bench(epoch=0)
        for seq in (5, 9, 12):
            bench.machine.asks.adopt(40, seq, is_whole=True)
        self.assertEqual(bench.machine.asks.waiting(), [(40, 5), (40, 9), (40, 12)])
        self.assertEqual((bench.transmit_all(), bench.machine.deadline), ([], None))
        for seq in (9, 5, 12):
            self.assertTrue(bench.machine.take(40, seq, 0.0, seq))
        self.assertEqual(sorted((take.epoch, take.seq, take.span) for take in bench.takes()), [(40, 5, 0), (40, 9, 4), (40, 12, 7)])
        for seq in (5, 9, 12):
            bench.answer(seq, DONE, b"%d" % seq, epoch=40)
        self.assertEqual([(token, ask.body) for token, ask in bench.machine.asks.take_replies()], [(5, b"5"), (9, b"9"), (12, b"12")])
        self.assertEqual([(take.epoch, take.seq - take.span) for take in bench.takes()], [(40, 13)])

    def test_c8_a_take_of_what_was_not_stored_lets_the_server_forget_nothing(self) -> None:
        bench = Bench(epoch=0)
        for seq, span in ((9, 8), (100_000, 65_535), (1, 0)):
            bench.machine.take(40, seq, 0.0, None)
            self.assertEqual([(take.seq, take.span) for take in bench.takes()], [(seq, span)])
            bench.answer(seq, GONE, epoch=40)
            self.assertEqual(bench.takes(), [], "others may wait there")

    def test_c8_in_its_own_epoch_nothing_can_be_taken_that_was_not_asked(self) -> None:
        bench, _ = Bench.asked(1)
        self.assertFalse(bench.machine.take(7, 2, 0.0, None))
        self.assertTrue(bench.machine.take(7, 1, 0.0, None))


if __name__ == "__main__":
    unittest.main()
