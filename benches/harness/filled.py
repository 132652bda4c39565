"""A server that holds much: a million sessions, ten million unprocessed entries."""

import concurrent.futures
import contextlib
import os
import shutil
import statistics
import time

from . import measure, process, systems
from .compare import BULK
from .process import Failed
from .programs import say

SESSIONS = 1_000_000
FEW = 100
# As much as the load program allows a million clients.
WINDOW = 16
# Offered in an open loop, one datagram a client at a time, until one is more than is taken.
RATES = (150_000, 200_000, 300_000, 400_000, 500_000, 600_000)
# What is tried with all sessions, of the best rate with few.
SHARES = (1.0, 0.9, 0.8, 0.7)
TAKEN = 0.97

ENTRIES = 10_000_000
RESTARTS = 3
DRAIN_SECONDS_MAX = 300


def sessions(options, programs, space, save):
    """Memory of a million sessions, and the throughput with traffic over all of them, against a hundred.

    Open loops, since a closed one has a datagram of each client in flight: a million. What counts is what the server
    journals a second once every client has sent its first datagram."""
    seconds = options.seconds or 4.0
    found = {"sessions": options.sessions, "few": FEW, "seconds": seconds, "runs": []}
    for number in range(1, options.rounds + 1):
        run = few_and_many(systems.Duragram(programs), space, options.sessions, seconds)
        found["runs"].append(run)
        say(f"{number}: {run['few_per_s']:,.0f}/s with {FEW}, {run['many_per_s']:,.0f}/s with {options.sessions:,}; "
            f"{run['bytes_per_session']:.0f} bytes a session")
        found["medians"] = {key: statistics.median(run[key] for run in found["runs"]) for key in run}
        save(found)
    return found


def few_and_many(system, space, many, seconds):
    with running(system, space) as (server, directory):
        few = 0.0
        for rate in RATES:
            taken = sustained(system, server, directory, FEW, rate, seconds)
            few = max(few, taken)
            if taken < TAKEN * rate:
                break
    best = {"many_per_s": 0.0}
    for share in SHARES:
        # A fresh server each time: every load has clients of its own, and the table is to hold no others.
        with running(system, space, ("--sessions-max", many + 1_000)) as (server, directory):
            sustained(system, server, directory, FEW, min(RATES), 1.0)
            rss, held = process.resident_bytes(server.pid), process.metrics(server.admin)["duragram_sessions"]
            taken = sustained(system, server, directory, many, few * share, seconds)
            rss = process.resident_bytes(server.pid) - rss
            held = process.metrics(server.admin)["duragram_sessions"] - held
        if taken > best["many_per_s"]:
            best = {"many_per_s": taken, "added": held, "bytes_per_session": rss / max(held, 1)}
        if taken >= TAKEN * few * share:
            break
    return {"few_per_s": few, "ratio": best["many_per_s"] / few, **best}


@contextlib.contextmanager
def running(system, space, arguments=()):
    """A fresh server that has worked for a while."""
    with measure.serving(system, space, arguments) as (server, directory):
        systems.load(system, server, BULK.load, measure.WARM_SECONDS, directory, check=False)
        yield server, directory


def sustained(system, server, directory, clients, rate, seconds):
    """Datagrams journaled a second, after each client has sent one."""
    first = clients / rate * 1.1 + 0.5
    shape = {"clients": clients, "window": WINDOW, "size": 100, "rate": rate}
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        loading = other.submit(systems.load, system, server, shape, first + seconds + 0.5, directory, False)
        time.sleep(first)
        begin, before = time.monotonic(), journaled(server)
        time.sleep(seconds)
        taken = (journaled(server) - before) / (time.monotonic() - begin)
        loading.result()
    say(f"{clients:>9,} sessions, {rate:,.0f}/s offered: {taken:,.0f}/s taken")
    return taken


def journaled(server):
    return process.metrics(server.admin).get('duragram_datagrams_total{outcome="journaled"}', 0)


def recovery(options, programs, space, save):
    """Starts of a server that was killed with millions of unprocessed entries. The page cache stays warm."""
    slow, real = systems.SlowDuragram(programs), systems.Duragram(programs)
    directory = space.fresh()
    server = slow.start(directory)
    try:
        while entries(server) < options.entries:
            systems.load(slow, server, BULK.load, 0.5, directory)
        held = entries(server)
        size = process.total(process.metrics(server.admin), "duragram_backlog_bytes")
        server.stop()
        os.sync()
        starts = []
        for _ in range(RESTARTS):
            begin = time.monotonic()
            server = slow.start(directory)
            starts.append(round(time.monotonic() - begin, 4))
            kept = entries(server)
            if kept < options.entries * 0.99:
                raise Failed(f"of {held:,.0f} unprocessed entries {kept:,.0f} are left")
            server.stop()
        begin = time.monotonic()
        server = real.start(directory)
        ready = time.monotonic() - begin
        drained = drain(server)
        found = {
            "entries": held, "backlog_bytes": size, "start_s": sorted(starts)[len(starts) // 2], "starts_s": starts,
            "serve_start_s": round(ready, 4), "entries_scanned_per_s": held / ready, "drain_s": round(drained, 3),
            "entries_drained_per_s": held / max(drained, 1e-3),
        }
        say(f"{held:,.0f} entries: ready after {ready:.2f} s ({held / ready:,.0f}/s), "
            f"all processed {drained:.2f} s later")
        save(found)
        return found
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def entries(server):
    return process.total(process.metrics(server.admin), "duragram_lane_lag_entries")


def drain(server):
    """Seconds until nothing is unprocessed."""
    begin = time.monotonic()
    while entries(server) > 0:
        if time.monotonic() - begin > DRAIN_SECONDS_MAX:
            raise Failed("the backlog is not processed in time")
        time.sleep(0.01)
    return time.monotonic() - begin
