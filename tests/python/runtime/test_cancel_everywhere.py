"""Each scenario is cancelled at each of its waits, one after another, and nothing may be left behind.

A scenario is a generator: it sets up, gives the function that a task is to run, and looks, after that has been
cancelled or has ended, whether what it used is as it was. Tasks, stacks, descriptors and threads are counted here.
"""

import asyncio
import contextlib
import gc
import http.server
import os
import queue
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

#: All of them, by name.
SCENARIOS = {}
#: What no scenario may take longer for to be clean again, in seconds.
PATIENCE = 20.0


def scenario(function):
    SCENARIOS[function.__name__] = contextlib.contextmanager(function)
    return function


def held():
    """What the process and this thread's hub hold: equal before and after."""
    counters = balrog.counters()
    return {
        "tasks": len(balrog.tasks()),
        "live": counters["live"],
        "parked": counters["parked"],
        "descriptors": len(os.listdir("/proc/self/fd")),
        # Those of `to_thread` stay for the next call.
        "threads": sum(not thread.name.startswith("balrog") for thread in threading.enumerate()),
    }


def settled(wanted):
    """What is held once it is what it was, or the patience is over: peers take a moment."""
    until = time.monotonic() + PATIENCE
    while (now := held()) != wanted and time.monotonic() < until:
        balrog.sleep(0.005)
    return now


def cancel_at(number, body):
    """Cancels a task that runs ``body`` in its wait of this number; ``False`` if it has no so many."""
    task = balrog.spawn(body)
    # Between two turns of ours the task has one at most, so no wait is missed.
    while task.waits < number and not task.done():
        balrog.sleep(0)
    reached = task.cancel()
    try:
        task.result(PATIENCE)
    except (balrog.Cancelled, asyncio.CancelledError):
        assert reached
    finally:
        # The exception's traceback leads here, and here would lead to the exception.
        del task
    # A wait that a shield or the clean-up holds may still end well.
    return reached


def sweep(make):
    """The scenario whole, and then cancelled at each wait; how many waits it has."""
    with make() as body:
        balrog.spawn(body).result(PATIENCE)
    settled(held())
    before = held()
    number = 1
    while True:
        with make() as body:
            reached = cancel_at(number, body)
        after = settled(before)
        assert after == before, f"cancelled at wait {number}, it left behind {after}, not {before}"
        if not reached:
            return number - 1
        number += 1


# Waits of balrog's own.


@scenario
def sleeping():
    yield lambda: [balrog.sleep(0.002) for _ in range(3)]


@scenario
def cleaning_up():
    steps = []

    def body():
        try:
            balrog.sleep(0.002)
            balrog.sleep(0.002)
        finally:
            steps.append("asked" if balrog.current_task().cancelling else "not asked")
            balrog.sleep(0.002)
            steps.append("cleaned")

    yield body
    # Cancelled before, it may wait in its clean-up; only one that comes in it cuts it.
    assert steps[0] == "not asked" or steps == ["asked", "cleaned"]


@scenario
def lock():
    lock = balrog.Lock()

    def body():
        for _ in range(2):
            with lock:
                balrog.sleep(0.002)

    with holding(lock):
        yield body
    assert lock.acquire(timeout=PATIENCE)


@contextlib.contextmanager
def holding(lock):
    """Somebody else has the lock for a moment."""

    def hold():
        with lock:
            balrog.sleep(0.005)

    other = balrog.spawn(hold)
    balrog.sleep(0)
    yield
    other.join()


@scenario
def rlock():
    lock = balrog.RLock()

    def body():
        with lock, lock:
            balrog.sleep(0.002)

    with holding(lock):
        yield body
    assert lock.acquire(timeout=PATIENCE)


@scenario
def semaphore():
    semaphore = balrog.BoundedSemaphore(1)

    def body():
        for _ in range(2):
            with semaphore:
                balrog.sleep(0.002)

    with holding(semaphore):
        yield body
    assert (semaphore._value, semaphore._waiting) == (1, 0)


