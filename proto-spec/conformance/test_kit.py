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
from typing import Any, NamedTuple, Optional

from tests.support import Server, binary

from . import minimal, server
from .__main__ import DOUBTS, client, doubted
from .run import CLIENT_ANCHORS, Verdict
from .sabotaged import SABOTAGES

PROTO_SPEC = Path(__file__).resolve().parents[1]
#: Each scenario mostly waits.
JOBS = 12


def failed(verdicts: list[Verdict]) -> list[Verdict]:
    return [verdict for verdict in verdicts if verdict.fulfilled is False]


def c_client(directory: str, sealed: bool = False, asks: bool = False) -> str:
    """The C client's example: the program's path."""
    c, program = PROTO_SPEC / "c", f"{directory}/c{'-sealed' * sealed}{'-asks' * asks}"
    sources = [str(c / "examples" / "posix.c"), str(c / "duragram.c")]
    if sealed:
        sources += ["-DDG_SEALED=1", "-I", str(c / "tests/monocypher"), str(c / "duragram_monocypher.c"), str(c / "tests/monocypher/monocypher.c")]
    # Room for all that a server keeps by default.
    options = ["-DDG_ANSWERS=1", "-DDG_ANSWER_MAX=1024"] if asks else []
    subprocess.run(["cc", "-std=c99", "-O1", "-o", program, *options, *sources], check=True)
    return program


class Subject(NamedTuple):
    """A client in one of its modes: its command, and the scenarios in which that mode may differ from others (all of them, if it
    is the client's first)."""

    command: str
    only: str = ""
    key_file: Optional[str] = None


def subjects(directory: str) -> dict[str, Subject]:
    key_file = key_for_a_client(directory)
    key = next(words[2] for line in Path(key_file).read_text().splitlines() if (words := line.split())[:1] == ["client"])
    found = {"the minimal client": Subject(minimal.command(directory))}
    # What is looked at in each mode: beginnings, epochs, what is believed, timers, losses.
    own_epoch = "^(Clean|FirstFlight|HelloLost|Hole|Karn|Liar|Lossy|Silence|Stale|StaleThrice|UsedEpoch|UsedEpochOnce|Wait6)$"
    batches = "^(Clean|Small|Lossy|Refused8|RefusedRun|Stale|Liar)$"
    batches_own_epoch = "^(Small|Lossy|Stale|UsedEpoch)$"
    seals = "^(Clean|Hello.*|Liar|LiarSealed|Lossy|NoCredit|Refused8|Stale|Wait6)$"
    seals_own_epoch = "^(Clean|Liar|LiarSealed|Lossy|Stale|StaleThrice|UsedEpoch|UsedEpochOnce)$"
    for name, send in (("Rust", f"{binary()} send"), ("Python", f"{sys.executable} -m duragram send")):
        sealed = f"{send} --server {{}} --key-file {key_file}"
        found |= {
            name: Subject(f"{send} --server {{}}"),
            f"{name}, its own epoch": Subject(f"{send} --server {{}} --epoch 5", own_epoch),
            f"{name}, batches": Subject(f"{send} --server {{}} --batch", batches),
            f"{name}, batches, its own epoch": Subject(f"{send} --server {{}} --batch --epoch 5", batches_own_epoch),
            f"{name}, sealed": Subject(sealed, seals, key_file),
            f"{name}, sealed, its own epoch": Subject(f"sh -c 'exec {sealed} --epoch $(date +%s)'", seals_own_epoch, key_file),
            f"{name}, sealed, batches": Subject(f"{sealed} --batch", "^(Small|Lossy)$", key_file),
        }
    plain, sealed = c_client(directory), f"env DG_KEY={key} {c_client(directory, sealed=True)}"
    found |= {
        "C": Subject(f"{plain} {{}}"),
        "C, its own epoch": Subject(f"sh -c 'exec {plain} {{}} 5 $$'", own_epoch),
        "C, sealed": Subject(f"{sealed} {{}} 0 c5", seals, key_file),
        "C, sealed, its own epoch": Subject(f"sh -c 'exec {sealed} {{}} $(date +%s) c5'", seals_own_epoch, key_file),
    }
    if shutil.which("node"):
        # It has neither epochs of its own nor a seal, and its command sends no batches.
        found["Node.js"] = Subject(f"node {PROTO_SPEC}/node/send.js {{}}")
    return found


