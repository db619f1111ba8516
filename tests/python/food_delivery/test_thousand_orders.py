"""The promise of the project: a thousand waiting sync views on one thread and a few database connections."""

import asyncio

from demo import Progress, customers_order, saved_orders

ORDERS = 1000


def test_thousand_orders_at_once(site, database, kitchen):
    before = saved_orders(database)
    kitchen.reset()
    outcome, watch = asyncio.run(customers_order(site, database, ORDERS, Progress()))
    stats = kitchen.stats()

    assert outcome.errors == []
    assert outcome.delivered == ORDERS, "every customer gets its own message"
    assert saved_orders(database) - before == outcome.orders
    assert len(outcome.orders) == ORDERS
    assert stats["served"] == ORDERS
    assert watch.in_flight >= 900, f"{stats['peak']} of them in the kitchen"
    assert watch.threads == 1
    assert 1 <= watch.connections <= 20
    assert outcome.seconds <= 10, "500 s one after another"
