#!/usr/bin/env python3
"""What a task costs: balrog beside gevent, asyncio, uvloop and the bridges of SQLAlchemy and greenback.

    make bench-tasks                    # all rows, 7 rounds
    python bench/tasks.py --rounds 3 --only yield

Every contender of a row runs once a round, in turn, in this one process; the median of the rounds counts. Time is the
processor's, which is the wall's on a quiet machine, for nothing here waits for anything outside. Memory is
measured in processes of its own. "Deep" means 40 Python frames down, as a Django view is.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import balrog

DEPTH = 40
TASKS = 100

#: One measurement: nanoseconds an operation.
Measure = Callable[[], float]


def down(depth: int, fn: Callable[[], Any]) -> Any:
    return fn() if depth <= 0 else down(depth - 1, fn)


async def adown(depth: int, fn: Callable[[], Any]) -> Any:
    return await fn() if depth <= 0 else await adown(depth - 1, fn)


def on_uvloop(main: Any) -> Any:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


LOOPS = {"asyncio": asyncio.run, "uvloop": on_uvloop}


async def noop() -> None:
    pass


def plain() -> None:
    pass


# Yielding.


def balrog_yield(depth: int, tasks: int = TASKS, turns: int = 200) -> float:
    def work() -> None:
        for _ in range(turns):
            balrog.sleep(0)

    def main() -> float:
        start = time.process_time_ns()
        spawned = [balrog.spawn(down, depth, work) for _ in range(tasks)]
        for task in spawned:
            task.join()
        return (time.process_time_ns() - start) / (tasks * turns)

    return balrog.run(main)


def gevent_yield(depth: int, tasks: int = TASKS, turns: int = 200) -> float:
    import gevent

    def work() -> None:
        for _ in range(turns):
            gevent.sleep(0)

    start = time.process_time_ns()
    gevent.joinall([gevent.spawn(down, depth, work) for _ in range(tasks)])
    return (time.process_time_ns() - start) / (tasks * turns)


def loop_yield(loop: str, depth: int, tasks: int = TASKS, turns: int = 200) -> float:
    async def work() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)

    async def main() -> float:
        start = time.process_time_ns()
        await asyncio.gather(*(adown(depth, work) for _ in range(tasks)))
        return (time.process_time_ns() - start) / (tasks * turns)

    return LOOPS[loop](main())


# Waiting inside of a running loop.


def guest_yield(loop: str, depth: int, turns: int = 200) -> float:
    def work() -> None:
        for _ in range(turns):
            balrog.sleep(0)

    async def main() -> float:
        start = time.process_time_ns()
        await asyncio.gather(*(balrog.as_async(down)(depth, work) for _ in range(TASKS)))
        return (time.process_time_ns() - start) / (TASKS * turns)

    return LOOPS[loop](main())


def bridge_yield(loop: str, depth: int, turns: int = 200) -> float:
    from sqlalchemy.util import await_only, greenlet_spawn

    def work() -> None:
        for _ in range(turns):
            await_only(asyncio.sleep(0))

    async def main() -> float:
        start = time.process_time_ns()
        await asyncio.gather(*(greenlet_spawn(down, depth, work) for _ in range(TASKS)))
        return (time.process_time_ns() - start) / (TASKS * turns)

    return LOOPS[loop](main())


# Awaiting from synchronous code.


def balrog_await(make: Callable[[], Any], turns: int = 2000) -> float:
    def work() -> float:
        start = time.process_time_ns()
        for _ in range(turns):
            balrog.await_(make())
        return (time.process_time_ns() - start) / turns

    async def main() -> float:
        return await balrog.as_async(work)()

    return asyncio.run(main())


def sqlalchemy_await(make: Callable[[], Any], turns: int = 2000) -> float:
    from sqlalchemy.util import await_only, greenlet_spawn

    def work() -> float:
        start = time.process_time_ns()
        for _ in range(turns):
            await_only(make())
        return (time.process_time_ns() - start) / turns

    async def main() -> float:
        return await greenlet_spawn(work)

    return asyncio.run(main())


def greenback_await(make: Callable[[], Any], turns: int = 2000) -> float:
    import greenback

    async def main() -> float:
        await greenback.ensure_portal()
        start = time.process_time_ns()
        for _ in range(turns):
            greenback.await_(make())
        return (time.process_time_ns() - start) / turns

    return asyncio.run(main())


def entering(enter: Callable[[], Any], turns: int = 2000) -> float:
    async def main() -> float:
        await enter()
        start = time.process_time_ns()
        for _ in range(turns):
            await enter()
        return (time.process_time_ns() - start) / turns

    return asyncio.run(main())


def enter_sqlalchemy() -> Any:
    from sqlalchemy.util import greenlet_spawn

    return greenlet_spawn(plain)


def enter_greenback() -> Any:
    import greenback

    return greenback.with_portal_run(noop)


# Spawning.


def balrog_spawn(count: int = 2000) -> float:
    def main() -> float:
        start = time.process_time_ns()
        for _ in range(count):
            balrog.spawn(plain).join()
        return (time.process_time_ns() - start) / count

    return balrog.run(main)


def gevent_spawn(count: int = 2000) -> float:
    import gevent

    start = time.process_time_ns()
    for _ in range(count):
        gevent.spawn(plain).join()
    return (time.process_time_ns() - start) / count


def loop_spawn(loop: str, count: int = 2000) -> float:
    async def main() -> float:
        start = time.process_time_ns()
        for _ in range(count):
            await asyncio.create_task(noop())
        return (time.process_time_ns() - start) / count

    return LOOPS[loop](main())


ROWS: dict[str, dict[str, Measure]] = {
    "yield": {
        "balrog": lambda: balrog_yield(0),
        "gevent": lambda: gevent_yield(0),
        "asyncio": lambda: loop_yield("asyncio", 0),
        "uvloop": lambda: loop_yield("uvloop", 0),
    },
    "yield, deep": {
        "balrog": lambda: balrog_yield(DEPTH),
        "gevent": lambda: gevent_yield(DEPTH),
        "asyncio": lambda: loop_yield("asyncio", DEPTH),
        "uvloop": lambda: loop_yield("uvloop", DEPTH),
    },
    "yield, nobody else": {
        "balrog": lambda: balrog_yield(0, 1, 5000),
        "gevent": lambda: gevent_yield(0, 1, 5000),
        "asyncio": lambda: loop_yield("asyncio", 0, 1, 5000),
    },
    "wait inside asyncio": {
        "balrog": lambda: guest_yield("asyncio", 0),
        "sqlalchemy": lambda: bridge_yield("asyncio", 0),
    },
    "wait inside asyncio, deep": {
        "balrog": lambda: guest_yield("asyncio", DEPTH),
        "sqlalchemy": lambda: bridge_yield("asyncio", DEPTH),
    },
    "wait inside uvloop": {
        "balrog": lambda: guest_yield("uvloop", 0),
        "sqlalchemy": lambda: bridge_yield("uvloop", 0),
    },
    "wait inside uvloop, deep": {
        "balrog": lambda: guest_yield("uvloop", DEPTH),
        "sqlalchemy": lambda: bridge_yield("uvloop", DEPTH),
    },
    "spawn, run, join": {
        "balrog": balrog_spawn,
        "gevent": gevent_spawn,
        "asyncio": lambda: loop_spawn("asyncio"),
        "uvloop": lambda: loop_spawn("uvloop"),
    },
    "await_, no suspension": {
        "balrog": lambda: balrog_await(noop),
        "sqlalchemy": lambda: sqlalchemy_await(noop),
        "greenback": lambda: greenback_await(noop),
    },
    "await_ asyncio.sleep(0)": {
        "balrog": lambda: balrog_await(lambda: asyncio.sleep(0)),
        "sqlalchemy": lambda: sqlalchemy_await(lambda: asyncio.sleep(0)),
        "greenback": lambda: greenback_await(lambda: asyncio.sleep(0)),
    },
    "await as_async(noop)()": {
        "balrog": lambda: entering(balrog.as_async(plain)),
        "sqlalchemy": lambda: entering(enter_sqlalchemy),
        "greenback": lambda: entering(enter_greenback),
    },
}


# Memory, in a process of its own.


def rss() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory(contender: str, depth: int, count: int = 10_000) -> float:
    """Bytes a parked task takes."""
    if contender == "balrog":

        def main() -> float:
            before = rss()
            tasks = [balrog.spawn(down, depth, lambda: balrog.sleep(3600)) for _ in range(count)]
            balrog.sleep(0)
            took = (rss() - before) / count
            for task in tasks:
                task.cancel()
            return took

        return balrog.run(main)
    if contender == "gevent":
        import gevent

        gevent.sleep(0)
        before = rss()
        tasks = [gevent.spawn(down, depth, lambda: gevent.sleep(3600)) for _ in range(count)]
        gevent.sleep(0)
        took = (rss() - before) / count
        gevent.killall(tasks)
        return took

    async def main() -> float:
        await asyncio.sleep(0)
        before = rss()
        tasks = [asyncio.ensure_future(adown(depth, lambda: asyncio.sleep(3600))) for _ in range(count)]
        await asyncio.sleep(0)
        took = (rss() - before) / count
        for task in tasks:
            task.cancel()
        return took

    return asyncio.run(main())


def sleepers(count: int = 10_000) -> tuple[float, float]:
    """Wall and CPU seconds of that many tasks sleeping 1 s each."""

    def main() -> None:
        for task in [balrog.spawn(balrog.sleep, 1) for _ in range(count)]:
            task.join()

    before, start = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    balrog.run(main)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - start, cpu


def apart(*arguments: str) -> list[float]:
    """What this program prints when it is run with the arguments."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def measure(rows: dict[str, dict[str, Measure]], rounds: int) -> dict[str, dict[str, float]]:
    seen: dict[str, dict[str, list[float]]] = {row: {name: [] for name in names} for row, names in rows.items()}
    for _ in range(rounds):
        for row, contenders in rows.items():
            for name, one in contenders.items():
                gc.collect()
                seen[row][name].append(one())
    return {row: {name: statistics.median(times) for name, times in names.items()} for row, names in seen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="default: 7")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name has it")
    parser.add_argument("--memory", nargs=2, metavar=("CONTENDER", "DEPTH"), help=argparse.SUPPRESS)
    parser.add_argument("--sleepers", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        print(memory(arguments.memory[0], int(arguments.memory[1])))
        return
    if arguments.sleepers:
        print(*sleepers())
        return
    print(f"Python {sys.version.split()[0]}; microseconds an operation, medians of {arguments.rounds} rounds")
    rows = {row: contenders for row, contenders in ROWS.items() if arguments.only in row}
    for row, medians in measure(rows, arguments.rounds).items():
        print(f"{row:28}", *(f"{name} {value / 1000:.2f}" for name, value in medians.items()), sep="  ")
    for depth, row in ((0, "parked task, KiB"), (DEPTH, "parked task, deep, KiB")):
        if arguments.only in row:
            sizes = {name: apart("--memory", name, str(depth))[0] for name in ("balrog", "gevent", "asyncio")}
            print(f"{row:28}", *(f"{name} {size / 1024:.1f}" for name, size in sizes.items()), sep="  ")
    row = "10,000 sleep 1 s"
    if arguments.only in row:
        wall, cpu = apart("--sleepers")
        print(f"{row:28}  {wall:.2f} s wall, {cpu:.2f} s CPU")


if __name__ == "__main__":
    main()
