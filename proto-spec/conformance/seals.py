"""Sealed mode at the fake server (PROTOCOL.md#sealed)."""

from __future__ import annotations

import time

from duragram import seal
from duragram.keyfile import read_key
from duragram.wire import Datagram, DecodeError, Hello, Welcome


class ServerSeal:
    """Opens what clients seal and seals what they get, with the keys of a key file; notes counters that come twice."""

    def __init__(self, key_file: str) -> None:
        self.key_file = key_file
        self.repeated: list[tuple[int, int]] = []
        self._counter = time.time_ns()
        self._keys: dict[tuple[int, int], seal.Keys] = {}
        self._used: set[tuple[int, int, int]] = set()

    def _keys_of(self, client: int, epoch: int) -> seal.Keys:
        if (client, epoch) not in self._keys:
            self._keys[client, epoch] = seal.Keys(read_key(self.key_file, client)[1], client, epoch)
        return self._keys[client, epoch]

    def encode(self, datagram: Datagram) -> bytes:
        self._counter += 1
        epoch = 0 if isinstance(datagram, (Hello, Welcome)) else datagram.epoch
        try:
            return seal.seal(datagram, self._keys_of(datagram.client, epoch), self._counter)
        except ValueError:
            return b""  # for a client that the file does not name: nobody could seal it

    def decode(self, bytes_: bytes) -> Datagram:
        head = seal.peek(bytes_)
        try:
            keys = self._keys_of(head.fields.client, head.keys_epoch)
        except ValueError as error:
            raise DecodeError("no key") from error
        datagram = seal.unseal(bytes_, keys)
        name = head.fields.client, head.keys_epoch, head.counter
        # A HELLO is repeated as it was: its counter is its nonce, and it has no other field.
        if name in self._used and not isinstance(datagram, Hello):
            self.repeated.append(name[1:])
        self._used.add(name)
        return datagram
