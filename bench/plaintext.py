#!/usr/bin/env python3
"""`make bench-plaintext`: a WSGI hello beside other servers, one worker each.

Throughput with 64 keep-alive connections, and memory of 1,000 idle ones. The server has core 0, the generator (wrk)
core 1; rounds are interleaved, so that a noisy moment hits everyone; medians are printed, with the ratio to granian and
to the best.
"""

from __future__ import annotations

import argparse
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import support
from processes import Service, ServiceError, free_port, raise_descriptor_limit

HERE = Path(__file__).resolve().parent
CONNECTIONS = 64
IDLE = 1000


@dataclass
class Rival:
    """A server, how it is started on a port, and what was measured."""

    name: str
    command: list[str]
    rates: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    idle_bytes: list[float] = field(default_factory=list)
    problem: str = ""

    def start(self) -> Service:
        port = free_port()
        command = [word.replace("PORT", str(port)) for word in self.command]
        service = Service(self.name, command, cwd=HERE, core=support.SERVER_CORE)
        return service.wait_for_port(("127.0.0.1", port))


def rivals() -> list[Rival]:
    """Everyone that runs here, and a line for who does not."""
    gunicorn = support.rival("gunicorn", "--bind", "127.0.0.1:PORT", "--no-control-socket", "--keep-alive", "60")
    uvicorn = support.rival("uvicorn", "--host", "127.0.0.1", "--port", "PORT", "--no-access-log", "hello:asgi")
    # Unless told, granian takes as many connections as its backlog is long (1,024), gevent's worker 1,000.
    granian = support.rival("granian", "--interface", "wsgi", "--port", "PORT", "--no-ws")
    granian += ["--backlog", "4096", "--backpressure", "4096", "hello:application"]
    gevent = [*gunicorn, "-k", "gevent", "--worker-connections", "4000", "hello:application"]
    # Nobody else writes a line for each request here.
    balrog = [
        sys.executable,
        "-m",
        "balrog",
        "serve",
        "hello:application",
        "--bind",
        "127.0.0.1:PORT",
        "--no-access-log",
    ]
    found = [
        Rival("balrog", balrog),
        Rival("granian", granian),
        Rival("gunicorn gthread", [*gunicorn, "-k", "gthread", "--threads", "64", "hello:application"]),
        Rival("gunicorn gevent", gevent),
        Rival("uvicorn (ASGI)", [*uvicorn, "--loop", "uvloop", "--http", "httptools"]),
    ]
    # fastwsgi still imports pkg_resources, which setuptools has dropped.
    for name, debian, needs in (("bjoern", ("libev-dev", "gcc"), ()), ("fastwsgi", ("gcc",), ("setuptools<81",))):
        python, problem = support.install_optional(name, debian, needs)
        found.append(Rival(name, [str(python), "-W", "ignore", str(HERE / "hello.py"), name, "PORT"], problem=problem))
    return found


def throughput(rival: Rival, seconds: float) -> None:
    """One round of wrk."""
    with rival.start() as service:
        url = "http://{}:{}/".format(*service.address)
        wrk = ["taskset", "-c", str(support.CLIENT_CORE), "wrk", "-t1", f"-c{CONNECTIONS}", "--latency"]
        subprocess.run([*wrk, "-d1s", url], capture_output=True, check=True)  # warm up
        report = subprocess.run([*wrk, f"-d{seconds:.0f}s", url], capture_output=True, text=True, check=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", report)
    latency = re.search(r"99%\s+([\d.]+)(us|ms|s)", report)
    if not rate or not latency:
        raise ServiceError(f"wrk said of {rival.name}:\n{report}")
    rival.rates.append(float(rate[1]))
    rival.latencies.append(float(latency[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[latency[2]])
    bad = re.findall(r"Non-2xx or 3xx responses: (\d+)|(?:connect|read|write|timeout) (\d+)", report)
    rival.errors += sum(int(number) for pair in bad for number in pair if number)


def idle_memory(rival: Rival, idle: int = IDLE) -> None:
    """Bytes that the server's resident memory grows by, a kept connection that has been used once."""
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with rival.start() as service:
        connections: list[socket.socket] = []
        try:
            for number in range(idle + 100):
                connection = socket.create_connection(service.address, timeout=10)
                connections.append(connection)
                connection.sendall(request)
                if not connection.recv(4096).startswith(b"HTTP/1.1 200"):
                    raise ServiceError(f"{rival.name} did not answer connection {number}")
                if number == 99:  # the first hundred pay for code and pools
                    time.sleep(0.2)
                    before = service.memory()
            time.sleep(0.5)
            rival.idle_bytes.append((service.memory() - before) / idle)
        except OSError as error:
            rival.problem = rival.problem or f"{idle:,} idle connections: {error}"
        finally:
            for connection in connections:
                connection.close()


def report(measured: list[Rival]) -> str:
    """The figures of all, as a table."""
    rates = {rival.name: support.median(rival.rates) for rival in measured if rival.rates}
    best = max((rate for name, rate in rates.items() if name != "balrog"), default=float("nan"))
    granian = rates.get("granian", float("nan"))
    rows = []
    for rival in measured:
        if not rival.rates:
            continue
        rate = rates[rival.name]
        idle = f"{support.median(rival.idle_bytes) / 1024:.2f}" if rival.idle_bytes else "-"
        latency = f"{support.median(rival.latencies):.2f}"
        ratios = [f"{rate / granian:.2f}", f"{rate / best:.2f}"]
        rows.append([rival.name, f"{rate:,.0f}", *ratios, latency, str(rival.errors), idle])
    header = ["server", "req/s", "/granian", "/best rival", "p99 ms", "errors", "KiB/idle conn."]
    return support.table(header, rows)


def main() -> None:
    """Entry point of the command line."""
    parser = argparse.ArgumentParser(description="A WSGI hello beside other servers.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one measurement")
    parser.add_argument("--only", default="", help="names with one of these words, comma-separated")
    arguments = parser.parse_args()
    support.need_two_cores()
    support.need_program("wrk", "wrk")
    raise_descriptor_limit(IDLE + 500)
    words = arguments.only.split(",")
    chosen = [rival for rival in rivals() if any(word in rival.name for word in words)]
    for round_number in range(arguments.rounds):
        for rival in chosen:
            if rival.problem:
                continue
            print(f"round {round_number + 1} of {arguments.rounds}: {rival.name}", file=sys.stderr)
            try:
                throughput(rival, arguments.seconds)
                idle_memory(rival)
            except (ServiceError, subprocess.CalledProcessError) as error:
                rival.problem = str(error).strip().splitlines()[0]
    print(f"WSGI hello, one worker, {CONNECTIONS} keep-alive connections, {arguments.rounds} rounds\n")
    print(report(chosen))
    for rival in chosen:
        if rival.problem:
            print(f"{rival.name}: {rival.problem}")


if __name__ == "__main__":
    main()
