"""`python -m duragram send`: each line of a file or of stdin is a record, which may ask for an answer. As `duragram send`, which
is in Rust."""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from collections import deque
from typing import Iterator, Optional, Sequence

from .blocking import BlockingAsk, BlockingPending, Client
from .errors import BodyTooLarge, Closed, Gone, Incomplete, SendError, Status
from .keyfile import parse_client, read_key
from .wire import DATAGRAM_RECOMMENDED, REJECT_NAMES

NOT_DONE, USAGE = 1, 2
#: Records with errors that are named one by one.
ERRORS_SHOWN = 10
#: Silence after which a person is told that the server does not answer, in seconds.
SILENCE_TOLD = 5.0
#: From one try to find the server to the next, in seconds.
RESOLVE_AGAIN = 1.0
TICK = 0.05


def main(arguments: Optional[Sequence[str]] = None) -> int:
    # What the library would log is said here.
    logging.getLogger("duragram").addHandler(logging.NullHandler())
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return run(parser().parse_args(arguments))
    except KeyboardInterrupt:
        # Whoever started it is to see that the signal ended it, as of any other program.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        return 128 + signal.SIGINT


def run(args: argparse.Namespace) -> int:
    if args.ask and args.batch:
        return complain("a record that asks is no part of a batch: --ask or --batch", USAGE)
    try:
        client_id, key = args.client, None
        if args.key_file:
            client_id, key = read_key(args.key_file, args.client)
        source = 0 if args.file is None else os.open(args.file, os.O_RDONLY)
        os.fstat(source)
        if args.file is not None and os.path.isdir(args.file):
            return complain(f"{args.file} is a directory", USAGE)
    except (OSError, ValueError) as error:
        return complain(str(error), USAGE)
    give_up_at = None if args.timeout is None else time.monotonic() + args.timeout
    told = False
    while True:
        try:
            client = Client(
                args.server,
                client_id=client_id,
                epoch=args.epoch,
                window=args.window,
                datagram_bytes_max=args.datagram_bytes_max,
                batch=args.batch,
                key=key,
            )
            return Sending(client, args, source).run()
        except (ValueError, TypeError, ImportError) as error:
            return complain(str(error), USAGE)
        except OSError as error:
            # The network or its names may be away like the server; but a name that cannot be one never comes.
            hopeless = isinstance(error, socket.gaierror) and error.errno in (socket.EAI_SERVICE, socket.EAI_FAMILY)
            if hopeless or (give_up_at is not None and time.monotonic() >= give_up_at):
                return complain(f"cannot reach {args.server}: {error}", NOT_DONE)
            if not told:
                told = True
                complain(f"cannot reach {args.server}: {error}; trying on", NOT_DONE)
            time.sleep(RESOLVE_AGAIN if give_up_at is None else min(RESOLVE_AGAIN, max(give_up_at - time.monotonic(), 0)))


