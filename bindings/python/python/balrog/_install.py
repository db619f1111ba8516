"""Replacing parts of other modules, for those who ask for it."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

__all__ = ["install", "uninstall"]

#: What is installed, each with what undoes it.
_undo: dict[str, Callable[[], None]] = {}


def _socket() -> Callable[[], None]:
    import socket

    import balrog.socket as ours

    before = {name: getattr(socket, name) for name in ours.REPLACED}
    for name in ours.REPLACED:
        setattr(socket, name, getattr(ours, name))

    def undo() -> None:
        for name, value in before.items():
            setattr(socket, name, value)

    return undo


def _asyncio() -> Callable[[], None]:
    import asyncio

    from balrog._asyncio import new_event_loop

    before = asyncio.get_event_loop_policy()

    class Policy(asyncio.DefaultEventLoopPolicy):
        """Loops whose thread's tasks run while they wait."""

        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            return new_event_loop()

    asyncio.set_event_loop_policy(Policy())
    return lambda: asyncio.set_event_loop_policy(before)


def _asgiref() -> Callable[[], None]:
    from asgiref import sync

    from balrog.django import asgi_sync

    module: Any = sync
    before = module.CurrentThreadExecutor
    asgi_sync.install()

    def undo() -> None:
        module.CurrentThreadExecutor = before

    return undo


_PARTS = {"asgiref": _asgiref, "asyncio": _asyncio, "socket": _socket}


class _Installed:
    """Undoes ``install`` at the end of a ``with``."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def __enter__(self) -> None:
        """Nothing is left to do."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        uninstall(*self._names)


def install(*names: str) -> Any:
    """Have the whole process use balrog's waits in parts of other modules, until ``uninstall``.

    ``"socket"``: the standard module's sockets and name look-ups are those of ``balrog.socket``, for
    libraries that open their own and get them from the module when they need them (import this
    first where a library copies names). ``"asyncio"``: ``asyncio.run`` inside of a task lets the
    others run (the event loop policy). ``"asgiref"``: ``async_to_sync`` likewise. Nothing else of
    balrog needs any of this. Also a context manager: ``with balrog.install("socket"):``.
    """
    for name in names:
        if name not in _PARTS:
            raise ValueError(f"nothing to install for {name!r}; there are {', '.join(map(repr, sorted(_PARTS)))}")
    for name in names:
        if name not in _undo:
            _undo[name] = _PARTS[name]()
    return _Installed(names)


def uninstall(*names: str) -> None:
    """Undo ``install``; without names, all of it. What was made meanwhile stays as it is."""
    for name in names or tuple(_undo):
        undo = _undo.pop(name, None)
        if undo is not None:
            undo()
