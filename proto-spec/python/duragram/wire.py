"""Datagrams to bytes and back, plain mode (PROTOCOL.md#datagrams).

It knows both sides' datagrams: a client needs half of them, tests and fake servers the other half.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, Optional, Protocol, Union
from zlib import crc32

VERSION: Final = 1
DATA, ACK, REJECT, HELLO, WELCOME, PING, ANSWER, TAKE = 1, 2, 3, 4, 5, 6, 7, 8
#: The types that a client sends.
REQUESTS: Final = (DATA, HELLO, PING, TAKE)
# Flags of DATA; SEALED is one of every type.
ATTEMPT, SEALED, BEGIN, END, BATCH, SKIP = 0x07, 0x08, 0x10, 0x20, 0x40, 0x80
WHOLE: Final = BEGIN | END
# Flags of ACK.
DURABILITY, DUPLICATE, READY, COMPLETE = 0x03, 0x10, 0x20, 0x40
#: The option of a DATA whose sender wants an answer (PROTOCOL.md#ask).
ASK: Final = 2
# Statuses of ANSWER (PROTOCOL.md#answer).
DONE, FAILED, PENDING, GONE = 0, 1, 2, 3
# Codes of REJECT (PROTOCOL.md#reject-codes).
REJECT_VERSION, REJECT_UNSUPPORTED, REJECT_TOO_LARGE, REJECT_STALE_EPOCH, REJECT_BEYOND_WINDOW = 1, 2, 3, 4, 5
REJECT_BUSY, REJECT_STORAGE, REJECT_CHANNEL, REJECT_SEALED_ONLY = 6, 7, 8, 9
#: As PROTOCOL.md names them.
REJECT_NAMES: Final = {
    1: "VERSION", 2: "UNSUPPORTED", 3: "TOO_LARGE", 4: "STALE_EPOCH", 5: "BEYOND_WINDOW", 6: "BUSY", 7: "STORAGE",
    8: "CHANNEL", 9: "SEALED_ONLY",
}  # fmt: skip

#: The length of a plain datagram without payload, and of the shortest of every type.
PLAIN_MIN: Final = 32
BITMAP_MAX: Final = 128
DATAGRAM_RECOMMENDED: Final = 1200
DATAGRAM_MAX: Final = 65507
#: More than this lies never between the lowest and the highest seq that a client holds (PROTOCOL.md#duty-seq).
SPAN_MAX: Final = 0xFFFF
U32_MAX: Final = 2**32 - 1
U64_MAX: Final = 2**64 - 1

#: Header and word: version and type, flags, small field, epoch, client_id, long field, word.
HEAD: Final = struct.Struct("<BBHIQQI")
_CRC: Final = struct.Struct("<I")


class Data(NamedTuple):
    """PROTOCOL.md#data"""

    client: int
    epoch: int
    seq: int
    payload: bytes = b""
    span: int = 0
    attempt: int = 0
    begin: bool = True
    end: bool = True
    batch: bool = False
    skip: bool = False
    channel: int = 0
    options: int = 0


class Ack(NamedTuple):
    """PROTOCOL.md#ack"""

    client: int
    epoch: int
    floor: int
    credit: int
    durability: int = 0
    duplicate: bool = False
    delay_us: int = 0
    bitmap: bytes = b""
    #: Floor and bitmap tell of all that is journaled.
    complete: bool = False
    #: An answer of this session waits to be taken.
    ready: bool = False


class Reject(NamedTuple):
    """PROTOCOL.md#reject. Epoch 0: of a HELLO, whose nonce is `refused`."""

    client: int
    epoch: int
    code: int
    refused: int
    retry_after_ms: int = 0


class Hello(NamedTuple):
    """PROTOCOL.md#hello"""

    client: int
    nonce: int


class Welcome(NamedTuple):
    """PROTOCOL.md#welcome"""

    client: int
    epoch: int
    credit: int
    nonce: int


class Ping(NamedTuple):
    """PROTOCOL.md#ping"""

    client: int
    epoch: int


