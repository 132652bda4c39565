"""Both faces and the command against the real server, also over a path that loses, repeats and reorders."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any, Callable

from duragram import AsyncClient, Client, Closed, Incomplete, Rejected, TooLarge
from duragram.keyfile import read_key
from duragram.wire import REJECT_CHANNEL, REJECT_TOO_LARGE

from .support import Proxy, Server, binary, program

BAD_PATH = {"loss": 0.15, "duplicates": 0.3, "reorder": 0.3}


class WithServer(unittest.TestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.addCleanup(self.server.remove)

    def proxy(self, **path: float) -> Proxy:
        proxy = Proxy(self.server.address, **path)  # type: ignore[arg-type]
        self.addCleanup(proxy.close)
        return proxy

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            self.assertLess(time.monotonic(), deadline, "it did not happen within 20 s")
            time.sleep(0.01)

    def assert_journaled_once(self, expected: list[str]) -> None:
        self.server.stop()
        self.assertEqual(sorted(self.server.payloads()), sorted(expected))


class Blocking(WithServer):
    def test_a_receipt_names_the_records_place(self) -> None:
        with Client(self.server.address, client_id=0xA1, epoch=9) as client:
            first, second = client.send(b"21.5", channel=7), client.send("später".encode())
            receipt = second.result(10)
            self.assertEqual((receipt.epoch, receipt.seq, receipt.index, receipt.durability), (9, 2, 0, 0))
            self.assertEqual(first.result(0).seq, 1)
        self.server.stop()
        fields = [(r["client"], r["epoch"], r["seq"], r["channel"], r["payload"]) for r in self.server.records()]
        self.assertEqual(fields, [("00000000000000a1", 9, 1, 7, "21.5"), ("00000000000000a1", 9, 2, 0, "später")])

    def test_a_bad_path_loses_and_repeats_nothing(self) -> None:
        sent = [f"record {n}" for n in range(400)]
        with Client(self.proxy(**BAD_PATH).address) as client:
            for record in sent:
                client.send(record.encode() + b" " * 70)
        self.assertGreater(client.stats.retransmissions, 50)
        self.server.stop()
        self.assertEqual(sorted(payload.rstrip() for payload in self.server.payloads()), sorted(sent))

    def test_batches_arrive_record_by_record(self) -> None:
        sent = [f"record {n}" for n in range(5000)]
        with Client(self.proxy(**BAD_PATH).address, batch=True) as client:
            pending = [client.send(record.encode()) for record in sent]
            places = {(receipt.epoch, receipt.seq, receipt.index) for receipt in (p.result(30) for p in pending)}
        self.assertEqual(len(places), len(sent))
        self.assertLess(client.stats.transmissions, 1000)
        self.assert_journaled_once(sent)

    def test_a_server_that_restarts_is_waited_for(self) -> None:
        sent = [f"record {n}" for n in range(3000)]
        with Client(self.server.address, retry_interval_max=0.3) as client:
            for n, record in enumerate(sent):
                client.send(record.encode())
                if n % 1000 == 500:
                    self.server.kill()
                    self.server.start()
        self.assert_journaled_once(sent)

    def test_what_the_server_will_never_take_fails_alone(self) -> None:
        self.server.remove()
        self.server = Server("--channels", "0-9", "--datagram-bytes-max", "1000")
        client = Client(self.server.address)
        channel, long, good = client.send(b"x", channel=10), client.send(bytes(1100)), client.send(b"good")
        for pending, code in ((channel, REJECT_CHANNEL), (long, REJECT_TOO_LARGE)):
            with self.assertRaises(Rejected) as raised:
                pending.result(10)
            self.assertEqual(raised.exception.code, code)
        good.result(10)
        after = client.send(b"after")
        with self.assertRaises(Incomplete) as incomplete:
            client.close()
        self.assertEqual((incomplete.exception.unacked, incomplete.exception.failed), (0, 2))
        self.assertEqual(after.result(0).seq, 4)
        self.assert_journaled_once(["good", "after"])

    def test_a_record_that_fits_no_datagram_is_not_sent(self) -> None:
        with Client(self.server.address, datagram_bytes_max=100) as client:
            client.send(bytes(68)).result(10)
            with self.assertRaises(TooLarge):
                client.send(bytes(69))

    def test_a_server_that_is_away_leaves_records_unacked_and_says_so(self) -> None:
        self.server.kill()
        client = Client(self.server.address)
        pending = client.send(b"x")
        with self.assertRaises(TimeoutError):
            pending.result(0.05)
        self.assertFalse(client.flush(0.05))
        with self.assertRaises(Incomplete) as incomplete:
            client.close(0.05)
        self.assertEqual((incomplete.exception.unacked, incomplete.exception.failed), (1, 0))
        self.assertRaises(Closed, pending.result)
        self.assertRaises(Closed, client.send, b"y")


class Async(WithServer):
    def test_a_bad_path_loses_and_repeats_nothing(self) -> None:
        async def run() -> AsyncClient:
            async with AsyncClient(self.proxy(**BAD_PATH).address) as client:
                pending = [await client.send(f"record {n}".encode()) for n in range(400)]
                receipts = [await one for one in pending]
                self.assertEqual([receipt.seq for receipt in receipts], list(range(1, 401)))
            return client

        client = asyncio.run(run())
        self.assertEqual((client.acked, client.failed, client.unacked), (400, 0, 0))
        self.assert_journaled_once([f"record {n}" for n in range(400)])

    def test_tasks_that_share_a_small_window_all_get_their_turn(self) -> None:
        async def run() -> None:
            async with AsyncClient(self.server.address, window=2) as client:

                async def task(name: int) -> None:
                    for n in range(20):
                        await (await client.send(f"{name} {n}".encode()))

                await asyncio.wait_for(asyncio.gather(*(task(name) for name in range(20))), 30)

        asyncio.run(run())
        self.assert_journaled_once([f"{name} {n}" for name in range(20) for n in range(20)])

    def test_two_hundred_devices_in_one_process(self) -> None:
        async def device(number: int) -> None:
            async with AsyncClient(self.server.address, client_id=number, window=4) as client:
                for n in range(5):
                    await client.send(f"{number} {n}".encode())

        async def run() -> None:
            await asyncio.gather(*(device(number) for number in range(200)))

        asyncio.run(run())
        self.assert_journaled_once([f"{number} {n}" for number in range(200) for n in range(5)])

    def test_a_cancelled_wait_takes_nothing_from_others(self) -> None:
        async def run() -> None:
            async with AsyncClient(self.server.address) as client:
                pending = await client.send(b"x")

                async def wait() -> int:
                    return (await pending).seq

                first, second = asyncio.create_task(wait()), asyncio.create_task(wait())
                await asyncio.sleep(0)
                first.cancel()
                self.assertEqual(await second, 1)

        asyncio.run(run())

    def test_a_silent_server_leaves_records_unacked_and_says_so(self) -> None:
        self.server.kill()

        async def run() -> None:
            client = AsyncClient(self.server.address, window=1)
            await client.connect()
            pending = await client.send(b"x")
            waiting = asyncio.create_task(client.send(b"y"))
            with self.assertRaises(Incomplete):
                await client.close(0.05)
            with self.assertRaises(Closed):
                await pending
            with self.assertRaises(Closed):
                await waiting

        asyncio.run(run())


class Example(WithServer):
    def test_a_thousand_devices(self) -> None:
        package = Path(__file__).resolve().parents[1]
        command = [sys.executable, str(package / "examples" / "devices.py"), self.server.address, "1000", "1"]
        environment = {**os.environ, "PYTHONPATH": str(package)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.server.stop()
        records = self.server.records()
        self.assertEqual(done.stdout, f"{len(records)} records of 1000 devices are on the server's disk\n")
        self.assertEqual(len({record["client"] for record in records}), 1000)


class Sealed(WithServer):
    def setUp(self) -> None:
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        self.fleet, self.key_file = f"{directory}/fleet", f"{directory}/client"
        subprocess.run([binary(), "keys", "new", "--fleet", self.fleet], check=True, capture_output=True)
        derive = [binary(), "keys", "derive", self.fleet, "--client", "0xc5", self.key_file]
        subprocess.run(derive, check=True, capture_output=True)
        self.server = Server("--keys", self.fleet)
        self.addCleanup(self.server.remove)

    def test_a_sealed_client_through_a_bad_path_and_a_restart(self) -> None:
        client_id, key = read_key(self.key_file)
        self.assertEqual((client_id, key), (0xC5, read_key(self.fleet, 0xC5)[1]))
        cases: list[dict[str, Any]] = [{}, {"epoch": 2_000_000_000, "boot_count": 1, "batch": True}]
        for more in cases:
            address = self.proxy(**BAD_PATH).address
            with Client(address, client_id=client_id, key=key, retry_interval_max=0.3, **more) as client:
                for n in range(200):
                    client.send(f"{len(more)} {n}".encode())
                    if n == 100:
                        self.server.kill()
                        self.server.start()
        self.assert_journaled_once([f"{kind} {n}" for kind in (0, 3) for n in range(200)])

    def test_the_command_takes_the_servers_key_files(self) -> None:
        address = self.server.address
        self.assertEqual(program("send", "--server", address, "--key-file", self.key_file, input=b"a\nb").returncode, 0)
        fleet = ["--key-file", self.fleet, "--client", "0xc6"]
        self.assertEqual(program("send", "--server", address, *fleet, input=b"c").returncode, 0)
        self.assertEqual(program("send", "--server", address, "--key-file", self.fleet, input=b"d").returncode, 2)
        plain = program("send", "--server", address, input=b"e")
        self.assertEqual(plain.returncode, 1)
        self.assertIn(b"sealed traffic alone", plain.stderr)
        os.chmod(self.key_file, 0o644)
        self.assertEqual(program("send", "--server", address, "--key-file", self.key_file, input=b"f").returncode, 2)
        self.assert_journaled_once(["a", "b", "c"])
