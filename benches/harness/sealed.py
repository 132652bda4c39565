"""What sealed mode costs: the same loads, sealed and plain, in turn."""

import subprocess

from . import measure, systems
from .compare import BULK, CASES, bulk
from .programs import say

SECONDS = 2.0
SHAPES = {
    "bulk": BULK.load,
    "1,200-byte payloads": bulk(size=1200),
    "1 client, window 1": next(case.load for case in CASES if case.key == "1x1"),
}


def sealed(options, programs, space, save):
    keys = space.path / "keys"
    subprocess.run([programs.duragram, "keys", "new", "--fleet", keys], check=True, stdout=subprocess.DEVNULL)
    system = systems.Duragram(programs)
    modes = {"plain": ((), {}), "sealed": (("--keys", keys), {"key-file": keys})}
    runs = {name: {mode: [] for mode in modes} for name in SHAPES}
    seconds = options.seconds or SECONDS
    for number in range(options.rounds):
        for name, shape in SHAPES.items():
            for mode in sorted(modes, reverse=bool(number % 2)):
                arguments, more = modes[mode]
                warm = {**BULK.load, **more}
                figures = measure.once(system, space, {**shape, **more}, seconds, warm, arguments)
                runs[name][mode].append(figures)
                say(f"{number + 1}: {name}, {mode}: {figures['acked_per_s']:,.0f}/s, p50 {figures['p50_us']:,.0f} us")
        medians = {name: {mode: measure.medians(many) for mode, many in of.items()} for name, of in runs.items()}
        save({"rounds": number + 1, "seconds": seconds, "medians": medians})
