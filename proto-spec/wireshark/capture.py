#!/usr/bin/env python3
"""Makes the captures that the dissector is tested with.

    python3 capture.py traffic.pcap     # real traffic: the server, the Python client, a path that loses and repeats
    python3 capture.py vectors.pcap     # the golden datagrams, plain and sealed
    python3 capture.py answers.pcap     # the golden datagrams of one ask, as a client and a server exchange them

Real traffic differs at each run; the committed capture and its golden output belong together. Nothing is captured from
an interface, which would need privileges: the proxy between client and server writes what it sees on the client's side.
"""

from __future__ import annotations

import json
import struct
import sys
import time
from pathlib import Path
from socket import AF_INET, SOCK_DGRAM, socket
from typing import Callable

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "python"))

from duragram import Client, Incomplete, wire  # noqa: E402
from tests.support import Proxy, Server  # noqa: E402

CLIENT_PORT, SERVER_PORT = 40000, 7117
REPLIES = (wire.ACK, wire.REJECT, wire.WELCOME, wire.ANSWER)
LINKTYPE_RAW = 101


class Pcap:
    """A capture file of UDP over IPv4."""

    def __init__(self, path: str) -> None:
        self.at = 1_790_000_000.0
        self.file = open(path, "wb")
        self.file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, LINKTYPE_RAW))

    def write(self, at: float, to_server: bool, payload: bytes) -> None:
        client, server = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])
        source, target = (client, server) if to_server else (server, client)
        ports = (CLIENT_PORT, SERVER_PORT) if to_server else (SERVER_PORT, CLIENT_PORT)
        udp = struct.pack(">HHHH", *ports, 8 + len(payload), 0) + payload
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + source + target
        total = sum(struct.unpack(">10H", ip))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        ip = ip[:10] + struct.pack(">H", total ^ 0xFFFF) + ip[12:]
        packet = ip + udp
        self.file.write(struct.pack("<IIII", int(at), int(at % 1 * 1e6), len(packet), len(packet)) + packet)


class Tap(Proxy):
    """A proxy that writes what the client's side of it sees: what is lost on the way to the server too."""

    def __init__(self, server: str, pcap: Pcap, **path: float) -> None:
        self.pcap = pcap
        super().__init__(server, **path)  # type: ignore[arg-type]

    def _pass(self, forward: Callable[[], object]) -> None:
        datagram, to_server = forward.args[0], len(forward.args) == 1  # type: ignore[attr-defined]
        if to_server:
            self.pcap.write(time.time(), True, datagram)
        super()._pass(forward)

    def _forward(self, forward: Callable[[], object]) -> None:
        if len(forward.args) == 2:  # type: ignore[attr-defined]
            self.pcap.write(time.time(), False, forward.args[0])  # type: ignore[attr-defined]
        super()._forward(forward)


def traffic(pcap: Pcap) -> None:
    server = Server("--channels", "0-9", "--window", "8")
    tap = Tap(server.address, pcap, loss=0.2, duplicates=0.2, reorder=0.3, seed=4)
    try:
        with Client(tap.address, client_id=0xA1, window=16) as client:
            for n in range(40):
                client.send(b"reading %d " % n + b"." * 60)
        with Client(tap.address, client_id=0xA2, batch=True, linger=0.2) as client:
            for n in range(30):
                client.send(b"small %d" % n)
        client = Client(tap.address, client_id=0xA3, epoch=9)
        client.send(b"on a channel that is not accepted", channel=10)
        client.flush()
        client.send(b"goes on after it")
        try:
            client.close()
        except Incomplete:
            pass
        with socket(AF_INET, SOCK_DGRAM) as asker:
            asker.settimeout(0.3)
            host, _, port = tap.address.rpartition(":")
            for _ in range(20):
                asker.sendto(wire.encode(wire.Ping(0xA3, 9)), (host, int(port)))
                try:
                    asker.recv(512)
                    break
                except TimeoutError:
                    continue
    finally:
        tap.close()
        server.remove()


def vectors(pcap: Pcap) -> None:
    at = 1_790_000_000.0
    for name in ("datagrams.json", "sealed.json"):
        for vector in json.loads((HERE.parent / "vectors" / name).read_text())["datagrams"]:
            payload = bytes.fromhex(vector["hex"])
            kind = payload[0] & 15 if payload else 0
            pcap.write(at, kind not in REPLIES, payload)
            at += 0.001
    # The path repeats a datagram.
    first = json.loads((HERE.parent / "vectors" / "datagrams.json").read_text())["datagrams"][0]
    pcap.write(at, True, bytes.fromhex(first["hex"]))


def answers(pcap: Pcap) -> None:
    golden = {v["name"]: bytes.fromhex(v["hex"]) for v in json.loads((HERE.parent / "vectors" / "datagrams.json").read_text())["datagrams"]}
    # Each after so many milliseconds: the first TAKE is lost and repeated, the server holds it, and the path repeats an ANSWER.
    for after, name in [
        (0, "example-ask"), (1, "example-ask-ack"), (0, "example-take"), (21_000, "example-take"), (740, "example-answer-no-room"),
        (0, "example-take-room"), (1, "example-answer"), (1, "example-answer"), (0, "example-take-had"), (1, "example-answer-gone"),
    ]:  # fmt: skip
        pcap.at += after / 1000
        pcap.write(pcap.at, golden[name][0] & 15 not in REPLIES, golden[name])


if __name__ == "__main__":
    path = sys.argv[1]
    pcap = Pcap(path)
    {"traffic.pcap": traffic, "vectors.pcap": vectors, "answers.pcap": answers}[Path(path).name](pcap)
    pcap.file.close()
