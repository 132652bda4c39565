"""What the calls of a blocking client return before the outcome is there."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Optional

from .asks import Ask
from .bell import acquire
from .core import Got, Pending, Waiting
from .errors import Answer, Receipt, SendError
from .link import logger
from .options import seconds

if TYPE_CHECKING:
    from typing_extensions import Self

    from .engine import Engine


class BlockingWait(Waiting[Got]):
    """Something to come."""

    __slots__ = ("_engine",)

    _missing = "no reply yet"

    def __init__(self, serial: int, engine: Engine) -> None:
        # Not by `super`, which costs as much as all else here.
        self.outcome = None
        self.serial = serial
        self._engine = engine

    def done(self) -> bool:
        """Whether `result` returns at once."""
        return self.outcome is not None or self._engine.has_ended or self._engine.link.was_left

    def result(self, timeout: Optional[float] = None) -> Got:
        """Waits for it; raises `SendError` if it will not come, `TimeoutError` if it takes longer."""
        error = self.exception(timeout)
        if error is not None:
            raise error
        assert self.outcome is not None and not isinstance(self.outcome, SendError)
        return self.outcome

    def exception(self, timeout: Optional[float] = None) -> Optional[SendError]:
        """Waits for the outcome; `None` if it has come. `TimeoutError` if it takes longer."""
        timeout = seconds("timeout", timeout)
        if self.outcome is None:
            if self._engine.link.is_foreign:
                return self._engine.link.foreign()
            self._wait(timeout)
        if self.outcome is None:
            self.outcome = self._engine.closed()
        return self.outcome if isinstance(self.outcome, SendError) else None

    def add_done_callback(self, callback: Callable[[Self], object]) -> None:
        """Calls it with this object once there is an outcome, in the client's thread (at once if there is one). It must
        not wait for this client. What it raises is logged."""
        if not callable(callback):
            raise TypeError(f"a callback is callable, unlike {callback!r}")
        if self.outcome is None and self._engine.link.is_foreign:
            raise self._engine.link.foreign()
        self._watch(partial(call_back, callback, self))

    def settled(self) -> None:
        all_watchers = self._engine.watchers
        # Who comes after this look finds the outcome.
        if all_watchers and (watchers := all_watchers.pop(self, None)):
            self._drain(watchers)

    def _wait(self, timeout: Optional[float]) -> None:
        self._engine.check_not_within()
        until = None if timeout is None else time.monotonic() + timeout
        lock = threading.Lock()
        lock.acquire()
        watchers = self._watch(lock.release)
        try:
            if self.outcome is None and not self._engine.has_ended and not acquire(lock, until) and self.outcome is None:
                raise TimeoutError(self._missing)
        finally:
            if lock.release in watchers:
                try:
                    watchers.remove(lock.release)
                except ValueError:
                    pass  # the client's thread has just taken it

    def _watch(self, watcher: Callable[[], object]) -> list[Callable[[], object]]:
        """The watcher is called once there is an outcome."""
        watchers = self._engine.watchers.setdefault(self, [])
        watchers.append(watcher)
        if self.outcome is not None:
            # It may have been set before the watcher was there. Whoever takes a watcher from the list calls it.
            self._engine.watchers.pop(self, None)
            self._drain(watchers)
        return watchers

    @staticmethod
    def _drain(watchers: list[Callable[[], object]]) -> None:
        while watchers:
            try:
                watcher = watchers.pop(0)
            except IndexError:
                return
            watcher()


class BlockingPending(BlockingWait[Receipt], Pending):
    """A receipt to come. Dropping it does not take the record back."""

    __slots__ = ()

    _missing = "no ack yet"


class AskingPending(BlockingPending):
    """That of a message that asks."""

    __slots__ = ("ask",)

    def __init__(self, serial: int, engine: Engine, ask: Ask) -> None:
        super().__init__(serial, engine)
        self.ask = ask


class BlockingAsk(BlockingWait[Answer]):
    """An answer to come, and before it the receipt. Dropping it takes nothing back."""

    __slots__ = ("receipt",)

    _missing = "no answer yet"

    def __init__(self, serial: int, engine: Engine, wait: float) -> None:
        super().__init__(serial, engine)
        #: From its receipt on the message is on the server's disk, and the answer can be taken in a later run too.
        self.receipt: BlockingPending = AskingPending(serial, engine, Ask(wait, self))

    def settled(self) -> None:
        self._engine.asks.discard(self)
        super().settled()


def call_back(callback: Callable[[Any], object], pending: object) -> None:
    try:
        callback(pending)
    except Exception:
        logger.exception("a done callback raised")
