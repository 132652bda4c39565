"""Threads that wait for each other."""

from __future__ import annotations

import threading
import time
from typing import Callable, Optional


class Bell:
    """Lets threads wait for a condition that another one makes true. Nothing is held while the condition is looked at."""

    def __init__(self) -> None:
        #: The locks of those that wait.
        self.waiting: dict[int, threading.Lock] = {}

    def __bool__(self) -> bool:
        return bool(self.waiting)

    def wait(self, condition: Callable[[], bool], timeout: Optional[float]) -> bool:
        until = None if timeout is None else time.monotonic() + timeout
        while not condition():
            lock = threading.Lock()
            lock.acquire()
            self.waiting[id(lock)] = lock
            try:
                # Who rings after this look finds the lock.
                if condition():
                    return True
                if not acquire(lock, until):
                    return condition()
            finally:
                self.waiting.pop(id(lock), None)
        return True

    def ring(self) -> None:
        while self.waiting:
            try:
                _, lock = self.waiting.popitem()
            except KeyError:
                return
            lock.release()


def acquire(lock: threading.Lock, until: Optional[float]) -> bool:
    """Waits for a lock, at most until then."""
    if until is None:
        return lock.acquire()
    return lock.acquire(timeout=min(max(until - time.monotonic(), 0), threading.TIMEOUT_MAX))
