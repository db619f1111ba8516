"""asyncio from synchronous code, and synchronous code from asyncio, on one thread.

A task of balrog that awaits has a *host*: an asyncio task in which whatever it awaits runs, so
that ``asyncio.current_task()``, ``asyncio.timeout()`` and cancellation mean what they mean in a
coroutine. The caller of ``as_async`` is the host of what it calls; any other task gets one when
it first awaits. While a task of balrog runs, its thread's running loop is hidden from it.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
import threading
import types
from asyncio import events, tasks
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterator
from contextvars import copy_context
from typing import Any, Generic, ParamSpec, TypeVar

from balrog._balrog import (
    Cancelled,
    Guest,
    Task,
    Waiter,
    _current_context,
    _guest_of,
    _wait_for_wakeup,
    current_task,
    shield,
    sleep,
    spawn,
    wait_fd,
)

__all__ = ["as_async", "await_", "new_event_loop", "sync"]

P = ParamSpec("P")
T = TypeVar("T")

_get_running_loop = events._get_running_loop
_set_running_loop = events._set_running_loop
#: The task that runs in each loop: what ``asyncio.current_task`` answers from.
_current_tasks: dict[Any, Any] = tasks._current_tasks  # type: ignore[attr-defined]


@types.coroutine
def _rest(step: Any, future: Any, error: BaseException | None) -> Any:
    """What is left of an awaitable whose first step has yielded ``future``.

    ``error`` came in the meantime and is raised inside it instead.
    """
    while True:
        if error is None:
            try:
                yield future
            except GeneratorExit:
                step.close()
                raise
            except BaseException as thrown:
                error = thrown
        if error is None:
            return (yield from step)
        try:
            future = step.throw(error)
        except StopIteration as stop:
            return stop.value
        error = None


class _Host:
    """Awaits for one task of balrog, in an asyncio task."""

    __slots__ = (
        "_aborted",
        "_error",
        "_future",
        "_request",
        "_result",
        "_serves",
        "_thrown",
        "_waiter",
        "guest",
        "loop",
        "task",
    )

    def __init__(self, guest: Guest, task: asyncio.Task[Any] | None) -> None:
        self.guest = guest
        self.loop: asyncio.AbstractEventLoop = guest.loop
        self.task = task
        self._aborted = False
        self._error: BaseException | None = None
        self._future: asyncio.Future[None] | None = None
        self._request: tuple[Any, Any] | None = None
        self._result: Any = None
        self._serves = False
        self._thrown: BaseException | None = None
        self._waiter: Waiter | None = None

    # In the task of balrog:

    def run(self, awaitable: Any) -> Any:
        """The result of ``awaitable``. Its first step runs right here: many need no other."""
        loop, task = self.loop, self.task
        before = _current_tasks.get(loop)
        _current_tasks[loop] = task
        _set_running_loop(loop)
        try:
            if type(awaitable) is types.CoroutineType:
                step = awaitable
                future = step.send(None)
            else:
                step = _steps(awaitable)
                future = next(step) if not hasattr(step, "send") else step.send(None)
        except StopIteration as stop:
            return stop.value
        finally:
            _set_running_loop(None)
            if before is None:
                del _current_tasks[loop]
            else:
                _current_tasks[loop] = before
        waiter = self._waiter = Waiter()
        self._request = step, future
        self.notify()
        try:
            waiter.wait()
        except BaseException as error:
            self._abort(waiter, error)
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
        result, self._result = self._result, None
        return result

    def _abort(self, waiter: Waiter, error: BaseException) -> None:
        """The wait was cancelled, or its time is over: cancel what is awaited, and await its end."""
        if not waiter.woken and self.task is not None:
            if self._serves:
                self._aborted = True
                self.task.cancel()
            else:
                # Cancelled now, it would never begin.
                self._throw_into_request(asyncio.CancelledError())
            with shield():
                waiter.wait()
        if isinstance(self._error, asyncio.CancelledError) or not waiter.woken:
            self._error = None
            raise error

    # In the asyncio task:

    async def serve(self, task: Any) -> None:
        """Await whatever ``task`` wants awaited, until it has ended."""
        self._serves = True
        while True:
            if self._request is not None:
                (step, future), self._request = self._request, None
                thrown, self._thrown = self._thrown, None
                try:
                    self._result = await _rest(step, future, thrown)
                except BaseException as error:
                    if isinstance(error, GeneratorExit) and _is_raised_here(error):
                        raise  # this coroutine is closed
                    self._error = error
                if self._aborted:
                    self._aborted = False
                    self.task.uncancel()  # type: ignore[union-attr]
                self.guest.resume(self._waiter)  # type: ignore[arg-type]
            elif task.done():
                return
            else:
                self._future = self.loop.create_future()
                try:
                    await self._future
                except asyncio.CancelledError as error:
                    self._cancel(task, error)
                finally:
                    self._future = None

    def _cancel(self, task: Any, error: asyncio.CancelledError) -> None:
        """The asyncio task was cancelled between two awaits: that is raised where the task waits."""
        if self._request is None:
            task._throw(error)
        else:
            self._throw_into_request(error)

    def _throw_into_request(self, error: asyncio.CancelledError) -> None:
        self._thrown = error
        _, future = self._request or (None, None)
        if future is not None:
            # As if the cancelled task had been waiting for it already.
            future._asyncio_future_blocking = False
            future.cancel()

    def ended(self, _task: object) -> None:
        """The asyncio task was cancelled before it began, as a loop does that shuts down."""
        if self._request is not None and self._waiter is not None:
            (step, _), self._request = self._request, None
            getattr(step, "close", bool)()
            self._error = asyncio.CancelledError()
            self.guest.resume(self._waiter)

    # In either:

    def notify(self, _task: object = None) -> None:
        """There is something to await, or the task has ended."""
        future = self._future
        if future is not None and not future.done():
            future.set_result(None)


def _is_raised_here(error: BaseException) -> bool:
    """Whether ``error`` was thrown into the frame that caught it, and did not come out of a call of its own."""
    return error.__traceback__ is None or error.__traceback__.tb_next is None


def _steps(awaitable: Any) -> Any:
    """The iterator over the steps of an awaitable."""
    if isinstance(awaitable, types.GeneratorType) and awaitable.gi_code.co_flags & 0x100:
        return awaitable  # a generator of types.coroutine
    if isinstance(awaitable, Coroutine):
        return awaitable
    steps: Any = getattr(type(awaitable), "__await__", None)
    if steps is None:
        raise TypeError(f"{type(awaitable).__name__!r} object is not awaitable")
    return steps(awaitable)


def await_(awaitable: Awaitable[T]) -> T:
    """Await something of asyncio's from synchronous code, and return its result.

    In a task it runs on the event loop that drives the thread (see ``as_async``), in the task's
    own context, and other tasks go on meanwhile. Where no loop runs, balrog runs one in a task
    as long as somebody awaits. ``balrog.timeout`` and cancellation reach into what is awaited.
    Raises ``RuntimeError`` when called in a coroutine: there, use ``await``.
    """
    if _get_running_loop() is not None:
        if isinstance(awaitable, types.CoroutineType):
            awaitable.close()
        raise RuntimeError("await_ was called by a coroutine: use await there, or call what needs it by as_async")
    task = current_task()
    if task is None:
        return _await_outside(awaitable)
    host = task._host
    if host is None or host.task is not None and host.task.done():
        host = _new_host(task)
    return host.run(awaitable)


def _new_host(task: Task) -> _Host:
    """A host for a task that has none in a loop that lives."""
    guest = task._guest
    if guest is None or not guest.loop.is_running():
        ours = _HubLoop.of_thread()
        ours.enter()
        task.add_done_callback(ours.leave)
        guest = ours.guest
    host = _Host(guest, None)
    context = task._share_context()
    host.task = guest.loop.create_task(host.serve(task), name=f"host of {task.name}", context=context)
    host.task.add_done_callback(host.ended)
    task.add_done_callback(host.notify)
    task._host = host
    return host


class _Outside:
    """Stands for the code of a thread outside of tasks, which does not end."""

    def __init__(self) -> None:
        self.context: Any = None
        self.host: _Host | None = None

    def done(self) -> bool:
        return False

    def _throw(self, error: BaseException) -> None:
        """Cancelled while nothing is awaited: nobody is there to be told."""


def _await_outside(awaitable: Awaitable[T]) -> T:
    ours = _HubLoop.of_thread()
    ours.enter()
    try:
        return ours.host().run(awaitable)
    finally:
        ours.leave()


class _HubSelector(selectors.DefaultSelector):
    """Waits as a task does, so that others run meanwhile."""

    waits = False
    #: What `run_until_complete` runs, if that runs.
    main: asyncio.Future[Any] | None = None
    #: What cut the wait and made it cancel that.
    cut: BaseException | None = None

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        try:
            if ready or (timeout is not None and timeout <= 0):
                if self.cut is None:
                    sleep(0)
                return ready
            self.waits = True
            if timeout is None and len(self.get_map()) == 1:
                # For the loop's own end of a pipe alone, so it keeps no deadlock from being one.
                _wait_for_wakeup(self.fileno())
            else:
                wait_fd(self.fileno(), 1, timeout)
        except (Cancelled, TimeoutError) as error:
            # Raised from the middle of the loop it would leave half a step behind. Once: what the
            # coroutine does about it may not wait for ever.
            if self.main is None or self.cut is not None:
                raise
            self.cut = error
            self.main.cancel()
        finally:
            self.waits = False
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    """An event loop whose thread's tasks run while it waits."""

    def __init__(self, outlives: bool = True) -> None:
        self._hub_selector = _HubSelector()
        super().__init__(self._hub_selector)
        self.guest = Guest(self)
        #: Somebody else runs it, whether or not a task of ours awaits.
        self.outlives = outlives

    def run_until_complete(self, future: Any) -> Any:
        """As usual. Cancelling the task that runs it, or a timeout around it, cancels ``future`` first."""
        selector = self._hub_selector
        future = asyncio.ensure_future(future, loop=self)
        before = selector.main, selector.cut
        selector.main, selector.cut = future, None
        try:
            return super().run_until_complete(future)
        except asyncio.CancelledError:
            if selector.cut is None:
                raise
            raise selector.cut from None
        finally:
            selector.main, selector.cut = before
            del future

    def _nudge(self) -> None:
        if self._hub_selector.waits:
            # Once is enough for this wait.
            self._hub_selector.waits = False
            self._write_to_self()  # type: ignore[attr-defined]

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = super().call_soon(callback, *args, context=context)
        self._nudge()
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = super().call_at(when, callback, *args, context=context)
        self._nudge()
        return handle


