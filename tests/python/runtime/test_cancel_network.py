"""Tasks that wait for the network are cancelled at every wait: nothing is left behind, and the next call is right."""

import contextlib
import http.server
import socket as std
import ssl
import threading
import time

import balrog
import balrog.psycopg
import balrog.requests
import balrog.sqlalchemy
import pytest
import requests
import trustme
from balrog import socket
from support.sweep import PATIENCE, Scenarios, sweep

scenario = Scenarios()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "30000")
        if self.path == "/last":
            self.send_header("Connection", "close")
        self.end_headers()
        for _ in range(3):
            self.wfile.write(bytes(10_000))
            time.sleep(0.002)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Cancelled peers hang up."""


AUTHORITY = trustme.CA()


@contextlib.contextmanager
def serving(context=None):
    """The port of an HTTP server of threads, with TLS if there is a context."""
    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    try:
        yield server.server_port
    finally:
        balrog.to_thread(server.shutdown)
        server.server_close()
        balrog.to_thread(thread.join)


@scenario
def requests_one_by_one():
    with serving() as port:
        balrog.requests.install()
        try:
            yield lambda: requests.get(f"http://localhost:{port}/last", timeout=PATIENCE)
        finally:
            balrog.requests.uninstall()


@scenario
def requests_of_a_session():
    def body():
        for _ in range(2):
            assert session.post(url, data=bytes(100_000), timeout=PATIENCE).ok
        with session.get(url, stream=True, timeout=PATIENCE) as answer:
            assert sum(map(len, answer.iter_content(5000))) == 30_000

    with serving() as port, requests.Session() as session:
        session.mount("http://", balrog.requests.Adapter())
        url = f"http://127.0.0.1:{port}/"
        yield body
        # Whatever connection is left, the next request is right.
        assert len(session.get(f"{url}last", timeout=PATIENCE).content) == 30_000


def talk(make):
    """Asks for a page by hand on a socket that ``make`` gives."""
    with make() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert len(b"".join(iter(lambda: connection.recv(65536), b""))) > 30_000


@scenario
def sockets():
    with serving() as port:
        yield lambda: talk(lambda: socket.create_connection(("localhost", port), timeout=PATIENCE))


@scenario
def sockets_with_tls():
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("localhost").configure_cert(theirs)
    ours = ssl.create_default_context()
    AUTHORITY.configure_trust(ours)

    def make(port):
        plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        try:
            return ours.wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise

    with serving(theirs) as port:
        yield lambda: talk(lambda: make(port))


@scenario
def accepting():
    def body():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            other = std.socket()
            with other:
                other.setblocking(False)
                other.connect_ex(listener.getsockname())
                connection, _ = listener.accept()
                with connection, contextlib.suppress(TimeoutError):
                    connection.settimeout(0.002)
                    connection.recv(1)

    yield body


@scenario
def urllib3_on_them():
    import urllib3

    with serving() as port, balrog.install("socket"), urllib3.PoolManager() as manager:
        yield lambda: manager.request("GET", f"http://127.0.0.1:{port}/", retries=False)


# PostgreSQL; the server is the whole run's.

POSTGRES = {}
#: What the scenarios' sessions are called: other tests leave some of theirs.
SESSIONS = "cancelled-everywhere"


def sessions():
    """How many other sessions of these scenarios there are, and how many are in the middle of something."""
    with balrog.psycopg.connect(POSTGRES["conninfo"]) as connection:
        return connection.execute(
            "select count(*), count(*) filter (where state <> 'idle') from pg_stat_activity"
            f" where application_name = '{SESSIONS}' and pid <> pg_backend_pid()"
        ).fetchone()


def no_sessions():
    """That the server has ended all sessions; it takes a moment."""
    until = time.monotonic() + PATIENCE
    while (now := sessions()) != (0, 0):
        assert time.monotonic() < until, now
        balrog.sleep(0.005)


def work(connection):
    with connection.transaction():
        connection.execute("create temporary table if not exists numbers (n int)")
        connection.execute("select pg_sleep(0.002)")
        with connection.cursor() as cursor:
            with cursor.copy("copy numbers from stdin") as copy:
                copy.write_row([1])
            assert cursor.execute("select n from numbers").fetchall()


@scenario
def connection():
    def body():
        with balrog.psycopg.connect(POSTGRES["conninfo"]) as connection:
            work(connection)

    yield body
    no_sessions()


@scenario
def pool():
    def body():
        for _ in range(2):
            with pool.connection() as connection:
                work(connection)

    pool = balrog.psycopg.Pool(POSTGRES["conninfo"], max_size=1)
    other = balrog.spawn(body)
    yield body
    other.join()
    with pool.connection() as one:
        assert one.execute("select 1").fetchone() == (1,)
    stats = pool.stats()
    assert (stats.idle, stats.waiting) == (stats.size, 0)
    pool.close()
    no_sessions()


@scenario
def orm():
    from sqlalchemy import create_engine, text

    engine = create_engine(POSTGRES["url"], pool_size=1, max_overflow=0)

    def body():
        with engine.begin() as connection:
            connection.execute(text("select pg_sleep(0.002)"))
            assert connection.execute(text("select 1")).scalar() == 1

    other = balrog.spawn(body)
    yield body
    other.join()
    with engine.begin() as connection:
        assert connection.execute(text("select 1")).scalar() == 1
    assert engine.pool.checkedout() == 0
    engine.dispose()
    no_sessions()


# Redis, too.

REDIS = {}


@scenario
def redis_on_them():
    import redis

    key = "cancelled-everywhere"

    def body():
        with client.pipeline() as pipeline:
            pipeline.delete(key).rpush(key, "a", "b").execute()
        assert client.blpop(key, timeout=60) == (key.encode(), b"a")
        assert client.lrange(key, 0, -1) == [b"b"]

    with balrog.install("socket"):
        client = redis.Redis(port=REDIS["port"], max_connections=1)
        yield body
        # Whatever an answer was cut off from, the next one is not taken for it.
        for number in range(3):
            assert client.echo(str(number)) == str(number).encode()
        client.close()
    with redis.Redis(port=REDIS["port"]) as other:
        until = time.monotonic() + PATIENCE
        while len(other.client_list()) > 1:
            assert time.monotonic() < until, other.client_list()
            balrog.sleep(0.005)


NEEDS = {"connection": "postgres", "pool": "postgres", "orm": "postgres", "redis_on_them": "redis_port"}


@pytest.fixture
def servers(request):
    """Tells the scenario that is asked for where its server is."""
    server = NEEDS.get(request.node.callspec.params["name"])
    if server == "postgres":
        environ = request.getfixturevalue(server).environ()
        user, host, port, name = (environ[f"PG{part}"] for part in ("USER", "HOST", "PORT", "DATABASE"))
        POSTGRES["conninfo"] = f"user={user} host={host} port={port} dbname={name} application_name={SESSIONS}"
        POSTGRES["url"] = f"postgresql+balrog://{user}@/{name}?host={host}&port={port}&application_name={SESSIONS}"
    elif server == "redis_port":
        REDIS["port"] = request.getfixturevalue(server)


@pytest.mark.parametrize("name", sorted(scenario))
def test_cancelled_at_every_wait(name, servers):
    assert balrog.run(sweep, scenario[name]) >= 1
