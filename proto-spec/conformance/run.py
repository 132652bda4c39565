"""One run: a client command against the fake server of a scenario."""

from __future__ import annotations

import contextlib
import os
import random
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Iterable, Optional, Union

from duragram import wire
from duragram.wire import Ack, Answer, Data, Datagram, DecodeError, Hello, Ping, Take

from .model import Model, Told
from .seals import ServerSeal

#: The anchors of PROTOCOL.md that a client is asked for, in the order of the text.
CLIENT_ANCHORS = (
    "datagrams", "batch", "size", "duty-epoch", "epoch-used", "duty-seq", "duty-window", "duty-probe", "duty-retransmission",
    "duty-expiry", "duty-loss", "duty-congestion", "duty-skip", "duty-reject", "duty-ignore", "sealed-client", "sealed-counter",
)  # fmt: skip


#: Linux stamps a datagram with when it came, which may be long before a busy machine lets this process see it.
SO_TIMESTAMPNS = 35


@dataclass
class Verdict:
    anchor: str
    #: True fulfilled, False not, None: this client gave no occasion to see it.
    fulfilled: Optional[bool]
    what: str
    scenario: str = ""


@dataclass
class Seen:
    """A datagram from the client, or (`sent`) one to it."""

    at: float
    datagram: Datagram
    sent: bool = False


