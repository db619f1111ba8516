"""What both benchmarks need: rivals' programs, pinned cores, figures side by side."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "examples" / "food_delivery")]

#: The rivals' environment, apart from the project's own.
RIVALS = ROOT / ".venv-bench" / "bin"
SERVER_CORE, CLIENT_CORE = 0, 1


def rival(program: str, *arguments: str) -> list[str]:
    """A rival's command line."""
    return [str(RIVALS / program), *arguments]


def have(python: Path, module: str) -> bool:
    """Whether this interpreter can import `module`."""
    return subprocess.run([str(python), "-c", f"import {module}"], capture_output=True).returncode == 0


def install_optional(package: str, debian: tuple[str, ...] = (), needs: tuple[str, ...] = ()) -> tuple[Path, str]:
    """Installs a rival that has to be compiled, on the newest interpreter on which it builds and can be imported.

    Returns that interpreter, and why there is none.
    """
    if debian and os.geteuid() == 0 and shutil.which("apt-get"):
        apt_install(*debian)
    problem = ""
    for python in interpreters():
        if have(python, package):
            return python, ""
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *needs, package]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode == 0 and have(python, package):
            return python, ""
        lines = [line for line in (done.stderr or done.stdout).splitlines() if "error" in line.lower()]
        problem = problem or (lines[0].strip() if lines else "it does not build here")
    return RIVALS / "python", problem


def interpreters() -> Iterator[Path]:
    """The rivals' own environment; then one for each older Python that is to be found, made when asked for."""
    yield RIVALS / "python"
    listed = subprocess.run([str(ROOT / "scripts" / "python"), "--all"], capture_output=True, text=True).stdout
    seen = set()
    for base in listed.split():
        version = subprocess.run([base, "-c", "import sys; print(*sys.version_info[:2], sep='.')"], capture_output=True)
        minor = version.stdout.decode().strip()
        if minor in seen:
            continue
        seen.add(minor)
        directory = RIVALS.parent.with_name(f".venv-bench-{minor}")
        if len(seen) == 1 or subprocess.run([base, "-m", "venv", str(directory)], capture_output=True).returncode:
            # The newest is the rivals' own.
            continue
        yield directory / "bin" / "python"


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
