#!/usr/bin/env python3
"""`make bench-rust`: the Rust API beside its rivals, in its own modes and theirs, one thread each.

A task's begin and end, a switch, a wake: beside tokio and may. An HTTP hello with 64 keep-alive connections, and the
memory of 18,000 idle ones: beside hyper and may_minihttp. Queries on a private PostgreSQL, small ones (in one
session, in 16 at once, in a pipeline) and of 1,000 rows: beside tokio-postgres, which prepares its statement once;
with the processor's time that the client takes for each answer.
The server has core 0, the generator core 1 (for queries the client has core 0, PostgreSQL both); rounds are interleaved
and medians printed.
"""

from __future__ import annotations

import argparse
import itertools
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
QUERIES = {
    "sequential": "a row by its key, one session",
    "sessions": "a row by its key, 16 sessions at once",
    "pipelined": "a row by its key, 100 in a pipeline, a Sync each",
    "rows": "rows of 6 columns, 1,000 a query",
}


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
    """The tables of the PostgreSQL clients, one for each kind of work."""
    names = [*MODES, "tokio-postgres"]
    figures: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with Postgres() as server:
        for number in range(rounds):
            for work, name in itertools.product(QUERIES, names):
                print(f"round {number + 1} of {rounds}: {work} by {name}", file=sys.stderr)
                command = ["taskset", "-c", str(support.SERVER_CORE), program("postgres"), name, server.host, work]
                printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                rate, spent = map(float, printed.split())
                figures.setdefault((work, name), []).append((rate, spent))
    tables = []
    for work, title in QUERIES.items():
        medians = {name: [support.median(list(it)) for it in zip(*figures[work, name], strict=True)] for name in names}
        rival_rate, rival_spent = medians["tokio-postgres"]
        rows = []
        for name, (rate, spent) in medians.items():
            shown = f"balrog, {name}" if name in MODES else name
            rows.append(
                [shown, f"{rate:,.0f}", f"{rate / rival_rate:.2f}", f"{spent:.2f}", f"{spent / rival_spent:.2f}"]
            )
        header = ["client", "per second", "/tokio-postgres", "CPU us each", "/tokio-postgres"]
        tables.append(f"{title}\n\n{support.table(header, rows)}")
    return "\n\n".join(tables)


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
    print(f"\nPostgreSQL, {arguments.rounds} rounds\n\n{queries(arguments.rounds)}")


if __name__ == "__main__":
    main()
