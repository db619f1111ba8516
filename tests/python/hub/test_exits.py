"""The interpreter's exit in whatever state, and two prompts on one terminal."""

import os
import pty
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

#: Each ends the interpreter in another state: exit status, what is printed, code.
STATES = {
    "nothing begun": (0, "", "import balrog"),
    "a task that never ran": (0, "", "balrog.spawn(balrog.sleep, 3600)"),
    "tasks asleep": (0, "", "for _ in range(100): balrog.spawn(balrog.sleep, 3600)\nbalrog.sleep(0)"),
    "clean-up runs": (
        0,
        "cleaned",
        """
        def work():
            try:
                balrog.sleep(3600)
            finally:
                balrog.sleep(0.01)
                print("cleaned")
        balrog.spawn(work); balrog.sleep(0)
        """,
    ),
    "clean-up fails": (
        0,
        "",
        """
        def work():
            try:
                balrog.sleep(3600)
            finally:
                raise ValueError("in clean-up")
        balrog.spawn(work); balrog.sleep(0)
        """,
    ),
    "readers": (
        0,
        "",
        """
        import socket
        ours, theirs = socket.socketpair()
        balrog.spawn(balrog.wait_readable, ours.fileno()); balrog.spawn(balrog.wait_readable, theirs.fileno())
        balrog.sleep(0)
        """,
    ),
    "exit from a task": (3, "", "import sys\nbalrog.spawn(balrog.sleep, 3600)\nbalrog.run(sys.exit, 3)"),
    "an error in the main function": (1, "", "balrog.spawn(balrog.sleep, 3600)\nbalrog.run(lambda: 1 / 0)"),
    "an error outside": (1, "", "balrog.spawn(balrog.sleep, 3600); balrog.sleep(0)\n1 / 0"),
    "interrupted": (
        -2,
        "",
        "import os, signal\nbalrog.spawn(balrog.sleep, 9)\nos.kill(os.getpid(), signal.SIGINT)\nbalrog.sleep(9)",
    ),
    "os._exit": (4, "", "import os\nbalrog.spawn(balrog.sleep, 3600); balrog.sleep(0)\nos._exit(4)"),
    "a daemon thread in a wait": (
        0,
        "",
        """
        import threading
        threading.Thread(target=balrog.sleep, args=[3600], daemon=True).start()
        balrog.sleep(0.01)
        """,
    ),
    "a daemon thread with tasks": (
        0,
        "",
        """
        import threading
        def work():
            for _ in range(10): balrog.spawn(balrog.sleep, 3600)
            balrog.sleep(3600)
        threading.Thread(target=work, daemon=True).start()
        balrog.sleep(0.02)
        """,
    ),
    "a daemon thread that never stops switching": (
        0,
        "",
        """
        import threading
        def spin():
            while True: balrog.sleep(0)
        def work():
            tasks = [balrog.spawn(spin) for _ in range(3)]
            tasks[0].join()
        threading.Thread(target=work, daemon=True).start()
        balrog.sleep(0.02)
        """,
    ),
    "a thread that ended with tasks": (
        0,
        "",
        """
        import threading
        thread = threading.Thread(target=lambda: (balrog.spawn(balrog.sleep, 3600), balrog.sleep(0)))
        thread.start(); thread.join()
        """,
    ),
    "a job on a pool thread": (
        0,
        "",
        "import time\ntask = balrog.spawn(balrog.to_thread, time.sleep, 0.05); balrog.sleep(0.01)",
    ),
    "waiting for a lock": (
        0,
        "",
        "lock = balrog.Lock(); lock.acquire()\nfor _ in range(5): balrog.spawn(lock.acquire)\nbalrog.sleep(0)",
    ),
    "a task in a cycle": (
        0,
        "",
        """
        class Node: pass
        node = Node(); node.self = node
        node.task = balrog.spawn(lambda: (node, balrog.sleep(3600))); balrog.sleep(0)
        del node
        """,
    ),
    "a generator that waits": (
        0,
        "",
        """
        def pieces():
            try:
                while True:
                    balrog.sleep(0.001); yield 1
            finally:
                balrog.sleep(0)
        held = pieces(); next(held)
        balrog.run(lambda: next(held))
        """,
    ),
    "a wait in __del__": (
        0,
        "",
        """
        class Late:
            def __del__(self): balrog.sleep(0)
        late = Late(); late.self = late
        balrog.spawn(balrog.sleep, 3600); balrog.sleep(0)
        """,
    ),
    "a wait in atexit": (
        0,
        "woke",
        """
        import atexit
        atexit.register(lambda: (balrog.sleep(0.01), print("woke")))
        balrog.spawn(balrog.sleep, 3600); balrog.sleep(0)
        """,
    ),
    "tasks begun in atexit": (
        0,
        "7",
        "import atexit\natexit.register(lambda: print(balrog.run(lambda: balrog.spawn(int, '7').result())))",
    ),
    "a task that will not end": (
        0,
        "",
        """
        from balrog import _lifetime
        _lifetime.CLEAN_UP = 0.1
        def stubborn():
            while True:
                try: balrog.sleep(3600)
                except BaseException: pass
        balrog.spawn(stubborn); balrog.sleep(0)
        """,
    ),
    "child greenlets": (
        0,
        "",
        """
        import greenlet
        def work():
            greenlet.greenlet(lambda: balrog.sleep(3600)).switch()
        balrog.spawn(work); balrog.sleep(0)
        """,
    ),
    "a forked child that falls off its end": (
        0,
        "",
        """
        import os, warnings
        warnings.simplefilter("ignore")
        balrog.spawn(balrog.sleep, 3600); balrog.sleep(0)
        pid = os.fork()
        if pid: assert os.waitpid(pid, 0)[1] == 0
        """,
    ),
}
ROUNDS = 40


