from pathlib import Path

import pytest
from support.serving import serving


@pytest.fixture(scope="module")
def server():
    with serving(Path(__file__).parent, "application") as served:
        yield served


@pytest.fixture
def own_server():
    """For tests that stop it."""
    with serving(Path(__file__).parent, "application") as served:
        yield served
