"""Fixtures of every Python test."""

import signal

import pytest
from postgres import Postgres

# A shell starts background commands with SIGINT ignored, and what they start inherits that: programs under test
# are to see Ctrl-C as from a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres():
    """One private PostgreSQL server for the whole run; its ``environ()`` leads there."""
    with Postgres() as server:
        yield server
