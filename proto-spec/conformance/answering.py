"""Checks of a server's answers, over UDP alone (PROTOCOL.md#answers-server). What a handler makes of a record is that of
`asks.handled`: the model has it built in, a real server runs `handler.py`."""

from __future__ import annotations

import time
from typing import Callable

from duragram import wire
from duragram.wire import Answer, Ping, Reject

from . import server
from .asks import ASKS_MAX, HELD_MAX
from .run import Verdict
from .server import Peer, Wrong, expect

ANCHORS = ("ask", "answer", "take", "ready", "rule-a1", "rule-a2", "rule-a3", "rule-a4", "rule-a5", "rule-a6", "rule-a7", "rule-a8", "rule-a9")
#: How long nothing must come where nothing may, in seconds. What comes later is not seen.
SILENCE = 0.3
#: So long the handler works on a slow record: longer than all of a check that looks at an open ask.
SLOW = b"wait 1.5 "


def done(peer: Peer, seq: int) -> Answer:
    """The answer to an ask whose handler is quick."""
    answer = peer.takes(peer.take(seq, 5_000))
    expect(answer.status == wire.DONE, f"DONE of seq {seq}, not {answer}")
    return answer


def silent(peer: Peer, seconds: float = SILENCE) -> None:
    reply = peer.answer(seconds)
    expect(reply is None, f"nobody asked for {reply}")


def ask(peer: Peer) -> str:
    """PROTOCOL.md#ask"""
    began = time.monotonic()
    ack = peer.acks(peer.asking(1, SLOW))
    took = time.monotonic() - began
    expect(ack.floor == 1 and took < 1.0, f"acked when it is on disk, not when it is processed ({took:.2f} s)")
    peer.rejects(peer.asking(2, wire.batch([b"a"]))._replace(batch=True), wire.REJECT_UNSUPPORTED)
    peer.rejects(peer.asking(2)._replace(options=wire.ASK | 4), wire.REJECT_UNSUPPORTED)
    peer.acks(peer.data(2))
    expect(peer.takes(peer.take(2, span=1)).status == wire.GONE, "what did not ask has no answer")
    return "acked when it is on disk; a batch may not ask"


def answer(peer: Peer) -> str:
    """PROTOCOL.md#answer"""
    for seq, payload in enumerate((b"work", b"quiet", b"fail"), 1):
        peer.acks(peer.asking(seq, payload))
    found = [peer.takes(peer.take(seq, 5_000, span=seq - 1)) for seq in (1, 2, 3)]
    expect((found[0].status, found[0].number, found[0].body) == (wire.DONE, 8, b"did work"), f"the handler's body: {found[0]}")
    expect((found[1].status, found[1].number) == (wire.DONE, 0), f"none where it gave none: {found[1]}")
    expect(found[2].status == wire.FAILED, f"FAILED where it gave up: {found[2]}")
    return "DONE with the handler's body, FAILED, and what no handler had is GONE"


def take(peer: Peer) -> str:
    """PROTOCOL.md#take"""
    peer.acks(peer.asking(1))
    done(peer, 1)
    bare = peer.takes(peer.take(1, room=0))
    expect((bare.status, bare.number, bare.body) == (wire.DONE, 8, b""), f"without room its length alone: {bare}")
    short = peer.takes(peer.take(1, room=7))
    expect((short.number, short.body) == (8, b""), f"with too little room no part of it: {short}")
    whole = peer.takes(peer.take(1, room=8))
    expect(whole.body == b"did work", f"with room for it: {whole}")
    return "an answer without its body where that does not fit"


def ready(peer: Peer) -> str:
    """PROTOCOL.md#ready"""
    expect(not peer.acks(peer.data(1)).ready, "of a session that never asked")
    expect(not peer.acks(peer.asking(2, SLOW)).ready, "while nothing is answered")
    peer.takes(peer.take(2, 5_000))
    expect(peer.acks(Ping(peer.client, peer.epoch)).ready, "once something is")
    peer.takes(peer.take(3))
    expect(not peer.acks(Ping(peer.client, peer.epoch)).ready, "no more when it was had")
    return "is set while an answer waits, and only then"


