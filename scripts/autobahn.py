#!/usr/bin/env python3
"""Runs the cases of the Autobahn test suite against both roles of balrog-proto's WebSocket: ``make autobahn``.

    .venv/bin/python scripts/autobahn.py             # all 517, some minutes
    .venv/bin/python scripts/autobahn.py '6.*' 9.1.1 # some of them

The peers are the examples ``websocket_echo_server`` and ``websocket_echo_client``; ``kosoku`` drives the cases. Each
has to be OK, in what it does and in how it closes; NON-STRICT is a failure. Three cases are INFORMATIONAL by
definition: whatever a peer does there is right.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: What a few seconds are enough for: everything but large messages (9) and compression (12, 13).
CORE = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*")
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}

#: Per case, what it did and how it closed.
Results = dict[str, tuple[str, str]]


def build(profile: str = "dev") -> Path:
    """Builds the examples; where they are."""
    command = ["cargo", "build", "--locked", "--quiet", "--package", "balrog-proto", "--examples", "--profile", profile]
    done = subprocess.run([*command, "--message-format=json"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "websocket_echo_server":
            return Path(message["executable"]).parent
    raise RuntimeError("cargo does not say where the examples are")


def of_server(programs: Path, cases: tuple[str, ...], timeout: float) -> Results:
    """What the server's side does with these cases."""
    with running([programs / "websocket_echo_server", "127.0.0.1:0"]) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        with tempfile.TemporaryDirectory() as directory:
            fuzz = kosoku("fuzzingclient", cases, directory, address)
            # It exits with the number of cases that failed; the report says which.
            subprocess.run(fuzz, stdout=subprocess.DEVNULL, check=False, timeout=timeout)
            return report(directory)


def of_client(programs: Path, cases: tuple[str, ...], timeout: float) -> Results:
    """What the client's side does with these cases."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (
        tempfile.TemporaryDirectory() as directory,
        running(kosoku("fuzzingserver", cases, directory, address)) as server,
    ):
        until = time.monotonic() + 20
        while not listens(address):
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the fuzzing server does not listen")
            time.sleep(0.05)
        client = [programs / "websocket_echo_client", address]
        subprocess.run(client, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=timeout)
        # It ends once its client has asked for the reports.
        server.wait(60)
        return report(directory)


def failures(results: Results) -> list[str]:
    """The cases that are not as strict as can be."""
    return [
        f"{case}: {behavior}, close {close}"
        for case, (behavior, close) in results.items()
        if {behavior, close} != {"OK"} and not (case in INFORMATIONAL and {behavior, close} == {"INFORMATIONAL"})
    ]


def kosoku(mode: str, cases: tuple[str, ...], directory: str, address: str) -> list[str | Path]:
    program = Path(sys.executable).parent / "kosoku"
    included = [word for case in cases for word in ("-i", case)]
    return [program, "-m", mode, *included, "-o", directory, address]


def report(directory: str) -> Results:
    (agent,) = json.loads((Path(directory) / "index.json").read_text()).values()
    return {case: (result["behavior"], result["behaviorClose"]) for case, result in agent.items()}


def listens(address: str) -> bool:
    """Whether something listens there, without a connection: that would be a client."""
    port = int(address.rpartition(":")[2])
    wanted = f"0100007F:{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1] == wanted and line.split()[3] == "0A" for line in lines)


@contextlib.contextmanager
def running(command: list[str | Path]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", help="ids or patterns; all without any")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds for each role (3600)")
    arguments = parser.parse_args()
    programs = build("release")
    wrong = 0
    for role, run in (("server", of_server), ("client", of_client)):
        results = run(programs, tuple(arguments.cases), arguments.timeout)
        bad = failures(results)
        wrong += len(bad)
        counted = Counter(behavior for behavior, _ in results.values())
        print(f"{role}: {len(results)} cases, " + ", ".join(f"{n} {name}" for name, n in sorted(counted.items())))
        for line in bad:
            print(f"  {line}")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
