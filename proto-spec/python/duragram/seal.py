"""Sealed mode: keys and datagrams (PROTOCOL.md#sealed). Needs the package `cryptography`."""

from __future__ import annotations

import hashlib
import os
import secrets
import struct
import time
from typing import Any, Final, NamedTuple, Optional

from . import wire
from .wire import ANSWER, DATA, HEAD, HELLO, REQUESTS, SEALED, TAKE, U64_MAX, VERSION, WELCOME, Datagram, DecodeError, Fields

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
except ImportError as missing:  # pragma: no cover
    raise ImportError("sealed mode needs the package cryptography: pip install 'duragram[sealed]'") from missing

KEY_BYTES: Final = 32
TAG: Final = 16
#: Header, word and counter.
CLEAR: Final = HEAD.size + 8
SEALED_MIN: Final = CLEAR + TAG
TO_SERVER, TO_CLIENT = 1, 2

#: Counters that start at random start below this one.
RANDOM_END: Final = 2**63
#: So far below it a counter stops to rise: above all but one of 256 others, and still random enough never to meet one that
#: has risen as well.
RISE_STOPS_BELOW: Final = 2**55

_COUNTER: Final = struct.Struct("<Q")
_NONCE: Final = struct.Struct("<IQ")


def client_key(fleet_key: bytes, client: int) -> bytes:
    """A client's key from the fleet's (PROTOCOL.md#sealed-keys)."""
    return _blake2b(fleet_key, b"duragram psk v1" + struct.pack("<Q", client), 32)


def session_keys(key: bytes, client: int, epoch: int) -> tuple[bytes, bytes]:
    """What seals to the server, and what seals to the client. Epoch 0: of HELLO and its answers."""
    both = _blake2b(key, b"duragram keys v1" + struct.pack("<QI", client, epoch), 64)
    return both[:32], both[32:]


def _blake2b(key: bytes, text: bytes, size: int) -> bytes:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    return hashlib.blake2b(text, key=key, digest_size=size).digest()


class Keys:
    """The two keys of a session, or of a client's HELLOs."""

    def __init__(self, key: bytes, client: int, epoch: int) -> None:
        to_server, to_client = session_keys(key, client, epoch)
        self.ciphers = {TO_SERVER: ChaCha20Poly1305(to_server), TO_CLIENT: ChaCha20Poly1305(to_client)}


class Head(NamedTuple):
    """What a sealed datagram says of itself; true only once it was opened."""

    fields: Fields
    counter: int
    direction: int
    keys_epoch: int


def seal(what: Datagram, keys: Keys, counter: int) -> bytes:
    """PROTOCOL.md#sealed-layout. The counter must never have been used with these keys in this direction."""
    return _seal(wire.fields(what), keys, counter)


def _seal(f: Fields, keys: Keys, counter: int) -> bytes:
    clear = HEAD.pack(VERSION << 4 | f.kind, f.flags | SEALED, *f[2:7]) + _COUNTER.pack(counter)
    direction = TO_SERVER if f.kind in REQUESTS else TO_CLIENT
    cipher, nonce = keys.ciphers[direction], _NONCE.pack(direction, counter)
    if f.kind in (DATA, ANSWER):
        return clear + cipher.encrypt(nonce, f.variable, clear)
    clear += f.variable
    return clear + cipher.encrypt(nonce, b"", clear)


def peek(bytes_: bytes) -> Head:
    """Reads the clear part and checks what can be checked without keys."""
    if len(bytes_) < 2:
        raise DecodeError("truncated")
    if bytes_[0] >> 4 != VERSION or not bytes_[1] & SEALED:
        raise DecodeError("not_sealed")
    if len(bytes_) < SEALED_MIN:
        raise DecodeError("truncated")
    (counter,) = _COUNTER.unpack_from(bytes_, HEAD.size)
    f = wire.unpack(bytes_, bytes_[CLEAR:-TAG])
    wire.datagram(f)
    if f.kind == HELLO and f.long != counter:
        raise DecodeError("malformed")
    keys_epoch = 0 if f.kind in (HELLO, WELCOME) else f.epoch
    return Head(f, counter, TO_SERVER if f.kind in REQUESTS else TO_CLIENT, keys_epoch)


def unseal(bytes_: bytes, keys: Keys) -> Datagram:
    """Verifies a datagram and decrypts a DATA's payload or an ANSWER's body. `keys` are those of the epoch that `peek` names."""
    f, counter, direction, _ = peek(bytes_)
    cipher, nonce = keys.ciphers[direction], _NONCE.pack(direction, counter)
    try:
        if f.kind in (DATA, ANSWER):
            f = f._replace(variable=cipher.decrypt(nonce, bytes_[CLEAR:], bytes_[:CLEAR]))
        else:
            cipher.decrypt(nonce, bytes_[-TAG:], bytes_[:-TAG])
    except InvalidTag:
        raise DecodeError("bad_seal") from None
    return wire.check_batch(wire.datagram(f))


