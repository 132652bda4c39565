#!/usr/bin/env python3
"""A device that asks with each reading, and hears what came of it, also after it was ended in between: what waits is in a file.

    python3 examples/asking.py 127.0.0.1:7117 waiting.json reading ...

Start it again without readings to hear of those that were not answered before.
"""

import json
import os
import sys

from duragram import Client, Gone, Status

DEVICE = 0xD0E5
#: A device that sleeps for hours has no time to wait: it takes the answer when it wakes the next time.
PATIENCE = float(os.environ.get("PATIENCE", "10"))


def stored(path: str) -> list[tuple[int, int]]:
    """What the runs before have asked, and had no answer."""
    try:
        with open(path) as file:
            return [(epoch, seq) for epoch, seq in json.load(file)]
    except FileNotFoundError:
        return []


def store(path: str, waiting: list[tuple[int, int]]) -> None:
    with open(f"{path}.new", "w") as file:
        json.dump(waiting, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.new", path)


def main(server: str, path: str, readings: list[str]) -> None:
    with Client(server, client_id=DEVICE, waiting=stored(path)) as client:
        for reading in readings:
            client.ask(reading.encode(), wait=0).receipt.result()
            # Before anything else: a run that is ended here leaves it for the next one.
            store(path, client.waiting())
        for epoch, seq in client.waiting():
            try:
                answer = client.take(epoch, seq, wait=PATIENCE)
                if answer.status is Status.PENDING:
                    print(f"message {seq} of epoch {epoch}: not yet")
                else:
                    print(f"message {seq} of epoch {epoch}: {answer.status.name} {answer.body!r}")
            except Gone as gone:
                print(gone)
            store(path, client.waiting())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
