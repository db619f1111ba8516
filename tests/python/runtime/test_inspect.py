"""Stacks of tasks, deadlocks, slow turns, counters."""

import cProfile
import io
import json
import os
import pstats
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import balrog
import pytest
from support.green import green


def innermost():
    balrog.sleep(60)


def outer():
    innermost()


def names(task):
    return [frame.f_code.co_name for frame in task.stack]


@green
def test_the_stack_of_a_task_in_any_state():
    parked = balrog.spawn(outer)
    assert names(parked) == []
    balrog.sleep(0)
    assert names(parked) == ["outer", "innermost"]
    assert parked.stack[-1].f_lineno == innermost.__code__.co_firstlineno + 1
    parked.cancel()
    # Woken, and not yet back in its turn.
    assert names(parked) == ["outer", "innermost"]
    assert names(balrog.current_task())[-2:] == ["test_the_stack_of_a_task_in_any_state", "names"]
    parked.join()
    assert names(parked) == []


@green
def test_print_stacks_has_every_task_of_every_thread():
    stop = threading.Event()
    started = threading.Event()

    def elsewhere():
        def waits():
            started.set()
            while not stop.is_set():
                balrog.sleep(0.01)

        balrog.run(waits)

    thread = threading.Thread(target=elsewhere, name="elsewhere")
    thread.start()
    started.wait(60)
    task = balrog.spawn(outer)
    task.name = "patient"
    balrog.sleep(0)
    out = io.StringIO()
    balrog.print_stacks(out)
    stop.set()
    thread.join()
    task.cancel()
    text = out.getvalue()
    assert "<balrog.Task patient waiting> of MainThread" in text
    assert "in innermost" in text and "of elsewhere" in text and "in waits" in text


def run(code, **kwargs):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, **kwargs)


def test_a_signal_prints_the_stacks():
    done = run(
        "import balrog, os, signal, time\n"
        "balrog.debug(None, on_signal=signal.SIGUSR1)\n"
        "def sleeper(): balrog.sleep(60)\n"
        "def main():\n"
        "    task = balrog.spawn(sleeper)\n"
        "    balrog.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
        "    balrog.sleep(0.01)\n"
        "    task.cancel()\n"
        "balrog.run(main)\n"
    )
    assert done.returncode == 0, done.stderr
    assert "in sleeper" in done.stderr and "Current thread" in done.stderr


DEADLOCK = """
import balrog, threading
lock = balrog.Lock()
def left(event):
    with lock:
        event.wait()
def right(event):
    with lock:
        event.set()
def main():
    event = balrog.Event()
    tasks = [balrog.spawn(left, event), balrog.spawn(right, event)]
    SETUP
    for task in tasks:
        task.join()
try:
    balrog.run(main)
except balrog.Deadlock as error:
    text = str(error)
    assert "in left" in text and "in right" in text and "in main" in text, text
    print("deadlock")
"""


@pytest.mark.parametrize(
    "setup",
    ["balrog.to_thread(int)", "import asyncio; balrog.await_(asyncio.sleep(0.01))"],
    ids=["after-to_thread", "after-await_"],
)
def test_a_deadlock_is_an_error_with_the_waiting_stacks(setup):
    done = run(DEADLOCK.replace("SETUP", setup))
    assert done.stdout == "deadlock\n", done.stderr


@pytest.mark.parametrize(
    "setup",
    [
        "threading.Timer(0.1, event.set).start()",
        "import signal; signal.signal(signal.SIGALRM, lambda *_: event.set()); signal.setitimer(0, 0.1)",
        "tasks.append(balrog.spawn(lambda: balrog.to_thread(lambda: (__import__('time').sleep(0.1), event.set()))))",
        "tasks.append(balrog.spawn(lambda: (balrog.sleep(0.1), event.set())))",
        "import asyncio; tasks.append(balrog.spawn(lambda: (balrog.await_(asyncio.sleep(0.1)), event.set())))",
        "import asyncio, subprocess; begin = asyncio.create_subprocess_exec\n"
        "    async def child(): await (await begin('sleep', '0.1')).wait()\n"
        "    tasks.append(balrog.spawn(lambda: (balrog.await_(child()), event.set())))",
    ],
    ids=["thread", "signal", "to_thread", "timer", "await_", "process"],
)
def test_what_might_be_woken_is_no_deadlock(setup):
    done = run(DEADLOCK.replace("SETUP", setup))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_a_slow_task_is_reported_with_its_stack():
    reports = []

    def main():
        balrog.sleep(0.01)
        spin(0.4)
        balrog.sleep(0.01)
        spin(0.01)
        balrog.sleep(0.01)

    balrog.debug(slow=0.1, report=reports.append)
    try:
        balrog.run(main)
        assert balrog.counters()["longest"] > 0.3
    finally:
        balrog.debug(None)
    spins = [report for report in reports if "in spin" in report]
    assert len(spins) == 1 and "still does" in spins[0], reports
    before = len(reports)
    balrog.run(spin, 0.2)
    assert len(reports) == before


