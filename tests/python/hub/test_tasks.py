"""Green tasks: results, errors, time, cancellation, context."""

import contextlib
import contextvars
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref

import balrog
import pytest

variable = contextvars.ContextVar("variable", default="none")


def test_a_thousand_sleepers_take_the_time_of_one():
    def sleeper(number):
        balrog.sleep(0.1)
        return number

    def main():
        tasks = [balrog.spawn(sleeper, number) for number in range(1000)]
        return [task.result() for task in tasks]

    start = time.monotonic()
    assert balrog.run(main) == list(range(1000))
    assert time.monotonic() - start < 2
    assert balrog.tasks() == []


def test_an_exception_comes_out_with_its_traceback():
    def fails():
        balrog.sleep(0)
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost") as caught:
        balrog.run(fails)
    assert caught.traceback[-1].name == "fails"
    task = balrog.spawn(fails)
    assert task.join(5)
    assert isinstance(task.exception(), KeyError)


def test_spawned_tasks_run_whenever_the_root_waits():
    seen = []
    balrog.spawn(seen.append, 1)
    assert seen == []
    balrog.sleep(0.01)
    assert seen == [1]


def test_yielding_is_fair():
    order = []

    def worker(name):
        for _ in range(3):
            order.append(name)
            balrog.sleep(0)

    def main():
        for task in [balrog.spawn(worker, name) for name in "abc"]:
            task.join()

    balrog.run(main)
    assert order == list("abcabcabc")


def test_cancel_is_raised_at_the_wait_and_cleanup_may_wait():
    steps = []

    def worker():
        try:
            balrog.sleep(60)
        except balrog.Cancelled:
            balrog.sleep(0.01)
            steps.append("cleaned up")
            raise

    def main():
        task = balrog.spawn(worker)
        balrog.sleep(0.01)
        assert task.cancel()
        assert not task.cancel()
        with pytest.raises(balrog.Cancelled):
            task.result(5)

    balrog.run(main)
    assert steps == ["cleaned up"]
    assert not issubclass(balrog.Cancelled, Exception)


def test_cancel_before_the_first_wait_comes_at_that_wait():
    steps = []

    def worker():
        steps.append("ran")
        balrog.sleep(60)

    def main():
        task = balrog.spawn(worker)
        task.cancel()
        with pytest.raises(balrog.Cancelled):
            task.result(5)

    balrog.run(main)
    assert steps == ["ran"]


def test_a_shield_holds_cancellation_back_until_it_ends():
    steps = []

    def worker():
        with balrog.shield():
            balrog.sleep(0.05)
            steps.append("shielded")
        balrog.sleep(60)

    def main():
        task = balrog.spawn(worker)
        balrog.sleep(0.01)
        task.cancel()
        with pytest.raises(balrog.Cancelled):
            task.result(5)

    balrog.run(main)
    assert steps == ["shielded"]


@pytest.mark.parametrize("inside", [True, False], ids=["task", "thread"])
def test_timeouts_nest_and_the_nearest_counts(inside):
    def body():
        start = time.monotonic()
        with pytest.raises(TimeoutError), balrog.timeout(5), balrog.timeout(0.05):
            balrog.sleep(60)
        with pytest.raises(TimeoutError), balrog.timeout(0.05), balrog.timeout(5):
            balrog.sleep(60)
        assert 0.09 < time.monotonic() - start < 2
        with balrog.timeout(None):
            balrog.sleep(0)

    balrog.run(body) if inside else body()


def test_a_drivers_exception_becomes_the_timeout_again():
    def body():
        with balrog.timeout(0.01):
            try:
                balrog.sleep(60)
            except TimeoutError as error:
                raise ValueError("a driver's own") from error

    with pytest.raises(TimeoutError) as caught:
        balrog.run(body)
    assert isinstance(caught.value.__cause__, ValueError)


def test_each_task_has_its_own_context_and_locals():
    store = balrog.local()
    store.name = "root"

    def child(name):
        assert variable.get() == "parent"
        assert not hasattr(store, "name")
        variable.set(name)
        store.name = name
        balrog.sleep(0.01)
        return variable.get(), store.name

    def main():
        variable.set("parent")
        tasks = [balrog.spawn(child, name) for name in "ab"]
        return [task.result() for task in tasks], variable.get()

    assert balrog.run(main) == ([("a", "a"), ("b", "b")], "parent")
    assert variable.get() == "none"
    assert store.name == "root"


def test_what_a_local_does_as_it_goes_may_look_at_its_task():
    store, seen = balrog.local(), []

    class Looks:
        def __init__(self):
            self.task = balrog.current_task()

        def __del__(self):
            self.task.name += "'s"
            seen.append((self.task.name, self.task.done(), self.task.result(), balrog.current_task()))

    def worker():
        balrog.current_task().name = "worker"
        store.looks = Looks()
        return "result"

    def main():
        task = balrog.spawn(worker)
        task.join()

    balrog.run(main)
    assert seen == [("worker's", True, "result", None)]


