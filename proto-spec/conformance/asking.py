"""Scenarios of a client that asks (PROTOCOL.md#duty-ask): what it takes, when, and what its application hears."""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from typing import Optional

from duragram import wire
from duragram.wire import Answer, Data, Datagram, Reject, Take

from .asks import ASKS_MAX, Asks, Outcome
from .run import Scenario

#: Restarts are not looked at (PROTOCOL.md#duty-c8).
ANCHORS = ("datagrams", "size", "ask", "duty-c1", "duty-c2", "duty-c3", "duty-c4", "duty-c6", "duty-c7", "duty-ignore")
STATUSES = {wire.DONE: "DONE", wire.FAILED: "FAILED", wire.GONE: "GONE"}
#: How many TAKEs may be open at a time.
OPEN_MAX = 16
#: What a busy machine may err, in seconds.
RACE = 0.03

Name = tuple[int, int, int]


def told_body(one: dict[str, object]) -> bytes:
    """Of a line of the command's stdout."""
    return base64.b64decode(str(one["body_base64"])) if "body_base64" in one else str(one.get("body", "")).encode()


class Handler(Asks):
    """The asks of a server whose handler takes `work` seconds and says `outcome` of each line."""

    work_seconds = 0.0
    status = wire.DONE
    body = b"did "

    def open(self, d: Data, now: float) -> None:
        self.asks.setdefault((d.client, d.epoch), {})[d.seq] = None
        body = self.body + d.payload[:40] if self.body else b""
        self.work.append((now + self.work_seconds, next(self._made), (d.client, d.epoch, d.seq), Outcome(self.status, body)))
        self.work.sort()


