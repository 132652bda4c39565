"""An epoch used twice is noticed, and nothing of the second run counts as delivered (PROTOCOL.md#duty-epoch)."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from duragram import AsyncClient, Client, EpochUsed, Incomplete

from .support import OneServer, program


class UsedEpoch(OneServer):
    def test_the_second_run_fails_whole_and_says_why(self) -> None:
        runs = [(1, 1), (1, 9), (5, 1), (5, 10), (30, 3), (3, 30), (12, 12)]
        cases = [(0x100 + n, *run, kind) for n, run in enumerate(runs * 2) for kind in [("blocking", "asyncio")[n >= len(runs)]]]
        # Each mostly waits for the second sign, which the first retransmission draws.
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
