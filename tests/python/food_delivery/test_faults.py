"""What goes wrong around the view, each with its exact outcome; and after each the site is as before."""

import asyncio
import time

import pytest
from customers import ClientError, Customer
from services import serve

IDLE_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE '%in transaction%'"


@pytest.fixture(scope="module")
def site(env):
    """A site whose customers wait 2 s for the kitchen."""
    with serve(env | {"KITCHEN_TIMEOUT": "2"}) as service:
        yield service


@pytest.fixture(autouse=True)
def as_before(site, database, kitchen, run_customer):
    """After each fault: the next order is right, nothing is left open."""
    order = {"dish": "Ramen", "quantity": 1}
    assert run_customer(site, lambda customer: customer.order(order)).status == 200
    # Kept connections to the kitchen and the database may differ by what the pools hold; leaks would add up.
    before = settled(site.descriptors)
    yield
    kitchen.fault("none")
    assert run_customer(site, lambda customer: customer.order(order)).status == 200
    assert database.execute(IDLE_SESSIONS) == "0"
    assert settled(site.descriptors) <= before + 2
    assert site.threads() == 1


def settled(measure, tries=40):
    """The value once it stays the same for half a second."""
    last, same = measure(), 0
    for _ in range(tries):
        time.sleep(0.1)
        now = measure()
        same = same + 1 if now == last else 0
        if same == 5:
            break
        last = now
    return last


def order(run_customer, site, path="/orders/"):
    """A new customer's order."""
    return run_customer(site, lambda customer: customer.order({"dish": "Ramen", "quantity": 1}, path))


@pytest.mark.parametrize("path", ["/orders/", "/api/orders/"], ids=["view", "rest"])
@pytest.mark.parametrize(
    ("mode", "status"),
    [("busy", 502), ("rubbish", 502), ("not-json", 502), ("die", 502), ("stall", 504)],
)
def test_kitchen_fails(site, kitchen, run_customer, mode, status, path):
    kitchen.fault(mode)
    start = time.monotonic()
    response = order(run_customer, site, path)
    assert response.status == status
    assert list(response.json()) == ["error"]
    assert time.monotonic() - start < 8


def test_kitchen_is_not_there(env, run_customer):
    from processes import free_port

    nobody = {"KITCHEN_SERVICE": f"http://127.0.0.1:{free_port()}/orders"}
    with serve(env | nobody) as site:
        assert order(run_customer, site).status == 502


def test_postgresql_restarts(site, database, run_customer):
    for mode in ("fast", "immediate"):
        database.restart(mode)
        # The pool may hand out a connection that it cannot know to be dead yet, once each.
        statuses = [attempt(run_customer, site) for _ in range(25)]
        assert statuses[-1] == 200
        assert set(statuses) <= {200, 500}


def attempt(run_customer, site):
    """Status of an order; of the page, if that failed already."""
    try:
        return order(run_customer, site).status
    except ClientError as error:
        return int(str(error).rpartition(" ")[2])


def test_session_is_killed_in_mid_query(site, database, run_customer):
    lock = "BEGIN; LOCK TABLE delivery_order IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(1.5); COMMIT"

    async def visit(customer):
        blocker = asyncio.create_task(asyncio.to_thread(database.execute, lock, "food_delivery"))
        await asyncio.sleep(0.4)
        pending = asyncio.create_task(customer.order({"dish": "Ramen", "quantity": 1}))
        await asyncio.sleep(0.4)
        kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO%order%'"
        killed = await asyncio.to_thread(database.execute, kill)
        response = await pending
        await blocker
        return killed, response.status

    assert run_customer(site, visit) == ("1", 500)


def test_customer_disconnects_before_the_message(site, kitchen, run_customer):
    async def visit(customer):
        await customer.listen()
        pending = asyncio.create_task(customer.order({"dish": "Ramen", "quantity": 1}))
        await asyncio.sleep(0.2)
        customer.websocket.abort()
        return await pending

    # `WEBSOCKET_MISSING` is "count" in the example: the order stands.
    assert run_customer(site, visit).status == 200


def test_client_disconnects_in_mid_request(site, database, kitchen):
    async def visit(customer: Customer):
        await customer.visit()
        pending = asyncio.create_task(customer.order({"dish": "Lost", "quantity": 1}))
        await asyncio.sleep(0.2)
        customer.http.abort()
        with pytest.raises(ClientError):
            await pending

    asyncio.run(visit(Customer(site.address)))
    time.sleep(1)
    assert kitchen.stats()["open"] == 0
    assert database.execute("SELECT count(*) FROM delivery_order WHERE dish = 'Lost'", "food_delivery") == "1"


def test_messages_reach_every_page_of_a_customer_in_order(site, run_customer):
    async def visit(customer):
        await customer.listen()
        for _ in range(3):
            assert (await customer.order({"dish": "Ramen", "quantity": 1})).status == 200
        numbers = [int(str(await customer.message()).split("#")[1].split(" ")[0]) for _ in range(3)]
        return numbers

    numbers = run_customer(site, visit)
    assert numbers == sorted(numbers) and len(set(numbers)) == 3


def test_websocket_from_elsewhere_is_refused(site, run_customer):
    async def visit(customer):
        from customers import Connection

        connection = await Connection.connect(site.address)
        headers = [header for header in customer.headers() if not header.startswith("Origin")]
        response = await connection.upgrade("/ws/orders/", [*headers, "Origin: http://elsewhere.example"])
        connection.close()
        return response

    assert run_customer(site, visit).status == 403