class Asking(Scenario):
    """The good server, and what is expected of every asking client whatever the server does."""

    asks = True
    about = "a good server whose handler is quick"
    records = 24
    record_bytes = 60
    #: What becomes of each line.
    heard = "DONE"

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.handler = Handler()
        self.model.asks = self.handler

    def tick(self, now: float) -> None:
        for due in self.handler.due(now):
            self.tell(due.answer)

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Take):
            reply = self.handler.take(datagram, now)
            if reply is not None:
                self.tell(reply)
            return
        self.answer(datagram)

    def tell(self, answer: Answer) -> None:
        """An ANSWER that a TAKE has drawn. Overridden by paths that lose or delay it."""
        self.send(answer)

    # What is expected.

    def expect(self) -> None:
        self.expect_takes()
        self.expect_heard()
        self.more()

    def more(self) -> None:
        """Of this scenario."""

    def expect_takes(self) -> None:
        """PROTOCOL.md#duty-c1, PROTOCOL.md#duty-c2, PROTOCOL.md#duty-c4 and PROTOCOL.md#duty-c7, over the whole run."""
        asked: dict[tuple[int, int], set[int]] = {}
        #: What a client has left behind: it waits in the new epoch only (PROTOCOL.md#duty-c6).
        left: dict[tuple[int, int], set[int]] = {}
        finished: set[Name] = set()
        acked_at: dict[Name, float] = {}
        open_until: dict[Name, float] = {}
        early, foreign, forgot, many_open = [], [], [], 0
        unfinished_max = 0
        ends = []
        for seen in self.trace:
            one = seen.datagram
            if seen.sent and isinstance(one, Answer):
                open_until.pop((one.client, one.epoch, one.seq), None)
                if one.status in STATUSES and (one.body or one.number == 0 or one.status == wire.GONE or not self.wants_body):
                    finished.add((one.client, one.epoch, one.seq))
            elif seen.sent and isinstance(one, wire.Ack):
                bits = int.from_bytes(one.bitmap, "little")
                above = {one.floor + 1 + i for i in range(bits.bit_length()) if bits >> i & 1}
                for seq in asked.get((one.client, one.epoch), set()):
                    if seq <= one.floor or seq in above:
                        acked_at.setdefault((one.client, one.epoch, seq), seen.at)
            elif isinstance(one, Data) and one.options == wire.ASK:
                for run in asked:
                    if run[0] == one.client and run[1] != one.epoch and one.seq == 1:
                        left[run] = {seq for seq in asked[run] if (*run, seq) not in acked_at}
                asked.setdefault((one.client, one.epoch), set()).add(one.seq)
                waits = sum(len(seqs) for seqs in asked.values()) - sum(map(len, left.values())) - len(finished)
                unfinished_max = max(unfinished_max, waits)
            elif isinstance(one, Take):
                run = one.client, one.epoch
                seqs, base = asked.get(run, set()), one.seq - one.span
                open_asks = {seq for seq in seqs if (*run, seq) not in finished} - left.get(run, set())
                if any(seq < base for seq in open_asks):
                    forgot.append(one)
                if one.seq in seqs:
                    if acked_at.get((*run, one.seq), 1e18) > seen.at:
                        early.append(one)
                    open_until[(*run, one.seq)] = seen.at + one.wait_ms / 1000
                    many_open = max(many_open, sum(until > seen.at for until in open_until.values()))
                elif base == max(seqs, default=0) + 1 and not open_asks and one.wait_ms == 0:
                    ends.append(seen.at)
                elif one.seq > max(seqs, default=0) and one.wait_ms == 0 and (
                    self.refuses_asks or not any((*run, seq) in acked_at for seq in open_asks)
                ):
                    pass  # After REJECT 6 it says what it has had; that its span leaves the rest was looked at above.
                else:
                    foreign.append(one)
        self.verdict("duty-c1", unfinished_max <= ASKS_MAX, f"at most {ASKS_MAX} asks are unfinished (at most {unfinished_max})")
        if not self.came(Take):
            self.verdict("duty-c2", False, "never takes an answer")
            return
        self.verdict("duty-c2", not early, f"takes nothing before it is acked {early[:1] or ''}")
        self.verdict("duty-c2", not foreign, f"takes nothing that did not ask {foreign[:1] or ''}")
        self.verdict("duty-c2", not forgot, f"span leaves what is not finished {forgot[:1] or ''}")
        self.verdict("duty-c4", many_open <= OPEN_MAX, f"at most {OPEN_MAX} TAKEs are open (at most {many_open})")
        self.verdict("duty-c7", True if ends else None, "says when nothing waits any more" if ends else "never says that nothing waits")

    #: REJECT 6 is part of it: what was had may be said again, also while others wait (PROTOCOL.md#duty-had).
    refuses_asks = False
    #: A client that wants no bodies is finished without them.
    wants_body = True

    def told_lines(self) -> list[dict[str, object]]:
        found = []
        for line in self.stdout.splitlines():
            try:
                one = json.loads(line)
                assert isinstance(one, dict) and {"line", "status"} <= one.keys()
                found.append(one)
            except (ValueError, AssertionError):
                self.verdict("ask", False, f"a line of its stdout is no answer: {line[:80]!r}")
        return found

    def expect_heard(self) -> None:
        """PROTOCOL.md#duty-c3: what the application heard is what the server said, once."""
        lines = self.told_lines()
        times = Counter(str(one["line"]) for one in lines)
        twice = [line for line, count in times.items() if count > 1]
        self.verdict("duty-c3", not twice, f"hands out an answer once {twice[:3] or ''}")
        wrong = [one for one in lines if not self.is_right(one)]
        self.verdict("duty-c3", not wrong, f"hands out what the server said {wrong[:1] or ''}")
        missing = [n for n in range(1, self.records + 1) if str(n) not in times]
        self.verdict("ask", not missing, f"hears of each of its asks ({len(missing)} of {self.records} missing)")

    def is_right(self, one: dict[str, object]) -> bool:
        body = told_body(one)
        line = self.lines[int(str(one["line"])) - 1]
        # A client's command may send a line without its trailing dots, but not another line.
        expected = self.handler.body + line[:40] if self.handler.body and self.heard in ("DONE", "FAILED") else b""
        return one["status"] == self.heard and body == expected


class AskClean(Asking):
    pass


class AskSlow(Asking):
    about = "the handler takes a second"
    records = 6
    patience = 40.0

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.handler.work_seconds = 1.0


class AskMany(Asking):
    about = "a hundred asks, whose handler takes a third of a second"
    records = 100
    patience = 40.0

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.handler.work_seconds = 0.3


class AskFailed(Asking):
    about = "the handler gives up each, and says why"
    records = 5
    heard = "FAILED"
    # Its exit code may say so.
    succeeds = False

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.handler.status, self.handler.body = wire.FAILED, b"cannot "


class AskNoBody(Asking):
    about = "the handler says nothing"
    records = 5

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.handler.body = b""


class AskLongBody(Asking):
    about = "bodies of 1,024 bytes"
    records = 4

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.handler.body = bytes(i & 127 for i in range(984))


