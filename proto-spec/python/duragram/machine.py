"""The client's half of the protocol as a state machine: it is told of messages, datagrams and time, and asked for
datagrams, a deadline and outcomes. It knows no socket and no clock (PROTOCOL.md#client-duties).

After each call that changes it (`send`, `take`, `handle_datagram`, `handle_timeout`, `abandon_oldest`), drain it:

1. `take_decided()`: the messages that have ended; where something asks also `asks.take_finished()` and `asks.take_replies()`.
2. `transmit(now)` until it gives nothing: the datagrams to send. One that the socket would not take counts as lost on
   the way: the machine will send it again.
3. `deadline`: call `handle_timeout` then, or later, and drain it.

Times are seconds of a clock that never steps back, such as `time.monotonic()`.
"""

from __future__ import annotations

import secrets
from random import Random
from typing import Any, Final, Optional

from . import wire
from .arrivals import Arrivals, Doubt
from .asks import Ask, Asks
from .path import Congestion, Rtt, WaitsFor, interval
from .queue import Queue
from .message import FINAL, HELD, UNSENT, Config, Message, Outcome, Stats
from .wire import SPAN_MAX, Ack, Answer, DecodeError, Reject, Welcome

#: A datagram is lost when one that was sent this many transmissions later has arrived (PROTOCOL.md#duty-loss).
REORDERING_MAX: Final = 3


