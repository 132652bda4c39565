"""Whatever a host program may do to a library: it is right, or a clear error."""

from __future__ import annotations

import array
import asyncio
import copy
import errno
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
import warnings
from pathlib import Path
from typing import Any, Callable, Iterator, Optional
from unittest import mock

import duragram
from duragram import AsyncClient, Client, Closed, EpochUsed, Full, Incomplete, TooLarge, route

from .support import ROOT, Server

PACKAGE = ROOT / "proto-spec" / "python" if (ROOT / "proto-spec").exists() else Path(__file__).resolve().parents[1]


class WithServer(unittest.TestCase):
    """One server for a class: each test has its own client ids."""

    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = Server()
        cls.addClassCleanup(cls.server.remove)

    def journaled(self, prefix: str) -> list[str]:
        """What the server has of a test's records, in their order."""
        self.server.stop()
        found = [payload[len(prefix) :] for payload in self.server.payloads() if payload.startswith(prefix)]
        self.server.start()
        return found

    def script(self, code: str, *arguments: str, returncode: int = 0, stderr: Optional[str] = "") -> str:
        """Runs a program that uses the package; its output."""
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE), "PYTHONWARNINGS": "default"}
        command = [sys.executable, "-c", textwrap.dedent(code), self.server.address, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, returncode, done.stderr)
        if stderr is not None:
            self.assertEqual(done.stderr, stderr)
        return done.stdout


