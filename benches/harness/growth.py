"""What growth costs: Duragram's throughput and latency against clients, payload, lanes and backlog."""

import shutil

from . import measure, process, systems
from .compare import BULK, bulk
from .process import Failed
from .programs import say

CLIENTS = (1, 10, 100, 1_000, 10_000, 100_000)
SIZES = (0, 100, 200, 400, 800, 1200, 1400)
LANES = (1, 2, 3, 4)
BACKLOG_BYTES = 10 << 30
# In flight over all clients, as in the bulk case.
IN_FLIGHT = 16 * 1024


def shared(clients):
    """The bulk case's datagrams in flight, shared among so many clients."""
    window = min(max(IN_FLIGHT // clients, 1), 4096)
    return {"clients": clients, "window": window, "gso": min(window, 64), "size": 100}


def series():
    """Name, what grows, its unit, and per value the load and the server's arguments."""
    yield "clients-window-1", "clients, window 1", "", {
        n: ({"clients": n, "window": 1, "size": 100}, ()) for n in CLIENTS
    }
    yield "clients-bulk", "clients, 16,384 in flight shared among them", "", {n: (shared(n), ()) for n in CLIENTS}
    yield "payload", "payload", "bytes", {n: (bulk(size=n), ()) for n in SIZES}
    yield "lanes", "lanes", "", {n: (bulk(), ("--lanes", n)) for n in LANES}


def run(options, programs, space, save):
    """Measures the series in turn, `rounds` times, and the backlog once."""
    seconds = options.seconds or 2.0
    found = {"seconds": seconds, "rounds": options.rounds, "series": {}}
    system = systems.Duragram(programs)
    runs = {}
    wanted = [entry for entry in series() if options.wants(entry[0])]
    for number in range(1, options.rounds + 1):
        for name, title, unit, points in wanted:
            for value, (shape, arguments) in points.items():
                try:
                    figures = measure.once(system, space, shape, seconds, BULK.load, arguments)
                except (Failed, OSError) as problem:
                    say(f"{number}: {name} {value} failed: {problem}")
                    continue
                runs.setdefault((name, value), []).append(figures)
                show(f"{number}: {name} {value}", figures)
            good = [{"x": value} | measure.medians(runs[name, value]) for value in points if (name, value) in runs]
            found["series"][name] = {"title": title, "unit": unit, "points": good}
            save(found)
    if options.wants("backlog"):
        found["series"]["backlog"] = {
            "title": "backlog", "unit": "bytes", "points": backlog(options, programs, space, seconds),
        }
        save(found)
    return found


def backlog(options, programs, space, seconds):
    """Bulk load into a server that processes next to nothing; each point is a load, and the backlog it began with."""
    need = options.backlog_bytes + (4 << 30)
    if shutil.disk_usage(space.path).free < need:
        say(f"the backlog is left out: it needs {need >> 30} GiB")
        return []
    system = systems.SlowDuragram(programs)
    points = []
    with measure.serving(system, space) as (server, directory):
        try:
            systems.load(system, server, BULK.load, measure.WARM_SECONDS, directory, check=False)
            while True:
                held = process.total(process.metrics(server.admin), "duragram_backlog_bytes")
                figures = measure.watched(system, server, BULK.load, seconds, directory)
                show(f"backlog {held / 1e9:.1f} GB", figures)
                points.append({"x": held} | figures)
                if held >= options.backlog_bytes:
                    return points
        except (Failed, OSError) as problem:
            say(f"backlog: {problem}")
            return points


def show(what, figures):
    say(f"{what:<32} {figures['acked_per_s']:>12,.0f}/s  p99 {figures['p99_us']:>10,.0f} us")
