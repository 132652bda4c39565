"""One measurement, the same for every system: a fresh server, a warm-up, the load, and what the kernel saw of it."""

import contextlib
import os
import shutil
import statistics
import time

from . import process
from .process import Failed
from .systems import load

# Before the measured load each server works for a while in its own best shape: files are laid out, caches warm.
WARM_SECONDS = 1.0
REST_SECONDS = 0.2
# A load writes gigabytes; they are removed after each run.
FREE_BYTES_MIN = 8 << 30


def once(system, space, shape, seconds, warm_shape, arguments=None, rest=REST_SECONDS):
    """Measures a fresh server once, `rest` seconds after its warm-up; returns a dictionary of figures."""
    if shutil.disk_usage(space.path).free < FREE_BYTES_MIN:
        raise Failed(f"less than {FREE_BYTES_MIN >> 30} GiB are free under {space.path}")
    # What earlier runs left to be written is not this one's.
    os.sync()
    with serving(system, space, arguments) as (server, directory):
        if warm_shape:
            load(system, server, warm_shape, WARM_SECONDS, directory, check=False)
            time.sleep(rest)
        return watched(system, server, shape, seconds, directory)


@contextlib.contextmanager
def serving(system, space, arguments=None):
    """A server in a fresh directory, and that directory; neither is left behind."""
    directory = space.fresh()
    server = None
    try:
        server = system.start(directory, arguments) if arguments else system.start(directory)
        yield server, directory
    finally:
        if server:
            server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def watched(system, server, shape, seconds, directory):
    """Loads a running server; what it took of processor, memory and disk is added to what was measured."""
    counts = process.metrics(server.admin) if server.admin else None
    disk = process.device_bytes_written(directory)
    drops = process.udp_drops(server.address)
    begin, busy, ours = time.monotonic(), process.busy_seconds(), process.ended_children_seconds()
    cpu = process.cpu_seconds(server.pid)
    report = load(system, server, shape, seconds, directory)
    elapsed = time.monotonic() - begin
    cpu = process.cpu_seconds(server.pid) - cpu
    ours = process.ended_children_seconds() - ours
    report["watched_s"] = elapsed
    report["server_cores"] = round(cpu / elapsed, 3)
    report["load_cores"] = round(ours / elapsed, 3)
    report["other_cores"] = round(max(process.busy_seconds() - busy - cpu - ours, 0) / elapsed, 3)
    report["server_rss_bytes"] = process.resident_bytes(server.pid)
    if drops is not None:
        report["kernel_drops"] = process.udp_drops(server.address) - drops
    if counts is not None:
        after = process.metrics(server.admin)
        report["journal_bytes"] = grown(counts, after, "duragram_journal_written_bytes_total")
        report["commits"] = grown(counts, after, "duragram_commits_total")
        report["lag_entries"] = process.total(after, "duragram_lane_lag_entries")
        if disk is not None:
            # What the page cache still holds is part of the price.
            os.sync()
            report["disk_bytes"] = process.device_bytes_written(directory) - disk
    return report


def grown(before, after, name):
    return process.total(after, name) - process.total(before, name)


def medians(runs):
    """The median of every figure over runs, and how far the throughput spread."""
    figures = {}
    for key in runs[0]:
        values = [run[key] for run in runs if isinstance(run.get(key), (int, float))]
        if values and len(values) == len(runs):
            figures[key] = statistics.median(values)
    rates = [run["acked_per_s"] for run in runs]
    return {**figures, "runs": len(runs), "acked_per_s_min": min(rates), "acked_per_s_max": max(rates)}
