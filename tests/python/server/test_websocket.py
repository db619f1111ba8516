"""WebSockets under ``balrog serve``, against an independent client."""

import contextlib
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import connect


def open_socket(server, path, **options):
    return connect(f"ws://{server.host}:{server.port}/{path}", compression=None, **options)


def get(server, path):
    return requests.get(f"{server.url}/{path}", timeout=10).json()


def wait_seen(server, wanted):
    seen, until = [], time.monotonic() + 5
    while wanted not in seen:
        assert time.monotonic() < until, seen
        seen += get(server, "seen")
        time.sleep(0.02)


def test_echo(server):
    with open_socket(server, "ws_echo") as ws:
        assert ws.response.headers["Set-Cookie"] == "opened=1"
        for message in ["", "text", "ü€😀", b"", b"\x00\xff", "x" * 70_000, b"y" * 1_000_000]:
            ws.send(message)
            assert ws.recv(timeout=5) == message
        ws.send(iter(["frag", "men", "ted"]))
        assert ws.recv(timeout=5) == "fragmented"
        assert ws.ping().wait(5)


@pytest.mark.parametrize(
    "settings",
    [{}, {"server_max_window_bits": 9}, {"client_max_window_bits": 10}, {"client_no_context_takeover": True}],
    ids=str,
)
def test_compression(server, settings):
    """Both directions, against zlib."""
    offer = ClientPerMessageDeflateFactory(**{"client_max_window_bits": True, **settings})
    # Compressed from 1 KiB on; what comes is compressed from the first byte.
    messages = ["", "short", "Knödel 😀 " * 100, b"\x00" * 900_000, "{'id': 17}, " * 50_000, b"end"]
    with connect(f"ws://{server.host}:{server.port}/ws_echo", compression=None, extensions=[offer]) as ws:
        agreed = ws.response.headers["Sec-WebSocket-Extensions"]
        assert agreed.startswith("permessage-deflate; server_no_context_takeover; client_no_context_takeover")
        assert f"server_max_window_bits={settings.get('server_max_window_bits', 12)}" in agreed
        for message in messages * 2:
            ws.send(message)
            assert ws.recv(timeout=5) == message


def test_a_message_is_as_long_as_it_is_decompressed(server):
    with connect(f"ws://{server.host}:{server.port}/ws_echo") as ws:
        ws.send("x" * (1 << 20))
        assert len(ws.recv(timeout=5)) == 1 << 20
        ws.send("x" * ((1 << 20) + 1))
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(timeout=5)
        assert closed.value.rcvd.code == 1009


def test_a_close_with_a_code_of_its_own_is_an_error_that_is_nobodys_fault(server):
    with open_socket(server, "ws_name?own") as ws:
        ws.recv(timeout=5)
        ws.close(4000, "enough")
    wait_seen(server, ["lost", 4000])


def test_a_normal_close_ends_the_iteration(server):
    with open_socket(server, "ws_echo") as ws:
        ws.close(1000, "bye")
    wait_seen(server, ["closed", 1000, "bye"])


def test_subprotocol(server):
    with open_socket(server, "ws_protocol", subprotocols=["a", "b"]) as ws:
        assert ws.subprotocol == "b"
        assert ws.recv(timeout=5) == "b"
    with open_socket(server, "ws_protocol") as ws:
        assert ws.recv(timeout=5) == "None"


def test_refused(server):
    with pytest.raises(InvalidStatus) as refused:
        open_socket(server, "ws_refuse")
    assert refused.value.response.status_code == 403


def test_a_handler_that_returns_closes_and_one_that_fails_says_so(server):
    with open_socket(server, "ws_protocol") as ws:
        ws.recv(timeout=5)
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(timeout=5)
        assert closed.value.rcvd.code == 1000
    with open_socket(server, "ws_boom") as ws:
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(timeout=5)
        assert closed.value.rcvd.code == 1011
    server.wait_for_error("RuntimeError: on purpose")


@pytest.mark.parametrize("how", ["ws_to", "ws_to_from_thread"])
def test_sending_from_another_task_and_thread(server, how):
    with open_socket(server, f"ws_name?{how}") as ws:
        assert ws.recv(timeout=5) == "ready"
        for number in range(20):
            assert get(server, f"{how}?{how}={number}") == "sent"
            assert ws.recv(timeout=5) == str(number)
    wait_seen(server, ["left", 1000])


