"""The core of the Autobahn test suite against both roles of balrog-proto; `make autobahn` runs all of it."""

import autobahn
import pytest


@pytest.fixture(scope="module")
def programs():
    return autobahn.build()


# Some cases wait for a second on purpose; building the examples may take a minute.
@pytest.mark.timeout(600)
@pytest.mark.parametrize("role", [autobahn.of_server, autobahn.of_client], ids=["server", "client"])
def test_every_core_case_is_strict(programs, role):
    results = role(programs, autobahn.CORE, 120)
    assert len(results) == 247
    assert not autobahn.failures(results)
