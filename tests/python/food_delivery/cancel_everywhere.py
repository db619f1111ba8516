"""Cancels the example's view after ever longer times, so that each of its waits is hit. Run by test_cancel.py."""

import time

import balrog
import django
from django.db import connection
from django.test import Client

django.setup()

from delivery.models import Order  # noqa: E402  (needs the app registry)


def place() -> int:
    """An order through the whole stack; the status of the answer."""
    return Client().post("/orders/", {"dish": "Cancelled", "quantity": 1}).status_code


def sweep(tries: int = 60) -> dict[str, int]:
    """Cancels one order after another, a little later each time; counts how they ended."""
    start = time.monotonic()
    assert balrog.spawn(place).result() == 200
    whole = time.monotonic() - start
    ends: dict[str, int] = {}
    for number in range(tries):
        task = balrog.spawn(place)
        # Closest together where the waits are short: at the start.
        balrog.sleep(1.1 * whole * (number / (tries - 1)) ** 3)
        task.cancel()
        try:
            end = str(task.result(10))
        except balrog.Cancelled:
            end = "cancelled"
        ends[end] = ends.get(end, 0) + 1
    return ends


def main() -> None:
    """Prints how the orders ended and what is left behind."""
    ends = sweep()
    print("other ends", sorted(set(ends) - {"200", "cancelled"}))
    print("some were cancelled", ends.get("cancelled", 0) > 10)
    print("tasks left", len(balrog.tasks()) - 1)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE state LIKE '%in transaction%'")
        print("open transactions", cursor.fetchone()[0])
    # All of the pool at once, then some: a connection that was lost would make this wait for ever.
    orders = [balrog.spawn(place) for _ in range(40)]
    print("after", {task.result(20) for task in orders}, Order.objects.filter(dish="Cancelled").exists())


balrog.run(main)