def test_end_callbacks_run_in_the_task_and_may_wait():
    steps = []

    def end():
        balrog.sleep(0.01)
        steps.append(balrog.current_task().name)

    def worker():
        assert balrog.at_task_end(end)
        balrog.sleep(60)

    def main():
        task = balrog.spawn(worker)
        task.name = "waiter"
        balrog.sleep(0.01)
        task.cancel()
        task.join(5)

    balrog.run(main)
    assert steps == ["waiter"]
    assert not balrog.at_task_end(end)


@pytest.mark.parametrize("inside", [True, False], ids=["task", "thread"])
def test_readiness_of_descriptors(inside):
    ours, theirs = socket.socketpair()

    def body():
        with pytest.raises(TimeoutError):
            balrog.wait_readable(theirs.fileno(), timeout=0.02)
        balrog.wait_writable(theirs.fileno(), timeout=1)
        timer = threading.Timer(0.02, ours.send, [b"x"])
        timer.start()
        balrog.wait_readable(theirs.fileno(), timeout=5)
        assert theirs.recv(1) == b"x"
        timer.join()

    with ours, theirs:
        balrog.run(body) if inside else body()


def test_two_readers_of_one_descriptor_are_an_error():
    ours, theirs = socket.socketpair()

    def main():
        first = balrog.spawn(balrog.wait_readable, theirs.fileno())
        balrog.sleep(0.01)
        with pytest.raises(OSError, match="another task waits"):
            balrog.wait_readable(theirs.fileno(), timeout=1)
        ours.send(b"x")
        first.result(5)

    with ours, theirs:
        balrog.run(main)


def test_a_task_can_be_joined_and_cancelled_from_another_thread():
    started = threading.Event()
    box = []

    def worker():
        started.set()
        balrog.sleep(60)

    def main():
        box.append(balrog.spawn(worker))
        box[0].join(10)

    thread = threading.Thread(target=balrog.run, args=[main])
    thread.start()
    started.wait(5)
    box[0].cancel()
    assert box[0].join(5)
    thread.join(5)
    assert not thread.is_alive()
    assert isinstance(box[0].exception(), balrog.Cancelled)


def test_to_thread_lets_others_run():
    ticks = []

    def ticker():
        for _ in range(5):
            balrog.sleep(0.01)
            ticks.append(1)

    def main():
        task = balrog.spawn(ticker)
        name = balrog.to_thread(lambda: (time.sleep(0.1), threading.current_thread().name)[1])
        assert name.startswith("balrog") and len(ticks) == 5
        task.join()

    balrog.run(main)


def test_an_error_that_nobody_sees_is_reported(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)

    def main():
        balrog.spawn(lambda: 1 / 0)
        balrog.sleep(0.01)

    balrog.run(main)
    gc.collect()
    assert [type(report.exc_value) for report in seen] == [ZeroDivisionError]


def test_interrupt_reaches_the_main_function():
    def main():
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            balrog.sleep(60)
        except KeyboardInterrupt:
            balrog.sleep(0.01)
            return "interrupted"

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        assert balrog.run(main) == "interrupted"
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_forked_child_starts_afresh():
    def main():
        balrog.spawn(balrog.sleep, 60)
        balrog.sleep(0.01)
        pid = os.fork()
        if pid == 0:
            code = 0 if threading.Thread(target=balrog.run, args=[balrog.sleep, 0.01]).start() is None else 1
            os._exit(code)
        return os.waitpid(pid, 0)[1]

    code = f"import os, threading, balrog\n{_source(main)}\nraise SystemExit(balrog.run(main))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=30)
    assert done.returncode == 0


def _source(function):
    import inspect
    import textwrap

    return textwrap.dedent(inspect.getsource(function))


def test_a_failed_task_is_not_kept_alive_by_its_own_traceback():
    class Held:
        pass

    def main():
        def fails(held):
            balrog.sleep(0)
            raise KeyError("lost")

        held = Held()
        alive = weakref.ref(held)
        task = balrog.spawn(fails, held)
        del held
        # The exception now leads to this frame, which leads to the task, which has the exception.
        with contextlib.suppress(KeyError):
            task.result()
        return alive

    alive = balrog.run(main)
    gc.collect()
    assert alive() is None


def test_waits_are_counted():
    def waiter():
        balrog.sleep(0)
        balrog.sleep(0.001)
        balrog.Event().wait(0.001)

    def main():
        task = balrog.spawn(waiter)
        before = task.waits
        task.join()
        return before, task.waits

    assert balrog.run(main) == (0, 3)


def test_an_exception_survives_the_report_of_others_that_nobody_sees(monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reported.append(str(report.exc_value)))

    def fails(number):
        raise KeyError(number)

    def main():
        # The list goes while the first one's exception unwinds this frame, and the other tasks with it.
        for task in [balrog.spawn(fails, number) for number in range(3)]:
            task.result()

    with pytest.raises(KeyError, match="0"):
        balrog.run(main)
    gc.collect()
    assert sorted(reported) == ["1", "2"]
