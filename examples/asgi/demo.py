#!/usr/bin/env python3
"""1,000 requests at once to app.py, in this very process, on one thread. Starts a private PostgreSQL.

Prints what came of it; exit status 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scripts"))

from postgres import Postgres


async def load(requests: int, factory_name: str) -> int:
    import httpx
    from app import app

    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.ensure_future(tick())
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=500) as client:
        start = time.monotonic()
        paths = [f"/visits/guest-{n}" if n % 2 else "/stock/1" for n in range(requests)]
        answers = await asyncio.gather(*(client.get(path) for path in paths))
        seconds = time.monotonic() - start
    ticking.cancel()
    good = sum(answer.status_code == 200 for answer in answers)
    names = {answer.json()["name"] for answer in answers if "name" in answer.json()}
    left = min(answer.json()["left"] for answer in answers if "left" in answer.json())
    print(f"loop               {factory_name}")
    print(f"requests answered  {good} of {requests}")
    print(f"visits saved       {len(names)}")
    print(f"stock taken        {1_000_000 - left}")
    print(f"seconds            {seconds:.2f}")
    print(f"threads            {threading.active_count()}")
    print(f"loop ticks         {ticks}")
    halves = requests // 2
    return 0 if (good, len(names), left) == (requests, halves, 1_000_000 - (requests - halves)) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000, help="default: 1000")
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop")
    arguments = parser.parse_args()
    factory, name = asyncio.new_event_loop, "asyncio"
    if arguments.uvloop:
        import uvloop

        factory, name = uvloop.new_event_loop, "uvloop"
    with Postgres() as postgres:
        os.environ.update(postgres.environ())
        from app import create_tables, engine

        create_tables()
        with asyncio.Runner(loop_factory=factory) as runner:
            status = runner.run(load(arguments.requests, name))
        engine.dispose()
        from django.db import connections  # pyright: ignore[reportMissingTypeStubs]

        connections.close_all()
    return status


if __name__ == "__main__":
    sys.exit(main())
