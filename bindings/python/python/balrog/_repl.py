"""The prompts of Python: tasks go on while one of them waits for its line."""

import signal
import sys
import threading

from balrog._balrog import _hook_prompts

#: Seconds after which a prompt waits for input again.
SOON = 0.02


def interrupt_soon() -> None:
    """Send Ctrl-C's signal to the main thread once more, when its prompt can see it."""
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(SOON, signal.pthread_kill, [main, signal.SIGINT])
    timer.daemon = True
    timer.start()


def install() -> None:
    """Called once, by ``import balrog``. Only a terminal has a prompt."""
    try:
        interactive = sys.stdin is not None and sys.stdin.isatty()
    except (OSError, ValueError):
        interactive = False
    if interactive:
        _hook_prompts()
