"""Clients that are slow, stuck, broken or gone: what they cost, and what the application sees."""

import contextlib
import re
import threading
import time
from pathlib import Path

import pytest
from support.serving import serving

from .conftest import HERE, Client, request


def wait_for(condition, within=5.0):
    until = time.monotonic() + within
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


@contextlib.contextmanager
def many(client, count, data):
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(client.wire()) for _ in range(count)]
        for wire in wires:
            wire.send(data)
        yield wires


def memory(client):
    """Resident KiB of the server, without asking it."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{client.served.process.pid}/status").read_text())[1])


HALF_HEAD = b"GET /hello HTTP/1.1\r\nHost: server.test\r\nX-A"


@pytest.mark.parametrize(
    ("kib", "data"),
    [
        pytest.param(4, b"", id="says nothing"),
        pytest.param(4, HALF_HEAD, id="half a head"),
        pytest.param(20, HALF_HEAD + b": " + b"v" * 8000 + b"\r\nX-B: " + b"w" * 6000, id="half a long head"),
        pytest.param(24, request("/read", "Content-Length: 100", method="POST") + b"half", id="half a body"),
        pytest.param(24, request("/read", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhe", id="half a chunk"),
        pytest.param(
            24, request("/read", "Content-Length: 9", "Expect: 100-continue", method="POST"), id="an expectation"
        ),
        pytest.param(24, request("/sleep?12"), id="waits for its answer"),
        # Its stack; the application's own piece is one for all.
        pytest.param(32, request("/pieces"), id="reads nothing"),
        # Besides its stack one answer of 100 kB, and what one read brought of the next requests.
        pytest.param(224, request("/big?100000") * 2000, id="pipelines and reads nothing"),
    ],
)
def test_300_stuck_peers_keep_nobody_out_and_cost_little(kib, data):
    with serving(HERE, "application") as served:
        client = Client(served)
        for _ in range(20):
            client.get("/hello")
        with stuck(client, 30, data):
            # The first ones pay for what all share.
            before = memory(client)
            with stuck(client, 300, data):
                for _ in range(20):
                    # Each on its own: filling 300 buffers of megabytes takes a loaded machine seconds.
                    begun = time.monotonic()
                    assert client.get("/hello").body == b"hello"
                    assert time.monotonic() - begun < 3
                assert (memory(client) - before) / 300 <= kib
        wait_for(lambda: client.json("/resources")["fds"] < 50, within=20)
        wait_for(lambda: client.json("/resources")["tasks"] == 1, within=20)


@contextlib.contextmanager
def stuck(client, count, data):
    """Connections that have sent as much of ``data`` as was taken, and then do nothing."""
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(client.wire()) for _ in range(count)]
        for wire in wires:
            wire.socket.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                wire.socket.send(data)
        time.sleep(0.5)
        yield
        for wire in wires:
            # Else a running view would keep the server from its end.
            wire.reset()


@pytest.mark.parametrize(
    "broken",
    [
        request("/read", "Content-Length: 10", method="POST") + b"short",
        request("/read", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhello\r\n",
        request("/read", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhel",
    ],
)
def test_a_body_cut_short_is_an_error(client, broken):
    client.events()
    with client.wire() as wire:
        wire.send(broken)
        wire.shut()
        response = wire.response()
        assert response is None or response.status >= 400
        assert wire.wait_end(3)
    events = client.events()
    # A chunked body is complete before the application runs, else it does not run.
    assert events == ["read failed: ConnectionAbortedError"] or (b"chunked" in broken and events == [])


@pytest.mark.parametrize(
    "chunk", [b"x\r\nhello\r\n0\r\n\r\n", b"5\r\nhelloX\r\n0\r\n\r\n", b"-5\r\n", b"5 ;\n", b"FFFFFFFFFFFFFFFFF\r\n"]
)
@pytest.mark.parametrize("target", ["/read", "/caught"])
def test_a_malformed_body_is_refused_and_the_next_request_never_read(client, chunk, target):
    client.events()
    with client.wire() as wire:
        wire.send(request(target, "Transfer-Encoding: chunked", method="POST") + chunk + request("/sleep?0"))
        response = wire.response()
        assert response is None or response.status == 400
        assert wire.wait_end(4)
        assert not wire.buffer
    assert "slept" not in client.events()


def test_a_cut_body_that_the_application_takes_lightly_gets_no_success(client):
    with client.wire() as wire:
        wire.send(request("/caught", "Content-Length: 10", method="POST") + b"short")
        wire.shut()
        response = wire.response()
        assert response is None or response.status >= 300
        assert wire.wait_end(3)
    assert "caught" in client.events()


def test_a_client_that_leaves_in_mid_response(client):
    client.events()
    with client.wire() as wire:
        wire.send(request("/drip"))
        wire.more(time.monotonic() + 2)
        wire.reset()
    wait_for(lambda: "closed drip" in client.events())
    assert "drip" not in client.errors


def test_a_client_that_leaves_in_mid_request_costs_nothing(client):
    client.events()
    for _ in range(20):
        with client.wire() as wire:
            wire.send(request("/sleep?0.3"))
            wire.reset()
    seen = []
    wait_for(lambda: seen.extend(client.events()) or seen.count("slept") == 20)
    wait_for(lambda: client.json("/resources")["tasks"] == 1)


def test_idle_connections_are_closed_and_cost_little():
    with serving(HERE, "application", "--keep-alive", "3") as served:
        client = Client(served)
        with many(client, 100, request("/hello")) as wires:
            for wire in wires:
                assert wire.response().body == b"hello"
            before = client.json("/resources")["rss"]
            with many(client, 900, request("/hello")) as more:
                for wire in more:
                    assert wire.response().body == b"hello"
                after = client.json("/resources")
                assert after["fds"] >= 1000
                assert after["tasks"] == 1
                assert (after["rss"] - before) / 900 <= 4096
                assert all(wire.wait_end(8) for wire in [*wires, *more])


def test_out_of_descriptors_is_no_end():
    with serving(HERE, "limited") as served:
        client = Client(served)
        with many(client, 120, b""):
            time.sleep(0.5)
        wait_for(lambda: client.get("/hello").body == b"hello", within=10)


def test_a_drip_of_a_head_does_not_last():
    with serving(HERE, "application") as served:
        client = Client(served)
        with client.wire() as wire:
            begun = time.monotonic()
            for byte in b"GET /hello HTTP/1.1\r\nX-A: " + b"v" * 200:
                wire.send(bytes([byte]))
                if wire.more(time.monotonic() + 0.2) or wire.ended:
                    break
            assert wire.wait_end(5)
            assert 5 < time.monotonic() - begun < 20


def test_a_fast_reader_of_an_endless_response_keeps_nobody_out(client):
    stop = threading.Event()

    def read():
        with client.wire() as wire:
            wire.send(request("/endless"))
            while not stop.is_set() and wire.more(time.monotonic() + 1):
                wire.buffer = b""
            wire.reset()

    with running(read):
        time.sleep(0.3)
        for _ in range(20):
            begun = time.monotonic()
            assert client.get("/hello").body == b"hello"
            assert time.monotonic() - begun < 3
        stop.set()


@pytest.mark.parametrize(
    "start",
    [
        request("/discard", "Content-Length: 1000000000000", method="POST"),
        b"BROKEN\r\n\r\n",
    ],
    ids=["body", "after a refusal"],
)
def test_a_fast_writer_keeps_nobody_out(client, start):
    stop = threading.Event()

    def write():
        with client.wire() as wire:
            wire.send(start)
            block = b"x" * 262_144
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    wire.socket.sendall(block)
            wire.reset()

    with running(write):
        time.sleep(0.3)
        for _ in range(20):
            begun = time.monotonic()
            assert client.get("/hello").body == b"hello"
            assert time.monotonic() - begun < 3
        stop.set()


@contextlib.contextmanager
def running(function):
    thread = threading.Thread(target=function)
    thread.start()
    try:
        yield
    finally:
        thread.join(20)
        assert not thread.is_alive()
