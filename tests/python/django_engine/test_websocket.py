"""``balrog.django.websocket`` and the ways to find who is connected, with a server's end made up here."""

import balrog
import pytest
from support.green import green


class Socket:
    """The server's WebSocket: takes what is sent and gives what was put."""

    def __init__(self):
        self.sent = []
        self.inbox = balrog.Queue()
        self.gone = False

    def send(self, message):
        if self.gone:
            raise ConnectionError("closed")
        self.sent.append(message)

    def recv(self, timeout=None):
        return self.inbox.get(timeout=timeout)

    def __iter__(self):
        while (message := self.inbox.get()) is not None:
            yield message


class Offer:
    """What a server puts into the environ of a handshake."""

    handler = None
    subprotocol = None

    def accept(self, handler, *, subprotocol=None):
        self.handler, self.subprotocol = handler, subprotocol


ORIGIN = "http://shop.example"


def make_request(session=None, offer=None, **headers):
    from django.contrib.sessions.backends.db import SessionStore
    from django.test import RequestFactory

    request = RequestFactory(headers={"host": "shop.example", **headers}).get("/ws/")
    request.session = session if session is not None else SessionStore()
    if offer is not None:
        request.META["balrog.websocket"] = offer
    return request


@pytest.fixture(scope="module")
def sessions(project):
    """The table of sessions."""
    from django.contrib.sessions.models import Session
    from django.db import connection

    with connection.schema_editor() as editor:
        editor.create_model(Session)
    connection.close()


@pytest.fixture
def connect(thing, sessions):
    """Opens a WebSocket for a session; gives its server's end."""
    opened = []

    def connect(session=None, handler=lambda request, ws: list(ws), **options):
        from balrog.django import websocket

        offer = Offer()
        request = make_request(session, offer, origin=ORIGIN)
        assert websocket(handler, **options)(request).status_code == 101
        socket = Socket()
        task = balrog.spawn(offer.handler, socket)
        opened.append((socket, task))
        balrog.sleep(0.05)
        return request, socket

    yield connect
    for socket, _ in opened:
        socket.inbox.put(None)
    for _, task in opened:
        assert task.join(5)
    from balrog.django import ws

    assert not ws.engine._audiences


@green
def test_a_message_finds_the_socket_of_its_browser(connect):
    from balrog.django import get_ws_connection

    one, first = connect()
    _, second = connect()
    assert one.session.session_key  # made for the anonymous visitor
    assert get_ws_connection(make_request(one.session)).send("hello") == 1
    assert first.sent == ["hello"] and second.sent == []
    first.inbox.put(None)
    second.inbox.put(None)


@green
def test_a_user_is_found_in_every_browser(connect):
    from balrog.django import get_ws_connection, ws
    from django.contrib.sessions.backends.db import SessionStore

    sockets = []
    for _ in range(2):
        session = SessionStore()
        session["_auth_user_id"] = "7"
        session.save()
        request, socket = connect(session)
        sockets.append(socket)
    assert get_ws_connection(request).send("a") == 2
    assert ws.to(7).send("b") == 2
    assert [socket.sent for socket in sockets] == [["a", "b"]] * 2
    for socket in sockets:
        socket.inbox.put(None)


@green
def test_groups(connect):
    from balrog.django import ws

    def handler(request, socket):
        with ws.member("kitchen", socket):
            list(socket)

    _, socket = connect(handler=handler)
    assert ws.group("kitchen").send("order") == 1
    assert socket.sent == ["order"]
    assert ws.group("nobody").send("order") == 0
    socket.inbox.put(None)


@green
def test_one_who_is_gone_is_an_error_or_counted(connect):
    from balrog.django import NotConnected, get_ws_connection, ws

    request, socket = connect()
    socket.gone = True  # closed a moment ago, the handler has not noticed
    with pytest.raises(NotConnected, match="no open WebSocket"):
        get_ws_connection(request).send("hello")
    before = ws.undelivered["missing"]
    assert get_ws_connection(request, missing="count").send("hello") == 0
    assert ws.undelivered["missing"] == before + 1
    with pytest.raises(NotConnected):
        get_ws_connection(make_request()).send("hello")
    socket.inbox.put(None)


