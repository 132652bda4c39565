"""A client command against the real server, through a bad path and the server's kills: what is acked comes out of the sink, once."""

from __future__ import annotations

import base64
import contextlib
import os
import random
import shlex
import signal
import subprocess
import tempfile
import time
from collections import Counter
from typing import Any

from tests.support import Proxy, Server

from .run import Verdict

#: Lines of each round, and how often the server is killed meanwhile.
LINES = 2000
KILLS = 3
#: Of a client that sends one at a time, and does not measure the path: it waits for a second for each that is lost.
LINES_FEW = 150
#: Seconds until a client must be done.
PATIENCE = 120.0


def payload(record: dict[str, Any]) -> bytes:
    text = record.get("payload")
    return text.encode() if text is not None else base64.b64decode(record["payload_base64"])


def once(command: str, seed: int, count: int) -> tuple[bool, str]:
    chance = random.Random(seed)
    server = Server()
    path = Proxy(server.address, loss=0.1, duplicates=0.05, reorder=0.1, seed=seed)
    lines = [b"round %d line %d %s" % (seed, n, b"." * chance.randrange(200)) for n in range(count)]
    try:
        with tempfile.TemporaryFile() as records, tempfile.TemporaryFile() as errors:
            records.write(b"".join(line + b"\n" for line in lines))
            records.seek(0)
            environment = {**os.environ, "DURAGRAM_SERVER": path.address}
            client = subprocess.Popen(
                shlex.split(command.replace("{}", path.address)), env=environment, stdin=records,
                stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True,
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
            said = errors.read().decode(errors="replace").strip().splitlines()[-3:]
        server.stop()
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


def check(command: str, rounds: int, lines: int = LINES) -> list[Verdict]:
    """`rounds` runs of the command, one after the other."""
    found = []
    for seed in range(1, rounds + 1):
        right, what = once(command, seed, lines)
        found.append(Verdict("duty-retransmission", right, what, "the real server"))
    return found
