"""One server for the tests that do not stop it."""

import json
from pathlib import Path

import pytest
from support.serving import serving
from support.wire import Wire

HERE = Path(__file__).parent


class Client:
    """Requests by hand to a running server."""

    def __init__(self, served):
        self.served = served

    @property
    def errors(self):
        return self.served.errors

    def wire(self, timeout=5.0):
        return Wire(self.served.host, self.served.port, timeout)

    def get(self, target, *headers, method="GET", body=b"", version="1.1", timeout=5.0):
        with self.wire(timeout) as wire:
            wire.send(request(target, *headers, method=method, body=body, version=version))
            response = wire.response(head=method == "HEAD")
            assert response is not None, "no answer"
            return response

    def json(self, target, *headers, **options):
        return json.loads(self.get(target, *headers, **options).body)

    def events(self):
        return self.json("/events")


def request(target, *headers, method="GET", body=b"", version="1.1"):
    lines = [f"{method} {target} HTTP/{version}", "Host: server.test", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n" + body


@pytest.fixture(scope="module")
def client():
    with serving(HERE, "application") as served:
        yield Client(served)
