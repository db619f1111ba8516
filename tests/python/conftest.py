"""Fixtures of every Python test."""

import pytest
from postgres import Postgres


@pytest.fixture(scope="session")
def postgres():
    """One private PostgreSQL server for the whole run; its ``environ()`` leads there."""
    with Postgres() as server:
        yield server
