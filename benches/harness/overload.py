"""More than the server takes, from clients that behave and from clients that do not."""

import contextlib
import json
import socket
import statistics
import subprocess
import threading
import time
import urllib.request

from . import measure, process, systems
from .compare import BULK, bulk
from .process import Failed
from .programs import say

SECONDS = 120.0
# Offered, of the highest rate.
TIMES = 2.0
# Datagrams a second of the rude clients; a fourth of them are new sessions.
RUDE_RATE = 40_000
# What they may send beyond the load's seconds, until they are stopped.
RUDE_SECONDS_MORE = 60
GOODPUT_MIN = 0.9
# No datagram of a client that behaves waits longer.
WAIT_US_MAX = 1_000_000
PROBE = {"clients": 1, "window": 1, "size": 100}
PROBE_SECONDS = 3.0
# How much slower than before one client may be right after.
SLOWER_MAX = 2.0
SAMPLE_SECONDS = 0.5
# How long the highest rate is taken, before a run and after it: the disk may change its speed meanwhile.
MAXIMUM_SECONDS = 30.0


def overload(options, programs, space, save):
    """Goodput, memory and what follows, against the rate that the same load reaches alone at the same server."""
    seconds = options.seconds or SECONDS
    system = systems.Duragram(programs)
    found = {"seconds": seconds, "rude_rate": RUDE_RATE, "runs": {}}
    for name, rude in (("twice the maximum offered", False), ("beside rude clients", True)):
        run = one(system, programs, space, rude, seconds)
        per_s = run["reference_per_s"]
        run["goodput"] = {kind: run["acked_per_s"] / statistics.mean(both) for kind, both in per_s.items()}
        found["runs"][name] = run
        for kind, (first, last) in per_s.items():
            say(f"{name}: {run['acked_per_s']:,.0f}/s, {run['goodput'][kind]:.2f} of that {kind} ({first:,.0f} before, {last:,.0f} after)")
        say(f"{name}: {run['rss_bytes_max'] >> 20} of "
            f"{run['bound_bytes'] >> 20} MiB, longest wait {run['max_us'] / 1e3:.0f} ms, one client before {run['before']['p99_us']:.0f}, "
            f"right after {run['after']['p99_us']:.0f} us (p99)")
        save(found)
    problems = [f"{name}: {problem}" for name, run in found["runs"].items() for problem in judge(run)]
    if problems:
        raise Failed("; ".join(problems))
    return found


def one(system, programs, space, rude, seconds):
    # Room for all those sessions: in a full table new clients are refused until others have been idle for `session_ttl`.
    room = int(RUDE_RATE / 4 * (seconds + RUDE_SECONDS_MORE)) + 1_000_000
    with measure.serving(system, space, ("--sessions-max", room)) as (server, directory):
        systems.load(system, server, BULK.load, measure.WARM_SECONDS, directory, check=False)
        references = [reference(system, programs, server, directory, rude)]
        time.sleep(measure.REST_SECONDS)
        before = systems.load(system, server, PROBE, PROBE_SECONDS, directory)
        with watched_memory(server) as memory:
            with rude_clients(programs, server.address if rude else None, seconds):
                shape = BULK.load if rude else bulk(rate=references[0]["alone"] * TIMES)
                # An open loop beyond the maximum cannot get its acks in time: what counts is how many it got.
                figures = offered(system, server, shape, seconds, directory, rude)
        time.sleep(measure.REST_SECONDS)
        after = systems.load(system, server, PROBE, PROBE_SECONDS, directory)
        counts = process.metrics(server.admin)
        references.append(reference(system, programs, server, directory, rude))
        per_s = {name: [reference[name] for reference in references] for name in references[0]}
        return {**figures, "reference_per_s": per_s, "before": before, "after": after, "rss_bytes_max": memory.most, "open_loop": not rude,
                "bound_bytes": bound(server), "sessions": counts["duragram_sessions"],
                "rejected": process.total(counts, "duragram_rejects_total")}


def reference(system, programs, server, directory, rude):
    """The highest rate alone, and while the rude clients take their processor time and send to a port where nobody reads."""
    def most():
        return systems.load(system, server, BULK.load, MAXIMUM_SECONDS, directory)["acked_per_s"]

    found = {"alone": most()}
    if rude:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unread:
            unread.bind(("127.0.0.1", 0))
            with rude_clients(programs, "127.0.0.1:{}".format(unread.getsockname()[1]), MAXIMUM_SECONDS):
                found["beside a control"] = most()
    return found


def offered(system, server, shape, seconds, directory, check):
    """In the open loop the load is killed at its end, so that nothing is left to be sent while the probe runs."""
    if check:
        return systems.load(system, server, shape, seconds, directory)
    begin, before = time.monotonic(), journaled(server)
    # It would go on for a while to get what it has not sent yet acked.
    argv = [str(word) for word in system.load(server, shape, seconds + 60)]
    load = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(seconds)
        rate = (journaled(server) - before) / (time.monotonic() - begin)
    finally:
        load.kill()
        load.wait()
    return {"acked_per_s": rate, "max_us": 0}


def journaled(server):
    return process.metrics(server.admin).get('duragram_datagrams_total{outcome="journaled"}', 0)


@contextlib.contextmanager
def rude_clients(programs, address, seconds):
    """They are at it within the block, if there is an address to send to."""
    if address is None:
        yield
        return
    argv = [programs.rude, "--server", address, "--rate", str(RUDE_RATE), "--seconds", str(seconds + RUDE_SECONDS_MORE)]
    child = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.stop(child)


class watched_memory:
    """The most that was resident within the block."""

    def __init__(self, server):
        self.server, self.most, self.over = server, 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        while not self.over.wait(SAMPLE_SECONDS):
            try:
                self.most = max(self.most, process.resident_bytes(self.server.pid))
            except (OSError, ValueError):
                return

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def bound(server):
    """The documented sum of all limits, as the server tells it."""
    with urllib.request.urlopen(f"http://{server.admin}/api/status", timeout=5) as answer:
        return json.load(answer)["memory"]["total_bytes"]


def judge(run):
    # The rude clients' own work is on the same processors.
    goodput = run["goodput"].get("beside a control", run["goodput"]["alone"])
    if goodput < GOODPUT_MIN:
        yield f"goodput is {goodput:.2f} of the maximum"
    if run["rss_bytes_max"] > run["bound_bytes"]:
        yield "memory passed the documented sum"
    if run["max_us"] > WAIT_US_MAX:
        yield f"a datagram waited {run['max_us'] / 1e6:.1f} s"
    if run["after"]["p99_us"] > SLOWER_MAX * run["before"]["p99_us"] + 1000:
        yield "one client was slower right after"
