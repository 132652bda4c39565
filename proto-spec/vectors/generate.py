#!/usr/bin/env python3
"""Writes datagrams.json, from PROTOCOL.md alone: struct and zlib, none of the project's code.

The file is fixed: datagrams may be added, none may change. Where a flag or a type is given a meaning, descriptions say it.
`python3 generate.py | diff - datagrams.json` prints nothing.
"""

import json
import struct
import zlib

from fields import *  # noqa: F403


def body(kind, flags, small, epoch, client, long, word, variable=b"", version=1):
    return struct.pack("<BBHIQQI", version << 4 | kind, flags, small, epoch, client, long, word) + variable


def crc(bytes_):
    return bytes_ + struct.pack("<I", zlib.crc32(bytes_))


def crc32c(bytes_):
    state = 0xFFFFFFFF
    for byte in bytes_:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def batch(*records):
    return b"".join(struct.pack("<H", len(record)) + record for record in records)


vectors = []


def add(name, about, bytes_, **more):
    assert not any(vector["name"] == name for vector in vectors), name
    vectors.append({"name": name, "about": about, "hex": bytes_.hex(), **more})


def described(client, fields):
    """With the client after the type."""
    return {"type": fields["type"], "client": f"{client:016x}", **fields}


def data(name, about, seq, payload=b"", span=0, flags=WHOLE, channel=0, options=0, epoch=3, client=CLIENT, **more):
    bytes_ = crc(body(DATA, flags, span, epoch, client, seq, channel | options << 16, payload))
    fields = data_fields(seq, payload, span, flags, channel, options, epoch)
    more.setdefault("server", "journal")
    add(name, about, bytes_, datagram=described(client, fields), **more)


def ack(name, about, floor, bitmap=b"", flags=0, credit=1024, delay_us=150, epoch=3, client=CLIENT, **more):
    bytes_ = crc(body(ACK, flags, credit, epoch, client, floor, delay_us, bitmap))
    fields = ack_fields(floor, bitmap, flags, credit, delay_us, epoch)
    add(name, about, bytes_, datagram=described(client, fields), server="drop", **more)


def reject_bytes(code, refused, retry_after_ms=0, epoch=3, client=CLIENT, version=1):
    return crc(body(REJECT, 0, code, epoch, client, refused, retry_after_ms, version=version))


def reject(name, about, code, refused, retry_after_ms=0, epoch=3, client=CLIENT):
    fields = reject_fields(code, refused, retry_after_ms, epoch)
    bytes_ = reject_bytes(code, refused, retry_after_ms, epoch, client)
    add(name, about, bytes_, datagram=described(client, fields), server="drop")


def hello(name, about, nonce, client=CLIENT):
    bytes_ = crc(body(HELLO, 0, 0, 0, client, nonce, 0))
    add(name, about, bytes_, datagram=described(client, hello_fields(nonce)), server="welcome")


def welcome(name, about, nonce, epoch, credit=1024, client=CLIENT):
    bytes_ = crc(body(WELCOME, 0, credit, epoch, client, nonce, 0))
    add(name, about, bytes_, datagram=described(client, welcome_fields(nonce, epoch, credit)), server="drop")


def ping(name, about, epoch=3, client=CLIENT):
    bytes_ = crc(body(PING, 0, 0, epoch, client, 0, 0))
    add(name, about, bytes_, datagram=described(client, ping_fields(epoch)), server="ack")


def answer_bytes(seq, status, number, body_=b"", epoch=3, client=CLIENT):
    return crc(body(ANSWER, 0, status, epoch, client, seq, number, body_))


def answer(name, about, seq, status, number, body_=b"", epoch=3, client=CLIENT):
    fields = answer_fields(seq, status, number, body_, epoch)
    bytes_ = answer_bytes(seq, status, number, body_, epoch, client)
    add(name, about, bytes_, datagram=described(client, fields), server="drop")


def take(name, about, seq, span=0, wait_ms=0, room=0, epoch=3, client=CLIENT, **more):
    bytes_ = crc(body(TAKE, 0, span, epoch, client, seq, wait_ms, bytes(room)))
    if not more:
        # Of a session that the server does not know.
        gone = answer_bytes(seq, GONE, 0, epoch=epoch, client=client)
        more = {"server": "answer", "reply": gone.hex(), "without": {"server": "drop"}}
    add(name, about, bytes_, datagram=described(client, take_fields(seq, span, wait_ms, room, epoch)), **more)


