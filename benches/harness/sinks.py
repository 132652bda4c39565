"""How fast each sink works a backlog off, beside what its target's own bulk tool reaches at the same server; and what a dead and a
slow sink cost ingestion."""

import csv
import http.server
import io
import json
import os
import re
import signal
import statistics
import subprocess
import threading
import time

from . import measure, process, systems
from .compare import BULK
from .process import Failed
from .programs import say

# Records in a call of a sink, and their bytes.
BATCH, BYTES = 1_000, 100
# What the bulk tools write, and about how many records the sinks have to work off.
ROWS = 1_000_000
FILL = {"clients": 8, "window": 512, "size": BYTES}
FILL_SECONDS = 4.0
# Before its backlog is made each sink connects, and makes what it needs there.
WARM_SECONDS = 0.3
# A sink is measured while it has something to do, for no longer than this.
SECONDS = 6.0
SHARE_MIN = 0.7
INGESTION_MIN = 0.95
COLUMNS = ("journal uuid, entry_offset bigint, record_index integer, client text, epoch bigint, seq numeric(20), channel integer, "
           "received_at timestamptz, payload bytea, PRIMARY KEY (journal, entry_offset, record_index)")


class Sink(systems.Duragram):
    """Duragram with one or more configured sinks."""

    def __init__(self, programs, tables):
        super().__init__(programs)
        self.tables = tables

    def start(self, directory, arguments=()):
        config = directory / "duragram.toml"
        config.write_text("\n".join("[[sink]]\n" + "\n".join(f"{key} = {value}" for key, value in table.items()) for table in self.tables))
        argv = [self.programs.duragram, "serve", "--config", config, "--data", directory / "data", "--listen", "127.0.0.1:0"]
        argv += ["--admin", "127.0.0.1:0", *arguments]
        return systems.start_ready(argv, directory / "server.log", r"udp=(\S+) admin=(\S+)\n")


def sinks(options, programs, space, save):
    found = {"rounds": options.rounds, "batch": BATCH, "bytes": BYTES, "sinks": {}, "ingestion": {}}
    programs.find({"redis_server", "redis_benchmark", "nats_server", "postgres", "psql", "mosquitto"})
    for name, measured in (("postgres", postgres), ("redis", redis), ("nats", nats), ("http", http_batch), ("mqtt", mqtt), ("exec", child),
                           ("file", file)):
        try:
            runs = [measured(programs, space) for _ in range(options.rounds)]
        except FileNotFoundError as missing:
            say(f"{name}: left out, {missing}")
            continue
        ours = statistics.median(run["sink_per_s"] for run in runs)
        row = {"sink_per_s": ours, "runs": runs}
        if "tool_per_s" in runs[0]:
            row["tool"], row["tool_per_s"] = runs[0]["tool"], statistics.median(run["tool_per_s"] for run in runs)
            row["share"] = ours / row["tool_per_s"]
        if "same_headers_per_s" in runs[0]:
            row["same_headers_per_s"] = statistics.median(run["same_headers_per_s"] for run in runs)
        found["sinks"][name] = row
        beside = f", {row['share']:.2f} of the {row['tool_per_s']:,.0f}/s of {row['tool']}" if "share" in row else ""
        if "same_headers_per_s" in row:
            beside += f", {ours / row['same_headers_per_s']:.2f} of the {row['same_headers_per_s']:,.0f}/s with the sink's headers"
        say(f"{name}: {ours:,.0f} records/s{beside}")
        save(found)
    found["ingestion"] = ingestion(options, programs, space)
    save(found)
    problems = [f"{name} reaches {row['share']:.2f} of {row['tool']}" for name, row in found["sinks"].items() if row.get("share", 1) < SHARE_MIN]
    share = found["ingestion"]["8 × 64"]["share"]
    if share < INGESTION_MIN:
        problems.append(f"ingestion beside a dead and a slow sink reaches {share:.2f} of that with null")
    if problems:
        raise Failed("; ".join(problems))
    return found


def drained(programs, space, **table):
    """Records a second that a sink works off when nothing else is to be done: it is paused while its backlog comes in."""
    table = {"name": '"bench"', **table}
    with measure.serving(Sink(programs, [table]), space) as (server, directory):
        warm = {**FILL, "clients": 1}
        systems.load(Sink(programs, []), server, warm, WARM_SECONDS, directory, check=False)
        deadline = time.monotonic() + SECONDS
        while processed(server) < BATCH and time.monotonic() < deadline:
            time.sleep(0.05)
        tell(programs, server, directory, "pause")
        systems.load(Sink(programs, []), server, FILL, FILL_SECONDS, directory, check=False)
        time.sleep(measure.REST_SECONDS)
        tell(programs, server, directory, "resume")
        return rate(server)


