"""The example's application, which tells at ``/probe`` what its process holds. Served by the tests of faults."""

import json

import balrog
from balrog.django.postgresql import base
from food_delivery.wsgi import application as site


def held():
    """Figures of the pool, wrappers that hold a connection, and tasks beside the one that asks."""
    pool = base._pools.get("default")
    figures = pool.stats()._asdict() if pool else {"size": 0, "idle": 0, "waiting": 0}
    return figures | {"holders": len(base.holders()), "tasks": len(balrog.tasks()) - 1}


def application(environ, start_response):
    """WSGI."""
    if environ["PATH_INFO"] != "/probe":
        return site(environ, start_response)
    body = json.dumps(held()).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
