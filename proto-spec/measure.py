#!/usr/bin/env python3
"""Measures README.md's table of figures and writes it there: each client sends records of 100 bytes to the server on this machine,
plain and sealed, and is timed from its start to its end, when all are acked. The median of three runs. DURAGRAM names the server's
program.

    scripts/clients --measure
"""

from __future__ import annotations

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


#: The columns of the table.
CLIENTS = ("Rust", "C", "Python", "Node.js", "minimal client of the text")
BEGIN, END = "<!-- measured:", "<!-- end of what is measured -->"


class Command:
    """A client: its cell in the table, how many records it sends in a few seconds, and what starts it."""

    def __init__(self, client: str, row: str, records: int, words: list[str], sealed: bool = False) -> None:
        self.client, self.row, self.records, self.words, self.sealed = client, row, records, words, sealed


PLAIN, SEALED, BATCHES = "records of 100 bytes a second, plain", "the same, sealed", "the same, plain, in batches"


def minimal_code() -> str:
    return (HERE / "PROTOCOL.md").read_text().split('<a id="minimal-client"></a>')[1].split("```python\n")[1].split("```")[0]


def commands(directory: str) -> list[Command]:
    rust = [binary(), "send", "--server", "{}"]
    python = [sys.executable, "-m", "duragram", "send", "--server", "{}"]
    key = ["--key-file", f"{directory}/client"]
    loop = """
import sys
client = Client("127.0.0.1", int(sys.argv[1].rpartition(":")[2]), random.getrandbits(64))
for line in sys.stdin.buffer:
    client.send(line.rstrip(b"\\n"))
"""
    Path(directory, "minimal.py").write_text(minimal_code() + loop)
    sources = [str(HERE / "c" / "examples" / "posix.c"), str(HERE / "c" / "duragram.c")]
    subprocess.run(["cc", "-std=c99", "-O2", "-o", f"{directory}/c", *sources], check=True)
    return [
        Command("Rust", PLAIN, 400_000, rust),
        Command("C", PLAIN, 200_000, [f"{directory}/c", "{}"]),
        Command("Python", PLAIN, 100_000, python),
        Command("Node.js", PLAIN, 5_000, ["node", str(HERE / "node" / "send.js"), "{}"]),
        Command("minimal client of the text", PLAIN, 5_000, [sys.executable, f"{directory}/minimal.py", "{}"]),
        Command("Rust", SEALED, 400_000, [*rust, *key], sealed=True),
        Command("Python", SEALED, 100_000, [*python, *key], sealed=True),
        Command("Rust", BATCHES, 1_000_000, [*rust, "--batch"]),
        Command("Python", BATCHES, 200_000, [*python, "--batch"]),
    ]


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


def sizes() -> dict[str, str]:
    return {
        "Rust": f"{lines('rust/src/**/*.rs'):,} with the server's half",
        "C": f"{lines('c/duragram.[ch]'):,}",
        "Python": f"{lines('python/duragram/*.py'):,}",
        "Node.js": f"{lines('node/*.js'):,}",
        "minimal client of the text": f"{sum(bool(line.strip()) for line in minimal_code().splitlines()):,}",
    }


def row(name: str, cells: dict[str, str]) -> str:
    return "| " + " | ".join([name, *(cells.get(client, "") for client in CLIENTS)]) + " |"


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([binary(), "keys", "new", "--fleet", f"{directory}/fleet"], check=True, capture_output=True)
        derive = [binary(), "keys", "derive", f"{directory}/fleet", "--client", "0xc5", f"{directory}/client"]
        subprocess.run(derive, check=True, capture_output=True)
        servers = {False: Server(), True: Server("--keys", f"{directory}/fleet")}
        rates: dict[str, dict[str, str]] = {}
        try:
            for command in commands(directory):
                median = statistics.median(measure(command, servers[command.sealed]) for _ in range(ROUNDS))
                rates.setdefault(command.row, {})[command.client] = f"{median:,.0f}"
                print(f"{command.client}: {median:,.0f} {command.row} ({command.records:,} sent)", flush=True)
        finally:
            for server in servers.values():
                server.remove()
    table = [row("", {client: client for client in CLIENTS}), "|---" * (len(CLIENTS) + 1) + "|"]
    table.append(row("lines of code (not blank, without tests)", sizes()))
    table += [row(name, cells) for name, cells in rates.items()]
    readme = HERE / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    marker, after = rest.split("\n", 1)[0], rest.split(END)[1]
    readme.write_text(before + BEGIN + marker + "\n\n" + "\n".join(table) + "\n\n" + END + after)


if __name__ == "__main__":
    main()
