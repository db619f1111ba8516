"""The setting ``BALROG``, a dictionary."""

from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

DEFAULTS: dict[str, Any] = {
    # Whether `import requests` runs on balrog's HTTP client.
    "REQUESTS": True,
    # Whether async_to_sync in a task lets other tasks run while it waits.
    "ASGIREF": True,
    # A message to a customer who has no WebSocket: "raise" NotConnected, or only "count" it.
    "WEBSOCKET_MISSING": "raise",
    # Further origins that may open WebSockets, written as in CSRF_TRUSTED_ORIGINS.
    "WEBSOCKET_ORIGINS": [],
    # Whether a handshake without Origin is taken: browsers always send one, programs need not.
    "WEBSOCKET_ALLOW_NO_ORIGIN": False,
}


def get(name: str) -> Any:
    """The value of one key; ``ImproperlyConfigured`` if the setting has a key that is none."""
    given = getattr(settings, "BALROG", {})
    unknown = set(given) - set(DEFAULTS)
    if unknown:
        raise ImproperlyConfigured(f"BALROG has no {sorted(unknown)}; there are {sorted(DEFAULTS)}")
    return given.get(name, DEFAULTS[name])
