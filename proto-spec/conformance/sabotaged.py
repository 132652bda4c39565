"""The Python client with one duty broken: `python3 -m conformance.sabotaged NAME send ...`. The kit must notice each."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import NamedTuple, Optional, Sequence


class Sabotage(NamedTuple):
    module: str
    before: str
    after: str
    #: Which scenario is to notice it, or which over all their runs, and under which anchor.
    scenario: str
    anchor: str
    #: How the client is run besides.
    options: str = ""


SABOTAGES = {
    "believes-any-ack": Sabotage(
        "machine", "if highest >= self._queue.next_seq:", "if False:", "Liar", "duty-ignore"
    ),
    "believes-any-reject": Sabotage(
        "machine", "if message is None and not (reject.refused == 0 and self._pinged):", "if False:", "Liar", "duty-ignore"
    ),
    "takes-any-welcome": Sabotage(
        "machine", "if self._hello is None or welcome.nonce != self._hello or", "if self._hello is None or", "HelloLost", "duty-ignore"
    ),
    "another-nonce-each-time": Sabotage(
        "machine", "due, self._hello_due = self._hello_due, False",
        "due, self._hello_due, self._hello = self._hello_due, False, self._random.getrandbits(64)", "HelloLost", "duty-epoch",
    ),
    "no-checksum": Sabotage("wire", 'raise DecodeError("checksum")', "pass", "Liar", "duty-ignore"),
    "never-skips": Sabotage("machine", "flags |= wire.SKIP", "pass", "Refused8", "duty-skip"),
    "no-backoff": Sabotage("path", "2.0 ** min(tries, 64)", "1", "Silence", "duty-expiry"),
    "repeats-all-in-silence": Sabotage(
        "machine", "self.congestion.collapse(self._next_transmission, self.rtt.window_short)\n", "pass\n", "Silence", "duty-expiry"
    ),
    "ignores-the-credit": Sabotage(
        "machine", "return self._credit is not None and seq - self._queue.base >= self._credit", "return False", "LittleCredit", "duty-window"
    ),
    "takes-late-credit": Sabotage("machine", "if floor >= self._floor or (", "if True or (", "LateAcks", "duty-window"),
    "hundred-at-first": Sabotage("message", "congestion_window_initial: int = 10", "congestion_window_initial: int = 100", "FirstFlight", "duty-congestion"),
    "no-wait-for-busy": Sabotage("machine", "self.paused_until, self.pause_code = now + wait, reject.code", "pass", "Wait6", "duty-reject"),
    "resumes-with-all": Sabotage("machine", "self.congestion.resume()", "pass", "Wait6", "duty-reject"),
    "no-loss-by-overtaking": Sabotage("machine", "queue.overtake(max(arrived - REORDERING_MAX, answered - 1))", "pass", "Hole", "duty-loss"),
    "attempt-stays-0": Sabotage("queue", "message.attempt += 1", "pass", "Silence", "duty-seq"),
    "span-is-0": Sabotage("machine", "seq - queue.base, self.epoch", "0, self.epoch", "FirstFlight", "duty-seq"),
    "resends-the-refused": Sabotage("machine", "is not None and reject.code in FINAL:\n            message", "is not None and False:\n            message", "Refused8", "duty-reject"),
    "stays-in-a-stale-epoch": Sabotage(
        "machine", "not self._fruitful\n            self._leave_epoch()", "not self._fruitful", "Stale", "duty-epoch"
    ),
    "skips-always": Sabotage("machine", "if queue.skipped > self._floor:", "if True:", "Clean", "duty-skip"),
    "epoch-1-in-each-run": Sabotage(
        "send", "client_id=client_id,\n                epoch=args.epoch,", "client_id=0xC7,\n                epoch=1,", "Restart|PingStorm", "duty-epoch"
    ),
    "timeout-of-a-millisecond": Sabotage("message", "rto_min: float = 0.01", "rto_min: float = 0.001", "ShortTimeout", "duty-retransmission"),
    "samples-what-was-sent-twice": Sabotage("machine", "if newest.attempt == 0 and not ack.duplicate:", "if True:", "Karn", "duty-retransmission"),
    "never-halves": Sabotage("path", "self.window, self._acked = min(self.window, self.threshold), 0", "pass", "Halving", "duty-congestion"),
    "each-answer-draws-a-ping": Sabotage(
        "machine", "still_blocked = was_blocked and self._is_blocked_by_credit()",
        "still_blocked, self._ping_due = False, was_blocked and self._is_blocked_by_credit()", "PingStorm", "duty-probe",
    ),
    "waits-for-each-of-a-burst": Sabotage("machine", "oldest.sent_at + rto <= now:", "False:", "BurstLoss", "duty-loss"),
    "waits-for-each-of-a-flight": Sabotage(
        "machine", "max(arrived - REORDERING_MAX, answered - 1)", "arrived - REORDERING_MAX", "LostFlight", "duty-loss"
    ),
    "believes-a-used-epoch": Sabotage("arrivals", "self.doubted = doubted", "self.doubted = False", "UsedEpoch", "epoch-used", "--epoch 5"),
    "believes-a-first-duplicate": Sabotage("arrivals", "return ack.duplicate and", "return False and", "UsedEpochOnce", "epoch-used", "--epoch 5"),
    "gives-up-for-forged-acks": Sabotage(
        "arrivals", "self.doubted and self.is_sealed", "self.doubted", "Liar", "duty-ignore", "--epoch 5"
    ),
    # By its own timeout it would end as if it had been told to.
    "lets-a-refused-ping-pass": Sabotage(
        "machine", "elif reject.code in FINAL:\n            self._queue.end_all", "elif False:\n            self._queue.end_all",
        "PingRefused", "duty-reject", "--timeout 60s",
    ),
    # Of a sealed client.
    "repeats-a-counter": Sabotage("seal", "self._counter += 1", "self._counter += self._counter % 2", "Clean", "sealed-counter"),
    "counts-hello-apart": Sabotage("seal", "_seal(f, self._hello, long) if kind", "_seal(f, self._hello, 5) if kind", "HelloLost", "sealed-client"),
    "verifies-no-tag": Sabotage("seal", "cipher.decrypt(nonce, bytes_[-TAG:], bytes_[:-TAG])", "pass", "LiarSealed", "duty-ignore"),
}  # fmt: skip


class Finder(importlib.abc.MetaPathFinder):
    """Finds the broken module in the place of the right one."""

    def __init__(self, sabotage: Sabotage) -> None:
        self.name, self.sabotage = f"duragram.{sabotage.module}", sabotage

    def find_spec(
        self, fullname: str, path: Optional[Sequence[str]], target: Optional[ModuleType] = None
    ) -> Optional[ModuleSpec]:
        if fullname != self.name:
            return None
        right = importlib.machinery.PathFinder.find_spec(fullname, path)
        assert right is not None and right.origin is not None
        loader = Loader(fullname, right.origin)
        loader.sabotage = self.sabotage
        return importlib.util.spec_from_file_location(fullname, right.origin, loader=loader)


class Loader(importlib.machinery.SourceFileLoader):
    sabotage: Sabotage

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path).decode()
        assert source.count(self.sabotage.before) == 1, f"not found once: {self.sabotage.before}"
        code: CodeType = compile(source.replace(self.sabotage.before, self.sabotage.after), self.path, "exec")
        return code


if __name__ == "__main__":
    assert not any(name.startswith("duragram") for name in sys.modules)
    sys.meta_path.insert(0, Finder(SABOTAGES[sys.argv[1]]))
    from duragram.send import main

    sys.exit(main(sys.argv[2:]))
