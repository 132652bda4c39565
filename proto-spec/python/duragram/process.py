"""What becomes of clients when their process forks or ends."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
import weakref
from typing import Final, Protocol

logger = logging.getLogger("duragram")

#: How long the end of the interpreter waits for acks of what was never waited for, in seconds, over all clients.
EXIT_PATIENCE: Final = 5.0


class Lives(Protocol):
    """A client that has not ended."""

    def leave(self) -> None:
        """In a forked child: this copy must not go on."""

    @property
    def lost(self) -> int:
        """How many records had no outcome when it ended."""
        ...

    def end_at_exit(self, deadline: float) -> None:
        """Flushes until then (of `time.monotonic`) and ends."""
        ...


_living: weakref.WeakSet[Lives] = weakref.WeakSet()
#: Of those that nobody holds any more.
_kept: set[Lives] = set()
_watched_process = 0


def born(client: Lives) -> None:
    global _watched_process
    _living.add(client)
    if _watched_process != os.getpid():
        _watched_process = os.getpid()
        # A child of multiprocessing ends without `atexit`, by way of its own finalizers.
        multiprocessing = sys.modules.get("multiprocessing.process")
        if multiprocessing is not None and multiprocessing.parent_process() is not None:
            from multiprocessing.util import Finalize

            Finalize(None, at_exit, exitpriority=100)


def keep(client: Lives) -> None:
    """It is to be ended at exit, though nobody holds it."""
    _kept.add(client)
    born(client)


def ended(client: Lives) -> None:
    _living.discard(client)


def at_exit() -> None:
    deadline = time.monotonic() + EXIT_PATIENCE
    lost = 0
    for client in list(_living):
        try:
            client.end_at_exit(deadline)
        except KeyboardInterrupt:
            deadline = 0.0  # who is at the keyboard has waited long enough
        except Exception:
            logger.exception("%s could not be ended", client)
        lost += client.lost
    if lost:
        logger.warning(
            "the program ended with %d records unacked: the server may have them or not; close() waits for them", lost
        )


def _after_fork_in_child() -> None:
    for client in list(_living):
        client.leave()
    _living.clear()
    _kept.clear()


atexit.register(at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
