"""At a prompt, plain or in the debugger, an ORM query and a request just work. Through a pseudo-terminal."""

import asyncio
import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest
from customers import Customer
from processes import free_port
from services import HERE as EXAMPLE


class Terminal:
    """A program on a pseudo-terminal."""

    def __init__(self, command, env):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=EXAMPLE,
            env=os.environ | {"TERM": "dumb", "PYTHON_BASIC_REPL": "1", "NO_COLOR": "1"} | env,
            start_new_session=True,
        )
        os.close(slave)
        self.seen = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.master)

    def expect(self, pattern, timeout=20.0):
        """Reads until `pattern` shows; returns the match."""
        until = time.monotonic() + timeout
        while not (found := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.master], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"no {pattern!r} in {self.seen!r}"
            self.seen += os.read(self.master, 65536).decode(errors="replace")
        self.seen = self.seen[found.end() :]
        return found

    def type(self, line):
        """Types a line."""
        os.write(self.master, line.encode() + b"\n")


@pytest.fixture
def at_prompt(kitchen):
    """Asserts that a query and a request work at a prompt."""

    def check(terminal, prompt):
        terminal.expect(prompt)
        terminal.type("from delivery.models import Order; import requests")
        terminal.expect(prompt)
        terminal.type("print('orders:', Order.objects.filter(pk=0).count() + 700)")
        terminal.expect(r"orders: 700\r?\n")
        terminal.expect(prompt)
        terminal.type(f"print('kitchen:', requests.get('{kitchen.url.replace('orders', 'stats')}').status_code)")
        terminal.expect(r"kitchen: 200\r?\n")
        terminal.expect(prompt)

    return check


def test_plain_repl(env, at_prompt):
    start = "import django; django.setup()"
    with Terminal(
        [sys.executable, "-i", "-c", start], env | {"DJANGO_SETTINGS_MODULE": "food_delivery.settings"}
    ) as terminal:
        at_prompt(terminal, ">>> ")


def test_pdb_in_a_running_request(env, at_prompt, tmp_path):
    (tmp_path / "stopped.py").write_text(
        "from food_delivery.wsgi import application as site\n"
        "def application(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/stop':\n"
        "        breakpoint()\n"
        "        environ['PATH_INFO'] = '/'\n"
        "    return site(environ, start_response)\n"
    )
    port = free_port()
    command = [sys.executable, "-m", "balrog", "serve", "stopped", "--bind", f"127.0.0.1:{port}"]
    with Terminal(command, env | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(EXAMPLE)])}) as terminal:
        terminal.expect(str(port))

        async def visit():
            customer = Customer(("127.0.0.1", port))
            pending = asyncio.create_task(customer.request("GET", "/stop"))
            await asyncio.to_thread(at_prompt, terminal, r"\(Pdb\) ")
            terminal.type("continue")
            response = await pending
            customer.leave()
            return response

        assert asyncio.run(visit()).status == 200