def ask(name, about, seq, payload=b"", epoch=3, client=CLIENT, **more):
    without = {"server": "reject", "reply": reject_bytes(2, seq, epoch=epoch, client=client).hex()}
    data(name, about, seq, payload, options=ASK, epoch=epoch, client=client, without=without, **more)


def bad(name, about, bytes_, error, **more):
    add(name, about, bytes_, error=error, **{"server": "drop", **more})


# The worked example of PROTOCOL.md.
data("example-data-1", "the first message", 1, b"hello")
ack("example-ack-1", "it is on disk", 1)
data("example-data-2", "the second message, which the path loses", 2, b"what the path will lose")
data("example-data-3", "two records in one datagram; seq 2 is still held", 3, batch(b"first", b"second"), span=1, flags=WHOLE | BATCH)
ack("example-ack-3", "3 is journaled, 2 is not", 1, struct.pack("<Q", 1 << 1), delay_us=210)
data("example-data-2-again", "the second message again", 2, b"what the path will lose", flags=WHOLE | 1)
ack("example-ack-all", "all is on disk", 3, delay_us=180)
ping("example-ping", "asks for the session's ACK")
ack("example-ack-ping", "nothing new", 3, flags=DUPLICATE, delay_us=20)
data("example-data-4", "a message that comes while the disk is full", 4, b"later")
reject("example-reject", "out of space; try again in a second", 7, 4, 1000)
hello("example-hello", "a client that keeps no epoch", 0x1122334455667788)
welcome("example-welcome", "its epoch, at least the time of day", 0x1122334455667788, 1_790_000_000)

# DATA.
data("data-empty", "the shortest DATA: 32 bytes", 1)
data("data-every-field", "every field at a value of its own; span 4,660 is beyond the default window of 4,096", 0x0123456789ABCDEF, bytes(range(40)), 0x1234, WHOLE | SKIP | 5, 0xBEEF, epoch=0xCAFEBABE, client=OTHER, server="reject", reply=reject_bytes(5, 0x0123456789ABCDEF, epoch=0xCAFEBABE, client=OTHER).hex())
data("data-last", "the last seq, epoch, client and channel", LAST, b"z", 0, WHOLE, 0xFFFF, epoch=0xFFFFFFFF, client=LAST)
data("data-span-widest", "base is 1; beyond any window", 65536, b"z", 65535, server="reject", reply=reject_bytes(5, 65536).hex())
data("data-skip", "the client has abandoned a seq below base", 9, b"z", 2, WHOLE | SKIP)
for attempt in range(1, 8):
    data(f"data-attempt-{attempt}", "saturates at 7", 5, b"again", 0, WHOLE | attempt)
data("data-channel", "an application's routing number", 1, b"z", channel=513)
data("data-binary", "any byte may stand in a payload", 1, bytes(range(256)))
data("data-longest-recommended", "1,200 bytes", 1, b"\xaa" * 1168)
data("data-batch-one", "one record", 1, batch(b"alone"), flags=WHOLE | BATCH, records=[b"alone".hex()])
data("data-batch-many", "records of unlike lengths, empty ones too", 1, batch(b"", b"a", b"", b"\x00\x01\x02"), flags=WHOLE | BATCH, records=["", "61", "", "000102"])
unsupported = {"server": "reject", "reply": reject_bytes(2, 1).hex()}
data("data-fragment-first", "fragments are for a later version", 1, b"z", flags=BEGIN, **unsupported)
data("data-fragment-last", "the same", 1, b"z", flags=END, **unsupported)
data("data-fragment-middle", "the same", 1, b"z", flags=0, **unsupported)
data("data-fragment-of-a-batch", "refused before the batch is looked into", 1, b"\x07\x00z", flags=BEGIN | BATCH, **unsupported)
data("data-reserved", "reserved is not 0", 1, b"z", options=1, **unsupported)
data("data-reserved-with-a-broken-batch", "refused before the batch is looked into", 1, b"", flags=WHOLE | BATCH, options=0x8000, **unsupported)
data("data-too-long-for-the-default", "1,473 bytes; the default limit is 1,472", 1, b"\xaa" * 1441, server="reject", reply=reject_bytes(3, 1).hex())

