"""Time-outs in each phase, stale connections, cancellation."""

import os
import time

import balrog
import pytest
import requests
from support.client import keep_alive


def test_no_head_in_time(run, server):
    url = server(lambda peer: peer.head() and peer.socket.recv(1)).url

    def body():
        begun = time.monotonic()
        with pytest.raises(requests.exceptions.ReadTimeout):
            requests.post(url, data="x", timeout=(5, 0.3))
        assert 0.25 < time.monotonic() - begun < 2

    run(body)


def test_body_stalls(run, server):
    def handler(peer):
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour")
        peer.socket.recv(1)

    url = server(handler).url

    def body():
        with pytest.raises(requests.exceptions.ConnectionError) as raised:
            requests.get(url, timeout=0.3)
        assert isinstance(raised.value, requests.exceptions.Timeout)

    run(body)


def test_no_connection_in_time(run):
    def body():
        begun = time.monotonic()
        # An address for documentation (RFC 5737): nobody answers; some networks say so at once.
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get("http://192.0.2.1/", timeout=(0.3, 5))
        assert time.monotonic() - begun < 2

    run(body)


def test_server_takes_nothing(run, server):
    url = server(lambda peer: time.sleep(3)).url

    def body():
        with pytest.raises((requests.exceptions.Timeout, requests.exceptions.ConnectionError)):
            requests.post(url, data=b"x" * (64 << 20), timeout=0.5)

    run(body)


def stale(server, **options):
    """Answers once a connection, then closes it without having said so."""
    seen = []

    def handler(peer):
        seen.append(peer.head())
        peer.answer(str(peer.number).encode())

    return server(handler, **options).url, seen


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_closed_connection_is_not_used_again(method, run, server):
    url, seen = stale(server)

    def body():
        for number in (b"1", b"2", b"3"):
            assert requests.request(method, url, timeout=5).content == number
            time.sleep(0.05)
        assert len(seen) == 3

    run(body)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_closed_when_the_second_request_comes(method, run, server):
    seen = []

    def handler(peer):
        seen.append(peer.head())
        peer.answer(b"first")
        if peer.number == 1:
            seen.append(peer.head())

    url = server(handler).url

    def body():
        assert requests.request(method, url, timeout=5).content == b"first"
        if method == "GET":
            assert requests.get(url, timeout=5).content == b"first"
            assert len(seen) == 3
        else:
            # The server may have acted on it: never twice.
            with pytest.raises(requests.ConnectionError):
                requests.post(url, timeout=5)
            assert len(seen) == 2

    run(body)


def test_unread_response_does_not_go_back(run, server):
    url = server(keep_alive(lambda peer, head: peer.answer(str(peer.number).encode() * 100_000))).url

    def body():
        response = requests.get(url, stream=True, timeout=5)
        response.raw.read(10)
        response.close()
        assert requests.get(url, timeout=5).content[:1] == b"2"

    run(body)


def test_connection_close_is_kept(run, server):
    url = server(keep_alive(lambda peer, head: peer.answer(str(peer.number).encode()))).url

    def body():
        assert requests.get(url, headers={"Connection": "close"}, timeout=5).content == b"1"
        assert requests.get(url, timeout=5).content == b"2"

    run(body)


def test_forked_child_connects_anew(server):
    url = server(keep_alive(lambda peer, head: peer.answer(str(peer.number).encode()))).url
    assert requests.get(url, timeout=5).content == b"1"
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if requests.get(url, timeout=5).content == b"2" else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert requests.get(url, timeout=5).content == b"1"


def test_scope_ends_the_request(server):
    url = server(lambda peer: peer.head() and peer.socket.recv(1)).url

    def body():
        with pytest.raises(TimeoutError) as raised, balrog.timeout(0.2):
            requests.get(url, timeout=5)
        assert not isinstance(raised.value, requests.RequestException)

    balrog.run(body)


@pytest.mark.parametrize("in_body", [False, True])
def test_cancelled(in_body, server):
    def handler(peer):
        peer.head()
        if in_body:
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour")
        # Nothing comes but the end of the connection that was given up.
        ended.append(peer.socket.recv(1))

    ended = []
    url = server(handler).url

    def body():
        task = balrog.spawn(requests.get, url)
        balrog.sleep(0.2)
        task.cancel()
        with pytest.raises(balrog.Cancelled):
            task.result(timeout=2)
        until = time.monotonic() + 2
        while not ended and time.monotonic() < until:
            balrog.sleep(0.02)
        assert ended == [b""]

    balrog.run(body)


def test_a_body_that_was_broken_off_is_never_whole(server):
    def handler(peer):
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour")
        peer.socket.recv(1)

    url = server(handler).url

    def body():
        response = requests.get(url, stream=True)
        with pytest.raises(TimeoutError), balrog.timeout(0.2):
            response.raw.read()
        # The same response, asked again: an error, and not the four bytes that came.
        with pytest.raises(requests.RequestException):
            response.raw.read()

    balrog.run(body)


def test_idle_connections_that_the_server_closed_are_closed_too(server):
    """Not only when somebody asks that server again: the hub looks every two seconds."""
    url = server(lambda peer: peer.head() and peer.answer()).url

    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    def body():
        before = descriptors()
        tasks = [balrog.spawn(requests.get, url, timeout=5) for _ in range(10)]
        assert all(task.result().content == b"ok" for task in tasks)
        assert descriptors() > before
        until = time.monotonic() + 8
        while descriptors() > before and time.monotonic() < until:
            balrog.sleep(0.05)
        assert descriptors() <= before

    balrog.run(body)