class Sealed:
    """The seal of a client (`wire.Wire`). Not to be copied: two that go on from one counter would use it twice.

    `boot_count`: a count of this client's starts, stored before it is used; without it the counter begins at random, and
    a new epoch is needed at every start (PROTOCOL.md#sealed-counter).

    In the epochs of earlier runs answers alone are taken. Counters for that have a range of their own, above what those runs have
    used: the server answers whoever used the highest (PROTOCOL.md#sealed-address).
    """

    overhead = SEALED_MIN
    epochs_only_rise = True
    is_sealed = True

    def __init__(self, client: int, key: bytes, boot_count: Optional[int] = None) -> None:
        if boot_count is None:
            self._first, self._last = secrets.randbelow(RANDOM_END), U64_MAX
            # Above all that starts at random, and above earlier ones as far as the clock goes on; at random within a millisecond.
            self._taking = RANDOM_END | (int(time.time() * 1000) & 2**42 - 1) << 21 | secrets.randbits(21)
            self._taking_last = U64_MAX
        else:
            self._first, self._last = boot_count << 32, boot_count << 32 | 0x7FFF_FFFF
            self._taking, self._taking_last = self._last + 1, boot_count << 32 | 0xFFFF_FFFF
        self._is_counted = boot_count is not None
        self.client = client
        self.used_up = False
        self._process = os.getpid()
        self._key = key
        self._hello = Keys(key, client, 0)
        self._session: Optional[Keys] = None
        self._epoch = 0
        self._counter = self._first
        #: The epochs that this run was in.
        self._own: set[int] = set()
        #: Of those that it has left: keys and the next counter, as long as answers wait there.
        self._left: dict[int, tuple[Keys, int]] = {}
        #: The keys of earlier runs' epochs.
        self._earlier: dict[int, Keys] = {}

    def enter(self, epoch: int) -> None:
        if self._session is not None:
            self._left[self._epoch] = (self._session, self._counter)
        # New keys, under which every number is unused.
        self._session, self._epoch = Keys(self._key, self.client, epoch), epoch
        self._own.add(epoch)
        self._counter, self.used_up = self._first, False

    def rise(self) -> None:
        # A stored count keeps the ranges of runs apart.
        left = RANDOM_END - self._counter
        if not self._is_counted and left > RISE_STOPS_BELOW:
            self._counter += left // 2

    def data(self, flags: int, span: int, epoch: int, seq: int, word: int, payload: bytes) -> bytes:
        return self._next(Fields(DATA, flags, span, epoch, self.client, seq, word, payload))

    def short(self, kind: int, epoch: int, long: int) -> bytes:
        self._check_process()
        f = Fields(kind, 0, 0, epoch, self.client, long, 0)
        return _seal(f, self._hello, long) if kind == HELLO else self._next(f)

    def can_take(self, epoch: int) -> bool:
        if epoch == self._epoch:
            return not self.used_up
        if epoch in self._own:
            # One whose counter is not known any more would use numbers twice.
            return epoch in self._left and self._left[epoch][1] <= self._last
        return self._taking <= self._taking_last

    def take(self, epoch: int, seq: int, span: int, wait_ms: int, room: int) -> bytes:
        f = Fields(TAKE, 0, span, epoch, self.client, seq, wait_ms, bytes(room))
        if epoch == self._epoch:
            return self._next(f)
        self._check_process()
        if epoch in self._own:
            keys, counter = self._left[epoch]
            self._left[epoch] = (keys, counter + 1)
            return _seal(f, keys, counter)
        if epoch not in self._earlier:
            self._earlier[epoch] = Keys(self._key, self.client, epoch)
        self._taking += 1
        return _seal(f, self._earlier[epoch], self._taking - 1)

    def retain(self, epochs: set[int]) -> None:
        self._left = {epoch: left for epoch, left in self._left.items() if epoch in epochs}
        self._earlier = {epoch: keys for epoch, keys in self._earlier.items() if epoch in epochs}

    def _next(self, f: Fields) -> bytes:
        """PROTOCOL.md#sealed-counter: another number for each transmission, retransmissions too."""
        self._check_process()
        if self._session is None or self.used_up:
            raise RuntimeError("no session, or no counter left in it")
        counter = self._counter
        self._counter += 1
        self.used_up = counter == self._last
        return _seal(f, self._session, counter)

    def _check_process(self) -> None:
        # Parent and child of a fork would go on from one counter, each with other payloads.
        if self._process != os.getpid():
            raise RuntimeError(f"this seal belongs to process {self._process}, which forked")

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError("a seal is not to be copied: two that go on from one counter would use it twice")

    def open(self, bytes_: bytes, epoch: int, nonce: Optional[int]) -> Datagram:
        """PROTOCOL.md#sealed-client: of the client's own epoch, or of the HELLO that is open."""
        head = peek(bytes_)
        if head.direction != TO_CLIENT or head.fields.client != self.client:
            return wire.datagram(head.fields)  # ignored by its type or name
        if head.keys_epoch == 0:
            if nonce is None or head.fields.long != nonce:
                raise DecodeError("unasked")
            return unseal(bytes_, self._hello)
        keys = self._session if head.keys_epoch == epoch else None
        if keys is None and head.fields.kind == ANSWER:
            left = self._left.get(head.keys_epoch)
            keys = self._earlier.get(head.keys_epoch) if left is None else left[0]
        if keys is None:
            raise DecodeError("other_epoch")
        return unseal(bytes_, keys)
