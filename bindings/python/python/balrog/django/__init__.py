"""balrog in Django: ``INSTALLED_APPS += ["balrog.django"]``.

The database engine is ``balrog.django.postgresql``.
"""

from balrog.django.connections import hold, lend_connections
from balrog.django.websocket import websocket
from balrog.django.ws import NotConnected, get_ws_connection

__all__ = ["NotConnected", "get_ws_connection", "hold", "lend_connections", "websocket"]
