"""Known attacks on HTTP servers and their siblings: each is refused, and nothing behind it is read."""

import pytest
from support.wire import Wire

SMUGGLED = "GET /environ?smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n\r\n"

FRAMING = {
    "CL+TE": "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE+CL": "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "TE twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, chunked": "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked not last": "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "unknown coding": "Transfer-Encoding: zip\r\n\r\n0\r\n\r\n",
    "vertical tab": "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "NUL": "Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n",
    "quoted coding": 'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "empty coding": "Transfer-Encoding:\r\n\r\n0\r\n\r\n",
    "coding with parameter": "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    "space before colon": "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "bare CR before": "X-A: b\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare LF before": "X-A: b\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare LF as end": "Content-Length: 0\n\n",
    "CL plus": "Content-Length: +3\r\n\r\nabc",
    "CL minus": "Content-Length: -3\r\n\r\nabc",
    "CL underscore": "Content-Length: 0_3\r\n\r\nabc",
    "CL hex": "Content-Length: 0x3\r\n\r\nabc",
    "CL list": "Content-Length: 3, 3\r\n\r\nabc",
    "CL list of two": "Content-Length: 3, 4\r\n\r\nabc",
    "CL twice": "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "CL over u64": "Content-Length: 18446744073709551617\r\n\r\nabc",
    "CL with point": "Content-Length: 3.0\r\n\r\nabc",
    "chunk size plus": CHUNKED + "+3\r\nabc\r\n0\r\n\r\n",
    "chunk size minus": CHUNKED + "-3\r\nabc\r\n0\r\n\r\n",
    "chunk size 0x": CHUNKED + "0x3\r\nabc\r\n0\r\n\r\n",
    "chunk size underscore": CHUNKED + "0_3\r\nabc\r\n0\r\n\r\n",
    "chunk size space": CHUNKED + "3 \r\nabc\r\n0\r\n\r\n",
    "chunk size overflow": CHUNKED + "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "chunk size wraps": CHUNKED + "10000000000000003\r\nabc\r\n0\r\n\r\n",
    "chunk size empty": CHUNKED + "\r\nabc\r\n0\r\n\r\n",
    "chunk line LF": CHUNKED + "3\nabc\r\n0\r\n\r\n",
    "LF in extension": CHUNKED + "3;a\nb\r\nabc\r\n0\r\n\r\n",
    "CR in extension": CHUNKED + "3;a\rb\r\nabc\r\n0\r\n\r\n",
    "no CRLF after data": CHUNKED + "3\r\nabcX\r\n0\r\n\r\n",
    "LF after data": CHUNKED + "3\r\nabc\n0\r\n\r\n",
    "extension flood": CHUNKED + "1;" + "e" * 100_000 + "\r\na\r\n0\r\n\r\n",
    "trailer flood": CHUNKED + "0\r\n" + "X-T: 1\r\n" * 10_000 + "\r\n",
    "malformed trailer": CHUNKED + "0\r\nno colon\r\n\r\n",
    "folded field": "X-A: 1\r\n Content-Length: 3\r\n\r\n",
    "form feed": "X-A: \x0c\r\n\r\n",
    "DEL": "X-A: \x7f\r\n\r\n",
    "empty name": ": 1\r\n\r\n",
    "spaced name": "X A: 1\r\n\r\n",
    "8-bit name": "X-\xe4: 1\r\n\r\n",
    "no colon": "X-A\r\n\r\n",
    "two Hosts": "Host: b\r\n\r\n",
    "two Content-Types": "Content-Type: a/b\r\nContent-Type: c/d\r\n\r\n",
    "expectation": "Expect: the-unexpected\r\nContent-Length: 0\r\n\r\n",
}

LINES = {
    "no Host": "GET / HTTP/1.1\r\n\r\n",
    "Host with path": "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "Host with user": "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "Host with space": "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "Host list": "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "relative target": "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
    "star": "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "tab": "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces": "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "space at end": "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    "8-bit target": "GET /\xe4 HTTP/1.1\r\nHost: a\r\n\r\n",
    "fragment": "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
    "other scheme": "GET gopher://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "user in target": "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT": "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    "version 1.2": "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "version 2.0": "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "version 1": "GET / HTTP/1\r\nHost: a\r\n\r\n",
    "version 01.1": "GET / HTTP/01.1\r\nHost: a\r\n\r\n",
    "version lower case": "GET / http/1.1\r\nHost: a\r\n\r\n",
    "HTTP/0.9": "GET /\r\n\r\n",
    "HTTP/2 preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS hello": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "control in method": "GE\x01T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "colon in method": "GET: / HTTP/1.1\r\nHost: a\r\n\r\n",
    "TE in 1.0": "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "field before line": " X-A: 1\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "long method": "G" * 20_000 + " / HTTP/1.1\r\nHost: a\r\n\r\n",
    "many fields": "GET / HTTP/1.1\r\nHost: a\r\n" + "X-A: 1\r\n" * 200 + "\r\n",
    "long field": "GET / HTTP/1.1\r\nHost: a\r\nX-A: " + "v" * 20_000 + "\r\n\r\n",
}


def refused(server, attack: str) -> None:
    with Wire(server.host, server.port) as wire:
        wire.send((attack + SMUGGLED).encode("latin-1"))
        response = wire.response(within=15)
        assert response is not None
        assert 400 <= response.status < 500 or response.status in (501, 505), response
        assert response.closes
        assert wire.wait_end(4)
        assert not wire.buffer


@pytest.mark.parametrize("name", FRAMING)
def test_framing(server, name):
    refused(server, "POST /body HTTP/1.1\r\nHost: a\r\n" + FRAMING[name])


@pytest.mark.parametrize("name", LINES)
def test_lines(server, name):
    refused(server, LINES[name])


def test_pipelined_requests_are_answered_in_order(server):
    with Wire(server.host, server.port, timeout=20) as wire:
        wire.send(b"".join(b"GET /environ?%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(500)))
        for number in range(500):
            assert b'"QUERY_STRING": "%d"' % number in wire.response().body


def test_an_upgrade_that_is_refused_leaves_the_pipeline_to_http(server):
    upgrade = (
        "GET /ws_refuse HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    with Wire(server.host, server.port) as wire:
        wire.send((upgrade + "GET /body HTTP/1.1\r\nHost: a\r\n\r\n").encode())
        assert wire.response().status == 403
        assert wire.response().body == b"[0, null]"


@pytest.mark.parametrize("offer", ["h2c", "websocket2, h2c", "TLS/1.0"])
def test_other_upgrades_are_ignored(server, offer):
    lines = f"Upgrade: {offer}\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    with Wire(server.host, server.port) as wire:
        wire.send(("GET /body HTTP/1.1\r\nHost: a\r\n" + lines).encode())
        assert wire.response().body == b"[0, null]"


def test_a_trailer_does_not_become_a_header(server):
    body = "2\r\nab\r\n0\r\nX-Forged: 1\r\nContent-Length: 50\r\n\r\n"
    with Wire(server.host, server.port) as wire:
        wire.send(("POST /environ HTTP/1.1\r\nHost: a\r\n" + CHUNKED + body).encode())
        response = wire.response()
        assert response.status in (200, 400)
        assert b"FORGED" not in response.body
        assert response.status == 400 or b'"CONTENT_LENGTH": "2"' in response.body