@scenario
def condition():
    condition = balrog.Condition()
    told = []

    def tell():
        balrog.sleep(0.002)
        with condition:
            told.append(True)
            condition.notify_all()

    def body():
        with condition:
            condition.wait_for(lambda: told, PATIENCE)
            condition.wait(0.002)

    other = balrog.spawn(tell)
    yield body
    other.join()
    assert condition.acquire(timeout=PATIENCE)


@scenario
def event():
    event = balrog.Event()
    other = balrog.spawn(lambda: (balrog.sleep(0.002), event.set()))
    yield lambda: (event.wait(), event.clear(), event.wait(0.002))
    other.join()


@scenario
def barrier():
    barrier = balrog.Barrier(2)

    def meet():
        with contextlib.suppress(threading.BrokenBarrierError):
            barrier.wait(0.01)

    other = balrog.spawn(lambda: (balrog.sleep(0.002), meet()))
    yield meet
    # Who is left alone is not left waiting.
    assert other.join(PATIENCE)


@scenario
def queues():
    numbers, taken = balrog.Queue(1), []

    def produce():
        for number in range(4):
            numbers.put(number)

    def body():
        for _ in range(4):
            taken.append(numbers.get())
            numbers.task_done()
        numbers.join()

    producer = balrog.spawn(produce)
    yield body
    with contextlib.suppress(queue.Empty):
        while len(taken) < 4:
            taken.append(numbers.get(timeout=PATIENCE))
    # None is lost, none comes twice.
    assert taken == [0, 1, 2, 3]
    producer.join()


@scenario
def full_queue():
    numbers, sent, taken = balrog.Queue(1), [], []

    def body():
        for number in range(4):
            numbers.put(number)
            sent.append(number)

    def consume():
        while (number := numbers.get()) is not None:
            taken.append(number)
            balrog.sleep(0.001)

    consumer = balrog.spawn(consume)
    yield body
    numbers.put(None)
    consumer.join()
    assert taken[: len(sent)] == sent and len(taken) <= len(sent) + 1


@scenario
def joining():
    def body():
        child = balrog.spawn(balrog.sleep, 0.003)
        child.join()
        child.result()
        balrog.spawn(balrog.sleep, 0.001).result()

    yield body


@scenario
def group():
    ended = []

    def child():
        try:
            balrog.sleep(0.004)
        finally:
            balrog.sleep(0.001)
            ended.append(True)

    def body():
        with balrog.TaskGroup() as group:
            group.spawn(child)
            balrog.sleep(0.001)
            group.spawn(child)
            with balrog.TaskGroup() as inner:
                inner.spawn(child)

    yield body
    assert balrog.tasks() == [balrog.current_task()], "the group's tasks end before it does"


@scenario
def failing_group():
    def fail():
        balrog.sleep(0.003)
        raise LookupError

    def body():
        try:
            with balrog.TaskGroup() as group:
                group.spawn(fail)
                group.spawn(balrog.sleep, 60)
                balrog.sleep(60)
        except* LookupError:
            balrog.sleep(0.001)

    yield body
    assert balrog.tasks() == [balrog.current_task()]


@scenario
def timeout():
    def body():
        for seconds in (0.002, 60):
            with contextlib.suppress(TimeoutError), balrog.timeout(seconds), balrog.timeout(0.004):
                balrog.sleep(30)

    yield body


@scenario
def shield():
    done = []

    def body():
        balrog.sleep(0.001)
        with balrog.shield():
            balrog.sleep(0.002)
            balrog.sleep(0.002)
            done.append(True)
        balrog.sleep(0.001)

    yield body
    assert done in ([], [True])


@scenario
def mapping():
    yield lambda: list(balrog.map(balrog.sleep, [0.001, 0.003] * 3, limit=2))
    assert balrog.tasks() == [balrog.current_task()]


@scenario
def completed():
    tasks = [balrog.spawn(balrog.sleep, seconds) for seconds in (0.005, 0.001, 0.003)]
    yield lambda: list(balrog.as_completed(tasks))
    for task in tasks:
        task.join()


