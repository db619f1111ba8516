"""Where a switch would do harm: callbacks of C code, imports, forks, foreign greenlets, threads that end."""

import ctypes
import gc
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import warnings
from pathlib import Path

import balrog
import greenlet
import pytest
from support.green import green, ticking

COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
qsort = ctypes.CDLL(None).qsort

pytestmark = pytest.mark.filterwarnings("ignore:a task waits:RuntimeWarning")


def from_c(function):
    """Calls ``function`` from C code that has let the interpreter go."""
    outcome = []

    def compare(_a, _b):
        if not outcome:
            try:
                outcome.append((function(), None))
            except BaseException as error:
                outcome.append((None, error))
        return 0

    items = (ctypes.c_int * 2)()
    qsort(items, 2, ctypes.sizeof(ctypes.c_int), COMPARE(compare))
    result, error = outcome[0]
    if error:
        raise error
    return result


def script(code, *arguments, **options):
    """Runs a script of its own and returns what it printed."""
    command = [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


@green
def test_a_wait_inside_a_callback_of_c_code_lets_nobody_run():
    with ticking() as ticks:
        balrog.sleep(0.05)
        before = ticks.count
        assert before > 0
        begun = time.monotonic()
        from_c(lambda: balrog.sleep(0.2))
        assert time.monotonic() - begun >= 0.2
        assert ticks.count == before
        balrog.sleep(0.05)
        assert ticks.count > before


@green
def test_every_kind_of_wait_works_inside_a_callback():
    ours, theirs = os.pipe()
    timer = threading.Timer(0.05, os.write, [theirs, b"x"])
    timer.start()
    from_c(lambda: balrog.wait_readable(ours, timeout=10))
    assert os.read(ours, 1) == b"x"
    from_c(lambda: balrog.sleep(0))
    assert from_c(lambda: balrog.to_thread(time.sleep, 0.02)) is None
    with pytest.raises(TimeoutError):
        from_c(lambda: balrog.wait_readable(ours, timeout=0.02))
    with pytest.raises(TimeoutError), balrog.timeout(0.02):
        from_c(lambda: balrog.sleep(10))
    os.close(ours)
    os.close(theirs)


@green
def test_cancellation_reaches_a_wait_inside_a_callback():
    task = balrog.spawn(from_c, lambda: balrog.sleep(60))
    threading.Timer(0.1, task.cancel).start()
    assert task.join(10)
    assert isinstance(task.exception(), balrog.Cancelled)


@green
def test_waiting_for_a_task_inside_a_callback_is_an_error_and_no_deadlock():
    other = balrog.spawn(balrog.sleep, 0)
    with pytest.raises(RuntimeError, match="inside a callback of C code"):
        from_c(other.result)
    assert other.join(5)


@green
def test_callbacks_of_two_tasks_never_interleave():
    """sqlite3 calls Python functions through PyGILState_Ensure, as most C code does."""
    order = []

    def work(name):
        def slow(_):
            order.append(f"{name} in")
            balrog.sleep(0.01)
            order.append(f"{name} out")
            return 1

        with sqlite3.connect(":memory:") as database:
            database.create_function("slow", 1, slow)
            for _ in range(3):
                assert database.execute("select slow(1) + slow(2)").fetchone() == (2,)
                balrog.sleep(0)
        database.close()

    for task in [balrog.spawn(work, name) for name in "abc"]:
        task.result(20)
    assert len(order) == 36
    assert all(order[at + 1] == order[at].replace("in", "out") for at in range(0, 36, 2))


def test_a_wait_of_the_main_program_inside_a_callback_runs_the_tasks():
    seen = []
    balrog.spawn(seen.append, "ran")
    from_c(lambda: balrog.sleep(0.01))
    assert seen == ["ran"]
    assert from_c(lambda: balrog.run(lambda: [balrog.spawn(int, "7").result(5), balrog.sleep(0.01)])) == [7, None]


def test_it_is_said_once():
    done = script(
        """
        import ctypes, balrog
        back = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda a, b: balrog.sleep(0.01) or 0)
        def main():
            for _ in range(3):
                ctypes.CDLL(None).qsort((ctypes.c_int * 2)(), 2, 4, back)
        balrog.run(main)
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("RuntimeWarning: a task waits inside a callback of C code") == 1


SLOW_MODULE = """
import balrog
half_made = True
balrog.sleep(0.1)
import slow_module_too
value = 1
"""


@pytest.fixture
def slow_module(tmp_path, monkeypatch):
    (tmp_path / "slow_module.py").write_text(SLOW_MODULE)
    (tmp_path / "slow_module_too.py").write_text("import balrog\nbalrog.sleep(0.05)\nvalue = 2\n")
    (tmp_path / "runs_tasks.py").write_text(
        "import balrog\ndone = balrog.run(lambda: [t.result() for t in [balrog.spawn(balrog.sleep, 0.2)] * 3])\n"
        "names = balrog.run(lambda: [balrog.spawn(str, n).result() for n in range(3)])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("slow_module", "slow_module_too", "runs_tasks"):
        sys.modules.pop(name, None)


@green
def test_a_module_that_waits_is_never_seen_half_made(slow_module):
    def load():
        import slow_module

        return slow_module.value

    assert [task.result(10) for task in [balrog.spawn(load) for _ in range(5)]] == [1] * 5


def test_a_module_may_run_tasks_of_its_own(slow_module):
    import runs_tasks

    assert runs_tasks.names == ["0", "1", "2"]
    assert balrog.run(lambda: __import__("runs_tasks").names) == ["0", "1", "2"]


@green
def test_a_stack_that_is_not_ours_goes_on_where_it_waited():
    """What SQLAlchemy's greenlet_spawn does: a child greenlet inside of a task."""

    def work(name):
        me = balrog.current_task()

        def child(number):
            assert balrog.current_task() is me
            balrog.sleep(0.01 * number)
            back = parent.switch(("asks", number))
            balrog.sleep(0.001)
            return ("gives", back)

        parent = greenlet.getcurrent()
        children = [greenlet.greenlet(child) for _ in range(3)]
        results = []
        for number, one in enumerate(children):
            assert one.switch(number) == ("asks", number)
            balrog.sleep(0.005)
        for one in children:
            results.append(one.switch(name))
        assert all(one.dead for one in children)
        return results

    tasks = [balrog.spawn(work, name) for name in "abcd"]
    assert [task.result(20) for task in tasks] == [[("gives", name)] * 3 for name in "abcd"]


@green
def test_exceptions_stay_with_their_task():
    def fails(name):
        try:
            raise KeyError(name)
        except KeyError as error:
            balrog.sleep(0.01)
            assert sys.exc_info()[1] is error
            try:
                balrog.sleep(0)
                raise ValueError(name)
            except ValueError as second:
                balrog.sleep(0.01)
                assert sys.exc_info()[1] is second
                assert second.__context__ is error
            assert sys.exc_info()[1] is error
            balrog.sleep(0)
            raise

    tasks = [balrog.spawn(fails, name) for name in "abc"]
    assert sys.exc_info() == (None, None, None)
    for name, task in zip("abc", tasks, strict=True):
        with pytest.raises(KeyError) as caught:
            task.result(10)
        assert caught.value.args == (name,)
        assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "fails"
    assert sys.exc_info() == (None, None, None)


@pytest.fixture
def interrupt_soon():
    """Ctrl-C 50 ms after the call, whatever runs then."""
    timers = []

    def soon():
        timers.append(threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]))
        timers[-1].start()

    yield soon
    for timer in timers:
        timer.join(5)


