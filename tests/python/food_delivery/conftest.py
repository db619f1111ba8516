"""The example's site, run as its users run it, for every test of this directory."""

import asyncio
import sys
from pathlib import Path

import pytest
from postgres import Postgres
from processes import raise_descriptor_limit

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "food_delivery"
sys.path.insert(0, str(EXAMPLE))

from customers import Customer  # noqa: E402
from services import Kitchen, environment, manage, serve, serve_blocking  # noqa: E402


@pytest.fixture(scope="session")
def database():
    """A PostgreSQL of its own, since these tests crash it."""
    raise_descriptor_limit(4096)
    # What was committed outlasts a crash of the server here, unlike in the other tests.
    with Postgres(database="food_delivery", settings={"synchronous_commit": "on"}) as server:
        yield server


@pytest.fixture(scope="session")
def kitchen():
    """A kitchen of 500 ms."""
    with Kitchen(delay=0.5) as service:
        yield service


@pytest.fixture(scope="session")
def env(database, kitchen):
    """The project's environment, its tables made."""
    settings = environment(database, kitchen.url)
    manage(["migrate", "--verbosity", "0"], settings)
    return settings


@pytest.fixture(scope="module")
def site(env):
    """The project under ``balrog serve``."""
    with serve(env) as service:
        yield service


@pytest.fixture(scope="module")
def blocking_site(env):
    """The project under gunicorn, a stock blocking server."""
    with serve_blocking(env) as service:
        yield service


@pytest.fixture(params=["serve", "gunicorn"])
def either_site(request):
    """The project under each of the two servers."""
    return request.getfixturevalue("site" if request.param == "serve" else "blocking_site")


@pytest.fixture
def run_customer():
    """Runs ``visit(customer)``, a coroutine function, for a new customer of a site."""

    def run(site, visit):
        async def body():
            customer = Customer(site.address)
            try:
                await customer.visit()
                return await visit(customer)
            finally:
                customer.leave()

        return asyncio.run(body())

    return run
