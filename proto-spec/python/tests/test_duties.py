"""The duties of PROTOCOL.md#client-duties, one by one, on a machine whose time is in the test's hand."""

from __future__ import annotations

import unittest

from duragram import wire
from duragram.message import FINAL, Outcome
from duragram.wire import Ack, Reject

from .bench import CLIENT, Bench

ACKED, FAILED, ABANDONED = Outcome.ACKED, Outcome.FAILED, Outcome.ABANDONED


class Epoch(unittest.TestCase):
    """PROTOCOL.md#duty-epoch"""

    def test_a_client_without_an_epoch_asks_when_it_has_something_to_send(self) -> None:
        bench = Bench(epoch=0)
        self.assertIsNone(bench.hello())
        bench.send()
        first = bench.hello()
        assert first is not None
        self.assertIsNone(bench.hello())
        for _ in range(3):
            bench.time_out()
            self.assertEqual(bench.hello(), first, "repeated as it was")
        self.assertEqual(bench.welcome(first.nonce ^ 1, 5), "unasked")
        self.assertIsNone(bench.welcome(first.nonce, 5))
        self.assertEqual(bench.welcome(first.nonce, 6), "unasked")
        self.assertEqual(bench.seqs(), [1])
        self.assertEqual((bench.machine.epoch, bench.machine.credit), (5, 64))

    def test_a_stale_epoch_is_left_and_what_is_unacked_goes_into_the_next_without_holes(self) -> None:
        bench = Bench.in_flight(5)
        bench.ack(0, (2, 4))
        bench.reject(1, wire.REJECT_STALE_EPOCH)
        sent = bench.transmit()
        self.assertEqual([(data.epoch, data.seq, data.attempt) for data in sent], [(8, 1, 0), (8, 2, 0), (8, 3, 0)])
        self.assertEqual(bench.ack(3, epoch=7), "other_epoch", "late acks of the old epoch count no more")

    def test_the_new_epoch_is_at_least_the_time_of_day(self) -> None:
        bench = Bench(unix_time=lambda: 1_790_000_000.5)
        bench.send()
        bench.transmit()
        bench.reject(1, wire.REJECT_STALE_EPOCH)
        self.assertEqual(bench.machine.epoch, 1_790_000_000)

    def test_an_own_epoch_that_is_refused_twice_is_asked_for(self) -> None:
        bench = Bench.in_flight(1)
        bench.reject(1, wire.REJECT_STALE_EPOCH)
        self.assertEqual(bench.transmit()[0].epoch, 8)
        bench.reject(1, wire.REJECT_STALE_EPOCH)
        hello = bench.hello()
        assert hello is not None
        self.assertEqual(bench.welcome(hello.nonce, 8), "unasked", "the epoch that was just refused")
        bench.welcome(hello.nonce, 20)
        self.assertEqual(bench.transmit()[0].epoch, 20)
        # Refused again: the server is of no use for now.
        bench.reject(1, wire.REJECT_STALE_EPOCH)
        self.assertIsNone(bench.hello())
        self.assertGreater(bench.time_out(), 3)
        self.assertIsNotNone(bench.hello())

    def test_a_hello_refused_for_good_fails_what_waits_and_the_next_message_asks_again(self) -> None:
        bench = Bench(epoch=0)
        bench.send()
        bench.send()
        hello = bench.hello()
        assert hello is not None
        refused = Reject(CLIENT, 0, wire.REJECT_SEALED_ONLY, hello.nonce)
        self.assertEqual(bench.receive(refused._replace(refused=hello.nonce ^ 1)), "not_in_flight")
        self.assertIsNone(bench.receive(refused))
        self.assertEqual([outcome for _, outcome in bench.ended()], [FAILED, FAILED])
        self.assertIsNone(bench.machine.deadline)
        bench.send()
        self.assertIsNotNone(bench.hello())

    def test_a_busy_server_is_asked_again_after_the_wait(self) -> None:
        bench = Bench(epoch=0)
        bench.send()
        hello = bench.hello()
        assert hello is not None
        bench.receive(Reject(CLIENT, 0, wire.REJECT_BUSY, hello.nonce, 2000))
        self.assertIsNone(bench.hello())
        self.assertGreaterEqual(bench.time_out(), 2)
        self.assertEqual(bench.hello(), hello)


