"""The client that PROTOCOL.md#minimal-client shows, as commands; and the asking one with one duty broken, each of which the kit
must notice."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

PROTOCOL = Path(__file__).resolve().parents[1] / "PROTOCOL.md"

SENDS = """
import os, sys
host, port = os.environ["DURAGRAM_SERVER"].split(":")
client, refused = Client(host, int(port), random.getrandbits(64)), 0
for line in sys.stdin.buffer:
    try:
        client.send(line.rstrip(b"\\n"))
    except Refused:
        refused += 1
sys.exit(refused > 0)
"""

ASKS = """
import base64, json, os, sys
AT_ONCE, NAMES = 4, {DONE: "DONE", FAILED: "FAILED", GONE: "GONE"}
host, port = os.environ["DURAGRAM_SERVER"].split(":")
client, bad, lines = Client(host, int(port), random.getrandbits(64)), 0, {}

def take_all():
    while client.waiting:
        asked = client.waiting[-1]  # the newest first: the others are not to be forgotten
        status, body = client.take(asked)
        said = {"line": lines[asked], "status": NAMES.get(status, "?"), "body_base64": base64.b64encode(body).decode()}
        print(json.dumps(said), flush=True)
        global bad
        bad += status != DONE

for number, line in enumerate(sys.stdin.buffer, 1):
    try:
        lines[client.ask(line.rstrip(b"\\n"))] = number
    except Refused:
        bad += 1
    if len(client.waiting) >= AT_ONCE:
        take_all()
take_all()
sys.exit(bad > 0)
"""


class Sabotage(NamedTuple):
    #: What is replaced by what, in the client or in its command.
    edits: list[tuple[str, str]]
    #: Which scenario is to notice it, and under which anchor.
    scenario: str
    anchor: str


def edit(before: str, after: str, scenario: str, anchor: str) -> Sabotage:
    return Sabotage([(before, after)], scenario, anchor)


SABOTAGES = {
    "never-takes": edit("        epoch, seq = asked\n", "        self.waiting.remove(asked)\n        return DONE, b''\n", "AskClean", "duty-c2"),
    "takes-before-the-ack": edit(
        "                self.sent += 1\n",
        "                self.sent += 1\n                if options: self.transmit(TAKE, 0, self.epoch, self.seq, 20_000, span=self.seq - 1)\n",
        "AskClean", "duty-c2",
    ),
    "forgets-what-waits": edit("span=seq - lowest)", "span=0)", "AskClean", "duty-c2"),
    "hands-out-twice": edit("        print(json", "        for _ in range(2): print(json", "AskClean", "duty-c3"),
    "asks-for-too-many": Sabotage([("len(self.kept) >= 64", "False"), ("AT_ONCE, NAMES = 4,", "AT_ONCE, NAMES = 90,")], "AskMany", "duty-c1"),
    "takes-any-answer": edit("lambda *of: of == (ANSWER, epoch, seq)", "lambda kind, *_: kind == ANSWER", "AskLiar", "duty-ignore"),
    "takes-malformed-answers": edit("if kind == ANSWER:\n", "if kind == ANSWER:\n        return False\n", "AskLiar", "duty-ignore"),
    "takes-without-a-pause": edit("time.sleep(min(max(number / 1000, 1), 60) * random.uniform(1, 1.25))", "pass", "AskPending", "duty-c4"),
    "believes-an-unknown-status": edit("elif status in (DONE, FAILED, GONE):", "elif status != PENDING:", "AskUnknownStatus", "duty-c3"),
    "makes-no-room": edit("room = number  # it did not fit", "pass", "AskLongBody", "ask"),
    "does-without-the-body": edit("status in (DONE, FAILED) and len(body) < number <= 65507 - 32", "False", "AskLongBody", "duty-c3"),
    "names-the-next-seq": edit("lowest + 65535, span=65535", "lowest", "AskLateGone", "duty-c3"),
    "says-once-what-was-had": edit("                if options and self.asked and self.asked[0] == self.epoch:\n", "                if False:\n", "AskFull", "duty-c1"),
    "takes-once": edit("                tries += 1\n                continue\n            status", "                self.waiting.remove(asked)\n                return GONE, b''\n            status", "AskLost", "duty-c4"),
    "takes-again-too-soon": edit("self.receive(held_ms / 1000 + backoff(tries)", "self.receive(backoff(tries) / 4", "AskLost", "duty-c4"),
    "repeats-without-ask": edit("channel | options << 16", "channel | (0 if self.sent else options << 16)", "AskLost", "datagrams"),
    "leaves-the-old-epoch": edit(
        "self.begin(epoch=0, credit=0)  # the message", "self.waiting = []; self.begin(epoch=0, credit=0)  # the message", "AskStale", "duty-c6"
    ),
    "takes-in-the-new-epoch": edit("self.transmit(TAKE, 0, epoch, seq, held_ms", "self.transmit(TAKE, 0, self.epoch, seq, held_ms", "AskStale", "duty-c6"),
    "sends-again-what-is-refused": edit("            elif small in FINAL:\n                self.skipped", "            elif small in FINAL and not options:\n                self.skipped", "AskRefused", "ask"),
}  # fmt: skip


def code() -> str:
    text = PROTOCOL.read_text()
    return text.split('<a id="minimal-client"></a>')[1].split("```python\n")[1].split("```")[0]


def command(directory: str, asks: bool = False, sabotage: str = "") -> str:
    """Writes the program; how to run it."""
    text = code() + (ASKS if asks else SENDS)
    for before, after in SABOTAGES[sabotage].edits if sabotage else []:
        assert text.count(before) == 1, f"not found once: {before}"
        text = text.replace(before, after)
    path = Path(directory, f"minimal{'-asks' * asks}{sabotage and '-' + sabotage}.py")
    path.write_text(text)
    return f"{sys.executable} {path}"
