"""From the server's name to a socket towards one of its addresses, and when to try another."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Any, Final, Optional, Sequence

#: Room for one datagram from the server: the longest ACK, sealed, is shorter. A longer one is cut, and ignored; but an ANSWER
#: may be as long as the client's own datagrams.
REPLY_BYTES: Final = 512
#: Silence, in seconds, after which the name is looked up again and another socket opened; doubles up to the second.
SILENCE_FIRST: Final = 5.0
SILENCE_MOST: Final = 60.0
#: The share of it for a name with several addresses none of which has answered yet.
SILENCE_UNKNOWN: Final = 0.2
#: From an error of the socket to the next try, in seconds; doubles up to the second.
TROUBLE_FIRST: Final = 0.1
TROUBLE_MOST: Final = 5.0
#: Acks that came while the program did something else.
RECEIVE_BUFFER: Final = 1 << 20

AddressInfo = Sequence[Any]


class Route:
    """The addresses of the server's name and which of them is in use."""

    def __init__(self) -> None:
        self._found: list[AddressInfo] = []
        self.address: Optional[tuple[Any, ...]] = None

    @property
    def has_alternatives(self) -> bool:
        return len(self._found) > 1

    def next(self, found: Sequence[AddressInfo]) -> socket.socket:
        """A socket towards the address after the one in use, of those that the name has now. Without any: of those
        that it had, since a resolver that is away is no reason to forget what is known."""
        infos = list(found) or self._found
        start = next((at + 1 for at, info in enumerate(infos) if info[4] == self.address), 0)
        failure: Optional[OSError] = None
        for step in range(len(infos)):
            info = infos[(start + step) % len(infos)]
            try:
                sock = _socket_to(info)
            except OSError as error:
                # The first address is the preferred one, so its failure is the one to tell.
                failure = failure or error
                continue
            self._found, self.address = infos, info[4]
            return sock
        raise failure or OSError("the server's name has no address")


def _socket_to(info: AddressInfo) -> socket.socket:
    """A connected, non-blocking socket: the kernel drops what comes from elsewhere, and tells when nobody listens."""
    family, kind, protocol, _, address = info
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.connect(address)
        return sock
    except BaseException:
        sock.close()
        raise


class Watch:
    """Decides when another socket is to be tried: after silence, or after an error of the one in use."""

    def __init__(self) -> None:
        #: Whether the address in use, or one before it, has ever answered.
        self.heard_ever = False
        self._since: Optional[float] = None
        self._patience = SILENCE_FIRST
        self._trouble_at: Optional[float] = None
        self._trouble_pause = TROUBLE_FIRST

    def heard(self) -> None:
        self.heard_ever, self._since = True, None
        self._patience, self._trouble_pause = SILENCE_FIRST, TROUBLE_FIRST

    def asked(self, now: float, anything: bool) -> None:
        """Whether anything waits for an answer."""
        if not anything:
            self._since = None
        elif self._since is None:
            self._since = now

    def trouble(self, now: float, error: OSError, route: Route) -> None:
        """An error of the socket. Nobody listening is ordinary while the server restarts, and concerns only this
        address; all others mean that this socket's way is gone."""
        if self._trouble_at is None and (error.errno != errno.ECONNREFUSED or route.has_alternatives):
            self._trouble_at = now + self._trouble_pause
            self._trouble_pause = min(self._trouble_pause * 2, TROUBLE_MOST)

    def due(self, route: Route) -> Optional[float]:
        """When another socket is to be tried."""
        patience = self._patience
        if route.has_alternatives and not self.heard_ever:
            patience *= SILENCE_UNKNOWN
        times = [at for at in (self._trouble_at, None if self._since is None else self._since + patience) if at is not None]
        return min(times) if times else None

    def silence(self, now: float) -> float:
        """For how long nothing was heard of what was asked."""
        return 0.0 if self._since is None else now - self._since

    def tried(self, now: float) -> bool:
        """Another socket was tried: more patience for the next. Returns whether it was because of an error."""
        broken, self._trouble_at = self._trouble_at is not None, None
        if self._since is not None:
            self._since = now
        if self.heard_ever or not broken:
            self._patience = min(self._patience * 2, SILENCE_MOST)
        return broken