def new_event_loop() -> asyncio.AbstractEventLoop:
    """An asyncio event loop that lets the tasks of its thread run while it waits.

    For code that runs a loop inside of a task: ``asyncio.Runner(loop_factory=balrog.new_event_loop)``.
    ``balrog.install("asyncio")`` makes it what ``asyncio.run`` uses.
    """
    return _Loop()


_thread = threading.local()


class _HubLoop:
    """The loop of a thread that has none, run in a task as long as somebody awaits."""

    def __init__(self) -> None:
        self.loop = _Loop(outlives=False)
        self.guest = self.loop.guest
        self._users = 0
        self._runner: Task | None = None
        self._outside = _Outside()

    @classmethod
    def of_thread(cls) -> _HubLoop:
        try:
            return _thread.loop
        except AttributeError:
            _thread.loop = cls()
            return _thread.loop

    def enter(self) -> None:
        self._users += 1
        if self._runner is None or self._runner.done():
            self._runner = spawn(self.loop.run_forever)
            self._runner.name = "asyncio"

    def leave(self, _task: object = None) -> None:
        self._users -= 1
        if not self._users:
            self.loop.call_soon(self._stop)

    def _stop(self) -> None:
        if not self._users:
            self.loop.stop()

    def host(self) -> _Host:
        """The host of the thread's code outside of tasks, in whose context it awaits."""
        outside = self._outside
        context = _current_context()
        if context is not None:
            try:
                context.run(int)
            except RuntimeError:
                context = None  # entered by somebody, so no asyncio task can
        if outside.host is None or context is None or context is not outside.context:
            host = _Host(self.guest, None)
            outside.context = context
            outside.host = host
            # An empty context is false.
            inside = copy_context() if context is None else context
            host.task = self.loop.create_task(host.serve(outside), context=inside)
        return outside.host

    def __del__(self) -> None:
        if not self.loop.is_running():
            for task in asyncio.all_tasks(self.loop):
                # It waits for somebody who is gone.
                task._log_destroy_pending = False  # type: ignore[attr-defined]
            self.loop.close()