def silent() -> tuple[socket.socket, str]:
    """A server that never answers."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock, "127.0.0.1:%d" % sock.getsockname()[1]


class Silent(unittest.TestCase):
    def setUp(self) -> None:
        self.peer, self.address = silent()
        self.addCleanup(self.peer.close)

    def client(self, **options: Any) -> Client:
        client = Client(self.address, **options)
        self.addCleanup(client._engine.end)
        return client


class Fork(WithServer):
    def test_the_childs_copy_raises_closed_and_the_parent_goes_on(self) -> None:
        out = self.script("""
            import os, sys
            from duragram import Client, Closed
            with Client(sys.argv[1]) as client:
                done, open_ = client.send(b"fork 1"), None
                done.result(10)
                for n in range(20):
                    open_ = client.send(b"fork %d" % (n + 2))
                    if os.fork() == 0:
                        calls = [lambda: client.send(b"fork x"), lambda: client.send_nowait(b"fork y"), client.abandon_oldest,
                                 client.flush, lambda: client.send_many([b"fork z"])]
                        if open_.outcome is None:
                            calls.append(open_.result)
                        for call in calls:
                            try:
                                print("went on", call())
                            except Closed as error:
                                assert "forked" in str(error), error
                        assert open_.done() and done.result(0).seq == 1 and client.closed
                        client.close()
                        sys.stdout.flush()
                        os._exit(0)
                    assert os.wait()[1] == 0
            print(client.acked, client.failed)
            """)
        self.assertEqual(out, "21 0\n")
        self.assertEqual(self.journaled("fork "), [str(n) for n in range(1, 22)])

    def test_a_child_that_leaves_by_sys_exit_neither_sends_nor_complains(self) -> None:
        out = self.script("""
            import os, sys
            from duragram import Client
            client = Client(sys.argv[1])
            client.send(b"child-exit 1")
            if os.fork() == 0:
                sys.exit(0)
            assert os.wait()[1] == 0
            client.send(b"child-exit 2")
            client.close()
            """)
        self.assertEqual(out, "")
        self.assertEqual(self.journaled("child-exit "), ["1", "2"])

    def test_the_child_of_an_asyncio_program_raises_closed_too(self) -> None:
        out = self.script("""
            import asyncio, os, sys
            from duragram import AsyncClient, Closed
            async def main():
                async with AsyncClient(sys.argv[1]) as client:
                    await (await client.send(b"async-fork 1"))
                    open_ = await client.send(b"async-fork 2")
                    if os.fork() == 0:
                        async def child():
                            for call in (client.send(b"async-fork x"), client.flush(), client.connect(), _of(open_)):
                                try:
                                    print("went on", await call)
                                except Closed as error:
                                    assert "forked" in str(error), error
                            await client.close()
                        async def _of(pending):
                            return await pending
                        asyncio.run(child())
                        sys.stdout.flush()
                        os._exit(0)
                    assert os.wait()[1] == 0
                    await (await client.send(b"async-fork 3"))
                print(client.acked)
            asyncio.run(main())
            """)
        self.assertEqual(out, "3\n")
        self.assertEqual(self.journaled("async-fork "), ["1", "2", "3"])

    def test_a_callback_that_forks_leaves_one_client(self) -> None:
        self.script("""
            import os, sys
            from duragram import Client
            def fork(pending):
                if os.fork() == 0:
                    return  # the copy of the client's thread goes on with this process
            with Client(sys.argv[1]) as client:
                client.send(b"callback-fork 1").add_done_callback(fork)
                client.flush()
                client.send(b"callback-fork 2")
            """)
        self.assertEqual(self.journaled("callback-fork "), ["1", "2"])

    def test_multiprocessing_takes_no_client_into_another_process(self) -> None:
        out = self.script("""
            import multiprocessing, sys
            from duragram import Client, Closed
            def use(client):
                try:
                    client.send(b"multi x")
                except Closed:
                    print("Closed", flush=True)
            client = Client(sys.argv[1])
            process = multiprocessing.get_context("fork").Process(target=use, args=(client,))
            process.start(); process.join()
            try:
                multiprocessing.get_context("spawn").Process(target=use, args=(client,)).start()
            except TypeError as error:
                print(error)
            client.close()
            """)
        self.assertEqual(out, "Closed\na Client is not to be copied or pickled: create one in each process\n")

    def test_a_child_of_multiprocessing_that_does_not_close_loses_nothing(self) -> None:
        self.script("""
            import multiprocessing, sys
            from duragram import Client
            def work(server, n):
                client = Client(server)
                client.send_many([b"worker %d" % n] * 3)
            for n in range(3):
                process = multiprocessing.get_context("fork").Process(target=work, args=(sys.argv[1], n))
                process.start(); process.join()
                assert process.exitcode == 0
            """, stderr=None)
        self.assertEqual(self.journaled("worker "), ["0"] * 3 + ["1"] * 3 + ["2"] * 3)

    def test_a_seal_works_in_its_own_process_alone_and_is_not_copied(self) -> None:
        from duragram.seal import Sealed
        from duragram.wire import HELLO, PING

        seal = Sealed(1, bytes(32))
        seal.enter(5)
        for use in (copy.copy, copy.deepcopy, pickle.dumps):
            with self.assertRaises(TypeError):
                use(seal)  # type: ignore[operator]
        child = os.fork()
        if child == 0:
            refused = 0
            for make in (lambda: seal.data(0, 0, 5, 1, 0, b"x"), lambda: seal.short(PING, 5, 0), lambda: seal.short(HELLO, 0, 9)):
                try:
                    make()
                except RuntimeError:
                    refused += 1
            os._exit(refused)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 3)
        self.assertEqual(len(seal.data(0, 0, 5, 1, 0, b"x")), 53)


class Records(WithServer):
    def test_a_buffer_that_is_used_again_leaves_each_record_as_it_was(self) -> None:
        buffer = bytearray(b"reused 0")
        with Client(self.server.address, batch=True) as client:
            for n in range(5):
                buffer[-1] = ord("0") + n
                client.send(buffer if n % 2 else memoryview(buffer))
        self.assertEqual(self.journaled("reused "), ["0", "1", "2", "3", "4"])

    def test_lengths_are_bytes_whatever_the_items_of_a_buffer_are(self) -> None:
        words = array.array("I", [0x20202020, 0x41414141])
        with Client(self.server.address, datagram_bytes_max=32 + 24) as client:
            client.send(memoryview(b"-0w0o0r0d0s0")[::2])
            client.send(words)
            client.send(memoryview(array.array("d", [0.0] * 3)))
            for long in (array.array("I", [0] * 7), memoryview(array.array("d", [0.0] * 4)), memoryview(bytes(50))[::2]):
                with self.assertRaises(TooLarge):
                    client.send(long)
        self.assertEqual((client.acked, client.failed), (3, 0))
        self.assertEqual(self.journaled("-words"), [""])
        self.assertEqual(self.journaled("    AAAA"), [""])

    def test_asyncio_copies_too(self) -> None:
        async def run() -> None:
            buffer = bytearray(b"areused 0")
            async with AsyncClient(self.server.address) as client:
                for n in range(5):
                    buffer[-1] = ord("0") + n
                    await client.send(memoryview(buffer))
                client.send_nowait(memoryview(array.array("B", b"areused 5")))

        asyncio.run(run())
        self.assertEqual(self.journaled("areused "), ["0", "1", "2", "3", "4", "5"])

    wrong: list[tuple[Any, Any]] = [
        ("text", 0), (5, 0), (None, 0), ([b"x"], 0), ({}, 0), (1.5, 0), (object(), 0),
        (b"x", -1), (b"x", 65536), (b"x", 1.5), (b"x", "7"), (b"x", None), (b"x", 2**70),
    ]  # fmt: skip

    def test_a_wrong_argument_raises_and_harms_nothing(self) -> None:
        with Client(self.server.address) as client:
            for record, channel in self.wrong:
                for call in (client.send, client.send_nowait, lambda r, c: client.send_many([b"wrong no", r], c)):
                    with self.subTest(record=record, channel=channel), self.assertRaises((TypeError, ValueError)):
                        call(record, channel)
            for timeout in ("1", float("nan"), True, [1]):
                with self.subTest(timeout=timeout), self.assertRaises((TypeError, ValueError)):
                    client.send(b"wrong no", timeout=timeout)  # type: ignore[arg-type]
                with self.assertRaises((TypeError, ValueError)):
                    client.flush(timeout)  # type: ignore[arg-type]
                with self.assertRaises((TypeError, ValueError)):
                    client.close(timeout)  # type: ignore[arg-type]
            with self.assertRaises(TypeError):
                client.send(b"wrong 1").add_done_callback(5)  # type: ignore[arg-type]
            with self.assertRaises(TypeError):
                client.send_many(b"bytes are integers")  # type: ignore[arg-type]
            client.send(b"wrong 2", timeout=float("inf")).result(1e30)
        self.assertEqual(self.journaled("wrong "), ["1", "2"])

    def test_a_wrong_argument_harms_an_asyncio_client_no_more(self) -> None:
        async def run() -> None:
            async with AsyncClient(self.server.address) as client:
                for record, channel in self.wrong:
                    with self.subTest(record=record, channel=channel):
                        with self.assertRaises((TypeError, ValueError)):
                            await client.send(record, channel)
                        with self.assertRaises((TypeError, ValueError)):
                            client.send_nowait(record, channel)
                        with self.assertRaises((TypeError, ValueError)):
                            await client.send_many([b"awrong no", record], channel)
                await client.send(b"awrong 1", timeout=5)

        asyncio.run(run())
        self.assertEqual(self.journaled("awrong "), ["1"])

    def test_wrong_options_are_named_before_anything_begins(self) -> None:
        threads = threading.active_count()
        cases: list[dict[str, Any]] = [
            {"server": "nowhere"}, {"server": ":7117"}, {"server": "host:0"}, {"server": "host:70000"}, {"server": "host:x"},
            {"server": b"host:1"}, {"server": None}, {"server": "a" * 300 + ":1"}, {"server": "ho\0st:1"}, {"server": " host:1"},
            {"window": 0}, {"window": 65537}, {"window": 1.5}, {"window": "8"}, {"window": None},
            {"client_id": -1}, {"client_id": 2**64}, {"client_id": "a1"}, {"epoch": 0}, {"epoch": 2**32}, {"epoch": 1.0},
            {"datagram_bytes_max": 32}, {"datagram_bytes_max": 65508}, {"batch": "no"}, {"linger": -1}, {"linger": "1ms"},
            {"linger": float("nan")}, {"retry_interval_max": 0}, {"retry_interval_max": float("inf")}, {"boot_count": 2**32},
            {"key": b"short"}, {"key": "text" * 8}, {"key": 32}, {"windw": 5},
        ]  # fmt: skip
        for options in cases:
            for face in (Client, AsyncClient):
                with self.subTest(options, face=face.__name__):
                    with self.assertRaises((TypeError, ValueError)) as raised:
                        face(**{"server": self.server.address, **options})
                    self.assertIn(next(iter(options)), str(raised.exception).replace("host name", "server"))
        self.assertEqual(threading.active_count(), threads)

    def test_the_key_is_in_no_representation(self) -> None:
        options = duragram.Options("host:1", key=bytes(range(32)))
        self.assertNotIn("\\x1f", repr(options))


class Failure(Silent):
    """Whatever ends the client's thread settles everything with its cause."""

    def test_an_error_within_the_client_settles_everything_and_names_the_cause(self) -> None:
        client = self.client(window=2)
        pending = [client.send(b"x"), client.send(b"y")]
        waiting: list[BaseException] = []

        def wait(call: Callable[[], object]) -> None:
            try:
                call()
            except Exception as error:
                waiting.append(error)

        threads = [threading.Thread(target=wait, args=(call,)) for call in (lambda: client.send(b"z"), client.flush, pending[0].result)]
        for thread in threads:
            thread.start()
        called: list[object] = []
        pending[1].add_done_callback(called.append)
        with self.assertLogs("duragram", "ERROR") as logs:
            with mock.patch.object(client._engine.link.core.machine, "handle_timeout", side_effect=ZeroDivisionError("boom")):
                for thread in threads:
                    thread.join(5)
                    self.assertFalse(thread.is_alive())
        self.assertIn("boom", logs.output[0])
        self.assertEqual([type(error) for error in waiting if not isinstance(error, Closed)], [])
        for one in pending:
            with self.assertRaises(Closed) as raised:
                one.result(0)
            self.assertIsInstance(raised.exception.__cause__, ZeroDivisionError)
        self.assertEqual(called, [pending[1]])
        for call in (lambda: client.send(b"x"), client.flush, client.abandon_oldest):
            with self.assertRaises(Closed) as raised:
                call()
            self.assertIn("boom", str(raised.exception))
        with self.assertRaises(Incomplete) as incomplete:
            client.close()
        self.assertEqual(incomplete.exception.unacked, 2)

    def test_an_error_within_an_asyncio_client_does_so_too(self) -> None:
        async def run() -> None:
            client = AsyncClient(self.address, window=1)
            await client.connect()
            pending = await client.send(b"x")
            waiting = [asyncio.ensure_future(one) for one in (client.send(b"y"), client.flush())]
            with self.assertLogs("duragram", "ERROR"):
                with mock.patch.object(client._link.core.machine, "handle_timeout", side_effect=ZeroDivisionError("boom")):
                    with self.assertRaises(Closed) as raised:
                        await asyncio.wait_for(pending, 5)  # type: ignore[arg-type]
            self.assertIsInstance(raised.exception.__cause__, ZeroDivisionError)
            ended = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
            self.assertIsInstance(ended[0], Closed)
            with self.assertRaises(Closed):
                await client.send(b"z")
            with self.assertRaises(Incomplete):
                await client.close()

        asyncio.run(run())

    def test_a_socket_that_the_program_closed_under_it_is_no_busy_loop_but_the_end(self) -> None:
        client = self.client()
        pending = client.send(b"x")
        sock = client._engine.link.socket
        assert sock is not None
        with self.assertLogs("duragram", "ERROR"):
            os.close(sock.fileno())
            client.send(b"y")
            with self.assertRaises(Closed) as raised:
                pending.result(5)
        self.assertIn("Bad file descriptor", str(raised.exception))

    def test_a_client_for_which_the_system_has_no_room_leaves_nothing_behind(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        with mock.patch("socket.socketpair", side_effect=OSError(errno.EMFILE, "too many")), self.assertRaises(OSError):
            Client(self.address)
        with mock.patch("threading.Thread.start", side_effect=RuntimeError("no thread")), self.assertRaises(RuntimeError):
            Client(self.address)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)


