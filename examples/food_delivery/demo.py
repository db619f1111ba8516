#!/usr/bin/env python3
"""`make demo`: a thousand customers order at once, on one thread of a plain synchronous Django site.

Starts a private PostgreSQL, the kitchen and ``balrog serve``, connects the customers by WebSocket, places all orders
at once and prints what came of it; in a terminal it keeps the site up, otherwise it stops all that it started. Exit
status 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg
from customers import Customer
from services import Kitchen, Postgres, Service, environment, free_port, manage, serve

from processes import ServiceError, raise_descriptor_limit  # isort: skip  (services.py leads to it)

#: Customers whose page is opened at the same time, while they arrive.
ARRIVING = 50
CLEAR_LINE = "\r\033[K"
MESSAGE = re.compile(r"Order #(\d+) will be delivered in (\d+) minutes\.")


@dataclass
class Outcome:
    """What the customers saw."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list[float])
    orders: set[int] = field(default_factory=set[int])
    delivered: int = 0
    errors: list[str] = field(default_factory=list[str])


class Watch:
    """Samples the server's threads, the database's connections and the orders in flight: saved, not answered."""

    def __init__(self, site: Service, postgres: Postgres, outcome: Outcome) -> None:
        self.threads = 0
        self.connections = 0
        self.in_flight = 0
        self._site = site
        self._outcome = outcome
        self._database = psycopg.connect(
            host=postgres.host, user=postgres.user, dbname=postgres.database, autocommit=True, application_name="watch"
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._database.close()

    def _run(self) -> None:
        query = """
            SELECT (SELECT count(*) FROM pg_stat_activity
                    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()),
                   (SELECT count(*) FROM delivery_order)
        """
        before = -1
        while True:
            with contextlib.suppress(OSError):
                self.threads = max(self.threads, self._site.threads())
            connections, saved = self._database.execute(query).fetchone() or (0, 0)
            # Looked up after the database, so that what is answered meanwhile makes the figure smaller, not larger.
            answered = len(self._outcome.latencies)
            before = saved if before < 0 else before
            self.connections = max(self.connections, connections)
            self.in_flight = max(self.in_flight, saved - before - answered)
            if self._stop.wait(0.05):
                return


async def arrive(customers: list[Customer], progress: Callable[[str], None]) -> None:
    """Every customer opens the page and its WebSocket."""
    gate = asyncio.Semaphore(ARRIVING)
    done = 0

    async def one(customer: Customer) -> None:
        nonlocal done
        async with gate:
            await customer.visit()
            await customer.listen()
        done += 1
        progress(f"customers connected: {done:,} of {len(customers):,}")

    await asyncio.gather(*map(one, customers))


async def order_at_once(
    customers: list[Customer], outcome: Outcome, progress: Callable[[str], None], timeout: float = 60.0
) -> None:
    """All customers order at the same time; each waits for its answer and its message."""
    start = time.monotonic()

    async def one(number: int, customer: Customer) -> None:
        try:
            async with asyncio.timeout(timeout):
                response = await customer.order({"dish": f"Dish {number}", "quantity": 1})
                outcome.latencies.append(time.monotonic() - start)
                progress(f"orders answered: {len(outcome.latencies):,} of {len(customers):,}")
                if response.status != 200:
                    raise RuntimeError(f"the order was answered {response.status}")
                minutes = response.json()["mins"]
                text = str(await customer.message())
                message = MESSAGE.fullmatch(text)
                # The minutes depend on the order's number, so another customer's message shows.
                if not message or int(message[2]) != minutes or 15 + int(message[1]) % 30 != minutes:
                    raise RuntimeError(f"not this customer's message: {text!r}")
                outcome.orders.add(int(message[1]))
                outcome.delivered += 1
        except Exception as error:
            outcome.errors.append(f"customer {number}: {error or type(error).__name__}")

    await asyncio.gather(*(one(number, customer) for number, customer in enumerate(customers)))
    outcome.seconds = time.monotonic() - start
    for customer in customers:
        if customer.websocket and not customer.websocket.messages.empty():
            outcome.errors.append("a customer got more than its own message")


class Progress:
    """One line on a terminal, a line a step elsewhere."""

    def __init__(self) -> None:
        self.tty = sys.stdout.isatty()
        self._last = 0.0

    def step(self, text: str) -> None:
        print(CLEAR_LINE * self.tty + text, flush=True)

    def update(self, text: str) -> None:
        now = time.monotonic()
        if self.tty and now - self._last > 0.05:
            self._last = now
            print(f"{CLEAR_LINE}  {text}", end="", flush=True)


def table(rows: list[tuple[str, str]]) -> str:
    """Two aligned columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of the sorted `values` do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def saved_orders(postgres: Postgres) -> set[int]:
    """Numbers of all orders in the table."""
    return {int(line) for line in postgres.execute("SELECT id FROM delivery_order", postgres.database).split()}


async def customers_order(site: Service, postgres: Postgres, count: int, progress: Progress) -> tuple[Outcome, Watch]:
    """The customers' whole visit: the outcome and what the watch saw."""
    customers = [Customer(site.address) for _ in range(count)]
    try:
        await arrive(customers, progress.update)
        progress.step(f"{count:,} customers connected by WebSocket; placing {count:,} orders at once")
        outcome = Outcome()
        with Watch(site, postgres, outcome) as watch:
            await order_at_once(customers, outcome, progress.update)
        return outcome, watch
    finally:
        for customer in customers:
            customer.leave()


def run(count: int, delay: float, stay: bool) -> int:
    """The demo; returns the exit status."""
    progress = Progress()
    raise_descriptor_limit(3 * count + 200)
    with contextlib.ExitStack() as stack:
        progress.step("starting a private PostgreSQL, the kitchen and the site")
        postgres = stack.enter_context(Postgres(database="food_delivery"))
        kitchen = stack.enter_context(Kitchen(delay))
        env = environment(postgres, kitchen.url)
        manage(["migrate", "--verbosity", "0"], env)
        site = stack.enter_context(serve(env, free_port(8000)))
        kitchen.reset()
        outcome, watch = asyncio.run(customers_order(site, postgres, count, progress))
        stats = kitchen.stats()
        missing = count - len(outcome.orders & saved_orders(postgres))
        rows = [
            ("wall time", f"{outcome.seconds:.2f} s  (one after another: {count * delay:,.0f} s)"),
            (
                "answer p50 / p99",
                f"{percentile(outcome.latencies, 0.5):.2f} / {percentile(outcome.latencies, 0.99):.2f} s",
            ),
            ("peak in flight", f"{watch.in_flight:,} orders saved and not answered"),
            ("peak in the kitchen", f"{stats['peak']:,} orders at once"),
            ("server's threads", f"{watch.threads}"),
            ("database connections", f"{watch.connections} at most"),
            ("messages delivered", f"{outcome.delivered:,} of {count:,}"),
            ("errors", f"{len(outcome.errors)}"),
            ("server's memory", f"{site.memory(peak=True) / 2**20:.0f} MiB at the peak"),
        ]
        progress.step(f"\n{count:,} orders, each {delay * 1000:.0f} ms in the kitchen:\n{table(rows)}\n")
        for line in outcome.errors[:5]:
            print(f"  {line}", file=sys.stderr)
        failed = bool(outcome.errors) or outcome.delivered != count or missing or stats["served"] != count
        if missing:
            print(f"  {missing} orders are not in the table", file=sys.stderr)
        if failed:
            print(site.output()[-3000:], file=sys.stderr)
            return 1
        if stay:
            host, port = site.address
            print(f"The site is up: http://{host}:{port}/  (Ctrl-C stops it)", flush=True)
            signal.pause()
    return 0


def main() -> int:
    """Entry point of the command line."""
    parser = argparse.ArgumentParser(description="1,000 orders at once on one thread.")
    parser.add_argument("--orders", type=int, default=1000, metavar="N", help="customers and orders; default 1000")
    parser.add_argument("--delay", type=float, default=0.5, metavar="SECONDS", help="of the kitchen; default 0.5")
    parser.add_argument("--stop", action="store_true", help="do not keep the site up, in a terminal either")
    arguments = parser.parse_args()
    # A plain `kill` unwinds like Ctrl-C, so that whatever was started is stopped.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(143))
    try:
        return run(arguments.orders, arguments.delay, stay=sys.stdin.isatty() and not arguments.stop)
    except (ServiceError, RuntimeError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
        return 0


if __name__ == "__main__":
    sys.exit(main())
