#!/usr/bin/env python3
"""The figures of README.md's table: each client sends records of 100 bytes to the server on this machine, plain and sealed,
and is timed from its start to its end, when all are acked. The median of three runs. DURAGRAM names the server's program.

    scripts/clients --measure
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "python"))

from tests.support import Server, binary  # noqa: E402

ROUNDS = 3


class Command:
    """A client: how many records it sends in a few seconds, and what starts it."""

    def __init__(self, name: str, records: int, words: list[str], sealed: bool = False) -> None:
        self.name, self.records, self.words, self.sealed = name, records, words, sealed


def commands(directory: str) -> list[Command]:
    rust = [binary(), "send", "--server", "{}"]
    python = [sys.executable, "-m", "duragram", "send", "--server", "{}"]
    key = ["--key-file", f"{directory}/client"]
    found = [
        Command("Rust `duragram send`", 400_000, rust),
        Command("Rust `duragram send`, sealed", 400_000, [*rust, *key], sealed=True),
        Command("Rust `duragram send --batch`", 1_000_000, [*rust, "--batch"]),
        Command("Python `python -m duragram send`", 100_000, python),
        Command("Python, sealed", 100_000, [*python, *key], sealed=True),
        Command("Python `--batch`", 200_000, [*python, "--batch"]),
    ]
    if shutil.which("cc"):
        sources = [str(HERE / "c" / "examples" / "posix.c"), str(HERE / "c" / "duragram.c")]
        subprocess.run(["cc", "-std=c99", "-O2", "-o", f"{directory}/c", *sources], check=True)
        found.append(Command("C `examples/posix.c`, 64 in flight", 200_000, ["sh", "-c", f"exec {directory}/c ${{0##*:}}", "{}"]))
    if shutil.which("node"):
        found.append(Command("Node.js `send.js`, one in flight", 5_000, ["node", str(HERE / "node" / "send.js"), "{}"]))
    return found


def measure(command: Command, server: Server) -> float:
    words = [word.replace("{}", server.address) for word in command.words]
    with tempfile.TemporaryFile() as records:
        records.write(b"".join(b"%0100d\n" % n for n in range(command.records)))
        records.seek(0)
        began = time.monotonic()
        subprocess.run(words, stdin=records, check=True, capture_output=True, env={"PYTHONPATH": str(HERE / "python"), "PATH": "/usr/bin:/bin"})
        return command.records / (time.monotonic() - began)


def lines(*patterns: str) -> int:
    """Lines of source that are not blank, tests left out."""
    files = [file for pattern in patterns for file in HERE.glob(pattern) if "test" not in str(file.relative_to(HERE))]
    return sum(bool(line.strip()) for file in files for line in file.read_text().splitlines())


def sizes() -> None:
    minimal = (HERE / "PROTOCOL.md").read_text().split('<a id="minimal-client"></a>')[1].split("```")[1]
    print(f"Rust client machine, codec, seal: {lines('rust/src/**/*.rs'):,} lines")
    print(f"Python: {lines('python/duragram/*.py'):,} lines")
    print(f"C: {lines('c/duragram.[ch]'):,} lines; its bytes by processor: scripts/test-c")
    print(f"Node.js: {lines('node/send.js'):,} lines; the minimal client: {len(minimal.split(chr(10))) - 1:,} lines")


def main() -> None:
    sizes()
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([binary(), "keys", "new", "--fleet", f"{directory}/fleet"], check=True, capture_output=True)
        derive = [binary(), "keys", "derive", f"{directory}/fleet", "--client", "0xc5", f"{directory}/client"]
        subprocess.run(derive, check=True, capture_output=True)
        servers = {False: Server(), True: Server("--keys", f"{directory}/fleet")}
        try:
            for command in commands(directory):
                rates = [measure(command, servers[command.sealed]) for _ in range(ROUNDS)]
                print(f"{command.name}: {statistics.median(rates):,.0f} records/s ({command.records:,} of 100 bytes)", flush=True)
        finally:
            for server in servers.values():
                server.remove()


if __name__ == "__main__":
    main()