class Answer(NamedTuple):
    """PROTOCOL.md#answer"""

    client: int
    epoch: int
    #: The message that asked.
    seq: int
    status: int
    #: Of DONE and FAILED the length of the whole body, in bytes; of PENDING when to ask again, in milliseconds; of GONE 0.
    number: int = 0
    #: Of DONE and FAILED the whole body, or nothing where it did not fit.
    body: bytes = b""


class Take(NamedTuple):
    """PROTOCOL.md#take"""

    client: int
    epoch: int
    #: The message whose answer is wanted.
    seq: int
    #: Answers below seq - span are had or not wanted.
    span: int = 0
    #: How long the server may hold it, in milliseconds; 0 for an answer now.
    wait_ms: int = 0
    #: So many zeros are sent: the answer has room for so many bytes of body.
    room: int = 0


Datagram = Union[Data, Ack, Reject, Hello, Welcome, Ping, Answer, Take]
Reply = Union[Ack, Reject, Welcome, Answer]


class DecodeError(ValueError):
    """Not a valid datagram. `reason` is the word that the golden datagrams use."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Fields(NamedTuple):
    """A datagram as the header lays it out."""

    kind: int
    flags: int
    small: int
    epoch: int
    client: int
    long: int
    word: int
    variable: bytes = b""


def fields(datagram: Datagram) -> Fields:
    """What the header of a datagram holds. Without SEALED."""
    if isinstance(datagram, Data):
        d = datagram
        flags = d.attempt | BEGIN * d.begin | END * d.end | BATCH * d.batch | SKIP * d.skip
        return Fields(DATA, flags, d.span, d.epoch, d.client, d.seq, d.channel | d.options << 16, d.payload)
    if isinstance(datagram, Ack):
        a = datagram
        flags = a.durability | DUPLICATE * a.duplicate | COMPLETE * a.complete | READY * a.ready
        return Fields(ACK, flags, a.credit, a.epoch, a.client, a.floor, a.delay_us, a.bitmap)
    if isinstance(datagram, Reject):
        r = datagram
        return Fields(REJECT, 0, r.code, r.epoch, r.client, r.refused, r.retry_after_ms)
    if isinstance(datagram, Hello):
        return Fields(HELLO, 0, 0, 0, datagram.client, datagram.nonce, 0)
    if isinstance(datagram, Welcome):
        w = datagram
        return Fields(WELCOME, 0, w.credit, w.epoch, w.client, w.nonce, 0)
    if isinstance(datagram, Answer):
        n = datagram
        return Fields(ANSWER, 0, n.status, n.epoch, n.client, n.seq, n.number, n.body)
    if isinstance(datagram, Take):
        t = datagram
        return Fields(TAKE, 0, t.span, t.epoch, t.client, t.seq, t.wait_ms, bytes(t.room))
    return Fields(PING, 0, 0, datagram.epoch, datagram.client, 0, 0)


def datagram(f: Fields) -> Datagram:
    """What the fields say, SEALED left aside, or `DecodeError`. A claimed batch is for `check_batch`."""
    flags = f.flags & ~SEALED
    if f.kind == DATA:
        if f.epoch == 0 or f.small >= f.long:
            raise DecodeError("malformed")
        return Data(
            client=f.client,
            epoch=f.epoch,
            seq=f.long,
            payload=f.variable,
            span=f.small,
            attempt=flags & ATTEMPT,
            begin=bool(flags & BEGIN),
            end=bool(flags & END),
            batch=bool(flags & BATCH),
            skip=bool(flags & SKIP),
            channel=f.word & 0xFFFF,
            options=f.word >> 16,
        )
    if f.kind == ACK:
        durability = flags & DURABILITY
        if f.epoch == 0 or len(f.variable) > BITMAP_MAX or len(f.variable) % 8 or durability == 3:
            raise DecodeError("malformed")
        duplicate, complete, ready = (bool(flags & flag) for flag in (DUPLICATE, COMPLETE, READY))
        return Ack(f.client, f.epoch, f.long, f.small, durability, duplicate, f.word, f.variable, complete, ready)
    if f.kind == ANSWER:
        return _answer(f, flags)
    if f.kind == TAKE:
        if f.epoch == 0 or f.small >= f.long or flags or any(f.variable):
            raise DecodeError("malformed")
        return Take(f.client, f.epoch, f.long, f.small, f.word, len(f.variable))
    if not REJECT <= f.kind <= PING:
        raise DecodeError("unknown_type")
    if f.variable:
        raise DecodeError("malformed")
    if f.kind == REJECT:
        return Reject(f.client, f.epoch, f.small, f.long, f.word)
    if f.kind == WELCOME and f.epoch and not f.word:
        return Welcome(f.client, f.epoch, f.small, f.long)
    if f.kind == HELLO and not (f.epoch or flags or f.small or f.word):
        return Hello(f.client, f.long)
    if f.kind == PING and f.epoch and not (f.long or flags or f.small or f.word):
        return Ping(f.client, f.epoch)
    raise DecodeError("malformed")


def _answer(f: Fields, flags: int) -> Answer:
    """The body as it came: of a sealed datagram of which nothing is verified yet its ciphertext, which is as long."""
    fits = {
        DONE: len(f.variable) in (0, f.word),
        FAILED: len(f.variable) in (0, f.word),
        PENDING: not f.variable,
        GONE: not f.variable and f.word == 0,
    }
    if f.epoch == 0 or f.long == 0 or flags or not fits.get(f.small, True):
        raise DecodeError("malformed")
    return Answer(f.client, f.epoch, f.long, f.small, f.word, f.variable)


def check_batch(decoded: Datagram) -> Datagram:
    """A DATA that claims to be a batch must be one; what this version does not have, a batch that asks too, is refused by its
    name instead."""
    if isinstance(decoded, Data) and decoded.batch and decoded.begin and decoded.end and not decoded.options:
        if records(decoded.payload) is None:
            raise DecodeError("broken_batch")
    return decoded


def unpack(bytes_: bytes, variable: bytes) -> Fields:
    """The fixed part of a datagram."""
    first, flags, small, epoch, client, long, word = HEAD.unpack_from(bytes_)
    return Fields(first & 15, flags, small, epoch, client, long, word, variable)


def encode(what: Datagram) -> bytes:
    """A plain datagram."""
    f = fields(what)
    return with_crc(HEAD.pack(VERSION << 4 | f.kind, *f[1:7]) + f.variable)


def decode(bytes_: bytes) -> Datagram:
    """Parses and verifies one plain datagram; the checksum before anything else is looked at."""
    try:
        body = verified(bytes_)
    except DecodeError as error:
        is_sealed = error.reason == "checksum" and bytes_[0] >> 4 == VERSION and bytes_[1] & SEALED
        raise DecodeError("sealed") if is_sealed else error
    if body[0] >> 4 != VERSION:
        raise DecodeError("unknown_type" if body[0] & 15 == REJECT else "version")
    if body[1] & SEALED:
        raise DecodeError("sealed")
    return check_batch(datagram(unpack(body, body[HEAD.size :])))


def decode_reply(bytes_: bytes) -> Datagram:
    """As `decode`, for clients: a REJECT 1 counts whatever its version (PROTOCOL.md#versions)."""
    try:
        return decode(bytes_)
    except DecodeError as error:
        refusal = version_refusal(bytes_) if error.reason == "unknown_type" else None
        if refusal is None:
            raise
        return refusal


def version_refusal(bytes_: bytes) -> Optional[Reject]:
    """Another version's REJECT 1; `None` for everything else."""
    try:
        first, _, code, epoch, client, refused, word = HEAD.unpack_from(verified(bytes_))
    except DecodeError:
        return None
    is_refusal = first >> 4 != VERSION and first & 15 == REJECT and code == REJECT_VERSION
    return Reject(client, epoch, code, refused, word) if is_refusal else None


def verified(bytes_: bytes) -> bytes:
    """What stands before a right CRC-32 (PROTOCOL.md#trailer)."""
    if len(bytes_) < PLAIN_MIN:
        raise DecodeError("truncated")
    body = bytes_[:-4]
    if crc32(body) != int.from_bytes(bytes_[-4:], "little"):
        raise DecodeError("checksum")
    return body


def with_crc(body: bytes) -> bytes:
    return body + _CRC.pack(crc32(body))


def records(payload: bytes) -> Optional[list[bytes]]:
    """The records of a batch; `None` if it is broken (PROTOCOL.md#batch)."""
    found, at = [], 0
    while at < len(payload):
        start = at + 2
        at = start + int.from_bytes(payload[at:start], "little")
        if start > len(payload) or at > len(payload):
            return None
        found.append(payload[start:at])
    return found or None


def batch(parts: list[bytes]) -> bytes:
    """The payload of a batch of these records, each at most 65,535 bytes."""
    return b"".join([len(part).to_bytes(2, "little") + part for part in parts])


class Wire(Protocol):
    """How a client's datagrams are protected: by a checksum, or by a seal."""

    #: The length of a datagram without payload, in bytes.
    overhead: int
    #: Whether a WELCOME must lead upwards (PROTOCOL.md#sealed-client).
    epochs_only_rise: bool
    #: Whether nobody else can make what comes.
    is_sealed: bool
    #: Whether nothing more can be sent in this session.
    used_up: bool

    def enter(self, epoch: int) -> None:
        """A session begins."""
        ...

    def rise(self) -> None:
        """Nothing was heard in an epoch that another run may have used: the answers go to who used the highest counter in
        it (PROTOCOL.md#sealed-address)."""
        ...

    def data(self, flags: int, span: int, epoch: int, seq: int, word: int, payload: bytes) -> bytes:
        """A DATA. `word`: its channel, and its options above."""
        ...

    def short(self, kind: int, epoch: int, long: int) -> bytes:
        """A HELLO or PING."""
        ...

    def can_take(self, epoch: int) -> bool:
        """Whether a TAKE can still be sent in that epoch, of this run or of an earlier one."""
        ...

    def take(self, epoch: int, seq: int, span: int, wait_ms: int, room: int) -> bytes:
        """A TAKE, where `can_take`."""
        ...

    def retain(self, epochs: set[int]) -> None:
        """Nothing more will be taken in any epoch but these and the session's."""
        ...

    def open(self, bytes_: bytes, epoch: int, nonce: Optional[int]) -> Datagram:
        """What came, if it is rightly protected. `epoch` and `nonce` (of an open HELLO) say which keys may be tried; those of
        the epochs that were taken in, for an ANSWER."""
        ...


class Plain:
    """PROTOCOL.md#trailer"""

    overhead = PLAIN_MIN
    epochs_only_rise = False
    is_sealed = False
    used_up = False

    def __init__(self, client: int) -> None:
        self.client = client

    def enter(self, epoch: int) -> None:
        pass

    def rise(self) -> None:
        pass

    def data(self, flags: int, span: int, epoch: int, seq: int, word: int, payload: bytes) -> bytes:
        body = HEAD.pack(VERSION << 4 | DATA, flags, span, epoch, self.client, seq, word) + payload
        return body + _CRC.pack(crc32(body))

    def short(self, kind: int, epoch: int, long: int) -> bytes:
        return with_crc(HEAD.pack(VERSION << 4 | kind, 0, 0, epoch, self.client, long, 0))

    def can_take(self, epoch: int) -> bool:
        return True

    def take(self, epoch: int, seq: int, span: int, wait_ms: int, room: int) -> bytes:
        return with_crc(HEAD.pack(VERSION << 4 | TAKE, 0, span, epoch, self.client, seq, wait_ms) + bytes(room))

    def retain(self, epochs: set[int]) -> None:
        pass

    def open(self, bytes_: bytes, epoch: int, nonce: Optional[int]) -> Datagram:
        return decode_reply(bytes_)
