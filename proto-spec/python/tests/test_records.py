"""What a caller gives: buffers, wrong arguments, and messages that UDP does not carry."""

from __future__ import annotations

import array
import asyncio
import errno
import socket
import threading
from typing import Any
from unittest import mock

import duragram
from duragram import AsyncClient, Client, Incomplete, TooLarge, route

from .support import OneServer


class Records(OneServer):
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


class TooLong(OneServer):
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
                    await asyncio.wait_for(long, 10)
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