@scenario
def executor():
    def body():
        with balrog.GreenExecutor(max_workers=2) as executor:
            executor.submit(balrog.sleep, 0.002).result()
            list(executor.map(balrog.sleep, [0.001] * 4))

    yield body


@scenario
def thread():
    yield lambda: [balrog.to_thread(time.sleep, 0.002) for _ in range(2)]


@scenario
def task_end():
    ended = []

    def body():
        balrog.at_task_end(lambda: (balrog.sleep(0.001), ended.append(True)))
        balrog.sleep(0.001)

    yield body
    assert ended == [True]


@scenario
def descriptor():
    readable, writable = os.pipe()

    def body():
        balrog.wait_writable(writable)
        other = balrog.spawn(lambda: (balrog.sleep(0.001), os.write(writable, b"x")))
        try:
            balrog.wait_readable(readable)
        finally:
            with balrog.shield():
                other.join()
        os.read(readable, 1)
        with contextlib.suppress(TimeoutError):
            balrog.wait_readable(readable, 0.001)

    yield body
    # Whoever waited is forgotten, so that another may.
    os.write(writable, b"x")
    balrog.wait_readable(readable, PATIENCE)
    os.close(readable)
    os.close(writable)


# asyncio.


@scenario
def awaiting():
    yield lambda: [balrog.await_(asyncio.sleep(0.002)) for _ in range(2)]


@scenario
def awaiting_groups():
    async def program():
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0.002))
            await asyncio.sleep(0.001)

    yield lambda: balrog.await_(program())


@scenario
def both_ways():
    def inner():
        balrog.sleep(0.001)
        balrog.await_(asyncio.sleep(0.001))

    async def program():
        await balrog.as_async(inner)()
        await asyncio.sleep(0.001)

    yield lambda: balrog.await_(program())


@scenario
def iterating():
    closed = []

    async def numbers():
        try:
            for number in range(3):
                yield number
                await asyncio.sleep(0.001)
        finally:
            await asyncio.sleep(0.001)
            closed.append(True)

    def body():
        with balrog.sync(contextlib.aclosing)(numbers()) as iterator:
            for _ in balrog.sync(iterator):
                balrog.sleep(0.001)

    yield body
    assert closed in ([], [True])


@scenario
def own_loop():
    async def program():
        await asyncio.sleep(0.001)
        await asyncio.gather(asyncio.sleep(0.001), asyncio.to_thread(time.sleep, 0.001))

    def body():
        with asyncio.Runner(loop_factory=balrog.new_event_loop) as runner:
            runner.run(program())
        balrog.sleep(0.001)

    yield body


@scenario
def asgiref():
    from asgiref.sync import async_to_sync, sync_to_async

    async def program():
        await asyncio.sleep(0.001)
        await sync_to_async(balrog.sleep)(0.001)

    with balrog.install("asgiref", "asyncio"):
        yield lambda: async_to_sync(program)()
    # Its thread ends with the executor, which the cancelled caller's traceback leads to.
    gc.collect()


# The network.


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


NEEDS_POSTGRES = {"connection", "pool", "orm"}


@pytest.fixture
def database(request):
    """Where PostgreSQL is, for those that need it."""
    if request.node.callspec.params["name"] in NEEDS_POSTGRES:
        environ = request.getfixturevalue("postgres").environ()
        user, host, port, name = (environ[f"PG{part}"] for part in ("USER", "HOST", "PORT", "DATABASE"))
        POSTGRES["conninfo"] = f"user={user} host={host} port={port} dbname={name} application_name={SESSIONS}"
        POSTGRES["url"] = f"postgresql+balrog://{user}@/{name}?host={host}&port={port}&application_name={SESSIONS}"


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_cancelled_at_every_wait(name, database):
    assert balrog.run(sweep, SCENARIOS[name]) >= 1


def test_there_are_thirty():
    assert len(SCENARIOS) >= 30
