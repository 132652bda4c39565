"""An epoch used twice is noticed, and nothing of the second run counts as delivered (PROTOCOL.md#duty-epoch)."""

from __future__ import annotations

import asyncio
import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from duragram import AsyncClient, Client, EpochUsed, Incomplete, wire
from duragram.message import Outcome

from .bench import Bench
from .support import OneServer, program


class DoubtedEpoch(unittest.TestCase):
    """A machine whose epoch was given, until it is shown to be this run's own."""

    USED = Outcome.EPOCH_USED

    def bench(self, messages: int = 5, **config: Any) -> Bench:
        bench = Bench(epoch_doubted=True, **config)
        for _ in range(messages):
            bench.send()
        return bench

    def test_the_first_message_goes_alone_until_it_is_acked_as_new(self) -> None:
        bench = self.bench()
        self.assertEqual(bench.seqs(), [1])
        bench.time_out()
        self.assertEqual(bench.seqs(), [1])
        bench.ack(0)
        self.assertEqual(bench.seqs(), [])
        bench.ack(1, duplicate=True)  # after a retransmission that is ordinary
        self.assertEqual(bench.seqs(), [2, 3, 4, 5])

    def test_a_duplicate_of_what_was_sent_once_betrays_it(self) -> None:
        bench = self.bench()
        bench.seqs()
        bench.ack(1, duplicate=True)
        self.assertEqual([outcome for _, outcome in bench.ended()], [self.USED] * 5)
        bench.send()
        self.assertEqual([outcome for _, outcome in bench.ended()], [self.USED])
        self.assertEqual((bench.transmit_all(), bench.machine.deadline, bench.machine.queued), ([], None, 0))

    def test_a_duplicate_after_a_ping_is_no_sign(self) -> None:
        bench = self.bench()
        bench.seqs()
        bench.machine._doubt.pinged = True
        bench.ack(1, duplicate=True)
        self.assertEqual(bench.ended(), [(1, Outcome.ACKED)])

    def lied_to(self, retransmissions: int, **config: Any) -> Bench:
        """After so many retransmissions it has just been told of what was never sent, as after each before."""
        bench = self.bench(**config)
        self.assertEqual(bench.seqs(), [1])
        for _ in range(retransmissions):
            for _ in range(3):  # which may be forged
                self.assertEqual(bench.ack(9), "never_sent")
            bench.time_out()
            self.assertEqual(bench.seqs(), [1])
        self.assertEqual(bench.ack(0, (3,)), "never_sent")
        return bench

    def test_acks_of_what_was_never_sent_betray_it_when_no_true_answer_follows_the_second_retransmissions(self) -> None:
        bench = self.lied_to(2)
        self.assertEqual(bench.ended(), [])
        self.assertLessEqual(bench.time_out(), 1)
        self.assertEqual([outcome for _, outcome in bench.ended()], [self.USED] * 5)
        self.assertEqual((bench.transmit_all(), bench.machine.deadline, bench.machine.queued), ([], None, 0))

    def test_further_lies_do_not_put_the_truth_off(self) -> None:
        bench = self.lied_to(2)
        due = bench.machine.deadline
        bench.now += 0.9
        self.assertEqual(bench.ack(9), "never_sent")
        self.assertEqual(bench.machine.deadline, due)

    def test_one_lie_after_the_second_retransmission_is_enough(self) -> None:
        bench = self.bench()
        bench.seqs()
        for _ in range(2):
            bench.time_out()
            bench.seqs()
        self.assertEqual(bench.ack(9), "never_sent")
        bench.time_out()
        self.assertEqual([outcome for _, outcome in bench.ended()], [self.USED] * 5)

    def test_a_true_answer_that_follows_the_lies_within_a_second_settles_it(self) -> None:
        bench = self.lied_to(2)
        bench.now += 0.9
        bench.ack(1, duplicate=True)
        self.assertEqual(bench.ended(), [(1, Outcome.ACKED)])
        self.assertEqual(bench.seqs(), [2])

    def test_lies_before_the_second_retransmission_shorten_no_wait_and_end_nothing(self) -> None:
        bench = self.lied_to(1)
        self.assertGreater(bench.time_out(), 1)
        self.assertEqual((bench.seqs(), bench.ended()), ([1], []))
        bench.time_out()  # no lie came after the second one
        self.assertEqual((bench.seqs(), bench.ended()), ([1], []))

    def test_a_lie_does_not_shorten_the_patience_that_the_server_asked_for(self) -> None:
        bench = self.bench()
        bench.seqs()
        for _ in range(2):
            bench.time_out()
            bench.seqs()
        bench.reject(1, wire.REJECT_BUSY, 5000)
        due = bench.machine.deadline
        self.assertEqual(bench.ack(9), "never_sent")
        self.assertEqual(bench.machine.deadline, due)

    def test_once_it_is_proven_nothing_is_a_sign(self) -> None:
        bench = self.bench()
        bench.seqs()
        bench.ack(1)
        for _ in range(3):
            self.assertEqual(bench.ack(99), "never_sent")
        bench.ack(1, duplicate=True)
        bench.seqs()
        bench.ack(2, duplicate=True)
        self.assertEqual(bench.ended(), [(1, Outcome.ACKED), (2, Outcome.ACKED)])

    def test_after_a_seq_used_up_in_vain_the_next_epoch_is_taken_and_doubted_too(self) -> None:
        def refuse(bench: Bench) -> None:
            bench.reject(1, wire.REJECT_CHANNEL)

        def abandon(bench: Bench) -> None:
            bench.machine.abandon_oldest()

        for end in (refuse, abandon):
            with self.subTest(end.__name__):
                bench = self.bench()
                bench.machine._doubt.pinged = True
                self.assertEqual(bench.seqs(), [1])
                end(bench)
                # Of epoch 7 a floor of 2 could be what another run has there.
                (first,) = bench.transmit()
                self.assertEqual((first.epoch, first.seq, first.attempt, first.skip), (8, 1, 0, False))
                self.assertEqual(bench.ack(2, epoch=7), "other_epoch")
                self.assertEqual(bench.seqs(), [])
                self.assertIsNotNone(bench.machine.deadline)
                bench.ack(1, duplicate=True)  # sent once in it, and no PING either
                self.assertEqual([outcome for _, outcome in bench.ended()][1:], [self.USED] * 4)
                bench = self.bench()
                bench.seqs()
                end(bench)
                bench.seqs()
                bench.ack(1)
                self.assertEqual((bench.machine.epoch, bench.seqs()), (8, [2, 3, 4]))

    def test_after_a_seq_used_up_in_vain_it_goes_on_when_there_is_something_to_send(self) -> None:
        bench = self.bench(1)
        bench.seqs()
        bench.machine.abandon_oldest()
        self.assertEqual((bench.seqs(), bench.machine.epoch), ([], 7))
        bench.send()
        (first,) = bench.transmit()
        self.assertEqual((first.epoch, first.seq), (8, 1))

    def test_without_credit_the_epoch_that_follows_is_doubted_too(self) -> None:
        bench = self.bench()
        bench.seqs()
        bench.ack(0, credit=0)
        bench.machine.abandon_oldest()
        bench.transmit_all()
        self.assertEqual(bench.machine.epoch, 8)
        bench.ack(0)
        self.assertEqual(bench.seqs(), [1])

    def test_where_no_epoch_follows_the_server_is_asked_and_not_doubted(self) -> None:
        bench = Bench(epoch=wire.U32_MAX, epoch_doubted=True)
        for _ in range(5):
            bench.send()
        bench.seqs()
        bench.machine.abandon_oldest()
        hello = bench.hello()
        assert hello is not None
        bench.welcome(hello.nonce, 50)
        self.assertEqual(bench.seqs(), [1, 2, 3, 4])

    def test_what_was_given_up_before_it_was_sent_uses_no_seq_up(self) -> None:
        bench = self.bench()
        bench.machine.abandon_oldest()
        self.assertEqual((bench.seqs(), bench.machine.epoch), ([1], 7))

    def test_in_an_epoch_that_is_settled_what_is_given_up_is_skipped(self) -> None:
        bench = self.bench()
        bench.seqs()
        bench.ack(1)
        bench.seqs()
        bench.machine.abandon_oldest()
        bench.send()
        self.assertEqual((bench.seqs(), bench.machine.epoch), ([6], 7))

    def test_an_epoch_of_the_servers_is_not_doubted(self) -> None:
        bench = Bench(epoch=0, epoch_doubted=True)
        for _ in range(5):
            bench.send()
        hello = bench.hello()
        assert hello is not None
        bench.welcome(hello.nonce, 50)
        self.assertEqual(bench.seqs(), [1, 2, 3, 4, 5])
        bench = self.bench()
        bench.seqs()
        bench.reject(1, wire.REJECT_STALE_EPOCH)
        self.assertEqual(bench.seqs(), [1, 2, 3, 4, 5])


