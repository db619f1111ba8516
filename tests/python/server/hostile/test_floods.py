"""Too much of everything: pipelines, bytes one by one, lines for the log, addresses that are claimed."""

import contextlib
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.wire import Wire

from .conftest import HERE, request


def memory(client):
    """Resident bytes of the server, without asking it."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{client.served.process.pid}/status").read_text())[1]) * 1024


def cpu(client):
    """Seconds of processor that the server has used."""
    fields = Path(f"/proc/{client.served.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_ten_thousand_pipelined_requests_are_answered_in_order(client):
    count = 10_000
    with client.wire(60) as wire:
        sender = threading.Thread(
            target=wire.send, args=(b"".join(request(f"/query?{number}") for number in range(count)),)
        )
        wire.socket.settimeout(60)
        sender.start()
        for number in range(count):
            assert wire.response().body == b"%d" % number
        sender.join(10)


def test_a_pipeline_whose_answers_nobody_reads_costs_bounded_memory(client):
    client.get("/hello")
    before = memory(client)
    block = request("/big?100000") * 500
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(client.wire()) for _ in range(10)]
        for wire in wires:
            wire.socket.setblocking(False)
        until = time.monotonic() + 3
        sent = 0
        while time.monotonic() < until:
            for wire in wires:
                with contextlib.suppress(BlockingIOError):
                    sent += wire.socket.send(block)
            time.sleep(0.01)
        # The server has stopped to read: what it did not take waits in the kernel.
        assert memory(client) - before < 10 * 1024 * 1024, sent
        for wire in wires:
            wire.reset()
    assert client.get("/hello").body == b"hello"


def test_the_time_of_a_head_is_linear_in_its_length_however_it_comes(client):
    fields = [f"X-{number}: {'v' * 1000}" for number in range(28)]
    data = request("/hello", *fields)

    def spend(size):
        before = cpu(client)
        with client.wire(30) as wire:
            for at in range(0, len(data), size):
                wire.socket.sendall(data[at : at + size])
            assert wire.response().body == b"hello"
        return cpu(client) - before

    # 28,000 reads of a byte each. Looking at all bytes again at each would be 400 million.
    assert spend(1) < 1.5


@pytest.mark.parametrize(
    "name",
    ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP", "Forwarded", "X-Forwarded-Port"],
)
def test_nobody_is_believed_about_addresses(client, name):
    plain = client.json("/environ")["values"]
    forged = client.json("/environ", f"{name}: for=1.2.3.4;proto=https;host=evil.test, 1.2.3.4, https")["values"]
    for key in ("REMOTE_ADDR", "wsgi.url_scheme", "SERVER_NAME", "SERVER_PORT", "HTTP_HOST"):
        assert forged[key] == plain[key], key


@pytest.mark.parametrize(
    "line", [b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + b"\1" * 12]
)
def test_a_proxy_line_of_a_stranger_is_refused(client, line):
    with client.wire() as wire:
        wire.send(line + request("/hello"))
        assert wire.response().status >= 400
        assert wire.wait_end(4)


def test_the_log_holds_what_was_refused_and_nothing_that_could_forge_it(tmp_path):
    forgeries = [
        b"GET /hello?\x1b[31mred HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\x07\x08\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b'GET /" 200 0 "forged HTTP/1.1\r\nHost: a\r\n\r\n',
        b"GET /\xe2\x80\xa8\xc2\x85 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a HTTP/1.1\rHost: a\r\n\r\n",
        b"NOT HTTP\nGET /forged HTTP/1.1\r\n\r\n",
        b"GET /" + b"a" * 100_000,
        b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nX\r\n",
        b"GET /hello HTTP/1.1\r\nHost: a\r\nX-A: \x1b]0;title\x07\r\n\r\n",
    ]
    log = tmp_path / "log"
    command = [sys.executable, "-m", "balrog", "serve", "application", "--bind", "127.0.0.1:0"]
    with (
        log.open("wb") as out,
        subprocess.Popen(command, cwd=HERE, stdout=out, stderr=subprocess.PIPE, text=True) as process,
    ):
        try:
            port = int(re.search(r"http://127\.0\.0\.1:(\d+)", process.stderr.readline())[1])
            for forgery in forgeries:
                with Wire("127.0.0.1", port) as wire:
                    wire.send(forgery)
                    assert wire.response().status >= 400
                    wire.wait_end(4)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
    written = log.read_bytes()
    assert all(byte == 10 or 32 <= byte < 127 for byte in written)
    lines = written.decode().splitlines()
    assert len(lines) == len(forgeries), lines
    for entry in lines:
        found = re.fullmatch(r'127\.0\.0\.1 - - \[[^]]+\] "([^"]*)" (4\d\d) \d+ \d+\.\d{4}', entry)
        assert found, entry
        assert len(found[1]) < 500
    assert r"\x1b[31mred" in lines[0] and r"\x22 200 0 \x22" in lines[2]
    assert lines[6].split('"')[1].endswith("...") and '" 414 ' in lines[6]
    assert '"POST /read HTTP/1.1" 400 ' in lines[7]


def test_what_is_refused_in_crowds_leaves_nothing_behind(client):
    client.get("/hello")
    before = memory(client)
    for _ in range(2000):
        with client.wire() as wire:
            wire.send(b"BROKEN\r\n\r\n")
            assert wire.response().status == 400
    assert memory(client) - before < 8 * 1024 * 1024
    until = time.monotonic() + 10
    while client.json("/resources")["fds"] > 40:
        assert time.monotonic() < until
        time.sleep(0.1)