def rule_a1(peer: Peer) -> str:
    """PROTOCOL.md#rule-a1"""
    peer.acks(peer.asking(1))
    done(peer, 1)
    peer.takes(peer.take(2))
    expect(peer.acks(peer.asking(1, attempt=1)).duplicate, "a duplicate is acked")
    expect(peer.takes(peer.take(1)).status == wire.GONE, "and asks nothing anew")
    for seq in range(2, 2 + ASKS_MAX):
        peer.acks(peer.asking(seq, b"quiet"))
    last = 2 + ASKS_MAX
    peer.rejects(peer.asking(last), wire.REJECT_BUSY)
    expect(peer.acks(peer.data(last)).floor == last, "what does not ask is journaled all the same")
    expect(peer.acks(peer.asking(2, b"quiet", attempt=1)).duplicate, "and a duplicate is acked")
    stranger = peer.asking(50)._replace(epoch=peer.epoch - 1)
    peer.rejects(stranger, wire.REJECT_BUSY)
    unknown = peer.acks(Ping(peer.client, peer.epoch - 1))
    expect(unknown.floor == 0, f"what was refused opened no session: {unknown}")
    peer.takes(peer.take(last))
    expect(peer.acks(peer.asking(last + 1)).floor == last + 1, "and there is room again when answers were had")
    return f"a duplicate makes no ask; beyond {ASKS_MAX} of one client REJECT 6"


def rule_a2(peer: Peer) -> str:
    """PROTOCOL.md#rule-a2"""
    peer.acks(peer.asking(1))
    first = done(peer, 1)
    again = [peer.takes(peer.take(1)) for _ in range(3)]
    expect(again == [first] * 3, f"{first}, then {again}")
    peer.takes(peer.take(2))
    expect(peer.takes(peer.take(1)).status == wire.GONE, "what was forgotten stays so")
    return "the first answer stands, until it is forgotten"


def rule_a3(peer: Peer) -> str:
    """PROTOCOL.md#rule-a3, as far as it shows without a crash."""
    peer.acks(peer.asking(1, SLOW))
    expect(peer.takes(peer.take(1)).status == wire.PENDING, "no answer before the effect")
    return "nothing is told before it was processed (what a crash leaves is not looked at)"


def rule_a4(peer: Peer) -> str:
    """PROTOCOL.md#rule-a4"""
    expect(peer.takes(peer.take(7)).status == wire.GONE, "GONE of an unknown session")
    # So far ahead that a session with floor 0 would refuse it.
    at = 1_000_000
    expect(peer.acks(peer.data(at)).floor == at, "and the TAKE has opened none")
    for seq in (at + 1, at + 2, at + 3):
        peer.acks(peer.asking(seq))
    done(peer, at + 1)
    # What waits at seq - span and above is kept.
    expect(peer.takes(peer.take(at + 3, 5_000, span=1)).status == wire.DONE, "the last one")
    expect(peer.takes(peer.take(at + 2, 5_000)).status == wire.DONE, "span 1 has kept the one before")
    expect(peer.takes(peer.take(at + 1)).status == wire.GONE, "and forgotten the one below")
    expect(peer.takes(peer.take(at + 9, span=8)).status == wire.GONE, "what never asked")
    return "forgets what lies below seq - span, and opens no session"


def rule_a5(peer: Peer) -> str:
    """PROTOCOL.md#rule-a5"""
    peer.acks(peer.asking(1, SLOW))
    first, second = peer.socket, peer.another_socket()
    first.send(wire.encode(peer.take(1, 10_000)))
    # A later datagram of the same session, from another address.
    peer.socket = second
    peer.acks(Ping(peer.client, peer.epoch))
    peer.socket = first
    answer = peer.answer(5.0)
    expect(isinstance(answer, Answer) and answer.status == wire.DONE, f"to where the TAKE came from: {answer}")
    silent(peer)
    peer.socket = second
    silent(peer, 0.01)
    peer.acks(peer.asking(2, b"wait 0.05 "))
    silent(peer)
    return "one ANSWER to one TAKE, to where it came from; none without"