@green
def test_in_a_transaction_a_message_leaves_at_the_commit(connect):
    from balrog.django import NotConnected, get_ws_connection, ws
    from django.db import transaction

    request, socket = connect()
    with transaction.atomic():
        assert get_ws_connection(request).send("committed") == 1
        get_ws_connection(request).send("at once", now=True)
        assert socket.sent == ["at once"]
        with pytest.raises(RuntimeError), transaction.atomic():
            get_ws_connection(request).send("rolled back to the savepoint")
            raise RuntimeError
        with pytest.raises(NotConnected):
            ws.to(404).send("nobody")
    with pytest.raises(RuntimeError), transaction.atomic():
        get_ws_connection(request).send("rolled back")
        raise RuntimeError
    assert socket.sent == ["at once", "committed"]
    socket.inbox.put(None)


@green
def test_waiting_sockets_hold_no_connection(connect, thing):
    from balrog.django.connections import release
    from balrog.django.postgresql import base

    def handler(request, socket):
        for _ in socket:
            thing.objects.count()

    opened = [connect(handler=handler)[1] for _ in range(3)]
    for socket in opened:
        socket.inbox.put("query")
    release()  # what this task itself has asked
    balrog.sleep(0.2)
    stats = base._pools["default"].stats()
    assert stats.idle == stats.size
    assert not base.holders()
    for socket in opened:
        socket.inbox.put(None)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://shop.example", 101),
        ("https://shop.example", 403),
        ("http://shop.example.evil", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("http://[", 403),
        ("https://a.friend.example", 101),
        ("http://a.friend.example", 403),
        ("https://evilfriend.example", 403),
        ("https://partner.example", 101),
        (None, 403),
    ],
)
def test_origin(thing, sessions, origin, status):
    from balrog.django import websocket

    view = websocket(lambda request, ws: None, origins=["https://partner.example"])
    headers = {} if origin is None else {"origin": origin}
    offer = Offer()
    assert view(make_request(offer=offer, **headers)).status_code == status
    assert (offer.handler is not None) == (status == 101)


def test_a_program_without_origin_may_be_let_in(thing, sessions, settings_of_balrog):
    from balrog.django import websocket

    settings_of_balrog["WEBSOCKET_ALLOW_NO_ORIGIN"] = True
    assert websocket(lambda request, ws: None)(make_request(offer=Offer())).status_code == 101


@pytest.fixture
def settings_of_balrog(project):
    from django.conf import settings

    before = dict(settings.BALROG)
    yield settings.BALROG
    settings.BALROG.clear()
    settings.BALROG.update(before)


def test_a_key_that_is_none_is_refused(settings_of_balrog):
    from balrog.django import ws
    from django.core.exceptions import ImproperlyConfigured

    settings_of_balrog["WEBSOKCET_MISSING"] = "raise"
    with pytest.raises(ImproperlyConfigured, match="WEBSOKCET_MISSING"):
        ws.to(1)


def test_what_is_no_handshake_is_told_so(thing):
    from balrog.django import websocket

    view = websocket(lambda request, ws: None)
    answer = view(make_request())
    assert answer.status_code == 426 and answer["Upgrade"] == "websocket"
    answer = view(make_request(upgrade="websocket"))
    assert answer.status_code == 501 and b"balrog serve" in answer.content


def test_the_servers_first_spoken_subprotocol_is_chosen(thing, sessions):
    from balrog.django import websocket

    offer = Offer()
    request = make_request(offer=offer, origin=ORIGIN, sec_websocket_protocol="old, v1, v2")
    websocket(lambda request, ws: None, subprotocols=["v3", "v2", "v1"])(request)
    assert offer.subprotocol == "v2"
