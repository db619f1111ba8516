"""``balrog.socket``, and libraries that open their own sockets on it, against real servers."""

import http.server
import os
import random
import smtplib
import socket as std
import subprocess
import sys
import threading
import time

import balrog
import pytest
from balrog import socket
from processes import free_port
from support.debian import program
from support.green import ticking
from support.slow_http import Slow


@pytest.fixture(params=[True, False], ids=["task", "thread"])
def call(request):
    """Runs a function inside of a task, or not."""
    return balrog.run if request.param else lambda fn, *args: fn(*args)


def serve_echo(listener):
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=echo, args=[connection], daemon=True).start()


def echo(connection):
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


@pytest.fixture
def echo_server():
    with std.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve_echo, args=[listener], daemon=True).start()
        yield listener.getsockname()
        listener.shutdown(std.SHUT_RDWR)


def test_bytes_go_and_come(call, echo_server):
    data = random.Random(1).randbytes(2_000_000)

    def exchange():
        with socket.create_connection(echo_server, timeout=60) as connection:
            assert isinstance(connection, socket.socket) and connection.gettimeout() == 60
            sender = threading.Thread(target=connection.sendall, args=[data])
            if balrog.current_task():
                sender = balrog.spawn(connection.sendall, data)
            else:
                sender.start()
            with connection.makefile("rb") as file:
                received = file.read(len(data))
            sender.join()
        return received

    assert call(exchange) == data


def test_many_at_once(echo_server):
    def exchange(number):
        with socket.create_connection(("localhost", echo_server[1])) as connection:
            for turn in range(5):
                connection.sendall(b"%d %d\n" % (number, turn))
                assert connection.recv(100) == b"%d %d\n" % (number, turn)
            return number

    with ticking() as ticks:
        assert balrog.run(lambda: list(balrog.map(exchange, range(200), limit=200))) == list(range(200))
    assert ticks.count


def test_timeouts(call):
    def body():
        ours, theirs = socket.socketpair()
        with ours, theirs:
            assert ours.gettimeout() is None and ours.getblocking()
            ours.settimeout(0.05)
            assert ours.timeout == 0.05 and ours.getblocking()
            start = time.monotonic()
            with pytest.raises(TimeoutError, match="timed out"):
                ours.recv(1)
            assert 0.04 < time.monotonic() - start < 30
            with pytest.raises(TimeoutError):
                ours.sendall(bytes(10_000_000))
            ours.setblocking(False)
            assert not ours.getblocking() and ours.gettimeout() == 0
            with pytest.raises(BlockingIOError):
                ours.recv(1)
            with pytest.raises(ValueError):
                ours.settimeout(-1)
            with pytest.raises(TimeoutError), balrog.timeout(0.02):
                theirs.settimeout(None)
                theirs.recv(20_000_000, std.MSG_WAITALL) and theirs.recv(1)

    call(body)


def test_the_rest_of_the_interface(call):
    def body():
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendmsg([b"a", b"b"])
            buffer = bytearray(5)
            assert theirs.recv_into(buffer) == 2 and buffer[:2] == b"ab"
            assert ours.send(b"c") == 1
            assert theirs.recvmsg(10)[0] == b"c"
            with theirs.dup() as twin:
                ours.sendall(b"d")
                assert twin.recv(1) == b"d"
            with open(__file__, "rb") as file:
                count = ours.sendfile(file, 0, 100)
            assert len(theirs.recv(1000)) == count == 100
            descriptor = ours.detach()
            assert os.get_blocking(descriptor)
            os.close(descriptor)
            assert theirs.recv(1) == b""
        with socket.socket(std.AF_INET, std.SOCK_DGRAM) as one, socket.socket(std.AF_INET, std.SOCK_DGRAM) as two:
            one.bind(("127.0.0.1", 0))
            two.sendto(b"datagram", one.getsockname())
            assert one.recvfrom(100)[0] == b"datagram"
        with socket.socket() as unbound, std.create_server(("127.0.0.1", 0)) as closed:
            address = closed.getsockname()
            closed.close()
            assert unbound.connect_ex(address) != 0
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
        with pytest.raises(std.gaierror):
            socket.create_connection(("no such host", 1))

    call(body)


def test_a_server_of_tasks():
    def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            with balrog.TaskGroup() as group:
                accepting = group.spawn(lambda: [group.spawn(echo, listener.accept()[0]) for _ in range(10)])
                clients = [group.spawn(client, listener.getsockname()) for _ in range(10)]
            assert accepting.done()
            return [task.result() for task in clients]

    def client(address):
        with socket.create_connection(address) as connection:
            connection.sendall(b"hello")
            return connection.recv(10)

    assert balrog.run(main) == [b"hello"] * 10


def test_closing_a_socket_wakes_who_waits_on_it():
    def main():
        ours, theirs = socket.socketpair()
        reader = balrog.spawn(ours.recv, 1)
        balrog.sleep(0.01)
        ours.close()
        with pytest.raises(OSError, match="closed by another task"):
            reader.result(60)
        theirs.close()

    balrog.run(main)


def test_a_unix_listener_with_a_full_queue(call, tmp_path):
    def body():
        with std.socket(std.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "socket"))
            listener.listen(0)
            with socket.socket(std.AF_UNIX) as first, socket.socket(std.AF_UNIX) as second:
                first.connect(str(tmp_path / "socket"))
                second.settimeout(0.05)
                with pytest.raises(TimeoutError):
                    second.connect(str(tmp_path / "socket"))
                second.settimeout(None)
                threading.Timer(0.05, lambda: listener.accept()[0].close()).start()
                second.connect(str(tmp_path / "socket"))
                listener.accept()[0].close()

    call(body)


