"""Server programs from Debian's packages, unpacked beside the checkout where none is installed."""

import os
import shutil
import subprocess
from pathlib import Path

RUN = Path(__file__).resolve().parents[3] / ".run" / "debian"


class Program:
    """A program with the environment that lets it find its libraries."""

    def __init__(self, path: Path, root: Path | None) -> None:
        self.path = path
        self.root = root
        self.environ = dict(os.environ)
        if root is not None:
            libraries = [str(path) for path in (root / "usr/lib/x86_64-linux-gnu", root / "usr/lib", root / "lib")]
            self.environ["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)


def program(name: str, package: str) -> Program:
    """The program ``name``, from PATH or else from ``package`` and what that depends on."""
    installed = shutil.which(name)
    if installed:
        return Program(Path(installed), None)
    root = RUN / package
    for directory in ("usr/sbin", "usr/bin"):
        if (root / directory / name).exists():
            return Program(root / directory / name, root)
    archives = RUN / "archives" / package
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    command = ["apt-get", "-y", "-qq", "--no-install-recommends", "--download-only", "-o", "Debug::NoLocking=1"]
    command += ["-o", f"Dir::Cache::archives={archives}", "install", package]
    subprocess.run(command, check=True, capture_output=True, timeout=90)
    unpacked = root.with_suffix(".new")
    shutil.rmtree(unpacked, ignore_errors=True)
    for archive in sorted(archives.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(archive), str(unpacked)], check=True)
    unpacked.rename(root)
    return program(name, package)
