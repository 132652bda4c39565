"""What a client has asked, and when the answers are to be taken. It knows no socket, no clock, and no datagram but ANSWER and
TAKE; that an ask is on the server's disk it is told. An ask is named by epoch and seq; times are seconds (PROTOCOL.md#answers-client)."""

from __future__ import annotations

import math
from collections import deque
from random import Random
from typing import Any, Final, Iterable, NamedTuple, Optional

from . import wire
from .path import interval
from .wire import SPAN_MAX, DecodeError

#: Asks that may be unfinished at a time, over all epochs: the server has room for no more of one client (PROTOCOL.md#duty-c1).
ASKS_MAX: Final = 64
#: TAKEs that may be without a reply at a time (PROTOCOL.md#duty-c4).
TAKES_MAX: Final = 16
#: The longest that a server holds a TAKE, in seconds.
WAIT_MAX: Final = 20.0
#: How long it may hold the first one of a seq, in seconds. A TAKE that is lost is sent again after the time for which it may be held
#: and a timeout: a short one finds that soon, also over a bad path (PROTOCOL.md#duty-c4).
FIRST_WAIT: Final = 1.0
#: The longest from the end of a hold to the next TAKE of a seq, in seconds, whatever was heard; before up to a quarter more.
RETRY_MAX: Final = 60.0
#: No seq that waits is higher: there is one to name when nothing waits any more.
SEQ_MAX: Final = wire.U64_MAX - 1 - SPAN_MAX
NEVER: Final = math.inf
AT_ONCE: Final = -math.inf


class Ask:
    """A message that asked, until it is finished. `token` is the caller's."""

    __slots__ = (
        "token", "wait", "epoch", "seq", "is_acked", "status", "answered", "length", "body",
        "room", "is_open", "due", "rests_until", "tries", "early", "held", "taken_at", "takers", "is_adopted",
    )  # fmt: skip

    def __init__(self, wait: float, token: Any = None) -> None:
        self.token = token
        #: For how long the server may hold a TAKE, at most, in seconds. 0: it is taken when the server says READY, or on demand.
        self.wait = wait
        self.epoch = 0
        #: 0 until it is transmitted.
        self.seq = 0
        #: It is on the server's disk: until then no TAKE names it.
        self.is_acked = False
        #: `wire.DONE`, `FAILED` or `GONE` once it is finished by an answer.
        self.status: Optional[int] = None
        #: The status of an answer whose body had no room.
        self.answered: Optional[int] = None
        #: Of the answer's whole body, in bytes. Finished with more of it than of `body`, it did not fit in a datagram.
        self.length = 0
        self.body = b""
        #: For how many bytes of body the latest TAKE had room.
        self.room = 0
        #: A TAKE is under way, or held by the server.
        self.is_open = False
        #: When it is to be taken, or taken again.
        self.due = NEVER
        #: Before this the server does not want to hear of it.
        self.rests_until = AT_ONCE
        #: TAKEs in a row that got no reply.
        self.tries = 0
        #: TAKEs that were held, and answered before the answer was there.
        self.early = 0
        #: For how long the server may hold the latest TAKE, in seconds.
        self.held = 0.0
        #: When it was taken last.
        self.taken_at = AT_ONCE
        #: Callers' tokens, and for how many more seconds the server may hold it for them: each is told of the reply after that,
        #: PENDING too.
        self.takers: list[tuple[Any, float]] = []
        #: Of an earlier run.
        self.is_adopted = False


class Take(NamedTuple):
    """A TAKE to send."""

    epoch: int
    seq: int
    span: int
    wait_ms: int
    room: int


class Session:
    """The asks of an epoch that are not finished, by seq."""

    def __init__(self) -> None:
        self.asks: dict[int, Ask] = {}
        #: Those above the lowest of them whose answers were had: the server keeps them as long as that one is not finished.
        self.had: list[int] = []
        #: The highest seq that asked.
        self.last = 0
        #: All that waits in it is known. Else nothing may be said of other seqs: the server would forget them.
        self.is_whole = True
        #: The highest of them that is on the server's disk; 0 if none is, so that there is nothing to forget.
        self.last_acked = 0
        #: Something that asked in it waits in another now. Whether it was journaled here too is not known.
        self.was_left = False

    def span(self, seq: int) -> int:
        """To the lowest that is not finished, acked or not (PROTOCOL.md#duty-c2). May be more than a TAKE can say."""
        return seq - min(self.asks, default=seq) if self.is_whole else min(seq - 1, SPAN_MAX)


