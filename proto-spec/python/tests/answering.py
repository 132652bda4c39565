"""A server in memory that journals and answers, by the rules of PROTOCOL.md, for tests of clients that ask: what it knows is
durable, what it holds is not. And one in a thread, on a socket, behind a path that loses, repeats and reorders."""

from __future__ import annotations

import heapq
import random
import selectors
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from duragram import seal, wire
from duragram.seal import Keys
from duragram.wire import Ack, Answer, Data, Datagram, DecodeError, Hello, Ping, Reject, Take, Welcome

Name = tuple[int, int, int]
#: Where a datagram came from: what `reply` is called with.
Peer = Any
HOLD_MAX = 20.0


@dataclass
class Asked:
    """An ask that is open, and answered from `ready_at` on."""

    payload: bytes
    ready_at: float


@dataclass
class Held:
    until: float
    peer: Peer
    room: int


@dataclass
class AnsweringServer:
    """Client, epoch and seq name an ask. `answer` gives status and body for a payload."""

    answer: Callable[[bytes], tuple[int, bytes]]
    #: From the journaling of a message to its answer, in seconds.
    delay: Callable[[], float] = lambda: 0.0
    window: int = 1024
    journal: list[bytes] = field(default_factory=list)
    sessions: dict[tuple[int, int], tuple[int, set[int]]] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)
    asks: dict[Name, Asked] = field(default_factory=dict)
    held: dict[Name, Held] = field(default_factory=dict)
    takes: list[Take] = field(default_factory=list)
    #: What a client may not do.
    wrong: list[str] = field(default_factory=list)
    #: Sessions of these epochs are refused as stale.
    stale: set[int] = field(default_factory=set)

    def handle(self, now: float, peer: Peer, datagram: Datagram) -> list[tuple[Peer, Datagram]]:
        reply: Optional[Datagram] = None
        if isinstance(datagram, Hello):
            epoch = self.epochs.setdefault(datagram.nonce, 100 + len(self.epochs))
            reply = Welcome(datagram.client, epoch, self.window, datagram.nonce)
        elif isinstance(datagram, Ping):
            reply = self._ack(now, datagram.client, datagram.epoch, 0)
        elif isinstance(datagram, Data):
            reply = self._data(now, datagram)
        elif isinstance(datagram, Take):
            reply = self._take(now, peer, datagram)
        return [(peer, reply)] if reply is not None else []

    def step(self, now: float) -> list[tuple[Peer, Datagram]]:
        """What held TAKEs get now."""
        replies: list[tuple[Peer, Datagram]] = []
        for name, held in list(self.held.items()):
            asked = self.asks.get(name)
            if asked is not None and asked.ready_at > now and held.until > now:
                continue
            del self.held[name]
            replies.append((held.peer, self._reply(now, name, held.room, 0)))
        return replies

    def due(self) -> Optional[float]:
        """When `step` may have something."""
        times = [min(held.until, self.asks[name].ready_at if name in self.asks else 0.0) for name, held in self.held.items()]
        return min(times, default=None)

    def restart(self) -> None:
        self.held.clear()

    def _data(self, now: float, d: Data) -> Optional[Datagram]:
        base, session = d.seq - d.span, (d.client, d.epoch)
        if d.epoch in self.stale:
            return Reject(d.client, d.epoch, wire.REJECT_STALE_EPOCH, d.seq)
        floor, above = self.sessions.get(session, (base - 1, set()))
        floor = max(floor, base - 1)
        if d.seq > floor + self.window:
            return Reject(d.client, d.epoch, wire.REJECT_BEYOND_WINDOW, d.seq)
        duplicate = d.seq <= floor or d.seq in above
        if not duplicate:
            if d.options & wire.ASK:
                if sum(name[0] == d.client for name in self.asks) >= 64:
                    return Reject(d.client, d.epoch, wire.REJECT_BUSY, d.seq, 50)
                self.asks[d.client, d.epoch, d.seq] = Asked(d.payload, now + self.delay())
            self.journal.append(d.payload)
            above.add(d.seq)
        while floor + 1 in above:
            floor += 1
        self.sessions[session] = (floor, {seq for seq in above if seq > floor})
        return self._ack(now, d.client, d.epoch, len(d.payload), duplicate)

    def _ack(self, now: float, client: int, epoch: int, room: int, duplicate: bool = True) -> Ack:
        floor, above = self.sessions.get((client, epoch), (0, set()))
        told = [seq for seq in above if seq - floor <= 64 * min(room // 8, 16)]
        bits = sum(1 << (seq - floor - 1) for seq in told)
        bitmap = bits.to_bytes(-(-bits.bit_length() // 64) * 8, "little")
        ready = any(name[:2] == (client, epoch) and asked.ready_at <= now for name, asked in self.asks.items())
        return Ack(client, epoch, floor, self.window, 0, duplicate, 0, bitmap, len(told) == len(above), ready)

    def _take(self, now: float, peer: Peer, t: Take) -> Optional[Datagram]:
        name, session = (t.client, t.epoch, t.seq), self.sessions.get((t.client, t.epoch))
        self.takes.append(t)
        for other in [other for other in self.asks if other[:2] == name[:2] and other[2] < t.seq - t.span]:
            del self.asks[other]
        if session is not None and t.seq > session[0] and t.seq not in session[1] and (t.span != wire.SPAN_MAX or t.wait_ms):
            self.wrong.append(f"{t} names what is not journaled")
        asked = self.asks.get(name)
        self.held.pop(name, None)
        if asked is not None and asked.ready_at > now and t.wait_ms:
            if sum(other[:2] == name[:2] for other in self.held) < 16:
                self.held[name] = Held(now + min(t.wait_ms / 1000, HOLD_MAX), peer, t.room)
                return None
            self.wrong.append(f"{t} is the 17th")
        return self._reply(now, name, t.room, 1000)

    def _reply(self, now: float, name: Name, room: int, retry_after_ms: int) -> Answer:
        asked = self.asks.get(name)
        if asked is None:
            return Answer(*name, wire.GONE)
        if asked.ready_at > now:
            return Answer(*name, wire.PENDING, retry_after_ms)
        status, body = self.answer(asked.payload)
        return Answer(*name, status, len(body), body if len(body) <= room else b"")


class AnsweringThread:
    """The server on a socket. `loss`, `doubles` and `late` are chances of each datagram, in both directions."""

    def __init__(self, server: AnsweringServer, key: Optional[bytes] = None, seed: int = 1) -> None:
        self.server = server
        self.loss = self.doubles = self.late = 0.0
        self._key = key
        self._keys: dict[tuple[int, int], Keys] = {}
        self._counter = time.time_ns()
        self._highest: dict[tuple[int, int], tuple[int, Peer]] = {}
        self._random = random.Random(seed)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.address = "127.0.0.1:%d" % self._socket.getsockname()[1]
        self._way: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._ended = False
        self.is_away = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def restart(self) -> None:
        """What it held is lost."""
        with self._lock:
            self.server.restart()

    def close(self) -> None:
        self._ended = True
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            while not self._ended:
                selector.select(0.002)
                with self._lock:
                    self._turn()

    def _turn(self) -> None:
        now = time.monotonic()
        while True:
            try:
                bytes_, peer = self._socket.recvfrom(65536)
            except OSError:
                break
            if not self.is_away:
                self._pass(now, lambda bytes_=bytes_, peer=peer: self._receive(bytes_, peer))  # type: ignore[misc]
        for peer, datagram in self.server.step(now):
            self._reply(now, peer, datagram)
        while self._way and self._way[0][0] <= now:
            heapq.heappop(self._way)[2]()

    def _pass(self, now: float, deliver: Callable[[], None]) -> None:
        if self._random.random() < self.loss:
            return
        for _ in range(1 + (self._random.random() < self.doubles)):
            late = self._random.uniform(0, 0.02) if self._random.random() < self.late else 0.0
            self._count += 1
            heapq.heappush(self._way, (now + late, self._count, deliver))

    def _receive(self, bytes_: bytes, peer: Peer) -> None:
        now = time.monotonic()
        try:
            datagram, peer = self._opened(bytes_, peer)
        except DecodeError as error:
            self.server.wrong.append(f"{error.reason}: {bytes_.hex()}")
            return
        for to, reply in self.server.handle(now, (peer, len(bytes_)), datagram):
            self._reply(now, to, reply)

    def _opened(self, bytes_: bytes, peer: Peer) -> tuple[Datagram, Peer]:
        if self._key is None:
            return wire.decode(bytes_), peer
        head = seal.peek(bytes_)
        session = (head.fields.client, head.keys_epoch)
        datagram = seal.unseal(bytes_, self._keys_of(*session))
        # PROTOCOL.md#sealed-address: a recorded datagram moves nothing.
        self._highest[session] = max(self._highest.get(session, (0, peer)), (head.counter, peer))
        return datagram, peer if isinstance(datagram, Hello) else self._highest[session][1]

    def _keys_of(self, client: int, epoch: int) -> Keys:
        assert self._key is not None
        return self._keys.setdefault((client, epoch), Keys(self._key, client, epoch))

    def _reply(self, now: float, to: Peer, reply: Datagram) -> None:
        peer, most = to
        if self._key is None:
            bytes_ = wire.encode(reply)
        else:
            self._counter += 1
            epoch = 0 if isinstance(reply, (Hello, Welcome)) else reply.epoch
            bytes_ = seal.seal(reply, self._keys_of(reply.client, epoch), self._counter)
        if len(bytes_) > most:
            self.server.wrong.append(f"the server's own mistake: {reply} is longer than what drew it")
        self._pass(now, lambda: self._send(bytes_, peer))

    def _send(self, bytes_: bytes, peer: Peer) -> None:
        if not self.is_away:
            try:
                self._socket.sendto(bytes_, peer)
            except OSError:
                pass  # the client has ended
