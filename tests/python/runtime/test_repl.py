"""Prompts: calls block or let tasks run, and tasks go on while the prompt waits for a line."""

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest


class Terminal:
    """A program on a pseudo-terminal."""

    def __init__(self, *arguments: str, **environ: str) -> None:
        self.master, slave = pty.openpty()
        more = {"TERM": "xterm", "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "IPYTHONDIR": "/nonexistent"}
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=os.environ | more | environ,
            start_new_session=True,
            preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
        )
        os.close(slave)
        self.text = ""
        self.position = 0

    def __enter__(self):
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.master)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, text: str, timeout: float = 90) -> None:
        """Wait until the program has printed ``text``, behind what was expected before."""
        until = time.monotonic() + timeout
        while (at := self.text.find(text, self.position)) < 0:
            if not select.select([self.master], [], [], max(0, until - time.monotonic()))[0]:
                raise AssertionError(f"no {text!r} in {self.text[self.position :]!r}")
            try:
                self.text += os.read(self.master, 65536).decode(errors="replace")
            except OSError:
                raise AssertionError(f"ended without {text!r}: {self.text[self.position :]!r}") from None
        self.position = at + len(text)

    def line(self, text: str, prompt: str) -> None:
        """Type a line and wait for the next prompt."""
        self.type(text + "\r")
        self.expect(prompt)


#: A task that prints whenever a tenth of a second has passed, as often as it is told.
TICKER = "ticker = lambda n: [(balrog.sleep(0.1), print('tick' + str(i))) for i in range(n)]"

PROMPTS = [
    pytest.param([], {"PYTHON_BASIC_REPL": "1"}, id="basic"),
    pytest.param(["-i", "-c", "import readline"], {"PYTHON_BASIC_REPL": "1"}, id="readline"),
]
if sys.version_info >= (3, 13):
    PROMPTS.append(pytest.param([], {}, id="pyrepl"))


@pytest.mark.parametrize(("arguments", "environ"), PROMPTS)
def test_tasks_go_on_at_the_prompt(arguments, environ):
    with Terminal(*arguments, **environ) as terminal:
        terminal.expect(">>> ")
        terminal.line("import balrog", ">>> ")
        terminal.line(TICKER, ">>> ")
        terminal.line("task = balrog.spawn(ticker, 5)", ">>> ")
        # Nothing is typed meanwhile.
        terminal.expect("tick4")
        terminal.line("print('is', 'done', task.done())", "is done True")
        # A call that blocks lets tasks run as well.
        terminal.line("task = balrog.spawn(ticker, 2); balrog.sleep(0.5); print('af' + 'ter')", "tick1")
        terminal.expect("after")
        # Ctrl-C belongs to the prompt, also while tasks run.
        terminal.line("task = balrog.spawn(ticker, 10**6)", "tick1")
        terminal.type("\x03")
        terminal.expect("KeyboardInterrupt")
        terminal.expect("tick")
        terminal.line("print(6 * 7, task.cancel())", "42 True")
        terminal.type("exit()\r")
        assert terminal.process.wait(60) == 0


def test_input_and_pdb_let_tasks_run(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import balrog\n"
        f"{TICKER}\n"
        "task = balrog.spawn(ticker, 3)\n"
        "print('got', input('name? '))\n"
        "task = balrog.spawn(ticker, 3)\n"
        "breakpoint()\n"
        "print('end')\n"
    )
    with Terminal(str(script)) as terminal:
        terminal.expect("name? ")
        terminal.expect("tick2")
        terminal.line("Ada", "got Ada")
        terminal.expect("(Pdb) ")
        terminal.expect("tick2")
        terminal.line("balrog.sleep(0.01); balrog.spawn(print, 'spa' + 'wned').join()", "spawned")
        terminal.line("c", "end")
        assert terminal.process.wait(60) == 0


def test_the_asyncio_prompt():
    with Terminal("-m", "asyncio", PYTHON_BASIC_REPL="1") as terminal:
        terminal.expect(">>> ")
        terminal.expect(">>> ")
        terminal.line("import balrog", ">>> ")
        terminal.line(TICKER, ">>> ")
        terminal.line("await balrog.as_async(lambda: balrog.await_(asyncio.sleep(0.01, 'sl' + 'ept')))()", "'slept'")
        terminal.expect(">>> ")
        terminal.line("task = balrog.spawn(ticker, 5)", "tick4")
        terminal.line("balrog.sleep(0.01); print('bl' + 'ocked')", "blocked")


def test_ipython_at_its_prompt(tmp_path):
    with Terminal("-m", "IPython", "--simple-prompt", "--no-banner", IPYTHONDIR=str(tmp_path)) as terminal:
        check_ipython(terminal)


def test_ipythons_full_prompt(tmp_path):
    with Terminal("-m", "IPython", "--no-banner", "--colors=NoColor", IPYTHONDIR=str(tmp_path)) as terminal:
        # prompt_toolkit asks the terminal where its cursor is.
        check_ipython(terminal)


def check_ipython(terminal: Terminal) -> None:
    terminal.expect("In [1]:")
    terminal.line("%load_ext balrog", "In [2]:")
    terminal.line("import balrog, asyncio; " + TICKER, "In [3]:")
    terminal.line("task = balrog.spawn(ticker, 5)", "tick4")
    terminal.line("print('is', 'done', task.done())", "is done True")
    terminal.line("balrog.await_(asyncio.sleep(0.01, 'sl' + 'ept'))", "'slept'")
    terminal.line("await balrog.as_async(balrog.sleep)(0.01) or 'awai' + 'ted'", "'awaited'")
