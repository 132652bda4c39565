"""A server that holds much: a million sessions, ten million unprocessed entries."""

import os
import shutil
import time

from . import measure, process, systems
from .compare import BULK, bulk
from .process import Failed
from .programs import say

SESSIONS = 1_000_000
FEW = 100
ENTRIES = 10_000_000
# A load that touches every session: each sends one datagram at a time, in turn.
FILL_RATE = 150_000
RESTARTS = 3
DRAIN_SECONDS_MAX = 300


def sessions(options, programs, space, save):
    """Memory of a million sessions, and the throughput with traffic over all of them, against a hundred.

    Both loads are open loops with one datagram a client at a time, beyond what the server takes, so that what is
    acked is its throughput; a closed loop of a million clients would have a million datagrams in flight."""
    seconds = options.seconds or 6.0
    system = systems.Duragram(programs)
    found = {"sessions": options.sessions, "few": FEW, "seconds": seconds, "runs": []}
    for number in range(1, options.rounds + 1):
        directory = space.fresh()
        server = system.start(directory)
        try:
            systems.load(system, server, BULK.load, measure.WARM_SECONDS, directory, check=False)
            fill = {"clients": FEW, "window": 64, "size": 100, "rate": FILL_RATE}
            few_rate = best_rate(system, server, directory, FEW, seconds)
            systems.load(system, server, fill, options.sessions / FILL_RATE, directory)
            before = process.resident_bytes(server.pid)
            held = process.metrics(server.admin)["duragram_sessions"]
            systems.load(system, server, {**fill, "clients": options.sessions}, options.sessions / FILL_RATE * 1.05,
                         directory)
            time.sleep(1)
            after = process.resident_bytes(server.pid)
            held = process.metrics(server.admin)["duragram_sessions"] - held
            many_rate = best_rate(system, server, directory, options.sessions, seconds)
            run = {
                "few_per_s": few_rate, "many_per_s": many_rate, "ratio": many_rate / few_rate,
                "added": held, "bytes_per_session": (after - before) / max(held, 1), "rss_bytes": after,
            }
            found["runs"].append(run)
            say(f"{number}: {few_rate:,.0f}/s with {FEW}, {many_rate:,.0f}/s with {options.sessions:,}; "
                f"{run['bytes_per_session']:.0f} bytes a session")
        finally:
            server.stop()
            shutil.rmtree(directory, ignore_errors=True)
        found["medians"] = {key: sorted(r[key] for r in found["runs"])[len(found["runs"]) // 2] for key in run}
        save(found)
    return found


def best_rate(system, server, directory, clients, seconds):
    """The most that is acked while it is offered, over rising rates, one datagram a client at a time."""
    best = 0.0
    for rate in (200_000, 250_000, 300_000, 350_000, 400_000, 500_000, 600_000):
        shape = {"clients": clients, "window": 64, "size": 100, "rate": rate}
        report = systems.load(system, server, shape, max(seconds, 1.2 * clients / rate), directory, check=False)
        best = max(best, report["acked_per_s"])
        if report["acked_per_s"] < 0.9 * rate:
            break
    return best


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