class UsedEpoch(OneServer):
    def test_the_second_run_fails_whole_and_says_why(self) -> None:
        runs = [(1, 1), (1, 9), (5, 1), (5, 10), (30, 3), (3, 30), (12, 12)]
        cases = [(0x100 + n, *run, kind) for n, run in enumerate(runs * 2) for kind in [("blocking", "asyncio")[n >= len(runs)]]]
        # Each mostly waits for the sign that the second retransmission draws.
        with ThreadPoolExecutor(len(cases)) as pool:
            outcomes = [(case, pool.submit(self.run_twice, *case)) for case in cases]
            for case, outcome in outcomes:
                with self.subTest(case):
                    outcome.result()
        self.assertEqual(self.journaled("two of a used epoch"), [])

    def run_twice(self, client_id: int, first: int, second: int, kind: str) -> None:
        with Client(self.server.address, client_id=client_id, epoch=7) as client:
            client.send_many([b"one"] * first)
        if kind == "asyncio":
            asyncio.run(self.again(client_id, second))
            return
        again = Client(self.server.address, client_id=client_id, epoch=7)
        for pending in again.send_many([b"two of a used epoch"] * second):
            self.assertRaises(EpochUsed, pending.result, 10)
        self.assertRaises(EpochUsed, again.send(b"later").result, 10)
        self.assertRaises(Incomplete, again.close)
        self.assertEqual((again.acked, again.failed), (0, second + 1))

    def test_the_command_says_so_and_ends_with_1(self) -> None:
        arguments = ("send", "--server", self.server.address, "--client", "0xe0", "--epoch", "7")
        self.assertEqual(program(*arguments, input=b"one\n" * 20).returncode, 0)
        done = program(*arguments, input=b"two of a used epoch\n" * 5)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"epoch 7 was used before by client 00000000000000e0", done.stderr)
        self.assertIn(b"0 acked", done.stdout)

    async def again(self, client_id: int, count: int) -> None:
        client = AsyncClient(self.server.address, client_id=client_id, epoch=7)
        await client.connect()
        for one in await client.send_many([b"two of a used epoch"] * count):
            with self.assertRaises(EpochUsed):
                await asyncio.wait_for(one, 10)
        with self.assertRaises(Incomplete):
            await client.close()
        self.assertEqual(client.acked, 0)