class Scenario:
    """What a server does, and what is expected of its client. Subclasses override `handle`, `tick` and `expect`."""

    #: Shown to the user.
    about = ""
    records = 40
    #: Bytes of each record: acks of such datagrams have room for a bitmap, and no two share a datagram in a batch.
    record_bytes = 650
    #: Seconds until the client must be done.
    patience = 20.0
    #: The exit code is to be 0: every record is acked.
    succeeds = True
    #: Whether the server has each record once, or at least once.
    exactly_once = True
    #: Whether some message is refused for good: nothing else makes a client skip a seq, whose input is to be acked whole.
    refuses = False
    #: Whether it makes sense in sealed mode, and in plain mode.
    sealed_too = True
    plain_too = True
    #: Whether the command is one that asks with each line, and writes what it hears to stdout.
    asks = False

    def __init__(self, command: str, key_file: Optional[str] = None) -> None:
        self.command = command
        self.seal = None if key_file is None else ServerSeal(key_file)
        self.random = random.Random(7)
        self.model = Model()
        self.trace: list[Seen] = []
        #: Bytes of the longest datagram that came.
        self.longest = 0
        self.undecodable: list[tuple[str, bytes]] = []
        self.verdicts: list[Verdict] = []
        self.exit_code: Optional[int] = None
        self.stderr = ""
        self.stdout = b""
        self.began = 0.0
        self.peer: Optional[tuple[str, int]] = None
        #: What is to be sent: when, its place in the order of making, what, and which ack or answer it is.
        self.held: list[tuple[float, int, bytes, Optional[Union[Ack, Answer]]]] = []
        self._made = count()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        if sys.platform == "linux":
            self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.lines = [(b"%s record %04d " % (type(self).__name__.encode(), n)).ljust(self.record_bytes, b".") for n in range(self.records)]

    # For subclasses.

    def handle(self, now: float, datagram: Datagram) -> None:
        """A datagram came, and it is `now`. By default a good server answers."""
        self.answer(datagram)

    def tick(self, now: float) -> None:
        """About every 5 ms."""

    def expect(self) -> None:
        """Gives verdicts, when the run is over."""

    def answer(self, datagram: Datagram, delay: float = 0.0) -> None:
        reply = self.model.answer(datagram)
        if reply is not None:
            self.send(reply, delay)

    def send(self, reply: Datagram, delay: float = 0.0) -> None:
        """Something true, which the client may believe."""
        told = reply if isinstance(reply, (Ack, Answer)) else None
        heappush(self.held, (time.monotonic() + delay, next(self._made), self._encode(reply), told))

    def lie(self, what: Union[bytes, Datagram]) -> None:
        """Something that acks nothing, such as a REJECT; or bytes that the client must not believe."""
        heappush(self.held, (time.monotonic(), next(self._made), what if isinstance(what, bytes) else self._encode(what), None))

    def _encode(self, datagram: Datagram) -> bytes:
        return wire.encode(datagram) if self.seal is None else self.seal.encode(datagram)

    def _decode(self, bytes_: bytes) -> Datagram:
        return wire.decode(bytes_) if self.seal is None else self.seal.decode(bytes_)

    def verdict(self, anchor: str, fulfilled: Optional[bool], what: str) -> None:
        self.verdicts.append(Verdict(anchor, fulfilled, what, type(self).__name__))

    @property
    def data(self) -> list[Data]:
        """The DATA that came, in order."""
        return [seen.datagram for seen in self.trace if isinstance(seen.datagram, Data) and not seen.sent]

    @property
    def data_at(self) -> list[tuple[Data, float]]:
        """The DATA that came, and when."""
        return [(seen.datagram, seen.at) for seen in self.trace if isinstance(seen.datagram, Data) and not seen.sent]

    def came(self, *kinds: type) -> list[Seen]:
        return [seen for seen in self.trace if isinstance(seen.datagram, kinds) and not seen.sent]

    # The run.

    def run(self) -> list[Verdict]:
        self.began = time.monotonic()
        address = "127.0.0.1:%d" % self.socket.getsockname()[1]
        command = self.command.replace("{}", address)
        environment = {**os.environ, "DURAGRAM_SERVER": address}
        with tempfile.TemporaryFile() as records, tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as output:
            records.write(b"".join(line + b"\n" for line in self.lines))
            records.seek(0)
            client = subprocess.Popen(
                shlex.split(command), env=environment, stdin=records, stdout=output if self.asks else subprocess.DEVNULL, stderr=errors,
                # A group of its own: what a wrapper has started ends with it.
                start_new_session=True,
            )  # fmt: skip
            try:
                self._serve(client)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(client.pid, signal.SIGKILL)
                client.wait()
                self.socket.close()
            errors.seek(0)
            self.stderr = errors.read().decode(errors="replace").strip()
            output.seek(0)
            self.stdout = output.read()
        self._expect_of_all()
        self.expect()
        return self.verdicts

    def _serve(self, client: subprocess.Popen[bytes]) -> None:
        self.socket.settimeout(0.005)
        while time.monotonic() < self.began + self.patience:
            now = time.monotonic()
            due = 0
            while self.held and self.held[0][0] <= now:
                _, _, bytes_, told = heappop(self.held)
                self._deliver(bytes_, told)
                due += 1
            self.tick(now)
            if client.poll() is not None and not due:
                self.exit_code = client.returncode
                return
            try:
                bytes_, came_at = self._receive()
            except OSError:
                continue
            try:
                datagram = self._decode(bytes_)
            except DecodeError as error:
                self.undecodable.append((error.reason, bytes_))
                continue
            self.trace.append(Seen(came_at, datagram))
            if isinstance(datagram, Data):
                self.model.note_epoch(datagram.epoch)
                self._expect_of(datagram, bytes_)
            self.handle(time.monotonic(), datagram)

    def _receive(self) -> tuple[bytes, float]:
        """A datagram, and when it came to this machine."""
        bytes_, stamps, _, self.peer = self.socket.recvmsg(65536, 64)
        late = 0.0
        for level, kind, stamp in stamps:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS) and len(stamp) == 16:
                seconds, nanoseconds = struct.unpack("@qq", stamp)
                late = min(max(time.time() - seconds - nanoseconds / 1e9, 0.0), 1.0)
        return bytes_, time.monotonic() - late

    def _deliver(self, bytes_: bytes, told: Optional[Union[Ack, Answer]]) -> None:
        if self.peer is None:
            return
        if isinstance(told, Ack):
            self.model.note_told(told)
        if told is not None:
            self.trace.append(Seen(time.monotonic(), told, sent=True))
        try:
            self.socket.sendto(bytes_, self.peer)
        except OSError:
            pass

    # What is expected whatever the server does.

    def _expect_of(self, d: Data, bytes_: bytes) -> None:
        """Of each DATA as it comes: what the client counts as delivered was acked, or is skipped."""
        self.longest = max(self.longest, len(bytes_))
        told, base = self.model.told.get((d.client, d.epoch), Told()), d.seq - d.span
        claimed = [seq for seq in range(told.floor + 1, min(base, told.floor + 2000)) if seq not in told.above]
        if d.skip and (base == 1 or not self.refuses):
            self.verdict("duty-skip", False, f"seq {d.seq}, span {d.span} has SKIP, and nothing below it was given up")
        if claimed and not d.skip:
            self.verdict("duty-seq", False, f"seq {d.seq}, span {d.span} counts {claimed[:3]} as delivered, which nobody acked")

    def _expect_of_all(self) -> None:
        for reason, bytes_ in self.undecodable[:3]:
            self.verdict("datagrams", False, f"{reason}: {bytes_[:40].hex()}")
        self.verdict("datagrams", not self.undecodable and bool(self.trace), "everything that it sends is valid")
        if self.seal is not None:
            self.verdict("sealed-client", not self.undecodable, "sends only sealed datagrams, each under the keys of its epoch")
            self.verdict("sealed-counter", not self.seal.repeated, f"no counter twice {self.seal.repeated[:3] or ''}")
        strangers = self.came(*set(map(type, (seen.datagram for seen in self.trace))) - {Data, Hello, Ping} - ({Take} if self.asks else set()))
        if strangers:
            self.verdict("datagrams", False, f"a client does not send {strangers[0].datagram}")
        options = wire.ASK if self.asks else 0
        if any(not (d.begin and d.end) or d.options != options for d in self.data):
            self.verdict("datagrams", False, f"BEGIN and END are set, options are {options}")
        self.verdict("size", self.longest <= wire.DATAGRAM_RECOMMENDED, f"datagrams of at most 1,200 bytes ({self.longest})")
        if any(d.batch for d in self.data):
            self.verdict("batch", True, "its batches are whole")
        self._expect_numbers(self.data)
        self._expect_end()

    def _expect_numbers(self, data: Iterable[Data]) -> None:
        """PROTOCOL.md#duty-seq"""
        first: dict[tuple[int, int], Data] = {}
        attempts: dict[tuple[int, int], int] = {}
        highest: dict[int, int] = {}
        base: dict[int, int] = {}
        wrong = []
        for d in data:
            name = d.epoch, d.seq
            known = first.setdefault(name, d)
            if known is d and d.seq != highest.get(d.epoch, 0) + 1:
                wrong.append(f"seq {d.seq} after {highest.get(d.epoch, 0)}")
            if (known.payload, known.channel, known.batch, known.options) != (d.payload, d.channel, d.batch, d.options):
                wrong.append(f"seq {d.seq} came with two payloads")
            highest[d.epoch] = max(highest.get(d.epoch, 0), d.seq)
            if d.attempt != min(attempts.get(name, -1) + 1, 7):
                wrong.append(f"seq {d.seq}: attempt {d.attempt} after {attempts.get(name)}")
            attempts[name] = attempts.get(name, -1) + 1
            if d.seq - d.span < base.get(d.epoch, 1):
                wrong.append(f"seq {d.seq}: base {d.seq - d.span} after {base[d.epoch]}")
            base[d.epoch] = max(base.get(d.epoch, 1), d.seq - d.span)
        for text in wrong[:3]:
            self.verdict("duty-seq", False, text)
        if first and not wrong:
            self.verdict("duty-seq", True, "seqs from 1 on without holes; a retransmission repeats its payload; attempt and base rise")

    def _expect_end(self) -> None:
        anchor = "duty-retransmission"
        if self.exit_code is None:
            self.verdict(anchor, False, f"not done after {self.patience:.0f} s")
            return
        missing = set(self.lines) - set(self.model.journal)
        if self.succeeds and self.exit_code != 0:
            self.verdict(anchor, False, f"exit code {self.exit_code} although the server takes everything: {self.stderr[-200:]}")
        elif self.succeeds and missing:
            self.verdict(anchor, False, f"exit code 0, and {len(missing)} records were never acked")
        elif self.exactly_once and len(self.model.journal) != len(set(self.model.journal)):
            self.verdict("duty-seq", False, "a record was sent under two seqs")
        elif self.succeeds:
            self.verdict(anchor, True, "all records arrive")
        if self.model.lost:
            self.verdict("duty-skip", False, f"acks for {self.model.lost[:3]} are claimed that never were")
