#!/usr/bin/env python3
"""`make bench-rust`: the Rust API beside its rivals, in its own modes and theirs, one thread each.

A task's begin and end, a switch, a wake, a wait for a future of tokio's: beside tokio and may. HTTP with 64 keep-alive
connections, and the memory of 18,000 idle ones: beside hyper and may_minihttp; an HTTP client beside hyper's; both
beside a hand-written loop, the limit. A WebSocket echo beside fastwebsockets and tungstenite. Queries on a private
PostgreSQL, small ones (in one session, in 16 at once, in a pipeline) and of 1,000 rows: beside tokio-postgres, which
prepares its statement once. With each rate goes the processor's time of who is measured.

Who is measured has core 0, the other side core 1; rounds are interleaved and medians printed.
"""

from __future__ import annotations

import argparse
import itertools
import math
import subprocess
import sys
from collections.abc import Callable, Iterable

import support
from plaintext import CONNECTIONS, Rival, idle_memory
from postgres import Postgres
from processes import Service, free_port, raise_descriptor_limit

HERE = support.ROOT / "bench" / "rust"
MODES = ("native", "tokio", "async-io", "blocking")
# As many as the rivals held where they were compared first.
IDLE = 18_000
# What each does is told in src/bin/sched.rs.
SCHEDULERS = ("balrog", "tokio", "may")
SCHEDULING = {"spawn": 300_000, "switch": 1_000_000, "ping-pong": 500_000, "wait": 1_000_000}
REQUESTS = {
    "plain": "HTTP hello, the smallest request",
    "browser": "HTTP hello, a browser's head of 713 bytes",
    "pipelined": "HTTP hello, 16 requests in a pipeline",
}
CLIENTS = {"1": "HTTP client, one request after the other", "64": "HTTP client, 64 at once"}
ECHOES = {str(length): f"WebSocket echo, messages of {length:,} bytes" for length in (32, 1024, 65_536)}
WEBSOCKETS = 32
QUERIES = {
    "sequential": "PostgreSQL, a row by its key, one session",
    "sessions": "PostgreSQL, a row by its key, 16 sessions at once",
    "pipelined": "PostgreSQL, a row by its key, 100 in a pipeline, a Sync each",
    "rows": "PostgreSQL, rows of 6 columns, 1,000 a query",
}


def printed(core: int, name: str, *words: str) -> list[float]:
    """The figures that one of our programs prints, on that core."""
    command = ["taskset", "-c", str(core), program(name), *words]
    return [float(word) for word in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()]


def program(name: str) -> str:
    return str(HERE / "target" / "release" / name)


Figures = dict[tuple[str, str], list[float]]


def interleaved(
    rounds: int, works: Iterable[str], names: Iterable[str], measure: Callable[[str, str], list[float]]
) -> Figures:
    """Of each work by each name, the medians of what was measured in all rounds."""
    figures: dict[tuple[str, str], list[list[float]]] = {}
    for number, work, name in itertools.product(range(rounds), works, names):
        print(f"round {number + 1} of {rounds}: {work} by {name}", file=sys.stderr)
        figures.setdefault((work, name), []).append(measure(work, name))
    return {key: [support.median(list(column)) for column in zip(*them, strict=True)] for key, them in figures.items()}


def tables(titles: dict[str, str], figures: Figures, rivals: tuple[str, ...], limit: tuple[str, ...] = ()) -> str:
    """A table for each work: rates beside those of each rival and the limit, CPU beside the best rival's.

    The figures are: how many a second, the CPU's microseconds for each, and the 99th percentile where there is one.
    """
    parts = []
    for work, title in titles.items():
        those = {name: them for (of, name), them in figures.items() if of == work}
        others = (*rivals, *limit)
        best = min(rivals, key=lambda name: those[name][1])
        rows = []
        for name, (rate, spent, *latency) in those.items():
            ratios = [f"{rate / those[other][0]:.2f}" for other in others]
            cpu = [f"{spent:.2f}", f"{spent / those[best][1]:.2f}", *(f"{value:.2f}" for value in latency)]
            rows.append([f"balrog, {name}" if name in MODES else name, f"{rate:,.0f}", *ratios, *cpu])
        columns = len(rows[0])
        header = ["", "per second", *(f"/{other}" for other in others), "CPU us each", f"/{best}", "p99 ms"]
        parts.append(f"{title}\n\n{support.table(header[:columns], rows)}")
    return "\n\n".join(parts)


