"""Processes that a run starts, their directories, and what the kernel tells of them. Whatever happens, what was started
is stopped by its pid, and what was written is removed."""

import grp
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

START_SECONDS_MAX = 20
STOP_SECONDS_MAX = 15


class Failed(Exception):
    """A server or a load did not do what it should; the run goes on without it."""


def interrupt_on_sigterm():
    """SIGTERM and SIGHUP become exceptions, as SIGINT is, so that everything is cleaned up."""

    def stop(number, _frame):
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


def start(argv, log, env=None, stdout=subprocess.DEVNULL, user=None):
    """Starts a program in a session of its own: a Ctrl-C reaches this script alone, which then stops it in order."""
    argv = [str(word) for word in argv]
    if shutil.which("setpriv"):
        # It ends even when this script is killed with SIGKILL.
        argv = ["setpriv", "--pdeathsig", "KILL", *as_user(user), "--", *argv]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DURAGRAM_")}
    environment.update(env or {})
    return subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=log, env=environment, start_new_session=True
    )


def as_user(user):
    """The options of setpriv that make root this user, who may enter directories that are root's alone."""
    if not user:
        return []
    group = grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    enter = ["--securebits", "+no_setuid_fixup", "--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    return ["--reuid", user, "--regid", group, "--clear-groups", *enter]


def stop(process, number=signal.SIGKILL):
    """Ends a process that was started here, by this signal."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout:
        process.stdout.close()


class Space:
    """A directory on the disk that is measured, removed in the end."""

    def __init__(self, parent):
        parent = Path(parent)
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.glob("run-*"):
            # Of runs that were killed with SIGKILL.
            if not Path(f"/proc/{left.name.split('-')[1]}").exists():
                shutil.rmtree(left, ignore_errors=True)
        self.path = Path(tempfile.mkdtemp(prefix=f"run-{os.getpid()}-", dir=parent))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)

    def fresh(self):
        return Path(tempfile.mkdtemp(dir=self.path))


def free_port():
    """A TCP port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tail(path):
    """The end of a log, for a message."""
    try:
        return " | ".join(Path(path).read_text(errors="replace").strip().splitlines()[-3:])
    except OSError:
        return ""


def await_line(process, pattern, log):
    """Waits until a server's standard output has the line that says it is ready; returns the match."""
    deadline = time.monotonic() + START_SECONDS_MAX
    os.set_blocking(process.stdout.fileno(), False)
    text = ""
    while time.monotonic() < deadline:
        text += (process.stdout.read() or b"").decode(errors="replace")
        match = re.search(pattern, text)
        if match:
            return match
        if process.poll() is not None:
            break
        time.sleep(0.002)
    raise Failed(f"does not start (exit code {process.poll()}): {tail(log)}")


def await_port(process, port, log):
    """Waits until a server accepts connections."""

    def accepts():
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            return False

    await_true(process, accepts, log)


def await_logged(process, text, log):
    """Waits until a server's log has this text."""
    await_true(process, lambda: text in Path(log).read_text(errors="replace"), log)


def await_true(process, is_ready, log):
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        if is_ready():
            return
        time.sleep(0.01)
    raise Failed(f"does not start (exit code {process.poll()}): {tail(log)}")


def run_json(argv, seconds_max, log_path, check=True):
    """Runs a load to its end; returns the object that it prints."""
    with open(log_path, "wb") as log:
        process = start(argv, log, stdout=subprocess.PIPE)
        try:
            out, _ = process.communicate(timeout=seconds_max)
        except subprocess.TimeoutExpired:
            raise Failed(f"the load did not end in {seconds_max:.0f} s") from None
        finally:
            stop(process)
    try:
        report = json.loads(out)
    except ValueError:
        raise Failed(f"the load failed: {tail(log_path)}") from None
    if process.returncode != 0 and check:
        raise Failed(f"{report.get('unacked')} not acked, {report.get('rejected')} rejected: {tail(log_path)}")
    return report


def family(pid):
    """A server's process, and those that it has started, and they in turn, with the fields of `/proc/PID/stat` behind the name."""
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            stats[int(path.parent.name)] = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            # It has ended meanwhile.
            pass
    found = {pid: stats[pid]} if pid in stats else {}
    grown = True
    while grown:
        more = {one: fields for one, fields in stats.items() if one not in found and int(fields[1]) in found}
        found.update(more)
        grown = bool(more)
    return found


def cpu_seconds(pid):
    """Processor time of a server so far: of its processes, and of those of them that have ended."""
    ticks = sum(sum(map(int, fields[11:15])) for fields in family(pid).values())
    return ticks / os.sysconf("SC_CLK_TCK")


def thread_seconds(pid):
    """Processor time so far of each of a process's threads, by their names: what threads of one name took is added up."""
    spent = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            name, running = (thread / "comm").read_text().strip(), (thread / "schedstat").read_text().split()[0]
        except OSError:
            continue  # It has ended.
        spent[name] = spent.get(name, 0.0) + int(running) / 1e9
    return spent


def busy_seconds():
    """Processor time that all of the machine has spent so far, steal not counted."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def ended_children_seconds():
    """Processor time of the loads that have ended, and of this script."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def resident_bytes(pid):
    """Resident memory of a server. What several processes share counts once."""
    processes = family(pid)
    if len(processes) == 1:
        return counted_bytes(f"/proc/{pid}/status", "VmRSS")
    return sum(counted_bytes(f"/proc/{one}/smaps_rollup", "Pss") for one in processes)


def counted_bytes(path, name):
    """The bytes of a line that counts them in kB; 0 without it."""
    try:
        match = re.search(rf"^{name}:\s*(\d+) kB", Path(path).read_text(), re.M)
    except OSError:
        match = None
    return int(match[1]) * 1024 if match else 0


def device_bytes_written(path):
    """Bytes written so far to the block device under a path; None where there is none (overlays, network).

    Not /proc/PID/io: on some kernels that counts what syncs write twice or not at all."""
    number = os.stat(path).st_dev
    for line in Path("/proc/diskstats").read_text().splitlines():
        fields = line.split()
        if (int(fields[0]), int(fields[1])) == (os.major(number), os.minor(number)):
            return int(fields[9]) * 512
    return None


def udp_drops(address):
    """Messages that the kernel dropped at the UDP socket bound to an IPv4 address: up to 64 datagrams each, with GSO.
    None when there is no such socket."""
    port = int(address.rsplit(":", 1)[1])
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].split(":")[1], 16) == port:
            return int(fields[-1])
    return None


def metrics(admin):
    """Duragram's metrics: name (with labels) to value."""
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[:1] != "#")}


def total(values, name):
    """The sum of a metric over its labels."""
    return sum(value for key, value in values.items() if key.split("{")[0] == name)