def test_install_is_reversible():
    before = std.socket, std.getaddrinfo
    with balrog.install("socket"):
        assert std.socket is socket.socket
        pair = std.create_server(("127.0.0.1", 0))
        assert isinstance(pair, socket.socket)
        pair.close()
        balrog.install("socket")
    assert (std.socket, std.getaddrinfo) == before
    balrog.uninstall()
    with pytest.raises(ValueError, match="nothing to install for 'sockets'"):
        balrog.install("sockets")


def test_install_asyncio():
    import asyncio

    async def nap():
        await asyncio.sleep(1)

    def main():
        start = time.monotonic()
        with ticking() as ticks:
            list(balrog.map(lambda _: asyncio.run(nap()), range(10)))
        assert time.monotonic() - start < 8
        assert ticks.count > 1

    policy = asyncio.get_event_loop_policy()
    with balrog.install("asyncio"):
        balrog.run(main)
    assert asyncio.get_event_loop_policy() is policy


def test_install_asgiref():
    import asyncio

    from asgiref.sync import async_to_sync, sync_to_async

    async def program(number):
        await asyncio.sleep(0.1)
        # Comes back to the caller's own thread.
        return await sync_to_async(lambda: (threading.get_ident(), number))()

    def main():
        me = threading.get_ident()
        with ticking() as ticks:
            assert list(balrog.map(async_to_sync(program), range(5))) == [(me, number) for number in range(5)]
        assert ticks.count > 1

    with balrog.install("asgiref"):
        balrog.run(main)


@pytest.fixture
def installed():
    with balrog.install("socket"):
        yield


def test_redis(call, installed, redis_port):
    import redis

    def work(number):
        client.set(f"key {number}", number)
        client.incr(f"key {number}")
        assert int(client.get(f"key {number}")) == number + 1
        # The server blocks this one connection; the others go on.
        assert client.blpop(f"list {number}", timeout=60) == (b"list %d" % number, b"x")

    def push():
        for number in range(20):
            balrog.sleep(0.005)
            client.rpush(f"list {number}", "x")

    def main():
        if balrog.current_task():
            with balrog.TaskGroup() as group:
                for number in range(20):
                    group.spawn(work, number)
                balrog.sleep(0.05)
                group.spawn(push)
        else:
            push()
            work(0)

    client = redis.Redis(port=redis_port)
    client.flushall()
    try:
        call(main)
    finally:
        client.close()


@pytest.fixture(scope="module")
def mariadb_socket(tmp_path_factory):
    server = program("mariadbd", "mariadb-server-core")
    directory = tmp_path_factory.mktemp("mariadb")
    data, path = directory / "data", directory / "socket"
    (data / "mysql").mkdir(parents=True)
    (data / "test").mkdir()
    share = (server.root or server.path.parent.parent.parent) / "usr/share/mysql"
    options = [f"--datadir={data}", f"--lc-messages-dir={share}", "--no-defaults"]
    command = [str(server.path), *options[-1:], *options[:-1], f"--socket={path}", "--skip-networking"]
    command += ["--skip-grant-tables", f"--pid-file={directory / 'pid'}", "--skip-innodb"]
    command += ["--default-storage-engine=Aria", f"--character-sets-dir={share}/charsets", "--user=root"]
    command += [f"--tmpdir={directory}"]
    with open(directory / "log", "w") as log:
        process = subprocess.Popen(command, env=server.environ, stdout=log, stderr=log)
    with process:
        until = time.monotonic() + 60
        while not path.exists():
            assert process.poll() is None and time.monotonic() < until, (directory / "log").read_text()
            time.sleep(0.05)
        yield str(path)
        process.terminate()


def test_pymysql(call, installed, mariadb_socket):
    import pymysql

    def work(number):
        # Without TLS: making a context for it takes longer than all else.
        connection = pymysql.connect(unix_socket=mariadb_socket, user="root", database="test", ssl_disabled=True)
        with connection, connection.cursor() as cursor:
            cursor.execute("select sleep(1), %s", [number])
            return cursor.fetchone()[1]

    start = time.monotonic()
    if call is balrog.run:
        assert call(lambda: list(balrog.map(work, range(20)))) == list(range(20))
        assert time.monotonic() - start < 15
    else:
        assert call(work, 1) == 1


SMTP = """
import sys, time
from aiosmtpd.controller import Controller
class Handler:
    async def handle_DATA(self, server, session, envelope):
        print(envelope.rcpt_tos[0], envelope.content.decode().split()[-1], flush=True)
        return "250 OK"
Controller(Handler(), hostname="127.0.0.1", port=int(sys.argv[1])).start()
print("ready", flush=True)
sys.stdin.read()
"""


def test_smtplib(call, installed):
    port = free_port()
    command = [sys.executable, "-c", SMTP, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout.readline() == "ready\n"

        def send(number):
            with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
                client.sendmail("us@example.org", [f"{number}@example.org"], f"Subject: x\r\n\r\nmail-{number}")

        many = 20 if call is balrog.run else 2
        call(lambda: list(balrog.map(send, range(many), limit=many)))
        server.stdin.close()
        lines = server.stdout.read().split("\n")[:-1]
    assert sorted(lines) == sorted(f"{number}@example.org mail-{number}" for number in range(many))


def test_urllib3(call):
    import urllib3

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"

    def get(number):
        answer = manager.request("GET", f"{url}/{number}", timeout=60)
        return answer.data == f"/{number}".encode() * Slow.repeated

    many = 30 if call is balrog.run else 2
    with balrog.install("socket"):
        manager = urllib3.PoolManager(maxsize=many)
        start = time.monotonic()
        with ticking():
            assert call(lambda: all(balrog.map(get, range(many), limit=many)))
        assert time.monotonic() - start < 13 or many == 2
        manager.clear()
    server.shutdown()
    server.server_close()
