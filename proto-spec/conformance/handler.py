"""The handler with which a server's answers are checked: `duragram serve --sink 'exec:exec python3 handler.py'`. It does what
`asks.handled` says of each record, and needs nothing but this file."""

from __future__ import annotations

import json
import sys
import threading
from typing import Any


LOCK = threading.Lock()


def say(record: dict[str, Any], **outcome: Any) -> None:
    with LOCK:
        print(json.dumps({"offset": record["offset"], "index": record["index"], **outcome}), flush=True)


def main() -> None:
    retried = set()
    for line in sys.stdin:
        record = json.loads(line)
        text = record.get("payload") or ""
        words = text.split(" ")
        if words[0] == "wait":
            threading.Timer(float(words[1]), say, (record,), {"done": True, "answer": "did " + text}).start()
        elif words[0] == "retry" and (record["offset"], record["index"]) not in retried:
            retried.add((record["offset"], record["index"]))
            say(record, retry="it was asked to come again")
        elif words[0] == "fail":
            say(record, give_up="it was asked to fail")
        elif words[0] == "quiet":
            say(record, done=True)
        else:
            say(record, done=True, answer=("did " + text)[:1004])


if __name__ == "__main__":
    main()
