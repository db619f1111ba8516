"""``balrog serve`` as a process of its own."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path


class Served:
    """A running server: its address, its process, and what it wrote to stderr."""

    def __init__(self, process: subprocess.Popen[str], ready: str) -> None:
        self.process = process
        self.ready = ready
        found = re.search(r"http://([^:]+):(\d+)", ready)
        self.host, self.port = (found[1], int(found[2])) if found else ("", 0)
        self._errors: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self._errors.extend(self.process.stderr)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def stop(self, number: int = signal.SIGTERM, timeout: float = 20) -> int:
        """Sends a signal and returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout)
        finally:
            self.process.kill()
            self._reader.join(5)

    @property
    def errors(self) -> str:
        return "".join(self._errors)

    def wait_for_error(self, text: str, timeout: float = 5) -> None:
        """Returns when ``text`` is in what the server wrote: its answer may be here before it."""
        until = time.monotonic() + timeout
        while text not in self.errors:
            assert time.monotonic() < until, f"{text!r} is not in {self.errors!r}"
            time.sleep(0.01)


@contextlib.contextmanager
def serving(
    directory: Path | str,
    application: str,
    *options: str,
    bind: str = "127.0.0.1:0",
    environ: dict[str, str] | None = None,
) -> Iterator[Served]:
    """Runs ``balrog serve APPLICATION`` in ``directory`` on a free port until the end of the block."""
    command = [sys.executable, "-m", "balrog", "serve", application, "--bind", bind, "--no-access-log", *options]
    process = subprocess.Popen(
        command, cwd=directory, stderr=subprocess.PIPE, text=True, env={**os.environ, **(environ or {})}
    )
    assert process.stderr is not None
    ready = process.stderr.readline()
    if "serving" not in ready:
        rest = process.communicate(timeout=10)[1]
        raise AssertionError(f"the server did not start: {ready}{rest}")
    served = Served(process, ready)
    try:
        yield served
    finally:
        served.stop()
