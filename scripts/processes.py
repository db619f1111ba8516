"""Services for the demo, the tests and the benchmarks: started in a group of their own, stopped whole, measured.

    with Service("site", [sys.executable, "-m", "balrog", "serve", ...], env=...) as site:
        site.wait_for_port(("127.0.0.1", 8000))
        site.threads(), site.memory()

Linux. Only the standard library is used.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class ServiceError(RuntimeError):
    """A service did not start or died; the message carries the end of its output."""


class Service:
    """A long-running process and its children. What it prints goes to a file, shown when it fails."""

    def __init__(
        self,
        name: str,
        command: list[str],
        *,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        core: int | None = None,
    ) -> None:
        """Starts `command` with `env` added to our environment; pinned to `core` if one is given."""
        self.name = name
        self.address = ("", 0)
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as we do)

        def prepare() -> None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # ends with us, however we end
            if core is not None:
                os.sched_setaffinity(0, {core})

        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=os.environ | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            # Ctrl-C at the terminal is for whoever owns us, and a group can be stopped whole.
            start_new_session=True,
            preexec_fn=prepare,
        )
        self.pid = self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_for_port(self, address: tuple[str, int], timeout: float = 30.0) -> Service:
        """Returns when `address` takes connections; raises `ServiceError` if the service dies or is too slow."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(address, timeout=1):
                self.address = address
                return self
            time.sleep(0.05)
        self.stop()
        raise ServiceError(f"{self.name} did not start:\n{self.output()[-3000:]}")

    def stop(self, timeout: float = 10.0) -> int:
        """SIGTERM, then SIGKILL for whatever is left of the group; returns the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return self.process.wait()

    def output(self) -> str:
        """What the service has printed so far."""
        size = self._output.seek(0, os.SEEK_END)
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    def pids(self) -> list[int]:
        """The process and its descendants."""
        found, queue = [], [self.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            with contextlib.suppress(OSError):
                queue += [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return found

    def threads(self) -> int:
        """OS threads of the process alone."""
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def descriptors(self) -> int:
        """Open file descriptors of the process alone."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory(self, peak: bool = False) -> int:
        """Resident bytes of the process and its descendants (pages shared by forks counted each time)."""
        field = "VmHWM:" if peak else "VmRSS:"
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith(field):
                        total += int(line.split()[1]) * 1024
        return total

    def cpu_seconds(self) -> float:
        """CPU time used so far by the process and its living descendants."""
        ticks = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def free_port(preferred: int = 0) -> int:
    """`preferred` if nobody has it, else a free port of 127.0.0.1."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return probe.getsockname()[1]
    raise ServiceError("no free port")


def raise_descriptor_limit(needed: int) -> None:
    """Lifts the limit of open files for us and what we start; raises `ServiceError` where it cannot reach `needed`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ServiceError(f"at most {hard} files may be open here, and {needed} are needed: raise `ulimit -Hn`")
    soft = hard if hard != resource.RLIM_INFINITY else max(needed, 65536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