class AskLost(Asking):
    about = "the second message is lost, and the first answer of all"
    records = 2
    patience = 58.0

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.lost: dict[Name, float] = {}

    def handle(self, now: float, datagram: Datagram) -> None:
        if not isinstance(datagram, Data) or datagram.seq != 2 or datagram.attempt:
            super().handle(now, datagram)

    def tell(self, answer: Answer) -> None:
        name = answer.client, answer.epoch, answer.seq
        if self.lost or answer.status != wire.DONE:
            self.send(answer)
        else:
            self.lost[name] = time.monotonic()

    def more(self) -> None:
        takes = [(seen.datagram, seen.at) for seen in self.came(Take) if isinstance(seen.datagram, Take)]
        hasty, again = [], 0
        for (before, at), name in [(take, (take[0].client, take[0].epoch, take[0].seq)) for take in takes]:
            later = next((when for take, when in takes if (take.client, take.epoch, take.seq) == name and when > at), None)
            if name in self.lost and later is not None and at <= self.lost[name]:
                again += 1
                if later - at < before.wait_ms / 1000:
                    hasty.append(f"{later - at:.2f} s after one of {before.wait_ms} ms")
        self.verdict("duty-c4", again >= len(self.lost) > 0, f"takes again what no answer came of ({again} of {len(self.lost)})")
        self.verdict("duty-c4", not hasty, f"and not before wait_ms is over {hasty[:1] or ''}")


class AskPending(Asking):
    """Who sleeps takes with wait_ms 0, and hears the same (PROTOCOL.md#duty-c5)."""

    about = "no TAKE is held; the handler takes 2.5 seconds"
    records = 3
    patience = 40.0
    #: Milliseconds that PENDING names.
    retry = 1000

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.handler.work_seconds = 2.5
        self.handler.hold = lambda take, now, peer: False  # type: ignore[method-assign]
        self.handler.pending = lambda held_to_its_end: self.retry  # type: ignore[method-assign]

    def more(self) -> None:
        waited: list[float] = []
        pending: dict[Name, float] = {}
        for seen in self.trace:
            one = seen.datagram
            if isinstance(one, Answer) and seen.sent and one.status not in STATUSES:
                pending[one.client, one.epoch, one.seq] = seen.at
            elif isinstance(one, Take) and (one.client, one.epoch, one.seq) in pending:
                waited.append(seen.at - pending.pop((one.client, one.epoch, one.seq)))
        least = max(self.retry / 1000, 0.01)
        early = [wait for wait in waited if wait < least - RACE / 3]
        said = f"({min(waited, default=0):.2f} to {max(waited, default=0):.2f} s)"
        self.verdict("duty-c4", bool(waited) and not early, f"waits for retry_after_ms after PENDING {said}")
        if self.retry:
            # The latest of several is waited for alone by who takes one at a time.
            self.verdict("duty-c4", min(waited, default=99.0) < 1.25 * least + 0.3, f"and not much longer {said}")


class AskUnknownStatus(AskPending):
    about = "a later version's status comes first"

    def tell(self, answer: Answer) -> None:
        self.send(answer._replace(status=4711, body=b"??") if answer.status == wire.PENDING else answer)


class AskGone(Asking):
    about = "the server has forgotten the session when its answers are taken"
    records = 5
    heard = "GONE"
    succeeds = False

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Take):
            self.handler.asks.clear()
        super().handle(now, datagram)


class AskTwice(Asking):
    about = "the path repeats every answer, at once and later"

    def tell(self, answer: Answer) -> None:
        for delay in (0.0, 0.0, 0.1, 0.4):
            self.send(answer, delay)


class AskLateGone(Asking):
    about = "what the server says of a seq that never asked comes half a second late; the handler takes a second"
    # One more than the minimal client's command has waiting: the next one asks alone.
    records = 5
    patience = 40.0

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.handler.work_seconds = 1.0

    def tell(self, answer: Answer) -> None:
        self.send(answer, 0.5 if answer.status == wire.GONE else 0.0)


class AskRefused(Asking):
    about = "a server without the extension: REJECT 2, and TAKE is dropped"
    records = 3
    succeeds = False
    refuses = True

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.model.asks = None

    def handle(self, now: float, datagram: Datagram) -> None:
        if not isinstance(datagram, Take):
            self.answer(datagram)

    def expect(self) -> None:
        again = [d.seq for d in self.data if d.attempt]
        self.verdict("ask", bool(self.data) and not again, f"REJECT 2 fails the message, which is not sent again {again[:3] or ''}")
        self.verdict("ask", self.exit_code not in (None, 0), f"and the application is told (exit code {self.exit_code})")
        self.verdict("duty-c2", not self.came(Take), "takes nothing that was refused")


class AskBusy(Asking):
    about = "there is no room for asks 3 and 4, for a second"
    records = 5
    refuses_asks = True
    patience = 40.0

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.first: Optional[float] = None

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Data) and datagram.seq in (3, 4):
            self.first = self.first or now
            if now < self.first + 1.0:
                self.lie(Reject(datagram.client, datagram.epoch, wire.REJECT_BUSY, datagram.seq, 1000))
                return
        super().handle(now, datagram)

    def more(self) -> None:
        self.verdict("duty-c1", self.first is not None and self.exit_code == 0, "goes on after REJECT 6")


