"""The kit passes what is right and fails what is not: `python3 -m unittest conformance.test_kit`."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.support import Server, binary

from . import server
from .__main__ import SCENARIOS, client, doubted
from .run import Verdict
from .sabotaged import SABOTAGES

PROTO_SPEC = Path(__file__).resolve().parents[1]
#: Each scenario mostly waits.
JOBS = 12


def failed(verdicts: list[Verdict]) -> list[Verdict]:
    return [verdict for verdict in verdicts if verdict.fulfilled is False]


def minimal_code() -> str:
    text = (PROTO_SPEC / "PROTOCOL.md").read_text()
    return text.split('<a id="minimal-client"></a>')[1].split("```python\n")[1].split("```")[0]


def minimal_client(directory: str) -> str:
    """The client that PROTOCOL.md#minimal-client shows, as a command."""
    command = """
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
    Path(directory, "minimal.py").write_text(minimal_code() + command)
    return f"{sys.executable} {directory}/minimal.py"


def c_client(directory: str) -> str:
    """The C client's example, which takes a port."""
    sources = [str(PROTO_SPEC / "c" / "examples" / "posix.c"), str(PROTO_SPEC / "c" / "duragram.c")]
    subprocess.run(["cc", "-std=c99", "-O1", "-o", f"{directory}/c", *sources], check=True)
    return f"sh -c 'exec {directory}/c ${{DURAGRAM_SERVER##*:}}'"


def key_for_a_client(directory: str) -> str:
    path = f"{directory}/client.key"
    subprocess.run([binary(), "keys", "new", "--client", "0xc5", path], check=True, capture_output=True)
    return path


class Kit(unittest.TestCase):
    def test_the_clients_are_conformant(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            python = f"{sys.executable} -m duragram send --server {{}}"
            key_file = key_for_a_client(directory)
            sealed = f"--key-file {key_file}"
            some = "Clean|Hello|Liar|Lossy|Refused8|Stale|Wait6"
            # Command, and the scenarios in which it differs from others.
            commands = {
                "Python": (python, ""),
                "Python, its own epoch": (f"{python} --epoch 5", "Clean|Stale|Hello|Wait6"),
                "Python, batches": (f"{python} --batch", "Small|Lossy|Refused8"),
                "Rust": (f"{binary()} send --server {{}}", ""),
                "the minimal client": (minimal_client(directory), ""),
                "C": (c_client(directory), ""),
                "Python, sealed": (f"{python} {sealed}", some),
                "Rust, sealed": (f"{binary()} send --server {{}} {sealed}", some),
            }
            if shutil.which("node"):
                commands["Node.js"] = (f"node {PROTO_SPEC}/node/send.js {{}}", "")
            # Processes: fake servers that wait for each other would be late, and clients rightly send again.
            with ProcessPoolExecutor(4) as pool:
                running = {
                    name: pool.submit(client, command, only, JOBS, key_file if "sealed" in name else None, quiet=True)
                    for name, (command, only) in commands.items()
                }
                found = {name: future.result() for name, future in running.items()}
            for name, (command, _) in commands.items():
                found[name] = failed(doubted(found[name], command, key_file if "sealed" in name else None, quiet=True))
        for name, wrong in found.items():
            with self.subTest(name):
                self.assertEqual(wrong, [])

    def test_the_server_is_conformant(self) -> None:
        subject = Server()
        self.addCleanup(subject.remove)
        self.assertEqual(failed(server.check(subject.address)), [])

    def test_every_sabotage_is_noticed(self) -> None:
        scenarios = {one.__name__: one for one in SCENARIOS}
        with tempfile.TemporaryDirectory() as directory:
            key_file = key_for_a_client(directory)

            def run(name: str) -> list[Verdict]:
                key = key_file if SABOTAGES[name].module == "seal" else None
                sealed = f"--key-file {key}" if key else ""
                command = f"{sys.executable} -m conformance.sabotaged {name} send --server {{}} --timeout 9s {sealed}"
                scenario = scenarios[SABOTAGES[name].scenario](command, key)
                scenario.patience = 12.0
                return failed(scenario.run())

            with ThreadPoolExecutor(JOBS) as pool:
                found = dict(zip(SABOTAGES, pool.map(run, SABOTAGES)))
            for name, sabotage in SABOTAGES.items():
                if not any(verdict.anchor == sabotage.anchor for verdict in found[name]):
                    found[name] = run(name)
        for name, wrong in found.items():
            with self.subTest(name):
                self.assertIn(SABOTAGES[name].anchor, {verdict.anchor for verdict in wrong}, wrong)


class Text(unittest.TestCase):
    def test_the_minimal_client_takes_no_datagram_that_the_vectors_call_bad(self) -> None:
        """And takes those that a client may get: its own short ones."""
        names: dict[str, Any] = {}
        exec(minimal_code(), names)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            subject = names["Client"](*peer.getsockname(), 0xA1)
            for vector in json.loads((PROTO_SPEC / "vectors" / "datagrams.json").read_text())["datagrams"]:
                good = vector.get("datagram", {})
                subject.client_id = int(good.get("client", "a1"), 16)
                peer.sendto(bytes.fromhex(vector["hex"]), subject.socket.getsockname())
                taken = subject.receive(0.05, lambda kind, epoch, long: kind in (names["ACK"], names["REJECT"], names["WELCOME"]))
                for_it = good.get("type") in ("ACK", "REJECT", "WELCOME") and len(vector["hex"]) == 64
                with self.subTest(vector["name"]):
                    self.assertEqual(taken is not None, for_it or "version_refusal" in vector)
            subject.socket.close()
