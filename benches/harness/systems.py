"""The systems that are compared: how each is started with a sync before every ack, and loaded."""

import subprocess

from . import process
from .process import Failed

# What a client asks for, beyond the server's address.
SHAPES = ("clients", "window", "size", "batch", "gso", "rate", "sockets", "key-file")


class Server:
    """A running server."""

    def __init__(self, child, address, admin=None):
        self.child, self.address, self.admin = child, address, admin

    @property
    def pid(self):
        return self.child.pid

    def stop(self, gently=False):
        process.stop(self.child, gently)


class System:
    """One that can be started and loaded."""

    key = title = note = ""
    durable = True
    # A case's key to what this system is loaded with in its place, or None to leave it out.
    shapes = {}
    # Cases that tell nothing new of it.
    skips = ()

    def __init__(self, programs):
        self.programs = programs

    def missing(self):
        """Why it cannot run, or None."""
        return None

    def takes(self, case):
        return case.key not in self.skips and self.shape(case)

    def shape(self, case):
        """What it is loaded with in a case; None: the case is not for it."""
        return self.shapes.get(case.key, case.load)


class Datagrams(System):
    """Duragram and its floor: both are driven by `duragram load`."""

    def load(self, server, shape, seconds):
        argv = [self.programs.duragram, "load", "--server", server.address, "--json", "--seconds", seconds]
        for key in SHAPES:
            if shape.get(key) is not None:
                argv += [f"--{key}", shape[key]]
        return argv


class Duragram(Datagrams):
    key, title = "duragram", "Duragram"
    note = "as a user gets it: default configuration, sink `null`"
    arguments = ()

    def start(self, directory, arguments=()):
        log = directory / "server.log"
        argv = [self.programs.duragram, "serve", "--data", directory / "data", "--listen", "127.0.0.1:0"]
        argv += ["--admin", "127.0.0.1:0", "--sink", "null", *self.arguments, *arguments]
        return start_ready(argv, log, r"udp=(\S+) admin=(\S+)\n")


class SlowDuragram(Datagrams):
    """Duragram with a handler that takes ages for each batch: a backlog builds up and stays."""

    key = "slow"

    def start(self, directory):
        argv = [self.programs.slow_sink, directory / "data", "1"]
        return start_ready(argv, directory / "server.log", r"udp=(\S+) admin=(\S+)\n")


class Floor(Datagrams):
    key, title = "floor", "floor"
    note = "receive, append to one file, fdatasync, ack: no sessions, no checks, no database (`benches/floor.rs`)"
    arguments = ()

    def start(self, directory):
        argv = [self.programs.floor, "--dir", directory, "--listen", "127.0.0.1:0", *self.arguments]
        return start_ready(argv, directory / "floor.log", r"ready udp=(\S+)\n")


class LaidOutFloor(Floor):
    key, title = "floor-laid-out", "floor, file laid out"
    note = "the same, writing round in a file that is full of zeros beforehand, as a database does with old logs"
    arguments = ("--laid-out", "512")


class Peer(System):
    """Driven by `peer_load` over TCP."""

    program = ""
    peer = ""
    # What makes no sense over TCP: several datagrams a call, datagrams of several records, an open loop.
    shapes = {"bulk1200": None, "batch11": None, "batch20x50": None, "open100k": None}

    def missing(self):
        return None if getattr(self.programs, self.program) else self.programs.why_missing(self.program)

    def start(self, directory):
        port = process.free_port()
        path = directory / "server.log"
        with open(path, "wb") as log:
            child = process.start(self.command(directory, port), log, self.programs.peer_env, subprocess.DEVNULL)
        try:
            process.await_port(child, port, path)
        except BaseException:
            process.stop(child)
            raise
        return Server(child, f"127.0.0.1:{port}")

    def load(self, server, shape, seconds):
        argv = [self.programs.peer_load, "--peer", self.peer, "--server", server.address, "--json"]
        argv += ["--seconds", seconds, "--drain", 20]
        for key in ("clients", "window", "size"):
            argv += [f"--{key}", shape[key]]
        return argv


class Redis(Peer):
    key, title, program, peer = "redis", "Redis Streams", "redis_server", "redis"
    note = "`appendonly yes`, `appendfsync always`, no RDB saves, no AOF rewrites; `XADD`"

    def command(self, directory, port):
        return [
            self.programs.redis_server, "--port", port, "--bind", "127.0.0.1", "--dir", directory, "--save", "",
            "--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0",
        ]


class Nats(Peer):
    key, title, program, peer = "nats", "NATS JetStream", "nats_server", "nats"
    note = "`sync_interval: always`; publishes that await their acks"
    sync = "sync_interval: always"
    # Its syncs are one after the other: more in flight only wait longer, and draining them takes seconds.
    shapes = Peer.shapes | {"bulk": {"clients": 64, "window": 8, "size": 100}}
    skips = ("bulk",)

    def command(self, directory, port):
        config = directory / "nats.conf"
        config.write_text(f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{directory}/js"\n {self.sync} }}\n')
        return [self.programs.nats_server, "-c", config]


class NatsDefault(Nats):
    key, title, durable = "nats-default", "NATS, default", False
    note = "**not durable**: its default syncs every 2 minutes; for comparison only"
    sync = ""
    skips = ()
    shapes = Peer.shapes | {"bulk": {"clients": 16, "window": 256, "size": 100}}


class NatsChained(NatsDefault):
    """What the exactness of Duragram's sink asks of the server, by the client of the other measurements."""

    key, title, peer = "nats-chained", "NATS, default, with the sink's headers", "nats-chained"


class Beanstalkd(Peer):
    key, title, program, peer = "beanstalkd", "beanstalkd", "beanstalkd", "beanstalkd"
    note = "`-f 0`: a sync after each write; `put`"
    shapes = Nats.shapes
    skips = Nats.skips

    def command(self, directory, port):
        (directory / "wal").mkdir()
        return [self.programs.beanstalkd, "-l", "127.0.0.1", "-p", port, "-b", directory / "wal", "-f", "0"]


ALL = (Floor, LaidOutFloor, Duragram, Redis, Nats, Beanstalkd, NatsDefault)


def start_ready(argv, path, pattern):
    """Starts a server that tells its addresses on standard output."""
    with open(path, "wb") as log:
        child = process.start(argv, log, stdout=subprocess.PIPE)
    try:
        return Server(child, *process.await_line(child, pattern, path).groups())
    except BaseException:
        process.stop(child)
        raise


def load(system, server, shape, seconds, directory, check=True):
    """Loads a server once; returns what was measured."""
    argv = system.load(server, shape, seconds)
    report = process.run_json(argv, seconds + 30, directory / "load.log", check)
    if server.child.poll() is not None:
        raise Failed("the server ended under load")
    return report
