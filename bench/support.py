"""What both benchmarks need: rivals' programs, pinned cores, figures side by side."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "examples" / "food_delivery")]

#: The rivals' environment, apart from the project's own.
RIVALS = ROOT / ".venv-bench" / "bin"
SERVER_CORE, CLIENT_CORE = 0, 1


def rival(program: str, *arguments: str) -> list[str]:
    """A rival's command line."""
    return [str(RIVALS / program), *arguments]


def have(module: str) -> bool:
    """Whether the rivals' environment can import `module`."""
    return subprocess.run([str(RIVALS / "python"), "-c", f"import {module}"], capture_output=True).returncode == 0


def install_optional(package: str, debian: tuple[str, ...] = ()) -> str:
    """Installs a rival that needs a compiler; returns why not, or nothing if it is there."""
    if have(package):
        return ""
    if debian and os.geteuid() == 0 and shutil.which("apt-get"):
        apt_install(*debian)
    pip = [str(RIVALS / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode == 0 and have(package):
        return ""
    lines = [line for line in (done.stderr or done.stdout).splitlines() if "error" in line.lower()]
    return lines[0].strip() if lines else "it does not build here"


def apt_install(*packages: str) -> bool:
    """Installs Debian's packages quietly; returns whether that worked."""
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, env=environment, capture_output=True).returncode == 0


def need_program(program: str, package: str) -> None:
    """Ends with a clear line unless `program` is there or can be installed."""
    if shutil.which(program) or (os.geteuid() == 0 and apt_install(package) and shutil.which(program)):
        return
    sys.exit(f"bench: {program} is needed: apt-get install {package}")


def need_two_cores() -> None:
    """Ends with a clear line on a machine where server and generator would share a core."""
    if not {SERVER_CORE, CLIENT_CORE} <= os.sched_getaffinity(0):
        sys.exit("bench: cores 0 and 1 are needed, one for the server and one for the generator")


def leave_the_servers_core() -> None:
    """From here on this process, and whatever it starts without a core of its own, is on the generator's."""
    os.sched_setaffinity(0, {CLIENT_CORE})


def median(values: list[float]) -> float:
    """The median, not-a-number for no values."""
    return statistics.median(values) if values else float("nan")


def table(header: list[str], rows: list[list[str]]) -> str:
    """Aligned columns, the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]))
    return "\n".join(lines)
