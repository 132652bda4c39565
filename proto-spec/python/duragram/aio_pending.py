"""What the calls of an asyncio client return before the outcome is there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Callable, Generator, Optional

from .asks import Ask
from .core import Got, Pending, Waiting
from .errors import Answer, Receipt, SendError

if TYPE_CHECKING:
    from typing_extensions import Self

    from .aio import AsyncClient


class AsyncWait(Waiting[Got]):
    """Something to come: `await` it."""

    _missing = "no reply yet"

    __slots__ = ("_client", "_future", "_callbacks")

    def __init__(self, serial: int, client: AsyncClient) -> None:
        super().__init__(serial)
        self._client = client
        self._future: Optional[asyncio.Future[None]] = None
        self._callbacks: list[Callable[[Any], object]] = []

    def __await__(self) -> Generator[Any, None, Got]:
        if self.outcome is None:
            self._client._check_process()
            loop = self._client._own_loop()
            if self._future is None:
                self._future = loop.create_future()
            # Whoever gives up waiting must not take it from others.
            yield from asyncio.shield(self._future).__await__()
        return self.result()

    def done(self) -> bool:
        """Whether awaiting it returns at once."""
        return self.outcome is not None or self._client._link.is_foreign

    def result(self) -> Got:
        """What has come; raises `SendError` if it will not, `asyncio.InvalidStateError` before there is an outcome."""
        error = self.exception()
        if error is not None:
            raise error
        assert self.outcome is not None and not isinstance(self.outcome, SendError)
        return self.outcome

    def exception(self) -> Optional[SendError]:
        """Why it will not come; `None` if it has. `asyncio.InvalidStateError` before there is an outcome."""
        if self.outcome is None:
            if self._client._link.is_foreign:
                return self._client._link.foreign()
            raise asyncio.InvalidStateError(self._missing)
        return self.outcome if isinstance(self.outcome, SendError) else None

    def add_done_callback(self, callback: Callable[[Self], object]) -> None:
        """Has the loop call it with this object once there is an outcome (soon, if there is one)."""
        if not callable(callback):
            raise TypeError(f"a callback is callable, unlike {callback!r}")
        self._client._check_process()
        loop = self._client._own_loop()
        if self.outcome is None:
            self._callbacks.append(callback)
        else:
            loop.call_soon(callback, self)

    def settled(self) -> None:
        loop = self._client._loop
        if loop is None or loop.is_closed():
            return  # nobody can be told any more
        if self._future is not None and not self._future.done():
            self._future.set_result(None)
        for callback in self._callbacks:
            loop.call_soon(callback, self)
        self._callbacks = []


class AsyncPending(AsyncWait[Receipt], Pending):
    """A receipt to come: `await` it. Dropping it does not take the record back."""

    __slots__ = ()

    _missing = "no ack yet"


class AsyncAskingPending(AsyncPending):
    """That of a message that asks."""

    __slots__ = ("ask",)

    def __init__(self, serial: int, client: AsyncClient, ask: Ask) -> None:
        super().__init__(serial, client)
        self.ask = ask


class AsyncAsk(AsyncWait[Answer]):
    """An answer to come, `await` it; and before it the receipt. Dropping it takes nothing back."""

    __slots__ = ("receipt",)

    _missing = "no answer yet"

    def __init__(self, serial: int, client: AsyncClient, wait: float) -> None:
        super().__init__(serial, client)
        #: From its receipt on the message is on the server's disk, and the answer can be taken in a later run too.
        self.receipt: AsyncPending = AsyncAskingPending(serial, client, Ask(wait, self))
