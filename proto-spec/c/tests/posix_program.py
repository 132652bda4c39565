#!/usr/bin/env python3
"""examples/posix.c, the whole program, with the real server: posix_program.py POSIX POSIX_SEALED DURAGRAM [TEST...]

A test's name says what is right. What the server's sink holds is compared with what was given.
"""
import base64
import json
import os
import pathlib
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import zlib

POSIX, POSIX_SEALED, DURAGRAM = (os.path.abspath(path) for path in sys.argv[1:4])
PATIENCE_S = 30
PAYLOAD_MAX = 1200 - 32


def until(what, condition):
    deadline = time.monotonic() + PATIENCE_S
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {PATIENCE_S} s for {what}")
        time.sleep(0.01)
    return result


class Server:
    def __init__(self, test, listen="127.0.0.1:0", flags=()):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="posix-"))
        test.addCleanup(subprocess.run, ["rm", "-rf", str(self.home)], check=True)
        self.sink, self.flags = self.home / "out.ndjson", flags
        self.start(listen)
        test.addCleanup(self.kill)

    def start(self, listen):
        ready = self.home / "ready"
        with open(ready, "w") as out, open(self.home / "log", "a") as log:
            self.process = subprocess.Popen(
                [DURAGRAM, "serve", "--listen", listen, "--admin", "127.0.0.1:0", "--data", str(self.home / "data"), "--sink",
                 f"file:{self.sink}", *self.flags], stdout=out, stderr=log, env=clean())
        found = until("the server", lambda: re.search(r"ready udp=(\S+):(\d+) ", ready.read_text()))
        self.host, self.port = found.group(1), int(found.group(2))

    def kill(self):
        self.process.kill()
        self.process.wait()

    def payloads(self):
        lines = self.sink.read_bytes().splitlines() if self.sink.exists() else []
        records = [json.loads(line) for line in lines]
        return [base64.b64decode(r["payload_base64"]) if "payload_base64" in r else r["payload"].encode() for r in records]


def clean(**more):
    return {name: value for name, value in os.environ.items() if not name.startswith(("DURAGRAM", "DG_"))} | more