class SeqAndWindow(unittest.TestCase):
    """PROTOCOL.md#duty-seq, PROTOCOL.md#duty-window, PROTOCOL.md#duty-probe"""

    def test_seqs_count_from_1_and_span_tells_the_base(self) -> None:
        bench = Bench.in_flight(4)
        bench.ack(1, (3,))
        bench.send()
        (data,) = bench.transmit()
        self.assertEqual((data.seq, data.span), (5, 3))

    def test_span_never_exceeds_16_bits(self) -> None:
        bench = Bench(window=70_000, congestion_window_initial=70_000)
        for _ in range(70_000):
            bench.send(b"")
        self.assertEqual(max(data.span for data in bench.transmit()), 65_535)

    def test_no_seq_beyond_the_credit_is_sent_and_nothing_in_flight_asks_by_ping(self) -> None:
        bench = Bench.in_flight(2)
        for _ in range(6):
            bench.send()
        bench.ack(1, credit=3)
        self.assertEqual(bench.seqs(), [3, 4])
        bench.ack(4, credit=0)
        self.assertEqual(bench.seqs(), [])
        waits = []
        for _ in range(4):
            waits.append(bench.time_out())
            self.assertEqual(bench.pings(), 1)
        self.assertGreater(waits[3], 4 * waits[0])
        bench.ack(4, credit=2)
        self.assertEqual(bench.seqs(), [5, 6])

    def test_no_reply_moves_the_next_ping_while_there_is_no_credit(self) -> None:
        bench = Bench.in_flight(2)
        for _ in range(6):
            bench.send()
        bench.ack(2, credit=0)
        pings, end = 0, bench.now + 30
        while bench.now < end:
            sent = bench.pings()
            pings += sent
            # Every PING is answered at once, and stray acks and refusals come besides.
            for _ in range(sent * 3 + 1):
                bench.ack(2, credit=0, duplicate=True)
                bench.ack(1, credit=0, duplicate=True)
                bench.reject(0, wire.REJECT_BEYOND_WINDOW)
                pings += bench.pings()
            assert bench.machine.deadline is not None
            bench.now = min(bench.machine.deadline, bench.now + 0.01)
            bench.machine.handle_timeout(bench.now)
        self.assertTrue(9 <= pings <= 12, pings)  # doubling from 10 ms on
        bench.ack(2, credit=9)
        self.assertEqual(bench.seqs(), [3, 4, 5, 6, 7, 8])

    def test_a_pings_answer_gives_credit_even_with_floor_0(self) -> None:
        bench = Bench.in_flight(2)
        bench.send()
        bench.ack(2, credit=0)
        bench.time_out()
        self.assertEqual(bench.pings(), 1)
        bench.ack(0, credit=9)
        self.assertEqual(bench.seqs(), [3])

    def test_an_overtaken_ack_does_not_set_the_credit(self) -> None:
        bench = Bench.in_flight(5)
        bench.ack(3, credit=50)
        bench.ack(2, credit=1)
        self.assertEqual(bench.machine.credit, 50)

    def test_a_run_of_abandoned_seqs_longer_than_the_window_needs_a_new_epoch(self) -> None:
        bench = Bench.in_flight(8)
        bench.ack(1, credit=4)
        for _ in range(6):
            bench.machine.abandon_oldest()
        bench.send()
        sent = bench.transmit()
        self.assertEqual([(data.epoch, data.seq) for data in sent], [(8, 1), (8, 2)])