def spin():
    """Computes, and lets others run now and then."""
    while True:
        sum(range(1000))
        balrog.sleep(0)


def compute():
    while True:
        sum(range(1000))


def test_an_interrupt_is_for_the_main_function_while_another_task_computes(interrupt_soon):
    def main():
        other = balrog.spawn(spin)
        interrupt_soon()
        try:
            balrog.sleep(20)
        except KeyboardInterrupt:
            return "interrupted", other.done()
        finally:
            other.cancel()

    assert balrog.run(main) == ("interrupted", False)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_ends_a_main_function_that_computes(interrupt_soon):
    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        balrog.run(compute)


def test_an_interrupt_ends_a_wait_outside_of_tasks(interrupt_soon):
    other = balrog.spawn(spin)
    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        balrog.sleep(20)
    assert not other.done()
    other.cancel()
    other.join(5)
    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        balrog.sleep(20)


def test_an_interrupt_ends_a_wait_inside_a_callback(interrupt_soon):
    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        balrog.run(from_c, lambda: balrog.sleep(20))


def test_a_handler_of_the_programs_own_is_left_alone():
    seen = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        balrog.run(lambda: [os.kill(os.getpid(), signal.SIGINT), balrog.sleep(0.01)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]


def child_of_a_fork(status):
    """What a forked child does: its own tasks, and the parent's are none of its business."""
    assert balrog.tasks() == []
    names = balrog.run(lambda: [task.result(5) for task in [balrog.spawn(str, n) for n in range(3)]])
    balrog.sleep(0.05)
    return status if names == ["0", "1", "2"] else 99


def forks():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 98
        try:
            status = child_of_a_fork(7)
        finally:
            os._exit(status)
    begun = time.monotonic()
    balrog.sleep(0.2)
    assert 0.19 < time.monotonic() - begun < 5, "the child took the parent's timer"
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_fork_outside_of_tasks():
    balrog.spawn(balrog.sleep, 0.3)
    balrog.sleep(0.01)
    assert forks() == 7


@green
def test_a_fork_inside_of_a_task():
    with ticking() as ticks:
        balrog.sleep(0.02)
        assert forks() == 7
        assert ticks.count > 5


def child_process(queue):
    queue.put(child_of_a_fork(7))


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("inside", [True, False], ids=["task", "thread"])
def test_multiprocessing(method, inside):
    def body():
        context = multiprocessing.get_context(method)
        queue = context.SimpleQueue()
        process = context.Process(target=child_process, args=(queue,))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        balrog.wait_readable(process.sentinel, timeout=30)
        process.join(5)
        assert process.exitcode == 0
        return queue.get()

    assert (balrog.run(body) if inside else body()) == 7


def test_a_thread_may_end_with_tasks_that_wait():
    descriptors = Path("/proc/self/fd")

    def leaves_tasks():
        for _ in range(5):
            balrog.spawn(balrog.sleep, 3600)
        balrog.sleep(0.001)

    leaves_tasks_in_threads(1, leaves_tasks)
    before = len(list(descriptors.iterdir()))
    leaves_tasks_in_threads(20, leaves_tasks)
    gc.collect()
    assert len(list(descriptors.iterdir())) <= before


def leaves_tasks_in_threads(count, function):
    for _ in range(count):
        thread = threading.Thread(target=function)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()


def test_a_task_of_a_thread_that_ended_can_be_joined_in_bounded_time():
    box = []

    def leaves_one():
        box.append(balrog.spawn(balrog.sleep, 3600))
        balrog.sleep(0.001)

    leaves_tasks_in_threads(1, leaves_one)
    assert box[0].join(0.05) is False
    box[0].cancel()
    assert box[0].join(0.05) is False
