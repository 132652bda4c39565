"""What the clients offer beside `send`: room, callbacks, many at once, a log, types."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from duragram import AsyncClient, Client, Closed, Full, Incomplete, link

from .support import PACKAGE, OneServer, silent


class Room(unittest.TestCase):
    """A server that never answers, so that a window stays full."""

    def setUp(self) -> None:
        self.peer, self.address = silent()
        self.addCleanup(self.peer.close)

    def client(self, **options: Any) -> Client:
        client = Client(self.address, epoch=1, **options)
        self.addCleanup(lambda: client._engine.end())
        return client

    def test_send_waits_so_long_and_no_longer(self) -> None:
        client = self.client(window=2)
        self.assertFalse(client.full)
        client.send_many([b"1", b"2"], timeout=0)
        self.assertTrue(client.full)
        for timeout in (0, 0.2, -5):
            began = time.monotonic()
            with self.assertRaises(Full):
                client.send(b"3", timeout=timeout)
            self.assertTrue(max(timeout, 0) <= time.monotonic() - began < timeout + 2 or timeout < 0)
        with self.assertRaises(TimeoutError):
            client.send(b"3", timeout=0)
        with self.assertRaises(Full):
            client.send_nowait(b"3")
        self.assertEqual(client.unacked, 2)
        self.assertTrue(client.abandon_oldest())
        client.send_nowait(b"3")
        with self.assertRaises(Incomplete) as incomplete:
            client.close(0)
        self.assertEqual(incomplete.exception.unacked, 2)

    def test_send_many_tells_which_were_taken(self) -> None:
        client = self.client(window=3)
        with self.assertRaises(Full) as raised:
            client.send_many([b"x"] * 5, timeout=0.05)
        self.assertEqual((len(raised.exception.taken), client.unacked), (3, 3))
        self.assertIn("3 of 5", str(raised.exception))

    def test_asyncio_has_the_same(self) -> None:
        async def run() -> None:
            client = AsyncClient(self.address, epoch=1, window=3)
            await client.connect()
            self.assertFalse(client.full)
            with self.assertRaises(Full) as raised:
                await client.send_many([b"x"] * 5, timeout=0.05)
            self.assertEqual((len(raised.exception.taken), client.unacked), (3, 3))
            self.assertTrue(client.full)
            for timeout in (0, 0.05, -1):
                with self.assertRaises(Full):
                    await client.send(b"x", timeout=timeout)
            with self.assertRaises(Full):
                client.send_nowait(b"x")
            waiting = asyncio.create_task(client.send(b"later", timeout=5))
            await asyncio.sleep(0)
            self.assertTrue(client.abandon_oldest())
            await waiting
            # One that gave up waiting has not taken the place of the next.
            gone, late = asyncio.create_task(client.send(b"gone", timeout=0.02)), asyncio.create_task(client.send(b"late", timeout=5))
            with self.assertRaises(Full):
                await gone
            client.abandon_oldest()
            await late
            with self.assertRaises(Incomplete):
                await client.close(0)

        asyncio.run(run())

    def test_threads_that_wait_for_room_are_told_when_the_client_ends(self) -> None:
        client = self.client(window=1)
        client.send(b"x")
        ended: list[BaseException] = []

        def wait() -> None:
            try:
                client.send(b"y")
            except Closed as closed:
                ended.append(closed)

        threads = [threading.Thread(target=wait) for _ in range(5)]
        for thread in threads:
            thread.start()
        with self.assertRaises(Incomplete):
            client.close(0.05)
        for thread in threads:
            thread.join(5)
        self.assertEqual(len(ended), 5)

    def test_threads_that_close_it_at_once_agree(self) -> None:
        client = self.client()
        client.send(b"x")
        ended: list[object] = []

        def close() -> None:
            try:
                client.close(0.1)
            except Incomplete as incomplete:
                ended.append(incomplete.unacked)

        threads = [threading.Thread(target=close) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
        self.assertEqual(ended, [1] * 6)

    def test_abandoning_reaches_what_waits_for_company(self) -> None:
        client = self.client(batch=True, linger=60)
        pending = client.send_many([b"1", b"2"])
        client.send(b"3")
        while client.abandon_oldest():
            pass
        self.assertEqual(client.unacked, 0)
        self.assertTrue(all(one.done() for one in pending))

    def test_silence_is_logged(self) -> None:
        with mock.patch.object(link, "SILENCE_TOLD", 0.05), self.assertLogs("duragram", logging.WARNING) as logs:
            client = self.client(retry_interval_max=0.05)
            client.send(b"x")
            with self.assertRaises(Incomplete):
                client.close(0.5)
        self.assertEqual(len(logs.output), 1)
        self.assertIn("no answer", logs.output[0])


class Callbacks(OneServer):
    def test_a_done_callback_is_called_once_whenever_it_was_added(self) -> None:
        called: list[object] = []
        with Client(self.server.address) as client:
            pending = [client.send(b"called") for _ in range(200)]
            for one in pending:
                one.add_done_callback(called.append)
            client.flush()
            deadline = time.monotonic() + 5
            while len(called) < 200:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.001)
            pending[0].add_done_callback(called.append)
            self.assertEqual(called[-1], pending[0])
        self.assertEqual(sorted(map(id, called[:200])), sorted(map(id, pending)))

    def test_a_callback_may_send_but_not_wait(self) -> None:
        told: list[object] = []

        def callback(pending: Any) -> None:
            if len(told) < 3:
                told.append(client.send(b"from a callback"))
            for wait in (lambda: client.send(b"x").result(), client.flush):
                try:
                    wait()
                except RuntimeError as error:
                    told.append(error)

        with Client(self.server.address) as client:
            client.send(b"first").add_done_callback(callback)
            client.flush()
        self.assertEqual([type(one).__name__ for one in told], ["BlockingPending", "RuntimeError", "RuntimeError"])

    def test_a_callback_that_raises_or_closes_harms_nothing(self) -> None:
        def raises(_: object) -> None:
            raise ValueError("in a callback")

        with self.assertLogs("duragram", logging.ERROR) as logs, Client(self.server.address) as client:
            client.send(b"raises").add_done_callback(raises)
            client.flush()
            client.send(b"after").result(10)
        self.assertIn("in a callback", logs.output[0])
        client = Client(self.server.address)
        client.send(b"closes").add_done_callback(lambda _: client.close())
        pending = []
        with self.assertRaises(Closed):
            while True:
                pending.append(client.send(b"until it is closed"))
        # What was taken before is not lost by it.
        for one in pending:
            one.result(10)
        deadline = time.monotonic() + 10
        while not client.closed:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.001)

    def test_asyncio_calls_back_too(self) -> None:
        async def run() -> None:
            called: list[object] = []
            async with AsyncClient(self.server.address) as client:
                pending = await client.send_many([b"called"] * 50)
                for one in pending:
                    one.add_done_callback(called.append)
                self.assertFalse(pending[0].done())
                with self.assertRaises(asyncio.InvalidStateError):
                    pending[0].result()
                await client.flush()
                pending[0].add_done_callback(called.append)
                await asyncio.sleep(0)
                self.assertEqual(called, [*pending, pending[0]])
                self.assertEqual((pending[3].result().seq, pending[3].exception()), (4, None))

        asyncio.run(run())

    def test_flush_waits_for_what_was_taken_before_it_alone(self) -> None:
        with Client(self.server.address, window=64) as client:
            ending = threading.Event()

            def go_on() -> None:
                while not ending.is_set():
                    client.send(b"on and on")

            thread = threading.Thread(target=go_on)
            thread.start()
            try:
                first = client.send(b"before")
                self.assertTrue(client.flush(10))
                self.assertTrue(first.done())
            finally:
                ending.set()
                thread.join()


class Types(unittest.TestCase):
    """What a type checker says of programs that use the package."""

    program = """