class Asks:
    """All asks of a client."""

    def __init__(self, random: Random, room_max: int) -> None:
        #: The server said in its latest ack that an answer of this session waits: a hint.
        self.is_ready = False
        self.first_wait = FIRST_WAIT
        #: The longest body that fits in a datagram.
        self.room_max = room_max
        self._random = random
        self._sessions: dict[int, Session] = {}
        #: What is not finished and has a seq.
        self._named: dict[tuple[int, int], Ask] = {}
        #: What has none yet.
        self._unnamed = 0
        #: Of what is not finished, how many are of earlier runs.
        self.adopted = 0
        self._finished: list[Ask] = []
        #: What takers are told: the ask as it is now, and the taker's token.
        self._replies: list[tuple[Any, Ask]] = []
        #: Sessions in which nothing waits any more and the server was not told.
        self._had: set[int] = set()
        #: Sessions in which the server had no room: it may not have been told of what was had.
        self._refused: set[int] = set()
        #: The epoch of the client's own session.
        self._epoch = 0
        #: When TAKEs were sent in the round trip before now.
        self._sent: deque[float] = deque()
        #: The length of the latest body: the next may be as long.
        self._room = 0

    # What is known.

    @property
    def unfinished(self) -> int:
        return len(self._named) + self._unnamed

    @property
    def is_full(self) -> bool:
        """Whether no further message may ask for now."""
        # What the server keeps counts there: it would refuse the lowest one for ever, if that is not acked yet.
        return len(self._named) + sum(len(session.had) for session in self._sessions.values()) >= ASKS_MAX

    @property
    def is_overdue(self) -> bool:
        """Whether a TAKE got no reply in time."""
        return any(ask.tries > 1 for ask in self._named.values())

    def waiting(self) -> list[tuple[int, int]]:
        """Epoch and seq of what is on the server's disk and has no answer: what is to be stored to go on after a restart
        (PROTOCOL.md#duty-c8)."""
        return sorted(name for name, ask in self._named.items() if ask.is_acked)

    def epochs(self) -> set[int]:
        """In which something waits, or is to be said."""
        return {epoch for epoch, _ in self._named} | self._had

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to take, now or later."""
        return not (self._named or self._had)

    def unfinished_asks(self) -> list[Ask]:
        """Those that have a seq."""
        return list(self._named.values())

    def find(self, epoch: int, seq: int) -> Optional[Ask]:
        return self._named.get((epoch, seq))

    # What becomes of messages.

    def enter(self, epoch: int) -> None:
        """Another session begins."""
        self._epoch, self.is_ready = epoch, False
        self._sessions = {old: session for old, session in self._sessions.items() if session.asks or old in self._had}
        self._refused.clear()

    def begin(self) -> None:
        """A message that asks was taken; it has no seq."""
        self._unnamed += 1

    def name(self, ask: Ask, epoch: int, seq: int) -> None:
        """It is transmitted for the first time under this name."""
        ask.epoch, ask.seq = epoch, seq
        self._unnamed -= 1
        self._put(ask)

    def unname(self, ask: Ask) -> None:
        """It will be sent again in another epoch, and waits only there (PROTOCOL.md#duty-c6)."""
        self._sessions[ask.epoch].was_left = True
        self._remove(ask)
        ask.epoch = ask.seq = 0
        self._unnamed += 1

    def ack(self, ask: Ask) -> None:
        """It is on the server's disk."""
        ask.is_acked = True
        session = self._sessions[ask.epoch]
        session.last_acked = max(session.last_acked, ask.seq)
        ask.due = AT_ONCE if ask.wait > 0 or ask.takers else NEVER

    def drop(self, ask: Ask) -> None:
        """Its message has failed or was given up: nothing is wanted any more."""
        if ask.seq:
            self._remove(ask)
        else:
            self._unnamed -= 1

    def refuse(self, epoch: int) -> None:
        """The server has no room for one. What was had and cannot be told by the TAKE of another may be the reason."""
        session = self._sessions.get(epoch)
        if session is not None and session.last_acked and not any(ask.is_acked for ask in session.asks.values()):
            self._refused.add(epoch)

    def adopt(self, epoch: int, seq: int, is_whole: bool) -> Ask:
        """One of an earlier run, which is on the server's disk. It is taken on demand. `is_whole`: all that waits in that
        epoch is or will be adopted, before anything is taken."""
        ask = Ask(0.0)
        self.adopted += 1
        ask.epoch, ask.seq, ask.is_acked, ask.is_adopted = epoch, seq, True, True
        self._put(ask)
        session = self._sessions[epoch]
        session.is_whole &= is_whole
        session.last_acked = max(session.last_acked, seq)
        return ask

    def _put(self, ask: Ask) -> None:
        session = self._sessions.setdefault(ask.epoch, Session())
        session.asks[ask.seq] = ask
        session.last = max(session.last, ask.seq)
        self._named[ask.epoch, ask.seq] = ask
        self._had.discard(ask.epoch)

    def _remove(self, ask: Ask) -> None:
        del self._named[ask.epoch, ask.seq]
        self.adopted -= ask.is_adopted
        session = self._sessions[ask.epoch]
        del session.asks[ask.seq]
        if ask.is_acked:
            session.had.append(ask.seq)
        lowest = min(session.asks, default=wire.U64_MAX)
        session.had = [seq for seq in session.had if seq > lowest]
        if not session.asks:
            if session.is_whole and session.last_acked and not session.was_left:
                self._had.add(ask.epoch)
            else:
                self._end(ask.epoch)

    def _end(self, epoch: int) -> None:
        """Nothing waits in that epoch. Of the session that goes on it is still known what was had."""
        if epoch != self._epoch:
            del self._sessions[epoch]

    # Taking.

    def take(self, ask: Ask, wait: float, token: Any) -> None:
        """Somebody wants to know now; the server may hold it for so many seconds. The token comes back by `take_replies`."""
        ask.takers.append((token, wait))
        if ask.is_acked:
            ask.due, ask.tries = AT_ONCE, 0

    def give_up_takers(self, token: Any) -> None:
        """Who wanted to know does not wait any more."""
        for ask in self._named.values():
            ask.takers = [taker for taker in ask.takers if taker[0] is not token]
            if not ask.takers and ask.wait == 0:
                # Nobody waits for the reply: it need not be repeated.
                ask.is_open, ask.tries, ask.due = False, 0, NEVER

    def note_ready(self, now: float, epoch: int, is_ready: bool) -> None:
        """An ack of that epoch: those that sleep are taken if it says READY, as often as the server bears (PROTOCOL.md#duty-c5)."""
        self.is_ready = is_ready
        session = self._sessions.get(epoch)
        if is_ready and session is not None:
            for ask in session.asks.values():
                if ask.is_acked and not ask.is_open and ask.due == NEVER:
                    ask.due = max(now, ask.rests_until)

    def restart(self) -> None:
        """The path is another one: what was held or under way finds its way back no more."""
        self._sent.clear()
        for ask in self._named.values():
            if ask.is_open:
                ask.due, ask.tries = AT_ONCE, 0

    def next_take(self, now: float, rto: float, round_trip: float, window: int) -> Optional[Take]:
        """What is to be taken now; it counts as sent. At most `window` in a round trip."""
        while self._sent and self._sent[0] + round_trip <= now:
            self._sent.popleft()
        if len(self._sent) >= window:
            return None
        ask = self._candidate(now)
        if ask is None:
            return self._reminder(now) or self._farewell(now)
        self._sent.append(now)
        # What takes long costs few datagrams.
        wait = min(max((wait for _, wait in ask.takers), default=ask.wait), self.first_wait * 2 ** min(ask.early, 16))
        ask.room = min(ask.length or self._room, self.room_max)
        ask.is_open, ask.taken_at, ask.held = True, now, wait
        ask.due = now + wait + interval(rto, ask.tries, RETRY_MAX, self._random)
        ask.tries += 1
        return Take(ask.epoch, ask.seq, self._sessions[ask.epoch].span(ask.seq), round(wait * 1000), ask.room)

    def _candidate(self, now: float) -> Optional[Ask]:
        """The one that was not taken for the longest time, of those that are due."""
        found: Optional[Ask] = None
        has_place = self._open < TAKES_MAX
        for ask in self._named.values():
            if ask.due > now or not (has_place or ask.is_open):
                continue
            if found is not None and (ask.taken_at, ask.epoch, ask.seq) >= (found.taken_at, found.epoch, found.seq):
                continue
            if self._can_be_said(ask):
                found = ask
        return found

    @property
    def _open(self) -> int:
        return sum(ask.is_open for ask in self._named.values())

    def _can_be_said(self, ask: Ask) -> bool:
        """A shorter span would have the server forget what is not finished: those below come first."""
        return self._sessions[ask.epoch].span(ask.seq) <= SPAN_MAX

    def _reminder(self, now: float) -> Optional[Take]:
        """Where the server has no room, and nothing can be taken: it may forget what was had, but for the last."""
        while self._refused:
            epoch = self._refused.pop()
            session = self._sessions[epoch]
            span = max(session.span(session.last_acked), 0)
            if span <= SPAN_MAX:
                self._sent.append(now)
                return Take(epoch, session.last_acked, span, 0, 0)
        return None

    def _farewell(self, now: float) -> Optional[Take]:
        """Where nothing waits any more the server may forget. What has no seq yet will say it with its own TAKE. The seq that is
        named is far from those that ask next: a late GONE would be taken for the answer to one of them (PROTOCOL.md#duty-c7)."""
        if not self._had or self._unnamed:
            return None
        epoch = self._had.pop()
        last = self._sessions[epoch].last
        self._end(epoch)
        self._sent.append(now)
        return Take(epoch, last + 1 + SPAN_MAX, SPAN_MAX, 0, 0)

    def deadline(self, round_trip: float, window: int) -> Optional[float]:
        """When `next_take` may give something again, if nothing is heard."""
        has_place = self._open < TAKES_MAX
        dues = [ask.due for ask in self._named.values() if (has_place or ask.is_open) and self._can_be_said(ask)]
        if self._refused or (self._had and not self._unnamed):
            dues.append(AT_ONCE)
        due = min(dues, default=NEVER)
        if len(self._sent) >= window:
            due = max(due, self._sent[-window] + round_trip)
        return None if due == NEVER else due

    # What comes.

    def answer(self, now: float, answer: wire.Answer, rto: float) -> None:
        """An ANSWER of this client (PROTOCOL.md#duty-c3). `DecodeError` if nothing waits under its name: nothing has changed then."""
        ask = self._named.get((answer.epoch, answer.seq))
        if ask is None or not ask.is_acked:
            raise DecodeError("not_waiting")
        if answer.status in (wire.DONE, wire.FAILED):
            if len(answer.body) == answer.number:
                ask.body = answer.body
                self._room = len(answer.body)
                self._finish(ask, answer.status, answer.number)
            else:
                self._want_body(ask, answer)
        elif answer.status == wire.GONE:
            self._finish(ask, wire.GONE, 0)
        elif ask.is_open:
            self._rest(now, ask, answer.number / 1000, rto)

    def _want_body(self, ask: Ask, answer: wire.Answer) -> None:
        ask.answered = answer.status
        if answer.number > self.room_max:
            self._finish(ask, answer.status, answer.number)
        elif answer.number > ask.room or not ask.is_open:
            ask.length, ask.tries, ask.due = answer.number, 0, AT_ONCE
        # Else it is the reply to a TAKE that had less room, or one that says nothing new: the timer goes on.

    def _rest(self, now: float, ask: Ask, retry_after: float, rto: float) -> None:
        """It is PENDING."""
        ask.is_open, ask.tries = False, 0
        ask.early += ask.held > 0
        ask.rests_until = now + min(max(retry_after, rto), RETRY_MAX) * self._random.uniform(1, 1.25)
        # It was held to the end: who wants to wait for longer does so.
        patient = [(token, wait - ask.held) for token, wait in ask.takers if wait > ask.held > 0 and retry_after == 0]
        ask.takers = [taker for taker in ask.takers if all(taker[0] is not token for token, _ in patient)]
        self._tell_takers(ask)
        ask.takers = patient
        ask.due = ask.rests_until if ask.wait > 0 or patient else NEVER

    def _finish(self, ask: Ask, status: int, length: int) -> None:
        ask.status, ask.length, ask.is_open, ask.due = status, length, False, NEVER
        self._remove(ask)
        self._finished.append(ask)
        self._tell_takers(ask)

    def _tell_takers(self, ask: Ask) -> None:
        self._replies += [(token, ask) for token, _ in ask.takers]
        ask.takers = []

    def too_long(self, epoch: int, seq: int) -> None:
        """A TAKE is longer than UDP carries here: the body cannot come."""
        ask = self._named.get((epoch, seq))
        if ask is None:
            return
        self._room = 0
        if ask.answered is not None:
            self._finish(ask, ask.answered, ask.length)
        else:
            # The room was a guess.
            ask.due, ask.tries = AT_ONCE, 0

    def lose(self, epochs: Iterable[int]) -> None:
        """In these epochs nothing can be sent any more: what waits there is reported as GONE."""
        for epoch in epochs:
            for ask in [ask for ask in self._sessions[epoch].asks.values() if ask.is_acked]:
                self._finish(ask, wire.GONE, 0)
            self._had.discard(epoch)
            if not self._sessions[epoch].asks:
                self._end(epoch)

    # What the caller takes.

    @property
    def has_news(self) -> bool:
        """Whether `take_finished` or `take_replies` has anything."""
        return bool(self._finished or self._replies)

    def take_finished(self) -> list[Ask]:
        """What was answered or is gone since the last call, each once."""
        finished, self._finished = self._finished, []
        return finished

    def take_replies(self) -> list[tuple[Any, Ask]]:
        """For whom a reply came since the last call, and of which ask; its status is `None` while it is PENDING."""
        replies, self._replies = self._replies, []
        return replies
