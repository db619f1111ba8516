"""What asgiref and greenback say that their bridges do, done by ours or through them."""

import asyncio
import contextvars
import threading

import balrog
import pytest
import uvloop
from asgiref.sync import async_to_sync, sync_to_async
from support.green import green, ticking

variable = contextvars.ContextVar("variable", default="none")


@pytest.fixture(params=["asyncio", "uvloop", "no loop"])
def call(request):
    """Runs synchronous code as a task: of a running loop, or where no loop is."""
    if request.param == "no loop":
        return balrog.run
    factory = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}[request.param]

    def call(fn, *args):
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(balrog.as_async(fn)(*args))

    return call


async def later(value):
    await asyncio.sleep(0)
    return value


async def fail(error):
    await asyncio.sleep(0)
    raise error


# greenback: ``await_`` works wherever synchronous code can be, however deep.


class Row:
    """Attributes, comparisons and the like that await."""

    def __init__(self, number):
        self.number = number

    @property
    def double(self):
        return balrog.await_(later(2 * self.number))

    def __getattr__(self, name):
        return balrog.await_(later(name))

    def __lt__(self, other):
        return balrog.await_(later(self.number < other.number))

    def __enter__(self):
        return balrog.await_(later(self))

    def __exit__(self, *_):
        return balrog.await_(later(False))


def test_await_in_what_c_code_calls(call):
    def body():
        rows = [Row(number) for number in (3, 1, 2)]
        assert [row.number for row in sorted(rows)] == [1, 2, 3]
        assert max(rows, key=lambda row: balrog.await_(later(-row.number))).number == 1
        assert list(map(lambda row: row.double, rows)) == [6, 2, 4]
        assert getattr(rows[0], "missing") == "missing"  # noqa: B009
        assert {row.number: row.double for row in rows if balrog.await_(later(True))} == {3: 6, 1: 2, 2: 4}
        with rows[0] as row:
            return row.double

    assert call(body) == 6


def test_await_in_generators_and_clean_up(call):
    steps = []

    def numbers():
        try:
            for number in range(3):
                yield balrog.await_(later(number))
        finally:
            steps.append(balrog.await_(later("closed")))

    def body():
        generator = numbers()
        assert next(generator) == 0
        generator.close()
        assert list(numbers()) == [0, 1, 2]
        try:
            balrog.await_(fail(LookupError("gone")))
        except LookupError:
            steps.append(balrog.await_(later("handled")))

    call(body)
    assert steps == ["closed", "closed", "handled"]


class Awaitable:
    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return "awaited"


def test_whatever_can_be_awaited(call):
    async def make():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(future.set_result, "future")
        return future, asyncio.create_task(later("task")), asyncio.gather(later(1), later(2))

    def body():
        assert balrog.await_(Awaitable()) == "awaited"
        assert [balrog.await_(each) for each in balrog.await_(make())] == ["future", "task", [1, 2]]
        with pytest.raises(TypeError):
            balrog.await_(42)

    call(body)


class Odd(BaseException):
    """Neither an error nor one that asyncio knows."""


@pytest.mark.parametrize("error", [ValueError("x"), StopAsyncIteration("y"), Odd("z"), GeneratorExit("w")])
def test_errors_come_out_as_they_are(call, error):
    def body():
        with pytest.raises(type(error)) as caught:
            balrog.await_(fail(error))
        assert "fail" in [entry.name for entry in caught.traceback]

    call(body)


def test_context_variables_cross(call):
    async def change():
        assert variable.get() == "caller's"
        variable.set("coroutine's")

    def body():
        variable.set("caller's")
        balrog.await_(change())
        return variable.get()

    assert call(body) == "coroutine's"


def test_await_in_a_coroutine_of_the_loop_says_what_to_do():
    async def program():
        balrog.await_(later(1))

    with pytest.raises(RuntimeError):
        asyncio.run(program())


# asgiref: ``async_to_sync`` and ``sync_to_async`` inside of a task.


@green
def test_async_to_sync_gives_results_errors_and_context():
    async def program():
        assert variable.get() == "caller's"
        variable.set("coroutine's")
        return await later("result")

    variable.set("caller's")
    assert async_to_sync(program)() == "result"
    assert variable.get() == "coroutine's"
    with pytest.raises(LookupError):
        async_to_sync(fail)(LookupError())


@green
def test_thread_sensitive_code_comes_back_to_its_thread():
    async def program():
        return await sync_to_async(threading.get_ident)(), await sync_to_async(inner)()

    def inner():
        # One in the other, as a middleware of each kind in turn does.
        return async_to_sync(later)(threading.get_ident())

    me = threading.get_ident()
    assert async_to_sync(program)() == (me, me)


@green
def test_many_at_once_with_the_hub_running():
    async def program(number):
        await asyncio.sleep(0.05)
        return await sync_to_async(lambda: (balrog.sleep(0.01), number)[1])()

    with balrog.install("asgiref"), ticking() as ticks:
        assert list(balrog.map(async_to_sync(program), range(5))) == list(range(5))
    assert ticks.count


def test_async_to_sync_below_a_coroutine(call):
    async def outer():
        return await balrog.as_async(lambda: async_to_sync(later)("inner"))()

    # asgiref refuses where it sees a running loop; synchronous code has none.
    assert call(lambda: balrog.await_(outer())) == "inner"