from duragram import AsyncClient, BlockingPending, Client, Receipt
import array

def done(pending: BlockingPending) -> None: ...

client = Client("host:1", client_id=1, epoch=2, window=3, batch=True, key=bytes(32), boot_count=1)
receipt: Receipt = client.send(bytearray(b"x"), channel=7, timeout=1.5).result(timeout=5)
client.send_nowait(memoryview(b"x")).add_done_callback(done)
many: list[BlockingPending] = client.send_many([b"x", array.array("I", [1])])
full: bool = client.full

async def main() -> None:
    async with AsyncClient("host:1", window=3) as other:
        (await (await other.send(b"x"))).seq
"""
    wrong = [
        "Client('host:1', windw=5)",
        "AsyncClient('host:1', clientid=5)",
        "Client('host:1', window='5')",
        "client.send('text')",
        "client.send(b'x', chanel=5)",
        "client.send(b'x', channel='5')",
    ]

    def checked(self, command: list[str]) -> None:
        with tempfile.TemporaryDirectory() as directory:
            right, wrong = Path(directory, "right.py"), Path(directory, "wrong.py")
            right.write_text(self.program)
            wrong.write_text(self.program + "\n".join(self.wrong) + "\n")
            first = len(self.program.splitlines()) + 1
            done = subprocess.run([*command, str(right)], cwd=PACKAGE, capture_output=True, text=True, timeout=120)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            done = subprocess.run([*command, str(wrong)], cwd=PACKAGE, capture_output=True, text=True, timeout=120)
            self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
            for number in range(first, first + len(self.wrong)):
                self.assertIn(f"wrong.py:{number}:", done.stdout)

    def test_mypy_finds_misspelt_and_wrong_options(self) -> None:
        self.checked([sys.executable, "-m", "mypy", "--strict", "--no-error-summary"])

    def test_pyright_finds_misspelt_and_wrong_options(self) -> None:
        self.checked([sys.executable, "-m", "pyright", "--pythonpath", sys.executable])


if __name__ == "__main__":
    unittest.main()
