"""What an asyncio client's `send` returns."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Callable, Generator, Optional

from .core import Pending
from .errors import Receipt, SendError

if TYPE_CHECKING:
    from .aio import AsyncClient


class AsyncPending(Pending):
    """A receipt to come: `await` it. Dropping it does not take the record back."""

    __slots__ = ("_client", "_future", "_callbacks")

    def __init__(self, serial: int, client: AsyncClient) -> None:
        super().__init__(serial)
        self._client = client
        self._future: Optional[asyncio.Future[None]] = None
        self._callbacks: list[Callable[[AsyncPending], object]] = []

    def __await__(self) -> Generator[Any, None, Receipt]:
        if self.outcome is None:
            self._client._check_process()
            loop = self._client._own_loop()
            if self._future is None:
                self._future = loop.create_future()
            # Whoever gives up waiting must not take the receipt from others.
            yield from asyncio.shield(self._future).__await__()
        return self.result()

    def done(self) -> bool:
        """Whether awaiting it returns at once."""
        return self.outcome is not None or self._client._link.is_foreign

    def result(self) -> Receipt:
        """The receipt; raises `SendError` if there is none, `asyncio.InvalidStateError` before there is an outcome."""
        error = self.exception()
        if error is not None:
            raise error
        assert isinstance(self.outcome, Receipt)
        return self.outcome

    def exception(self) -> Optional[SendError]:
        """Why there is no receipt; `None` if there is one. `asyncio.InvalidStateError` before there is an outcome."""
        if self.outcome is None:
            if self._client._link.is_foreign:
                return self._client._link.foreign()
            raise asyncio.InvalidStateError("no ack yet")
        return None if isinstance(self.outcome, Receipt) else self.outcome

    def add_done_callback(self, callback: Callable[[AsyncPending], object]) -> None:
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
