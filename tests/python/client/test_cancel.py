"""A request cancelled at each of its waits, or at any moment: no answer is another's, and nothing is left behind."""

import os
import random
import socket
import ssl
import time

import balrog
import balrog.requests
import pytest
import requests
import trustme
from support.client import keep_alive

UPLOAD = b"u" * (6 << 20)


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(params=["http", "https"])
def site(request, server, tmp_path):
    """Answers slowly and in parts, with the token it was asked for; counts open connections."""
    context = verify = None
    if request.param == "https":
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        verify = str(tmp_path / "authority.pem")
        authority.cert_pem.write_to_path(verify)

    def respond(peer, head):
        token = head.split()[1][1:]
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or 0)
        while length > 0:
            taken = len(peer.take(min(length, 1 << 20)))
            if not taken:
                raise ConnectionError("given up")
            length -= taken
            time.sleep(0.002)
        peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n")
        time.sleep(0.002)
        peer.send(b"Transfer-Encoding: chunked\r\n\r\n")
        for byte in token:
            time.sleep(0.002)
            peer.send(b"1\r\n" + bytes([byte]) + b"\r\n")
        time.sleep(0.002)
        peer.send(b"0\r\n\r\n")

    found = server(keep_alive(respond), context=context)
    found.verify = verify
    return found


def test_at_each_wait(site):
    def ask(token):
        return requests.post(f"{site.url}/{token}", data=UPLOAD, verify=site.verify, timeout=10).content

    def cancelled_at(number):
        task = balrog.spawn(ask, f"cancelled{number}")
        while task.waits < number and not task.done():
            balrog.sleep(0)
        task.cancel()
        try:
            return task.result() != f"cancelled{number}".encode()
        except balrog.Cancelled:
            return True

    def body():
        for warm in (False, True):
            number = 1
            while cancelled_at(number):
                number += 1
                if warm:
                    assert ask(f"after{number}") == f"after{number}".encode()
            # The connection, the upload, the head and the body are waited for, each once at least.
            assert number > 4

        until = time.monotonic() + 5
        while descriptors() > before + 2 and time.monotonic() < until:
            balrog.sleep(0.05)
        # One connection is kept, and the server's end of it.
        assert descriptors() <= before + 2

    balrog.run(lambda: None)
    before = descriptors()
    balrog.run(body)


class Site:
    """A server on the client's own hub that breaks off, stalls and answers as its dice fall."""

    def __init__(self, dice):
        self.dice = dice
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.listener.setblocking(False)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def accept(self):
        while True:
            balrog.wait_readable(self.listener.fileno())
            try:
                connection, _ = self.listener.accept()
            except BlockingIOError:
                continue
            connection.setblocking(False)
            balrog.spawn(self.serve, connection)

    def serve(self, connection):
        with connection:
            buffer = b""
            while True:
                while b"\r\n\r\n" not in buffer:
                    balrog.wait_readable(connection.fileno())
                    try:
                        data = connection.recv(65536)
                    except OSError:
                        return
                    if not data:
                        return
                    buffer += data
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                token = head.split()[1][1:]
                try:
                    if not self.answer(connection, token):
                        return
                except OSError:
                    return

    def answer(self, connection, token):
        dice = self.dice.random()
        if dice < 0.02:
            return False
        close = dice < 0.06
        body = token * self.dice.choice((1, 1, 1, 50))
        if self.dice.random() < 0.5:
            whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        else:
            whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            for at in range(0, len(body), 400):
                piece = body[at : at + 400]
                whole += b"%x\r\n%s\r\n" % (len(piece), piece)
            whole += b"0\r\n\r\n"
        if dice < 0.04:
            connection.send(whole[: self.dice.randrange(len(whole))])
            return False
        if dice < 0.5:
            cut = self.dice.randrange(len(whole))
            connection.send(whole[:cut])
            balrog.sleep(self.dice.random() * 0.004)
            whole = whole[cut:]
        connection.send(whole)
        return not close


@pytest.mark.parametrize("pool", [1, 2, 3, 4])
def test_answers_never_cross(pool):
    dice = random.Random(pool)
    site = Site(dice)
    total = int(os.environ.get("CROSSING_REQUESTS", "1000"))
    session = requests.Session()
    session.mount("http://", balrog.requests.Adapter(pool_block=True, pool_maxsize=pool))
    counts = {"right": 0, "failed": 0, "given up": 0}

    def ask(number):
        token = f"token-{pool}-{number}-"
        try:
            timeout = 0.003 if dice.random() < 0.05 else 10
            response = session.request(dice.choice(("GET", "POST")), f"{site.url}/{token}", timeout=timeout)
        except requests.RequestException:
            counts["failed"] += 1
            return
        assert set(response.text.split(token)) == {""}, (token, response.text)
        assert response.text
        counts["right"] += 1

    def impatient(number):
        """Gives up at a random wait, or after a random time."""
        if dice.random() < 0.5:
            try:
                with balrog.timeout(dice.random() * 0.005):
                    ask(number)
            except TimeoutError:
                counts["given up"] += 1
            return
        task = balrog.spawn(ask, number)
        last = dice.randrange(1, 6)
        while task.waits < last and not task.done():
            balrog.sleep(0)
        task.cancel()
        try:
            task.result()
        except balrog.Cancelled:
            counts["given up"] += 1

    def worker(numbers):
        for number in numbers:
            (impatient if dice.random() < 0.2 else ask)(number)

    def body():
        accepting = balrog.spawn(site.accept)
        numbers = iter(range(total))
        for task in [balrog.spawn(worker, numbers) for _ in range(3 * pool)]:
            task.result()
        accepting.cancel()

    with site.listener:
        balrog.run(body)
    assert sum(counts.values()) == total
    assert counts["right"] > total / 2 and counts["given up"] > total / 50, counts
