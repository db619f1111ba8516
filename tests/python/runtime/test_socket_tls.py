"""TLS (``ssl``) on top of ``balrog.socket``: its waits are the hub's, too, against real servers."""

import http.server
import random
import smtplib
import socket as std
import ssl
import subprocess
import sys
import threading
import time

import balrog
import pytest
import trustme
from balrog import socket
from support.green import ticking
from support.slow_http import Slow

MANY = 20


@pytest.fixture(params=[True, False], ids=["task", "thread"])
def call(request):
    """Runs a function inside of a task, or not."""
    return balrog.run if request.param else lambda fn, *args: fn(*args)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def context(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def stalled():
    """The address of a server that takes connections and never says anything."""
    with std.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()


def echo(connection):
    while data := connection.recv(65536):
        connection.sendall(data)


@pytest.fixture
def echo_server(server_context):
    """An echo with TLS that is the standard library's alone, a thread for each connection."""

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=[connection], daemon=True).start()

    def talk(connection):
        try:
            with server_context.wrap_socket(connection, server_side=True) as encrypted:
                echo(encrypted)
                encrypted.unwrap()
        except OSError:
            connection.close()

    with std.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()
        listener.shutdown(std.SHUT_RDWR)


def connected(context, address, timeout=60):
    return context.wrap_socket(socket.create_connection(address, timeout=timeout), server_hostname="localhost")


def test_bytes_go_and_come(call, context, echo_server):
    data = random.Random(1).randbytes(2_000_000)

    def exchange():
        with connected(context, echo_server) as connection:
            assert isinstance(connection, ssl.SSLSocket) and isinstance(connection, socket.socket)
            assert connection.gettimeout() == 60 and connection.version() in ("TLSv1.2", "TLSv1.3")
            start = balrog.spawn if balrog.current_task() else in_thread
            sender = start(connection.sendall, data)
            with connection.makefile("rb") as file:
                received = file.read(len(data))
            sender.join()
            # The peer says good-bye when we do, and the plain connection is still there.
            with connection.unwrap() as plain:
                assert plain.fileno() >= 0
        return received

    assert call(exchange) == data


def in_thread(fn, *args):
    thread = threading.Thread(target=fn, args=args)
    thread.start()
    return thread


def test_many_at_once(context, echo_server):
    def exchange(number):
        with connected(context, ("localhost", echo_server[1])) as connection:
            for turn in range(3):
                connection.sendall(b"%d %d\n" % (number, turn))
                assert connection.recv(100) == b"%d %d\n" % (number, turn)
            return number

    assert balrog.run(lambda: list(balrog.map(exchange, range(MANY), limit=MANY))) == list(range(MANY))


def test_a_peer_that_does_not_answer_stops_nobody(context, stalled, echo_server):
    def handshake():
        with socket.create_connection(stalled, timeout=0.3) as plain:
            context.wrap_socket(plain, server_hostname="localhost")

    def read():
        with connected(context, echo_server, timeout=0.3) as connection:
            connection.recv(1)

    def main():
        for stuck in (handshake, read):
            with ticking() as ticks:
                with pytest.raises(TimeoutError):
                    stuck()
                assert ticks.count > 3

    balrog.run(main)


def test_timeouts_and_non_blocking(call, context, stalled, echo_server):
    def body():
        with socket.create_connection(stalled) as plain, balrog.timeout(0.05), pytest.raises(TimeoutError):
            context.wrap_socket(plain, server_hostname="localhost")
        with connected(context, echo_server) as connection:
            connection.setblocking(False)
            with pytest.raises(ssl.SSLWantReadError):
                connection.recv(1)
            connection.settimeout(0.05)
            start = time.monotonic()
            with pytest.raises(TimeoutError):
                connection.recv_into(bytearray(10))
            assert 0.04 < time.monotonic() - start < 30
            with pytest.raises(TimeoutError):
                connection.sendall(bytes(50_000_000))

    call(body)


def test_the_handshake_may_come_later(call, context, stalled, echo_server):
    def unconnected():
        return context.wrap_socket(socket.socket(), server_hostname="localhost", do_handshake_on_connect=False)

    def body():
        with unconnected() as connection:
            connection.connect(stalled)
            connection.setblocking(False)
            with pytest.raises(ssl.SSLWantReadError):
                connection.do_handshake()
        with unconnected() as connection:
            connection.connect(echo_server)
            connection.setblocking(False)
            connection.do_handshake(block=True)
            assert connection.getpeercert()["subjectAltName"] == (("DNS", "localhost"),)
            assert connection.gettimeout() == 0
            connection.settimeout(60)
            connection.sendall(b"hello")
            assert connection.recv(10) == b"hello"

    call(body)


