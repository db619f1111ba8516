"""``breakpoint()`` in more than one task."""

import os
import pdb
import sys
from typing import Any

from balrog._sync import RLock

__all__ = ["Pdb", "install"]

#: Held by the task whose prompt is open.
_prompt = RLock()


class Pdb(pdb.Pdb):
    """pdb, one prompt at a time.

    What is typed at a prompt may wait, and other tasks run meanwhile. One of them that comes to a
    breakpoint of its own waits for its turn, for the terminal belongs to the first.
    """

    def interaction(self, *arguments: Any, **options: Any) -> None:
        with _prompt:
            super().interaction(*arguments, **options)


def _breakpoint(*args: Any, **kwargs: Any) -> Any:
    """``sys.breakpointhook`` with our debugger in pdb's place; ``PYTHONBREAKPOINT`` counts as ever."""
    if os.environ.get("PYTHONBREAKPOINT") in (None, "", "pdb.set_trace"):
        # While another prompt is open its trace function runs, and with it no other of the thread.
        with _prompt:
            pass
        return Pdb().set_trace(sys._getframe(1))
    return sys.__breakpointhook__(*args, **kwargs)


def install() -> None:
    """Makes ``breakpoint()`` open our prompts, unless somebody has chosen another debugger."""
    if sys.breakpointhook is sys.__breakpointhook__:
        sys.breakpointhook = _breakpoint
