"""Cancels the example's view at each of its waits, one after another. Run by test_cancel.py, in a process of its own.

An order is placed and its task cancelled in its first wait, the next in its second, and so on, until an order has no so
many. Prints what came of it as a JSON object, for pools that have nothing yet, that have been used, that are exhausted.
"""

import json
import os
import time
import urllib.request

import balrog
import django
from balrog.django.postgresql import base
from django.conf import settings
from django.db import connection
from django.test import Client

django.setup()

from delivery.models import Order  # noqa: E402  (needs the app registry)

SESSIONS = """
    SELECT count(*), count(*) FILTER (WHERE state <> 'idle' AND pid <> pg_backend_pid())
    FROM pg_stat_activity WHERE application_name = 'site'
"""


def place(dish: str) -> int:
    """An order through the whole stack; the status of the answer."""
    return Client().post("/orders/", {"dish": dish, "quantity": 1}).status_code


def kitchen(method: str, path: str) -> dict[str, int]:
    """What the kitchen answers; asked past balrog, so that it costs none of its connections."""
    url = settings.KITCHEN_SERVICE.replace("/orders", path)
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=20) as answer:
        return json.load(answer)


def empty_pools() -> None:
    """The next order has to connect to the database and to the kitchen."""
    connection.close()
    connection.close_pool()
    kitchen("POST", "/hang-up")


def cancelled_at(number: int, dish: str) -> bool:
    """Cancels an order in its wait of this number; `False` if it has no so many."""
    task = balrog.spawn(place, dish)
    # Between two turns of ours the task has one at most, so no wait is missed.
    while task.waits < number and not task.done():
        balrog.sleep(0)
    if task.done():
        assert task.result() == 200
        return False
    task.cancel()
    try:
        status = task.result(20)
    except balrog.Cancelled:
        return True
    raise AssertionError(f"cancelled at wait {number}, and yet answered {status}")


def held() -> dict[str, int]:
    """What is in use; nothing, but for the descriptors that the process always has."""
    with connection.cursor() as cursor:
        cursor.execute(SESSIONS)
        sessions, busy = cursor.fetchone()
    pool = base._pools["default"].stats()
    cooking = kitchen("GET", "/stats")
    to_kitchen = cooking["connections"] - 1  # the question's own
    return {
        "tasks": len(balrog.tasks()) - 1,
        "connections out of the pool": pool.size - pool.idle - 1,  # ours
        "waiting for the pool": pool.waiting,
        "sessions that the pool does not know": sessions - pool.size,
        "transactions or statements": busy,
        "orders in the kitchen": cooking["open"],
        "descriptors": len(os.listdir("/proc/self/fd")) - pool.size - to_kitchen,
    }


def settled(descriptors: int, timeout: float = 10.0) -> dict[str, int]:
    """What is held once nothing is but the descriptors, or the time is over: ends take the servers a moment."""
    until = time.monotonic() + timeout
    while True:
        now = held()
        left = [value for name, value in now.items() if name != "descriptors"]
        if (not any(left) and now["descriptors"] == descriptors) or time.monotonic() > until:
            return now
        balrog.sleep(0.02)


def take_all() -> None:
    """For a moment all of the pool's connections are in use: the next order has to wait for one."""

    def holder() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0.2)")

    for _ in range(20):
        balrog.spawn(holder)
    while "default" not in base._pools or base._pools["default"].size < 20:
        balrog.sleep(0.005)


def sweep(pools: str) -> dict[str, object]:
    """An order cancelled at every wait. After each the next order is right, and nothing is held."""
    empty_pools()
    assert place("Before") == 200
    before = held()
    assert not any(value for name, value in before.items() if name != "descriptors"), before
    saved, number = [], 0
    while True:
        number += 1
        dish = f"{pools} {number}"
        empty_pools()
        match pools:
            case "used":
                assert place("Before") == 200
            case "taken":
                take_all()
        cancelled = cancelled_at(number, dish)
        # Finds out which kept connections to the kitchen have died, too: those are closed when next looked for.
        assert place("After") == 200
        after = settled(before["descriptors"])
        assert after == before, f"wait {number} left behind {after}, not {before}"
        saved.append(Order.objects.filter(dish=dish).count())
        if not cancelled:
            return {"waits": number - 1, "saved": saved}


def main() -> None:
    """The sweeps, then more orders at once than the pool has connections."""
    connection.ensure_connection()
    found: dict[str, object] = {pools: sweep(pools) for pools in ("fresh", "used", "taken")}
    orders = [balrog.spawn(place, "Together") for _ in range(40)]
    found["together"] = [task.result(20) for task in orders]
    print(json.dumps(found))


balrog.run(main)
