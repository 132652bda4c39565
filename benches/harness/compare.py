"""The comparison: every system in every case, in turn, so that a machine that slows down slows all of them down."""

import time
from dataclasses import dataclass

from . import measure, systems
from .process import Failed
from .programs import say

# Starting, warming up, stopping and removing take about so long beyond the measured seconds; PostgreSQL, and what drains, somewhat longer.
OVERHEAD_SECONDS = measure.WARM_SECONDS + 0.6
SECONDS_MIN, SECONDS_MAX = 1.0, 10.0


@dataclass(frozen=True)
class Case:
    """What all systems are loaded with."""

    key: str
    title: str
    load: dict
    # Where little is sent the server has rested first: what it makes of the bulk load that warmed it is not the case.
    rest: float = measure.REST_SECONDS


def bulk(**other):
    return {"clients": 16, "window": 1024, "gso": 64, "size": 100, **other}


CASES = (
    Case("1x1", "1 client, window 1", {"clients": 1, "window": 1, "size": 100}, rest=1.0),
    Case("8x64", "8 clients × 64", {"clients": 8, "window": 64, "size": 100}),
    Case("512x1", "512 clients, window 1", {"clients": 512, "window": 1, "size": 100}),
    Case("bulk", "16 clients × 1,024, GSO 64", bulk()),
    Case("bulk1200", "the same, 1,200-byte payloads", bulk(size=1200)),
    Case("batch11", "the same, 11 records of 100 bytes a datagram", bulk(batch=11)),
    Case("batch20x50", "the same, 20 records of 50 bytes a datagram", bulk(batch=20, size=50)),
    Case("open100k", "open loop, 100,000/s from 100 clients", {"clients": 100, "window": 64, "size": 100, "rate": 1e5}, rest=1.0),
)
# Whether a system works at all.
TRIAL = {"clients": 2, "window": 16, "size": 100}
BULK = next(case for case in CASES if case.key == "bulk")


def run(options, programs, space, save):
    """Runs the rounds; calls `save` with all that is known after each."""
    chosen, missing = available(options, programs, space)
    cases = [case for case in CASES if case.key in options.cases]
    plan = [(case, system) for case in cases for system in chosen if system.takes(case)]
    if not plan:
        raise Failed("nothing is left to measure")
    budget = options.minutes * 60 - (time.monotonic() - options.begun)
    seconds = options.seconds or affordable(budget, len(plan) * options.rounds)
    say(f"{len(plan)} measurements of {seconds:.1f} s in {options.rounds} rounds")
    found = {
        "seconds": seconds,
        "warm_seconds": measure.WARM_SECONDS,
        "cases": {case.key: case.title for case in cases},
        "systems": {s.key: {"title": s.title, "version": s.version(), "note": s.note, "durable": s.durable} for s in chosen},
        "missing": missing,
        "runs": [],
    }
    longest = 0.0
    for number in range(1, options.rounds + 1):
        begin = time.monotonic()
        if begin + longest > options.begun + options.minutes * 60:
            say(f"{number - 1} rounds of {options.rounds}: another would exceed {options.minutes:g} minutes")
            break
        # Each round begins with another system, so that none is always the first after another case.
        for case, system in ordered(plan, number):
            found["runs"].append(one(case, system, space, seconds, number))
        longest = max(longest, time.monotonic() - begin)
        found["rounds"] = number
        found["medians"] = all_medians(found["runs"])
        save(found)
    return found


def smoke(options, programs, space):
    """Each system once, for a moment; fails unless all work."""
    missing = available(options, programs, space)[1]
    if missing:
        raise Failed("; ".join(f"{key}: {why}" for key, why in missing.items()))


def available(options, programs, space):
    """The systems that are chosen and work, and why others are missing: a server that does not start, or whose acks do not come, is
    named once rather than in each run."""
    chosen, missing = [], {}
    for system in (kind(programs) for kind in systems.ALL if kind.key in options.systems):
        why = system.missing() or does_not_work(system, space)
        if why:
            say(f"{system.title} is left out: {why}")
            missing[system.key] = why
        else:
            chosen.append(system)
    return chosen, missing


def does_not_work(system, space):
    try:
        figures = measure.once(system, space, TRIAL, 0.2, None)
        say(f"{system.title} {system.version() or ''} acks: {figures['acked']}")
    except (Failed, OSError) as problem:
        return str(problem)
    return None


def affordable(budget, runs):
    return min(max(budget * 0.9 / runs - OVERHEAD_SECONDS, SECONDS_MIN), SECONDS_MAX)


def ordered(plan, number):
    for key in dict.fromkeys(case.key for case, _ in plan):
        here = [entry for entry in plan if entry[0].key == key]
        turn = number % len(here)
        yield from here[turn:] + here[:turn]


def one(case, system, space, seconds, number):
    figures = {"case": case.key, "system": system.key, "round": number}
    shape = system.shape(case)
    try:
        figures |= measure.once(system, space, shape, seconds, system.shape(BULK), rest=case.rest)
        say(
            f"{number}: {case.key:>10}  {system.title:<16} {figures['acked_per_s']:>12,.0f}/s"
            f"  p50 {figures['p50_us']:>9,.0f} us  p99 {figures['p99_us']:>9,.0f} us"
        )
    except (Failed, OSError) as problem:
        say(f"{number}: {case.key:>10}  {system.title:<16} failed: {problem}")
        figures["failed"] = str(problem)
    return {**figures, "shape": shape}


def all_medians(runs):
    """Case to system to the medians of those runs that did not fail."""
    found = {}
    for key in dict.fromkeys((run["case"], run["system"]) for run in runs):
        good = [run for run in runs if (run["case"], run["system"]) == key and "failed" not in run]
        if good:
            found.setdefault(key[0], {})[key[1]] = measure.medians(good)
    return found
