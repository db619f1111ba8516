"""Every test runs twice: on a plain thread, and as a green task."""

import balrog
import balrog.requests
import pytest
import requests
from support.client import Server


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    balrog.requests.install()
    yield
    balrog.requests.uninstall()


@pytest.fixture(params=["thread", "task"])
def run(request):
    """Calls a function in the mode of this round."""
    if request.param == "task":
        return balrog.run
    return lambda fn, *args, **kwargs: fn(*args, **kwargs)


@pytest.fixture
def server():
    """Starts servers that are given as a function of one accepted socket."""
    servers = []

    def start(handler, **options):
        servers.append(Server(handler, **options))
        return servers[-1]

    yield start
    for one in servers:
        one.close()


@pytest.fixture
def get(run):
    return lambda url, **options: run(requests.get, url, **{"timeout": 5, **options})
