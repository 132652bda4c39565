"""Checks of a server, over UDP alone: PROTOCOL.md#server-rules and what every datagram gets. Each check is a client of its
own, so that a server in use can be checked; it journals a few dozen records of unknown clients."""

from __future__ import annotations

import json
import secrets
import socket
import time
from pathlib import Path
from typing import Callable, Optional, Union

from duragram import wire
from duragram.wire import Ack, Answer, Data, Datagram, DecodeError, Hello, Ping, Reject, Take, Welcome

from .run import Verdict

ANCHORS = (
    "server-order", "silence", "versions", "no-amplification", "ack", "hello", "welcome", "ping", "batch",
    "rule-1", "rule-2", "rule-3", "rule-4", "rule-5", "rule-6",
)  # fmt: skip
VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "datagrams.json"
#: A sync may take long; an answer that does not come is waited for as long.
PATIENCE = 3.0


class Wrong(Exception):
    """The server did something else."""


class Peer:
    """A client with an id and an epoch of its own, that sends what it is told."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.address = (host, int(port))
        self.client = secrets.randbits(64)
        self.epoch = int(time.time())
        self.sockets: list[socket.socket] = []
        self.socket = self.another_socket()

    def another_socket(self) -> socket.socket:
        opened = socket.socket(socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET, socket.SOCK_DGRAM)
        opened.connect(self.address)
        self.sockets.append(opened)
        return opened

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *error: object) -> None:
        for opened in self.sockets:
            opened.close()

    def data(self, seq: int, payload: bytes = bytes(16), span: int = 0, attempt: int = 0, skip: bool = False) -> Data:
        return Data(self.client, self.epoch, seq, payload, span, attempt, skip=skip)

    def asking(self, seq: int, payload: bytes = b"work", span: int = 0, attempt: int = 0) -> Data:
        return self.data(seq, payload, span, attempt)._replace(options=wire.ASK)

    def take(self, seq: int, wait_ms: int = 0, room: int = 1024, span: int = 0) -> Take:
        return Take(self.client, self.epoch, seq, span, wait_ms, room)

    def takes(self, take: Take) -> Answer:
        """What a TAKE draws, however long it is held."""
        reply = self.ask(take, PATIENCE + take.wait_ms / 1000)
        if not isinstance(reply, Answer) or reply.seq != take.seq:
            raise Wrong(f"{reply} instead of an ANSWER to {take}")
        return reply

    def ask(self, what: Union[Datagram, bytes], patience: float = PATIENCE) -> Datagram:
        """Sends it and gives the answer."""
        bytes_ = what if isinstance(what, bytes) else wire.encode(what)
        self.socket.send(bytes_)
        reply = self.answer(patience)
        if reply is None:
            raise Wrong(f"no answer to {what!r:.120}")
        if len(wire.encode(reply)) > len(bytes_):
            raise Wrong(f"the answer to {len(bytes_)} bytes has {len(wire.encode(reply))}")
        return reply

    def answer(self, patience: float = PATIENCE) -> Optional[Datagram]:
        self.socket.settimeout(patience)
        try:
            return wire.decode(self.socket.recv(65536))
        except TimeoutError:
            return None
        except DecodeError as error:
            raise Wrong(f"an answer that is no datagram: {error.reason}") from error

    def acks(self, what: Union[Datagram, bytes]) -> Ack:
        reply = self.ask(what)
        if not isinstance(reply, Ack):
            raise Wrong(f"{reply} instead of an ACK of {what!r:.120}")
        return reply

    def rejects(self, what: Datagram, code: int) -> None:
        reply = self.ask(what)
        if not isinstance(reply, Reject) or reply.code != code:
            raise Wrong(f"{reply} instead of REJECT {code} of {what!r:.120}")


def expect(condition: bool, what: str) -> None:
    if not condition:
        raise Wrong(what)


def vectors(address: str) -> list[Verdict]:
    """Each golden datagram as the first of a session: a server with default limits does what its `server` says."""
    with Peer(address) as peer:
        answers = has_answers(peer)
    wrong: dict[str, list[str]] = {"server-order": [], "silence": [], "versions": [], "batch": []}
    for vector in json.loads(VECTORS.read_text())["datagrams"]:
        # What a server without the extension for answers does stands beside it.
        does = vector if answers else vector.get("without", vector)
        anchor = "silence" if does["server"] == "drop" else "server-order"
        if "version" in vector or "version_refusal" in vector:
            anchor = "versions"
        elif "records" in vector or vector.get("error") == "broken_batch":
            anchor = "batch"
        bytes_, reply = bytes.fromhex(vector["hex"]), bytes.fromhex(does.get("reply", ""))
        with Peer(address) as peer:
            if "error" not in vector and does["server"] != "drop":
                # Under a name of its own, lest it be a duplicate of what an earlier run sent.
                bytes_ = _renamed(bytes_, peer.client)
                reply = _renamed(reply, peer.client) if reply else b""
            try:
                _check_vector(peer, does["server"], bytes_, reply)
            except Wrong as error:
                wrong[anchor].append(f"{vector['name']}: {error}")
    return [Verdict(anchor, not of, "; ".join(of[:3]) or "every golden datagram of this kind") for anchor, of in wrong.items()]


def has_answers(peer: Peer) -> bool:
    """Whether it has the extension: one without it refuses ASK as an option that it does not have (PROTOCOL.md#ask)."""
    reply = peer.ask(peer.asking(1))
    return not (isinstance(reply, Reject) and reply.code == wire.REJECT_UNSUPPORTED)


def _check_vector(peer: Peer, server: str, bytes_: bytes, expected: bytes) -> None:
    if server == "drop":
        # An answer to the PING and none before it: the datagram itself got none.
        peer.socket.send(bytes_)
        peer.epoch += 1
        reply = peer.ask(Ping(peer.client, peer.epoch))
        expect(isinstance(reply, Ack) and reply.client == peer.client, f"answered by {reply}")
        return
    reply = peer.ask(bytes_)
    if server in ("reject", "answer"):
        expect(wire.encode(reply) == expected, f"{reply}")
    else:
        kind = {"journal": Ack, "ack": Ack, "welcome": Welcome}[server]
        expect(isinstance(reply, kind), f"{reply}")


def _renamed(bytes_: bytes, client: int) -> bytes:
    return wire.with_crc(bytes_[:8] + client.to_bytes(8, "little") + bytes_[16:-4])


def rule_1(peer: Peer) -> str:
    expect(peer.acks(peer.data(100)).floor == 100, "seq 100 with span 0 opens with floor 99, then has floor 100")
    peer.epoch += 1
    ack = peer.acks(peer.data(100, span=9))
    expect((ack.floor, ack.bitmap) == (90, b"\0\2\0\0\0\0\0\0"), f"seq 100 with span 9 opens with floor 90: {ack}")
    return "an unknown session opens with floor = base - 1"


def rule_2(peer: Peer) -> str:
    first, second = peer.acks(peer.data(1)), peer.acks(peer.data(1, attempt=1))
    expect(not first.duplicate and second.duplicate and second.floor == 1, f"{first}, then {second}")
    peer.acks(peer.data(3, span=1))
    again = peer.acks(peer.data(3, span=1, attempt=1))
    expect(again.duplicate and again.floor == 1, f"a duplicate above the floor: {again}")
    return "a duplicate is acked again, with DUPLICATE"


def rule_3(peer: Peer) -> str:
    peer.acks(peer.data(1))
    peer.rejects(peer.data(65_000, span=64_998), wire.REJECT_BEYOND_WINDOW)
    expect(peer.acks(Ping(peer.client, peer.epoch)).floor == 1, "and nothing has changed")
    return "a seq beyond the window gets REJECT 5"


def rule_4(peer: Peer) -> str:
    peer.acks(peer.data(1))
    expect(peer.acks(peer.data(5, skip=True)).floor == 5, "SKIP moves the floor to base - 1")
    expect(peer.acks(peer.data(8, span=1)).floor == 6, "so does a claim of lost acks")
    expect(peer.acks(peer.data(7)).floor == 8, "and on over what is journaled above")
    peer.rejects(peer.data(1_000_000), wire.REJECT_STALE_EPOCH)
    expect(peer.acks(Ping(peer.client, peer.epoch)).floor == 8, "a leap beyond the window changes nothing")
    return "base - 1 moves the floor, not farther than the window"


def rule_5(peer: Peer) -> str:
    peer.acks(peer.data(1))
    ack = peer.acks(peer.data(4, span=2))
    expect((ack.floor, ack.bitmap) == (1, b"\4\0\0\0\0\0\0\0"), f"4 is journaled, 2 and 3 are missing: {ack}")
    expect(peer.acks(peer.data(3, span=1)).bitmap == b"\6\0\0\0\0\0\0\0", "then 3")
    expect(peer.acks(peer.data(2)).floor == 4, "and 2 closes the gap")
    return "what comes out of order is journaled"


def rule_6(peer: Peer) -> str:
    peer.acks(peer.data(1))
    first, peer.socket = peer.socket, peer.another_socket()
    expect(peer.acks(peer.data(2)).floor == 2, "the ack goes where the newest datagram came from")
    first.settimeout(0.1)
    try:
        raise Wrong(f"the old address got {first.recv(512)!r}")
    except TimeoutError:
        return "a session is found by client and epoch, its acks go to the newest address"


def ack(peer: Peer) -> str:
    began = time.monotonic()
    reply = peer.acks(peer.data(1))
    took_us = (time.monotonic() - began) * 1e6
    expect(reply.durability == 0 and reply.delay_us <= took_us, f"durability 0, delay_us within {took_us:.0f}: {reply}")
    expect(reply.credit > 0, f"an idle server gives credit: {reply}")
    return "says that it is synced, how long that took, and how far the client may go"


def no_amplification(peer: Peer) -> str:
    peer.acks(peer.data(1))
    for seq in range(3, 100, 2):
        peer.ask(peer.data(seq, b"", span=seq - 2))
    longest = peer.acks(peer.data(101, bytes(9), span=99))
    expect(len(longest.bitmap) == 8, f"9 bytes of payload have room for one word: {longest}")
    return "an answer is never longer than what it answers; the bitmap is cut to fit"


def hello(peer: Peer) -> str:
    nonce = secrets.randbits(64)
    first = peer.ask(Hello(peer.client, nonce))
    again = peer.ask(Hello(peer.client, nonce))
    expect(isinstance(first, Welcome) and first == again, f"the same nonce gets the same epoch: {first}, {again}")
    return "repeated with its nonce it gets the same epoch"


def welcome(peer: Peer) -> str:
    nonces = [secrets.randbits(64) for _ in range(2)]
    replies = [peer.ask(Hello(peer.client, nonce)) for nonce in nonces]
    epochs = []
    for nonce, reply in zip(nonces, replies):
        expect(isinstance(reply, Welcome) and reply.nonce == nonce and reply.credit > 0, f"{reply}")
        epochs.append(reply.epoch if isinstance(reply, Welcome) else 0)
        expect(epochs[-1] >= int(time.time()) - 5, f"at least the Unix time: {reply}")
    expect(epochs[0] < epochs[1], f"another nonce gets a higher epoch: {epochs}")
    peer.epoch = epochs[1]
    expect(peer.acks(peer.data(1)).floor == 1, "and the session takes data")
    return "gives a new epoch, at least the Unix time, and credit"


def ping(peer: Peer) -> str:
    unknown = peer.acks(Ping(peer.client, peer.epoch))
    expect((unknown.floor, unknown.duplicate) == (0, True) and unknown.credit > 0, f"of an unknown session: {unknown}")
    expect(peer.acks(peer.data(50)).floor == 50, "it has opened no session")
    expect(peer.acks(Ping(peer.client, peer.epoch)).floor == 50, "of a known one: its floor")
    return "is answered with the session's ACK, and opens none"


CHECKS: dict[str, Callable[[Peer], str]] = {
    "ack": ack, "hello": hello, "welcome": welcome, "ping": ping, "no-amplification": no_amplification,
    "rule-1": rule_1, "rule-2": rule_2, "rule-3": rule_3, "rule-4": rule_4, "rule-5": rule_5, "rule-6": rule_6,
}  # fmt: skip


def check(address: str) -> list[Verdict]:
    return vectors(address) + run(address, CHECKS)


def run(address: str, checks: dict[str, Callable[[Peer], str]]) -> list[Verdict]:
    """Each with a client of its own."""
    verdicts = []
    for anchor, one in checks.items():
        try:
            with Peer(address) as peer:
                verdicts.append(Verdict(anchor, True, one(peer)))
        except Wrong as error:
            verdicts.append(Verdict(anchor, False, str(error), "server"))
    return verdicts