def scheduler(arguments: argparse.Namespace) -> str:
    """The table of the schedulers: nanoseconds each, one thread."""

    def measure(work: str, name: str) -> list[float]:
        if (work, name) == ("wait", "may"):
            return [math.nan]
        return printed(support.SERVER_CORE, "sched", name, work, str(SCHEDULING[work]))

    figures = interleaved(arguments.rounds, SCHEDULING, SCHEDULERS, measure)
    rows = [[name, *(f"{figures[work, name][0]:,.0f}" for work in SCHEDULING)] for name in SCHEDULERS]
    rivals = {work: min(figures[work, name][0] for name in ("tokio", "may")) for work in SCHEDULING}
    rows.append(["balrog / best rival", *(f"{figures[work, 'balrog'][0] / rivals[work]:.2f}" for work in SCHEDULING)])
    header = ["nanoseconds of CPU", "spawn + join", "switch", "ping-pong, 2 wakes", "wait for a future of tokio's"]
    more = figures["wait", "balrog"][0] - figures["wait", "tokio"][0]
    return f"{support.table(header, rows)}\n\nA wait for a future of tokio's, over awaiting it: {more:+.0f} ns"


def served(server: str, connections: int, seconds: float) -> Callable[[str, str], list[float]]:
    """Measures our program `server`, asked over so many connections."""

    def measure(work: str, name: str) -> list[float]:
        with Rival(name, [program(server), name, "127.0.0.1:PORT"]).start() as service:
            address = "{}:{}".format(*service.address)
            before = service.cpu_seconds()
            asking = (address, work, str(connections), str(seconds))
            rate, latency, count = printed(support.CLIENT_CORE, "load", *asking)
            return [rate, (service.cpu_seconds() - before) * 1e6 / count, latency]

    return measure


def http(arguments: argparse.Namespace) -> str:
    """The HTTP servers' tables."""
    rivals, limit = ("hyper", "may_minihttp"), ("limit",)
    measure = served("hello", CONNECTIONS, arguments.seconds)
    figures = interleaved(arguments.rounds, REQUESTS, (*MODES, *rivals, *limit), measure)
    return tables(REQUESTS, figures, rivals, limit)


def websocket(arguments: argparse.Namespace) -> str:
    """The WebSocket servers' tables."""
    rivals = ("fastwebsockets", "tungstenite")
    measure = served("echo", WEBSOCKETS, arguments.seconds)
    return tables(ECHOES, interleaved(arguments.rounds, ECHOES, (*MODES, *rivals), measure), rivals)


def client(arguments: argparse.Namespace) -> str:
    """The HTTP clients' tables."""
    rivals, limit = ("hyper",), ("limit",)
    address = f"127.0.0.1:{free_port()}"
    command = [program("hello"), "limit", address]
    with Service("hello", command, core=support.CLIENT_CORE) as server:
        server.wait_for_port(("127.0.0.1", int(address.rpartition(":")[2])))

        def measure(work: str, name: str) -> list[float]:
            return printed(support.SERVER_CORE, "client", name, address, work)

        figures = interleaved(arguments.rounds, CLIENTS, (*MODES, *rivals, *limit), measure)
    return tables(CLIENTS, figures, rivals, limit)


def queries(arguments: argparse.Namespace) -> str:
    """The tables of the PostgreSQL clients."""
    rivals = ("tokio-postgres",)
    with Postgres() as server:

        def measure(work: str, name: str) -> list[float]:
            return printed(support.SERVER_CORE, "postgres", name, server.host, work)

        figures = interleaved(arguments.rounds, QUERIES, (*MODES, *rivals), measure)
    return tables(QUERIES, figures, rivals)


def memory(arguments: argparse.Namespace) -> str:
    """The table of the memory of idle connections."""
    # In blocking mode there are no more connections than threads: 512.
    names = [name for name in MODES if name != "blocking"] + ["hyper", "may_minihttp"]
    rows = []
    for name in names:
        rival = Rival(name, [program("hello"), name, "127.0.0.1:PORT"])
        idle_memory(rival, arguments.idle)
        rows.append([name, f"{rival.idle_bytes[0] / 1024:.2f}" if rival.idle_bytes else rival.problem])
    return support.table(["server", f"KiB an idle connection of {arguments.idle:,}"], rows)


PARTS = {
    "scheduler": scheduler,
    "http": http,
    "memory": memory,
    "client": client,
    "websocket": websocket,
    "postgres": queries,
}


def main() -> None:
    """Entry point of the command line."""
    parser = argparse.ArgumentParser(description="The Rust API beside its rivals.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one measurement of a server")
    parser.add_argument("--idle", type=int, default=IDLE, metavar="N", help="idle connections")
    parser.add_argument("--parked", type=int, metavar="N", help="only the memory of N tasks that wait")
    arguments = parser.parse_args()
    support.need_two_cores()
    raise_descriptor_limit(arguments.idle + 500)
    build = ["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", str(HERE / "Cargo.toml")]
    subprocess.run(build, check=True)
    if arguments.parked:
        [size] = printed(support.SERVER_CORE, "sched", "balrog", "parked", str(arguments.parked))
        print(f"{arguments.parked:,} parked tasks, each stack guarded: {size / 1024:.2f} KiB each")
        return
    for part in arguments.only:
        print(f"{PARTS[part](arguments)}\n", flush=True)


if __name__ == "__main__":
    main()
