"""How long a client takes to make good a burst of losses: seconds for a file of lines through a path that loses a share of
some datagrams in a row. Any client that sends the lines of its standard input can be measured."""

import json
import shlex
import statistics
import subprocess
import threading
import time

from . import process, systems
from .programs import say

LINES, LINE_BYTES = 40_000, 100
WINDOW = 4_096
# Where the burst begins: the window is wide open by then.
AFTER = 12_000
LENGTHS = (64, 700, 3_500, 4_096)
SHARES = (5, 30, 60, 100)
# A client that is not done by then is not waited for.
SECONDS_MAX = 40


def cases():
    yield 0, 0, "first"
    for length in LENGTHS:
        for share in SHARES:
            yield length, share, "first"
    # All answers to more than is in flight would be an outage without end: nothing new is sent that would count.
    for length, share in ((64, 60), (64, 100), (4_096, 60)):
        yield length, share, "answers"
    # What is sent again is lost too: a stretch of losses longer than what is in flight.
    yield 3_500, 60, "all"
    yield 6_000, 30, "all"


def burst(options, programs, space, save):
    clients = {"send": [str(programs.duragram), "send", "--server", "{server}", "--window", str(WINDOW)]}
    for given in options.client or []:
        name, _, command = given.partition("=")
        clients[name] = shlex.split(command)
    text = b"".join(b"%0*d\n" % (LINE_BYTES, n) for n in range(options.lines))
    lines = space.path / "lines"
    lines.write_bytes(text)
    found = {name: [] for name in clients}
    for length, share, what in cases():
        for name, command in clients.items():
            runs = [once(programs, space, command, lines, length, share, what, seed) for seed in range(1, options.rounds + 1)]
            seconds = [run["seconds"] for run in runs if run["seconds"] is not None]
            median = round(statistics.median(seconds), 3) if len(seconds) * 2 > len(runs) else None
            found[name].append({"length": length, "share": share, "what": what, "median_s": median, "runs": runs})
            told = "not done" if median is None else f"{median:.3f} s"
            say(f"{name}: {share} % of {length} {what}: {told}")
    save({"rounds": options.rounds, "lines": options.lines, "line_bytes": LINE_BYTES, "window": WINDOW, "after": AFTER, "clients": found})


def once(programs, space, command, lines, length, share, what, seed):
    """Seconds that the client takes, `None` when it was not done; what the path saw."""
    directory = space.fresh()
    server = systems.Duragram(programs).start(directory)
    with open(directory / "client.log", "ab") as log:
        path = subprocess.Popen(
            [str(programs.burst_path), server.address, str(AFTER), str(length), str(share), what, str(seed)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        try:
            address = path.stdout.readline().split()[1]
            argv = [word.replace("{server}", address) for word in command]
            began, seconds = time.monotonic(), None
            with open(lines, "rb") as stdin:
                client = subprocess.Popen(argv, stdin=stdin, stdout=log, stderr=log)
            # Waiting with a timeout looks only every 50 ms.
            patience = threading.Timer(SECONDS_MAX, client.kill)
            patience.start()
            try:
                if client.wait() == 0:
                    seconds = round(time.monotonic() - began, 3)
            finally:
                patience.cancel()
                process.stop(client)
            told, _ = path.communicate()
            return {"seconds": seconds, **json.loads(told)}
        finally:
            process.stop(path)
            server.stop()
