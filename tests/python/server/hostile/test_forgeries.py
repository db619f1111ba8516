"""What attackers try that is no broken framing (that is in the directory above)."""

import pytest

from .conftest import request


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("X_Real_IP: forged", "HTTP_X_REAL_IP"),
        ("Content_Length: 10", "CONTENT_LENGTH"),
        ("Proxy_Authorization: x", "HTTP_PROXY_AUTHORIZATION"),
    ],
)
def test_underscores_forge_nothing(client, header, key):
    assert key not in client.json("/environ", header)["types"]


def test_an_absolute_target_replaces_the_host(client):
    assert client.json("http://real.test/environ")["values"]["HTTP_HOST"] == "real.test"


@pytest.mark.parametrize("count", [2, 50])
def test_what_is_behind_an_upgrade_that_is_refused_is_a_request(client, count):
    with client.wire() as wire:
        wire.send(request("/hello", "Connection: Upgrade", "Upgrade: h2c") * count)
        assert [wire.response().body for _ in range(count)] == [b"hello"] * count


def test_a_thousand_pipelined_requests_are_answered_and_buffered_in_bounds(client):
    before = client.json("/resources")["rss"]
    with client.wire(20) as wire:
        wire.send(request("/hello") * 1000)
        for _ in range(1000):
            assert wire.response().body == b"hello"
    assert client.json("/resources")["rss"] - before < 20_000_000
