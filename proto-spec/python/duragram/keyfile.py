"""Key files, the same for server and clients: see `duragram keys --help`."""

from __future__ import annotations

import os
from typing import Optional


def parse_client(text: str) -> int:
    """16 hexadecimal digits, 0x and hexadecimal digits, or a decimal number."""
    base = 16 if text.startswith("0x") or len(text) == 16 else 10
    client = int(text, base)
    if not 0 <= client < 2**64:
        raise ValueError(f"{text}: a client id has 64 bits")
    return client


def read_key(path: str, client: Optional[int] = None) -> tuple[int, bytes]:
    """A client and its key, which may be derived from the file's fleet key. Without `client`: the only one of the file.

    `ValueError` says what is wrong with the file."""
    with open(path, encoding="ascii") as file:
        if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
            raise ValueError(f"{path}: only its owner may have any permission on a key file (chmod 600)")
        lines = [line.split("#")[0].split() for line in file]
    fleet: Optional[bytes] = None
    keys: dict[int, Optional[bytes]] = {}
    for number, words in enumerate(lines, 1):
        try:
            if not words:
                continue
            if words[0] == "fleet" and len(words) == 2:
                fleet = _key(words[1])
            elif words[0] == "client" and len(words) >= 3:
                keys[parse_client(words[1])] = None if words[2] == "fleet" else _key(words[2])
            elif words[0] != "revoked":
                raise ValueError("neither `fleet KEY`, nor `client ID KEY`, nor `revoked ID`")
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    if client is None:
        if len(keys) != 1:
            raise ValueError(f"{path}: which client? It names {len(keys)}")
        (client,) = keys
    key = keys.get(client)
    if key is None and fleet is not None:
        from .seal import client_key

        key = client_key(fleet, client)
    if key is None:
        raise ValueError(f"{path}: no key for client {client:016x}")
    return client, key


def _key(text: str) -> bytes:
    key = bytes.fromhex(text)
    if len(key) != 32:
        raise ValueError("a key has 64 hexadecimal digits")
    return key