def test_who_does_not_trust_the_server_is_told(call, echo_server):
    def body():
        plain = socket.create_connection(echo_server)
        with plain, pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")

    call(body)


def test_a_server_of_tasks(context, server_context):
    def client(address):
        with connected(context, address) as connection:
            connection.sendall(b"hello")
            return connection.recv(10)

    def serve(connection):
        with connection:
            echo(connection)

    def main():
        plain = socket.create_server(("127.0.0.1", 0))
        with server_context.wrap_socket(plain, server_side=True) as listener, balrog.TaskGroup() as group:
            address = listener.getsockname()
            clients = [group.spawn(client, address) for _ in range(10)]
            for _ in clients:
                group.spawn(serve, listener.accept()[0])
        return [task.result() for task in clients]

    assert balrog.run(main) == [b"hello"] * 10


def test_cancelled_and_closed(context, echo_server):
    def main():
        with connected(context, echo_server) as connection:
            reader = balrog.spawn(connection.recv, 1)
            balrog.sleep(0.01)
            reader.cancel()
            with pytest.raises(balrog.Cancelled):
                reader.result(60)
            # Nothing was read, so nothing is lost.
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
        connection = connected(context, echo_server)
        reader = balrog.spawn(connection.recv, 1)
        balrog.sleep(0.01)
        connection.close()
        with pytest.raises(OSError, match="closed by another task"):
            reader.result(60)

    balrog.run(main)


def test_other_sockets_get_what_they_got(context, echo_server):
    with std.create_connection(echo_server) as plain, context.wrap_socket(plain, server_hostname="localhost") as usual:
        assert type(usual) is ssl.SSLSocket


class Long(Slow):
    """More than one record of TLS."""

    repeated = 10_000


class Server(http.server.ThreadingHTTPServer):
    """HTTPS of the standard library; each connection's handshake is in its thread."""

    def __init__(self, context):
        super().__init__(("127.0.0.1", 0), Long)
        self.context = context

    def finish_request(self, request, address):
        with self.context.wrap_socket(request, server_side=True) as connection:
            self.RequestHandlerClass(connection, address, self)


def test_urllib3(call, context, server_context):
    import urllib3

    server = Server(server_context)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"https://localhost:{server.server_port}"

    def get(number):
        answer = manager.request("GET", f"{url}/{number}", timeout=60)
        return answer.data == f"/{number}".encode() * Long.repeated

    many = MANY if call is balrog.run else 2
    with balrog.install("socket"), urllib3.PoolManager(maxsize=many, ssl_context=context) as manager:
        start = time.monotonic()
        assert call(lambda: all(balrog.map(get, range(many), limit=many)))
        # One after another, they would take half a second each.
        assert time.monotonic() - start < 8
    server.shutdown()
    server.server_close()


SMTP = """
import ssl, sys
from aiosmtpd.controller import Controller
class Handler:
    async def handle_DATA(self, server, session, envelope):
        kind = type(session.ssl).__name__
        print(envelope.rcpt_tos[0], envelope.content.decode().split()[-1], kind, flush=True)
        return "250 OK"
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(sys.argv[2])
Controller(
    Handler(), hostname="127.0.0.1", port=int(sys.argv[1]), tls_context=context, require_starttls=True
).start()
print("ready", flush=True)
sys.stdin.read()
"""


def test_starttls_of_smtplib(call, authority, context, tmp_path):
    with std.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "cert.pem"))
    command = [sys.executable, "-c", SMTP, str(port), str(tmp_path / "cert.pem")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout.readline() == "ready\n"

        def send(number):
            with smtplib.SMTP("localhost", port, timeout=60) as client:
                client.starttls(context=context)
                client.sendmail("us@example.org", [f"{number}@example.org"], f"Subject: x\r\n\r\nmail-{number}")

        many = MANY if call is balrog.run else 2
        with balrog.install("socket"):
            call(lambda: list(balrog.map(send, range(many), limit=many)))
        server.stdin.close()
        lines = server.stdout.read().split("\n")[:-1]
    assert sorted(lines) == sorted(f"{number}@example.org mail-{number} dict" for number in range(many))