def rule_a6(peer: Peer) -> str:
    """PROTOCOL.md#rule-a6"""
    began = time.monotonic()
    peer.acks(peer.asking(1, b"wait 0.6"))
    answer = peer.takes(peer.take(1, 10_000))
    took = time.monotonic() - began
    expect(answer.status == wire.DONE and 0.5 < took < 2.0, f"held until the answer is there ({took:.2f} s): {answer}")
    peer.acks(peer.asking(2, SLOW))
    began = time.monotonic()
    answer = peer.takes(peer.take(2, 400))
    took = time.monotonic() - began
    expect(answer.status == wire.PENDING and 0.35 < took < 1.2, f"PENDING after wait_ms ({took:.2f} s): {answer}")
    peer.socket.send(wire.encode(peer.take(2, 10_000)))
    answer = peer.takes(peer.take(2, 10_000))
    expect(answer.status == wire.DONE, f"{answer}")
    silent(peer)
    for n in range(HELD_MAX + 1):
        peer.acks(peer.asking(3 + n, b"wait 3 "))
    for n in range(HELD_MAX):
        peer.socket.send(wire.encode(peer.take(3 + n, 20_000, room=0, span=n)))
    answer = peer.takes(peer.take(3 + HELD_MAX, 1_000, span=HELD_MAX))
    expect(answer.status == wire.PENDING and answer.number >= 1_000, f"beyond {HELD_MAX} PENDING at once: {answer}")
    # Nor does slow work stay behind for the next check.
    drawn = [one for one in (peer.answer(20.0) for _ in range(HELD_MAX)) if isinstance(one, Answer) and one.status == wire.DONE]
    expect({one.seq for one in drawn} == set(range(3, 3 + HELD_MAX)), f"each held TAKE draws its answer: {drawn}")
    return f"held to the answer or to wait_ms; a newer TAKE of its seq ends it in silence; {HELD_MAX} of a session"


def rule_a7(peer: Peer) -> str:
    """PROTOCOL.md#rule-a7"""
    peer.acks(peer.asking(1, SLOW))
    at_once = peer.takes(peer.take(1))
    expect(at_once.status == wire.PENDING and at_once.number >= 1_000, f"not held: at least a second: {at_once}")
    held = peer.takes(peer.take(1, 300))
    expect((held.status, held.number) == (wire.PENDING, 0), f"held to its end: at once again: {held}")
    return "PENDING names 0 after a full hold, else at least 1,000 ms"


def rule_a8(peer: Peer) -> str:
    """PROTOCOL.md#rule-a8, as far as it shows without a wait of a day."""
    for seq in range(1, ASKS_MAX + 1):
        peer.acks(peer.asking(seq, b"quiet"))
    old, peer.epoch = peer.epoch, peer.epoch + 1
    expect(peer.acks(peer.asking(1)).floor == 1, "a newer epoch of the same client has room")
    done(peer, 1)
    peer.epoch = old
    kept = [peer.takes(peer.take(seq, 5_000, span=seq - 1)).status != wire.GONE for seq in range(1, ASKS_MAX + 1)]
    expect(kept.count(False) >= 1, "in the place of one of the lowest epoch")
    return "a newer epoch takes the place of what the lowest has"


def rule_a9(peer: Peer) -> str:
    """PROTOCOL.md#rule-a9"""
    for seq in range(1, 9):
        peer.acks(peer.asking(seq, b"retry " if seq == 5 else b"work"))
    began = time.monotonic()
    for seq in range(1, 5):
        answer = peer.takes(peer.take(seq, 5_000, span=seq - 1))
        expect(answer.status == wire.DONE, f"DONE of seq {seq}, not {answer}")
    took = time.monotonic() - began
    expect(took < 1.0, f"while another record waits to be tried again ({took:.2f} s)")
    return "a record that is tried again holds no answer of those before it"


CHECKS: dict[str, Callable[[Peer], str]] = {
    "ask": ask, "answer": answer, "take": take, "ready": ready, "rule-a1": rule_a1, "rule-a2": rule_a2, "rule-a3": rule_a3, "rule-a4": rule_a4,
    "rule-a5": rule_a5, "rule-a6": rule_a6, "rule-a7": rule_a7, "rule-a8": rule_a8, "rule-a9": rule_a9,
}  # fmt: skip


def without(peer: Peer) -> list[Verdict]:
    """Of a server that does not have the extension: it says so, and its silence is that of an unknown type."""
    reply = peer.ask(peer.asking(1))
    refused = isinstance(reply, Reject) and reply.code == wire.REJECT_UNSUPPORTED
    peer.socket.send(wire.encode(peer.take(1)))
    drops = peer.answer(SILENCE) is None
    said = "has no answers: refuses ASK, drops TAKE"
    return [Verdict("ask", refused and drops, said, "server"), *(Verdict(anchor, None, "has no answers", "server") for anchor in ANCHORS[1:])]


def check(address: str) -> list[Verdict]:
    with Peer(address) as peer:
        if not server.has_answers(peer):
            return without(peer)
        found = peer.takes(peer.take(1, 5_000))
        if (found.status, found.body) != (wire.DONE, b"did work"):
            said = f"its handler is not handler.py: {found}"
            return [Verdict(anchor, None, said, "server") for anchor in ANCHORS]
    return server.run(address, CHECKS)


__all__ = ["ANCHORS", "CHECKS", "Wrong", "check"]
