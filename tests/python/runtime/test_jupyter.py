"""``%load_ext balrog`` in a real kernel: cells are tasks, and tasks go on between the cells."""

import time

import pytest
from jupyter_client.manager import start_new_kernel


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel(startup_timeout=90)
    try:
        run(client, "%load_ext balrog")
        run(client, "import asyncio, balrog, time")
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def run(client, code, timeout=60):
    """What the cell printed or gave; its error raises."""
    parts = []

    def collect(message):
        content = message["content"]
        if message["msg_type"] == "stream":
            parts.append(content["text"])
        elif message["msg_type"] == "execute_result":
            parts.append(content["data"]["text/plain"])

    reply = client.execute_interactive(code, timeout=timeout, output_hook=collect)
    if reply["content"]["status"] == "error":
        raise RuntimeError(f"{reply['content']['ename']}: {reply['content']['evalue']}")
    return "".join(parts)


def test_a_cell_is_a_task_and_sees_no_running_loop(kernel):
    _, client = kernel
    assert run(client, "balrog.current_task() is not None") == "True"
    with pytest.raises(RuntimeError, match="no running event loop"):
        run(client, "asyncio.get_running_loop()")
    assert run(client, "asyncio.run(asyncio.sleep(0.01, 'nested'))") == "'nested'"


def test_await_in_both_ways(kernel):
    _, client = kernel
    assert run(client, "balrog.await_(asyncio.sleep(0.01, 'slept'))") == "'slept'"
    assert run(client, "await asyncio.sleep(0.01, 'awaited')") == "'awaited'"
    assert run(client, "await balrog.as_async(lambda: balrog.sleep(0.01) or 'both')()") == "'both'"


def test_names_errors_and_the_last_value_are_as_ever(kernel):
    _, client = kernel
    assert run(client, "x = 5\nprint('printed')\nx + 1") == "printed\n6"
    assert run(client, "_") == "6"
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        run(client, "1 / 0")
    assert run(client, "def f():\n    return x\nf()") == "5"
    assert "Wall time" in run(client, "%time balrog.sleep(0.01)")


def test_tasks_go_on_between_the_cells(kernel):
    _, client = kernel
    run(client, "seen = []\ntask = balrog.spawn(lambda: [balrog.sleep(0.01) or seen.append(i) for i in range(20)])")
    time.sleep(1)
    # A cell that does not wait: whatever was seen, was seen before it.
    assert run(client, "len(seen)") == "20"


def test_orm_code_runs_although_a_loop_does(kernel):
    _, client = kernel
    code = """
import django
from django.conf import settings
settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
django.setup()
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute("select 42")
    print(cursor.fetchone())
"""
    assert run(client, code) == "(42,)\n"


def test_interrupting_a_cell(kernel):
    manager, client = kernel
    # A kernel that stops on errors drops what is sent right behind one.
    client.execute("print('begun')\nbalrog.sleep(60)", stop_on_error=False)
    while client.get_iopub_msg(timeout=30)["content"].get("text") != "begun\n":
        pass
    manager.interrupt_kernel()
    # Nothing else wakes the kernel's loop.
    assert client.get_shell_msg(timeout=30)["content"]["status"] == "error"
    assert run(client, "'next'") == "'next'"


def test_unloading_gives_the_cells_back(kernel):
    _, client = kernel
    run(client, "%unload_ext balrog")
    assert run(client, "balrog.current_task() is None") == "True"
    run(client, "%load_ext balrog")
    assert run(client, "balrog.current_task() is None") == "False"
