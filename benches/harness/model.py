"""What a server takes, and how long an ack takes, from what a datagram costs each stage and from the speed of the disk: the formula of
docs/performance.md#capacity. Times are in microseconds."""

import statistics
from dataclasses import dataclass

from .machine import WRITE_BYTES

# As in src/limits.rs and src/config.
COMMIT_BYTES_MAX = 1 << 20
LAUNCH_BYTES = 64 << 10
# Of the cores' time at most so much is used: now and then every stage waits for another one.
USED = 0.8
STAGES = ("ingest", "write", "sync", "lane", "rest", "load")


@dataclass(frozen=True)
class Disk:
    """`sync` is the time of one that has next to nothing to write; each byte takes `byte` more."""

    sync: float
    byte: float

    @classmethod
    def of(cls, traits):
        """By the traits of a machine."""
        sync = traits["fdatasync_mean_us"]
        return cls(sync, max(1 / traits["synced_write_mb_per_s"] - sync / WRITE_BYTES, 0))


@dataclass(frozen=True)
class Costs:
    """What a datagram costs: processor time of each stage, and bytes in the journal."""

    ingest: float
    write: float
    # Of all threads, the load program's too where it runs on the same cores.
    all: float
    # Of the load program, which is one thread.
    load: float
    bytes: float

    @classmethod
    def of(cls, load, figures, traits):
        """As measured under a load, on a machine with these traits."""
        ingest, journaled = figures["ingest_ns"] / 1e3, figures["journal_bytes"] / figures["acked"]
        if not is_large(load, journaled):
            # The thread syncs, too, which counts as the disk's.
            ingest -= traits["fdatasync_busy_us"] * figures["commits"] / figures["acked"]
        everything = sum(figures[f"{stage}_ns"] for stage in STAGES) / 1e3
        return cls(ingest, figures["write_ns"] / 1e3, everything, figures["load_ns"] / 1e3, journaled)


@dataclass(frozen=True)
class Expected:
    per_s: float
    p50: float
    # What it is that bounds the rate.
    bound: str
    # Of a commit.
    datagrams: float
    # One that the threads write and sync beside the building of the next.
    large: bool


def is_large(load, journaled):
    """Whether the commits of a load are large ones, which are written and synced beside the building of the next: half of what is in
    flight, of so many bytes each in the journal, is in one."""
    return load["clients"] * load["window"] / 2 * journaled >= LAUNCH_BYTES


def expected(load, costs, disk, cores):
    """Of a load: `clients` and `window`, and `rate` of an open loop."""
    flight = load["clients"] * load["window"]
    others = {
        "cores": 1e6 * cores * USED / costs.all,
        "load program": 1e6 / costs.load,
        "rate": load.get("rate", float("inf")),
    }
    if flight == 1:
        turn = costs.load + costs.ingest + disk.sync + disk.byte * costs.bytes
        return Expected(1e6 / turn, turn, "sync", 1, False)
    large = is_large(load, costs.bytes)
    if large and "rate" in load:
        # What comes while a sync takes its time.
        large = load["rate"] / 1e6 * disk.sync * costs.bytes >= LAUNCH_BYTES
    if large:
        datagrams = min(flight / 3, COMMIT_BYTES_MAX / costs.bytes)
        stages = {
            "disk": disk.sync + datagrams * costs.bytes * disk.byte,
            "ingest": datagrams * costs.ingest,
            "write": datagrams * costs.write,
        }
        bound, turn = max(stages.items(), key=lambda stage: stage[1])
    else:
        datagrams = flight / 2
        turn, bound = disk.sync + datagrams * (costs.ingest + costs.bytes * disk.byte), "sync"
    per_s = datagrams / turn * 1e6
    if per_s <= min(others.values()):
        return Expected(per_s, flight / per_s * 1e6, bound, datagrams, large)
    bound, per_s = min(others.items(), key=lambda other: other[1])
    if large and bound != "rate":
        # All that is in flight waits, here or there.
        return Expected(per_s, flight / per_s * 1e6, bound, datagrams, large)
    # Fewer come than would be taken: a commit holds what has come during the one before it.
    share = costs.bytes * disk.byte + (0 if large else costs.ingest)
    turn = disk.sync / (1 - per_s / 1e6 * share)
    # It waits for half a turn until its commit is closed, and then for that; a large one for the one before it, too.
    waits = 2.5 if large else 1.5
    return Expected(per_s, waits * turn, bound, max(per_s / 1e6 * turn, 1), large)


def full_commits(costs, disk):
    """Datagrams a second that a disk takes in commits as large as they become."""
    return COMMIT_BYTES_MAX / costs.bytes / (disk.sync + COMMIT_BYTES_MAX * disk.byte) * 1e6


def compared(found):
    """Each load on each machine of capacity.json: what was expected by the costs on the machine as it is, and what was measured."""
    disks = {delay: median([disk for disk in found["disks"] if disk["delay_ms"] == delay]) for delay in found["delays_ms"]}
    for case, of in found["cases"].items():
        costs = None
        for delay, traits in disks.items():
            measured = median([run for run in found["runs"] if (run["case"], run["delay_ms"]) == (case, delay)])
            costs = costs or Costs.of(of["load"], measured, traits)
            # What others take of the cores is not to be had.
            cores = found["machine"]["cores"] - measured["other_cores"]
            yield case, delay, costs, expected(of["load"], costs, Disk.of(traits), cores), measured


def median(many):
    """Of each figure."""
    return {key: statistics.median(one[key] for one in many) for key in many[0] if isinstance(many[0][key], (int, float))}
