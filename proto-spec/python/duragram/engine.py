"""The thread of a blocking client. It alone touches the core and the socket: callers put records into an inbox and wait
on locks of their own. So an exception that a signal raises in a caller, or a signal's handler that sends too, meets
nothing half done, and no lock is held while anything else runs."""

from __future__ import annotations

import contextlib
import itertools
import selectors
import socket
import threading
import time
from collections import deque
from typing import Any, Callable, Final, Generic, Optional, Sequence, TypeVar

from . import process
from .asks import ASKS_MAX
from .bell import Bell, acquire
from .blocking_pending import BlockingAsk, BlockingPending, BlockingWait
from .core import end_ask
from .errors import Closed
from .link import Link, discard, logger
from .options import Options
from .route import AddressInfo

T = TypeVar("T")
#: An address to try while none was found.
NOTHING_FOUND: Final[Sequence[AddressInfo]] = ()


class Engine:
    def __init__(self, options: Options) -> None:
        self.link = Link(options)
        self.options = options
        #: What may be unacked at once.
        self.window = options.window
        self._batches = options.batch
        self._machine = self.link.core.machine
        #: Records that callers gave: channel, record, and what becomes of it.
        self.inbox: deque[tuple[int, bytes, BlockingPending]] = deque()
        #: Those that have no answer.
        self.asks: set[BlockingAsk] = set()
        self.ask_room = Bell()
        self.serials = itertools.count(1)
        #: What is to be called once a record has its outcome.
        self.watchers: dict[BlockingWait[Any], list[Callable[[], object]]] = {}
        self.room = Bell()
        #: Records that had no outcome when it ended.
        self.lost = 0
        self.cause: Optional[BaseException] = None
        self.has_ended = False
        self._commands: deque[tuple[Callable[[float], object], _Answer[Any]]] = deque()
        self._flushes: list[tuple[int, threading.Lock]] = []
        self._ending = False
        self.is_orphaned = False
        #: Which sleep of the thread this is; 0 while it is awake.
        self._sleep_number = self._sleeps = self._woken = 0
        host, port = options.address()
        self.link.open(socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM))
        self._wakes: tuple[socket.socket, ...] = ()
        try:
            self._wakes = socket.socketpair()
            for sock in self._wakes:
                sock.setblocking(False)
            # Not `select`, which takes no descriptor above 1,023.
            self._selector = getattr(selectors, "PollSelector", selectors.DefaultSelector)()
            self._watched: Optional[socket.socket] = None
            self._watched_events = 0
            self._selector.register(self._wakes[0], selectors.EVENT_READ)
            self._thread = threading.Thread(target=self._run, name="duragram", daemon=True)
            process.born(self)
            self._thread.start()
        except BaseException:
            process.ended(self)
            self._close_sockets()
            raise

    # For callers, in whatever thread.

    @property
    def load(self) -> int:
        """What counts against the window. With batches records find room in those that are there."""
        return len(self.inbox) + (0 if self._batches else self._machine.queued)

    @property
    def has_room(self) -> bool:
        """Whether those that wait for room may go on: woken for each datagram that is acked they would spend their time
        on waking."""
        most = self.window
        return self.load <= most * 3 // 4 or (self._sleep_number != 0 and self.load < most)

    @property
    def may_ask(self) -> bool:
        """Whether there is room for a further ask."""
        return len(self.asks) + self._machine.asks.adopted < ASKS_MAX

    @property
    def unacked(self) -> int:
        return len(self.inbox) + self.link.core.unacked

    def check(self) -> None:
        """`Closed` if nothing can be sent any more."""
        if self.link.was_left:
            raise self.link.foreign()
        if self.has_ended or self._ending or self.is_orphaned:
            raise self.closed()

    def closed(self) -> Closed:
        if self.cause is None:
            return Closed("the client is closed")
        error = Closed(f"the client has failed: {self.cause!r}")
        error.__cause__ = self.cause
        return error

    @property
    def is_within(self) -> bool:
        """Whether the caller is a callback of this client's own thread."""
        return threading.get_ident() == self._thread.ident

    def check_not_within(self) -> None:
        if self.is_within:
            raise RuntimeError("a done callback must not wait for its own client: nobody else would move it on")

    def put(self, channel: int, record: bytes) -> BlockingPending:
        """Takes a record. `wake` is to follow."""
        pending = BlockingPending(next(self.serials), self)
        self.inbox.append((channel, record, pending))
        if self.has_ended:
            self._empty_inbox()
            raise self.closed()
        return pending

    def put_ask(self, channel: int, record: bytes, wait: float) -> BlockingAsk:
        """As `put`, of a message that asks."""
        asked = BlockingAsk(next(self.serials), self, wait)
        self.asks.add(asked)
        self.inbox.append((channel, record, asked.receipt))
        if self.has_ended:
            self._empty_inbox()
            raise self.closed()
        return asked

    def wake(self) -> None:
        """What was put anywhere is looked at soon. Once for each sleep is enough."""
        sleep = self._sleep_number
        if sleep and sleep != self._woken:
            try:
                self._wakes[1].send(b"\0")
            except OSError:
                pass  # it is full: the thread will wake anyway
            # Last: whatever interrupts this wakes it once more rather than never.
            self._woken = sleep

    def call(self, function: Callable[[float], T]) -> T:
        """Has a function called by the thread, with the time, and returns what it returns."""
        if self.is_within:
            return function(time.monotonic())
        answer: _Answer[T] = _Answer(self)
        self._commands.append((function, answer))
        if self.has_ended:
            self._refuse_commands()
        self.wake()
        return answer.get()

    def command(self, function: Callable[[float], object]) -> None:
        """As `call`, for which nobody waits."""
        self._commands.append((function, _Answer(self)))
        if self.has_ended:
            self._refuse_commands()
        self.wake()

    def abandon_oldest(self, now: float) -> bool:
        """For `call`."""
        self._take_inbox(now)
        return self.link.core.abandon_oldest(now)

    def flush(self, timeout: Optional[float]) -> bool:
        """Waits until what was taken so far has its outcome."""
        if not self.unacked:
            return True
        self.check_not_within()
        until = None if timeout is None else time.monotonic() + timeout
        entry = (next(self.serials), threading.Lock())
        entry[1].acquire()
        self.call(lambda now: self._flushes.append(entry))
        try:
            return acquire(entry[1], until)
        finally:
            self.command(lambda now: self._flushes.remove(entry) if entry in self._flushes else None)

    def end(self) -> None:
        """Ends the thread at once."""
        if self.link.is_foreign or self.has_ended:
            return
        self._ending = True
        self.wake()
        if not self.is_within:
            self._thread.join()

    def orphan(self) -> None:
        """Nothing more will be given: it ends once everything has its outcome."""
        self.is_orphaned = True
        if not self.link.is_foreign:
            self.wake()

    # The process.

    def leave(self) -> None:
        self.link.leave()
        for sock in self._wakes:
            discard(sock)

    def end_at_exit(self, deadline: float) -> None:
        if self.link.is_foreign or self.has_ended:
            return
        try:
            self.flush(max(deadline - time.monotonic(), 0))
        except Closed:
            pass
        finally:
            self.end()

    # The thread.

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:
            self.cause = error
        if self.link.is_foreign:
            return  # forked by a callback: the parent's goes on
        if self.cause is not None:
            logger.error("%s has failed", self.link, exc_info=self.cause)
        self._finish()

    def _turn(self) -> bool:
        if self._ending or self.link.is_foreign:
            return False
        now = time.monotonic()
        self.link.receive(now)
        while self._commands:
            function, answer = self._commands.popleft()
            answer.set(function(now))
        self._take_inbox(now)
        settled, more = self.link.turn(now)
        self._tell()
        if self.link.looks_up(now):
            self._look_up()
        if self.is_orphaned and not self.unacked:
            return False
        if not more and not (settled and self.inbox):
            self._sleep()
        return True

    def _take_inbox(self, now: float) -> None:
        core, inbox = self.link.core, self.inbox
        if inbox:
            core.take(now, inbox)
        if self._flushes:
            core.flush_batch(now)

    def _tell(self) -> None:
        """Wakes those that wait for room or for everything."""
        if self.room and self.has_room:
            self.room.ring()
        if self.ask_room and self.may_ask:
            self.ask_room.ring()
        if self._flushes:
            oldest = self.link.core.oldest()
            if oldest is None and self.inbox:
                oldest = self.inbox[0][2].serial
            for entry in [entry for entry in self._flushes if oldest is None or entry[0] < oldest]:
                self._flushes.remove(entry)
                entry[1].release()

    def _sleep(self) -> None:
        link = self.link
        self._sleeps += 1
        self._sleep_number = self._sleeps
        try:
            core = link.core
            if self._commands or self._ending or self.is_orphaned or (self.inbox and core.has_room_for(self.inbox[0])):
                # Put there by one that saw the thread awake.
                return
            if self.room and self.load < self.window:
                self.room.ring()  # the rest of the window too, while there is nothing else to do
            self._watch_socket()
            deadline = link.deadline
            for key, _ in self._selector.select(None if deadline is None else max(deadline - time.monotonic(), 0)):
                if key.fileobj is self._wakes[0]:
                    try:
                        self._wakes[0].recv(4096)
                    except BlockingIOError:
                        pass
        finally:
            self._sleep_number = 0

    def _watch_socket(self) -> None:
        sock, events = self.link.socket, selectors.EVENT_READ
        if self.link.outbox:
            events |= selectors.EVENT_WRITE
        if sock is self._watched and events == self._watched_events:
            return
        if self._watched is not None:
            self._selector.unregister(self._watched)
        if sock is not None:
            self._selector.register(sock, events)
        self._watched, self._watched_events = sock, events

    def _look_up(self) -> None:
        """Asks for the name's addresses in another thread: a resolver that hangs must not keep acks from being heard."""

        def look_up() -> None:
            found = NOTHING_FOUND
            try:
                host, port = self.options.address()
                found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
            except OSError as error:
                logger.info("%s: %s", self.link, error)
            self._commands.append((lambda now: self.link.looked_up(now, found), _Answer(self)))
            self.wake()

        try:
            threading.Thread(target=look_up, name="duragram-resolver", daemon=True).start()
        except RuntimeError:  # no thread can be started, now or any more
            self.link.looked_up(time.monotonic(), NOTHING_FOUND)

    def _finish(self) -> None:
        """However the thread ends, nobody waits for ever."""
        self.has_ended = True
        process.ended(self)
        self.lost = self._empty_inbox()
        try:
            self.lost += self.link.core.close(self.closed)
        except Exception as error:
            logger.error("%s: %r", self.link, error)  # what has failed may fail again
        for pending in list(self.watchers):
            if pending.outcome is None:
                pending.outcome = self.closed()
            pending.settled()
        self._refuse_commands()
        self.room.ring()
        self.ask_room.ring()
        for _, lock in self._flushes:
            lock.release()
        self._flushes.clear()
        self._close_sockets()

    def _empty_inbox(self) -> int:
        count = 0
        while self.inbox:
            try:
                _, _, pending = self.inbox.popleft()
            except IndexError:
                break
            pending.outcome = self.closed()
            pending.settled()
            end_ask(pending, pending.outcome)
            count += 1
        return count

    def _refuse_commands(self) -> None:
        while self._commands:
            try:
                _, answer = self._commands.popleft()
            except IndexError:
                return
            answer.refuse()

    def _close_sockets(self) -> None:
        for one in [self.link, *self._wakes, *([self._selector] if hasattr(self, "_selector") else [])]:
            with contextlib.suppress(OSError):  # another part of the program may have closed it
                one.close()


class _Answer(Generic[T]):
    """What a call of the thread returns."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._lock.acquire()
        self._value: Optional[tuple[T]] = None

    def set(self, value: T) -> None:
        self._value = (value,)
        self._lock.release()

    def refuse(self) -> None:
        self._lock.release()

    def get(self) -> T:
        self._lock.acquire()
        if self._value is None:
            raise self._engine.closed()
        return self._value[0]
