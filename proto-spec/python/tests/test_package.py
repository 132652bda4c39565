"""What a release holds, what building it leaves behind, and that the text's examples run as they are written."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path
from typing import Any

from .support import PACKAGE, OneServer

#: A source release has the golden datagrams of the checkout that it was made from; it makes no further one.
IS_RELEASE = (PACKAGE / "tests" / "vectors").exists()
MADE_BY_RUNNING = {"__pycache__", ".mypy_cache"}


def files() -> set[str]:
    """All files of the package's directory, but for what running them makes."""
    found = set()
    for directory, names, here in os.walk(PACKAGE):
        names[:] = [name for name in names if name not in MADE_BY_RUNNING]
        found |= {os.path.relpath(os.path.join(directory, name), PACKAGE) for name in [*here, *names]}
    return found


class Release(unittest.TestCase):
    wheel: Path
    directory: Path
    before: set[str]

    @classmethod
    def setUpClass(cls) -> None:
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.directory = Path(directory.name)
        cls.before = files()
        # First the source, and of that the wheel, as a release is made.
        what = ["--wheel"] if IS_RELEASE else []
        cls.run_python("-m", "build", *what, "--no-isolation", "--outdir", directory.name, str(PACKAGE))
        (cls.wheel,) = cls.directory.glob("*.whl")

    @staticmethod
    def run_python(*arguments: str, **options: Any) -> str:
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, **options)
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        return str(done.stdout)

    def test_neither_building_nor_installing_writes_into_the_checkout(self) -> None:
        self.run_python("-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", f"{self.directory}/b", str(PACKAGE))
        self.assertTrue((self.directory / "b" / "duragram" / "py.typed").exists())
        self.assertEqual(files() - self.before, set())

    def test_the_wheel_has_all_modules_types_licence_and_the_command(self) -> None:
        with zipfile.ZipFile(self.wheel) as wheel:
            names = set(wheel.namelist())
            (info,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
            metadata = email.message_from_bytes(wheel.read(f"{info}/METADATA"))
            commands = wheel.read(f"{info}/entry_points.txt").decode()
        modules = {f"duragram/{path.name}" for path in (PACKAGE / "duragram").iterdir() if path.suffix in (".py", ".typed")}
        self.assertEqual({name for name in names if name.startswith("duragram/")}, modules)
        self.assertIn(f"{info}/licenses/LICENSE", names)
        self.assertEqual(metadata["License-Expression"], "Apache-2.0")
        self.assertEqual(metadata["Requires-Python"], ">=3.10")
        self.assertIn("duragram-py = duragram.__main__:main", commands)
        self.run_python("-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", f"{self.directory}/w", str(self.wheel))
        environment = {**os.environ, "PYTHONPATH": f"{self.directory}/w"}
        told = self.run_python(f"{self.directory}/w/bin/duragram-py", "send", "--help", env=environment, cwd=self.directory)
        self.assertIn("--server", told)

    def test_the_tests_run_from_the_source_release_alone(self) -> None:
        unpacked = PACKAGE
        if not IS_RELEASE:
            (sdist,) = self.directory.glob("*.tar.gz")
            shutil.unpack_archive(sdist, self.directory)
            (unpacked,) = (path for path in self.directory.iterdir() if path.is_dir() and (path / "pyproject.toml").exists())
        self.assertTrue((unpacked / "LICENSE").exists() and (unpacked / "examples" / "devices.py").exists())
        self.assertEqual({path.name for path in (unpacked / "tests").glob("*.py")}, {path.name for path in (PACKAGE / "tests").glob("*.py")})
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        modules = ["tests.test_vectors", "tests.test_duties", "tests.test_sealed"]
        self.run_python("-m", "unittest", *modules, cwd=unpacked, env=environment)

    def test_the_licence_is_that_of_the_project(self) -> None:
        licence = (PACKAGE / "LICENSE").read_text()
        self.assertIn("Apache License", licence)
        if not IS_RELEASE:
            self.assertEqual(licence, (PACKAGE.parents[1] / "LICENSE").read_text())


class Readme(OneServer):
    text = (PACKAGE / "README.md").read_text()

    def test_it_links_to_nothing_that_a_release_does_not_have(self) -> None:
        links = [link for link in re.findall(r"\]\(([^)]*)\)", self.text) if "://" not in link]
        self.assertEqual([link for link in links if not (PACKAGE / link).exists() or ".." in link], [])

    def test_its_examples_run_as_they_are_written(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE), "DURAGRAM_SERVER": self.server.address}
        programs = re.findall(r"```(python|sh)\n(.*?)```", self.text, re.S)
        self.assertGreaterEqual(len(programs), 4)
        for kind, code in programs:
            code = code.replace("127.0.0.1:7117", self.server.address)
            command = [sys.executable, "-c", code] if kind == "python" else ["sh", "-c", code.replace("python3", sys.executable)]
            with self.subTest(code):
                done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
                self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
