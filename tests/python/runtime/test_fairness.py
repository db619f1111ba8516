"""A task that yields with nobody else to run goes on at once, and yet takes in what happens outside."""

import socket
import threading
import time

import balrog
import pytest
from support.green import green


def yield_until(condition):
    until = time.monotonic() + 60
    while not condition():
        balrog.sleep(0)
        assert time.monotonic() < until


@green
def test_timers_descriptors_and_threads_get_through():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        timer = balrog.spawn(balrog.sleep, 0.01)
        reader = balrog.spawn(balrog.wait_readable, theirs.fileno())
        event = balrog.Event()
        waiter = balrog.spawn(event.wait)
        balrog.sleep(0)
        yield_until(timer.done)
        ours.send(b"x")
        yield_until(reader.done)
        thread = threading.Thread(target=event.set)
        thread.start()
        yield_until(waiter.done)
        thread.join()


@green
def test_others_have_their_turn_as_soon_as_there_are_any():
    order = []
    for number in range(200):
        balrog.spawn(order.append, number)
        balrog.sleep(0)
        assert order[-1] == number


@green
def test_cancellation_and_timeouts_come_to_who_only_yields():
    with pytest.raises(TimeoutError), balrog.timeout(0.01):
        yield_until(lambda: False)
    balrog.current_task().cancel()
    with pytest.raises(balrog.Cancelled):
        balrog.sleep(0)
