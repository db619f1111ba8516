"""balrog in Django: ``INSTALLED_APPS += ["balrog.django"]``.

The database engine is ``balrog.django.postgresql``.
"""

from balrog.django.websocket import NotConnected, get_ws_connection, websocket

__all__ = ["NotConnected", "get_ws_connection", "websocket"]