class Machine:
    """One client. `epoch` 0: it asks the server for one."""

    def __init__(
        self, client: int, epoch: int, link: wire.Wire, config: Config, random: Optional[Random] = None
    ) -> None:
        self.client = client
        self.epoch = epoch
        self.config = config
        self.stats = Stats()
        self.rtt = Rtt()
        self.congestion = Congestion(config.congestion_window_initial, min(config.window, SPAN_MAX + 1))
        #: Until when the server asked for patience, and by which code.
        self.paused_until: Optional[float] = None
        self.pause_code = 0
        self._wire = link
        # Of jitter. It asks the system once: each time would be a call of it, at which another thread goes on.
        self._random = random or Random(secrets.randbits(128))
        self._nonces = random or secrets.SystemRandom()
        #: What has asked, until it is answered.
        self.asks = Asks(self._random, self.payload_max)
        self._own_epochs = epoch != 0
        if epoch:
            link.enter(epoch)
            self.asks.enter(epoch)
        self._queue = Queue()
        # What the acks of the session told.
        self._floor = 0
        self._seen = 0
        self._credit: Optional[int] = None
        self._credit_max = 0
        self._fruitful = False
        self._arrivals = Arrivals()
        # Timing.
        self._due: Optional[float] = None
        self._next_transmission = 1
        self._waits_for: Optional[WaitsFor] = None
        self._tries = 0
        self._fruitless_epochs = 0
        self._silent = False
        self._probe = False
        self._ping_due = False
        self._pinged = False
        self._hello: Optional[int] = None
        self._hello_due = False
        self._congestion_limited = False
        self._doubt = Doubt(config.epoch_doubted and epoch != 0, link.is_sealed)

    # What the caller gives and takes.

    @property
    def deadline(self) -> Optional[float]:
        """When `handle_timeout` is due."""
        due = self._due
        if (held := self._queue.held_until) is not None and (due is None or held < due):
            due = held
        if not self.asks.is_idle:
            taking = self.asks.deadline(self._round_trip(), self.congestion.window)
            if taking is not None and (due is None or taking < due):
                due = taking
        return due

    @property
    def queued(self) -> int:
        """Messages that have not ended."""
        queue = self._queue
        return len(queue.waiting) + len(queue.sent)

    @property
    def in_flight(self) -> int:
        """Messages that may be on the path."""
        return self._queue.in_flight

    @property
    def credit(self) -> Optional[int]:
        """How many seqs, from the lowest unacked one on, the server allows; `None` before it told."""
        return self._credit

    @property
    def payload_max(self) -> int:
        """The longest payload that fits in a datagram."""
        return self.config.datagram_bytes_max - self._wire.overhead

    def send(
        self, now: float, payload: bytes, channel: int = 0, batch: bool = False, token: Any = None, ask: Optional[Ask] = None
    ) -> Message:
        """Takes a message, of which `payload_max` and `config.window` are the caller's to respect; with an `ask`, which is no
        batch then, also `asks.ASKS_MAX`: beyond, it keeps back all that follow."""
        message = Message(payload, channel, batch, token, ask)
        if ask is not None:
            self.asks.begin()
        self._queue.waiting.append(message)
        if self._doubt.is_used:
            self._queue.end_all(Outcome.EPOCH_USED, self.epoch)
            return message
        if not self.epoch and self._hello is None:
            self._ask_for_epoch(at_once=True)
        if self._waits_for is None:
            self._arm(now, anew=False)
        return message

    def oldest_token(self) -> Any:
        """The token of the oldest message that has not ended; `None` if all have."""
        return self._queue.oldest_token()

    def fail_too_long(self, now: float, datagram: bytes) -> None:
        """A datagram that `transmit` gave is longer than UDP carries here: its message fails. Sent again it would be so
        again, and for ever."""
        first, _, _, epoch, _, seq, _ = wire.HEAD.unpack_from(datagram)
        if first & 15 == wire.TAKE:
            self.asks.too_long(epoch, seq)
        message = self._queue.sent.get(seq)
        if first & 15 == wire.DATA and epoch == self.epoch and message is not None:
            self._queue.end(message, Outcome.TOO_LONG)
            self._queue.pass_decided()
            self._arm(now, anew=False)

    def take_decided(self) -> list[Message]:
        """The messages that have ended since the last call."""
        decided = self._queue.take_decided()
        if self.asks.unfinished:
            for message in decided:
                if message.ask is not None and message.outcome is not Outcome.ACKED:
                    self.asks.drop(message.ask)
        return decided

    def take(self, epoch: int, seq: int, wait: float, token: Any) -> bool:
        """Wants to know now what came of a message that asked, in this run or in an earlier one; the server may hold that for so
        many seconds. `False` if nothing waits under that name. `asks.ASKS_MAX` is the caller's to respect."""
        ask = self.asks.find(epoch, seq)
        if ask is None:
            if epoch == self.epoch or not self._wire.can_take(epoch):
                return False
            ask = self.asks.adopt(epoch, seq, is_whole=False)
        self.asks.take(ask, wait, token)
        return True

    def abandon_oldest(self) -> Optional[Message]:
        """Gives up the oldest message that is not acked (PROTOCOL.md#duty-skip); `None` when all are."""
        return self._queue.end_oldest(Outcome.ABANDONED)

    def path_changed(self, now: float) -> None:
        """The path to the server is another one: forgets what is known of it, and tries at once."""
        self.rtt = Rtt()
        self.congestion.reset()
        self.paused_until = None
        self._tries, self._silent = 0, False
        self._queue.lose_all()
        self.asks.restart()
        if self._hello is not None:
            self._hello_due = True
        else:
            self._ping_due = self._is_blocked_by_credit()
        self._arm(now, anew=True)

    # Sending.

    def transmit(self, now: float, most: int = 64) -> list[bytes]:
        """The datagrams to send now, at most so many."""
        datagrams: list[bytes] = []
        self._queue.release(now)
        while len(datagrams) < most:
            datagram = self._next_datagram(now)
            if datagram is None:
                break
            datagrams.append(datagram)
        self._arm(now, anew=False)
        return datagrams

    def _next_datagram(self, now: float) -> Optional[bytes]:
        if not self.asks.is_idle and (take := self._next_take(now)) is not None:
            return take
        if self.paused_until is not None:
            return None
        if self._hello is not None:
            due, self._hello_due = self._hello_due, False
            return self._wire.short(wire.HELLO, 0, self._hello) if due else None
        if self._doubt.doubted and self._queue.skipped and self._queue.undecided:
            self._flee_doubted(now)
            return self._next_datagram(now)
        # What is in flight in a session that can send no more is waited for: in the next it would be journaled again.
        if self._wire.used_up and self._queue.awaited:
            return None
        if self._queue.undecided and (self._is_beyond_skipping() or self._wire.used_up):
            self._leave_epoch()
            return self._next_datagram(now)
        if not self.epoch:
            return None
        if self._ping_due:
            self._ping_due, self._pinged, self._doubt.pinged = False, True, True
            return self._wire.short(wire.PING, self.epoch, 0)
        self._congestion_limited = False
        message, seq = self._queue.candidate()
        if message is None or self._is_beyond_limit(seq):
            return None
        if self._doubt.doubted and self._queue.sent and message.state is UNSENT:
            return None  # the first goes alone
        if message.ask is not None and message.state is UNSENT and self.asks.is_full:
            return None
        if not self._probe and (self._silent or self._queue.in_flight >= self.congestion.window):
            self._congestion_limited = True
            return None
        self._probe = False
        return self._send_data(now, message, seq)

    def _next_take(self, now: float) -> Optional[bytes]:
        """Neither a pause nor missing credit keeps it back."""
        asks = self.asks
        if self._wire.is_sealed:
            asks.lose([epoch for epoch in asks.epochs() if not self._wire.can_take(epoch)])
        take = asks.next_take(now, self._rto(), self._round_trip(), self.congestion.window)
        return None if take is None else self._wire.take(*take)

    def _round_trip(self) -> float:
        smoothed = self.rtt.smoothed
        return self.config.rto_initial if smoothed is None else smoothed + self.rtt.delay

    def _send_data(self, now: float, message: Message, seq: int) -> bytes:
        self.stats.transmissions += 1
        queue = self._queue
        number = self._next_transmission
        missed = self._arrivals.is_missed(seq, number)
        again = queue.transmit(message, self.epoch, now, number, missed)
        self.stats.retransmissions += again
        if message.ask is not None and not again:
            self.asks.name(message.ask, self.epoch, seq)
        self._next_transmission += 1
        flags = message.flags | min(message.attempt, 7)
        if queue.skipped > self._floor:
            flags |= wire.SKIP
        return self._wire.data(flags, seq - queue.base, self.epoch, seq, message.word, message.payload)

    def _is_beyond_limit(self, seq: int) -> bool:
        """The credit counts from the floor, which each DATA moves up to its base (PROTOCOL.md#duty-window)."""
        return self._credit is not None and seq - self._queue.base >= self._credit

    def _is_blocked_by_credit(self) -> bool:
        if self._queue.awaited or self._credit is None:
            return False
        message, seq = self._queue.candidate()
        return message is not None and self._is_beyond_limit(seq)

    def _is_beyond_skipping(self) -> bool:
        """Whether so many seqs in a row were given up that the server would not move its floor over them (rule 4)."""
        return self._credit is not None and self._queue.base - 1 - self._floor > self._credit_max

    # Time.

    def handle_timeout(self, now: float) -> None:
        """Does what is due. Early and repeated calls do no harm."""
        if self._due is None or now < self._due:
            return
        if self._waits_for is WaitsFor.RESUME:
            self.paused_until = None
            # What got no answer in all of the wait is not on the path any more: it would keep the one datagram back.
            self._queue.lose_all()
            self.congestion.resume()
            self._hello_due = self._hello is not None
        elif self._waits_for is WaitsFor.EPOCH:
            self._tries += 1
            if self.queued:
                self._hello_due = True
            else:
                self._hello = None  # nobody needs the answer any more; the next message asks again
        elif self._waits_for is WaitsFor.ACK:
            self._handle_ack_timeout(now)
        else:
            self._tries += 1
            self._ping_due = True
        self._arm(now, anew=True)

    def _handle_ack_timeout(self, now: float) -> None:
        """PROTOCOL.md#duty-retransmission"""
        if not self.queued:
            # All was given up. The silence has lasted long enough for the next message to be tried at once.
            self._silent, self._tries = False, 0
            return
        if self._doubt.is_exposed(self._queue.sent.get(self._queue.base)):
            self._give_up_epoch(now)
            return
        self.stats.timeouts += 1
        self._tries += 1
        if self._tries == 1:
            # The tail may be lost, or an ack: the lowest one is sent again, and its ack tells about all others.
            self._probe_lowest()
        else:
            if self._tries == 2:
                self.congestion.collapse(self._next_transmission, self.rtt.window_short)
            else:
                self.congestion.fall_silent(self._next_transmission)
                self._silent = True
            self._queue.lose_all()
            self._probe, self._arrivals.expired = True, self._next_transmission
        if self._doubt.doubted:
            self._wire.rise()
        # The server may have shrunk its window below what is to be sent again.
        message, seq = self._queue.candidate()
        self._ping_due = message is not None and self._is_beyond_limit(seq)

    def _probe_lowest(self) -> None:
        """The lowest one is sent again, whatever the congestion window is."""
        lowest = self._queue.lowest_transmitted()
        if lowest is not None:
            self._queue.mark_lost(lowest)
            self._probe, self._arrivals.expired = True, self._next_transmission

    def _arm(self, now: float, anew: bool) -> None:
        """Sets the timer to what is waited for now. One that waits for the same as before goes on, unless `anew`."""
        if self.paused_until is not None:
            waits_for = WaitsFor.RESUME
        elif self._hello is not None:
            waits_for = WaitsFor.EPOCH
        elif self._queue.awaited:
            waits_for = WaitsFor.ACK
        elif self._is_blocked_by_credit():
            waits_for = WaitsFor.CREDIT
        elif self._silent:
            waits_for = WaitsFor.ACK
        else:
            self._waits_for = self._due = None
            return
        if not anew and waits_for is self._waits_for:
            return
        self._waits_for = waits_for
        self._due = self.paused_until if waits_for is WaitsFor.RESUME else now + self._next_try()

    def _rto(self) -> float:
        return self.rtt.timeout(self.config.rto_initial, self.config.rto_min)

    def _next_try(self) -> float:
        return interval(self._rto(), self._tries, self.config.rto_max, self._random)

    # What the server says. What does not fit what was sent is ignored whole, before anything changes.

    def handle_datagram(self, now: float, datagram: bytes) -> Optional[str]:
        """Handles a datagram from the server. Returns why it was ignored, `None` if it was not (PROTOCOL.md#duty-ignore)."""
        try:
            decoded = self._wire.open(datagram, self.epoch, self._hello)
            if decoded.client != self.client:
                raise DecodeError("other_client")
            if isinstance(decoded, Ack):
                self._handle_ack(now, decoded)
            elif isinstance(decoded, Reject):
                self._handle_reject(now, decoded)
            elif isinstance(decoded, Answer):
                self.asks.answer(now, decoded, self._rto())
            elif isinstance(decoded, Welcome):
                self._handle_welcome(now, decoded)
            else:
                raise DecodeError("for_servers")
        except DecodeError as error:
            self.stats.ignored[error.reason] = self.stats.ignored.get(error.reason, 0) + 1
            return error.reason
        self._silent = False
        return None

    def _handle_ack(self, now: float, ack: Ack) -> None:
        if not self.epoch or ack.epoch != self.epoch:
            raise DecodeError("other_epoch")
        floor, sent = ack.floor, self._queue.sent
        bits = int.from_bytes(ack.bitmap, "little")
        highest = floor + bits.bit_length()
        if highest >= self._queue.next_seq:
            first = sent.get(self._queue.base)
            if self._doubt.ack_of_what_was_never_sent(first):
                self._give_up_epoch(now)
            elif self._doubt.is_exposed(first) and self._waits_for is WaitsFor.ACK and self._due is not None:
                self._due = min(self._due, now + self._doubt.TRUTH_WAIT)
            raise DecodeError("never_sent")
        self._silent = False
        was_blocked = self._is_blocked_by_credit()
        newly = [sent[seq] for seq in range(self._queue.base, floor + 1) if seq in sent]
        # With thousands in flight behind one lost datagram each ack repeats a thousand bits, of which few are new.
        fresh = bits & ~(self._seen >> (floor - self._floor)) if floor >= self._floor else bits
        while fresh:
            lowest = fresh & -fresh
            fresh ^= lowest
            if (message := sent.get(floor + lowest.bit_length())) is not None:
                newly.append(message)
        if self._doubt.ack(ack, newly):
            self._give_up_epoch(now)
            return
        newest: Optional[Message] = None
        for message in newly:
            if newest is None or message.transmission > newest.transmission:
                newest = message
            message.durability = ack.durability
            self._queue.end(message, Outcome.ACKED)
            if message.ask is not None:
                self.asks.ack(message.ask)
        self._queue.pass_decided()
        # Of an ack overtaken by a newer one the credit is out of date, unless nothing is in flight: then it answers a
        # PING, and the server has forgotten the session.
        if floor >= self._floor or (self._queue.awaited == 0 and self._pinged):
            self._set_credit(ack.credit)
        if floor >= self._floor:
            self._floor, self._seen = floor, bits
            self._arrivals.note_told(ack)
            self.asks.note_ready(now, ack.epoch, ack.ready)
        self._pinged = False
        # While there is no credit no reply moves the next PING (PROTOCOL.md#duty-probe).
        still_blocked = was_blocked and self._is_blocked_by_credit()
        if was_blocked and not still_blocked:
            self._tries = 0
        if newest is not None:
            tries = self._tries
            self._learn(now, ack, newly, newest)
            if still_blocked:
                self._tries = tries
        self._arm(now, anew=newest is not None and not still_blocked)

    def _learn(self, now: float, ack: Ack, newly: list[Message], newest: Message) -> None:
        """What newly acked datagrams tell of the path, and of those before them that are not acked."""
        self.stats.acked += len(newly)
        self._fruitful = True
        self._fruitless_epochs = self._tries = 0
        # Karn's rule; and a duplicate's answer is not the one that came in time.
        if newest.attempt == 0 and not ack.duplicate:
            self.rtt.sample(now - newest.sent_at, ack.delay_us / 1e6)
        probe_again = self._arrivals.learn(now, ack, newly, self.rtt.least)
        if self._congestion_limited:
            end = self.congestion.episode_end
            self.congestion.acked(sum(message.transmission >= end for message in newly))
        self._find_losses(now)
        if probe_again:
            self._probe_lowest()

    def _find_losses(self, now: float) -> None:
        """PROTOCOL.md#duty-loss"""
        queue, told, expired, arrived = self._queue, self._arrivals.told, self._arrivals.expired, self._arrivals.newest
        answered = expired if arrived >= expired else 0
        # What an expiry has sent waited for all that was sent before: that has left the path, however little came between.
        queue.overtake(max(arrived - REORDERING_MAX, answered - 1))
        before_expiry = False
        if queue.overtaken:
            rto = self._rto()
            while (lowest := queue.lowest_overtaken()) is not None and lowest.seq <= told:
                before_expiry |= lowest.transmission < expired
                self._lose(lowest)
            # No ack has told of it in all that time. Sent again it may be a duplicate; duplicates are cheap, silence is not.
            while (oldest := queue.oldest_overtaken()) is not None and oldest.sent_at + rto <= now:
                before_expiry |= oldest.transmission < expired
                self._lose(oldest)
        if answered:
            self._arrivals.expired = 0
            if before_expiry:
                self.congestion.restart_after_expiry(self._next_transmission)

    def _handle_reject(self, now: float, reject: Reject) -> None:
        """PROTOCOL.md#duty-reject"""
        if self._hello is not None:
            if reject.epoch != 0 or reject.refused != self._hello:
                raise DecodeError("not_in_flight")
            self.stats.count_reject(reject.code)
            if reject.code in FINAL:
                self._queue.end_all(Outcome.FAILED, self.epoch, reject.code)
                self._hello = None
            else:
                self._pause(now, reject)
            self._arm(now, anew=True)
            return
        if not self.epoch or reject.epoch != self.epoch:
            raise DecodeError("other_epoch")
        message = self._queue.sent.get(reject.refused)
        if message is None and not (reject.refused == 0 and self._pinged):
            raise DecodeError("not_in_flight")
        self.stats.count_reject(reject.code)
        if message is not None and reject.code in FINAL:
            message.code = reject.code
            self._queue.end(message, Outcome.FAILED)
            self._queue.pass_decided()
        elif message is not None and message.ask is not None and reject.code == wire.REJECT_BUSY:
            # It may be the answer that there is no room for: others are taken all the same.
            self.asks.refuse(self.epoch)
            self._queue.hold(message, now + self._patience(reject, message.attempt))
        elif message is not None:
            self._queue.mark_lost(message)
        elif reject.code in FINAL:
            self._queue.end_all(Outcome.FAILED, self.epoch, reject.code)
        if reject.code == wire.REJECT_STALE_EPOCH:
            self._fruitless_epochs += not self._fruitful
            self._leave_epoch()
        elif reject.code == wire.REJECT_BEYOND_WINDOW:
            if message is not None:
                below = max(reject.refused - self._queue.base, 0)
                self._credit = below if self._credit is None else min(self._credit, below)
        elif reject.code not in FINAL and (message is None or message.state is not HELD):
            self._pause(now, reject)
        self._arm(now, anew=False)

    def _pause(self, now: float, reject: Reject) -> None:
        if self.paused_until is not None:
            return  # the answers to what was in flight with the first one
        self._tries += reject.retry_after_ms == 0
        wait = self._patience(reject, self._tries)
        self.paused_until, self.pause_code = now + wait, reject.code

    def _patience(self, reject: Reject, tries: int) -> float:
        if reject.retry_after_ms == 0:
            return interval(self._rto(), tries, self.config.rto_max, self._random)
        asked = min(reject.retry_after_ms / 1000, self.config.retry_after_max)
        return asked * self._random.uniform(1, 1.5)

    def _handle_welcome(self, now: float, welcome: Welcome) -> None:
        """PROTOCOL.md#duty-epoch"""
        backwards = self._wire.epochs_only_rise and welcome.epoch <= self.epoch
        # The epoch that has just been refused would number other messages with the same seqs.
        if self._hello is None or welcome.nonce != self._hello or welcome.epoch == self.epoch or backwards:
            raise DecodeError("unasked")
        self._enter_epoch(welcome.epoch)
        self._set_credit(welcome.credit)
        self._tries = 0
        self._arm(now, anew=True)

    # Sessions.

    def _leave_epoch(self) -> None:
        """A client that counts its own epochs takes the next one; where that was refused too, and where it does not
        count, the server knows which one is next (PROTOCOL.md#duty-epoch)."""
        if self._own_epochs and self._fruitless_epochs <= 1 and self.epoch < wire.U32_MAX:
            unix = int(self.config.unix_time()) if self.config.unix_time else 0
            self._enter_epoch(max(self.epoch + 1, unix if unix <= wire.U32_MAX else 0))
        else:
            self._ask_for_epoch(at_once=self._fruitless_epochs <= 2)

    def _flee_doubted(self, now: float) -> None:
        """A seq was used up in vain: what another run has acked up to there can no longer be told from an answer to this
        one. The next epoch is doubted as well, unless the server is asked for it."""
        self._leave_epoch()
        if self._hello is None:
            self._doubt.begin(True)
        self._arm(now, anew=False)

    def _give_up_epoch(self, now: float) -> None:
        """Another run has used it: what the server holds under these numbers is not what this one sends."""
        self._doubt.is_used = True
        self._queue.end_all(Outcome.EPOCH_USED, self.epoch)
        self._ping_due = self._pinged = self._probe = self._silent = False
        self.paused_until = None
        self._arm(now, anew=True)

    def _enter_epoch(self, epoch: int) -> None:
        """What is unacked gets new seqs from 1 on, in order and without holes, and counts as not yet transmitted."""
        for message in self._queue.sent.values():
            if message.ask is not None:
                self.asks.unname(message.ask)
        self.epoch = epoch
        self._wire.enter(epoch)
        self._wire.retain(self.asks.epochs())
        self.asks.enter(epoch)
        self._hello, self._hello_due = None, False
        self._doubt.begin(False)
        self._queue.renumber()
        # The server is the same: its credit is the best guess until it tells.
        self._floor = self._seen = 0
        self._arrivals = Arrivals()
        self._fruitful = self._probe = self._ping_due = self._pinged = False

    def _ask_for_epoch(self, at_once: bool) -> None:
        """By HELLO: at once or, where asking has been of no use, after a wait."""
        if not at_once:
            self._tries = self._fruitless_epochs
        self._hello, self._hello_due = self._nonces.getrandbits(64), at_once

    def _lose(self, message: Message) -> None:
        self.stats.losses += 1
        self.congestion.lost(message.transmission, self._next_transmission, self.rtt.window_short)
        self._queue.mark_lost(message)

    def _set_credit(self, credit: int) -> None:
        self._credit = credit
        self._credit_max = max(self._credit_max, credit)
