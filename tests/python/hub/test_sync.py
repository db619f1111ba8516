"""Locks and queues between tasks, between threads, and between both."""

import queue
import threading

import balrog
import pytest
from balrog._sync import LifoQueue, PriorityQueue


def test_a_lock_is_handed_over_in_order():
    lock = balrog.Lock()
    order = []

    def worker(name):
        with lock:
            order.append(name)
            balrog.sleep(0.01)

    def main():
        for task in [balrog.spawn(worker, name) for name in "abcd"]:
            task.join()

    balrog.run(main)
    assert order == list("abcd")
    assert not lock.locked()
    with pytest.raises(RuntimeError):
        lock.release()


def test_a_lock_excludes_tasks_and_threads_alike():
    lock = balrog.Lock()
    inside = []
    most = []

    def worker():
        for _ in range(20):
            with lock:
                inside.append(1)
                most.append(len(inside))
                balrog.sleep(0.0005)
                inside.pop()

    def tasks():
        for task in [balrog.spawn(worker) for _ in range(4)]:
            task.join()

    threads = [threading.Thread(target=balrog.run, args=[tasks]) for _ in range(2)]
    threads += [threading.Thread(target=worker) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(most) == 200 and max(most) == 1


def test_a_permit_given_to_a_cancelled_waiter_is_passed_on():
    semaphore = balrog.Semaphore(0)

    def main():
        first, second = balrog.spawn(semaphore.acquire), balrog.spawn(semaphore.acquire)
        balrog.sleep(0.01)
        first.cancel()
        semaphore.release()
        first.join()
        assert second.result(5) is True

    balrog.run(main)
    assert semaphore._value == 0 and semaphore._waiting == 0


@pytest.mark.parametrize("inside", [True, False], ids=["task", "thread"])
def test_timeouts(inside):
    def body():
        lock = balrog.Lock()
        assert lock.acquire()
        assert not lock.acquire(blocking=False)
        assert not lock.acquire(timeout=0.01)
        assert not balrog.Event().wait(0.01)
        with pytest.raises(queue.Empty):
            balrog.Queue().get(timeout=0.01)
        condition = balrog.Condition()
        with condition:
            assert not condition.wait(0.01)

    balrog.run(body) if inside else body()


def test_an_rlock_belongs_to_its_task():
    lock = balrog.RLock()

    def other():
        return lock.acquire(blocking=False)

    def main():
        with lock, lock:
            assert balrog.spawn(other).result() is False
            with pytest.raises(RuntimeError):
                balrog.spawn(lock.release).result()
        assert balrog.spawn(other).result() is True

    balrog.run(main)


def test_a_condition_wakes_across_threads():
    condition = balrog.Condition()
    box = []

    def consumer():
        with condition:
            condition.wait_for(lambda: box, timeout=10)
            return box.pop()

    def produce():
        with condition:
            box.append("food")
            condition.notify()

    def main():
        task = balrog.spawn(consumer)
        balrog.sleep(0.01)
        thread = threading.Thread(target=produce)
        thread.start()
        assert task.result(10) == "food"
        thread.join()

    balrog.run(main)


def test_a_bounded_queue_holds_its_producer_back():
    channel = balrog.Queue(maxsize=2)
    log = []

    def producer():
        for item in range(5):
            channel.put(item)
            log.append(("put", item))

    def main():
        task = balrog.spawn(producer)
        balrog.sleep(0.01)
        assert log == [("put", 0), ("put", 1)] and channel.full()
        assert [channel.get() for _ in range(5)] == list(range(5))
        task.join()
        for _ in range(5):
            channel.task_done()
        channel.join()
        with pytest.raises(ValueError):
            channel.task_done()

    balrog.run(main)


def test_other_orders():
    for kind, expected in [(LifoQueue, [2, 3, 1]), (PriorityQueue, [1, 2, 3])]:
        channel = kind()
        for item in (1, 3, 2):
            channel.put(item)
        assert [channel.get_nowait() for _ in range(3)] == expected


def test_a_bounded_semaphore_refuses_too_many_releases():
    semaphore = balrog.BoundedSemaphore(1)
    with semaphore:
        pass
    with pytest.raises(ValueError):
        semaphore.release()