class Sending:
    """One run: a thread feeds the client with lines, the main thread watches."""

    def __init__(self, client: Client, args: argparse.Namespace, source: int) -> None:
        self.client = client
        self.args = args
        self.source = source
        self.records = 0
        self.bytes = 0
        self.too_long = 0
        self.troubles: list[str] = []
        self.more_troubles = 0
        self.unsettled: deque[tuple[int, BlockingPending]] = deque()
        #: What has asked and is not answered.
        self.asked: deque[BlockingAsk] = deque()
        #: Answers that are to be written.
        self.heard: deque[tuple[int, BlockingAsk]] = deque()
        self.done = 0

    def run(self) -> int:
        started = time.monotonic()
        feed = threading.Thread(target=self._feed, daemon=True)
        feed.start()
        gave_up = interrupted = False
        try:
            gave_up = self._watch(feed)
        except KeyboardInterrupt:
            interrupted = True
        elapsed = time.monotonic() - started
        if gave_up:
            self._trouble(f"gave up: {self.args.server} did not ack a record in time{self._last_refusal()}")
        if interrupted:
            self._trouble("interrupted")
        try:
            self.client.close(0)
        except Incomplete as incomplete:
            if incomplete.unacked:
                self._trouble(f"{incomplete.unacked} records were not acked; the server may have them or not")
        feed.join(0.2)
        self._collect()
        self._write_answers()
        for trouble in self.troubles:
            complain(trouble, NOT_DONE)
        if self.more_troubles:
            complain(f"and {self.more_troubles} more", NOT_DONE)
        # The answers alone have stdout.
        report(self._as_json(elapsed) if self.args.json else self._as_text(elapsed), to_stderr=self.args.ask)
        if interrupted:
            raise KeyboardInterrupt
        # The exit code tells of the records alone.
        complete = self.client.acked == self.records and (self.done == self.records or not self.args.ask)
        return 0 if complete and not self.troubles else NOT_DONE

    def _last_refusal(self) -> str:
        """What the server said last, if it answered at all."""
        codes = list(self.client.stats.rejects_by_code)
        if not codes:
            return ""
        return f" (it refuses what comes as {REJECT_NAMES.get(codes[-1], f'code {codes[-1]}')})"

    def _feed(self) -> None:
        try:
            for line in lines(self.source):
                self.records += 1
                self.bytes += len(line)
                try:
                    self.unsettled.append((self.records, self._give(line)))
                except Closed as closed:
                    if closed.__cause__ is not None:
                        self._trouble(f"line {self.records}: {closed}")
                    return
                except SendError as error:
                    self.too_long += 1
                    self._trouble(f"line {self.records}: {error}")
                self._collect()
        except OSError as error:
            self._trouble(f"cannot read on after line {self.records}: {error}")
        try:
            self.client.flush()
            for asked in self.asked:
                asked.exception()
        except Closed as closed:
            self._trouble(str(closed))

    def _give(self, line: bytes) -> BlockingPending:
        if not self.args.ask:
            return self.client.send(line, self.args.channel)
        number, asked = self.records, self.client.ask(line, self.args.channel)
        asked.add_done_callback(lambda asked: self.heard.append((number, asked)))
        while self.asked and self.asked[0].done():
            self.asked.popleft()
        self.asked.append(asked)
        return asked.receipt

    def _write_answers(self) -> None:
        """One line of JSON for each."""
        while self.heard:
            line, asked = self.heard.popleft()
            error, answer = asked.exception(), None if asked.exception() else asked.result()
            if answer is not None:
                self.done += answer.status is Status.DONE
                said = {"line": line, "status": answer.status.name, **described(answer.body)}
            elif isinstance(error, Gone):
                said = {"line": line, "status": "GONE"}
            elif isinstance(error, BodyTooLarge):
                self._trouble(f"line {line}: {error}")
                said = {"line": line, "status": error.status.name}
            else:
                continue  # it has no receipt, which is said of the record
            report(json.dumps(said))

    def _collect(self) -> None:
        while self.unsettled and self.unsettled[0][1].done():
            line, pending = self.unsettled.popleft()
            if isinstance(pending.outcome, SendError) and not isinstance(pending.outcome, Closed):
                self._trouble(f"line {line}: {pending.outcome}")

    def _watch(self, feed: threading.Thread) -> bool:
        """Returns when all is settled, or `True` when nothing was for too long."""
        settled, since, told = -1, time.monotonic(), False
        while feed.is_alive():
            feed.join(TICK)
            self._write_answers()
            now_settled = self.client.acked + self.client.failed
            if now_settled != settled or not self.client.unacked:
                settled, since, told = now_settled, time.monotonic(), False
            silence = time.monotonic() - since
            if self.args.timeout is not None and silence >= self.args.timeout:
                return True
            if silence >= SILENCE_TOLD and not told:
                told = True
                complain(f"no ack from the server for 5 seconds{self._last_refusal()}; trying on", NOT_DONE)
        return False

    def _trouble(self, text: str) -> None:
        if len(self.troubles) < ERRORS_SHOWN:
            self.troubles.append(text)
        else:
            self.more_troubles += 1

    def _as_text(self, elapsed: float) -> str:
        client, stats = self.client, self.client.stats
        acked = "all acked" if client.acked == self.records else f"{client.acked} acked"
        return (
            f"{self.records} records ({self.bytes} bytes), {acked}, in {elapsed:.3f} s: "
            f"{client.acked / max(elapsed, 1e-9):.0f} a second\n"
            f"{stats.transmissions} datagrams, {stats.retransmissions} of them retransmissions; {stats.rejects} rejects\n"
            f"client {client.options.client_id:016x}, epoch {client.epoch or 'none yet'}"
        )

    def _as_json(self, elapsed: float) -> str:
        client, stats = self.client, self.client.stats
        smoothed = client.rtt
        report = {
            "client": f"{client.options.client_id:016x}",
            "epoch": client.epoch or None,
            "records": self.records,
            "bytes": self.bytes,
            "acked": client.acked,
            "refused": client.failed,
            "too_long": self.too_long,
            "unacked": self.records - client.acked - client.failed - self.too_long,
            "seconds": elapsed,
            "records_per_second": client.acked / max(elapsed, 1e-9),
            "transmissions": stats.transmissions,
            "retransmissions": stats.retransmissions,
            "rejects": stats.rejects,
            "rtt_us": None if smoothed is None else round(smoothed * 1e6),
        }
        return json.dumps(report)


