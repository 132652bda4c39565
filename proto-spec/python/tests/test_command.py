"""`python -m duragram send`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .support import PACKAGE, Proxy, Server, program
from .test_server import WithServer


class Command(WithServer):
    def test_every_line_is_a_record(self) -> None:
        done = program("send", "--server", self.server.address, "--client", "0xa1", "--json", input=b"one\n\ntwo\nthree")
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        report = json.loads(done.stdout)
        self.assertEqual((report["client"], report["records"], report["acked"]), ("00000000000000a1", 4, 4))
        self.assert_journaled_once(["", "one", "three", "two"])

    def test_a_file_through_a_bad_path_in_batches(self) -> None:
        lines = [f"line {n}" for n in range(20_000)]
        with tempfile.NamedTemporaryFile() as file:
            file.write("\n".join(lines).encode())
            file.flush()
            done = program("send", "--server", self.proxy(loss=0.1).address, "--batch", file.name)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertIn(b"20000 records", done.stdout)
        self.assertIn(b"all acked", done.stdout)
        self.assert_journaled_once(lines)

    def test_what_is_not_done_is_told_by_the_exit_code(self) -> None:
        done = program("send", "--server", self.server.address, input=b"a\n" + b"b" * 1169 + b"\nc\n")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"line 2: a record of 1169 bytes", done.stderr)
        self.server.kill()
        done = program("send", "--server", self.server.address, "--timeout", "100ms", input=b"a\n")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"gave up", done.stderr)
        for usage in (["--server", "nowhere"], ["--client", "many"], ["--window", "0"], ["/no/such/file"]):
            self.assertEqual(program("send", *usage, input=b"").returncode, 2, usage)

    def started(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
        command = [sys.executable, "-m", "duragram", *arguments]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def test_ctrl_c_ends_it_without_a_traceback_and_says_what_was_not_acked(self) -> None:
        self.server.stop()
        self.addCleanup(self.server.start)
        # Its input is a pipe that stays open, as a terminal would.
        process = self.started("send", "--server", self.server.address, stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(b"one\ntwo\n")
        process.stdin.flush()
        reads = Path(f"/proc/{process.pid}/fdinfo/0")
        deadline = time.monotonic() + 20
        while self.threads(process.pid) < 3 or not reads.exists():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        self.assertEqual(process.returncode, -signal.SIGINT, err)
        self.assertNotIn(b"Traceback", err)
        self.assertIn(b"interrupted", err)
        self.assertIn(b"2 records were not acked", err)
        self.assertIn(b"2 records", out)

    def threads(self, pid: int) -> int:
        return len(list(Path(f"/proc/{pid}/task").iterdir()))

    def test_ctrl_c_at_any_moment_shows_no_traceback(self) -> None:
        self.server.stop()
        self.addCleanup(self.server.start)
        for n in range(8):
            process = self.started("send", "--server", self.server.address, stdin=subprocess.PIPE)
            # The interpreter takes the signal when it starts, and gives it back when the command begins to load.
            deadline = time.monotonic() + 20
            while not self.catches(process.pid):
                self.assertLess(time.monotonic(), deadline)
            # On a busy machine it may have loaded between two looks: then it has the signal in hand for good.
            deadline = time.monotonic() + 3
            while self.catches(process.pid) and time.monotonic() < deadline:
                pass
            time.sleep(0.02 * n)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
            self.assertNotIn(b"Traceback", err)
            self.assertEqual(process.returncode, -signal.SIGINT)

    def catches(self, pid: int) -> bool:
        """Whether a process handles SIGINT now."""
        mask = Path(f"/proc/{pid}/status").read_text().split("SigCgt:")[1].split()[0]
        return bool(int(mask, 16) & 1 << (signal.SIGINT - 1))

    def test_a_report_that_nobody_takes_changes_nothing_of_the_exit_code(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
        command = [sys.executable, "-m", "duragram", "send", "--server", self.server.address]
        reader, writer = os.pipe()
        os.close(reader)
        for out in (os.open("/dev/full", os.O_WRONLY), writer):
            done = subprocess.run(command, env=environment, input=b"one\n", stdout=out, stderr=subprocess.PIPE, timeout=20)
            os.close(out)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertNotIn(b"Exception", done.stderr)
            self.assertIn(b"the report could not be written", done.stderr)

    def test_a_standard_stream_that_is_closed_is_an_error_or_no_matter(self) -> None:
        command = f"{sys.executable} -m duragram send --server {self.server.address}"
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
        for redirect, code in (("<&-", 2), ("2>&-", 0), (">&- 2>&-", 0), (">&-", 0)):
            with self.subTest(redirect):
                done = subprocess.run(["sh", "-c", f"{command} {redirect}"], env=environment, input=b"x\n", capture_output=True, timeout=20)
                self.assertEqual(done.returncode, code, done.stderr)
                self.assertNotIn(b"Traceback", done.stderr)

    def test_an_empty_variable_is_as_if_it_were_not_set(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE), "DURAGRAM_SERVER": "", "DURAGRAM_KEY_FILE": ""}
        command = [sys.executable, "-m", "duragram", "send", "--server", self.server.address]
        self.assertEqual(subprocess.run(command, env=environment, input=b"x\n", capture_output=True, timeout=20).returncode, 0)

    def test_a_name_that_cannot_be_found_is_waited_for_as_long_as_was_asked(self) -> None:
        began = time.monotonic()
        done = program("send", "--server", "no-such-host.invalid:7117", "--timeout", "1500ms", input=b"a\n")
        self.assertEqual(done.returncode, 1)
        self.assertGreater(time.monotonic() - began, 1.4)
        self.assertIn(b"cannot reach no-such-host.invalid", done.stderr)

    def test_the_last_refusal_is_named(self) -> None:
        self.server.remove()
        self.server = Server("--reserve-bytes", str(2**50))
        self.addCleanup(self.server.remove)
        done = program("send", "--server", self.server.address, "--timeout", "2s", input=b"a\n")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"STORAGE", done.stderr)
