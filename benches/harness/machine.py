"""The machine by its traits: what a reader needs to judge the figures. `python3 benches/harness/machine.py DIR` tells those of the disk
that the directory is on, as JSON: it needs no build."""

import json
import os
import platform
import re
import sys
import time
from pathlib import Path

SYNCS = 300
SYNC_BYTES = 4096
WRITES = 400
WRITE_BYTES = 256 * 1024


def traits(directory):
    """Cores, processor, memory, kernel, file system, and the time of a sync there."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.M)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.M)
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": model[1] if model else platform.machine(),
        "virtual": "hypervisor" in cpuinfo,
        "memory_gib": round(int(memory[1]) / 2**20, 1) if memory else None,
        "kernel": platform.release(),
        "filesystem": filesystem(directory),
        **disk(directory),
    }


def disk(directory):
    """How fast the disk of a directory is."""
    p50, p99, mean, busy = synced_us(directory)
    return {
        "fdatasync_p50_us": p50,
        "fdatasync_p99_us": p99,
        "synced_write_mb_per_s": synced_write_mb_per_s(directory),
        "fdatasync_mean_us": mean,
        "fdatasync_busy_us": busy,
    }


def describe(machine):
    """One sentence."""
    virtual = ", virtual" if machine["virtual"] else ""
    return (
        f"{machine['cores']} cores of {machine['cpu']}{virtual}, {machine['memory_gib']} GiB of memory, Linux "
        f"{machine['kernel']}, {machine['filesystem']}; fdatasync of 4 KiB in a laid-out file p50 "
        f"{machine['fdatasync_p50_us']:.0f} µs, p99 {machine['fdatasync_p99_us']:.0f} µs; writes of 256 KiB, each "
        f"synced, {machine['synced_write_mb_per_s']} MB/s"
    )


def filesystem(directory):
    """The type of the file system that holds a directory: of the longest mount point above it."""
    directory = str(Path(directory).resolve())
    best = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, kind = line.split()[:3]
        if (directory + "/").startswith(point.rstrip("/") + "/"):
            best = max(best, (point, kind), key=lambda mount: len(mount[0]))
    return best[1]


def synced_us(directory):
    """p50, p99 and mean of a sync after writing 4 KiB into a file that has been written before, and the processor time that it takes, the
    write included; in microseconds."""
    path = Path(directory) / "sync-probe"
    page = os.urandom(SYNC_BYTES)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(file, page * SYNCS, 0)
        os.fsync(file)
        times, busy = [], time.process_time()
        for at in range(SYNCS):
            os.pwrite(file, page, at * SYNC_BYTES)
            begin = time.perf_counter()
            os.fdatasync(file)
            times.append((time.perf_counter() - begin) * 1e6)
        busy = (time.process_time() - busy) * 1e6
    finally:
        os.close(file)
        path.unlink()
    times.sort()
    return tuple(round(us, 1) for us in (times[SYNCS // 2], times[SYNCS * 99 // 100], sum(times) / SYNCS, busy / SYNCS))


def synced_write_mb_per_s(directory):
    """How fast a file grows by writes of 256 KiB that are each synced."""
    path = Path(directory) / "write-probe"
    chunk = os.urandom(WRITE_BYTES)
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        begin = time.perf_counter()
        for _ in range(WRITES):
            os.write(file, chunk)
            os.fdatasync(file)
        return round(WRITES * WRITE_BYTES / (time.perf_counter() - begin) / 1e6)
    finally:
        os.close(file)
        path.unlink()


if __name__ == "__main__":
    print(json.dumps(disk(sys.argv[1])))