# ACK.
ack("ack-nothing", "of a session that the server does not know", 0, flags=DUPLICATE, delay_us=0)
ack("ack-no-credit", "credit may be 0", 7, credit=0)
ack("ack-every-field", "every field at a value of its own", 0x0123456789ABCDEF, b"\x02\x00\x00\x00\x00\x00\x00\x80", DUPLICATE | 2, 0xBEEF, 0x89ABCDEF, 0xCAFEBABE, OTHER)
ack("ack-handed", "durability 1: handed to the operating system", 1, flags=1)
ack("ack-replicated", "durability 2: replicated", 1, flags=2)
ack("ack-bitmap-shortest", "seq floor + 2 alone", 4, b"\x02" + bytes(7))
ack("ack-bitmap-longest", "128 bytes, all but the first bit set", 4, b"\xfe" + b"\xff" * 127)
ack("ack-bitmap-zero-words", "zero words at the end mean nothing", 4, b"\x02" + bytes(15))
ack("ack-last", "the largest of every number", LAST, b"", 0, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, LAST)
add("ack-unknown-flags", "flags that have no meaning yet are ignored", crc(body(ACK, 0b1110_0100, 1, 3, CLIENT, 1, 0)), datagram={"type": "ACK", "client": f"{CLIENT:016x}", "epoch": 3, "floor": "1", "credit": 1, "durability": 0, "duplicate": False, "complete": True, "ready": True, "delay_us": 0, "bitmap": ""}, canonical=False, server="drop")

# COMPLETE, and the worked example with it.
ack("ack-complete", "nothing is journaled above the floor", 7, flags=COMPLETE)
ack("ack-complete-bitmap", "beyond the bitmap's end nothing is journaled", 4, b"\x02" + bytes(6) + b"\x80", flags=COMPLETE)
ack("ack-complete-duplicate", "of a session that the server does not know", 0, flags=COMPLETE | DUPLICATE, delay_us=0)
ack("ack-complete-every-flag", "all flags that have a meaning, at their highest", 4, b"\xfe" + b"\xff" * 127, flags=COMPLETE | DUPLICATE | 2)
ack("example-ack-1-complete", "it is on disk, and nothing else is", 1, flags=COMPLETE)
ack("example-ack-3-complete", "3 is journaled, 2 and what is above 3 is not", 1, struct.pack("<Q", 1 << 1), flags=COMPLETE, delay_us=210)
ack("example-ack-all-complete", "all is on disk", 3, flags=COMPLETE, delay_us=180)

# REJECT.
for code, (name, retry) in enumerate([("version", 0), ("unsupported", 0), ("too-large", 0), ("stale-epoch", 0), ("beyond-window", 0), ("busy", 5000), ("storage", 1000), ("channel", 0), ("sealed-only", 0)], 1):
    reject(f"reject-{name}", f"code {code}", code, 9, retry)
reject("reject-unknown-code", "a later version's: treated like BUSY", 4711, 9, 2**32 - 1)
reject("reject-hello", "of a HELLO: epoch 0, the nonce", 6, 0x1122334455667788, 5000, epoch=0)
reject("reject-ping", "of a PING: 0", 9, 0)

# HELLO, WELCOME, PING.
hello("hello-nonce-0", "any nonce will do", 0)
hello("hello-last", "the largest of every number", LAST, LAST)
welcome("welcome-last", "the largest of every number", LAST, 0xFFFFFFFF, 0xFFFF, LAST)
ping("ping-last", "the largest of every number", 0xFFFFFFFF, LAST)