def leave(name: str) -> None:
    status, said, code = STATES[name]
    program = "import balrog\n" + textwrap.dedent(code)
    command = [sys.executable, "-X", "faulthandler", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    trouble = f"{name}: {done}"
    assert done.returncode == status, trouble
    assert said in done.stdout, trouble
    for word in ("Fatal", "Segmentation", "panicked", "PanicException", "greenlet.error"):
        assert word not in done.stderr, trouble
    assert ("has not ended" in done.stderr) == (name == "a task that will not end"), trouble


@pytest.mark.parametrize("number", range(ROUNDS))
def test_exits(number):
    """Twenty-five states, forty times, make a thousand exits: crashes at the exit are a matter of luck."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(leave, STATES))


TWO_PROMPTS = """
import balrog
from balrog import _debugger
_debugger.install()

def work(name):
    balrog.sleep(0.01)
    breakpoint()
    print("end of", name)

first, second = balrog.spawn(work, "one"), balrog.spawn(work, "two")
first.join(); second.join()
"""


def test_two_tasks_at_breakpoints_have_their_prompts_one_after_the_other(tmp_path):
    path = tmp_path / "prompts.py"
    path.write_text(TWO_PROMPTS)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "dumb", "PYTHONBREAKPOINT": ""}
    command = [sys.executable, str(path)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        terminal = Terminal(ours)
        try:
            for name in ("one", "two"):
                terminal.expect("(Pdb) ")
                terminal.type("name")
                terminal.expect(f"'{name}'")
                terminal.expect("(Pdb) ")
                # The other task comes to its breakpoint meanwhile.
                terminal.type("balrog.sleep(0.1)")
                terminal.expect("(Pdb) ")
                terminal.type("name")
                terminal.expect(f"'{name}'")
                terminal.expect("(Pdb) ")
                terminal.type("continue")
                terminal.expect(f"end of {name}")
            assert process.wait(10) == 0
        finally:
            process.kill()
            os.close(ours)


class Terminal:
    """The other side of a pseudo-terminal."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.seen = ""

    def type(self, line: str) -> None:
        os.write(self.fd, f"{line}\n".encode())

    def expect(self, text: str) -> None:
        until = time.monotonic() + 20
        while text not in self.seen:
            assert time.monotonic() < until, f"no {text!r} in {self.seen!r}"
            self.seen += os.read(self.fd, 4096).decode()
        self.seen = self.seen.split(text, 1)[1]
