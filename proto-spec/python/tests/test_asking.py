"""Asking by both faces, of a server that loses, doubles, reorders and restarts."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any, Callable, Optional

from duragram import (
    Abandoned, AsyncClient, BodyTooLarge, Client, Closed, Full, Gone, Incomplete, Rejected, Status, TooLarge, wire,
)  # fmt: skip
from duragram.keyfile import read_key

from .answering import AnsweringServer, AnsweringThread
from .support import PACKAGE, Proxy, Server, binary

KEY = bytes(range(32))
CLIENT = 0xA5


def echo(payload: bytes) -> tuple[int, bytes]:
    """FAILED for what says so, else DONE; and the payload backwards."""
    return (wire.FAILED if payload.startswith(b"fail") else wire.DONE), payload[::-1]


class Asking(unittest.TestCase):
    def served(self, key: Optional[bytes] = None, delay: Optional[Callable[[], float]] = None, **more: Any) -> AnsweringThread:
        thread = AnsweringThread(AnsweringServer(echo, **more), key)
        if delay is not None:
            thread.server.delay = delay
        self.addCleanup(thread.close)
        self.addCleanup(lambda: self.assertEqual(thread.server.wrong, []))
        return thread

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.005)


class Blocking(Asking):
    def test_an_ask_has_a_receipt_and_an_answer(self) -> None:
        server = self.served(delay=lambda: 0.05)
        called: list[Any] = []
        with Client(server.address, client_id=CLIENT) as client:
            asked = client.ask(b"open valve 7", channel=3)
            asked.add_done_callback(called.append)
            receipt = asked.receipt.result(5)
            self.assertEqual((receipt.epoch, receipt.seq), (client.epoch, 1))
            self.assertRaises(TimeoutError, asked.result, 0)
            answer = asked.result(5)
            self.assertEqual((answer.status, answer.body), (Status.DONE, b"7 evlav nepo"))
            self.assertTrue(asked.done() and asked.exception() is None)
            failed = client.ask(b"failure").result(5)
            self.assertEqual((failed.status, failed.body), (Status.FAILED, b"eruliaf"))
            self.assertEqual((client.acked, client.failed, client.unanswered, client.waiting()), (2, 0, 0, []))
        self.assertEqual(called, [asked])
        self.until(lambda: not server.server.asks)

    def test_asks_get_their_own_answers_on_a_bad_path_and_over_restarts(self) -> None:
        for key in (None, KEY):
            with self.subTest(sealed=key is not None):
                server = self.served(key, random.Random(5).random)
                server.server.delay = lambda: random.uniform(0, 0.05)
                server.loss, server.doubles, server.late = 0.1, 0.2, 0.3
                with Client(server.address, client_id=CLIENT, key=key, batch=True) as client:
                    asked = []
                    for n in range(60):
                        asked.append((b"ask %d" % n, client.ask(b"ask %d" % n, wait=0.05)))
                        client.send(b"between")
                        if n % 20 == 19:
                            server.restart()
                    for payload, one in asked:
                        self.assertEqual(one.result(30).body, payload[::-1])
                    self.assertEqual(client.unanswered, 0)
                journal = [payload for payload in server.server.journal if payload.startswith(b"ask")]
                self.assertEqual(sorted(journal), sorted(payload for payload, _ in asked), "each journaled once")

    def test_the_65th_waits_or_is_full(self) -> None:
        server = self.served(delay=lambda: 3600.0)
        with Client(server.address, client_id=CLIENT) as client:
            asked = [client.ask(b"%d" % n, wait=0.05) for n in range(64)]
            self.assertEqual(client.unanswered, 64)
            self.assertRaises(Full, client.ask, b"65", timeout=0)
            self.assertRaises(Full, client.ask, b"65", timeout=0.05)
            client.send(b"others are not concerned").result(5)
            threading.Timer(0.1, lambda: setattr(server.server.asks[CLIENT, client.epoch, 1], "ready_at", 0.0)).start()
            client.ask(b"65", timeout=10)
            self.assertEqual(asked[0].result(0).body, b"0")

    def test_what_is_refused_has_neither_receipt_nor_answer(self) -> None:
        server = self.served()
        client = Client(server.address, client_id=CLIENT)
        client.send(b"x").result(5)

        def refuse(now: float, peer: Any, datagram: wire.Datagram) -> list[tuple[Any, wire.Datagram]]:
            if not isinstance(datagram, wire.Data):
                return []
            return [(peer, wire.Reject(CLIENT, datagram.epoch, wire.REJECT_UNSUPPORTED, datagram.seq))]

        server.server.handle = refuse  # type: ignore[method-assign]
        asked = client.ask(b"y")
        for one in (asked, asked.receipt):
            with self.assertRaises(Rejected) as raised:
                one.result(5)
            self.assertEqual(raised.exception.code, 2)
        self.assertEqual(client.unanswered, 0)
        self.assertRaises(TooLarge, client.ask, bytes(2000))
        self.assertRaises(Incomplete, client.close)

    def test_gone_is_an_error_and_so_is_a_body_that_does_not_fit(self) -> None:
        server = self.served(delay=lambda: 0.2)
        with Client(server.address, client_id=CLIENT, datagram_bytes_max=100) as client:
            asked = client.ask(b"one")
            asked.receipt.result(5)
            server.server.asks.clear()
            self.assertRaises(Gone, asked.result, 5)
            server.server.answer = lambda payload: (wire.DONE, bytes(200))
            with self.assertRaises(BodyTooLarge) as raised:
                client.ask(b"two").result(5)
            self.assertEqual((raised.exception.status, raised.exception.length), (Status.DONE, 200))

    def test_a_sleeper_takes_when_it_wakes_and_in_a_later_run(self) -> None:
        for key in (None, KEY):
            with self.subTest(sealed=key is not None):
                server = self.served(key, delay=lambda: 3600.0)
                with Client(server.address, client_id=CLIENT, key=key) as client:
                    asked = [client.ask(b"%d" % n, wait=0) for n in range(3)]
                    for one in asked:
                        one.receipt.result(5)
                    epoch = client.epoch
                    self.assertEqual(client.waiting(), [(epoch, 1), (epoch, 2), (epoch, 3)])
                    self.assertEqual(client.take(epoch, 2, timeout=5).status, Status.PENDING)
                    server.server.asks[CLIENT, epoch, 2].ready_at = 0.0
                    self.assertEqual(client.take(epoch, 2, timeout=5).body, b"1")
                    self.assertEqual(asked[1].result(0).body, b"1")
                    self.assertRaises(Gone, client.take, epoch, 2)
                stored = client.waiting()
                self.assertEqual(stored, [(epoch, 1), (epoch, 3)])
                self.assertRaises(Closed, asked[0].result, 0)
                for ask in server.server.asks.values():
                    ask.ready_at = 0.0
                with Client(server.address, client_id=CLIENT, key=key, waiting=stored) as client:
                    self.assertEqual((client.waiting(), client.unanswered), (stored, 2))
                    self.assertEqual([client.take(*name, timeout=5).body for name in reversed(stored)], [b"2", b"0"])
                    self.assertRaises(Gone, client.take, 4711, 77, timeout=5)
                    self.assertEqual(client.waiting(), [])
                self.until(lambda: not server.server.asks)

    def test_take_waits_as_long_as_it_is_told(self) -> None:
        server = self.served(delay=lambda: 0.15)
        with Client(server.address, client_id=CLIENT) as client:
            asked = client.ask(b"one", wait=0)
            receipt = asked.receipt.result(5)
            self.assertEqual(client.take(receipt.epoch, receipt.seq, 10, timeout=5).body, b"eno")
            server.is_away = True
            began = time.monotonic()
            self.assertRaises(TimeoutError, client.take, 5, 5, timeout=0.1)
            self.assertLess(time.monotonic() - began, 2)

    def test_ready_is_seen_and_fetches_what_sleeps(self) -> None:
        server = self.served(delay=lambda: 3600.0)
        with Client(server.address, client_id=CLIENT) as client:
            asked = client.ask(b"one", wait=0)
            asked.receipt.result(5)
            self.assertFalse(client.ready)
            server.server.asks[CLIENT, client.epoch, 1].ready_at = 0.0
            client.send(b"a reading").result(5)
            self.assertEqual(asked.result(5).body, b"eno")
            client.send(b"another").result(5)
            self.assertFalse(client.ready)

    def test_an_ask_that_is_abandoned_or_cut_off_ends(self) -> None:
        server = self.served()
        server.is_away = True
        client = Client(server.address, client_id=CLIENT)
        abandoned, cut = client.ask(b"one"), client.ask(b"two")
        client.abandon_oldest()
        self.assertRaises(Abandoned, abandoned.result, 5)
        self.assertRaises(Incomplete, client.close, 0)
        for one in (cut, cut.receipt):
            self.assertRaises(Closed, one.result, 0)
        self.assertRaises(Closed, client.ask, b"three")
        self.assertRaises(Closed, client.take, 1, 1)
        self.assertEqual(client.waiting(), [])

    def test_wrong_arguments_are_named(self) -> None:
        server = self.served()
        with Client(server.address) as client:
            for name in ((0, 1), (1, 0), (2**32, 1), (1, 2**64 - 65536)):
                self.assertRaises(ValueError, client.take, *name)
            self.assertRaises(TypeError, client.take, "1", 1)
            self.assertRaises(TypeError, client.ask, b"x", wait="long")
            self.assertRaises(TypeError, client.ask, "text")
        for waiting in ([1], [(1, 2, 3)], "ab", 5, [("a", "b")]):
            self.assertRaises(TypeError, Client, server.address, waiting=waiting)
        for pairs in ([(0, 1)], [(1, 0)], [(1, n + 1) for n in range(65)]):
            self.assertRaises(ValueError, Client, server.address, waiting=pairs)
        self.assertRaises(ValueError, Client, server.address, epoch=3, waiting=[(3, 1)])

    def test_threads_that_ask_at_once_get_each_its_own(self) -> None:
        server = self.served(delay=lambda: random.uniform(0, 0.01))
        wrong: list[object] = []
        with Client(server.address, client_id=CLIENT) as client:

            def ask(thread: int) -> None:
                for n in range(30):
                    payload = b"%d of %d" % (n, thread)
                    if client.ask(payload).result(20).body != payload[::-1]:
                        wrong.append(payload)

            threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual((wrong, len(server.server.journal)), ([], 240))


class RealServer(unittest.TestCase):
    def test_every_ask_is_answered_on_a_bad_path_while_the_server_is_killed(self) -> None:
        server = Server()
        self.addCleanup(server.remove)
        proxy = Proxy(server.address, loss=0.1, duplicates=0.2, reorder=0.2)
        self.addCleanup(proxy.close)
        with Client(proxy.address, retry_interval_max=0.3) as client:
            asked = []
            for n in range(120):
                asked.append(client.ask(b"%d" % n, wait=0.3, timeout=30))
                if n in (40, 80):
                    server.kill()
                    server.start()
            answers = [one.result(30) for one in asked]
            self.assertEqual((client.waiting(), client.unanswered), ([], 0))
        # What only stores answers with a receipt of processing.
        self.assertEqual({(answer.status, answer.body) for answer in answers}, {(Status.DONE, b"")})
        server.stop()
        self.assertEqual(sorted(map(int, server.payloads())), list(range(120)))


    def test_sealed_a_later_run_hears_though_it_counts_from_elsewhere(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            fleet = f"{directory}/fleet"
            subprocess.run([binary(), "keys", "new", "--fleet", fleet], check=True, capture_output=True)
            server = Server("--keys", fleet)
            self.addCleanup(server.remove)
            client_id, key = read_key(fleet, CLIENT)
        for boot_count in (None, 1):
            with Client(server.address, client_id=client_id, key=key, boot_count=boot_count) as client:
                for n in range(8):
                    client.ask(b"%d" % n, wait=0).receipt.result(10)
                stored = client.waiting()
            # Each of these is another run with another socket.
            for name in stored:
                # Where runs are not counted, those of one millisecond are in no order; no process is started again as soon.
                time.sleep(0.002)
                boot_count = None if boot_count is None else boot_count + 1
                waiting = [other for other in stored if other >= name]
                with Client(server.address, client_id=client_id, key=key, waiting=waiting, boot_count=boot_count) as client:
                    self.assertEqual(client.take(*name, wait=5, timeout=10).status, Status.DONE)


class Programs(Asking):
    def run_python(self, *arguments: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE), "PATIENCE": "0"}
        return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, timeout=60, input=input)

    def test_the_example_hears_in_a_later_run_what_was_not_answered_before(self) -> None:
        server = self.served(delay=lambda: 3600.0)
        with tempfile.TemporaryDirectory() as directory:
            words = (str(PACKAGE / "examples" / "asking.py"), server.address, f"{directory}/waiting.json")
            done = self.run_python(*words, "21.5 C", "22 C")
            self.assertEqual((done.stderr, done.stdout.count(b"not yet")), (b"", 2))
            for ask in server.server.asks.values():
                ask.ready_at = 0.0
            done = self.run_python(*words)
            self.assertEqual((done.stderr, done.returncode), (b"", 0))
            self.assertEqual([line.partition(b": ")[2] for line in done.stdout.splitlines()], [b"DONE b'C 5.12'", b"DONE b'C 22'"])
            self.assertEqual(Path(directory, "waiting.json").read_text(), "[]")
        self.until(lambda: not server.server.asks)

    def test_the_command_writes_a_line_of_json_for_each_answer(self) -> None:
        server = self.served()
        command = ("-m", "duragram", "send", "--ask", "--server", server.address)
        done = self.run_python(*command, input=b"one\n\n\xff\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = sorted((json.loads(line) for line in done.stdout.splitlines()), key=lambda line: int(line["line"]))
        said: list[dict[str, Any]] = [{"line": 1, "body": "eno"}, {"line": 2}, {"line": 3, "body_base64": "/w=="}]
        self.assertEqual(lines, [{**line, "status": "DONE"} for line in said])
        self.assertIn(b"3 records (4 bytes), all acked", done.stderr)
        done = self.run_python(*command, input=b"one\nfailure\n")
        self.assertEqual((done.returncode, done.stdout.count(b"FAILED")), (1, 1))
        self.assertEqual(self.run_python(*command, "--batch").returncode, 2)


class Asyncio(Asking):
    def run_with(self, server: AnsweringThread, body: Callable[[AsyncClient], Any], **options: Any) -> Any:
        async def run() -> Any:
            async with AsyncClient(server.address, client_id=CLIENT, **options) as client:
                return await body(client)

        return asyncio.run(run())

    def test_an_ask_has_a_receipt_and_an_answer(self) -> None:
        server = self.served(delay=lambda: 0.05)

        async def body(client: AsyncClient) -> None:
            asked = await client.ask(b"open valve 7")
            receipt = await asked.receipt
            self.assertEqual((receipt.epoch, receipt.seq), (client.epoch, 1))
            self.assertRaises(asyncio.InvalidStateError, asked.result)
            answer = await asked
            self.assertEqual((answer.status, answer.body), (Status.DONE, b"7 evlav nepo"))
            self.assertEqual(asked.result(), answer)
            self.assertEqual((await (await client.ask(b"failure"))).status, Status.FAILED)

        self.run_with(server, body)

    def test_asks_get_their_own_answers_on_a_bad_path_and_over_restarts(self) -> None:
        for key in (None, KEY):
            server = self.served(key, delay=lambda: random.uniform(0, 0.05))
            server.loss, server.doubles, server.late = 0.1, 0.2, 0.3

            async def body(client: AsyncClient) -> None:
                asked = []
                for n in range(60):
                    asked.append((b"%d" % n, await client.ask(b"%d" % n, wait=0.05)))
                    if n % 20 == 19:
                        server.restart()
                for payload, one in asked:
                    self.assertEqual((await asyncio.wait_for(one, 30)).body, payload[::-1])

            self.run_with(server, body, key=key)
            self.assertEqual(len(server.server.journal), 60)

    def test_the_65th_waits_or_is_full(self) -> None:
        server = self.served(delay=lambda: 3600.0)

        async def body(client: AsyncClient) -> None:
            asked = [await client.ask(b"%d" % n, wait=0.05) for n in range(64)]
            with self.assertRaises(Full):
                await client.ask(b"65", timeout=0.05)
            await (await client.send(b"others are not concerned"))
            server.server.asks[CLIENT, client.epoch, 1].ready_at = 0.0
            await client.ask(b"65", timeout=10)
            self.assertEqual(asked[0].result().body, b"0")

        self.run_with(server, body)

    def test_a_sleeper_takes_when_it_wakes_and_in_a_later_run(self) -> None:
        for key in (None, KEY):
            server = self.served(key, delay=lambda: 3600.0)

            async def first(client: AsyncClient) -> list[tuple[int, int]]:
                for n in range(2):
                    await (await client.ask(b"%d" % n, wait=0)).receipt
                self.assertEqual((await client.take(client.epoch, 1, timeout=5)).status, Status.PENDING)
                return client.waiting()

            async def second(client: AsyncClient) -> list[bytes]:
                bodies = [(await client.take(*name, timeout=5)).body for name in stored]
                self.assertEqual((client.waiting(), client.epoch), ([], 0))
                with self.assertRaises(Gone):
                    await client.take(4711, 1, timeout=5)
                server.is_away = True
                with self.assertRaises(TimeoutError):
                    await client.take(4711, 2, timeout=0.05)
                return bodies

            stored = self.run_with(server, first, key=key)
            for ask in server.server.asks.values():
                ask.ready_at = 0.0
            self.assertEqual(self.run_with(server, second, key=key, waiting=stored), [b"0", b"1"])

    def test_what_waits_when_the_client_ends_is_closed_and_named(self) -> None:
        server = self.served(delay=lambda: 3600.0)

        async def run() -> None:
            client = AsyncClient(server.address, client_id=CLIENT)
            await client.connect()
            asked = await client.ask(b"one")
            waits = asyncio.ensure_future(_await(asked))
            await asked.receipt
            await client.close()
            with self.assertRaises(Closed):
                await waits
            self.assertEqual(client.waiting(), [(client.epoch, 1)])
            with self.assertRaises(Closed):
                await client.ask(b"two")

        asyncio.run(run())


async def _await(one: Any) -> Any:
    return await one


if __name__ == "__main__":
    unittest.main()
