#!/usr/bin/env python3
"""The dissector's output for the committed captures is the committed one.

    python3 test_dissector.py            # compares
    python3 test_dissector.py --update   # writes: look at the difference before it is committed
"""

from __future__ import annotations

import subprocess
import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
FIELDS = [
    "frame.number", "_ws.col.Info", "duragram.retransmission", "duragram.duplicate", "duragram.first_in",
    "duragram.answered_in", "duragram.answers", "duragram.asked_in", "duragram.time", "duragram.missing", "_ws.expert.message",
]  # fmt: skip


def tshark(capture: str, *arguments: str) -> str:
    # Two passes: a request is shown with its answer, which comes later.
    command = ["tshark", "-2", "-X", f"lua_script:{HERE}/duragram.lua", "-r", str(HERE / capture), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    complaints = [line for line in done.stderr.splitlines() if "Running as user" not in line]
    if complaints:
        raise RuntimeError("\n".join(complaints))
    return done.stdout


def frames(capture: str) -> str:
    """One line a frame: what the capture's columns show, and the links between frames."""
    fields = [argument for field in FIELDS for argument in ("-e", field)]
    return "\t".join(FIELDS) + "\n" + tshark(capture, "-T", "fields", *fields)


def traffic() -> str:
    return frames("traffic.pcap")


def answers() -> str:
    return frames("answers.pcap")


def vectors() -> str:
    """Every field of every golden datagram, without the layers below."""
    lines = tshark("vectors.pcap", "-O", "duragram").splitlines()
    return "\n".join(line for line in lines if line.startswith((" ", "Duragram"))) + "\n"


GOLDEN = {"traffic.txt": traffic, "vectors.txt": vectors, "answers.txt": answers}


class Dissector(unittest.TestCase):
    maxDiff = None

    def test_traffic_is_shown_as_it_was(self) -> None:
        self.assertEqual(traffic(), (HERE / "traffic.txt").read_text())

    def test_an_ask_and_its_answer_are_shown_and_linked(self) -> None:
        self.assertEqual(answers(), (HERE / "answers.txt").read_text())

    def test_golden_datagrams_are_shown_as_they_were(self) -> None:
        self.assertEqual(vectors(), (HERE / "vectors.txt").read_text())

    def test_the_captures_have_the_golden_datagrams_of_today(self) -> None:
        for name in ("vectors.pcap", "answers.pcap"):
            made = HERE / name
            before = made.read_bytes()
            try:
                subprocess.run([sys.executable, str(HERE / "capture.py"), str(made)], check=True)
                self.assertEqual(made.read_bytes(), before, f"make it anew: capture.py {name}, then --update")
            finally:
                made.write_bytes(before)

    def count(self, capture: str, filter_: str) -> int:
        return len(tshark(capture, "-Y", filter_).splitlines())

    def test_filters_find_what_the_readme_says(self) -> None:
        for filter_ in (
            "duragram.retransmission",
            "duragram.type == 2 && duragram.missing",
            "duragram.time > 0.001",
            "duragram.flags.batch == 1 && duragram.records > 3",
            "duragram.code == 8",
            "duragram.flags.skip == 1",
            "duragram.type == 4",
            "duragram.type == 5 && duragram.answers",
            "duragram.type == 6 && duragram.answered_in",
        ):
            self.assertGreater(self.count("traffic.pcap", filter_), 0, filter_)
        for filter_ in (
            "duragram.options.ask == 1",
            "duragram.type == 8 && duragram.answered_in",
            "duragram.type == 8 && duragram.retransmission",
            "duragram.status == 0 && duragram.body contains 76:61:6c:76:65",
            "duragram.asked_in == 1",
            "duragram.expert.no_room",
            "duragram.expert.gone",
        ):
            self.assertGreater(self.count("answers.pcap", filter_), 0, filter_)
        self.assertEqual(self.count("answers.pcap", "duragram.crc.status == 0 || duragram.expert.malformed"), 0)
        self.assertEqual(self.count("traffic.pcap", "duragram.crc.status == 0 || duragram.expert.malformed"), 0)
        for filter_ in ("duragram.crc.status == 0", "duragram.expert.malformed", "duragram.ciphertext", "duragram.duplicate",
                        "duragram.flags.ready == 1", "duragram.expert.failed", "duragram.body.ciphertext", "duragram.room > 0"):  # fmt: skip
            self.assertGreater(self.count("vectors.pcap", filter_), 0, filter_)


if __name__ == "__main__":
    if "--update" in sys.argv:
        for name, made in GOLDEN.items():
            (HERE / name).write_text(made())
    else:
        unittest.main()
