#!/usr/bin/env python3
"""`make bench-rust`: the Rust API beside its rivals, in its own modes and theirs, one thread each.

A task's begin and end, a switch, a wake: beside tokio and may. An HTTP hello with 64 keep-alive connections, and the
memory of 18,000 idle ones: beside hyper and may_minihttp. Small queries on a private PostgreSQL, one session and 16 at
once: beside tokio-postgres, which prepares its statement once.
The server has core 0, the generator core 1 (for queries the client has core 0, PostgreSQL both); rounds are interleaved
and medians printed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import support
from plaintext import CONNECTIONS, Rival, idle_memory, throughput
from postgres import Postgres
from processes import raise_descriptor_limit

HERE = support.ROOT / "bench" / "rust"
MODES = ("native", "tokio", "async-io", "blocking")
# As many as the rivals held where they were compared first.
IDLE = 18_000
SCHEDULERS = ("balrog", "tokio", "may")


def program(name: str) -> str:
    return str(HERE / "target" / "release" / name)


def hello(rounds: int, seconds: float, idle: int) -> str:
    """The HTTP servers' table."""
    names = [*MODES, "hyper", "may_minihttp"]
    measured = [Rival(name, [program("hello"), name, "127.0.0.1:PORT"]) for name in names]
    for number in range(rounds):
        for rival in measured:
            print(f"round {number + 1} of {rounds}: hello by {rival.name}", file=sys.stderr)
            throughput(rival, seconds)
            idle_memory(rival, idle)
    rates = {rival.name: support.median(rival.rates) for rival in measured}
    rows = []
    for rival in measured:
        ratios = [f"{rates[rival.name] / rates[other]:.2f}" for other in ("hyper", "may_minihttp")]
        latency = f"{support.median(rival.latencies):.2f}"
        # In blocking mode there are no more connections than threads: 512.
        idle = f"{support.median(rival.idle_bytes) / 1024:.2f}" if rival.idle_bytes else "-"
        name = f"balrog, {rival.name}" if rival.name in MODES else rival.name
        rows.append([name, f"{rates[rival.name]:,.0f}", *ratios, latency, str(rival.errors), idle])
    header = ["server", "req/s", "/hyper", "/may_minihttp", "p99 ms", "errors", "KiB/idle conn."]
    return support.table(header, rows)


def memory(idle: int) -> str:
    """The table of the memory of idle connections alone."""
    # In blocking mode there are no more connections than threads: 512.
    names = [name for name in MODES if name != "blocking"] + ["hyper", "may_minihttp"]
    rows = []
    for name in names:
        rival = Rival(name, [program("hello"), name, "127.0.0.1:PORT"])
        idle_memory(rival, idle)
        rows.append([name, f"{rival.idle_bytes[0] / 1024:.2f}" if rival.idle_bytes else rival.problem])
    return support.table(["server", f"KiB an idle connection of {idle:,}"], rows)


def scheduler(rounds: int) -> str:
    """The table of the schedulers: nanoseconds each, one thread."""
    counts = {"spawn": 300_000, "switch": 1_000_000, "ping-pong": 500_000}
    figures: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        for work, count in counts.items():
            for name in SCHEDULERS:
                print(f"round {number + 1} of {rounds}: {work} by {name}", file=sys.stderr)
                figures.setdefault((name, work), []).append(scheduler_figure(name, work, count))
    rows = [[name, *(f"{support.median(figures[name, work]):,.0f}" for work in counts)] for name in SCHEDULERS]
    return support.table(["scheduler", "spawn + join", "switch", "ping-pong, 2 wakes"], rows)


def scheduler_figure(name: str, work: str, count: int) -> float:
    """One figure of the program `sched`."""
    command = ["taskset", "-c", str(support.SERVER_CORE), program("sched"), name, work, str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def queries(rounds: int) -> str:
    """The table of the PostgreSQL clients."""
    rates: dict[str, list[list[float]]] = {name: [[], []] for name in (*MODES, "tokio-postgres")}
    with Postgres() as server:
        for number in range(rounds):
            for name, figures in rates.items():
                print(f"round {number + 1} of {rounds}: queries by {name}", file=sys.stderr)
                command = ["taskset", "-c", str(support.SERVER_CORE), program("postgres"), name, server.host]
                printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
                for rate, figure in zip(figures, printed, strict=True):
                    rate.append(float(figure))
    rows = []
    for name, figures in rates.items():
        cells = []
        for at, figure in enumerate(figures):
            rate = support.median(figure)
            cells += [f"{rate:,.0f}", f"{rate / support.median(rates['tokio-postgres'][at]):.2f}"]
        rows.append([f"balrog, {name}" if name in MODES else name, *cells])
    return support.table(["client", "1 session/s", "/tokio-postgres", "16 sessions/s", "/tokio-postgres"], rows)


def main() -> None:
    """Entry point of the command line."""
    parser = argparse.ArgumentParser(description="The Rust API beside its rivals.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one measurement of HTTP")
    parser.add_argument("--idle", type=int, default=IDLE, metavar="N", help="idle connections")
    parser.add_argument("--memory", action="store_true", help="only the memory of idle connections")
    parser.add_argument("--parked", type=int, metavar="N", help="only the memory of N tasks that wait")
    arguments = parser.parse_args()
    support.need_two_cores()
    support.need_program("wrk", "wrk")
    raise_descriptor_limit(arguments.idle + 500)
    build = ["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", str(HERE / "Cargo.toml")]
    subprocess.run(build, check=True)
    if arguments.parked:
        size = scheduler_figure("balrog", "parked", arguments.parked)
        print(f"{arguments.parked:,} parked tasks, each stack guarded: {size / 1024:.2f} KiB each")
        return
    if arguments.memory:
        print(memory(arguments.idle))
        return
    print(f"nanoseconds, one thread, {arguments.rounds} rounds\n\n{scheduler(arguments.rounds)}\n")
    http = hello(arguments.rounds, arguments.seconds, arguments.idle)
    connections = f"{CONNECTIONS} keep-alive connections, or {arguments.idle:,} idle ones"
    print(f"HTTP hello, one thread, {connections}, {arguments.rounds} rounds\n\n{http}")
    print(f"\na row by its key, {arguments.rounds} rounds\n\n{queries(arguments.rounds)}")


if __name__ == "__main__":
    main()