class AskFull(Asking):
    """PROTOCOL.md#duty-had"""

    about = "the first ask is lost, and no TAKE lets the server forget what was had until half a second after it was full with 64"
    records = 100
    patience = 50.0
    refuses_asks = True

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.full_at: Optional[float] = None
        forget = self.handler.forget

        def forgets(take: Take) -> None:
            if self.full_at is not None and time.monotonic() > self.full_at + 0.5:
                forget(take)

        self.handler.forget = forgets  # type: ignore[method-assign]

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Data) and datagram.seq == 1 and datagram.attempt == 0:
            return
        if isinstance(datagram, Data) and len(self.handler.asks.get((datagram.client, datagram.epoch), {})) >= ASKS_MAX:
            session = self.model.sessions[datagram.client, datagram.epoch]
            if datagram.seq > session.floor and datagram.seq not in session.above:
                self.full_at = self.full_at or now
                self.lie(Reject(datagram.client, datagram.epoch, wire.REJECT_BUSY, datagram.seq, 300))
                return
        super().handle(now, datagram)

    def more(self) -> None:
        # A client that has too many asks above one that is not acked would stand still as well.
        goes_on = None if self.full_at is None else self.exit_code == 0
        self.verdict("duty-c1", goes_on, "where asks are refused it says again what it has had, and goes on")


class AskStale(Asking):
    """PROTOCOL.md#duty-c6"""

    about = "seq 3 is answered STALE_EPOCH, while the first two wait"
    records = 8
    exactly_once = False
    patience = 40.0

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        super().__init__(command, key_file)
        self.handler.work_seconds = 1.0
        self.stale: Optional[int] = None

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, Data) and (self.stale in (None, datagram.epoch)) and datagram.seq >= 3:
            self.stale = datagram.epoch
            self.lie(Reject(datagram.client, datagram.epoch, wire.REJECT_STALE_EPOCH, datagram.seq))
            return
        super().handle(now, datagram)

    def is_right(self, one: dict[str, object]) -> bool:
        # What waits in the old epoch may be reported as GONE.
        return super().is_right(one) or one["status"] == "GONE" and int(str(one["line"])) <= 2

    def more(self) -> None:
        old = [line for line in self.told_lines() if int(str(line["line"])) <= 2]
        self.verdict("duty-c6", len(old) == 2, f"what waits in the old epoch is taken there, or reported as GONE ({len(old)} of 2)")


class AskLiar(Asking):
    about = "forged answers: foreign, malformed, of what does not wait"
    # Sealed they would be forged by who has the key.
    sealed_too = False
    records = 8

    def handle(self, now: float, datagram: Datagram) -> None:
        if isinstance(datagram, (Data, Take)):
            for lie in self.lies(datagram.client, datagram.epoch, datagram.seq):
                self.lie(lie)
        super().handle(now, datagram)

    def lies(self, client: int, epoch: int, seq: int) -> list[bytes]:
        forged = Answer(client, epoch, seq, wire.DONE, 6, b"forged")
        good = wire.encode(forged)
        return [
            wire.encode(forged._replace(client=client ^ 1)),
            wire.encode(forged._replace(epoch=epoch % 0xFFFFFFFF + 1)),
            wire.encode(forged._replace(seq=seq + 100_000)),
            good[:-1] + bytes([good[-1] ^ 1]),
            # The body is not as long as it says; a flag; no seq; GONE and PENDING with a body.
            wire.encode(forged._replace(number=7)),
            wire.with_crc(bytes([good[0], 1]) + good[2:-4]),
            wire.encode(forged._replace(seq=0)),
            wire.encode(forged._replace(status=wire.GONE)),
            wire.encode(forged._replace(status=wire.GONE, number=0)),
            wire.encode(forged._replace(status=wire.GONE, body=b"")),
            wire.encode(forged._replace(status=wire.PENDING)),
            # Another version's.
            wire.with_crc(bytes([0x27]) + good[1:-4]),
            # A TAKE, and a REJECT of one, which says nothing of an ask.
            wire.encode(Take(client, epoch, seq)),
            wire.encode(Reject(client, epoch, wire.REJECT_SEALED_ONLY, 0)),
        ]

    def more(self) -> None:
        believed = [one for one in self.told_lines() if not self.is_right(one)]
        self.verdict("duty-ignore", not believed, f"believes no answer that is forged, foreign or malformed {believed[:1] or ''}")


SCENARIOS: list[type[Scenario]] = [
    AskClean, AskSlow, AskMany, AskFailed, AskNoBody, AskLongBody, AskLost, AskPending, AskUnknownStatus, AskGone, AskTwice, AskLateGone, AskRefused,
    AskBusy, AskFull, AskStale, AskLiar,
]  # fmt: skip

