"""Every limit of the server at one below, at it, and one above, through a socket."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.serving import serving

from .conftest import HERE, Client, request

LINE = len("GET /hello? HTTP/1.1")
FIELD = len("X-A: ")
#: What `request()` adds: the Host line, and the empty one.
REST = len("Host: server.test\r\n\r\n")
CHUNKED = request("/discard", "Transfer-Encoding: chunked", method="POST")


def line(size):
    """A request line of so many bytes."""
    return request("/hello?" + "a" * (size - LINE))


def field(size):
    return request("/hello", "X-A: " + "v" * (size - FIELD))


def head(size):
    """A head of so many bytes, all CRLF included, with no line too long."""
    lines, left = [], size - len("GET /hello HTTP/1.1\r\n") - REST
    while left:
        taken = min(left, 4000) if left - 4000 >= 100 or left <= 4000 else 2000
        lines.append("X-A: " + "v" * (taken - FIELD - 2))
        left -= taken
    data = request("/hello", *lines)
    assert len(data) == size
    return data


def fields(count):
    return request("/hello", *["X-A: 1"] * (count - 1))


def extensions(size):
    """So many bytes of chunk extensions in one body, over two chunks."""
    half = size // 2
    first, second = b";" + b"e" * (half - 1), b";" + b"e" * (size - half - 1)
    return CHUNKED + b"1" + first + b"\r\nx\r\n1" + second + b"\r\nx\r\n0\r\n\r\n"


def trailers(size):
    """A trailer section of so many bytes, its empty line included."""
    return CHUNKED + b"0\r\nX-T: " + b"t" * (size - len("X-T: \r\n\r\n")) + b"\r\n\r\n"


def trailer_fields(count):
    return CHUNKED + b"0\r\n" + b"X-T: 1\r\n" * count + b"\r\n"


@pytest.mark.parametrize(
    ("make", "limit", "status"),
    [
        (line, 8192, 414),
        (field, 8192, 431),
        (head, 32 * 1024, 431),
        (fields, 100, 431),
        (extensions, 4096, 400),
        (trailers, 8192, 431),
        (trailer_fields, 32, 431),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.parametrize("piecewise", [False, True], ids=["at once", "in pieces"])
def test_sizes(client, make, limit, status, piecewise):
    for size, expected in ((limit - 1, 200), (limit, 200), (limit + 1, status)):
        data = make(size)
        with client.wire(15) as wire:
            for at in range(0, len(data), 997) if piecewise else [0]:
                wire.send(data[at : at + 997] if piecewise else data)
            response = wire.response()
            assert (response.status, response.closes) == (expected, expected != 200), size
            if expected != 200:
                assert wire.wait_end(4)


@pytest.mark.parametrize(("excess", "stays"), [(-1, True), (0, True), (1, False)])
def test_the_rest_of_a_body_that_nobody_reads(client, excess, stays):
    size = 256 * 1024 + excess
    with client.wire(15) as wire:
        wire.send(request("/unread", f"Content-Length: {size}", method="POST"))
        response = wire.response()
        assert (response.body, response.closes) == (b"not read", not stays)
        if stays:
            wire.send(b"x" * size + request("/hello"))
            assert wire.response().body == b"hello"
        else:
            assert wire.wait_end(4)


def closed_after(client, data, drip=None):
    """Seconds until the server closes, and the status that it answers with."""
    with client.wire() as wire:
        begun = time.monotonic()
        wire.send(data)
        if drip:
            byte, pause = drip
            while time.monotonic() - begun < 50 and not wire.more(time.monotonic() + pause) and not wire.ended:
                wire.send(byte)
        response = wire.response(within=45)
        assert wire.wait_end(45 - time.monotonic() + begun)
        return time.monotonic() - begun, response.status if response else None


BODY = request("/discard", "Content-Length: 100000", method="POST")

TIMES = {
    "a silent connection": (12, None, b"", None),
    "an idle connection": (12, None, b"", (b"", 1)),
    "half a head": (10, 408, b"GET /hello HT", None),
    "a head by drips": (10, 408, b"GET /hello HTTP/1.1\r\nX-A: ", (b"v", 0.5)),
    "half a body": (10, 408, BODY + b"half", None),
    "a body of 400 bytes a second": (10, 408, BODY, (b"x" * 200, 0.5)),
    "a body that is not read": (5, 200, request("/unread", "Content-Length: 100", method="POST"), None),
    "half a chunk": (10, 408, CHUNKED + b"5\r\nhe", None),
    "an expectation never met": (10, 408, request("/discard", "Expect: 100-continue", "Content-Length: 5"), None),
}


def test_times(client):
    """All at once, since they take their time; each within 20 % of its limit, and a second for a loaded machine."""
    with ThreadPoolExecutor(len(TIMES)) as pool:
        took = {name: pool.submit(closed_after, client, data, drip) for name, (_, _, data, drip) in TIMES.items()}
    for name, (limit, status, _, _) in TIMES.items():
        seconds, answered = took[name].result()
        assert limit * 0.8 <= seconds <= limit * 1.2 + 1, (name, seconds)
        assert answered == status, (name, answered)


def test_a_body_faster_than_the_lowest_rate_may_take_its_time(client):
    with client.wire(30) as wire:
        wire.send(request("/discard", "Content-Length: 13000", method="POST"))
        for _ in range(13):
            time.sleep(1)
            wire.send(b"x" * 1000)
        assert wire.response().body == b"discarded"


def test_requests_at_once():
    for limit in (1, 3):
        with serving(HERE, "application", "--max-requests-at-once", str(limit)) as served:
            client = Client(served)
            wires = [client.wire(20) for _ in range(limit + 2)]
            for wire in wires:
                wire.send(request("/sleep?0.5"))
            begun = time.monotonic()
            assert [wire.response().body for wire in wires] == [b"slept"] * (limit + 2)
            # So many rounds of half a second, and no fewer.
            assert time.monotonic() - begun > 0.5 * ((limit + 2 + limit - 1) // limit) - 0.2
            for wire in wires:
                wire.socket.close()
