"""The blocking face: a thread receives and keeps the time, callers send."""

from __future__ import annotations

import select
import socket
import threading
import time
from types import TracebackType
from typing import Any, Optional

from .core import Closed, Core, Face, Options, Pending, Receipt
from .route import REPLY_BYTES, SILENCE_FIRST, SILENCE_MOST, open_socket

#: Datagrams handled under one hold of the lock.
BURST = 256


class BlockingPending(Pending):
    """A receipt to come. Dropping it does not take the record back."""

    __slots__ = ("_client",)

    def __init__(self, client: Client) -> None:
        super().__init__()
        self._client = client

    def done(self) -> bool:
        """Whether `result` returns at once."""
        return self.outcome is not None

    def result(self, timeout: Optional[float] = None) -> Receipt:
        """Waits for the receipt; raises `SendError` if there will be none, `TimeoutError` if it takes longer."""
        if self.outcome is None and not self._client._wait(self.done, timeout):
            raise TimeoutError("no ack yet")
        if isinstance(self.outcome, Receipt):
            return self.outcome
        raise self.outcome or Closed()


class Client(Face):
    """Sends records to a Duragram server.

        with Client("127.0.0.1:7117", client_id=0xA1) as client:
            first = client.send(b"21.5")               # waits for room only
            print("on disk:", first.result())          # waits for the receipt

    Leaving the block waits until all records have their receipts, and raises `Incomplete` if not all got one. Options are
    those of `Options`. Threads may share a client.
    """

    def __init__(self, server: str, **options: Any) -> None:
        self.options = Options(server, **options)
        self._core = Core(self.options)
        self._lock = threading.Lock()
        #: Something was settled, or it was closed.
        self._news = threading.Condition(self._lock)
        self._waiting = 0
        self._closed = False
        self._socket, self._address = self._open()
        self._wake_receive, self._wake_send = socket.socketpair()
        self._wake_receive.setblocking(False)
        self._wake_send.setblocking(False)
        #: When the thread wakes by itself; 0 while it does not sleep.
        self._sleeps_until = 0.0
        self._thread = threading.Thread(target=self._run, name="duragram", daemon=True)
        self._thread.start()

    def _open(self) -> tuple[socket.socket, tuple[Any, ...]]:
        host, port = self.options.address()
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        return open_socket(found), found[0][4]

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._end()

    def send(self, record: bytes, channel: int = 0) -> BlockingPending:
        """Takes a record. Waits until there is room for it, not for its receipt."""
        core = self._core
        core.check(record)
        with self._lock:
            if not self._closed and not core.has_room(channel, record):
                # Woken for each datagram that is acked it would spend its time on waking.
                enough = self.options.window * 3 // 4
                self._wait_locked(lambda: core.machine.queued <= enough and core.has_room(channel, record), None)
            if self._closed:
                raise Closed("the client is closed")
            pending = BlockingPending(self)
            core.push(time.monotonic(), channel, record, pending)
            self._transmit()
            deadline = core.deadline
            if self._sleeps_until and deadline is not None and deadline < self._sleeps_until:
                self._wake()
        return pending

    def flush(self, timeout: Optional[float] = None) -> bool:
        """Waits until every record taken so far has its outcome; `False` when the time is over before."""
        with self._lock:
            self._core.flush_batch(time.monotonic())
            self._transmit()
        self._wake()
        return self._wait(lambda: not self._core.unacked, timeout)

    def close(self, patience: Optional[float] = None) -> None:
        """Waits until all records have their outcome, at most so many seconds, and ends the client.

        Raises `Incomplete` if not every record is on the server's disk, as far as the client knows."""
        self.flush(patience)
        self._end()
        self._core.raise_if_incomplete()

    def abandon_oldest(self) -> bool:
        """Gives up the oldest unacked message, to make room for newer ones; `False` when there is none."""
        with self._lock:
            abandoned = self._core.machine.abandon_oldest() is not None
        self._wake()
        return abandoned

    # Within.

    def _wait(self, condition: Any, timeout: Optional[float]) -> bool:
        with self._lock:
            return self._wait_locked(condition, timeout)

    def _wait_locked(self, condition: Any, timeout: Optional[float]) -> bool:
        self._waiting += 1
        try:
            self._news.wait_for(lambda: self._closed or condition(), timeout)
        finally:
            self._waiting -= 1
        return bool(condition())

    def _wake(self) -> None:
        try:
            self._wake_send.send(b"\0")
        except OSError:
            pass  # it is full: the thread will wake anyway

    def _transmit(self) -> bool:
        """Sends what may go now; `False` when there is more."""
        datagrams = self._core.machine.transmit(time.monotonic(), BURST)
        for datagram in datagrams:
            try:
                self._socket.send(datagram)
            except OSError:
                pass  # lost on the way; the machine will send it again
        return len(datagrams) < BURST

    def _run(self) -> None:
        silent_since: Optional[float] = None
        patience = SILENCE_FIRST
        while True:
            with self._lock:
                if self._closed:
                    break
                now = time.monotonic()
                heard = self._receive(now)
                if self._core.advance(now) and self._waiting:
                    self._news.notify_all()
                drained = self._transmit()
                deadline = self._core.deadline
                if heard or not self._core.unacked:
                    silent_since, patience = None, SILENCE_FIRST
                elif silent_since is None:
                    silent_since = now
                reroute = silent_since is not None and now >= silent_since + patience
                if silent_since is not None and not reroute:
                    tired = silent_since + patience
                    deadline = tired if deadline is None else min(deadline, tired)
                self._sleeps_until = now + 3600 if deadline is None else deadline
            if reroute:
                silent_since, patience = now, min(patience * 2, SILENCE_MOST)
                self._reroute()
            elif drained:
                self._sleep(max(self._sleeps_until - time.monotonic(), 0))
            self._sleeps_until = 0.0
        self._socket.close()
        self._wake_receive.close()
        self._wake_send.close()

    def _sleep(self, seconds: float) -> None:
        ready, _, _ = select.select([self._socket, self._wake_receive], [], [], seconds)
        if self._wake_receive in ready:
            try:
                self._wake_receive.recv(4096)
            except OSError:
                pass

    def _receive(self, now: float) -> bool:
        heard = False
        receive, handle = self._socket.recv, self._core.machine.handle_datagram
        for _ in range(BURST):
            try:
                datagram = receive(REPLY_BYTES)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                continue  # nobody listens there now; as good as lost on the way
            heard |= handle(now, datagram) is None
        return heard

    def _reroute(self) -> None:
        """Nothing heard for long: the server's name may lead elsewhere, or the socket's way be gone."""
        try:
            opened, address = self._open()
        except OSError:
            return  # the old socket stays, the next try follows
        with self._lock:
            self._socket.close()
            if address != self._address:
                self._core.machine.path_changed(time.monotonic())
            self._socket, self._address = opened, address

    def _end(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._core.close()
            self._news.notify_all()
        self._wake()
        self._thread.join()
