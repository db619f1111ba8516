"""What the tasks do, and who holds the hub up."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, TextIO

from balrog import _threads
from balrog._balrog import Task, _all_tasks, _on_interrupt, _pulses, _set_observers, _watch_slow, counters

__all__ = ["Deadlock", "counters", "debug", "print_stacks"]

_logger = logging.getLogger("balrog")


class Deadlock(RuntimeError):
    """Every task waits for another one, and nothing outside can wake any; the message has their stacks."""


def _format(frames: list[FrameType]) -> str:
    summary = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames)
    return "".join(summary.format())


def format_stacks() -> str:
    """What ``print_stacks`` prints."""
    threads = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, task in _all_tasks():
        where = threads.get(ident, f"thread {ident}")
        stack = _format(task.stack) or "  (not started)\n"
        parts.append(f"{task!r} of {where}, most recent call last:\n{stack}")
    return "\n".join(parts) or "no tasks\n"


def print_stacks(file: TextIO | None = None) -> None:
    """Print the stack of every task of the process to ``file`` (``sys.stderr``)."""
    print(format_stacks(), end="", file=file or sys.stderr, flush=True)


def _on_signal(_number: int, _frame: object) -> None:
    faulthandler.dump_traceback(sys.__stderr__ or 2)
    print_stacks(sys.__stderr__)


class _Watch(threading.Thread):
    """Looks at every hub now and then; a turn that is the same for too long is reported with its stack."""

    def __init__(self, slow: float, report: Callable[[str], object]) -> None:
        super().__init__(name="balrog-watch", daemon=True)
        self.slow = slow
        self.report = report
        self.stopped = threading.Event()
        self.seen: dict[int, tuple[int, float]] = {}
        self.reported: dict[int, int] = {}

    def run(self) -> None:
        while not self.stopped.wait(self.slow / 4):
            for thread, beat, task in _pulses():
                self.look(thread, beat, task)

    def look(self, thread: int, beat: int, task: Task | None) -> None:
        now = time.monotonic()
        known, since = self.seen.get(thread, (-1, now))
        if known != beat:
            self.seen[thread] = beat, now
        elif beat % 2 and now - since >= self.slow and self.reported.get(thread) != beat:
            self.reported[thread] = beat
            frames = []
            frame = sys._current_frames().get(thread)
            while frame is not None:
                frames.insert(0, frame)
                frame = frame.f_back
            self.tell(task, f"has held the hub for {now - since:.2f} s and still does", frames)

    def ended(self, thread: int, beat: int, task: Task | None, seconds: float) -> None:
        """A turn was slow: reported here unless it was seen while it lasted, as no GIL-holding call can be."""
        if self.reported.get(thread) != beat:
            self.tell(task, f"held the hub for {seconds:.2f} s before this wait", task.stack if task else [])

    def tell(self, task: Task | None, what: str, frames: list[FrameType]) -> None:
        who = repr(task) if task else "a task that has ended"
        self.report(f"{who} {what}, most recent call last:\n{_format(frames)}")


_watch: _Watch | None = None


def debug(
    slow: float | None = 0.1,
    *,
    report: Callable[[str], object] | None = None,
    on_signal: int | None = None,
) -> None:
    """Report tasks that hold the hub: with ``slow`` seconds or more between two waits.

    ``report`` gets the text, which has the stack; by default the logger ``balrog`` does, as a
    warning. Most are seen while they last, from a thread of their own; a call that keeps the GIL
    is reported after it. ``slow=None`` ends this. ``on_signal=signal.SIGUSR1`` has that signal
    print the stacks of all threads and tasks.
    """
    global _watch
    if _watch is not None:
        _watch.stopped.set()
        _watch = None
    _watch_slow(0)
    if slow is not None:
        if slow <= 0:
            raise ValueError("slow must be more than 0 seconds")
        _watch = _Watch(slow, report or _logger.warning)
        _watch.start()
        _watch_slow(slow)
    if on_signal is not None:
        signal.signal(on_signal, _on_signal)


def _slow_turn(thread: int, beat: int, task: Task | None, seconds: float) -> None:
    if _watch is not None:
        _watch.ended(thread, beat, task, seconds)


def _stuck() -> Deadlock | None:
    """The error for a hub that nothing on its thread can wake, unless another thread or a signal might."""
    if not _is_alone() or _has_signal_handlers():
        return None
    return Deadlock("every task waits, and nothing can wake any of them:\n" + format_stacks())


def _is_alone() -> bool:
    """Whether no other thread of the process can do anything."""
    idle = _threads.idle() + (_watch is not None and _watch.is_alive())
    try:
        # A thread that Python does not know may call back into it at any time.
        return len(os.listdir("/proc/self/task")) <= 1 + idle
    except OSError:
        return threading.active_count() <= 1 + idle


def _has_signal_handlers() -> bool:
    if threading.current_thread() is not threading.main_thread():
        return False
    passive: tuple[Any, ...] = (
        signal.SIG_DFL,
        signal.SIG_IGN,
        signal.default_int_handler,
        _on_interrupt,
        _on_signal,
        None,
    )
    return any(signal.getsignal(number) not in passive for number in signal.valid_signals())


_set_observers(_slow_turn, _stuck)
