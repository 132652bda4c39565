"""The golden datagrams, plain and sealed (PROTOCOL.md#conformance)."""

from __future__ import annotations

import json
import unittest
from typing import Any

from duragram import seal, wire
from duragram.wire import DecodeError

from .support import VECTORS


def described(datagram: wire.Datagram) -> dict[str, Any]:
    """A datagram as the vectors describe it."""
    fields: dict[str, Any] = {"type": type(datagram).__name__.upper()}
    for name, value in datagram._asdict().items():
        if name == "client":
            value = f"{value:016x}"
        elif isinstance(value, bytes):
            value = value.hex()
        elif name in ("seq", "floor", "refused", "nonce"):
            value = str(value)
        fields[name] = value
    return fields


class PlainVectors(unittest.TestCase):
    vectors = json.loads((VECTORS / "datagrams.json").read_text())["datagrams"]

    def test_every_golden_datagram_decodes_as_described(self) -> None:
        self.assertGreater(len(self.vectors), 100)
        for vector in self.vectors:
            with self.subTest(vector["name"]):
                bytes_ = bytes.fromhex(vector["hex"])
                if "error" in vector:
                    with self.assertRaises(DecodeError) as raised:
                        wire.decode(bytes_)
                    self.assertEqual(raised.exception.reason, vector["error"])
                    continue
                datagram = wire.decode(bytes_)
                self.assertEqual(described(datagram), vector["datagram"])
                if vector.get("canonical", True):
                    self.assertEqual(wire.encode(datagram).hex(), vector["hex"])
                if "records" in vector:
                    assert isinstance(datagram, wire.Data)
                    self.assertEqual([r.hex() for r in wire.records(datagram.payload) or []], vector["records"])
                    self.assertEqual(wire.batch([bytes.fromhex(r) for r in vector["records"]]), datagram.payload)

    def test_a_version_refusal_counts_whatever_its_version(self) -> None:
        refusals = [vector for vector in self.vectors if "version_refusal" in vector]
        self.assertTrue(refusals)
        for vector in refusals:
            refusal = wire.decode_reply(bytes.fromhex(vector["hex"]))
            assert isinstance(refusal, wire.Reject)
            expected = vector["version_refusal"]
            got = {"client": f"{refusal.client:016x}", "epoch": refusal.epoch, "refused": str(refusal.refused)}
            self.assertEqual(got, expected)
            self.assertEqual(refusal.code, wire.REJECT_VERSION)


class SealedVectors(unittest.TestCase):
    document = json.loads((VECTORS / "sealed.json").read_text())

    def test_keys_are_derived_as_in_the_vectors(self) -> None:
        for vector in self.document["client_keys"]:
            key = seal.client_key(bytes.fromhex(vector["fleet"]), int(vector["client"], 16))
            self.assertEqual(key.hex(), vector["key"])
        for vector in self.document["session_keys"]:
            keys = seal.session_keys(bytes.fromhex(vector["key"]), int(vector["client"], 16), vector["epoch"])
            self.assertEqual([key.hex() for key in keys], [vector["to_server"], vector["to_client"]])

    def test_every_golden_datagram_opens_and_seals_as_described(self) -> None:
        self.assertGreater(len(self.document["datagrams"]), 50)
        for vector in self.document["datagrams"]:
            with self.subTest(vector["name"]):
                bytes_ = bytes.fromhex(vector["hex"])
                if "error" in vector:
                    with self.assertRaises(DecodeError) as raised:
                        client = seal.peek(bytes_).fields.client
                        seal.unseal(bytes_, seal.Keys(bytes.fromhex(vector["key"]), client, vector["keys_epoch"]))
                    self.assertEqual(raised.exception.reason, vector["error"])
                    continue
                head = seal.peek(bytes_)
                self.assertEqual((head.keys_epoch, str(head.counter)), (vector["keys_epoch"], vector["counter"]))
                keys = seal.Keys(bytes.fromhex(vector["key"]), head.fields.client, head.keys_epoch)
                datagram = seal.unseal(bytes_, keys)
                self.assertEqual(described(datagram), vector["datagram"])
                self.assertEqual(seal.seal(datagram, keys, head.counter).hex(), vector["hex"])
