"""The kit passes servers that answer and clients that ask where they are right, and fails those that are not:
`python3 -m unittest conformance.test_answers`."""

from __future__ import annotations

import shutil
import sys
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Optional

from tests.support import Server, binary

from . import answering, answering_sabotaged, asking, minimal
from .__main__ import DOUBTS, client, doubted
from .answering_sabotaged import ModelServer
from .asks import Asks
from .run import Verdict
from .test_kit import PROTO_SPEC, Subject, c_client, key_for_a_client

HANDLER = Path(__file__).resolve().parent / "handler.py"
#: Each scenario mostly waits.
JOBS = 12


def failed(verdicts: list[Verdict]) -> list[Verdict]:
    return [verdict for verdict in verdicts if verdict.fulfilled is False]


def checked(asks: Optional[Asks]) -> list[Verdict]:
    """What the kit says of the model server with these asks."""
    subject = ModelServer(asks)
    try:
        return answering.check(subject.address)
    finally:
        subject.close()


class Servers(unittest.TestCase):
    def test_the_model_keeps_every_rule(self) -> None:
        verdicts = checked(Asks())
        self.assertEqual(failed(verdicts), [])
        self.assertEqual({verdict.anchor for verdict in verdicts if verdict.fulfilled}, set(answering.ANCHORS))

    def test_a_server_without_the_extension_is_conformant_as_one_that_has_none(self) -> None:
        verdicts = checked(None)
        self.assertEqual({verdict.anchor: verdict.fulfilled for verdict in verdicts}, {"ask": True, **dict.fromkeys(answering.ANCHORS[1:])})

    def test_every_sabotage_of_a_rule_is_noticed(self) -> None:
        with ThreadPoolExecutor(8) as pool:
            found = dict(zip(answering_sabotaged.SABOTAGES, pool.map(lambda broken: failed(checked(broken())), answering_sabotaged.SABOTAGES)))
        for broken, anchor in answering_sabotaged.SABOTAGES.items():
            with self.subTest(broken.__name__):
                self.assertIn(anchor, {verdict.anchor for verdict in found[broken]}, found[broken])

    def test_the_real_server_keeps_every_rule(self) -> None:
        subject = Server(sink=f"exec:exec {sys.executable} {HANDLER}")
        self.addCleanup(subject.remove)
        verdicts = answering.check(subject.address)
        self.assertEqual(failed(verdicts), [])
        self.assertEqual({verdict.anchor for verdict in verdicts if verdict.fulfilled}, set(answering.ANCHORS))


class Clients(unittest.TestCase):
    def test_the_asking_clients_are_conformant(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            key_file = key_for_a_client(directory)
            python, rust = (f"{send} send --ask --server {{}}" for send in (f"{sys.executable} -m duragram", binary()))
            seals = "^Ask(Clean|LongBody|Lost|Stale|Pending)$"
            subjects = {
                "minimal": Subject(minimal.command(directory, asks=True)),
                "C": Subject(f"{c_client(directory, asks=True)} --ask {{}}"),
                "Python": Subject(python),
                "Python, its own epoch": Subject(f"sh -c 'exec {python} --epoch $(date +%s)'", "^Ask(Clean|Stale|LateGone|Liar)$"),
                "Python, sealed": Subject(f"{python} --key-file {key_file}", seals, key_file),
                "Rust": Subject(rust),
                "Rust, its own epoch": Subject(f"sh -c 'exec {rust} --epoch $(date +%s)'", "^Ask(Clean|Stale|LateGone|Liar)$"),
                "Rust, sealed": Subject(f"{rust} --key-file {key_file}", seals, key_file),
            }

            if shutil.which("node"):
                subjects["Node.js"] = Subject(f"node {PROTO_SPEC}/node/send.js --ask {{}}")

            def run(one: Subject) -> list[Verdict]:
                verdicts = client(one.command, one.only, JOBS, one.key_file, quiet=True, asks=True)
                return doubted(verdicts, one.command, one.key_file, quiet=True, asks=True)

            with ThreadPoolExecutor(len(subjects)) as pool:
                found = dict(zip(subjects, pool.map(run, subjects.values())))
        for name, verdicts in found.items():
            with self.subTest(name):
                self.assertEqual(failed(verdicts), [])
                if not subjects[name].only:
                    seen = {verdict.anchor for verdict in verdicts if verdict.fulfilled}
                    self.assertEqual(set(asking.ANCHORS) - seen, set())

    def test_every_sabotage_of_an_asking_client_is_noticed(self) -> None:
        with tempfile.TemporaryDirectory() as directory:

            def run(name: str) -> list[Verdict]:
                sabotage = minimal.SABOTAGES[name]
                command = minimal.command(directory, asks=True, sabotage=name)
                return failed(client(command, f"^({sabotage.scenario})$", 1, quiet=True, patience=12.0, asks=True))

            with ThreadPoolExecutor(JOBS) as pool:
                found = dict(zip(minimal.SABOTAGES, pool.map(run, minimal.SABOTAGES)))
            for name, sabotage in minimal.SABOTAGES.items():
                for _ in range(DOUBTS):
                    if not any(verdict.anchor == sabotage.anchor for verdict in found[name]):
                        found[name] = run(name)
        for name, wrong in found.items():
            with self.subTest(name):
                self.assertIn(minimal.SABOTAGES[name].anchor, {verdict.anchor for verdict in wrong}, wrong)
