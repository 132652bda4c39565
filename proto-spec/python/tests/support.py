"""The real server, and a path that loses, repeats and reorders."""

from __future__ import annotations

import heapq
import json
import os
import random
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional

#: The package's directory, in a checkout or as it was released.
PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parents[1]
#: A release brings its own.
VECTORS = PACKAGE / "tests" / "vectors" if (PACKAGE / "tests" / "vectors").exists() else PACKAGE.parent / "vectors"


def binary() -> str:
    """The server's program: $DURAGRAM, or as cargo built it."""
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    path = os.environ.get("DURAGRAM", os.path.join(target, "release", "duragram"))
    if not os.access(path, os.X_OK):
        raise RuntimeError(f"{path} is missing: build it by `cargo build --release`, or name one in DURAGRAM")
    return path


class Server:
    """The real server with a data directory of its own, which outlives `stop` and `kill`."""

    def __init__(self, *arguments: str, sink: Optional[str] = None) -> None:
        self.directory = tempfile.mkdtemp(prefix="duragram-python-")
        #: Without one, `records` knows what it was given.
        self.sink = sink or f"file:{self.directory}/sink"
        self.arguments = arguments
        self.port = 0
        self.process: Optional[subprocess.Popen[str]] = None
        self.start()

    def start(self) -> None:
        command = [
            binary(), "serve", "--listen", f"127.0.0.1:{self.port}", "--admin", "off",
            "--data", f"{self.directory}/data", "--sink", self.sink, *self.arguments,
        ]  # fmt: skip
        for patience in reversed(range(100)):
            with open(f"{self.directory}/log", "a") as log:
                self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
            assert self.process.stdout is not None
            ready = self.process.stdout.readline()
            if ready.startswith("duragram ready"):
                break
            told = Path(self.directory, "log").read_text()
            # Between its end and this start some client of another test may have been given its port, for a while.
            if not patience or "Address already in use" not in told.splitlines()[-1]:
                raise RuntimeError(f"no server: {told}")
            self.process.communicate()
            time.sleep(0.1)
        self.port = int(ready.split("udp=")[1].split()[0].rpartition(":")[2])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def kill(self) -> None:
        self._end(subprocess.Popen.kill)

    def stop(self) -> None:
        self._end(subprocess.Popen.terminate)

    def _end(self, how: Callable[[subprocess.Popen[str]], None]) -> None:
        assert self.process is not None and self.process.stdout is not None
        how(self.process)
        self.process.wait(30)
        self.process.stdout.close()
        self.process = None

    def records(self) -> list[dict[str, Any]]:
        """What the stopped server has processed."""
        assert self.process is None, "stop it first: the sink is complete then"
        return [json.loads(line) for line in Path(self.directory, "sink").read_text().splitlines()]

    def payloads(self) -> list[str]:
        return [record["payload"] for record in self.records()]

    def remove(self) -> None:
        if self.process is not None:
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class Proxy:
    """Forwards datagrams both ways, of which each may be lost, repeated or held back, as `seed` decides."""

    def __init__(self, server: str, loss: float = 0.0, duplicates: float = 0.0, reorder: float = 0.0, seed: int = 1):
        host, _, port = server.rpartition(":")
        self._server = (host, int(port))
        self._chances = (loss, duplicates, reorder)
        self._random = random.Random(seed)
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.bind(("127.0.0.1", 0))
        # A refusal by a killed server makes a socket readable, and the next send takes it away: a receive would then block for ever.
        self._front.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._front, selectors.EVENT_READ)
        self._backs: dict[Any, socket.socket] = {}
        self._held: list[tuple[float, int, Callable[[], Any]]] = []
        self._ended = False
        self.forwarded = 0
        self.address = "127.0.0.1:%d" % self._front.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended:
            soon = self._held[0][0] - time.monotonic() if self._held else 0.05
            for key, _ in self._selector.select(max(0.0, min(soon, 0.05))):
                try:
                    datagram, peer = key.fileobj.recvfrom(65536)  # type: ignore[union-attr]
                except OSError:
                    continue
                if key.fileobj is self._front:
                    back = self._back(peer)
                    # Doubled, the first message of an epoch that was given looks as if the epoch was used before.
                    first = datagram[0] & 15 == 1 and not datagram[1] & 7 and datagram[16:24] == bytes([1, 0, 0, 0, 0, 0, 0, 0])
                    self._pass(partial(back.send, datagram), once=first)
                else:
                    self._pass(partial(self._front.sendto, datagram, key.data))
            while self._held and self._held[0][0] <= time.monotonic():
                self._forward(heapq.heappop(self._held)[2])

    def _back(self, peer: Any) -> socket.socket:
        if peer not in self._backs:
            back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            back.connect(self._server)
            back.setblocking(False)
            self._backs[peer] = back
            self._selector.register(back, selectors.EVENT_READ, peer)
        return self._backs[peer]

    def _pass(self, forward: Callable[[], Any], once: bool = False) -> None:
        loss, duplicates, reorder = self._chances
        if self._random.random() < loss:
            return
        for _ in range(1 + (not once and self._random.random() < duplicates)):
            if self._random.random() < reorder:
                due = time.monotonic() + self._random.uniform(0.0, 0.01)
                heapq.heappush(self._held, (due, self.forwarded, forward))
                self.forwarded += 1
            else:
                self._forward(forward)

    def _forward(self, forward: Callable[[], Any]) -> None:
        self.forwarded += 1
        try:
            forward()
        except OSError:
            pass  # nobody listens now

    def close(self) -> None:
        self._ended = True
        self._thread.join()
        for sock in [self._front, *self._backs.values()]:
            sock.close()
        self._selector.close()


def program(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """`python -m duragram ...`"""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    command = [sys.executable, "-m", "duragram", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, timeout=60, **options)


class OneServer(unittest.TestCase):
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
