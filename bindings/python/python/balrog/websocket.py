"""WebSockets of ``balrog serve``; the names are those of ``websockets.sync``."""

__all__ = ["ConnectionClosed", "QueueFull", "WebSocket"]


class ConnectionClosed(ConnectionError):
    """The WebSocket is closed. ``code`` is 1006 if it was not closed in good order."""

    def __init__(self, code: int = 1006, reason: str = "") -> None:
        super().__init__(f"the WebSocket is closed ({code}{': ' + reason if reason else ''})")
        self.code = code
        self.reason = reason


class QueueFull(ConnectionError):
    """The peer does not read: over 1 MiB would wait for it. The WebSocket is closed (1013)."""


# Behind the exceptions, which the extension looks for here.
from balrog._balrog import WebSocket  # noqa: E402