def key_for_a_client(directory: str) -> str:
    path = f"{directory}/client.key"
    subprocess.run([binary(), "keys", "new", "--client", "0xc5", path], check=True, capture_output=True)
    return path


class Kit(unittest.TestCase):
    def test_the_clients_are_conformant(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            all_of_them = subjects(directory)
            # Processes: fake servers that wait for each other would be late, and clients rightly send again.
            with ProcessPoolExecutor(4) as pool:
                running = {name: pool.submit(client, one.command, one.only, JOBS, one.key_file, quiet=True) for name, one in all_of_them.items()}
                found = {name: future.result() for name, future in running.items()}
            for name, one in all_of_them.items():
                found[name] = doubted(found[name], one.command, one.key_file, quiet=True)
        for name, verdicts in found.items():
            with self.subTest(name):
                self.assertEqual(failed(verdicts), [])
        self.assert_seen(found)

    def assert_seen(self, found: dict[str, list[Verdict]]) -> None:
        """Each section is seen with some client; what is not seen of one in all its modes is said."""
        seen: dict[str, set[str]] = {}
        for name, verdicts in found.items():
            seen.setdefault(name.partition(",")[0], set()).update(verdict.anchor for verdict in verdicts if verdict.fulfilled)
        for name, anchors in seen.items():
            unseen = [anchor for anchor in CLIENT_ANCHORS if anchor not in anchors]
            print(f"conformance: {name}: not seen: {', '.join(unseen) or 'nothing'}", file=sys.stderr)
        self.assertEqual(set(CLIENT_ANCHORS) - set().union(*seen.values()), set())

    def test_the_server_is_conformant(self) -> None:
        subject = Server()
        self.addCleanup(subject.remove)
        self.assertEqual(failed(server.check(subject.address)), [])

    def test_every_sabotage_is_noticed(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            key_file = key_for_a_client(directory)

            def run(name: str) -> list[Verdict]:
                sabotage = SABOTAGES[name]
                key = key_file if sabotage.module == "seal" else None
                sealed = f"--key-file {key}" if key else ""
                command = f"{sys.executable} -m conformance.sabotaged {name} send --server {{}} --timeout 9s {sabotage.options} {sealed}"
                # One after the other, since whole runs are compared too.
                return failed(client(command, f"^({sabotage.scenario})$", 1, key, quiet=True, patience=12.0))

            with ThreadPoolExecutor(JOBS) as pool:
                found = dict(zip(SABOTAGES, pool.map(run, SABOTAGES)))
            for name, sabotage in SABOTAGES.items():
                # On a busy machine a timeout that is too short may be long enough.
                for _ in range(DOUBTS):
                    if not any(verdict.anchor == sabotage.anchor for verdict in found[name]):
                        found[name] = run(name)
        for name, wrong in found.items():
            with self.subTest(name):
                self.assertIn(SABOTAGES[name].anchor, {verdict.anchor for verdict in wrong}, wrong)


class Text(unittest.TestCase):
    def test_the_minimal_client_takes_no_datagram_that_the_vectors_call_bad(self) -> None:
        """And takes those that a client may get: its own short ones."""
        names: dict[str, Any] = {}
        exec(minimal.code(), names)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            subject = names["Client"](*peer.getsockname(), 0xA1)
            for vector in json.loads((PROTO_SPEC / "vectors" / "datagrams.json").read_text())["datagrams"]:
                good = vector.get("datagram", {})
                subject.client_id = int(good.get("client", "a1"), 16)
                peer.sendto(bytes.fromhex(vector["hex"]), subject.socket.getsockname())
                taken = subject.receive(0.05, lambda kind, epoch, long: kind in (names["ACK"], names["REJECT"], names["WELCOME"], names["ANSWER"]))
                for_it = good.get("type") == "ANSWER" or good.get("type") in ("ACK", "REJECT", "WELCOME") and len(vector["hex"]) == 64
                with self.subTest(vector["name"]):
                    self.assertEqual(taken is not None, for_it or "version_refusal" in vector)
            subject.socket.close()
