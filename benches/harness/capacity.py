"""What a machine takes, worked out from what each stage costs and from the speed of its disk, and held against measurements.

More than one machine is wanted, and one is there. So the server also runs under the layer of tests/faults, which makes every sync so
much longer: to the server that is another disk. How fast that disk is, is measured under the same layer, as an operator measures
his own."""

import json
import os
import struct
import subprocess
import sys
import time
from dataclasses import replace

from . import measure, process, systems
from .compare import BULK, CASES, Case
from .programs import ROOT, say

SECONDS = 1.5
# Milliseconds that each sync takes longer.
DELAYS_MS = (0, 1, 5)
BY_KEY = {case.key: case for case in CASES}
CASES = (
    *(BY_KEY[key] for key in ("1x1", "8x64", "512x1")),
    Case("8x64x1200", "8 clients × 64, 1,200-byte payloads", {"clients": 8, "window": 64, "size": 1200}),
    BY_KEY["bulk"],
    replace(BY_KEY["bulk1200"], title="16 clients × 1,024, GSO 64, 1,200-byte payloads"),
    BY_KEY["open100k"],
)
# A thread's name to the stage that it is; what is not here is the rest.
STAGES = {"ingest": "ingest", "write": "write", "sync": "sync", "sink-null": "lane"}

# Of tests/faults/preload.c: a rule, the calls that sync, and the action that lets a call wait.
RULE, CALL_SYNC, ACTION_DELAY, PAGE = "<IIQQiI88sQ", 2, 6, 4096


def capacity(options, programs, space, save):
    seconds = options.seconds or SECONDS
    layers = {delay: layer(space, delay) for delay in DELAYS_MS}
    cases = {case.key: {"title": case.title, "load": case.load} for case in CASES}
    runs, disks = [], []
    for number in range(1, options.rounds + 1):
        for delay, under in layers.items():
            disks.append({"delay_ms": delay, **disk(space, under)})
            system = Slowed(programs, under)
            for case in CASES:
                figures = once(system, space, case, seconds)
                runs.append({"case": case.key, "delay_ms": delay, "round": number, **figures})
                say(f"{number}: + {delay} ms  {case.key:>10}  {figures['acked_per_s']:>12,.0f}/s  p50 {figures['p50_us']:>9,.0f} us")
            # A round that is cut short is kept too.
            save({"rounds": number, "seconds": seconds, "delays_ms": DELAYS_MS, "cases": cases, "disks": disks, "runs": runs})


class Slowed(systems.Duragram):
    """Duragram, each of whose syncs takes longer."""

    def __init__(self, programs, under):
        super().__init__(programs)
        self.under = under

    def start(self, directory, arguments=()):
        argv = [*self.under, self.programs.duragram, "serve", "--data", directory / "data", "--listen", "127.0.0.1:0"]
        argv += ["--admin", "127.0.0.1:0", "--sink", "null", *arguments]
        return systems.start_ready(argv, directory / "server.log", r"udp=(\S+) admin=(\S+)\n")


def layer(space, delay_ms):
    """What stands before a command so that each sync below the space takes longer; nothing, where it takes no longer."""
    if not delay_ms:
        return []
    library, control = space.path / "layer.so", space.path / f"delay-{delay_ms}"
    if not library.exists():
        source = ROOT / "tests/faults/preload.c"
        subprocess.run(["cc", "-O1", "-fPIC", "-shared", "-o", library, source], check=True, stdout=sys.stderr)
    rule = struct.pack(RULE, CALL_SYNC, ACTION_DELAY, 1, 2**63, 0, delay_ms, b"", 0)
    control.write_bytes(rule.ljust(PAGE, b"\0"))
    return ["env", f"LD_PRELOAD={library}", f"FAULTS_ROOT={space.path}", f"FAULTS_CONTROL={control}"]


def disk(space, under):
    """What the machine's line says of the disk, measured by a process under the layer."""
    argv = [*under, sys.executable, "-B", ROOT / "benches/harness/machine.py", space.path]
    return json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)


def once(system, space, case, seconds):
    os.sync()
    with measure.serving(system, space) as (server, directory):
        systems.load(system, server, BULK.load, measure.WARM_SECONDS, directory, check=False)
        time.sleep(case.rest)
        before = process.thread_seconds(server.pid)
        figures = measure.watched(system, server, case.load, seconds, directory)
        after = process.thread_seconds(server.pid)
    acked = figures["acked"]
    figures |= {f"{stage}_ns": 0.0 for stage in (*STAGES.values(), "rest")}
    for name, spent in after.items():
        figures[f"{STAGES.get(name, 'rest')}_ns"] += (spent - before.get(name, 0.0)) * 1e9 / acked
    # The load program's time is for as long as it has run, beyond the seconds that it counts.
    figures["load_ns"] = figures["load_cores"] * figures["watched_s"] * 1e9 / acked
    return figures
