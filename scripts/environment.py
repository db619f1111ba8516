#!/usr/bin/env python3
"""Makes the virtual environment, installs pinned requirements and builds the extension, each only when needed.

    "$(scripts/python)" scripts/environment.py runtime test     # .venv with these groups, extension built

A group is a file of ``requirements/``. What was done is remembered in stamps inside the environment: a second call does
nothing, and the extension is built again only when a Rust source has changed. Only the standard library is used.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
MANIFEST = ROOT / "bindings" / "python" / "Cargo.toml"
PACKAGE = ROOT / "bindings" / "python" / "python" / "balrog"
PIP = ["-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]

#: What decides the extension's code, beside the interpreter and the build profile.
SOURCES = ("Cargo.toml", "Cargo.lock", "rust-toolchain.toml", ".cargo", "crates", "bindings/python")
SOURCE_SUFFIXES = {".rs", ".toml", ".lock"}


class SetupError(Exception):
    """Set-up cannot go on; the message is for the user and says what to do."""


class Environment:
    """A virtual environment of this checkout, made by the interpreter that runs this script."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.python = directory / "bin" / "python"

    def ensure(self) -> None:
        """Makes the environment unless it is there, works and is of this very Python."""
        made_by = f"{sys.executable} {sys.version}"
        if self._stamp("python") == made_by and self._works():
            return
        say(f"making {self.directory.name} with Python {sys.version.split()[0]}")
        if self.directory.exists():
            shutil.rmtree(self.directory)
        # Debian ships ensurepip apart, in python3-venv.
        if importlib.util.find_spec("ensurepip"):
            run([sys.executable, "-m", "venv", str(self.directory)])
        else:
            run([sys.executable, "-m", "venv", "--without-pip", str(self.directory)])
            self._borrow_pip()
        self._set_stamp("python", made_by)

    def install(self, groups: list[str]) -> None:
        """Installs the groups' requirements, those whose files have changed since the last time."""
        constraints = (REQUIREMENTS / "constraints.txt").read_bytes()
        stale = []
        for group in groups:
            path = REQUIREMENTS / f"{group}.txt"
            if not path.exists():
                known = sorted(path.stem for path in REQUIREMENTS.glob("*.txt") if path.stem != "constraints")
                raise SetupError(f"no requirement group {group!r}; there are {', '.join(known)}")
            digest = hashlib.sha256(path.read_bytes() + constraints).hexdigest()
            if self._stamp(f"group-{group}") != digest:
                stale.append((group, path, digest))
        if not stale:
            return
        say(f"installing requirements: {', '.join(group for group, _, _ in stale)}")
        run([str(self.python), *PIP, *(word for _, path, _ in stale for word in ("-r", str(path)))])
        for group, _, digest in stale:
            self._set_stamp(f"group-{group}", digest)

    def is_built(self) -> bool:
        """Whether the extension is there and made from these sources."""
        built = self._built()
        return bool(built) and self._stamp("extension") == f"{source_digest()} {built}"

    def build(self) -> None:
        """Builds the extension in release mode and installs the package in place, if a source has changed."""
        if self.is_built():
            return
        say("building the extension in release mode; a first build takes a minute or two")
        maturin = [str(self.directory / "bin" / "maturin"), "develop", "--release", "--locked"]
        run([*maturin, "--manifest-path", str(MANIFEST)], VIRTUAL_ENV=str(self.directory))
        self._set_stamp("extension", f"{source_digest()} {self._built()}")

    def _built(self) -> str:
        """Identity of the extension that this interpreter would load; empty when there is none."""
        for path in PACKAGE.glob(f"_balrog.cpython-3{sys.version_info.minor}-*.so"):
            status = path.stat()
            return f"{status.st_size}-{status.st_mtime_ns}"
        return ""

    def _works(self) -> bool:
        try:
            return subprocess.run([self.python, "-m", "pip", "--version"], capture_output=True).returncode == 0
        except OSError:
            return False

    def _borrow_pip(self) -> None:
        for pip in other_pips():
            command = [*pip, "--python", str(self.python), "install", "--quiet", "pip"]
            if subprocess.run(command, capture_output=True).returncode == 0:
                return
        shutil.rmtree(self.directory)
        version = f"3.{sys.version_info.minor}"
        raise SetupError(
            f"Python {version} has no ensurepip, and there is no pip: apt-get install python{version}-venv"
        )

    def _stamp(self, name: str) -> str:
        try:
            return (self.directory / f"stamp-{name}").read_text()
        except OSError:
            return ""

    def _set_stamp(self, name: str, text: str) -> None:
        (self.directory / f"stamp-{name}").write_text(text)


def other_pips() -> list[list[str]]:
    """Commands of every pip in reach, which since 22.3 can install into another interpreter's environment."""
    listed = subprocess.run([str(ROOT / "scripts" / "python"), "--all"], capture_output=True, text=True)
    commands = [[path, "-m", "pip"] for path in [sys.executable, *listed.stdout.split("\n")] if path]
    commands += [[path] for name in ("pip3", "pip") if (path := shutil.which(name))]
    return commands


def source_digest() -> str:
    """Digest of everything the extension is made from."""
    digest = hashlib.sha256(sys.version.encode())
    for source in SOURCES:
        top = ROOT / source
        paths = [top] if top.is_file() else sorted(top.rglob("*"))
        for path in paths:
            inside = path.relative_to(ROOT)
            if path.suffix in SOURCE_SUFFIXES and path.is_file() and "target" not in inside.parts:
                digest.update(f"{inside}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


def say(text: str) -> None:
    """Tells the user what takes the time."""
    print(f"setup: {text}", file=sys.stderr, flush=True)


def run(command: list[str], **environment: str) -> None:
    """Runs a command in the checkout, counting seconds on a terminal.

    Raises `SetupError` when it fails; what it printed is shown only then.
    """
    start, counting = time.monotonic(), sys.stderr.isatty()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT
        )
        while True:
            try:
                process.wait(1)
                break
            except subprocess.TimeoutExpired:
                if counting:
                    print(f"\r  {time.monotonic() - start:.0f} s ", end="", file=sys.stderr, flush=True)
            except BaseException:  # Ctrl-C has reached it, too
                process.wait()
                raise
        if counting:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        if process.returncode != 0:
            output.seek(0)
            sys.stderr.write(output.read().decode(errors="replace"))
            shown = " ".join(word.removeprefix(f"{ROOT}/") for word in command)
            raise SetupError(f"failed with status {process.returncode}: {shown}")


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description="Sets up a virtual environment of this checkout.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help="files of requirements/ to install")
    parser.add_argument("--venv", default=".venv", metavar="DIR", help="default: .venv")
    parser.add_argument("--no-build", action="store_true", help="leave the extension alone")
    arguments = parser.parse_args()
    environment = Environment(ROOT / arguments.venv)
    run_directory = ROOT / ".run"
    run_directory.mkdir(exist_ok=True)
    with open(run_directory / "setup.lock", "w") as lock:  # two `make` at once take turns
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            # Said before anything is downloaded.
            if not arguments.no_build and not environment.is_built() and shutil.which("cargo") is None:
                raise SetupError("cargo not found: install Rust 1.88 or newer (Debian's is older; see rust-lang.org)")
            environment.ensure()
            environment.install(arguments.groups if arguments.no_build else ["build", *arguments.groups])
            if not arguments.no_build:
                environment.build()
        except SetupError as error:
            print(f"setup: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
