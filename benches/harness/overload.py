"""More than the server takes, from clients that behave and from clients that do not."""

import json
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
PROBE_SECONDS = 1.0
# How much slower than before one client may be in the first second after.
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
        run["goodput"] = run["acked_per_s"] / statistics.mean(run["maximum_per_s"])
        found["runs"][name] = run
        least, most = sorted(run["maximum_per_s"])
        say(f"{name}: {run['acked_per_s']:,.0f}/s, {run['goodput']:.2f} of the maximum ({least:,.0f} to {most:,.0f}/s before and after), "
            f"{run['rss_bytes_max'] >> 20} of "
            f"{run['bound_bytes'] >> 20} MiB, longest wait {run['max_us'] / 1e3:.0f} ms, one client before {run['before']['p99_us']:.0f}, "
            f"in the second after {run['after']['p99_us']:.0f} us (p99)")
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
        maximum = [systems.load(system, server, BULK.load, MAXIMUM_SECONDS, directory)["acked_per_s"]]
        time.sleep(measure.REST_SECONDS)
        before = systems.load(system, server, PROBE, PROBE_SECONDS, directory)
        with watched_memory(server) as memory:
            child = start_rude(programs, server, seconds) if rude else None
            try:
                shape = BULK.load if rude else bulk(rate=maximum[0] * TIMES)
                # An open loop beyond the maximum cannot get its acks in time: what counts is how many it got.
                figures = offered(system, server, shape, seconds, directory, rude)
            finally:
                if child:
                    process.stop(child)
        after = systems.load(system, server, PROBE, PROBE_SECONDS, directory)
        counts = process.metrics(server.admin)
        maximum.append(systems.load(system, server, BULK.load, MAXIMUM_SECONDS, directory)["acked_per_s"])
        return {**figures, "maximum_per_s": maximum, "before": before, "after": after, "rss_bytes_max": memory.most, "open_loop": not rude,
                "bound_bytes": bound(server), "sessions": counts["duragram_sessions"],
                "rejected": process.total(counts, "duragram_rejects_total")}


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


def start_rude(programs, server, seconds):
    argv = [programs.rude, "--server", server.address, "--rate", str(RUDE_RATE), "--seconds", str(seconds + RUDE_SECONDS_MORE)]
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL)


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
    if run["goodput"] < GOODPUT_MIN:
        yield f"goodput is {run['goodput']:.2f} of the maximum"
    if run["rss_bytes_max"] > run["bound_bytes"]:
        yield "memory passed the documented sum"
    if run["max_us"] > WAIT_US_MAX:
        yield f"a datagram waited {run['max_us'] / 1e6:.1f} s"
    if run["after"]["p99_us"] > SLOWER_MAX * run["before"]["p99_us"] + 1000:
        yield "one client was slower in the second after"
