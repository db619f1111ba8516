"""``response.raw`` as urllib3's, and reading in linear time that lets others run."""

import gzip
import os
import time
import zlib

import balrog
import pytest
import requests
from support.client import keep_alive
from support.green import ticking

TEXT = os.urandom(500_000)


@pytest.fixture
def url(server):
    def respond(peer, head):
        path = head.split()[1]
        if path == b"/chunked":
            peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for at in range(0, len(TEXT), 10_000):
                peer.send(b"2710\r\n" + TEXT[at : at + 10_000] + b"\r\n")
            peer.send(b"0\r\n\r\n")
        elif path == b"/gzip":
            peer.answer(gzip.compress(TEXT), "Content-Encoding: gzip")
        elif path == b"/lines":
            peer.answer(gzip.compress(b"one\ntwo\n\nfour"), "Content-Encoding: gzip")
        else:
            peer.answer(TEXT, "Set-Cookie: a=1", "Set-Cookie: b=2", "X-A: 1", "X-A: 2")

    return server(keep_alive(respond)).url


def get(url):
    return requests.get(url, stream=True, timeout=5)


def test_the_head(run, url):
    def body():
        response = get(url)
        raw = response.raw
        assert (raw.status, raw.version, raw.version_string, raw.reason) == (200, 11, "HTTP/1.1", "OK")
        assert raw.headers.getlist("x-a") == ["1", "2"] and raw.headers["X-A"] == "1, 2"
        assert raw.getheader("x-a") == "1, 2" and raw.getheaders() is raw.headers
        assert raw._original_response.msg.get_all("set-cookie") == ["a=1", "b=2"]
        assert response.cookies.get_dict() == {"a": "1", "b": "2"}
        assert (raw.chunked, raw.length_remaining) == (False, len(TEXT))
        assert get(url + "/chunked").raw.chunked
        assert raw.geturl() == response.url

    run(body)


@pytest.mark.parametrize("path", ["/", "/chunked", "/gzip"])
def test_the_body(run, url, path):
    def body():
        where = url + path
        assert get(where).content == TEXT
        assert b"".join(get(where).iter_content(777)) == TEXT
        assert b"".join(get(where).iter_content(None)) == TEXT
        raw = get(where).raw
        parts = [raw.read(size, decode_content=True) for size in (1, 0, 99, 200_000)]
        assert [len(part) for part in parts] == [1, 0, 99, 200_000]
        rest = raw.read(decode_content=True)
        assert b"".join(parts) + rest == TEXT and raw.read() == b"" and raw.read(5) == b""
        assert raw.isclosed() and not raw.closed
        if path != "/gzip":
            pieces = list(get(where).iter_content(1 << 20))
            assert path == "/chunked" or len(pieces) == 1
            assert {len(piece) for piece in list(get(where).iter_content(7000))[:-1]} == {7000} or path == "/chunked"
            assert get(where).raw.data == TEXT
            buffer = bytearray(1000)
            assert get(where).raw.readinto(buffer) == 1000 and buffer == TEXT[:1000]
            assert 0 < len(get(where).raw.read1(1000)) <= 1000
        with get(where) as response:
            response.raw.read(10)
        assert response.raw.closed
        with pytest.raises(requests.exceptions.RequestException):
            response.raw.read()

    run(body)


def test_lines(run, url):
    def body():
        assert list(get(url + "/lines").iter_lines()) == [b"one", b"two", b"", b"four"]
        assert list(get(url + "/lines").raw) == [b"one\n", b"two\n", b"\n", b"four"]
        raw = get(url + "/lines").raw
        raw.decode_content = True
        assert raw.readline() == b"one\n" and raw.readlines() == [b"two\n", b"\n", b"four"]

    run(body)


def test_drain_keeps_the_connection(run, server):
    url = server(keep_alive(lambda peer, head: peer.answer(str(peer.number).encode() * 50_000))).url

    def body():
        response = requests.get(url, stream=True, timeout=5)
        response.raw.drain_conn()
        assert requests.get(url, timeout=5).content[:1] == response.raw.read()[:1] or b"1"
        assert requests.get(url, timeout=5).content[:1] == b"1"

    run(body)


@pytest.fixture
def bomb(server):
    """64 MiB of zeros and some noise to keep the ratio legal, in some 100 KiB."""
    z = zlib.compressobj(9, zlib.DEFLATED, 31)
    noise = os.urandom(1024)
    coded = b"".join([z.compress(bytes(1 << 20) + noise) for _ in range(64)] + [z.flush()])
    return server(keep_alive(lambda peer, head: peer.answer(coded, "Content-Encoding: gzip"))).url, 64 * (
        (1 << 20) + 1024
    )


def test_reading_by_bytes_is_linear(run, bomb):
    url, _ = bomb

    def cost(size):
        raw = get(url).raw
        begun = time.thread_time()
        for _ in range(size // 16):
            raw.read(16, decode_content=True)
        return time.thread_time() - begun

    def body():
        small, large = (min(cost(size) for _ in range(3)) for size in (100_000, 800_000))
        assert large < 8 * small * 4

    run(body)


@pytest.mark.parametrize("size", [1 << 10, 1 << 16, 1 << 24])
def test_a_large_stream_lets_others_run(bomb, size):
    url, whole = bomb

    def body():
        longest = 0.0

        def watch():
            nonlocal longest
            last = time.monotonic()
            while True:
                balrog.sleep(0)
                now = time.monotonic()
                longest, last = max(longest, now - last), now

        watcher = balrog.spawn(watch)
        assert sum(len(piece) for piece in get(url).iter_content(size)) == whole
        watcher.cancel()
        # 256 KiB are decoded at a time, some milliseconds' work; the rest is the machine's load.
        assert longest < 0.5

    balrog.run(body)


def test_a_fast_peer_lets_others_run(server):
    def respond(peer, head):
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
        for _ in range(200):
            peer.send(bytes(1_000_000))

    url = server(keep_alive(respond)).url

    def body():
        with ticking() as ticks:
            begun = time.monotonic()
            assert sum(len(piece) for piece in get(url).iter_content(1 << 16)) == 200_000_000
            took = time.monotonic() - begun
        assert ticks.count > took * 100 / 10

    balrog.run(body)


def test_a_body_that_is_read_while_cancelled_is_never_whole(server):
    def handler(peer):
        peer.head()
        coded = gzip.compress(TEXT)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + coded[:300_000])
        peer.socket.recv(1)

    url = server(handler).url

    def body():
        response = requests.get(url, stream=True)
        with pytest.raises(TimeoutError), balrog.timeout(0.2):
            response.raw.read(decode_content=True)
        for decode in (True, False):
            with pytest.raises(requests.RequestException):
                response.raw.read(decode_content=decode)

    balrog.run(body)