def tell(programs, server, directory, change):
    """Pauses the sink, or lets it go on."""
    argv = [programs.duragram, "sink", change, "bench", "--admin", server.admin, "--admin-token-file", directory / "data/admin-token"]
    told = subprocess.run([str(word) for word in argv], capture_output=True, text=True)
    if told.returncode:
        raise Failed(f"sink {change}: {told.stderr.strip()}")


def rate(server):
    # From the first records on: it connects again, or its target wakes up.
    first, begin = processed(server), time.monotonic()
    deadline = begin + SECONDS
    while processed(server) == first and time.monotonic() < deadline:
        time.sleep(0.01)
    first, begin = processed(server), time.monotonic()
    while True:
        time.sleep(0.05)
        values, now = process.metrics(server.admin), time.monotonic()
        lag = process.total(values, "duragram_sink_lag_entries")
        done = process.total(values, "duragram_processed_records_total") - first
        if lag == 0 or now - begin > SECONDS:
            break
    if done < 10 * BATCH:
        raise Failed(f"the sink has worked off {done:.0f} records in {now - begin:.1f} s")
    return done / (now - begin)


def processed(server):
    return process.total(process.metrics(server.admin), "duragram_processed_records_total")


class Target:
    """A server of the measurement's own, on a free port."""

    def __init__(self, argv, port, log, env):
        with open(log, "wb") as out:
            self.child = process.start(argv, out, env, stdout=out)
        self.port = port
        process.await_port(self.child, port, log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        process.stop(self.child, signal.SIGTERM)


def postgres(programs, space):
    system = systems.PostgresCopy(programs)
    why = system.missing() or (None if programs.psql else programs.why_missing("psql"))
    if why:
        raise FileNotFoundError(why)
    with measure.serving(system, space) as (server, _):
        url = f"postgres://postgres@{server.address}/postgres"

        def sql(text, data=None):
            argv = [programs.psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", url, "-c", text]
            ran = subprocess.run(argv, input=data, capture_output=True, env={**os.environ, **programs.peer_env})
            if ran.returncode:
                raise Failed(f"psql: {ran.stderr.decode()}")

        sql(f"CREATE TABLE copied ({COLUMNS})")
        rows = io.StringIO()
        writer = csv.writer(rows)
        payload = "\\x" + "61" * BYTES
        for n in range(ROWS):
            writer.writerow(("8e5b6c1e-7d1c-4f0f-9a6b-6a1f3f0c5d11", n, 0, "00000000000000a1", 3, n + 1, 0, "2026-01-02 03:04:05.678901+00", payload))
        begin = time.monotonic()
        sql("COPY copied FROM STDIN (FORMAT csv)", rows.getvalue().encode())
        tool = ROWS / (time.monotonic() - begin)
        ours = drained(programs, space, type='"postgres"', url=f'"{url}"', table='"events"', **{"batch.records_max": BATCH})
        return {"sink_per_s": ours, "tool": "psql COPY", "tool_per_s": tool}


def redis(programs, space):
    server_program, tool_program = programs.redis_server, programs.redis_benchmark
    if not (server_program and tool_program):
        raise FileNotFoundError(programs.why_missing("redis_server"))
    directory, port = space.fresh(), process.free_port()
    argv = [server_program, "--port", port, "--bind", "127.0.0.1", "--dir", directory, "--save", "", "--appendonly", "yes"]
    with Target(argv, port, directory / "log", programs.peer_env):
        fields = ("client", "00000000000000a1", "epoch", "3", "seq", "1234567", "channel", "0", "received_at", "2026-01-02T03:04:05.678901Z",
                  "payload", "a" * BYTES)
        command = [tool_program, "-p", port, "-c", 1, "-P", BATCH, "-n", ROWS, "--csv", "XADD", "copied", "*", *fields]
        ran = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True, env={**os.environ, **programs.peer_env})
        tool = float(re.findall(r'","([0-9.]+)', ran.stdout)[0])
        ours = drained(programs, space, type='"redis"', url=f'"redis://127.0.0.1:{port}"', key='"events"', **{"batch.records_max": BATCH})
        return {"sink_per_s": ours, "tool": "redis-benchmark XADD, pipelines of 1,000", "tool_per_s": tool}


def nats(programs, space):
    """Beside JetStream publishes of which 1,000 await their acks, as `nats bench js pub` does them: the NATS command line comes from
    no registry here. And beside the same publishes with the sink's headers: so much the server takes that is asked for exactness."""
    if not programs.nats_server:
        raise FileNotFoundError(programs.why_missing("nats_server"))
    shape = {"clients": 1, "window": BATCH, "size": BYTES}
    with measure.serving(systems.NatsChained(programs), space) as (server, directory):
        chained = systems.load(systems.NatsChained(programs), server, shape, SECONDS, directory, check=False)["acked_per_s"]
    system = systems.NatsDefault(programs)
    directory = space.fresh()
    server = system.start(directory)
    try:
        loaded = systems.load(system, server, shape, SECONDS, directory, check=False)
        ours = drained(programs, space, type='"nats"', url=f'"nats://{server.address}"', stream='"EVENTS"', subject='"events"', exclusive="true",
                       **{"batch.records_max": BATCH})
        return {"sink_per_s": ours, "tool": "JetStream publishes, 1,000 in flight", "tool_per_s": loaded["acked_per_s"],
                "same_headers_per_s": chained}
    finally:
        server.stop()


class Taking(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def http_batch(programs, space):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taking) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            url = f'"http://127.0.0.1:{server.server_port}/"'
            return {"sink_per_s": drained(programs, space, type='"http"', url=url, mode='"batch"', **{"batch.records_max": BATCH})}
        finally:
            server.shutdown()


def mqtt(programs, space):
    program = programs.mosquitto
    if not program:
        raise FileNotFoundError(programs.why_missing("mosquitto"))
    directory, port = space.fresh(), process.free_port()
    config = directory / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    with Target([program, "-c", config], port, directory / "log", programs.peer_env):
        return {"sink_per_s": drained(programs, space, type='"mqtt"', url=f'"mqtt://127.0.0.1:{port}"', topic='"events"', **{"batch.records_max": BATCH})}


def child(programs, space):
    """A child that does nothing with each line but read it, and answers each."""
    directory = space.fresh()
    script = directory / "child.py"
    script.write_text("import json, sys\nwhile line := sys.stdin.readline():\n    record = json.loads(line)\n"
                      "    sys.stdout.write('{\"offset\":%d,\"index\":%d,\"done\":true}\\n' % (record['offset'], record['index']))\n    sys.stdout.flush()\n")
    return {"sink_per_s": drained(programs, space, type='"exec"', command=json.dumps(f"exec python3 {script}"), **{"batch.records_max": BATCH})}


def file(programs, space):
    return {"sink_per_s": drained(programs, space, type='"file"', path=f'"{space.fresh()}/lines"')}


def ingestion(options, programs, space):
    """Acked a second: with `null` alone, and beside a sink that is away and one that takes nothing. What the two have not had must be kept
    on the disk: at the highest rate in bulk that costs what it costs, whoever holds it."""
    dead = {"name": '"dead"', "type": '"http"', "url": f'"http://127.0.0.1:{process.free_port()}/"'}
    slow = {"name": '"slow"', "type": '"exec"', "command": json.dumps("exec sleep 1000")}
    null = {"name": '"null"', "type": '"null"'}
    tables = {"null": [null], "null, a dead and a slow sink": [null, dead, slow]}
    found = {}
    for load, shape in (("8 × 64", {"clients": 8, "window": 64, "size": BYTES}), ("bulk", BULK.load)):
        per_s = {name: [] for name in tables}
        for turn in range(max(options.rounds, 3)):
            for name in list(tables) if turn % 2 == 0 else reversed(list(tables)):
                with measure.serving(Sink(programs, tables[name]), space) as (server, directory):
                    system = Sink(programs, [])
                    systems.load(system, server, shape, measure.WARM_SECONDS, directory, check=False)
                    per_s[name].append(systems.load(system, server, shape, SECONDS, directory)["acked_per_s"])
        alone, beside = (statistics.median(rates) for rates in per_s.values())
        say(f"ingestion, {load}: {beside:,.0f}/s beside a dead and a slow sink, {beside / alone:.2f} of the {alone:,.0f}/s with null")
        found[load] = {"per_s": per_s, "alone": alone, "beside": beside, "share": beside / alone}
    return found