class Retransmission(unittest.TestCase):
    """PROTOCOL.md#duty-retransmission"""

    def test_silence_is_answered_by_ever_rarer_retransmissions_of_one_datagram(self) -> None:
        bench = Bench.in_flight(5)
        waits = []
        for _ in range(12):
            waits.append(bench.time_out())
            sent = bench.transmit()
            self.assertEqual([data.seq for data in sent], [1])
            self.assertEqual(sent[0].attempt, min(len(waits), 7))
        for before, after in list(zip(waits, waits[1:]))[:5]:
            self.assertGreater(after, before * 1.5)
        self.assertLessEqual(max(waits), 75)
        self.assertEqual(bench.machine.congestion.window, 1)
        bench.now += 0.1
        bench.ack(1)
        self.assertEqual(bench.seqs(), [2, 3])

    def test_a_second_timeout_in_a_row_asks_with_as_many_as_a_short_path_bears_and_a_third_with_one(self) -> None:
        for rtt, bears in ((0.0003, 16), (0.0025, 4), (0.009, 1), (0.6, 1)):
            with self.subTest(rtt):
                bench = Bench.in_flight(1, congestion_window_initial=40)
                bench.now += rtt
                bench.ack(1)
                for _ in range(40):
                    bench.send()
                self.assertEqual(len(bench.transmit()), 40)
                bench.time_out()
                self.assertEqual(bench.seqs(), [2])
                bench.time_out()
                self.assertEqual(bench.seqs(), list(range(2, 2 + bears)))
                for _ in range(3):
                    bench.time_out()
                    self.assertEqual(bench.seqs(), [2])
                bench.now += rtt
                bench.ack(2)
                self.assertEqual(bench.seqs(), list(range(3, 4 + bears)), "and up again")

    def test_one_timeout_alone_does_not_shrink_the_congestion_window(self) -> None:
        bench = Bench.in_flight(5)
        window = bench.machine.congestion.window
        bench.time_out()
        self.assertEqual(bench.seqs(), [1])
        self.assertEqual(bench.machine.congestion.window, window)
        bench.ack(5)
        self.assertEqual(bench.machine.queued, 0)
        self.assertIsNone(bench.machine.deadline)

    def test_the_servers_delay_is_not_part_of_the_rtt_but_is_waited_for(self) -> None:
        bench = Bench()
        for seq in range(1, 60):
            bench.send()
            bench.transmit()
            bench.now += 0.55
            bench.ack(seq, delay_us=500_000)
        self.assertAlmostEqual(bench.machine.rtt.smoothed or 0, 0.05, places=3)
        bench.send()
        bench.transmit()
        self.assertGreaterEqual(bench.time_out(), 0.55)

    def test_what_was_sent_twice_gives_no_rtt_sample(self) -> None:
        bench = Bench.in_flight(1)
        bench.time_out()
        bench.transmit()
        bench.ack(1)
        self.assertIsNone(bench.machine.rtt.smoothed)

    def test_an_answer_to_what_the_server_had_before_gives_no_rtt_sample(self) -> None:
        bench = Bench.in_flight(2)
        bench.now += 30
        bench.ack(2, duplicate=True)
        self.assertEqual(len(bench.ended()), 2)
        self.assertIsNone(bench.machine.rtt.smoothed)

    def test_a_retransmission_repeats_seq_and_payload(self) -> None:
        bench = Bench()
        bench.send(b"\x03\0abc", channel=9, batch=True)
        (first,) = bench.transmit()
        bench.time_out()
        (again,) = bench.transmit()
        self.assertEqual(again, first._replace(attempt=1))