def as_async(fn: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Make a coroutine function of a synchronous-looking one.

    ``await as_async(fn)(*args)`` runs ``fn`` as a task on the running loop's own thread; its waits
    let the loop go on. It runs at once until its first wait, in the caller's context, so context
    variables that it sets are the caller's. Cancelling the caller raises ``asyncio.CancelledError``
    at the wait where ``fn`` is. Works with asyncio's and uvloop's event loops.
    """

    @functools.wraps(fn)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        guest = _guest_in(loop)
        host = _Host(guest, asyncio.current_task(loop))
        task = guest.begin(fn, args, kwargs, host)
        if not task.done():
            task.add_done_callback(host.notify)
            try:
                await host.serve(task)
            except GeneratorExit:
                task.cancel()
                raise
        try:
            return task.result()
        except Cancelled as error:
            raise asyncio.CancelledError(*error.args) from error

    return call


def _guest_in(loop: asyncio.AbstractEventLoop) -> Guest:
    """The hub's place in ``loop``, taken when missing."""
    guest = _guest_of(loop)
    if guest is not None:
        return guest
    if not isinstance(loop, _Loop):
        guest = Guest(loop)
        guest.attach()
        return guest
    if loop.outlives:
        loop.guest.attach(drives=False)
    return loop.guest


class _SyncContext(Generic[T]):
    """An asynchronous context manager for ``with``."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def __enter__(self) -> T:
        return await_(type(self._manager).__aenter__(self._manager))

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool | None:
        return await_(type(self._manager).__aexit__(self._manager, kind, error, traceback))


class _SyncIterator(Iterator[T]):
    """An asynchronous iterator for ``for``."""

    def __init__(self, iterable: AsyncIterable[T]) -> None:
        self._iterator = type(iterable).__aiter__(iterable)

    def __next__(self) -> T:
        try:
            return await_(type(self._iterator).__anext__(self._iterator))
        except StopAsyncIteration as stop:
            raise StopIteration(*stop.args) from None

    def close(self) -> None:
        """Close an asynchronous generator before its end."""
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await_(close())


async def _call(fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """The result of an asynchronous function, or of one that needs a running loop only."""
    made = fn(*args, **kwargs)
    return await made if hasattr(type(made), "__await__") else made


def sync(x: Any) -> Any:
    """The synchronous-looking form of an asynchronous function, context manager or iterable.

    A function is called and awaited by ``await_``, and gets this form of what it makes:
    ``with sync(asyncio.timeout)(5):``. A context manager is for ``with``, an iterator or generator
    for ``for`` (its ``close()`` ends it early). ``TypeError`` for anything else.
    """
    kind = type(x)
    if hasattr(kind, "__aenter__"):
        return _SyncContext(x)
    if hasattr(kind, "__aiter__"):
        return _SyncIterator(x)
    if callable(x):

        @functools.wraps(x)
        def call(*args: Any, **kwargs: Any) -> Any:
            made = await_(_call(x, args, kwargs))
            return sync(made) if hasattr(type(made), "__aenter__") or hasattr(type(made), "__aiter__") else made

        return call
    raise TypeError(f"{kind.__name__!r} object is no asynchronous function, context manager or iterable")
