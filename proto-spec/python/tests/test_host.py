"""Whatever a host program may do to a library: it is right, or a clear error."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
import threading
import time
import unittest
import warnings
from typing import Any, Callable, Iterator
from unittest import mock

from duragram import AsyncClient, Client, Closed, Incomplete, route

from .support import OneServer, silent


class Silent(unittest.TestCase):
    def setUp(self) -> None:
        self.peer, self.address = silent()
        self.addCleanup(self.peer.close)

    def client(self, **options: Any) -> Client:
        client = Client(self.address, **options)
        self.addCleanup(client._engine.end)
        return client


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
        self.assertEqual([type(error) for error in waiting], [Closed] * 3)
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
                        await asyncio.wait_for(pending, 5)
            self.assertIsInstance(raised.exception.__cause__, ZeroDivisionError)
            ended = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
            self.assertEqual([type(one) for one in ended], [Closed, Closed])
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
            with contextlib.suppress(Closed):  # it may have seen it already
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


class Host(OneServer):
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
                    # Not while it waits: each would interrupt the one before.
                    signal.setitimer(signal.ITIMER_REAL, 0.001)
                signal.signal(signal.SIGALRM, handler)
                signal.setitimer(signal.ITIMER_REAL, 0.001)
                for n in range(4000):
                    client.send(b"main").add_done_callback(lambda _: None)
                signal.signal(signal.SIGALRM, signal.SIG_IGN)
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
                    try:
                        signal.setitimer(signal.ITIMER_REAL, 0.0011)
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
                # gevent's own now and then misses a child that ends at once.
                waitpid = monkey.get_original("os", "waitpid")
                assert os.waitstatus_to_exitcode(waitpid(pid, 0)[1]) == 7
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
        peer, address = silent()
        self.addCleanup(peer.close)
        clients: list[AsyncClient] = []
        pending: list[Any] = []

        async def first() -> None:
            clients.append(AsyncClient(self.server.address))
            await clients[0].connect()
            await clients[0].send(b"loops 1")
            clients.append(AsyncClient(address))
            await clients[1].connect()
            pending.append(await clients[1].send(b"without an answer"))

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
        clients[0].end_at_exit(time.monotonic() + 10)
        self.assertEqual(clients[0].lost, 0)
        clients[1].end_at_exit(0)
        self.assertEqual(clients[1].lost, 1)

        async def left_open() -> AsyncClient:
            client = AsyncClient(self.server.address)
            await client.connect()
            return client

        # Its loop is gone: nothing is left to wait for, and its socket is closed.
        asyncio.run(asyncio.run(left_open()).close())
        self.assertEqual(sorted(self.journaled("loops ")), ["1", "2"])

    def test_calls_before_connect_and_after_close_are_told_so(self) -> None:
        async def run() -> None:
            client = AsyncClient(self.server.address)
            for state in ("not connected", "closed"):
                for call in (client.send(b"x"), client.send_many([b"x"])):
                    with self.assertRaises(Closed) as raised:
                        await call
                    self.assertIn(state, str(raised.exception))
                if state == "closed":
                    await client.flush()  # there is nothing to wait for
                else:
                    with self.assertRaises(Closed):
                        await client.flush()
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


class Addresses(OneServer):
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
                        await asyncio.wait_for(await client.send(b"next"), 10)

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
