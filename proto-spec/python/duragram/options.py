"""What a client is, and its limits, checked before anything begins."""

from __future__ import annotations

import math
import operator
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Iterable, Optional, SupportsIndex

from . import wire
from .asks import ASKS_MAX, SEQ_MAX, WAIT_MAX
from .errors import TooLarge
from .machine import Machine
from .message import Config
from .wire import PLAIN_MIN

if TYPE_CHECKING:
    # Type checkers bring it; at run time nobody needs it.
    from typing_extensions import Buffer

#: The length of a sealed datagram without payload (PROTOCOL.md#sealed-layout).
SEALED_MIN = 52


@dataclass(frozen=True)
class Options:
    """What a client is, and its limits. Only `server` is needed. A wrong one raises `ValueError` or `TypeError`."""

    #: `host:port`, `[IPv6]:port`
    server: str
    #: Who it is; random if not given, which is right for a program that runs once.
    client_id: Optional[int] = None
    #: This run's number, which this client id must never have used before; by default the server gives one.
    epoch: Optional[int] = None
    #: Datagrams that may be unacked at once, 1 to 65,536. `send` waits when it is full.
    window: int = 1024
    #: The longest UDP payload to send.
    datagram_bytes_max: int = wire.DATAGRAM_RECOMMENDED
    #: Let small records share datagrams: at once when nothing is under way, else when one is full or `linger` has passed.
    batch: bool = False
    #: Seconds.
    linger: float = 0.001
    #: The longest interval between two tries while the server is away, in seconds.
    retry_interval_max: float = 10.0
    #: 32 bytes, shared with the server: sealed mode. Needs the package `cryptography`.
    key: Optional[bytes] = field(default=None, repr=False)
    #: With `key` and `epoch`: a count of this client's starts, stored before it is used.
    boot_count: Optional[int] = None
    #: What earlier runs of this client asked and has no answer, as `waiting()` gave it: all of that, since what is not named
    #: and lies below one that is taken is forgotten by the server.
    waiting: Iterable[tuple[int, int]] = ()

    def __post_init__(self) -> None:
        address(self.server)
        if self.client_id is None:
            self._set("client_id", secrets.randbits(64))
        self._integer("client_id", 0, wire.U64_MAX)
        if self.epoch is not None:
            self._integer("epoch", 1, wire.U32_MAX)
        if self.boot_count is not None:
            self._integer("boot_count", 0, wire.U32_MAX)
        self._integer("window", 1, 65536)
        overhead = PLAIN_MIN if self.key is None else SEALED_MIN
        self._integer("datagram_bytes_max", overhead + 1, wire.DATAGRAM_MAX)
        if not isinstance(self.batch, bool):
            raise TypeError(f"batch is True or False, not {self.batch!r}")
        self._seconds("linger", 0.0)
        self._seconds("retry_interval_max", 0.001)
        if self.key is not None:
            key = copied(self.key, "the key")
            if len(key) != 32:
                raise ValueError(f"a key has 32 bytes, not {len(key)}")
            self._set("key", key)
        self._set("waiting", self._names())

    def _names(self) -> tuple[tuple[int, int], ...]:
        try:
            pairs = sorted({(epoch, seq) for epoch, seq in self.waiting})
        except (TypeError, ValueError):
            raise TypeError("waiting holds pairs of epoch and seq, as waiting() gives them") from None
        names = tuple((integer("an epoch", epoch, 1, wire.U32_MAX), integer("a seq", seq, 1, SEQ_MAX)) for epoch, seq in pairs)
        if len(names) > ASKS_MAX:
            raise ValueError(f"{len(names)} asks wait; a client has at most {ASKS_MAX}")
        if self.epoch in {epoch for epoch, _ in names}:
            raise ValueError(f"epoch {self.epoch} was used before: something waits in it")
        return names

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _integer(self, name: str, least: int, most: int) -> None:
        self._set(name, integer(name, getattr(self, name), least, most))

    def _seconds(self, name: str, least: float) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} is a number of seconds, not {value!r}")
        if not least <= value <= 3600:
            raise ValueError(f"{name} is {value}; it must be from {least} to 3600 seconds")
        self._set(name, float(value))

    def machine(self) -> Machine:
        client = self.client_id or 0
        config = Config(self.datagram_bytes_max, self.window, rto_max=self.retry_interval_max, unix_time=time.time)
        config.epoch_doubted = self.epoch is not None
        link: wire.Wire = wire.Plain(client)
        if self.key is not None:
            from .seal import Sealed

            link = Sealed(client, self.key, self.boot_count)
        return Machine(client, self.epoch or 0, link, config)

    def address(self) -> tuple[str, int]:
        """The server's name and port."""
        return address(self.server)


def address(server: str) -> tuple[str, int]:
    """`host:port` or `[IPv6]:port` to the name and the port."""
    if not isinstance(server, str):
        raise TypeError(f"the server is a string, HOST:PORT, not {server!r}")
    host, _, port = server.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not host or not (port.isascii() and port.isdigit()):
        raise ValueError(f"the server is HOST:PORT, not {server!r}")
    if not 1 <= int(port) <= 65535:
        raise ValueError(f"the server's port is from 1 to 65535, not {port}")
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"{host!r} is no host name: {error}") from None
    if "\0" in host or host != host.strip():
        raise ValueError(f"{host!r} is no host name")
    return host, int(port)


def integer(name: str, value: SupportsIndex, least: int, most: int) -> int:
    """A number within its bounds, as an `int`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is an integer, not {value!r}") from None
    if not least <= number <= most:
        raise ValueError(f"{name} is {number}; it must be from {least} to {most}")
    return number


def seconds(name: str, value: Optional[float]) -> Optional[float]:
    """A time to wait: `None` and infinity are for ever, what is below 0 is 0."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number of seconds, not {value!r}")
    if math.isnan(value):
        raise ValueError(f"{name} is not a number")
    # Longer than systems can wait is for ever.
    return None if value > 1e9 else max(float(value), 0.0)


def held(wait: float) -> float:
    """For how long the server may hold a TAKE, in seconds: no server holds one for longer than this."""
    patience = seconds("wait", wait)
    return WAIT_MAX if patience is None else min(patience, WAIT_MAX)


def named(epoch: SupportsIndex, seq: SupportsIndex) -> tuple[int, int]:
    """The name of an ask."""
    return integer("the epoch", epoch, 1, wire.U32_MAX), integer("the seq", seq, 1, SEQ_MAX)


def copied(buffer: Buffer, what: str = "a record", most: Optional[int] = None) -> bytes:
    """The bytes as they are now: what their owner does with the buffer later changes nothing. `TooLarge` above `most`."""
    if type(buffer) is bytes and (most is None or len(buffer) <= most):
        return buffer
    try:
        view = memoryview(buffer)
    except TypeError:
        hint = ": encode it, as by .encode()" if isinstance(buffer, str) else ""
        raise TypeError(f"{what} is bytes or a buffer, not {type(buffer).__name__}{hint}") from None
    # Not its items, which may be longer than a byte.
    if most is not None and view.nbytes > most:
        raise TooLarge(f"{what} of {view.nbytes} bytes does not fit in a datagram: at most {most}")
    return view.tobytes()
