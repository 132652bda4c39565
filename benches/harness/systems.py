"""The systems that are compared: how each is started with a sync before every ack, and loaded."""

import os
import pwd
import re
import shutil
import signal
import subprocess
from pathlib import Path

from . import process
from .process import Failed

# What a client asks for, beyond the server's address.
SHAPES = ("clients", "window", "size", "batch", "gso", "rate", "sockets", "key-file")


class Server:
    """A running server, and the signal that ends it."""

    def __init__(self, child, address, admin=None, end=signal.SIGKILL):
        self.child, self.address, self.admin, self.end = child, address, admin, end

    @property
    def pid(self):
        return self.child.pid

    def stop(self):
        process.stop(self.child, self.end)


class System:
    """One that can be started and loaded."""

    key = title = note = ""
    # The name of its program among those that are found or fetched; none for what is built here.
    program = ""
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

    def version(self):
        """Of a program that is not of this project, or None."""
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

    peer = ""
    tell_version = "--version"
    end = signal.SIGKILL
    # Who it runs as, when this script is root's; None: root.
    user = None
    # What makes no sense over TCP: several datagrams a call, datagrams of several records, an open loop.
    shapes = {"bulk1200": None, "batch11": None, "batch20x50": None, "open100k": None}

    def missing(self):
        return None if getattr(self.programs, self.program) else self.programs.why_missing(self.program)

    def version(self):
        """What the program says of itself: the first number with dots."""
        argv = [getattr(self.programs, self.program), self.tell_version]
        told = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, **self.programs.peer_env})
        found = re.search(r"\d+(\.\d+)+", told.stdout + told.stderr)
        return found[0] if found else None

    def start(self, directory):
        port = process.free_port()
        path = directory / "server.log"
        argv = self.command(directory, port)
        with open(path, "wb") as log:
            child = process.start(argv, log, self.programs.peer_env, subprocess.DEVNULL, self.user)
        try:
            self.await_ready(child, port, path)
        except BaseException:
            process.stop(child, self.end)
            raise
        return Server(child, f"127.0.0.1:{port}", end=self.end)

    def await_ready(self, child, port, log):
        process.await_port(child, port, log)

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
            getattr(self.programs, self.program), "--port", port, "--bind", "127.0.0.1", "--dir", directory, "--save", "",
            "--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0",
        ]


class Valkey(Redis):
    """Forked from Redis 7.2: the same options, commands and client."""

    key, title, program = "valkey", "Valkey Streams", "valkey_server"


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
    tell_version = "-v"
    note = "`-f 0`: a sync after each write; `put`"
    shapes = Nats.shapes
    skips = Nats.skips

    def command(self, directory, port):
        (directory / "wal").mkdir()
        return [self.programs.beanstalkd, "-l", "127.0.0.1", "-p", port, "-b", directory / "wal", "-f", "0"]


class Postgres(Peer):
    """A process for each connection, by a user that is not root, in a copy of a cluster that is made once."""

    program = "postgres"
    # It ends its processes and frees what they share.
    end = signal.SIGQUIT
    settings = {
        "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": 600, "fsync": "on",
        "synchronous_commit": "on", "min_wal_size": "1GB", "max_wal_size": "8GB",
    }

    def __init__(self, programs):
        super().__init__(programs)
        if os.geteuid() == 0:
            names = {one.pw_name for one in pwd.getpwall()}
            self.user = "postgres" if "postgres" in names else "nobody"

    def missing(self):
        no_setpriv = self.user and not shutil.which("setpriv")
        return super().missing() or ("root may not run it, and there is no setpriv" if no_setpriv else None)

    def command(self, directory, port):
        # The space of a run is removed, and this with it.
        model = directory.parent / "postgres"
        if not model.exists():
            self.make(model)
        subprocess.run(["cp", "-a", model, directory / "data"], check=True)
        settings = [word for name, value in self.settings.items() for word in ("-c", f"{name}={value}")]
        return [self.programs.postgres, "-D", directory / "data", "-p", port, *settings]

    def make(self, model):
        half = model.with_name("postgres-half")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(mode=0o700)
        if self.user:
            shutil.chown(half, self.user, pwd.getpwnam(self.user).pw_gid)
        argv = [Path(self.programs.postgres).with_name("initdb"), "-D", half, "--username=postgres", "--auth=trust"]
        argv += ["--encoding=UTF8", "--locale=C", "--no-sync"]
        log = model.with_name("initdb.log")
        with open(log, "wb") as out:
            child = process.start(argv, out, self.programs.peer_env, user=self.user)
        try:
            child.wait(process.START_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            pass
        finally:
            process.stop(child)
        if child.returncode != 0:
            raise Failed(f"initdb: {process.tail(log)}")
        half.rename(model)

    def await_ready(self, child, port, log):
        process.await_logged(child, "database system is ready to accept connections", log)


class PostgresInsert(Postgres):
    key, title, peer = "postgres-insert", "PostgreSQL, INSERT", "postgres-insert"
    note = (
        "`synchronous_commit = on`; one `INSERT`, one transaction a message, prepared and pipelined, into a table of one column "
        "without an index; a sync serves commits of several connections, never two of the same"
    )


class PostgresCopy(Postgres):
    key, title, peer = "postgres-copy", "PostgreSQL, COPY", "postgres-copy"
    note = (
        "`synchronous_commit = on`; one binary `COPY`, one transaction for each window of each client (64 or 1,024 messages), into the "
        "same table: they are acked together, and none is sent before the batch is full"
    )
    # One message is an `INSERT`.
    skips = ("1x1", "512x1")


class Mosquitto(Peer):
    key, title, program, peer = "mosquitto", "MQTT QoS 1, mosquitto", "mosquitto", "mqtt"
    durable = False
    tell_version = "-h"
    note = (
        "**not durable**: `persistence true`, but it acks from memory and saves every 1,800 s (`autosave_interval`) and when it ends; "
        "QoS 1 to a subscriber with a persistent session who is away, `max_queued_messages 0` and `max_inflight_messages 0` (no bounds); "
        "for comparison only"
    )

    def command(self, directory, port):
        config = directory / "mosquitto.conf"
        lines = [
            f"listener {port} 127.0.0.1", "allow_anonymous true", "persistence true", f"persistence_location {directory}/",
            # By default it drops what a subscriber has queued beyond 1,000, and acks it all the same.
            "max_queued_messages 0", "max_inflight_messages 0", "set_tcp_nodelay true", "log_type error", "log_type warning",
        ]
        # Started by root it would become another user, who cannot write there.
        lines += ["user root"] if os.geteuid() == 0 else []
        config.write_text("\n".join(lines) + "\n")
        return [self.programs.mosquitto, "-c", config]


ALL = (
    Floor, LaidOutFloor, Duragram, Redis, Valkey, Nats, Beanstalkd, PostgresInsert, PostgresCopy, Mosquitto, NatsDefault,
)


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
