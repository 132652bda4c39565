"""Between a client's core and its socket, for both faces: datagrams in and out, another address when nothing answers,
and what a log should know. A face waits: for the socket, for time, for its callers."""

from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
import time
from collections import deque
from typing import Final, Optional, Sequence

from . import wire
from .core import Core
from .errors import Closed
from .message import FINAL
from .options import Options
from .route import REPLY_BYTES, AddressInfo, Route, Watch

#: Datagrams received, and sent, between two chances for others.
BURST: Final = 256
#: Silence, in seconds, after which the log says so.
SILENCE_TOLD: Final = 5.0

logger = logging.getLogger("duragram")


class Link:
    def __init__(self, options: Options) -> None:
        self.options = options
        self.core = Core(options)
        self.socket: Optional[socket.socket] = None
        self.route = Route()
        #: Datagrams that the socket had no room for.
        self.outbox: deque[bytes] = deque()
        #: The process that it belongs to: a copy in another one must never send.
        self.process = os.getpid()
        #: Whether this is the copy in a forked child, as far as Python was told of the fork: no call of the system is made to
        #: look. What is sent or waited for is up to `is_foreign`.
        self.was_left = False
        self._watch = Watch()
        self._looking = False
        #: Whether there may be more to receive.
        self._behind = False
        # No ANSWER is longer than the TAKE that it answers.
        self._reply_bytes = max(REPLY_BYTES, options.datagram_bytes_max)
        self._told_silence = False
        self._told_refusals: set[int] = set()
        self._told_foreign = False
        self._epoch = self.core.machine.epoch

    @property
    def is_foreign(self) -> bool:
        """Whether this is the copy that a fork made."""
        return self.process != os.getpid()

    def foreign(self) -> Closed:
        return Closed(f"this client belongs to process {self.process}, which forked: create one in each process")

    def open(self, found: Sequence[AddressInfo]) -> None:
        """A first or another socket, towards the next of these addresses."""
        opened = self.route.next(found)
        if self.socket is not None:
            self.socket.close()
        self.socket = opened

    def receive(self, now: float) -> None:
        """Takes what has come."""
        if self.socket is None:
            return
        receive, handle = self.socket.recv, self.core.machine.handle_datagram
        self._behind = True
        for _ in range(BURST):
            try:
                datagram = receive(self._reply_bytes)
            except (BlockingIOError, InterruptedError):
                self._behind = False
                break
            except OSError as error:
                self._trouble(now, error)
                continue
            ignored = handle(now, datagram)
            if ignored is None:
                self._watch.heard()
                self._told_silence = False
            elif ignored == "never_sent" and not self._told_foreign:
                self._told_foreign = True
                logger.warning("%s: an ack of what was never sent: it is forged, or another run uses this epoch", self)

    def turn(self, now: float) -> tuple[bool, bool]:
        """What is due is done and sent. Returns whether any record was settled, and whether there is more to do now."""
        core = self.core
        # What has come and was not looked at yet may be what the timer waits for.
        settled = core.advance(now, timers=not self._behind)
        more = self._behind
        if not self.is_foreign and self.socket is not None and self._send_outbox(now):
            datagrams = core.machine.transmit(now, BURST)
            more |= len(datagrams) == BURST
            self.outbox.extend(datagrams)
            self._send_outbox(now)
            settled |= core.advance(now, timers=False)  # what turned out to be too long
        self._watch.asked(now, bool(core.unacked) or core.machine.asks.is_overdue)
        self._tell(now)
        return settled, more and not self.outbox

    def _send_outbox(self, now: float) -> bool:
        """`False` when the socket has no room for more."""
        assert self.socket is not None
        outbox, send = self.outbox, self.socket.send
        while outbox:
            try:
                send(outbox[0])
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                self._not_sent(now, outbox[0], error)
            outbox.popleft()
        return True

    def _not_sent(self, now: float, datagram: bytes, error: OSError) -> None:
        """As good as lost on the way, and will be sent again; but what is too long for UDP here fails."""
        assert self.socket is not None
        try:
            # The error may be of an earlier datagram, told late by an ICMP message; telling it has cleared it.
            self.socket.send(datagram)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as again:
            if again.errno == errno.EMSGSIZE and error.errno == errno.EMSGSIZE:
                self.core.machine.fail_too_long(now, datagram)
            elif again.errno not in (errno.ENOBUFS, errno.EMSGSIZE):
                self._trouble(now, again)

    def _trouble(self, now: float, error: OSError) -> None:
        if error.errno in (errno.EBADF, errno.ENOTSOCK):
            # Another part of the program has closed it: the number is not this client's any more, and not to be closed.
            assert self.socket is not None
            self.socket.detach()
            self.socket = None
            raise error
        self._watch.trouble(now, error, self.route)

    @property
    def deadline(self) -> Optional[float]:
        """When the next turn is due, if nothing comes."""
        times = [at for at in (self.core.deadline, None if self._looking else self._watch.due(self.route)) if at is not None]
        return min(times) if times else None

    def looks_up(self, now: float) -> bool:
        """Whether the name is to be looked up now; then `looked_up` must follow."""
        due = self._watch.due(self.route)
        if self._looking or due is None or now < due:
            return False
        self._looking = True
        return True

    def looked_up(self, now: float, found: Sequence[AddressInfo]) -> None:
        """Another socket, perhaps towards another address. `found` is empty if the resolver failed. When no socket can
        be opened, the old one stays and the next try follows."""
        self._looking = False
        broken = self._watch.tried(now)
        before = self.route.address
        try:
            self.open(found)
        except OSError as error:
            logger.info("%s: no way to the server: %s", self, error)
            return
        if self.route.address != before:
            logger.info("%s: tries %s", self, self.route.address)
        if broken or self.route.address != before:
            self.outbox.clear()
            self.core.machine.path_changed(now)
        else:
            # What is held would be answered to the socket before.
            self.core.machine.asks.restart()

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def drain(self, deadline: float) -> None:
        """Goes on until every record has its outcome, at most until then, without a thread or an event loop."""
        self.core.flush_batch(time.monotonic())
        if self.socket is not None and self.socket.fileno() < 0:
            self.open(())  # it was collected before this
        while self.core.unacked and self.socket is not None and (now := time.monotonic()) < deadline:
            self.receive(now)
            _, more = self.turn(now)
            due = min(deadline, self.deadline or deadline)
            if not more and self.core.unacked:
                wait_readable(self.socket, max(due - time.monotonic(), 0.001))

    @property
    def lost(self) -> int:
        return 0 if self.is_foreign else self.core.unacked

    def end_at_exit(self, deadline: float) -> None:
        """Of a client whose event loop is gone."""
        if not self.is_foreign:
            try:
                self.drain(deadline)
            finally:
                self.close()

    def leave(self) -> None:
        """In a forked child: the descriptor goes; the socket itself is the parent's."""
        self.was_left = True
        discard(self.socket)
        self.socket = None

    def _tell(self, now: float) -> None:
        machine = self.core.machine
        if not self._told_silence and self._watch.silence(now) >= SILENCE_TOLD:
            self._told_silence = True
            refusal = FINAL.get(machine.pause_code) or wire.REJECT_NAMES.get(machine.pause_code)
            logger.warning("%s: no answer for %d s%s; trying on", self, SILENCE_TOLD, f" (the last was {refusal})" if refusal else "")
        for code in machine.stats.rejects_by_code.keys() - self._told_refusals:
            self._told_refusals.add(code)
            logger.warning("%s: refused by the server: %s", self, FINAL.get(code) or wire.REJECT_NAMES.get(code, f"code {code}"))
        if machine.epoch != self._epoch:
            if self._epoch:
                logger.warning("%s: epoch %d was left for epoch %d", self, self._epoch, machine.epoch)
            self._epoch = machine.epoch

    def __str__(self) -> str:
        return f"client {self.options.client_id:016x} to {self.options.server}"


def wait_readable(sock: socket.socket, timeout: float) -> None:
    # Not `select`, which takes no descriptor above 1,023.
    with getattr(selectors, "PollSelector", selectors.DefaultSelector)() as selector:
        selector.register(sock, selectors.EVENT_READ)
        selector.select(timeout)


def discard(sock: Optional[socket.socket]) -> None:
    """Closes the descriptor alone: what stands around it (an event loop's hub) may be the parent's."""
    if sock is None:
        return
    try:
        os.close(sock.detach())
    except Exception:
        pass  # a descriptor that stays open in the child harms nobody
