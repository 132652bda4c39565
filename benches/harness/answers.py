"""Answers: what an ask adds to an ack, how soon a handler's answer comes, and how many answers a second there are."""

import statistics
import sys

from . import measure, systems
from .programs import say

ONE = {"clients": 1, "window": 1, "size": 100}
MANY = {"clients": 512, "window": 64, "size": 100}
SECONDS = 5
# A child that answers each line with its payload; what asks says so in its line.
ECHO = r"""
import json, sys
for line in sys.stdin.buffer:
    record = json.loads(line)
    said = {"offset": record["offset"], "index": record["index"], "done": True}
    for field, answer in (("payload", "answer"), ("payload_base64", "answer_base64")):
        if record.get("ask") and field in record:
            said[answer] = record[field]
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
"""


class Asked:
    """A system whose every message asks."""

    def load(self, server, shape, seconds):
        return [*super().load(server, shape, seconds), "--ask"]


class Exec(systems.Duragram):
    def start(self, directory, arguments=()):
        script = directory / "echo.py"
        script.write_text(ECHO)
        log = directory / "server.log"
        argv = [self.programs.duragram, "serve", "--data", directory / "data", "--listen", "127.0.0.1:0"]
        argv += ["--admin", "127.0.0.1:0", "--sink", f"exec:exec {sys.executable} {script}", *arguments]
        return systems.start_ready(argv, log, r"udp=(\S+) admin=(\S+)\n")


class AskedExec(Asked, Exec):
    pass


class Embedded(systems.Datagrams):
    def start(self, directory, arguments=()):
        argv = [self.programs.answering, directory / "data", *arguments]
        return systems.start_ready(argv, directory / "server.log", r"udp=(\S+) admin=(\S+)\n")


class AskedEmbedded(Asked, Embedded):
    pass


RUNS = (
    ("exec, plain", Exec, ONE),
    ("exec, asked", AskedExec, ONE),
    ("embedded, plain", Embedded, ONE),
    ("embedded, asked", AskedEmbedded, ONE),
    ("embedded, plain, 512 x 64", Embedded, MANY),
    ("embedded, asked, 512 x 64", AskedEmbedded, MANY),
)
FIGURES = ("p50_us", "p99_us", "acked_per_s", "answer_p50_us", "answer_p99_us", "answered_per_s", "server_rss_bytes")


def answers(options, programs, space, save):
    runs = {name: [] for name, *_ in RUNS}
    seconds = options.seconds or SECONDS
    for round_ in range(options.rounds):
        # In turn, so that what else the machine does meets all of them.
        for name, kind, shape in RUNS if round_ % 2 == 0 else reversed(RUNS):
            report = measure.once(kind(programs), space, shape, seconds, shape)
            runs[name].append(report)
            told = ", ".join(f"{key} {report[key]:,.0f}" for key in FIGURES if report.get(key) is not None)
            say(f"{name}: {told}")
    medians = {
        name: {key: statistics.median(run[key] for run in of) for key in FIGURES if of[0].get(key) is not None}
        for name, of in runs.items()
    }
    plain, asked = medians["exec, plain"], medians["exec, asked"]
    many = medians["embedded, asked, 512 x 64"]
    shares = {
        "ack_p50_asked_to_plain": round(asked["p50_us"] / plain["p50_us"], 3),
        "answer_p50_to_ack_p50": round(asked["answer_p50_us"] / asked["p50_us"], 3),
        "answers_per_s": round(many["answered_per_s"]),
    }
    for name, share in shares.items():
        say(f"{name}: {share}")
    save({"rounds": options.rounds, "seconds": seconds, "medians": medians, "shares": shares, "runs": runs})