def lines(source: int) -> Iterator[bytes]:
    """The lines of a file descriptor, without their newlines; the last may have none."""
    rest = b""
    # Not through sys.stdin: a thread that waits there cannot be left behind at the end.
    while chunk := os.read(source, 1 << 16):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


def described(body: bytes) -> dict[str, str]:
    """The body of an answer, if it has one, as text where it is text."""
    try:
        return {"body": body.decode()} if body else {}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


def complain(text: str, code: int) -> int:
    try:
        print(f"duragram: {text}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass  # nobody can be told
    return code


def report(text: str, to_stderr: bool = False) -> None:
    """To stdout. That it is gone or full is said, but tells nothing of the records."""
    try:
        print(text, flush=True, file=sys.stderr if to_stderr else sys.stdout)
    except (OSError, ValueError) as error:
        complain(f"the report could not be written: {error}", 0)
        # What is left in its buffer would fail once more when the interpreter ends.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def parse_duration(text: str) -> float:
    """A number of seconds, or one with a unit: 500ms, 30s, 5m, 1h."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", text)
    if not match:
        raise ValueError(text)
    return float(match[1]) * {"ms": 0.001, None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}[match[2]]


def channel(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError(text)
    return number


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="duragram", description="A client of the Duragram protocol.")
    send = top.add_subparsers(dest="command", required=True).add_parser(
        "send",
        help="send each line of FILE or stdin as a record",
        description="Send each line of FILE or stdin as a record; succeeds only when the server has all of them on its "
        "disk. Waits for a server that is away.",
        epilog="Exit codes: 0 every record is on the server's disk, and with --ask every answer is DONE; 1 not so; 2 usage.",
    )
    server = os.environ.get("DURAGRAM_SERVER") or "127.0.0.1:7117"
    add = send.add_argument
    add("--server", metavar="ADDR", default=server, help="HOST:PORT [default: %(default)s; env: DURAGRAM_SERVER]")
    add("--client", metavar="ID", type=parse_client, help="who sends: 16 hexadecimal digits, 0x..., or a number [the key file's, or random]")
    add("--epoch", metavar="N", type=int, help="this run's number, never used before [the server gives one]")
    add("--channel", metavar="N", type=channel, default=0, help="the routing number [0]")
    add("--ask", action="store_true", help="ask with each record, and write the answers to stdout, as lines of JSON; the report goes to stderr")
    add("--batch", action="store_true", help="let small records share datagrams")
    add("--window", metavar="N", type=int, default=1024, help="datagrams that may be unacked at once [1024]")
    add("--datagram-bytes-max", metavar="BYTES", type=int, default=DATAGRAM_RECOMMENDED, help="UDP payload [1200]")
    add("--timeout", metavar="DURATION", type=parse_duration, help="give up when nothing is acked for so long [never]")
    add("--key-file", metavar="FILE", default=os.environ.get("DURAGRAM_KEY_FILE"), help="sealed mode; see `duragram keys`")
    add("--json", action="store_true", help="for programs: one JSON object with what was done")
    add("file", metavar="FILE", nargs="?", help="the file to read [stdin]")
    return top