class LossAndCongestion(unittest.TestCase):
    """PROTOCOL.md#duty-loss, PROTOCOL.md#duty-congestion"""

    def test_what_three_later_ones_overtook_is_lost_and_halves_the_window_once(self) -> None:
        bench = Bench.in_flight(10)
        bench.now += 0.05
        bench.ack(0, (2, 3))
        self.assertEqual(bench.seqs(), [])
        bench.ack(0, (2, 3, 4, 5, 6))
        sent = bench.transmit()
        self.assertEqual([(data.seq, data.attempt) for data in sent], [(1, 1)])
        self.assertEqual(bench.machine.stats.losses, 1)
        self.assertEqual(bench.machine.congestion.window, 5)
        bench.ack(0, (2, 3, 4, 5, 6, 8, 9, 10))
        self.assertEqual(bench.seqs(), [7])
        self.assertEqual(bench.machine.congestion.window, 5)

    def test_an_ack_without_room_for_a_bitmap_tells_of_nothing_beyond_its_floor(self) -> None:
        bench = Bench()
        for _ in range(10):
            bench.send(b"small")
        bench.transmit()
        bench.now += 0.05
        bench.ack(1)
        bench.ack(5)
        bench.ack(6)
        self.assertEqual(bench.machine.stats.losses, 0)

    def test_the_window_grows_by_what_is_acked_while_it_is_the_limit(self) -> None:
        bench = Bench()
        for _ in range(100):
            bench.send()
        self.assertEqual(len(bench.transmit()), 10)
        bench.now += 0.05
        bench.ack(10, credit=1000)
        self.assertEqual(len(bench.transmit()), 20)
        bench.now += 0.05
        bench.ack(30, credit=1000)
        self.assertEqual(len(bench.transmit()), 40)

    def test_a_lost_burst_is_found_at_once_after_a_timeout(self) -> None:
        bench = Bench()
        for _ in range(10):
            bench.send(b"small")
        bench.transmit()
        bench.time_out()
        self.assertEqual(bench.seqs(), [1])
        bench.now += 0.05
        bench.ack(1)
        self.assertEqual(bench.machine.congestion.window, 5)
        self.assertEqual(bench.seqs(), [2, 3, 4, 5, 6])

    def test_the_answer_to_a_timeouts_datagram_shows_the_loss_of_as_few_as_one_other(self) -> None:
        for complete in (False, True):
            for count in range(2, 6):
                bench = Bench.in_flight(count)
                bench.time_out()
                self.assertEqual(bench.seqs(), [1])
                bench.now += 0.05
                bench.ack(1, complete=complete)
                self.assertEqual(bench.seqs(), list(range(2, count + 1)))

    def test_what_no_answer_told_of_yet_is_not_lost_before_a_timeout_has_passed(self) -> None:
        bench = Bench.in_flight(2)
        bench.now += 0.999
        bench.send()
        self.assertEqual(bench.seqs(), [3])
        bench.time_out()
        self.assertEqual(bench.seqs(), [1])
        bench.now += 0.05
        bench.ack(1)
        self.assertEqual(bench.seqs(), [2])

    def test_a_loss_halves_the_window_but_never_raises_it(self) -> None:
        bench = Bench.in_flight(10)
        for window, after in ((10, 5), (5, 2), (2, 2), (1, 1)):
            bench.machine.congestion.window = window
            bench.machine.congestion.lost(10_000, 0)
            self.assertEqual(bench.machine.congestion.window, after)

    def test_complete_tells_of_all_that_is_missing_whatever_the_bitmaps_length(self) -> None:
        for complete, lost in ((False, [1]), (True, list(range(1, 8)))):
            bench = Bench.in_flight(10)
            bench.now += 0.05
            bench.ack(0, (10,), complete=True)
            self.assertEqual(bench.seqs(), [1, 2, 3])
            bench = Bench()
            for _ in range(10):
                bench.send(b"small")
            bench.transmit()
            bench.now += 0.05
            bench.machine._arrivals.newest = 10
            bench.machine._arrivals.told = 2**64 if complete else 1
            bench.machine._find_losses(bench.now)
            self.assertEqual(bench.machine.stats.losses, len(lost))

    def test_the_timer_is_moved_by_new_acks_and_expiries_alone(self) -> None:
        bench = Bench.in_flight(4)
        deadline = bench.machine.deadline
        bench.now += 0.3
        bench.send()
        bench.transmit()
        bench.ack(0)
        bench.reject(2, wire.REJECT_BEYOND_WINDOW)
        self.assertEqual(bench.machine.deadline, deadline)
        bench.ack(1)
        self.assertNotEqual(bench.machine.deadline, deadline)


class Skip(unittest.TestCase):
    """PROTOCOL.md#duty-skip"""

    def test_an_abandoned_message_is_skipped_until_the_floor_has_passed_it(self) -> None:
        bench = Bench.in_flight(3)
        bench.machine.abandon_oldest()
        self.assertEqual(bench.ended(), [(1, ABANDONED)])
        bench.send()
        (data,) = bench.transmit()
        self.assertEqual((data.seq, data.seq - data.span, data.skip), (4, 2, True))
        bench.ack(0, (2, 3))
        bench.send()
        (data,) = bench.transmit()
        self.assertEqual((data.seq, data.seq - data.span, data.skip), (5, 4, True))
        bench.ack(3, (5,))
        bench.send()
        self.assertFalse(bench.transmit()[0].skip)

    def test_a_message_abandoned_before_it_was_sent_leaves_no_hole(self) -> None:
        bench = Bench()
        for _ in range(12):
            bench.send()
        self.assertEqual(len(bench.transmit()), 10)
        for _ in range(11):
            bench.machine.abandon_oldest()
        (data,) = bench.transmit()
        self.assertEqual((data.seq, data.span, data.skip), (11, 0, True))

    def test_a_late_ack_of_an_abandoned_message_is_no_second_outcome(self) -> None:
        bench = Bench.in_flight(2)
        bench.machine.abandon_oldest()
        bench.ack(2)
        self.assertEqual(bench.ended(), [(1, ABANDONED), (2, ACKED)])