def test_a_client_that_vanishes(server):
    with open_socket(server, "ws_name?gone") as ws:
        ws.recv(timeout=5)
        ws.socket.shutdown(2)
        wait_seen(server, ["lost", 1006])


def test_a_client_that_does_not_read_is_given_up(server):
    with open_socket(server, "ws_name?slow", max_queue=1) as ws:
        ws.recv(timeout=5)
        word, sent = get(server, "ws_flood?slow")
        # What the kernel's buffers take, and 1 MiB of ours.
        assert word == "full"
        assert 10 <= sent < 300
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(1000):
                ws.recv(timeout=5)
        assert closed.value.rcvd.code == 1013


def test_a_handler_that_does_not_receive_slows_the_client_down_and_loses_nothing(server):
    with open_socket(server, "ws_late") as ws:
        ws.send("begin")
        size = 0
        for number in range(500):
            message = f"{number} " + "x" * 20_000
            size += len(message)
            ws.send(message)
        ws.send("end")
        assert json.loads(ws.recv(timeout=10)) == [500, size]


def test_receive_with_a_timeout(server):
    with open_socket(server, "ws_timeout") as ws:
        assert ws.recv(timeout=5) == "timeout"
        ws.send("still there")
        assert ws.recv(timeout=5) == "still there"


def test_many_at_once(server):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(open_socket(server, f"ws_name?many{number}")) for number in range(100)]
        for ws in sockets:
            assert ws.recv(timeout=5) == "ready"
        for number in range(100):
            get(server, f"ws_to?many{number}=for-{number}")
        for number, ws in enumerate(sockets):
            assert ws.recv(timeout=5) == f"for-{number}"


FLOOD = """
import socket, sys
wire = socket.create_connection((sys.argv[1], int(sys.argv[2])))
wire.sendall(
    b"GET /ws_echo HTTP/1.1\\r\\nHost: a\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\nSec-WebSocket-Version: 13\\r\\n\\r\\n"
)
assert b" 101 " in wire.recv(4096)
pings = b"\\x89\\x80\\x00\\x00\\x00\\x00" * 20_000
while True:
    wire.sendall(pings)
    print("flooding", flush=True)
"""


def test_a_flood_of_pings_keeps_nobody_out(server):
    # From a process of its own: in a thread of this one it takes the interpreter away from the requests.
    command = [sys.executable, "-c", FLOOD, server.host, str(server.port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as flood:
        try:
            assert flood.stdout.readline() == "flooding\n"
            for _ in range(20):
                begun = time.monotonic()
                assert get(server, "body") == [0, None]
                assert time.monotonic() - begun < 1
            assert flood.poll() is None
        finally:
            flood.kill()


def test_cancelled_at_every_wait(own_server):
    """Whatever a handler waits for when it is cancelled, the client is told, and nothing is left behind."""

    def cancelled_at(number):
        """What the client saw, and whether the handler had so many waits."""
        with ThreadPoolExecutor() as pool:
            with open_socket(own_server, "ws_work") as ws:
                reached = pool.submit(
                    requests.get,
                    f"{own_server.url}/ws_cancel?{number}",
                    timeout=20,
                    # No connection of ours is to be counted with the server's.
                    headers={"Connection": "close"},
                )
                with pytest.raises(ConnectionClosed) as closed:
                    for text in ("one", "two" * 100_000, "end", "never"):
                        ws.send(text)
                        assert ws.recv(timeout=10) == text
            return closed.value.rcvd.code, reached.result().json()

    counting = requests.Session()

    def held():
        return counting.get(f"{own_server.url}/held", timeout=10).json()

    assert cancelled_at(1_000_000) == (1000, False)
    before, number, reached = held(), 1, True
    while reached:
        code, reached = cancelled_at(number)
        # One that could not be cancelled any more had ended by itself.
        assert code == (1011 if reached else 1000), number
        until = time.monotonic() + 10
        while (now := held()) != before and time.monotonic() < until:
            time.sleep(0.01)
        assert now == before, f"cancelled at wait {number}"
        number += 1
    # Three messages are waited for, with a sleep behind two of them.
    assert number > 5
    counting.close()
