"""Kinds of loops, and servers for the libraries that open their own sockets."""

import asyncio

import balrog
import pytest
import uvloop
from processes import Service, free_port
from support.debian import program


@pytest.fixture(params=["asyncio", "uvloop", "balrog"])
def run(request):
    """``asyncio.run`` on each kind of loop."""
    factory = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop, "balrog": balrog.new_event_loop}

    def run(main):
        with asyncio.Runner(loop_factory=factory[request.param]) as runner:
            return runner.run(main)

    return run


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory):
    """Where a Redis server of this run listens."""
    server, port = program("redis-server", "redis-server"), free_port()
    directory = tmp_path_factory.mktemp("redis")
    command = [str(server.path), "--port", str(port), "--save", "", "--dir", str(directory), "--bind", "127.0.0.1"]
    with Service("redis-server", command, env=server.environ) as service:
        service.wait_for_port(("127.0.0.1", port), timeout=60)
        yield port
