"""From the server's name to a socket."""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Final, Sequence

#: Room for one datagram from the server: the longest ACK, sealed, is shorter. A longer one is cut, and ignored.
REPLY_BYTES: Final = 512
#: Silence, in seconds, after which the name is looked up again and another socket opened; doubles up to the second.
SILENCE_FIRST: Final = 5.0
SILENCE_MOST: Final = 60.0
#: Acks that came while the program did something else.
RECEIVE_BUFFER: Final = 1 << 20

AddressInfo = Sequence[Any]


def open_socket(found: Sequence[AddressInfo]) -> socket.socket:
    """A connected, non-blocking socket towards the first address that takes one: the kernel drops what comes from
    elsewhere."""
    failure: OSError = OSError("the server's name has no address")
    for family, kind, protocol, _, address in found:
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:
            failure = error
            continue
        try:
            sock.setblocking(False)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            sock.connect(address)
            return sock
        except OSError as error:
            sock.close()
            failure = error
    raise failure
