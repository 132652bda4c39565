"""A client command against the real server, through a bad path and the server's kills: what is acked comes out of the sink, once;
of a client that asks, each line is answered, once."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Optional

from tests.support import Proxy, Server

from .asking import told_body
from .run import Verdict

HANDLER = Path(__file__).resolve().parent / "handler.py"

#: Lines of each round, and how often the server is killed meanwhile.
LINES = 2000
KILLS = 3
#: Of a client that sends one at a time, and does not measure the path: it waits for a second for each that is lost.
LINES_FEW = 150
#: Of one that asks, and may send one at a time: a TAKE or an answer that is lost costs it the time for which that was to be held too.
LINES_ASKED = 80
#: Seconds until a client must be done.
PATIENCE = 120.0


def payload(record: dict[str, Any]) -> bytes:
    text = record.get("payload")
    return text.encode() if text is not None else base64.b64decode(record["payload_base64"])


def once(command: str, seed: int, count: int, asks: bool) -> tuple[bool, str]:
    chance = random.Random(seed)
    # What a handler in Python makes of each line is known: it is told with it.
    server = Server(sink=f"exec:exec {sys.executable} {HANDLER}") if asks else Server()
    path = Proxy(server.address, loss=0.1, duplicates=0.05, reorder=0.1, seed=seed)
    lines = [b"round %d line %d %s" % (seed, n, b"." * chance.randrange(200)) for n in range(count)]
    try:
        with tempfile.TemporaryFile() as records, tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as output:
            records.write(b"".join(line + b"\n" for line in lines))
            records.seek(0)
            environment = {**os.environ, "DURAGRAM_SERVER": path.address}
            client = subprocess.Popen(
                shlex.split(command.replace("{}", path.address)), env=environment, stdin=records,
                stdout=output, stderr=errors, start_new_session=True,
            )  # fmt: skip
            try:
                until = time.monotonic() + PATIENCE
                for _ in range(KILLS):
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        client.wait(chance.uniform(0.1, 0.5))
                    server.kill()
                    time.sleep(chance.uniform(0.0, 0.3))
                    server.start()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    client.wait(max(0.0, until - time.monotonic()))
                code = client.poll()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(client.pid, signal.SIGKILL)
                client.wait()
            errors.seek(0)
            output.seek(0)
            heard = output.read()
            said = errors.read().decode(errors="replace").strip().splitlines()[-3:]
        server.stop()
        if asks:
            return answered(lines, heard, code, f"round {seed}: {count} lines, {KILLS} kills, {path.forwarded} datagrams forwarded; its stderr ends with {said}")
        records_out = server.records()
        came = Counter(payload(record) for record in records_out if "gap" not in record)
        gaps = [record["gap"] for record in records_out if "gap" in record]
    finally:
        path.close()
        server.remove()
    missing = [line for line in lines if line not in came]
    doubled = [line for line, times in came.items() if times > 1]
    strange = [line for line in came if line not in set(lines)]
    told = f"round {seed}: {count} lines, {KILLS} kills, {path.forwarded} datagrams forwarded"
    if code is None:
        return False, f"{told}: not done after {PATIENCE:.0f} s; its stderr ends with {said}"
    if code != 0:
        return False, f"{told}: exit code {code}; its stderr ends with {said}"
    if missing or doubled or strange or gaps:
        return False, f"{told}: {len(missing)} missing, {len(doubled)} twice, {len(strange)} never sent, gaps {gaps[:3]}"
    return True, f"every line comes out once ({told})"


def answered(lines: list[bytes], heard: bytes, code: Optional[int], told: str) -> tuple[bool, str]:
    """Each line has one answer, that of its handler."""
    found = [json.loads(line) for line in heard.splitlines()]
    times = Counter(int(one["line"]) for one in found)
    missing = [n for n in range(1, len(lines) + 1) if n not in times]
    doubled = [n for n, count in times.items() if count > 1]
    wrong = [one for one in found if one["status"] != "DONE" or told_body(one) != b"did " + lines[int(one["line"]) - 1]]
    if code != 0 or missing or doubled or wrong:
        return False, f"exit code {code}, {len(missing)} without an answer, {len(doubled)} with two, {len(wrong)} wrong {wrong[:1] or ''} ({told})"
    return True, f"every line is answered once, with what its handler said ({told.partition(';')[0]})"


def check(command: str, rounds: int, lines: Optional[int] = None, asks: bool = False) -> list[Verdict]:
    """`rounds` runs of the command, one after the other."""
    found = []
    for seed in range(1, rounds + 1):
        right, what = once(command, seed, lines or (LINES_ASKED if asks else LINES), asks)
        found.append(Verdict("duty-ask" if asks else "duty-retransmission", right, what, "the real server"))
    return found