class Rejects(unittest.TestCase):
    """PROTOCOL.md#duty-reject"""

    def test_codes_that_are_final_fail_their_message_alone_and_its_seq_is_skipped(self) -> None:
        for code in FINAL:
            bench = Bench.in_flight(3)
            self.assertIsNone(bench.reject(1, code))
            self.assertEqual(bench.ended(), [(1, FAILED)])
            bench.ack(0, (2,))
            bench.send()
            (data,) = bench.transmit()
            self.assertEqual((data.seq, data.span, data.skip), (4, 1, True), f"code {code}")

    def test_beyond_window_holds_that_seq_back_until_the_next_ack(self) -> None:
        bench = Bench.in_flight(5)
        bench.reject(4, wire.REJECT_BEYOND_WINDOW)
        bench.reject(5, wire.REJECT_BEYOND_WINDOW)
        self.assertEqual(bench.seqs(), [])
        window = bench.machine.congestion.window
        bench.ack(3)
        self.assertEqual(bench.seqs(), [4, 5])
        self.assertEqual((bench.machine.congestion.window, bench.machine.stats.losses), (window, 0))

    def test_busy_storage_and_unknown_codes_are_waited_for(self) -> None:
        for code in (wire.REJECT_BUSY, wire.REJECT_STORAGE, 4711):
            bench = Bench.in_flight(4)
            bench.reject(2, code, 3000)
            bench.send()
            self.assertEqual(bench.seqs(), [])
            waited = bench.time_out()
            self.assertTrue(3 <= waited <= 4.5, waited)
            self.assertEqual(bench.machine.congestion.window, 1)
            bench.ack(4)
            self.assertEqual(bench.seqs(), [5])

    def test_what_got_no_answer_before_a_wait_does_not_keep_the_first_datagram_after_it_back(self) -> None:
        bench = Bench.in_flight(5)
        bench.time_out()
        self.assertEqual(bench.seqs(), [1])
        bench.reject(3, wire.REJECT_BUSY, 100)
        self.assertLessEqual(bench.time_out(), 0.15)
        self.assertEqual(bench.seqs(), [1])
        bench.ack(1)
        self.assertEqual(bench.seqs(), [2, 3])

    def test_a_forged_wait_is_bounded_and_0_means_as_for_retransmission(self) -> None:
        bench = Bench.in_flight(1)
        bench.reject(1, wire.REJECT_STORAGE, 2**32 - 1)
        self.assertLessEqual(bench.time_out(), 90)
        self.assertEqual(bench.seqs(), [1])
        bench.reject(1, wire.REJECT_STORAGE, 0)
        self.assertTrue(1 <= bench.time_out() <= 5)
        self.assertEqual(bench.seqs(), [1])

    def test_a_reject_of_what_is_not_in_flight_is_ignored(self) -> None:
        bench = Bench.in_flight(2)
        bench.ack(1)
        for seq in (0, 1, 3, 2**64 - 1):
            self.assertEqual(bench.reject(seq, wire.REJECT_STALE_EPOCH), "not_in_flight")
        self.assertEqual(bench.receive(Reject(CLIENT, 6, wire.REJECT_CHANNEL, 2)), "other_epoch")
        self.assertEqual(bench.receive(Reject(CLIENT + 1, 7, wire.REJECT_CHANNEL, 2)), "other_client")


class Ignore(unittest.TestCase):
    """PROTOCOL.md#duty-ignore"""

    def test_acks_of_what_was_never_sent_are_ignored_whole(self) -> None:
        bench = Bench.in_flight(3)
        self.assertEqual(bench.ack(4), "never_sent")
        self.assertEqual(bench.ack(2**64 - 1), "never_sent")
        self.assertEqual(bench.ack(1, (4,)), "never_sent")
        self.assertEqual(bench.ended(), [])
        self.assertIsNone(bench.ack(1, (3,)))
        self.assertEqual(bench.ended(), [(1, ACKED), (3, ACKED)])

    def test_what_is_damaged_or_for_others_is_ignored(self) -> None:
        bench = Bench.in_flight(1)
        good = wire.encode(Ack(CLIENT, 7, 1, 64))
        for at in range(len(good)):
            damaged = good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :]
            self.assertIsNotNone(bench.machine.handle_datagram(bench.now, damaged))
        self.assertEqual(bench.receive(Ack(CLIENT + 1, 7, 1, 64)), "other_client")
        self.assertEqual(bench.ack(1, epoch=8), "other_epoch")
        self.assertEqual(bench.receive(wire.Ping(CLIENT, 7)), "for_servers")
        self.assertEqual(bench.machine.queued, 1)

    def test_the_epoch_0_of_an_ack_before_any_session_is_nobodys(self) -> None:
        bench = Bench(epoch=0)
        bench.send()
        self.assertEqual(bench.receive(Ack(CLIENT, 3, 0, 64)), "other_epoch")
