"""What becomes of clients when their process forks, or ends without close()."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import textwrap
import time
import unittest
from typing import Callable

from .support import PACKAGE, OneServer


class Fork(OneServer):
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

    def test_a_child_may_have_a_client_of_its_own(self) -> None:
        self.script("""
            import os, sys
            from duragram import Client
            client = Client(sys.argv[1])
            client.send(b"own 1").result(10)
            if os.fork() == 0:
                own = Client(sys.argv[1])
                own.send(b"own 2")
                sys.exit(0)  # what it has not waited for is sent
            assert os.wait()[1] == 0
            client.send(b"own 3").result(10)
            client.close()
            """)
        self.assertEqual(self.journaled("own "), ["1", "2", "3"])

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
                use(seal)
        child = os.fork()
        if child == 0:
            refused = 0
            makes: list[Callable[[], bytes]] = [
                lambda: seal.data(0, 0, 5, 1, 0, b"x"), lambda: seal.short(PING, 5, 0), lambda: seal.short(HELLO, 0, 9)
            ]  # fmt: skip
            for make in makes:
                try:
                    make()
                except RuntimeError:
                    refused += 1
            os._exit(refused)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 3)
        self.assertEqual(len(seal.data(0, 0, 5, 1, 0, b"x")), 53)


class Exit(OneServer):
    """The interpreter ends without close()."""

    programs = {
        "blocking": """
            import sys, duragram.process
            from duragram import Client
            duragram.process.EXIT_PATIENCE = float(sys.argv[2])
            client = Client(sys.argv[1], batch=True)
            client.send_many([b"unclosed"] * 500)
            """,
        "sys.exit within the block": """
            import sys, duragram.process
            from duragram import Client
            duragram.blocking.EXIT_PATIENCE = float(sys.argv[2])
            with Client(sys.argv[1], batch=True) as client:
                client.send_many([b"unclosed"] * 500)
                sys.exit(0)
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
