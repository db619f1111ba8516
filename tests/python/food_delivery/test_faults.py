"""What goes wrong around the view, each with its exact outcome; and after each the site is as before."""

import asyncio
import re
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from customers import Customer
from demo import MESSAGE
from processes import free_port
from services import HERE, serve
from support.aftermath import probe, settled, unused

HERE_TESTS = Path(__file__).resolve().parent
BUSY = "The kitchen cannot take the order now."
SLOW = "The kitchen takes too long."
AWAY = "No order can be taken now."
PATHS = pytest.mark.parametrize("path", ["/orders/", "/api/orders/"], ids=["view", "rest"])
#: Seconds that the site waits for the kitchen. The pool's five, when nothing moves in it, must be over before.
PATIENCE = 8


@pytest.fixture(scope="module")
def observed(env):
    """Environment of a site that tells what it holds and what failed; its sessions are found by their name."""
    return env | {
        "DJANGO_SETTINGS_MODULE": "logged_settings",
        "PYTHONPATH": f"{HERE_TESTS}:{HERE}",
        "PGAPPNAME": "site",
        "KITCHEN_TIMEOUT": str(PATIENCE),
    }


@pytest.fixture(scope="module")
def site(observed):
    """The project under ``balrog serve``."""
    with serve(observed, application="probed") as service:
        yield service


@pytest.fixture(autouse=True)
def as_before(site, database, kitchen, run_customer):
    """After each fault the next order is right, and the site holds nothing that it did not hold before."""
    kitchen.fault("none")
    assert order(run_customer, site).status == 200
    before = settled(site, database, kitchen)
    assert before == unused(before["descriptors"])
    yield
    kitchen.fault("none")
    assert order(run_customer, site).status == 200
    assert settled(site, database, kitchen, before["descriptors"]) == before


def order(run_customer, site, path="/orders/"):
    """A new customer's order."""
    return run_customer(site, lambda customer: customer.order({"dish": "Ramen", "quantity": 1}, path))


def answer(response):
    """Status and error of an order that failed."""
    return response.status, response.json()["error"]


@PATHS
@pytest.mark.parametrize("mode", ["busy", "rubbish", "not-json", "die"])
def test_kitchen_fails(site, kitchen, run_customer, mode, path):
    kitchen.fault(mode)
    start = time.monotonic()
    assert answer(order(run_customer, site, path)) == (502, BUSY)
    assert time.monotonic() - start < PATIENCE, "known from the answer, not from the time"


@PATHS
def test_kitchen_stalls(site, kitchen, run_customer, path):
    kitchen.fault("stall")
    start = time.monotonic()
    assert answer(order(run_customer, site, path)) == (504, SLOW)
    assert PATIENCE <= time.monotonic() - start < PATIENCE + 5


@PATHS
def test_kitchen_is_not_there(observed, run_customer, path):
    nobody = {"KITCHEN_SERVICE": f"http://127.0.0.1:{free_port()}/orders", "PGAPPNAME": "another site"}
    with serve(observed | nobody, application="probed") as another:
        assert answer(order(run_customer, another, path)) == (502, BUSY)


def test_pool_is_exhausted(site, database, run_customer):
    """Whoever gets no connection is told so after the pool's five seconds; whoever has one is served."""
    lock = "BEGIN; LOCK TABLE delivery_order IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(7); COMMIT"

    async def visit(customer):
        others = [Customer(site.address) for _ in range(24)]
        for other in others:
            await other.visit()
        blocker = asyncio.create_task(asyncio.to_thread(database.execute, lock, "food_delivery"))
        await asyncio.sleep(0.5)
        orders = [asyncio.create_task(other.order({"dish": "Ramen", "quantity": 1})) for other in others]
        await asyncio.sleep(1)
        inside = await asyncio.to_thread(probe, site)
        start = asyncio.get_running_loop().time()
        refused = await customer.order({"dish": "Refused", "quantity": 1})
        took = asyncio.get_running_loop().time() - start
        statuses = sorted(response.status for response in await asyncio.gather(*orders))
        await blocker
        for other in others:
            other.leave()
        return inside, answer(refused), took, statuses

    inside, refused, took, statuses = run_customer(site, visit)
    assert (inside["size"], inside["idle"], inside["waiting"]) == (20, 0, 4)
    assert refused == (503, AWAY)
    assert 4.9 <= took < PATIENCE
    assert statuses == [200] * 20 + [503] * 4
    assert "no connection became free within 5 s: all 20 are in use" in site.output()


@dataclass
class Placed:
    """An order under load: when it began and ended, what was answered, and whether the message came."""

    dish: str
    begun: float
    ended: float
    status: int
    number: int = 0


