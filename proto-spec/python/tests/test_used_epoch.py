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

    def test_acks_of_what_was_never_sent_betray_it_after_the_second_retransmission(self) -> None:
        bench = self.bench()
        bench.seqs()
        for _ in range(2):
            for _ in range(2):  # which may be forged
                self.assertEqual(bench.ack(9), "never_sent")
            self.assertEqual(bench.ended(), [])
            bench.time_out()
            self.assertEqual(bench.seqs(), [1])
        self.assertEqual(bench.ack(0, (3,)), "never_sent")
        self.assertEqual([outcome for _, outcome in bench.ended()], [self.USED] * 5)

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

    def test_a_first_message_that_is_refused_lets_the_next_go_alone(self) -> None:
        bench = self.bench()
        bench.seqs()
        bench.reject(1, wire.REJECT_CHANNEL)
        self.assertEqual(bench.seqs(), [2])

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
