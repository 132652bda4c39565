"""Long and quiet runs: the soak at 70 % of the maximum, and the idle server."""

import subprocess
import threading
import time

from . import measure, process, systems
from .compare import BULK, bulk
from .process import Failed
from .programs import say

SHARE = 0.7
# Long enough that bursts of the disk do not count.
MAXIMUM_SECONDS = 10.0
SAMPLE_SECONDS = 1.0
IDLE_SECONDS = 20.0
# The floor at the same rate, before and after: what the disk was good for at the time.
CONTROL_SECONDS = 120.0
# Datagrams that may wait, so that the open loop, not the window, sets the pace.
SOAK_WINDOW = 4096


def soak(options, programs, space, save):
    """Open loop at 70 % of what was measured just before, for minutes, between two short ones of the floor; memory and lag
    every second."""
    system = systems.Duragram(programs)
    most = [measure.once(system, space, BULK.load, MAXIMUM_SECONDS, BULK.load)["acked_per_s"] for _ in range(3)]
    rate = sorted(most)[1] * SHARE
    seconds = options.seconds or 600.0
    say(f"maximum {sorted(most)[1]:,.0f}/s; soaking at {rate:,.0f}/s for {seconds:.0f} s")
    samples, over = [], threading.Event()
    shape = bulk(rate=rate, window=SOAK_WINDOW)

    def control():
        figures = measure.once(systems.LaidOutFloor(programs), space, shape, min(seconds, CONTROL_SECONDS), BULK.load)
        say(f"floor: p99.9 {figures['p999_us'] / 1e3:.1f} ms, longest {figures['max_us'] / 1e3:.1f} ms")
        return figures

    def watch(server, begin):
        while not over.wait(SAMPLE_SECONDS):
            try:
                samples.append(sample(server, begin))
            except (OSError, ValueError):
                return

    before = control()
    with measure.serving(system, space) as (server, directory):
        watcher = threading.Thread(target=watch, args=(server, time.monotonic()))
        watcher.start()
        try:
            figures = measure.watched(system, server, shape, seconds, directory)
        finally:
            over.set()
            watcher.join()
    say(f"p99.9 {figures['p999_us'] / 1e3:.1f} ms, longest {figures['max_us'] / 1e3:.1f} ms")
    found = {"maximum_per_s": sorted(most)[1], "share": SHARE, "rate": rate, "figures": figures,
             "floor_before": before, "floor_after": control(), "samples": samples}
    save(found)
    return found


def sample(server, begin):
    values = process.metrics(server.admin)
    return {
        "at_s": round(time.monotonic() - begin, 2),
        "rss_bytes": process.resident_bytes(server.pid),
        "lag_entries": process.total(values, "duragram_lane_lag_entries"),
        "backlog_bytes": process.total(values, "duragram_backlog_bytes"),
        "commits": process.total(values, "duragram_commits_total"),
        "journaled": values.get('duragram_datagrams_total{outcome="journaled"}', 0),
    }


def idle(options, programs, space, save):
    """Processor time and memory of a server that nobody talks to: fresh, and after a bulk load."""
    seconds = options.seconds or IDLE_SECONDS
    system = systems.Duragram(programs)
    with measure.serving(system, space) as (server, directory):
        time.sleep(2)
        found = {"seconds": seconds, "fresh": quiet(server, seconds)}
        systems.load(system, server, BULK.load, 2.0, directory, check=False)
        time.sleep(5)
        found["after_load"] = quiet(server, seconds)
        for key in ("fresh", "after_load"):
            say(f"idle, {key}: {found[key]['cpu_share']:.3%} of a core, {found[key]['rss_bytes'] / 2**20:.1f} MiB")
        save(found)
        return found


def quiet(server, seconds):
    """The kernel counts processor time in hundredths of a second; its own sum over the threads is finer."""
    before, begin = run_ns(server.pid), time.monotonic()
    time.sleep(seconds)
    spent = (run_ns(server.pid) - before) / 1e9
    return {"cpu_share": spent / (time.monotonic() - begin), "rss_bytes": process.resident_bytes(server.pid)}


def run_ns(pid):
    """Nanoseconds that all threads of a process have run (those that have ended are not counted)."""
    total = 0
    for path in process.Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((path / "schedstat").read_text().split()[0])
        except OSError:
            pass
    return total


def redis_check(options, programs, space, save):
    """peer_load beside redis-benchmark, on the same server, in turn: how fair the load client is."""
    seconds = options.seconds or 2.0
    system = systems.Redis(programs)
    if system.missing() or not programs.redis_benchmark:
        raise Failed("redis-server and redis-benchmark are needed")
    found = {"seconds": seconds, "pairs": []}
    with measure.serving(system, space) as (server, directory):
        for clients, window in ((1, 1), (8, 64), (512, 1), (16, 1024)):
            shape = {"clients": clients, "window": window, "size": 100}
            systems.load(system, server, shape, 0.5, directory, check=False)
            ours, theirs = [], []
            for _ in range(options.rounds):
                ours.append(systems.load(system, server, shape, seconds, directory)["acked_per_s"])
                theirs.append(redis_benchmark(programs, server, shape, int(ours[-1] * seconds)))
            middle = options.rounds // 2
            pair = {"shape": shape, "peer_load": sorted(ours)[middle], "redis_benchmark": sorted(theirs)[middle]}
            found["pairs"].append(pair)
            say(f"{clients}x{window}: peer_load {pair['peer_load']:,.0f}/s, "
                f"redis-benchmark {pair['redis_benchmark']:,.0f}/s")
        save(found)
        return found


def redis_benchmark(programs, server, shape, requests):
    """Requests a second by Redis's own load program."""
    argv = [programs.redis_benchmark, "-p", server.address.split(":")[1], "-c", shape["clients"], "-P", shape["window"]]
    argv += ["-n", max(requests, 1000), "--csv", "XADD", "bench", "*", "f", "x" * 100]
    child = process.start(argv, subprocess.DEVNULL, programs.peer_env, subprocess.PIPE)
    try:
        out, _ = child.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        raise Failed("redis-benchmark did not end") from None
    finally:
        process.stop(child)
    return float(out.decode().strip().splitlines()[-1].split('","')[1])