async def keep_ordering(customer, name, until, placed):
    """One order after another; every order that is answered 200 gets exactly its own message."""
    loop = asyncio.get_running_loop()
    while not until.is_set():
        dish = f"{name} {len(placed)}"
        begun = loop.time()
        response = await customer.order({"dish": dish, "quantity": 1})
        found = Placed(dish, begun, loop.time(), response.status)
        placed.append(found)
        if response.status == 200:
            message = MESSAGE.fullmatch(str(await customer.message()))
            assert message and int(message[2]) == response.json()["mins"]
            found.number = int(message[1])
        else:
            assert answer(response) == (503, AWAY)
            await asyncio.sleep(0.05)
    assert customer.websocket.messages.empty()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_postgresql_restarts_under_load(site, database, kitchen, run_customer, mode):
    """What each order may get.

    Answered before the server goes down, or begun after it is back: 200. On its way meanwhile: 200, or else 503, and
    then it was an `OperationalError`. 200 means that the order is in the table, once, and that its customer got its
    message; 503 that there was none. No order gets anything else, and no connection of a customer is lost.
    """
    printed = len(site.output())
    kitchen.reset()

    async def visit(_):
        loop, until, placed = asyncio.get_running_loop(), asyncio.Event(), []
        customers = [Customer(site.address) for _ in range(30)]
        for customer in customers:
            await customer.visit()
            await customer.listen()
        running = [
            asyncio.create_task(keep_ordering(customer, f"{mode} {number}", until, placed))
            for number, customer in enumerate(customers)
        ]
        await asyncio.sleep(2)
        down = loop.time()
        await asyncio.to_thread(database.stop, mode)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(database.start_again)
        back = loop.time()
        await asyncio.sleep(3)
        until.set()
        await asyncio.gather(*running)
        for customer in customers:
            customer.leave()
        return placed, down, back

    placed, down, back = run_customer(site, visit)
    before = [one for one in placed if one.ended < down]
    after = [one for one in placed if one.begun > back]
    assert len(before) >= 30 and len(after) >= 30
    assert [one for one in before + after if one.status != 200] == []
    assert {one.status for one in placed} == {200, 503}, "the restart was not noticed"
    good = {one.dish: one.number for one in placed if one.status == 200}
    rows = database.execute(f"SELECT id, dish FROM delivery_order WHERE dish LIKE '{mode} %'", "food_delivery")
    saved = [line.split("|") for line in rows.splitlines()]
    assert len({dish for _, dish in saved}) == len(saved), "no order is saved twice"
    assert {dish: int(number) for number, dish in saved if dish in good} == good
    # The kitchen cooks what is saved; a customer without an answer may have had it cooked, never two times.
    assert len(good) <= kitchen.stats()["served"] <= len(saved)
    failed = [one for one in placed if one.status != 200]
    output = site.output()[printed:]
    assert len(re.findall(r"^django\.db\.utils\.OperationalError: ", output, re.M)) == len(failed)
    assert "Internal Server Error" not in output


def test_session_is_killed_in_mid_query(site, database, run_customer):
    lock = "BEGIN; LOCK TABLE delivery_order IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(1.5); COMMIT"

    async def visit(customer):
        blocker = asyncio.create_task(asyncio.to_thread(database.execute, lock, "food_delivery"))
        await asyncio.sleep(0.5)
        pending = asyncio.create_task(customer.order({"dish": "Killed", "quantity": 1}))
        await asyncio.sleep(0.5)
        kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO%order%'"
        killed = await asyncio.to_thread(database.execute, kill)
        response = await pending
        await blocker
        return killed, answer(response)

    assert run_customer(site, visit) == ("1", (503, AWAY))
    assert database.execute("SELECT count(*) FROM delivery_order WHERE dish = 'Killed'", "food_delivery") == "0"


def test_sessions_are_killed_while_the_kitchen_cooks(site, database, run_customer):
    """The order's connection lies idle then; the view gets another for what it asks afterwards."""

    async def visit(customer):
        await customer.listen()
        pending = asyncio.create_task(customer.order({"dish": "Ramen", "quantity": 1}))
        await asyncio.sleep(0.3)
        kill = "SELECT count(pg_terminate_backend(pid)) > 0 FROM pg_stat_activity WHERE application_name = 'site'"
        killed = await asyncio.to_thread(database.execute, kill)
        response = await pending
        return killed, response.status, bool(MESSAGE.fullmatch(str(await customer.message())))

    assert run_customer(site, visit) == ("t", 200, True)


def test_customer_disconnects_before_the_message(site, database, run_customer):
    async def visit(customer):
        await customer.listen()
        pending = asyncio.create_task(customer.order({"dish": "Unheard", "quantity": 1}))
        await asyncio.sleep(0.2)
        customer.websocket.abort()
        return await pending

    # `WEBSOCKET_MISSING` is "count" in the example: the order stands.
    assert run_customer(site, visit).status == 200
    assert database.execute("SELECT count(*) FROM delivery_order WHERE dish = 'Unheard'", "food_delivery") == "1"


def test_client_disconnects_in_mid_request(site, database, kitchen):
    """Nobody is told that the client has gone: the order is saved and cooked, its answer goes nowhere."""
    from customers import ClientError

    kitchen.reset()

    async def visit(customer: Customer):
        await customer.visit()
        pending = asyncio.create_task(customer.order({"dish": "Lost", "quantity": 1}))
        await asyncio.sleep(0.2)
        customer.http.abort()
        with pytest.raises(ClientError):
            await pending

    asyncio.run(visit(Customer(site.address)))
    until = time.monotonic() + 10
    while kitchen.stats()["served"] == 0 and time.monotonic() < until:
        time.sleep(0.1)
    assert (kitchen.stats()["served"], kitchen.stats()["open"]) == (1, 0)
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
