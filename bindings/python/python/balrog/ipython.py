"""``%load_ext balrog`` in IPython and Jupyter.

At IPython's prompt tasks go on while it waits for a line. In a notebook, whose event loop runs
already, each cell is a task: ``balrog.await_``, ORM calls and ``requests`` work in it although a
loop runs, and the tasks that it spawned go on between the cells.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from typing import Any

from balrog._asyncio import _guest_in, as_async
from balrog._balrog import wait_fd

__all__ = ["load", "unload"]

#: What the extension replaced in a shell: attribute name -> what the instance had.
_replaced: dict[str, Any] = {}


def _wait_for_input(context: Any) -> None:
    """IPython's input hook: returns when there is input."""
    while not context.input_is_ready():
        wait_fd(context.fileno(), 1, 0.1)


def _drive(coroutine: Any) -> Any:
    """Run a coroutine that awaits nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise RuntimeError("a cell without await awaited something")


def _make_cells_tasks(shell: Any) -> None:
    run_code = shell.run_code

    async def run_in_task(code: Any, result: Any = None, *, async_: bool = False) -> Any:
        if async_:
            return await run_code(code, result, async_=True)
        return await as_async(_drive)(run_code(code, result, async_=False))

    def always(*_args: Any, **_kwargs: Any) -> bool:
        # The kernel awaits such cells on its loop, which is what lets a task wait.
        return True

    _replace(shell, "run_code", run_in_task)
    _replace(shell, "should_run_async", always)


def _replace(shell: Any, name: str, value: Any) -> None:
    _replaced[name] = shell.__dict__.get(name)
    shell.__dict__[name] = value


class _Wakeup:
    """Has signals end the wait of a loop, so that interrupting a cell that waits is noticed at once.

    The kernel's own handler of SIGINT only leaves a note for the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reads, self._writes = socket.socketpair()
        self._reads.setblocking(False)
        self._writes.setblocking(False)
        self._before = signal.set_wakeup_fd(self._writes.fileno(), warn_on_full_buffer=False)
        loop.add_reader(self._reads, self._drain)

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._reads.recv(4096)

    def close(self) -> None:
        signal.set_wakeup_fd(self._before)
        self._loop.remove_reader(self._reads)
        self._reads.close()
        self._writes.close()


_wakeup: _Wakeup | None = None


def load(shell: Any) -> None:
    """Set the shell up; called by ``%load_ext``."""
    global _wakeup
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    if loop is not None:
        _guest_in(loop)
        if not _replaced:
            _make_cells_tasks(shell)
            if threading.current_thread() is threading.main_thread():
                _wakeup = _Wakeup(loop)
        return
    from IPython.terminal import pt_inputhooks

    pt_inputhooks.register("balrog", _wait_for_input)
    shell.enable_gui("balrog")


def unload(shell: Any) -> None:
    """Undo ``load``."""
    global _wakeup
    if _wakeup is not None:
        _wakeup.close()
        _wakeup = None
    for name, value in _replaced.items():
        if value is None:
            shell.__dict__.pop(name, None)
        else:
            shell.__dict__[name] = value
    if not _replaced:
        shell.enable_gui(None)
    _replaced.clear()