def start(*args, program=POSIX, **more):
    return subprocess.Popen([program, *map(str, args)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=clean(**more))


def run(given, *args, program=POSIX, **more):
    with start(*args, program=program, **more) as process:
        try:
            _, said = process.communicate(given, timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return process.returncode, said.decode()


class Lines(unittest.TestCase):
    def check(self, given, expected, status=0):
        server = Server(self)
        code, said = run(given, server.port)
        self.assertEqual(code, status, said)
        self.assertEqual(until("the sink", lambda: (got := server.payloads()) and len(got) >= len(expected) and got), expected)
        return said

    def test_every_byte_of_a_line_arrives(self):
        lines = [b"one", b"with \0 a NUL \0\0", b"\0", b"", b"not UTF-8: \xff\xfe", b"carriage return\r", b" blanks ", b"x" * PAYLOAD_MAX]
        self.check(b"".join(line + b"\n" for line in lines), lines)

    def test_what_has_no_newline_at_the_end_is_a_line_too(self):
        self.check(b"first\nlast", [b"first", b"last"])
        self.check(b"\0", [b"\0"])
        self.check(b"y" * PAYLOAD_MAX, [b"y" * PAYLOAD_MAX])

    def test_a_line_that_is_too_long_is_told_and_no_part_of_it_is_sent(self):
        for length in (PAYLOAD_MAX + 1, 1500, 4095, 4096, 4097, 1_000_000):
            said = self.check(b"before\n" + b"z" * length + b"\nafter\n", [b"before", b"after"], 1)
            self.assertIn(f"line 2 has {length} bytes", said)
        said = self.check(b"before\n" + b"z" * 5000, [b"before"], 1)
        self.assertIn("line 2 has 5000 bytes", said)

    def test_many_lines_arrive_in_pieces_of_any_size_each_once(self):
        lines = [b"line %d " % i + b"." * (i * 37 % 900) for i in range(600)]
        server = Server(self)
        with start(server.port) as process:
            text = b"".join(line + b"\n" for line in lines)
            for i in range(0, len(text), 777):
                process.stdin.write(text[i:i + 777])
                process.stdin.flush()
            process.stdin.close()
            self.assertEqual(process.wait(PATIENCE_S), 0)
        self.assertEqual(sorted(until("the sink", lambda: len(got := server.payloads()) >= 600 and got)), sorted(lines))

    def test_nothing_given_is_nothing_sent(self):
        server = Server(self)
        self.assertEqual(run(b"", server.port), (0, ""))


class Waiting(unittest.TestCase):
    def test_a_line_is_on_the_disk_while_the_next_is_waited_for(self):
        server = Server(self)
        with start(server.port) as process:
            process.stdin.write(b"line 0\npart of")
            process.stdin.flush()
            until("the line", lambda: server.payloads() == [b"line 0"])
            process.stdin.write(b" the next\n")
            process.stdin.flush()
            until("the rest", lambda: len(server.payloads()) == 2)
            process.stdin.close()
            self.assertEqual(process.wait(PATIENCE_S), 0)
        self.assertEqual(server.payloads(), [b"line 0", b"part of the next"])

    def test_it_sends_again_while_the_next_line_is_waited_for(self):
        server = Server(self)
        port = server.port
        server.kill()
        with start(port, 5) as process:
            process.stdin.write(b"to nobody yet\n")
            process.stdin.flush()
            time.sleep(0.3)  # The first transmission is lost; nothing that the program could tell.
            server.start(f"127.0.0.1:{port}")
            until("the line", lambda: server.payloads() == [b"to nobody yet"])
            self.assertIsNone(process.poll())
            process.stdin.close()
            self.assertEqual(process.wait(PATIENCE_S), 0)


class Window(unittest.TestCase):
    def test_all_lines_arrive_whatever_the_window(self):
        lines = [b"line %d " % i + b"." * (i % 200) for i in range(12000)]
        for window in (1, 2, 64, 4096, 65535):
            count = 12000 if window > 2 else 200
            server = Server(self)
            code, said = run(b"\n".join(lines[:count]), "--window", window, server.port)
            self.assertEqual(code, 0, said)
            self.assertEqual(sorted(until("the sink", lambda: len(got := server.payloads()) >= count and got)), sorted(lines[:count]))

    def test_no_more_are_unacked_than_the_window_holds(self):
        for window in (1, 3, 8):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
                server.bind(("127.0.0.1", 0))
                server.settimeout(PATIENCE_S)
                with start("--window", window, server.getsockname()[1]) as process:
                    process.stdin.write(b"line\n" * 100)
                    process.stdin.flush()
                    hello, client = server.recvfrom(2048)
                    welcome = b"\x15\0" + struct.pack("<HI", 1024, 77) + hello[8:24] + bytes(4)
                    server.sendto(welcome + struct.pack("<I", zlib.crc32(welcome)), client)
                    seqs, deadline = set(), time.monotonic() + 0.5
                    while (left := deadline - time.monotonic()) > 0:
                        server.settimeout(left)
                        try:
                            seqs.add(struct.unpack_from("<Q", server.recv(2048), 16)[0])
                        except TimeoutError:
                            break
                    process.kill()
                self.assertEqual(seqs, set(range(1, window + 1)))

    def test_no_window_but_a_number_is_taken(self):
        for window in ("0", "-1", "65536", "many", ""):
            code, said = run(b"line\n", "--window", window, 7117)
            self.assertEqual(code, 2, window)
            self.assertIn("1 to 65535", said)


class Ends(unittest.TestCase):
    def test_what_the_server_refuses_ends_with_1(self):
        keys = pathlib.Path(tempfile.mkdtemp(prefix="posix-")) / "keys"
        self.addCleanup(subprocess.run, ["rm", "-rf", str(keys.parent)], check=True)
        subprocess.run([DURAGRAM, "keys", "new", "--client", "00000000000000c5", str(keys)], check=True, capture_output=True)
        server = Server(self, flags=("--keys", str(keys)))
        for epoch in (0, 5):
            code, said = run(b"one\ntwo\n", server.port, epoch, "c5")
            self.assertEqual(code, 1)
            self.assertIn("refused with code 9", said)
            self.assertIn("2 failed", said)
        key = re.search(rb"[0-9a-f]{64}", keys.read_bytes()).group().decode()
        self.assertEqual(run(b"sealed\n", server.port, 5, "c5", program=POSIX_SEALED, DG_KEY=key)[0], 0)
        self.assertEqual(until("the sink", server.payloads), [b"sealed"])

    def test_a_wrong_call_ends_with_2_and_says_why(self):
        for args in ([], ["0"], ["65536"], ["-1"], ["x"], [""], ["7117x"], [":7117"], ["::1:7117"], ["[]:7117"], ["host:"], ["host"],
                     ["[::1]"], ["7117", "4294967296"], ["7117", "-5"], ["7117", ""], ["7117", "five"], ["7117", "0", "xyz"],
                     ["7117", "0", ""], ["7117", "0", "11112222333344445"], ["7117", "0", "c", "more"], ["no.such.host.invalid:7117"],
                     ["--window"], ["--window", "7117"], ["--window", "5"], ["--windows", "5", "7117"]):
            code, said = run(b"line\n", *args)
            self.assertEqual(code, 2, args)
            self.assertRegex(said, r"^(usage|posix): .+\n", args)

    def test_a_key_that_cannot_be_used_ends_with_2(self):
        self.assertEqual(run(b"line\n", 7117, DG_KEY="00" * 32)[0], 2)  # Built without DG_SEALED.
        for key in ("", "00" * 31, "00" * 33, "zz" * 32, "0x" * 32, " 0" * 32):
            self.assertEqual(run(b"line\n", 7117, program=POSIX_SEALED, DG_KEY=key)[0], 2, key)

    def test_a_closed_standard_input_ends_with_2(self):
        done = subprocess.run(["sh", "-c", f"{POSIX} 7117 <&-"], capture_output=True, text=True, timeout=PATIENCE_S)
        self.assertEqual((done.returncode, done.stderr), (2, "posix: standard input is closed\n"))

    def test_a_standard_input_that_cannot_be_read_ends_with_1(self):
        server = Server(self)
        done = subprocess.run(["sh", "-c", f"{POSIX} {server.port} </"], capture_output=True, text=True, timeout=PATIENCE_S)
        self.assertEqual(done.returncode, 1)
        self.assertIn("posix: standard input: Is a directory", done.stderr)


class Places(unittest.TestCase):
    def test_an_ipv6_address_is_reached(self):
        server = Server(self, "[::1]:0")
        self.assertEqual(run(b"six\n", f"[::1]:{server.port}")[0], 0)
        self.assertEqual(until("the sink", server.payloads), [b"six"])

    def test_a_name_is_tried_at_each_of_its_addresses_until_one_answers(self):
        hosts = pathlib.Path(tempfile.mkdtemp(prefix="posix-")) / "hosts"
        self.addCleanup(subprocess.run, ["rm", "-rf", str(hosts.parent)], check=True)
        hosts.write_text("::1 two-addresses\n127.0.0.1 two-addresses\n")
        # A file of names for this program alone.
        with_hosts = ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts)]
        if subprocess.run([*with_hosts, "true"], capture_output=True).returncode != 0:
            self.skipTest("it takes root, and a mount namespace of its own")
        for listen in ("127.0.0.1:0", "[::1]:0"):
            server = Server(self, listen)
            for epoch in (0, 5):
                done = subprocess.run([*with_hosts, POSIX, f"two-addresses:{server.port}", str(epoch)], input=b"by name\n",
                                      capture_output=True, timeout=PATIENCE_S, env=clean())
                self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(until("the sink", lambda: len(got := server.payloads()) == 2 and got), [b"by name"] * 2)

    def test_an_ipv4_address_is_reached(self):
        server = Server(self)
        self.assertEqual(run(b"four\n", f"127.0.0.1:{server.port}")[0], 0)


