#!/usr/bin/env python3
"""Writes sealed.json, from PROTOCOL.md#sealed and RFC 8439 alone: hashlib and plain arithmetic, none of the project's code.

The file is fixed: datagrams may be added, none may change. `python3 generate_sealed.py | diff - sealed.json` prints nothing.
"""

import hashlib
import json
import struct

from fields import *  # noqa: F403

TO_SERVER, TO_CLIENT = 1, 2


def chacha20_block(key, count, nonce):  # RFC 8439 §2.3
    start = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", key), count, *struct.unpack("<3I", nonce)]
    x = start[:]

    def quarter(a, b, c, d):
        for p, q, r, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[p] = x[p] + x[q] & 0xFFFFFFFF
            x[r] ^= x[p]
            x[r] = (x[r] << by | x[r] >> 32 - by) & 0xFFFFFFFF

    for _ in range(10):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<16I", *(a + b & 0xFFFFFFFF for a, b in zip(x, start)))


def chacha20(key, nonce, text):
    stream = b"".join(chacha20_block(key, 1 + i, nonce) for i in range((len(text) + 63) // 64))
    return bytes(a ^ b for a, b in zip(text, stream))


def poly1305(key, text):  # RFC 8439 §2.5
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    sum_ = 0
    for at in range(0, len(text), 16):
        sum_ = (sum_ + int.from_bytes(text[at : at + 16] + b"\1", "little")) * r % (2**130 - 5)
    return (sum_ + int.from_bytes(key[16:], "little") & 2**128 - 1).to_bytes(16, "little")


def aead(key, nonce, clear, text):  # RFC 8439 §2.8: ciphertext, tag
    sealed = chacha20(key, nonce, text)
    padded = [part + bytes(-len(part) % 16) for part in (clear, sealed)]
    lengths = struct.pack("<QQ", len(clear), len(sealed))
    return sealed, poly1305(chacha20_block(key, 0, nonce)[:32], b"".join(padded) + lengths)


def blake2b(key, text, length):
    return hashlib.blake2b(text, key=key, digest_size=length).digest()


def client_key(fleet, client):
    return blake2b(fleet, b"duragram psk v1" + struct.pack("<Q", client), 32)


def session_keys(key, client, epoch):
    both = blake2b(key, b"duragram keys v1" + struct.pack("<QI", client, epoch), 64)
    return {TO_SERVER: both[:32], TO_CLIENT: both[32:]}


FLEET = bytes(range(0x40, 0x60))
KEY = client_key(FLEET, CLIENT)
OTHER_KEY = bytes(range(0x80, 0xA0))

# Published vectors, so that it is known what the rest rests on.
primitives = [
    {
        "name": "RFC 8439 §2.8.2",
        "key": bytes(range(0x80, 0xA0)),
        "nonce": bytes.fromhex("070000004041424344454647"),
        "clear": bytes.fromhex("50515253c0c1c2c3c4c5c6c7"),
        "text": b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.",
        "sealed": bytes.fromhex(
            "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b"
            "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
            "3ff4def08e4b7a9de576d26586cec64b6116"
        ),
        "tag": bytes.fromhex("1ae10b594f09e26a7e902ecbd0600691"),
    },
    {
        "name": "RFC 8439 appendix A.5",
        "key": bytes.fromhex("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0"),
        "nonce": bytes.fromhex("000000000102030405060708"),
        "clear": bytes.fromhex("f33388860000000000004e91"),
        "text": b"Internet-Drafts are draft documents valid for a maximum of six months and may be updated, replaced, or "
        b"obsoleted by other documents at any time. It is inappropriate to use Internet-Drafts as reference material or to "
        b"cite them other than as /\xe2\x80\x9cwork in progress./\xe2\x80\x9d",
        "sealed": bytes.fromhex(
            "64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb24c6cfc18755d43eea09ee94e382d26b0"
            "bdb7b73c321b0100d4f03b7f355894cf332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c855"
            "9797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4b9166c767b804d46a59b5216cde7a4e9"
            "9040c5a40433225ee282a1b0a06c523eaf4534d7f83fa1155b0047718cbc546a0d072b04b3564eea1b422273f548271a"
            "0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a1049e617d91d361094fa68f0ff77987130"
            "305beaba2eda04df997b714d6c6f2c29a6ad5cb4022b02709b"
        ),
        "tag": bytes.fromhex("eead9d67890cbb22392336fea1851f38"),
    },
]
for vector in primitives:
    made = aead(vector["key"], vector["nonce"], vector["clear"], vector["text"])
    assert made == (vector["sealed"], vector["tag"]), vector["name"]
# RFC 7693 appendix A, and the first of the keyed ones of BLAKE2's authors.
hashes = [
    {
        "name": "RFC 7693 appendix A",
        "key": b"",
        "text": b"abc",
        "hash": bytes.fromhex(
            "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1"
            "7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923"
        ),
    },
    {
        "name": "blake2b keyed test vectors, the first",
        "key": bytes(range(64)),
        "text": b"",
        "hash": bytes.fromhex(
            "10ebb67700b1868efb4417987acf4690ae9d972fb7a590c2f02871799aaa4786"
            "b5e996e8f0f4eb981fc214b005f42d2ff4233499391653df7aefcbc13fc51568"
        ),
    },
]
for vector in hashes:
    assert blake2b(vector["key"], vector["text"], 64) == vector["hash"], vector["name"]



def rfc7693_appendix_e():
    """All lengths of interest, keyed and not, in one hash."""

    def sequence(length, seed):
        a, b, out = 0xDEAD4BAD * seed & 0xFFFFFFFF, 1, b""
        for _ in range(length):
            a, b = b, a + b & 0xFFFFFFFF
            out += bytes([b >> 24])
        return out

    whole = hashlib.blake2b(digest_size=32)
    for out_len in (20, 32, 48, 64):
        for in_len in (0, 3, 128, 129, 255, 1024):
            text = sequence(in_len, in_len)
            whole.update(blake2b(b"", text, out_len))
            whole.update(blake2b(sequence(out_len, out_len), text, out_len))
    return whole.hexdigest()


assert rfc7693_appendix_e() == "c23a7800d98123bd10f506c61e29da5603d763b8bbad2e737f5e765a7bccd475"

datagrams = []


def clear_part(kind, flags, small, epoch, client, long, word, counter, version=1):
    return struct.pack("<BBHIQQIQ", version << 4 | kind, flags | SEALED, small, epoch, client, long, word, counter)


def sealed(clear, text, keys, direction, counter):
    if clear[0] & 15 not in (DATA, ANSWER):
        clear, text = clear + text, b""
    cipher, tag = aead(keys[direction], struct.pack("<IQ", direction, counter), clear, text)
    return clear + cipher + tag


def add(name, about, bytes_, key, **more):
    assert not any(vector["name"] == name for vector in datagrams), name
    datagrams.append({"name": name, "about": about, "hex": bytes_.hex(), "key": key.hex(), **more})


def good(name, about, kind, flags, small, epoch, client, long, word, counter, fields, variable=b"", key=KEY, **more):
    keys_epoch = 0 if kind in (HELLO, WELCOME) else epoch
    direction = TO_SERVER if kind in (DATA, HELLO, PING, TAKE) else TO_CLIENT
    clear = clear_part(kind, flags, small, epoch, client, long, word, counter)
    bytes_ = sealed(clear, variable, session_keys(key, client, keys_epoch), direction, counter)
    more = {"keys_epoch": keys_epoch, "counter": str(counter), **more}
    add(name, about, bytes_, key, datagram={"client": f"{client:016x}", **fields}, **more)
    return bytes_


def data(name, about, seq, payload=b"", counter=7, span=0, flags=WHOLE, channel=0, options=0, epoch=3, client=CLIENT, **more):
    fields = data_fields(seq, payload, span, flags, channel, options, epoch)
    word = channel | options << 16
    return good(name, about, DATA, flags, span, epoch, client, seq, word, counter, fields, payload, **more)


def ack(name, about, floor, bitmap=b"", counter=9, flags=0, credit=1024, delay_us=150, epoch=3, client=CLIENT, **more):
    fields = ack_fields(floor, bitmap, flags, credit, delay_us, epoch)
    return good(name, about, ACK, flags, credit, epoch, client, floor, delay_us, counter, fields, bitmap, **more)


def reject(name, about, code, refused, retry_after_ms=0, counter=9, epoch=3, client=CLIENT, **more):
    fields = reject_fields(code, refused, retry_after_ms, epoch)
    return good(name, about, REJECT, 0, code, epoch, client, refused, retry_after_ms, counter, fields, **more)


def hello(name, about, nonce, client=CLIENT, **more):
    return good(name, about, HELLO, 0, 0, 0, client, nonce, 0, nonce, hello_fields(nonce), **more)


def welcome(name, about, nonce, epoch, credit=1024, counter=9, client=CLIENT, **more):
    fields = welcome_fields(nonce, epoch, credit)
    return good(name, about, WELCOME, 0, credit, epoch, client, nonce, 0, counter, fields, **more)


def ping(name, about, epoch=3, counter=7, client=CLIENT, **more):
    return good(name, about, PING, 0, 0, epoch, client, 0, 0, counter, ping_fields(epoch), **more)


def answer(name, about, seq, status, number, body=b"", counter=9, epoch=3, client=CLIENT, **more):
    fields = answer_fields(seq, status, number, body, epoch)
    return good(name, about, ANSWER, 0, status, epoch, client, seq, number, counter, fields, body, **more)


def take(name, about, seq, span=0, wait_ms=0, room=0, counter=7, epoch=3, client=CLIENT, **more):
    fields = take_fields(seq, span, wait_ms, room, epoch)
    return good(name, about, TAKE, 0, span, epoch, client, seq, wait_ms, counter, fields, bytes(room), **more)


first = data("data-1", "the first message", 1, b"hello", counter=0x5EED)
data("data-1-again", "the same again: another attempt, another counter, other ciphertext", 1, b"hello", counter=0x5EEE, flags=WHOLE | 1)
data("data-empty", "the shortest: 52 bytes", 2)
for length in (1, 15, 16, 17, 63, 64, 65, 128, 256, 1148):
    data(f"data-{length}-bytes", "block edges of the cipher; 1,148 bytes make 1,200", 3, bytes(i * 7 & 255 for i in range(length)), counter=length)
data("data-batch", "two records", 3, b"\x05\x00first\x06\x00second", span=1, flags=WHOLE | BATCH, records=["6669727374", "7365636f6e64"])
data("data-every-field", "every field at a value of its own", 0x0123456789ABCDEF, bytes(range(40)), 0x0F1E2D3C4B5A6978, 0x1234, WHOLE | SKIP | 5, 0xBEEF, epoch=0xCAFEBABE, client=OTHER, key=OTHER_KEY)
data("data-last", "the largest of every number", LAST, b"z", LAST, channel=0xFFFF, epoch=0xFFFFFFFF, client=LAST, key=client_key(FLEET, LAST))
data("data-counter-0", "any counter will do", 1, b"z", counter=0)
data("data-boot-count", "a counter from boot count 3", 1, b"z", counter=3 << 32)
data("data-fragment", "what version 1 does not have is told after the seal", 1, b"\x07\x00z", flags=BEGIN | BATCH)
data("data-reserved", "the same", 1, b"z", options=1)

reply = ack("ack-1", "it is on disk", 1)
ack("ack-bitmap", "3 is journaled, 2 is not; the bitmap is in clear", 1, b"\x02" + bytes(7), delay_us=210, counter=10)
ack("ack-bitmap-longest", "128 bytes, all but the first bit set", 4, b"\xfe" + b"\xff" * 127)
ack("ack-every-field", "every field at a value of its own", 0x0123456789ABCDEF, b"\x02\x00\x00\x00\x00\x00\x00\x80", 0x0F1E2D3C4B5A6978, DUPLICATE | 2, 0xBEEF, 0x89ABCDEF, 0xCAFEBABE, OTHER, key=OTHER_KEY)
for code in range(1, 10):
    reject(f"reject-{code}", f"code {code}", code, 4, 1000 if code in (6, 7) else 0)
reject("reject-unknown-code", "a later version's", 4711, 9, 2**32 - 1)
reject("reject-hello", "of a HELLO: epoch 0, the nonce", 6, 0x1122334455667788, 5000, epoch=0)
request = hello("hello", "asks for an epoch; the counter is the nonce", 0x1122334455667788)
hello("hello-last", "the largest of every number", LAST, LAST, key=client_key(FLEET, LAST))
welcome("welcome", "the epoch; sealed with the keys of epoch 0", 0x1122334455667788, 1_790_000_000)
welcome("welcome-last", "the largest of every number", LAST, 0xFFFFFFFF, 0xFFFF, LAST, LAST, key=client_key(FLEET, LAST))
asks = ping("ping", "asks for the session's ACK")
ping("ping-last", "the largest of every number", 0xFFFFFFFF, LAST, LAST, key=client_key(FLEET, LAST))

keys = session_keys(KEY, CLIENT, 3)


def bad(name, about, bytes_, error, keys_epoch=3, sender="client", key=KEY):
    add(name, about, bytes_, key, keys_epoch=keys_epoch, sender=sender, error=error)


def bad_data(name, about, error, flags=WHOLE, span=0, epoch=3, seq=1, payload=b"hello", version=1, kind=DATA, counter=7):
    clear = clear_part(kind, flags, span, epoch, CLIENT, seq, 0, counter, version)
    bad(name, about, sealed(clear, payload, session_keys(KEY, CLIENT, epoch), TO_SERVER, counter), error, epoch)


bad("bad-empty", "no bytes at all", b"", "truncated")
bad("bad-cut-to-51", "one byte short of the shortest", first[:51], "truncated")
bad("bad-cut", "lost its last byte", first[:-1], "bad_seal")
bad("bad-longer", "a byte more", first + b"\0", "bad_seal")
bad("bad-key", "another client's key", first, "bad_seal", key=OTHER_KEY)
bad("bad-epoch", "the keys of another epoch", first, "bad_seal", keys_epoch=4)
bad("bad-not-sealed", "a plain datagram", bytes.fromhex("1130000003000000a10000000000000001000000000000000000000068656c6c6f2204bdd8"), "not_sealed")
bad_data("bad-version", "another version", "not_sealed", version=2)
bad("bad-direction", "a DATA under the server's key", sealed(clear_part(DATA, WHOLE, 0, 3, CLIENT, 1, 0, 7), b"hello", keys, TO_CLIENT, 7), "bad_seal")
bad("bad-direction-nonce", "the right key, the other direction's nonce", sealed(clear_part(DATA, WHOLE, 0, 3, CLIENT, 1, 0, 7), b"hello", {TO_CLIENT: keys[TO_SERVER]}, TO_CLIENT, 7), "bad_seal")
bad("bad-reflected-ack", "an ACK made with what the client seals with", sealed(clear_part(ACK, 0, 1024, 3, CLIENT, 1, 150, 9), b"", keys, TO_SERVER, 9), "bad_seal", sender="server")
bad("bad-welcome-keys", "a WELCOME under the new epoch's keys", sealed(clear_part(WELCOME, 0, 1024, 3, CLIENT, 1, 0, 9), b"", keys, TO_CLIENT, 9), "bad_seal", 0, "server")
bad("bad-bitmap-encrypted", "an ACK's bitmap is authenticated, not encrypted", (lambda c: c[0][:36] + c[1] + c[2])((clear_part(ACK, 0, 1024, 3, CLIENT, 1, 150, 9), *aead(keys[TO_CLIENT], struct.pack("<IQ", TO_CLIENT, 9), clear_part(ACK, 0, 1024, 3, CLIENT, 1, 150, 9), b"\x02" + bytes(7)))), "bad_seal", sender="server")
bad("bad-hello-counter", "the counter is not the nonce", sealed(clear_part(HELLO, 0, 0, 0, CLIENT, 5, 0, 6), b"", session_keys(KEY, CLIENT, 0), TO_SERVER, 6), "malformed", 0)
bad("bad-hello-flags", "must be SEALED alone", sealed(clear_part(HELLO, 1, 0, 0, CLIENT, 5, 0, 5), b"", session_keys(KEY, CLIENT, 0), TO_SERVER, 5), "malformed", 0)
bad("bad-ping-word", "must be 0", sealed(clear_part(PING, 0, 0, 3, CLIENT, 0, 1, 7), b"", keys, TO_SERVER, 7), "malformed")
bad("bad-ping-longer", "nothing stands between counter and tag", sealed(clear_part(PING, 0, 0, 3, CLIENT, 0, 0, 7), bytes(8), keys, TO_SERVER, 7), "malformed")
bad("bad-ack-bitmap", "7 bytes of bitmap", sealed(clear_part(ACK, 0, 1024, 3, CLIENT, 1, 150, 9), b"\x02" * 7, keys, TO_CLIENT, 9), "malformed", sender="server")
bad_data("bad-epoch-0", "no session has epoch 0", "malformed", epoch=0)
bad_data("bad-span", "span is not below seq", "malformed", span=1)
bad_data("bad-batch", "a broken batch, rightly sealed", "broken_batch", flags=WHOLE | BATCH, payload=b"\x07\x00z")
bad_data("bad-type-0", "unassigned", "unknown_type", kind=0)
clear = clear_part(ANSWER, WHOLE, DONE, 3, CLIENT, 1, 0, 7) + b"hello"
bad("bad-answer-as-data", "with the flags and the body of a DATA", clear + aead(keys[TO_SERVER], struct.pack("<IQ", TO_SERVER, 7), clear, b"")[1], "malformed")
bad_data("bad-type-15", "unassigned", "unknown_type", kind=15)

# Added later: what the first edition left out.
for flags, name in [(END, "last"), (0, "middle")]:
    data(f"data-fragment-{name}", "what version 1 does not have is told after the seal", 1, b"z", flags=flags)
data("data-skip", "the client has abandoned a seq below base", 9, b"z", span=2, flags=WHOLE | SKIP)
data("data-attempt-7", "saturates at 7", 5, b"again", flags=WHOLE | 7)
ack("ack-handed", "durability 1: handed to the operating system", 1, flags=1)
ack("ack-replicated", "durability 2: replicated", 1, flags=2)
ack("ack-duplicate", "nothing new, no credit", 0, flags=DUPLICATE, credit=0, delay_us=0)
ack("ack-complete", "nothing is journaled above the floor", 7, flags=COMPLETE)
ack("ack-complete-bitmap", "beyond the bitmap's end nothing is journaled", 4, b"\x02" + bytes(6) + b"\x80", flags=COMPLETE)
ack("ack-bitmap-zero-words", "zero words at the end mean nothing", 4, b"\x02" + bytes(15))
reject("reject-ping", "of a PING: 0", 4, 0)


def bad_reply(name, about, error, kind, flags=0, small=1024, epoch=3, long=1, word=0, variable=b""):
    keys_epoch = 0 if kind == WELCOME else epoch
    clear = clear_part(kind, flags, small, epoch, CLIENT, long, word, 9)
    bytes_ = sealed(clear, variable, session_keys(KEY, CLIENT, keys_epoch), TO_CLIENT, 9)
    bad(name, about, bytes_, error, keys_epoch, "server")


bad_reply("bad-ack-epoch-0", "no session has epoch 0", "malformed", ACK, epoch=0)
bad_reply("bad-ack-durability", "3 has no meaning", "malformed", ACK, flags=3)
bad_reply("bad-ack-bitmap-too-long", "136 bytes", "malformed", ACK, variable=b"\x02" + bytes(135))
bad_reply("bad-reject-long", "nothing stands between counter and tag", "malformed", REJECT, small=6, variable=b"\0")
bad_reply("bad-welcome-epoch-0", "no session has epoch 0", "malformed", WELCOME, epoch=0)
bad_reply("bad-welcome-word", "must be 0", "malformed", WELCOME, word=1)
bad_reply("bad-welcome-long", "nothing stands between counter and tag", "malformed", WELCOME, variable=bytes(8))
bad_data("bad-seq-0", "the first seq is 1", "malformed", seq=0)
bad("bad-tag-bit", "one bit of the tag is wrong", first[:-1] + bytes([first[-1] ^ 1]), "bad_seal")
bad("bad-header-bit", "attempt is under the tag too", first[:1] + bytes([first[1] ^ 1]) + first[2:], "bad_seal")
bad("bad-counter-bit", "another counter is another nonce", first[:28] + bytes([first[28] ^ 1]) + first[29:], "bad_seal")
bad("bad-ping-epoch-0", "no session has epoch 0", sealed(clear_part(PING, 0, 0, 0, CLIENT, 0, 0, 7), b"", session_keys(KEY, CLIENT, 0), TO_SERVER, 7), "malformed", 0)
bad("bad-hello-epoch", "a HELLO has epoch 0", sealed(clear_part(HELLO, 0, 0, 3, CLIENT, 5, 0, 5), b"", session_keys(KEY, CLIENT, 0), TO_SERVER, 5), "malformed", 0)

# Answers.
data("data-ask", "a message that asks", 5, b"open valve 7", options=ASK)
data("data-ask-batch", "what is not supported is told after the seal", 5, b"\x01\x00a", flags=WHOLE | BATCH, options=ASK)
ack("ack-ready", "an answer of this session waits", 7, flags=READY)
ack("ack-ready-every-flag", "all flags that have a meaning, at their highest", 4, b"\xfe" + b"\xff" * 127, flags=COMPLETE | READY | DUPLICATE | 2)
told = answer("answer", "what the handler gave, encrypted", 5, DONE, 11, b"valve: open")
answer("answer-again", "the same again: another counter, other ciphertext", 5, DONE, 11, b"valve: open", counter=10)
for length in (0, 1, 15, 16, 17, 63, 64, 65, 128, 256, 1024):
    answer(f"answer-{length}-bytes", "block edges of the cipher", 3, DONE, length, bytes(i * 7 & 255 for i in range(length)), counter=length)
answer("answer-no-room", "the body did not fit", 5, DONE, 11)
answer("answer-failed", "given up", 5, FAILED, 0)
answer("answer-failed-body", "given up, with what the handler says of it", 5, FAILED, 9, b"no valve7")
answer("answer-pending", "open", 5, PENDING, 1000)
answer("answer-gone", "no answer will come", 6, GONE, 0)
answer("answer-unknown-status", "a later version's, with a body of any length", 5, 4711, 2500, b"z")
answer("answer-every-field", "every field at a value of its own", 0x0123456789ABCDEF, FAILED, 40, bytes(range(40)), 0x0F1E2D3C4B5A6978, 0xCAFEBABE, OTHER, key=OTHER_KEY)
answer("answer-last", "the largest of every number", LAST, PENDING, 2**32 - 1, b"", LAST, 0xFFFFFFFF, LAST, key=client_key(FLEET, LAST))
wants = take("take", "held for 20 seconds, with room for 11 bytes: zeros in clear", 5, 0, 20_000, 11)
take("take-shortest", "an answer now, without room for a body", 1)
take("take-span", "answers below 7 are had", 9, span=2)
take("take-longest-recommended", "1,200 bytes", 7, wait_ms=20_000, room=1148)
take("take-every-field", "every field at a value of its own", 0x0123456789ABCDEF, 0x1234, 0x89ABCDEF, 40, 0x0F1E2D3C4B5A6978, 0xCAFEBABE, OTHER, key=OTHER_KEY)
take("take-last", "the largest of every number", LAST, 65535, 2**32 - 1, 0, LAST, 0xFFFFFFFF, LAST, key=client_key(FLEET, LAST))


def bad_take(name, about, error, flags=0, span=0, epoch=3, seq=5, room=b"", counter=7):
    clear = clear_part(TAKE, flags, span, epoch, CLIENT, seq, 0, counter)
    bad(name, about, sealed(clear, room, session_keys(KEY, CLIENT, epoch), TO_SERVER, counter), error, epoch)


bad_reply("bad-answer-epoch-0", "no session has epoch 0", "malformed", ANSWER, small=DONE, epoch=0)
bad_reply("bad-answer-seq-0", "the first seq is 1", "malformed", ANSWER, small=DONE, long=0)
bad_reply("bad-answer-flags", "must be SEALED alone", "malformed", ANSWER, flags=1, small=DONE)
bad_reply("bad-answer-cut", "the body is neither empty nor whole", "malformed", ANSWER, small=DONE, word=11, variable=b"valve: ope")
bad_reply("bad-answer-pending-body", "PENDING has no body", "malformed", ANSWER, small=PENDING, word=1, variable=b"a")
bad_reply("bad-answer-gone-body", "GONE has no body", "malformed", ANSWER, small=GONE, variable=b"a")
bad_reply("bad-answer-gone-number", "must be 0", "malformed", ANSWER, small=GONE, word=1)
clear = clear_part(ANSWER, 0, DONE, 3, CLIENT, 5, 11, 9)
bad("bad-answer-in-clear", "an ANSWER's body is encrypted, not authenticated alone", (lambda made: clear + b"valve: open" + made[1])(aead(keys[TO_CLIENT], struct.pack("<IQ", TO_CLIENT, 9), clear + b"valve: open", b"")), "bad_seal", sender="server")
bad("bad-answer-reflected", "an ANSWER made with what the client seals with", sealed(clear, b"valve: open", keys, TO_SERVER, 9), "bad_seal", sender="server")
bad("bad-answer-body-bit", "one bit of the body is wrong", told[:40] + bytes([told[40] ^ 1]) + told[41:], "bad_seal", sender="server")
bad("bad-answer-other-epoch", "the keys of another epoch", told, "bad_seal", keys_epoch=4, sender="server")
bad_take("bad-take-epoch-0", "no session has epoch 0", "malformed", epoch=0)
bad_take("bad-take-seq-0", "the first seq is 1", "malformed", seq=0)
bad_take("bad-take-span", "what is wanted would be below 1", "malformed", span=5)
bad_take("bad-take-flags", "must be SEALED alone", "malformed", flags=0x10)
bad_take("bad-take-room", "the room has zeros alone, rightly sealed or not", "malformed", room=bytes(10) + b"\x01")
bad("bad-take-room-encrypted", "a TAKE has no plaintext: its zeros are in clear", (lambda made, clear: clear + made[0] + made[1])(aead(keys[TO_SERVER], struct.pack("<IQ", TO_SERVER, 7), clear_part(TAKE, 0, 0, 3, CLIENT, 5, 0, 7), bytes(11)), clear_part(TAKE, 0, 0, 3, CLIENT, 5, 0, 7)), "malformed")
bad("bad-take-shortened", "its room is under the tag", wants[:36] + wants[37:], "bad_seal")
bad("bad-take-lengthened", "the same", wants[:36] + b"\0" + wants[36:], "bad_seal")
bad_data("bad-type-9", "unassigned", "unknown_type", kind=9)


def hexed(vectors):
    return [{k: v.hex() if isinstance(v, bytes) else v for k, v in vector.items()} for vector in vectors]


derived = [
    {"fleet": FLEET.hex(), "client": f"{client:016x}", "key": client_key(FLEET, client).hex()} for client in (CLIENT, OTHER, 0, LAST)
]
sessions = []
for key, client, epoch in [(KEY, CLIENT, 0), (KEY, CLIENT, 3), (OTHER_KEY, OTHER, 0xCAFEBABE), (OTHER_KEY, LAST, 0xFFFFFFFF)]:
    both = session_keys(key, client, epoch)
    both = {"to_server": both[TO_SERVER].hex(), "to_client": both[TO_CLIENT].hex()}
    sessions.append({"key": key.hex(), "client": f"{client:016x}", "epoch": epoch, **both})
about = [
    "Golden datagrams of the Duragram protocol, version 1, sealed mode. See PROTOCOL.md#conformance and PROTOCOL.md#sealed.",
    "aead, blake2b: published test vectors of what sealed mode rests on. client_keys: from a fleet key. session_keys: from a client key.",
    "hex: the datagram. With the client's `key` and its epoch `keys_epoch` it opens to `datagram`, whose sealing with `counter` gives",
    "hex again; or it does not open, for the reason `error`, where the receiver takes what `sender` sends.",
    "Fields are described as in datagrams.json.",
]
document = {
    "format": 1,
    "protocol_version": 1,
    "about": about,
    "aead": hexed(primitives),
    "blake2b": hexed(hashes),
    "client_keys": derived,
    "session_keys": sessions,
    "datagrams": datagrams,
}
print(json.dumps(document, indent=1))