# Not datagrams of this protocol, or not of this version.
good = crc(body(DATA, WHOLE, 0, 3, CLIENT, 1, 0, b"hello"))
bad("bad-empty", "no bytes at all", b"", "truncated")
bad("bad-one-byte", "a first byte that would be right", b"\x11", "truncated")
bad("bad-31-bytes", "one byte short of the shortest", crc(body(PING, 0, 0, 3, CLIENT, 0, 0))[:-1], "truncated")
bad("bad-cut", "a DATA that lost its last byte", good[:-1], "checksum")
bad("bad-crc", "one bit of the trailer is wrong", good[:-1] + bytes([good[-1] ^ 1]), "checksum")
bad("bad-bit", "one bit of the payload is wrong", good[:30] + bytes([good[30] ^ 0x10]) + good[31:], "checksum")
bad("bad-crc-big-endian", "the trailer's bytes the other way round", good[:-4] + good[:-5:-1], "checksum")
bad("bad-crc-32c", "CRC-32C (Castagnoli) instead of CRC-32", good[:-4] + struct.pack("<I", crc32c(good[:-4])), "checksum")
bad("bad-trailing", "a byte after the trailer", good + b"\x00", "checksum")
bad("bad-zeros", "32 zero bytes", bytes(32), "checksum")
bad("bad-text", "foreign traffic", b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", "checksum")
bad("bad-crc-of-another-version", "garbage is not answered, whatever version it seems to have", bytes([0x21]) + good[1:], "checksum")
bad("bad-version-2", "answered, so that an operator learns why", crc(body(DATA, WHOLE, 0, 3, CLIENT, 9, 0, b"hello", version=2)), "version", version={"client": f"{CLIENT:016x}", "epoch": 3, "seq": "9"}, server="reject", reply=reject_bytes(1, 9).hex())
bad("bad-version-0", "the same", crc(body(HELLO, 0, 0, 0, CLIENT, 77, 0, version=0)), "version", version={"client": f"{CLIENT:016x}", "epoch": 0, "seq": "77"}, server="reject", reply=reject_bytes(1, 77, epoch=0).hex())
bad("bad-version-15", "with a type that version 1 does not have", crc(body(12, 0xFF, 0, 3, OTHER, 9, 0, version=15)), "version", version={"client": f"{OTHER:016x}", "epoch": 3, "seq": "9"}, server="reject", reply=reject_bytes(1, 9, client=OTHER).hex())
bad("bad-version-2-reject", "a server of version 2 refuses version 1: for clients; a server must not answer it", reject_bytes(1, 9, version=2), "unknown_type", version_refusal={"client": f"{CLIENT:016x}", "epoch": 3, "refused": "9"})
for kind in [0, *range(9, 16)]:
    bad(f"bad-type-{kind}", "an unassigned type", crc(body(kind, 0, 0, 3, CLIENT, 1, 0)), "unknown_type")
bad("bad-data-epoch-0", "no session has epoch 0", crc(body(DATA, WHOLE, 0, 0, CLIENT, 1, 0)), "malformed")
bad("bad-data-seq-0", "the first seq is 1", crc(body(DATA, WHOLE, 0, 3, CLIENT, 0, 0)), "malformed")
bad("bad-data-span", "base would be 0", crc(body(DATA, WHOLE, 5, 3, CLIENT, 5, 0)), "malformed")
bad("bad-batch-empty", "a batch has at least one record", crc(body(DATA, WHOLE | BATCH, 0, 3, CLIENT, 1, 0)), "broken_batch")
bad("bad-batch-length-cut", "a length needs two bytes", crc(body(DATA, WHOLE | BATCH, 0, 3, CLIENT, 1, 0, batch(b"a") + b"\x00")), "broken_batch")
bad("bad-batch-record-cut", "the last record is longer than what is left", crc(body(DATA, WHOLE | BATCH, 0, 3, CLIENT, 1, 0, batch(b"a") + b"\x03\x00ab")), "broken_batch")
bad("bad-ack-epoch-0", "no session has epoch 0", crc(body(ACK, 0, 1, 0, CLIENT, 1, 0)), "malformed")
bad("bad-ack-bitmap-length", "not a multiple of 8 bytes", crc(body(ACK, 0, 1, 3, CLIENT, 1, 0, b"\x02\x00\x00\x00")), "malformed")
bad("bad-ack-bitmap-too-long", "136 bytes", crc(body(ACK, 0, 1, 3, CLIENT, 1, 0, b"\x02" + bytes(135))), "malformed")
bad("bad-ack-durability", "3 has no meaning", crc(body(ACK, 3, 1, 3, CLIENT, 1, 0)), "malformed")
bad("bad-reject-long", "a REJECT has 32 bytes", crc(body(REJECT, 0, 6, 3, CLIENT, 1, 0, b"\x00")), "malformed")
bad("bad-hello-epoch", "a HELLO has epoch 0", crc(body(HELLO, 0, 0, 3, CLIENT, 1, 0)), "malformed")
bad("bad-hello-flags", "must be 0", crc(body(HELLO, 1, 0, 0, CLIENT, 1, 0)), "malformed")
bad("bad-hello-small", "must be 0", crc(body(HELLO, 0, 1, 0, CLIENT, 1, 0)), "malformed")
bad("bad-hello-word", "must be 0", crc(body(HELLO, 0, 0, 0, CLIENT, 1, 1)), "malformed")
bad("bad-hello-long", "a HELLO has 32 bytes", crc(body(HELLO, 0, 0, 0, CLIENT, 1, 0, bytes(8))), "malformed")
bad("bad-welcome-epoch-0", "no session has epoch 0", crc(body(WELCOME, 0, 1, 0, CLIENT, 1, 0)), "malformed")
bad("bad-welcome-word", "must be 0", crc(body(WELCOME, 0, 1, 3, CLIENT, 1, 1)), "malformed")
bad("bad-ping-epoch-0", "no session has epoch 0", crc(body(PING, 0, 0, 0, CLIENT, 0, 0)), "malformed")
bad("bad-ping-seq", "must be 0", crc(body(PING, 0, 0, 3, CLIENT, 1, 0)), "malformed")
bad("bad-ping-flags", "must be 0", crc(body(PING, 0x80, 0, 3, CLIENT, 0, 0)), "malformed")
bad("bad-ping-small", "must be 0", crc(body(PING, 0, 1, 3, CLIENT, 0, 0)), "malformed")
bad("bad-ping-word", "must be 0", crc(body(PING, 0, 0, 3, CLIENT, 0, 1)), "malformed")
for kind, name in [(DATA, "data"), (ACK, "ack"), (HELLO, "hello"), (PING, "ping")]:
    flags = SEALED | (WHOLE if kind == DATA else 0)
    epoch = 0 if kind == HELLO else 3
    sealed = body(kind, flags, 0, epoch, CLIENT, 1, 0, bytes(8) + b"\x5a" * 16)
    bad(f"sealed-{name}", "sealed, and there is no key", sealed, "sealed")

# Added later: what the first edition left out.
reply_of_2 = {"version": {"client": f"{CLIENT:016x}", "epoch": 3, "seq": "9"}, "server": "reject", "reply": reject_bytes(1, 9).hex()}
bad("bad-version-2-sealed-flag", "flags of another version mean nothing here; its CRC-32 is right", crc(body(DATA, WHOLE | SEALED, 0, 3, CLIENT, 9, 0, b"hello", version=2)), "version", **reply_of_2)
bad("bad-version-2-ack", "whatever type it has, but REJECT", crc(body(ACK, 0, 0, 3, CLIENT, 9, 0, version=2)), "version", **reply_of_2)
bad("bad-version-2-other-reject", "another version's REJECT of a code that this one cannot know: for nobody", crc(body(REJECT, 0, 8, 3, CLIENT, 9, 0, version=2)), "unknown_type")
bad("bad-ack-cut", "an ACK that lost a byte of its bitmap and has a new checksum", crc(body(ACK, 0, 1024, 3, CLIENT, 1, 150, b"\x02" + bytes(6))), "malformed")
bad("bad-welcome-long", "a WELCOME has 32 bytes", crc(body(WELCOME, 0, 1024, 3, CLIENT, 1, 0, bytes(8))), "malformed")
bad("bad-ping-long", "a PING has 32 bytes", crc(body(PING, 0, 0, 3, CLIENT, 0, 0, bytes(8))), "malformed")
for kind, name in [(REJECT, "reject"), (WELCOME, "welcome")]:
    sealed = body(kind, SEALED, 6, 3, CLIENT, 1, 0, bytes(8) + b"\x5a" * 16)
    bad(f"sealed-{name}", "sealed, and there is no key", sealed, "sealed")
bad("sealed-with-a-crc", "SEALED is set, so the last bytes are no CRC-32, though they look like one", crc(body(DATA, WHOLE | SEALED, 0, 3, CLIENT, 1, 0, bytes(24))), "sealed")

# Answers: the example of PROTOCOL.md.
ask("example-ask", "a message that asks", 5, b"open valve 7")
ack("example-ask-ack", "it is on disk", 5, delay_us=170)
take("example-take", "the server may hold it for 20 seconds; no room for a body", 5, wait_ms=20_000)
answer("example-answer-no-room", "processed; the body of 11 bytes did not fit", 5, DONE, 11)
take("example-take-room", "the same with room for it", 5, wait_ms=20_000, room=11)
answer("example-answer", "what the handler gave", 5, DONE, 11, b"valve: open")
take("example-take-had", "the seq after the last that asked: the answers below are had", 6)
answer("example-answer-gone", "it never asked", 6, GONE, 0)

# Answers.
ask("data-ask", "the shortest message that asks", 1)
ask("data-ask-skip", "with every flag that may stand beside ASK", 9, b"z", span=2, flags=WHOLE | SKIP | 7, channel=513)
ask("data-ask-last", "the last seq, epoch and client", LAST, b"z", epoch=0xFFFFFFFF, client=LAST)
data("data-ask-batch", "one answer could not speak of several records", 1, batch(b"a", b"b"), flags=WHOLE | BATCH, options=ASK, **unsupported)
data("data-ask-broken-batch", "refused before the batch is looked into", 1, b"\x07\x00z", flags=WHOLE | BATCH, options=ASK, **unsupported)
data("data-ask-fragment", "fragments are for a later version", 1, b"z", flags=BEGIN, options=ASK, **unsupported)
data("data-ask-and-more", "ASK and an option that is not known", 1, b"z", options=ASK | 4, **unsupported)
data("data-option-last", "an option that is not known", 1, b"z", options=0x8000, **unsupported)
ack("ack-ready", "an answer of this session waits", 7, flags=READY)
ack("ack-ready-every-flag", "all flags that have a meaning, at their highest", 4, b"\xfe" + b"\xff" * 127, flags=COMPLETE | READY | DUPLICATE | 2)
answer("answer-done", "processed, and there is nothing to say: the shortest ANSWER", 1, DONE, 0)
answer("answer-done-one-byte", "a body of one byte", 1, DONE, 1, b"z")
answer("answer-binary", "any byte may stand in a body", 1, DONE, 256, bytes(range(256)))
answer("answer-longest", "1,024 bytes, the default of what a server keeps", 1, DONE, 1024, b"\xaa" * 1024)
answer("answer-failed", "given up", 7, FAILED, 0)
answer("answer-failed-body", "given up, with what the handler says of it", 7, FAILED, 9, b"no valve7")
answer("answer-failed-no-room", "its body did not fit", 7, FAILED, 9)
answer("answer-length-last", "longer than any datagram: it never fits", 7, DONE, 2**32 - 1)
answer("answer-pending", "open; the TAKE was held to its end: again at once", 7, PENDING, 0)
answer("answer-pending-later", "open; again in a second", 7, PENDING, 1000)
answer("answer-pending-last", "the largest of every number", LAST, PENDING, 2**32 - 1, epoch=0xFFFFFFFF, client=LAST)
answer("answer-gone", "no answer will come", 7, GONE, 0)
answer("answer-unknown-status", "a later version's: taken for PENDING", 7, 4711, 2500)
answer("answer-unknown-status-body", "a later version's may have a body of any length", 7, 4, 9, b"z")
answer("answer-every-field", "every field at a value of its own", 0x0123456789ABCDEF, FAILED, 40, bytes(range(40)), epoch=0xCAFEBABE, client=OTHER)
take("take-shortest", "an answer now, without room for a body", 1)
take("take-span", "answers below 7 are had", 9, span=2)
take("take-span-widest", "answers below 1: none", 65536, span=65535)
take("take-one-byte-of-room", "room for one byte", 7, room=1)
take("take-longest-recommended", "1,200 bytes", 7, wait_ms=20_000, room=1168)
take("take-every-field", "every field at a value of its own", 0x0123456789ABCDEF, 0x1234, 0x89ABCDEF, 40, 0xCAFEBABE, OTHER)
take("take-last", "the largest of every number", LAST, 65535, 2**32 - 1, 0, 0xFFFFFFFF, LAST)
take("take-too-long-for-the-default", "1,473 bytes; the default limit is 1,472: there is no message that a REJECT could refuse", 7, room=1441, server="drop")
bad("bad-answer-epoch-0", "no session has epoch 0", crc(body(ANSWER, 0, DONE, 0, CLIENT, 1, 0)), "malformed")
bad("bad-answer-seq-0", "the first seq is 1", crc(body(ANSWER, 0, DONE, 3, CLIENT, 0, 0)), "malformed")
bad("bad-answer-flags", "must be 0", crc(body(ANSWER, 1, DONE, 3, CLIENT, 1, 0)), "malformed")
bad("bad-answer-cut", "a body that lost a byte and has a new checksum: neither empty nor whole", crc(body(ANSWER, 0, DONE, 3, CLIENT, 1, 11, b"valve: ope")), "malformed")
bad("bad-answer-longer", "a body that is longer than its length", crc(body(ANSWER, 0, FAILED, 3, CLIENT, 1, 1, b"ab")), "malformed")
bad("bad-answer-length-0", "length 0, and a body", crc(body(ANSWER, 0, DONE, 3, CLIENT, 1, 0, b"a")), "malformed")
bad("bad-answer-pending-body", "PENDING has no body, even where its number is so long", crc(body(ANSWER, 0, PENDING, 3, CLIENT, 1, 1, b"a")), "malformed")
bad("bad-answer-gone-body", "GONE has no body", crc(body(ANSWER, 0, GONE, 3, CLIENT, 1, 0, b"a")), "malformed")
bad("bad-answer-gone-number", "must be 0", crc(body(ANSWER, 0, GONE, 3, CLIENT, 1, 1)), "malformed")
bad("bad-take-epoch-0", "no session has epoch 0", crc(body(TAKE, 0, 0, 0, CLIENT, 1, 0)), "malformed")
bad("bad-take-seq-0", "the first seq is 1", crc(body(TAKE, 0, 0, 3, CLIENT, 0, 0)), "malformed")
bad("bad-take-span", "what is wanted would be below 1", crc(body(TAKE, 0, 5, 3, CLIENT, 5, 0)), "malformed")
bad("bad-take-flags", "must be 0", crc(body(TAKE, 0x10, 0, 3, CLIENT, 1, 0)), "malformed")
bad("bad-take-room", "the room has zeros alone", crc(body(TAKE, 0, 0, 3, CLIENT, 1, 0, bytes(10) + b"\x01")), "malformed")
bad("bad-take-room-first", "from its first byte on", crc(body(TAKE, 0, 0, 3, CLIENT, 1, 0, b"\x80" + bytes(10))), "malformed")
for kind, name in [(ANSWER, "answer"), (TAKE, "take")]:
    sealed = body(kind, SEALED, 0, 3, CLIENT, 1, 0, bytes(8) + b"\x5a" * 16)
    bad(f"sealed-{name}", "sealed, and there is no key", sealed, "sealed")

about = [
    "Golden datagrams of the Duragram protocol, version 1, plain mode. See PROTOCOL.md#conformance.",
    "hex: the datagram. It either decodes to `datagram`, or does not, for the reason `error`.",
    "datagram: 64-bit numbers are decimal strings, client is 16 hexadecimal digits, payload, bitmap and body are hexadecimal.",
    "records: of a batch, its records. canonical: false where encoding `datagram` gives other bytes than hex.",
    "server: what a server with default limits does with it as the first datagram of all: journal (and ack), ack, welcome,",
    "reject or answer (with exactly the bytes of `reply`) or drop (in silence). without: the same of a server without the extension",
    "for answers, where it differs. version: what is read of another version's header.",
    "version_refusal: what a client reads from another version's REJECT.",
]
document = {"format": 1, "protocol_version": 1, "about": about, "datagrams": vectors}
print(json.dumps(document, indent=1))