class UsedEpochs(unittest.TestCase):
    def check(self, program, *args, flags=(), **more):
        for former in (5, 300):
            server = Server(self, flags=flags)
            first = [b"first %d" % i for i in range(former)]
            second = [b"second %d" % i for i in range(100)]
            code, said = run(b"\n".join(first), server.port, 7, *args, program=program, **more)
            self.assertEqual(code, 0, said)
            code, said = run(b"\n".join(second), server.port, 7, *args, program=program, **more)
            self.assertEqual(code, 0, said)
            self.assertIn("epoch 7 was used before", said)
            got = until("the sink", lambda: len(got := server.payloads()) >= former + 100 and got)
            self.assertEqual(sorted(got), sorted(first + second))

    def test_an_epoch_that_was_used_before_loses_nothing(self):
        self.check(POSIX, "c5")

    def test_a_sealed_one_neither(self):
        keys = pathlib.Path(tempfile.mkdtemp(prefix="posix-")) / "keys"
        self.addCleanup(subprocess.run, ["rm", "-rf", str(keys.parent)], check=True)
        subprocess.run([DURAGRAM, "keys", "new", "--client", "00000000000000c5", str(keys)], check=True, capture_output=True)
        key = re.search(rb"[0-9a-f]{64}", keys.read_bytes()).group().decode()
        self.check(POSIX_SEALED, "c5", flags=("--keys", str(keys)), DG_KEY=key)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]])
