"""Cancels a scenario at each of its waits, one after another, and looks for what that leaves behind.

A scenario is a generator: it sets up, gives the function that a task is to run, and looks, after that has been
cancelled or has ended, whether what it used is as it was. Tasks, stacks, descriptors and threads are counted here.
"""

import asyncio
import contextlib
import os
import threading
import time

import balrog

#: What no scenario may take longer for to be clean again, in seconds.
PATIENCE = 20.0


class Scenarios(dict):
    """The scenarios of a test file, by name; a decorator for each."""

    def __call__(self, function):
        self[function.__name__] = contextlib.contextmanager(function)
        return function


def held():
    """What the process and this thread's hub hold: no more after than before."""
    counters = balrog.counters()
    return {
        "tasks": len(balrog.tasks()),
        "live": counters["live"],
        "parked": counters["parked"],
        "descriptors": len(os.listdir("/proc/self/fd")),
        # Those of `to_thread` stay for the next call.
        "threads": sum(not thread.name.startswith("balrog") for thread in threading.enumerate()),
    }


def left_behind(before):
    """What is held and was not before, as soon as that is nothing, or the patience is over: peers take a moment."""
    until = time.monotonic() + PATIENCE
    while True:
        now = held()
        more = {what: count for what, count in now.items() if count > before[what]}
        if not more or time.monotonic() > until:
            return now, more
        balrog.sleep(0.005)


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
    before = held()
    number = 1
    while True:
        with make() as body:
            reached = cancel_at(number, body)
        after, more = left_behind(before)
        assert not more, f"cancelled at wait {number}, it left behind {more}, of {before} before"
        # Less, if something of before the first time had not gone yet.
        before = after
        if not reached:
            return number - 1
        number += 1
