"""`scripts/conformance ADDR|COMMAND`"""

from __future__ import annotations

import argparse
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Optional

from duragram.wire import Hello

from . import answering, asking, pace, paths, real, refusals, server
from .run import CLIENT_ANCHORS, Scenario, Verdict

SCENARIOS = paths.SCENARIOS + pace.SCENARIOS + refusals.SCENARIOS
MARK = {True: "ok", False: "FAILED", None: "not seen"}


#: How often a scenario that failed is run again, by itself.
DOUBTS = 2


def client(
    command: str, only: str, jobs: int, key_file: Optional[str] = None, quiet: bool = False, patience: float = 60.0, asks: bool = False,
) -> list[Verdict]:
    """A client command against every scenario whose name matches, several at a time: they mostly wait. None takes longer than
    `patience`."""
    classes = [one for one in (asking.SCENARIOS if asks else SCENARIOS) if re.search(only, one.__name__, re.I)]
    scenarios = [one(command, key_file) for one in classes if (one.plain_too if key_file is None else one.sealed_too)]

    def run(scenario: Scenario) -> list[Verdict]:
        scenario.patience = min(scenario.patience, patience)
        began = time.monotonic()
        verdicts = scenario.run()
        failed = any(verdict.fulfilled is False for verdict in verdicts)
        told = f"{'FAILED' if failed else 'ok':7}{time.monotonic() - began:6.1f} s  {type(scenario).__name__}: {scenario.about}"
        if not quiet:
            print(told, file=sys.stderr, flush=True)
            if failed and scenario.stderr:
                print("".join(f"{'':9}its stderr: {line}\n" for line in scenario.stderr.splitlines()[-3:]), end="", file=sys.stderr, flush=True)
        return verdicts

    with ThreadPoolExecutor(jobs) as pool:
        verdicts = [verdict for verdicts in pool.map(run, scenarios) for verdict in verdicts]
    firsts = [next((seen.datagram for seen in scenario.trace if isinstance(seen.datagram, Hello)), None) for scenario in scenarios]
    nonces = [hello.nonce for hello in firsts if hello is not None]
    if len(nonces) > 1:
        verdicts.append(Verdict("duty-epoch", len(set(nonces)) == len(nonces), "each run has another nonce"))
    verdicts += epochs_of(scenarios)
    return verdicts


def epochs_of(scenarios: list[Scenario]) -> list[Verdict]:
    """Over all runs: a client that chooses its epochs takes none twice. Who takes the Unix time may do so in runs that begin
    within a second, which is why those are not compared."""
    begun: dict[tuple[int, int], list[float]] = {}
    for scenario in scenarios:
        if not scenario.came(Hello) and scenario.data:
            first = scenario.data[0]
            begun.setdefault((first.client, first.epoch), []).append(scenario.began)
    if sum(map(len, begun.values())) < 2:
        return []
    twice = [epoch for (_, epoch), at in begun.items() if max(at) - min(at) > 1.0]
    said = f"takes no epoch for two runs {twice[:1] or ''}"
    return [Verdict("duty-epoch", not twice, said.rstrip(), "all runs")]


def doubted(verdicts: list[Verdict], command: str, key_file: Optional[str] = None, quiet: bool = False, asks: bool = False) -> list[Verdict]:
    """The same, where each scenario that failed has been run again with nothing beside it.

    A client that got no processor for a moment looks like one that did not listen; one that is wrong is so each time."""
    for _ in range(DOUBTS):
        names = {verdict.scenario for verdict in verdicts if verdict.fulfilled is False} & {one.__name__ for one in SCENARIOS + asking.SCENARIOS}
        if not names:
            break
        if not quiet:
            print(f"again, one at a time: {', '.join(sorted(names))}", file=sys.stderr, flush=True)
        later = client(command, f"^({'|'.join(map(re.escape, names))})$", 1, key_file, quiet, asks=asks)
        verdicts = [verdict for verdict in verdicts if verdict.scenario not in names] + later
    return verdicts


def report(verdicts: list[Verdict], anchors: tuple[str, ...]) -> tuple[list[str], bool]:
    """Prints what each section asks, and whether it was seen to be fulfilled. Gives the sections that were not seen, and whether
    none failed."""
    complete, unseen = True, []
    for anchor in anchors:
        of = [verdict for verdict in verdicts if verdict.anchor == anchor]
        failed = [verdict for verdict in of if verdict.fulfilled is False]
        seen = [verdict for verdict in of if verdict.fulfilled]
        complete &= not failed
        if not of or not failed and not seen:
            unseen.append(anchor)
        state = MARK[False if failed else True if seen else None]
        # In parts, since tests/docs/citations.rs takes what it finds whole for a citation.
        print(f"{state:9}PROTOCOL.md" + "#" + anchor)
        told = set()
        for verdict in failed or seen or of:
            text = re.sub(r"\s*\(.*\)$", "", verdict.what) if verdict.fulfilled else f"{verdict.scenario}: {verdict.what}"
            if text not in told:
                print(f"           {text}")
            told.add(text)
    return unseen, complete


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/conformance", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "subject",
        metavar="ADDR|COMMAND",
        help="HOST:PORT of a server, or a client's command line. The command gets the address in place of {} and in\n"
        "DURAGRAM_SERVER, sends each line of stdin as a record, and exits with 0 only if all are acked.",
    )
    parser.add_argument("--only", default="", metavar="PATTERN", help="scenarios whose name matches")
    parser.add_argument("--jobs", type=int, default=6, help="scenarios at a time [6]")
    parser.add_argument("--key-file", metavar="FILE", help="the fake server speaks sealed mode alone, with the keys of this file")
    parser.add_argument("--ask", action="store_true", help="the command asks with each line, and writes what it hears to stdout (README.md)")
    parser.add_argument("--server", action="store_true", help="run the command against the real server instead ($DURAGRAM, or as cargo built it), through a\n"
                        "path that loses, repeats and reorders, and through its kills and restarts, and compare what its sink holds")  # fmt: skip
    parser.add_argument("--lines", type=int, help=f"with --server: how many; {real.LINES_FEW} do for a client that sends one at a time and does\nnot measure the path [{real.LINES}; with --ask {real.LINES_ASKED}]")
    parser.add_argument("--rounds", type=int, default=3, help="with --server: how often [3]")
    args = parser.parse_args()
    if re.fullmatch(r"\S+:\d+", args.subject):
        verdicts = server.check(args.subject) + answering.check(args.subject)
        unseen, complete = report(verdicts, server.ANCHORS + answering.ANCHORS)
    elif args.server:
        try:
            verdicts = real.check(args.subject, args.rounds, args.lines, args.ask)
        except RuntimeError as error:
            parser.error(str(error))
        unseen, complete = report(verdicts, ("duty-ask" if args.ask else "duty-retransmission",))
    else:
        verdicts = client(args.subject, args.only, args.jobs, args.key_file, asks=args.ask)
        verdicts = doubted(verdicts, args.subject, args.key_file, asks=args.ask)
        unseen, complete = report(verdicts, asking.ANCHORS if args.ask else CLIENT_ANCHORS)
    if not complete:
        print("\nnot conformant")
    elif unseen:
        print(f"\nconformant in what was seen; not seen: {', '.join(unseen)}")
    else:
        print("\nconformant, as far as this can tell")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
