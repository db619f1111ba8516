"""WebSockets, with the client of the `websockets` package and by hand."""

import base64
import os
import struct
import threading
import time

import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import connect

from .conftest import request


@pytest.fixture
def ws(client):
    def open_one(path, **options):
        return connect(f"ws://{client.served.host}:{client.served.port}{path}", **options)

    client.events()
    return open_one


def wait_for_event(client, event, within=5.0):
    until, seen = time.monotonic() + within, []
    while event not in seen:
        assert time.monotonic() < until, f"{event!r} is not in {seen}"
        seen += client.events()
        time.sleep(0.02)
    return seen


def test_echo(client, ws):
    with ws("/ws/echo", compression=None) as peer:
        for message in ["hello", b"\x00\xff", "", b"", "\u00e9\U0001f600", "x" * 125, "x" * 126, b"x" * 65_536]:
            peer.send(message)
            assert peer.recv(5) == message
        peer.send(["frag", "men", "ted"])
        assert peer.recv(5) == "fragmented"
        assert peer.ping().wait(5)
        assert peer.response.headers["X-Extra"] == "yes"
    assert "ended 1000 " in wait_for_event(client, "closed websocket")


def test_big_messages(ws):
    with ws("/ws/echo", max_size=None) as peer:
        peer.send(b"x" * 1_000_000)
        assert len(peer.recv(5)) == 1_000_000
        peer.send(b"x" * 1_100_000)
        with pytest.raises(ConnectionClosed) as closed:
            peer.recv(5)
        assert closed.value.rcvd.code == 1009


@pytest.mark.parametrize("code", [1000, 1001, 4000])
def test_the_client_closes(client, ws, code):
    with ws("/ws/end") as peer:
        peer.close(code)
        assert peer.close_code == code
    assert f"closed {code}" in wait_for_event(client, "send refused")


def test_the_handler_closes(ws):
    with ws("/ws/close") as peer:
        with pytest.raises(ConnectionClosed) as closed:
            peer.recv(5)
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "bye")


def test_a_handler_that_fails_closes_with_1011(client, ws):
    with ws("/ws/raise") as peer:
        with pytest.raises(ConnectionClosed) as closed:
            peer.recv(5)
        assert closed.value.rcvd.code == 1011
    client.served.wait_for_error("the handler fails on purpose")


def test_recv_with_a_timeout(ws):
    with ws("/ws/timeout") as peer:
        assert peer.recv(5) == "timeout"
        peer.send("later")
        assert peer.recv(5) == "later"
        with pytest.raises(ConnectionClosedOK):
            peer.recv(5)


def test_sends_from_tasks_and_threads(ws):
    with ws("/ws/tasks") as peer:
        assert [peer.recv(5) for _ in range(4)] == ["task 0", "task 1", "task 2", "thread"]
        peer.send("enough")


def test_the_application_refuses(ws):
    with pytest.raises(InvalidStatus) as refused:
        ws("/ws/refuse")
    assert refused.value.response.status_code == 403
    assert refused.value.response.body == b"not you"


def handshake(path):
    key = base64.b64encode(os.urandom(16)).decode()
    headers = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
    return request(path, *headers)


def frame(opcode, payload, fin=True):
    length = struct.pack("!B", 0x80 | len(payload)) if len(payload) < 126 else struct.pack("!BH", 0xFE, len(payload))
    return bytes([opcode | (0x80 if fin else 0)]) + length + bytes(4) + payload


def open_by_hand(wire, path):
    wire.send(handshake(path))
    assert wire.response().status == 101


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (frame(1, b"\xff\xfe"), 1007),
        (frame(1, b"\xc3", fin=False) + frame(0, b"\x28"), 1007),
        (frame(0, b"nothing to continue"), 1002),
        (frame(3, b"reserved"), 1002),
        (frame(9, b"x" * 126), 1002),
        (b"\xf1" + frame(1, b"rsv")[1:], 1002),
        (b"\x81\x05hello", 1002),
        (frame(8, b"\x03"), 1002),
        (frame(8, struct.pack("!H", 1005)), 1002),
    ],
)
def test_broken_frames(client, frames, code):
    with client.wire() as wire:
        open_by_hand(wire, "/ws/echo")
        wire.send(frames)
        assert wire.wait_end(8)
        assert wire.buffer[:1] == b"\x88"
        assert struct.unpack("!H", wire.buffer[2:4]) == (code,)
    assert client.get("/hello").status == 200


def test_a_peer_that_vanishes(client, ws):
    client.events()
    with client.wire() as wire:
        open_by_hand(wire, "/ws/end")
        wire.reset()
    assert "closed 1006" in wait_for_event(client, "send refused")


def test_a_slow_reader_is_closed_and_costs_little(client):
    client.events()
    with client.wire() as wire:
        open_by_hand(wire, "/ws/flood")
        wait_for_event(client, "queue full")
        assert client.json("/resources")["rss"] < 500_000_000
        assert wire.wait_end(10)
        # It did not read, and still learns why, since it reads now.
        assert struct.pack("!H", 1013) in wire.buffer[-64:]


def test_a_slow_handler_holds_its_client_back(client, ws):
    with ws("/ws/slow", compression=None) as peer:
        sent = threading.Event()

        def flood():
            for _ in range(500):
                peer.send("x" * 50_000)
            peer.send("end")
            sent.set()

        thread = threading.Thread(target=flood)
        thread.start()
        assert not sent.wait(0.5), "25 MB went somewhere"
        assert peer.recv(20) == str(500 * 50_000 + 3)
        thread.join()
