#!/usr/bin/env python3
"""`make bench-food`: the example's view beside what else a Django team would use, one worker each.

Every rival runs the very view of the example, but for the async one, which is the same in async style. The kitchen
takes 50 ms. The server has core 0; the generator, the kitchen and PostgreSQL have core 1. Everybody has at most 20
database connections, and keeps its own defaults otherwise, but for what would refuse the load: backlog and connections.
Rounds are interleaved, so that a noisy moment hits everyone; medians are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field

import support
from postgres import Postgres
from processes import Service, ServiceError, free_port, raise_descriptor_limit
from services import Kitchen, environment, manage

SITE = support.ROOT / "bench" / "food_site"
EXAMPLE = support.ROOT / "examples" / "food_delivery"
PACKAGE = support.ROOT / "bindings" / "python" / "python"
IN_FLIGHT = (50, 500, 2000)


@dataclass
class Rival:
    """A server with its command, and the figures of each round by the number in flight."""

    name: str
    command: list[str]
    stock: bool = True
    path: str = "/orders/"
    figures: dict[int, list[dict[str, float]]] = field(default_factory=dict)

    def start(self, env: dict[str, str]) -> Service:
        port = free_port()
        command = [word.replace("PORT", str(port)) for word in self.command]
        search = os.pathsep.join(map(str, (SITE, EXAMPLE, PACKAGE)))
        env = env | {"PYTHONPATH": search, "DJANGO_SETTINGS_MODULE": "food_bench_settings"}
        if self.stock:
            env["BENCH_STOCK"] = "1"
        service = Service(self.name, command, env=env, cwd=SITE, core=support.SERVER_CORE)
        return service.wait_for_port(("127.0.0.1", port))


def rivals() -> list[Rival]:
    balrog = [sys.executable, "-m", "balrog", "serve", "food_bench_wsgi", "--bind", "127.0.0.1:PORT", "--no-access-log"]
    gunicorn = support.rival("gunicorn", "--bind", "127.0.0.1:PORT", "--no-control-socket", "--keep-alive", "60")
    gunicorn += ["--backlog", "4096", "food_bench_wsgi:application"]
    uvicorn = support.rival("uvicorn", "--host", "127.0.0.1", "--port", "PORT", "--no-access-log", "--backlog", "4096")
    uvicorn += ["--loop", "uvloop", "--http", "httptools", "food_bench_asgi:application"]
    return [
        Rival("balrog", balrog, stock=False),
        Rival("gunicorn gevent", [*gunicorn, "-k", "gevent", "--worker-connections", "4000"]),
        Rival("gunicorn gthread", [*gunicorn, "-k", "gthread", "--threads", "200"]),
        Rival("uvicorn async view", uvicorn, path="/async-orders/"),
    ]


def measure(rival: Rival, in_flight: int, env: dict[str, str], seconds: float) -> None:
    with rival.start(env) as service:
        port = str(service.address[1])
        generator = [sys.executable, str(support.ROOT / "bench" / "load.py")]
        options = ["--port", port, "--path", rival.path, "--connections", str(in_flight), "--seconds", str(seconds)]
        done = subprocess.run([*generator, *options], capture_output=True, text=True, timeout=seconds + 120)
        if done.returncode != 0:
            raise ServiceError(f"the generator failed:\n{done.stderr}")
        figures = json.loads(done.stdout)
        figures["memory"] = service.memory() / 2**20
    rival.figures.setdefault(in_flight, []).append(figures)


def report(measured: list[Rival], in_flight: int) -> str:
    def middle(rival: Rival, name: str) -> float:
        return support.median([figures[name] for figures in rival.figures.get(in_flight, [])])

    others = [middle(rival, "rate") for rival in measured if rival.name != "balrog"]
    best = max((rate for rate in others if rate == rate), default=float("nan"))
    rows = []
    for rival in measured:
        rate = middle(rival, "rate")
        rows.append(
            [
                rival.name,
                f"{rate:,.0f}",
                f"{rate / best:.2f}",
                f"{middle(rival, 'p50'):,.0f}",
                f"{middle(rival, 'p99'):,.0f}",
                f"{middle(rival, 'memory'):,.0f}",
                f"{sum(figures['errors'] for figures in rival.figures.get(in_flight, [])):,.0f}",
            ]
        )
    header = ["server", "orders/s", "/best rival", "p50 ms", "p99 ms", "MiB", "errors"]
    return f"{in_flight:,} in flight\n" + support.table(header, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description="The example's view beside other ways to serve it.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of one measurement")
    parser.add_argument("--only", default="", help="names with one of these words, comma-separated")
    parser.add_argument("--in-flight", type=int, nargs="*", default=list(IN_FLIGHT))
    arguments = parser.parse_args()
    support.need_two_cores()
    raise_descriptor_limit(8_192)
    support.leave_the_servers_core()
    words = arguments.only.split(",")
    measured = [rival for rival in rivals() if any(word in rival.name for word in words)]
    with Postgres() as postgres, Kitchen(0.05) as kitchen:
        env = environment(postgres, kitchen.url)
        manage(["migrate", "--verbosity", "0"], env)
        for round_number in range(arguments.rounds):
            for in_flight in arguments.in_flight:
                for rival in measured:
                    print(f"round {round_number + 1}, {in_flight} in flight: {rival.name}", file=sys.stderr)
                    try:
                        measure(rival, in_flight, env, arguments.seconds)
                    except (ServiceError, subprocess.TimeoutExpired) as error:
                        print(f"  {rival.name}: {error}", file=sys.stderr)
    print(f"the food delivery's view, kitchen 50 ms, one worker each, {arguments.rounds} rounds\n")
    print("\n\n".join(report(measured, in_flight) for in_flight in arguments.in_flight))
    return 0


if __name__ == "__main__":
    sys.exit(main())