def test_a_call_that_keeps_the_interpreter_is_reported_after_it():
    reports = []

    def main():
        task = balrog.current_task()
        task.name = "hog"
        balrog.sleep(0)
        # One C call that never lets the lock go.
        sum(range(30_000_000))
        balrog.sleep(0.01)

    balrog.debug(slow=0.05, report=reports.append)
    try:
        balrog.run(main)
    finally:
        balrog.debug(None)
    assert any("hog" in report and "in main" in report for report in reports), reports


@green
def test_counters_count():
    before = balrog.counters()
    other = balrog.spawn(lambda: [balrog.sleep(0) for _ in range(10)])
    while not other.done():
        balrog.sleep(0)
    task = balrog.spawn(innermost)
    balrog.sleep(0)
    after = balrog.counters()
    assert after["switches"] >= before["switches"] + 10
    assert after["live"] == before["live"] + 1
    assert after["parked"] == before["parked"] + 1
    task.cancel()
    task.join()
    assert balrog.counters()["jobs"] >= before["jobs"]


def test_a_profiler_and_a_tracer_see_the_tasks():
    seen = set()

    def tracer(frame, event, argument):
        seen.add(frame.f_code.co_name)

    def traced():
        task = balrog.spawn(lambda: (sys.setprofile(tracer), outer_once())[1])
        task.join()

    def outer_once():
        inner_once()

    def inner_once():
        balrog.sleep(0.01)

    balrog.run(traced)
    sys.setprofile(None)
    assert {"outer_once", "inner_once"} <= seen


def leaf():
    """Called so often as the tasks below say."""


def count():
    for _ in range(5):
        leaf()
        balrog.sleep(0)


def compute():
    for _ in range(1_000_000):
        pass


def three():
    with balrog.TaskGroup() as group:
        for _ in range(3):
            group.spawn(count)
        group.spawn(compute)


def profiled():
    """Prints of a profile how often each function was called, and how long each was itself at work."""
    profile = cProfile.Profile()
    balrog.run(profile.runcall, three)
    stats = pstats.Stats(profile).stats.items()
    print(json.dumps({name: values[1:3] for (_, _, name), values in stats}))


def test_a_profile_counts_calls_of_every_task_and_their_own_time():
    # In a process of its own: since 3.12 a profile takes the calls of other threads for its own.
    command = [sys.executable, "-c", "import test_inspect; test_inspect.profiled()"]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    found = json.loads(subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE, text=True).stdout)
    assert [found[name][0] for name in ("leaf", "count", "compute")] == [15, 3, 1]
    assert found["compute"][1] > found["count"][1]


def sampled():
    """Three tasks wait somewhere deep while another one computes."""
    with balrog.TaskGroup() as group:
        for _ in range(3):
            group.spawn(count)
        waits = group.spawn(outer)
        balrog.sleep(0)
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            compute()
        waits.cancel()


def test_py_spy_shows_the_task_that_runs(tmp_path):
    report = tmp_path / "report"
    command = [sys.executable, "-c", "import balrog, test_inspect; balrog.run(test_inspect.sampled)"]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    spy = [Path(sys.executable).parent / "py-spy", "record", "--format", "raw", "--rate", "50", "--output", report]
    done = subprocess.run([*spy, "--", *command], env=environ, capture_output=True, text=True, timeout=120)
    if "ermission" in done.stderr:
        pytest.skip(f"py-spy may not look at processes here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    samples = [line.rpartition(" ") for line in report.read_text().splitlines()]
    seen = sum(int(times) for stack, _, times in samples if "sampled" in stack and "compute" in stack)
    assert seen > 20
    # Those that only wait are not there, nor is their stack mixed into the one that runs.
    assert not any("innermost" in stack and "compute" in stack for stack, _, _ in samples)
    assert sum(int(times) for stack, _, times in samples if "innermost" in stack) < seen


@pytest.mark.parametrize("start", [sys.setprofile, sys.settrace])
def test_a_hook_set_in_one_task_sees_the_others(start):
    names = []

    def hook(frame, event, argument):
        if event == "call":
            names.append(frame.f_code.co_name)

    def main():
        start(hook)
        try:
            three()
        finally:
            start(None)

    before = sys.gettrace()
    balrog.run(main)
    sys.settrace(before)
    assert (names.count("leaf"), names.count("count")) == (15, 3)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring is of 3.12")
def test_monitoring_sees_every_task():
    names, monitoring, tool = [], sys.monitoring, 3
    monitoring.use_tool_id(tool, "balrog's test")
    try:
        monitoring.register_callback(tool, monitoring.events.PY_START, lambda code, _: names.append(code.co_name))
        monitoring.set_events(tool, monitoring.events.PY_START)
        balrog.run(three)
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)
    assert (names.count("leaf"), names.count("count")) == (15, 3)


def test_an_error_has_its_whole_traceback():
    def deep(depth):
        if depth:
            deep(depth - 1)
        else:
            balrog.sleep(0.001)
            raise KeyError("deep")

    with pytest.raises(KeyError) as caught:
        balrog.run(deep, 5)
    assert [entry.name for entry in caught.traceback].count("deep") == 6


def test_the_signal_number_is_free_to_choose():
    before = signal.getsignal(signal.SIGUSR2)
    try:
        balrog.debug(None, on_signal=signal.SIGUSR2)
        assert signal.getsignal(signal.SIGUSR2) is not before
        assert os.getpid() > 0
    finally:
        signal.signal(signal.SIGUSR2, before)