class Host(WithServer):
    def test_descriptors_above_1023(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.assertTrue(hard == resource.RLIM_INFINITY or hard > 1200, "the limit of descriptors is too low for this test")
        resource.setrlimit(resource.RLIMIT_NOFILE, (1200, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        many = [os.open("/dev/null", os.O_RDONLY) for _ in range(1050)]
        try:
            with Client(self.server.address) as client:
                assert client._engine.link.socket is not None
                self.assertGreater(client._engine.link.socket.fileno(), 1023)
                client.send(b"many-fds 1").result(10)

            async def run() -> None:
                async with AsyncClient(self.server.address) as client:
                    await (await client.send(b"many-fds 2"))

            asyncio.run(run())
        finally:
            for descriptor in many:
                os.close(descriptor)
        self.assertEqual(self.journaled("many-fds "), ["1", "2"])

    def test_two_hundred_clients_and_threads_in_one_process(self) -> None:
        clients = [Client(self.server.address) for _ in range(200)]
        pending = [client.send(b"each %d" % n) for n, client in enumerate(clients)]
        for one in pending:
            one.result(20)
        for client in clients:
            client.close(10)
        self.assertEqual(sorted(map(int, self.journaled("each "))), list(range(200)))
        self.assertEqual([thread for thread in threading.enumerate() if thread.name == "duragram"], [])

    def test_threads_that_share_a_client(self) -> None:
        with Client(self.server.address, window=8) as client:

            def work(name: int) -> None:
                for n in range(50):
                    pending = client.send(b"shared %d.%d" % (name, n))
                    if n % 5 == 0:
                        pending.result(20)
                client.flush(20)

            threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual(sorted(self.journaled("shared ")), sorted(f"{name}.{n}" for name in range(8) for n in range(50)))

    def test_a_signals_handler_may_send_and_wait(self) -> None:
        out = self.script("""
            import signal, sys
            from duragram import Client
            sent = 0
            with Client(sys.argv[1], window=16) as client:
                def handler(*_):
                    global sent
                    sent += 1
                    client.send(b"handler").result(10)
                signal.signal(signal.SIGALRM, handler)
                signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
                for n in range(4000):
                    client.send(b"main").add_done_callback(lambda _: None)
                signal.setitimer(signal.ITIMER_REAL, 0)
                client.flush()
            assert sent > 10, sent
            print(client.acked - sent, client.unacked)
            """)
        self.assertEqual(out, "4000 0\n")

    def test_an_exception_out_of_a_signals_handler_leaves_the_client_whole(self) -> None:
        out = self.script("""
            import signal, sys
            from duragram import Client
            class Interrupt(BaseException): pass
            def handler(*_):
                raise Interrupt
            interrupts, pending = 0, []
            with Client(sys.argv[1], window=16) as client:
                signal.signal(signal.SIGALRM, handler)
                n = 0
                while n < 4000:
                    signal.setitimer(signal.ITIMER_REAL, 0.0011)
                    try:
                        while n < 4000:
                            n += 1
                            pending.append(client.send(b"interrupted"))
                            if n % 100 == 0:
                                pending[-1].result(10)
                    except Interrupt:
                        interrupts += 1
                signal.signal(signal.SIGALRM, signal.SIG_IGN)
                for one in pending:
                    one.result(10)
            assert interrupts > 10, interrupts
            print(client.unacked, client.failed, client.acked >= len(pending))
            """)
        self.assertEqual(out, "0 0 True\n")

    def test_gevent(self) -> None:
        out = self.script("""
            from gevent import monkey; monkey.patch_all()
            import gevent, os, sys
            from duragram import Client, Closed
            with Client(sys.argv[1], window=4) as client:
                def work(name):
                    for n in range(25):
                        client.send(b"gevent %d" % n).result(10)
                gevent.joinall([gevent.spawn(work, name) for name in range(8)], raise_error=True)
                pid = os.fork()
                if pid == 0:
                    try:
                        client.send(b"gevent child")
                    except Closed:
                        os._exit(7)
                    os._exit(0)
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
            late = Client(sys.argv[1])
            late.send(b"gevent late")
            print(client.acked)
            """)
        self.assertEqual(out, "200\n")
        self.assertEqual(self.journaled("gevent ").count("late"), 1)

    def test_uvloop(self) -> None:
        out = self.script("""
            import asyncio, sys, uvloop
            from duragram import AsyncClient
            async def main():
                async with AsyncClient(sys.argv[1], batch=True) as client:
                    for n in range(500):
                        await client.send(b"uvloop %d" % n)
                        if n % 100 == 0:
                            await asyncio.sleep(0.01)
                print(client.acked)
            loop = uvloop.new_event_loop()
            assert "uvloop" in type(loop).__module__
            loop.run_until_complete(main())
            loop.close()
            """)
        self.assertEqual(out, "500\n")
        self.assertEqual(sorted(map(int, self.journaled("uvloop "))), list(range(500)))

    def test_each_event_loop_needs_its_own_client_and_others_are_told_so(self) -> None:
        clients: list[AsyncClient] = []
        pending: list[Any] = []

        async def first() -> None:
            clients.append(AsyncClient(self.server.address))
            await clients[0].connect()
            pending.append(await clients[0].send(b"loops 1"))

        async def second() -> None:
            for call in (clients[0].connect(), clients[0].send(b"loops x"), clients[0].flush(), clients[0].send_many([b"loops y"])):
                with self.assertRaises(Closed) as raised:
                    await call
                self.assertIn("another event loop, which is closed", str(raised.exception))
            with self.assertRaises(Closed):
                clients[0].send_nowait(b"loops z")
            with self.assertRaises(Closed):
                await pending[0]
            async with AsyncClient(self.server.address) as own:
                await own.send(b"loops 2")

        asyncio.run(first())
        asyncio.run(second())
        with self.assertRaises(Closed) as raised:
            clients[0].send_nowait(b"no loop at all")
        self.assertIn("no event loop", str(raised.exception))
        self.assertEqual(clients[0].end_at_exit(time.monotonic() + 10), 0)
        self.assertEqual(sorted(self.journaled("loops ")), ["1", "2"])

    def test_calls_before_connect_and_after_close_are_told_so(self) -> None:
        async def run() -> None:
            client = AsyncClient(self.server.address)
            for state in ("not connected", "closed"):
                for call in (client.send(b"x"), client.flush(), client.send_many([b"x"])):
                    if state == "closed" and call.__name__ == "flush":
                        await call  # there is nothing to wait for
                        continue
                    with self.assertRaises(Closed) as raised:
                        await call
                    self.assertIn(state, str(raised.exception))
                for now in (lambda: client.send_nowait(b"x"), client.abandon_oldest):
                    with self.assertRaises(Closed):
                        now()
                await client.close()
            with self.assertRaises(Closed):
                await client.connect()

        asyncio.run(run())
        closed = Client(self.server.address)
        closed.close()
        closed.close()
        self.assertTrue(closed.closed and closed.flush())
        for call in (lambda: closed.send(b"x"), lambda: closed.send_nowait(b"x"), closed.abandon_oldest, lambda: closed.send_many([b"x"])):
            self.assertRaises(Closed, call)

    def test_a_client_that_is_dropped_sends_what_it_has_and_ends(self) -> None:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            Client(self.server.address).send_many([b"dropped"] * 100)
            deadline = time.monotonic() + 10
            while any(thread.name == "duragram" for thread in threading.enumerate()):
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)
        self.assertEqual([one.category for one in told], [ResourceWarning])
        self.assertEqual(len(self.journaled("dropped")), 100)


class Exit(WithServer):
    """The interpreter ends without close()."""

    programs = {
        "blocking": """
            import sys, duragram.process
            from duragram import Client
            duragram.process.EXIT_PATIENCE = float(sys.argv[2])
            client = Client(sys.argv[1], batch=True)
            client.send_many([b"unclosed"] * 500)
            """,
        "asyncio": """
            import asyncio, sys, duragram.process
            from duragram import AsyncClient
            duragram.process.EXIT_PATIENCE = float(sys.argv[2])
            async def main():
                client = AsyncClient(sys.argv[1], batch=True)
                await client.connect()
                await client.send_many([b"unclosed"] * 500)
            asyncio.run(main())
            """,
        "asyncio, collected": """
            import asyncio, gc, sys, duragram.process
            from duragram import AsyncClient
            duragram.process.EXIT_PATIENCE = float(sys.argv[2])
            async def main():
                client = AsyncClient(sys.argv[1], batch=True)
                await client.connect()
                await client.send_many([b"unclosed"] * 500)
            asyncio.run(main())
            import warnings; warnings.simplefilter("ignore")
            gc.collect()
            """,
    }  # fmt: skip

    def test_what_is_unacked_is_sent(self) -> None:
        for name, program in self.programs.items():
            with self.subTest(name):
                self.script(program, "10", stderr=None)
        self.assertEqual(len(self.journaled("unclosed")), 500 * len(self.programs))

    def test_or_the_program_says_within_a_bound_how_much_was_lost(self) -> None:
        self.server.stop()
        self.addCleanup(self.server.start)
        for name, program in self.programs.items():
            with self.subTest(name):
                began = time.monotonic()
                environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
                command = [sys.executable, "-c", textwrap.dedent(program), self.server.address, "0.2"]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
                self.assertLess(time.monotonic() - began, 5)
                self.assertIn("with 500 records unacked", done.stderr)


class Addresses(WithServer):
    """A name with several addresses, of which the first does not answer."""

    def found(self, first: str) -> Callable[..., Any]:
        real = socket.getaddrinfo

        def getaddrinfo(host: Any, port: Any, *more: Any, **options: Any) -> Any:
            if host != "several":
                return real(host, port, *more, **options)
            name, _, at = first.rpartition(":")
            return [*real(name, int(at), type=socket.SOCK_DGRAM), *real("127.0.0.1", port, type=socket.SOCK_DGRAM)]

        return getaddrinfo

    def firsts(self) -> Iterator[str]:
        """Somebody who does not answer, and a port where nobody is."""
        taken = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        taken.bind(("::1", 0))
        self.addCleanup(taken.close)
        yield "::1:%d" % taken.getsockname()[1]
        free = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        free.bind(("::1", 0))
        port = free.getsockname()[1]
        free.close()
        yield "::1:%d" % port

    def test_the_next_address_is_tried_when_nothing_answers(self) -> None:
        several = f"several:{self.server.port}"
        for first in self.firsts():
            with self.subTest(first), mock.patch("socket.getaddrinfo", self.found(first)):
                began = time.monotonic()
                with Client(several) as client:
                    client.send(b"next").result(10)

                async def run() -> None:
                    async with AsyncClient(several) as client:
                        await asyncio.wait_for(await client.send(b"next"), 10)  # type: ignore[arg-type]

                asyncio.run(run())
                self.assertLess(time.monotonic() - began, 6)
        self.assertEqual(len(self.journaled("next")), 4)

    def test_a_resolver_that_is_away_does_not_end_a_client(self) -> None:
        peer, address = silent()
        self.addCleanup(peer.close)
        with mock.patch.object(route, "SILENCE_FIRST", 0.05):
            client = Client(address)
            with mock.patch("socket.getaddrinfo", side_effect=socket.gaierror("away")) as asked:
                client.send(b"x")
                deadline = time.monotonic() + 10
                while asked.call_count < 2:
                    self.assertLess(time.monotonic(), deadline)
                    time.sleep(0.01)
        self.assertFalse(client.closed)
        with self.assertRaises(Incomplete):
            client.close(0)


class Cramped:
    """A socket of a system whose UDP carries little."""

    def __init__(self, inner: socket.socket, most: int) -> None:
        self._inner, self._most = inner, most

    def send(self, datagram: bytes) -> int:
        if len(datagram) > self._most:
            raise OSError(errno.EMSGSIZE, "Message too long")
        return self._inner.send(datagram)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class TooLong(WithServer):
    def cramped(self) -> Any:
        real = route._socket_to
        return mock.patch.object(route, "_socket_to", lambda info: Cramped(real(info), 800))

    def test_a_message_longer_than_udp_carries_fails_and_the_others_go_on(self) -> None:
        with self.cramped():
            client = Client(self.server.address)
            pending = [client.send(b"long %d" % n + b" " * (900 * (n % 2))) for n in range(6)]
            for n, one in enumerate(pending):
                if n % 2:
                    with self.assertRaises(TooLarge):
                        one.result(10)
                else:
                    one.result(10)
            self.assertEqual(client.failed, 3)
            with self.assertRaises(Incomplete):
                client.close()
        self.assertEqual([text.strip() for text in self.journaled("long ")], ["0", "2", "4"])

    def test_asyncio_does_so_too(self) -> None:
        async def run() -> None:
            with self.cramped():
                client = AsyncClient(self.server.address)
                await client.connect()
                long, good = await client.send(bytes(900)), await client.send(b"along 1")
                with self.assertRaises(TooLarge):
                    await asyncio.wait_for(long, 10)  # type: ignore[arg-type]
                await good
                with self.assertRaises(Incomplete):
                    await client.close()

        asyncio.run(run())
        self.assertEqual(self.journaled("along "), ["1"])

    def test_an_error_of_an_earlier_datagram_fails_no_other(self) -> None:
        class Late(Cramped):
            told = False

            def send(self, datagram: bytes) -> int:
                if not self.told:
                    self.told = True
                    raise OSError(errno.EMSGSIZE, "of another")
                return self._inner.send(datagram)

        real = route._socket_to
        with mock.patch.object(route, "_socket_to", lambda info: Late(real(info), 0)), Client(self.server.address) as client:
            client.send(b"short").result(10)


class UsedEpoch(WithServer):
    """PROTOCOL.md#duty-epoch: an epoch used twice is noticed, and nothing of the second run counts as delivered."""

    def test_the_second_run_fails_whole_and_says_why(self) -> None:
        for client_id, (first, second) in enumerate([(1, 1), (1, 9), (5, 1), (5, 10), (30, 3), (3, 30), (12, 12)], 0x100):
            for kind in ("blocking", "asyncio"):
                with self.subTest(first=first, second=second, kind=kind):
                    client_id += 0x1000 * (kind == "asyncio")
                    with Client(self.server.address, client_id=client_id, epoch=7) as client:
                        client.send_many([b"one"] * first)
                    if kind == "blocking":
                        again = Client(self.server.address, client_id=client_id, epoch=7)
                        pending = again.send_many([b"two of a used epoch"] * second)
                        for one in pending:
                            self.assertRaises(EpochUsed, one.result, 10)
                        self.assertRaises(EpochUsed, again.send(b"later").result, 10)
                        self.assertRaises(Incomplete, again.close)
                        self.assertEqual((again.acked, again.failed), (0, second + 1))
                    else:
                        asyncio.run(self.again(client_id, second))
        self.assertEqual(self.journaled("two of a used epoch"), [])

    async def again(self, client_id: int, count: int) -> None:
        client = AsyncClient(self.server.address, client_id=client_id, epoch=7)
        await client.connect()
        for one in await client.send_many([b"two of a used epoch"] * count):
            with self.assertRaises(EpochUsed):
                await asyncio.wait_for(one, 10)  # type: ignore[arg-type]
        with self.assertRaises(Incomplete):
            await client.close()
        self.assertEqual(client.acked, 0)


if __name__ == "__main__":
    unittest.main()
