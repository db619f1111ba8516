"""What happens to tasks when the interpreter ends, and when the process forks."""

import atexit
import contextlib
import os
import sys

from balrog._balrog import _after_fork, _stop_other_hubs, current_task, tasks, timeout

#: How long tasks have for their clean-up at the interpreter's exit, in seconds.
CLEAN_UP = 5.0
#: How long other threads have to come to a wait, in seconds. One that does not, because it computes, is left alone.
STAND_STILL = 0.5


def _at_exit() -> None:
    """Cancels the main thread's tasks, so that their ``finally`` blocks run, and waits for their ends."""
    here = current_task()
    left = [task for task in tasks() if task is not here]
    for task in left:
        task.cancel()
    with contextlib.suppress(TimeoutError), timeout(CLEAN_UP):
        for task in left:
            task.join()
    for task in left:
        if not task.done() and sys.stderr is not None:
            print(f"balrog: {task!r} has not ended at the interpreter's exit", file=sys.stderr)
    _stop_other_hubs(STAND_STILL)


def install() -> None:
    """Registers both; called once, by ``import balrog``."""
    os.register_at_fork(after_in_child=_after_fork)
    atexit.register(_at_exit)
