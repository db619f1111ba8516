"""What the documents show is what runs: every block of code in them is run here, or is text."""

import ast
import asyncio
import inspect
import os
import re
import socket
import subprocess
import sys
import types
import urllib.error
import urllib.request
from pathlib import Path

import balrog
import pytest
from customers import Customer
from processes import Service, free_port
from services import HERE

ROOT = HERE.parent.parent
#: Documents whose blocks a test of its own runs; those of all others run one after another, in one namespace.
TOLD = ["README.md", "docs/django.md", "docs/serve.md", "examples/food_delivery/README.md"]
#: Blocks in these languages are not run here; Rust's are the Rust tests' matter.
TEXT = {"text", "rust", "toml"}


def blocks(path):
    """The document's blocks of code: language and text."""
    return re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", (ROOT / path).read_text(), re.S | re.M)


def documents():
    """All documents for users."""
    found = [ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    return sorted(str(path.relative_to(ROOT)) for path in found)


class Shell:
    """Runs what a document tells to type, in a directory. What does not end is a service, and stopped at the end."""

    def __init__(self, directory, env):
        self.directory = directory
        self.env = env | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self.services = []
        self.ports = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for service in self.services:
            service.stop()

    def port(self, written):
        """A free port in place of the one that the document names, where somebody may listen already."""
        return self.ports.setdefault(written, free_port())

    def type(self, text):
        """Runs the lines of a block."""
        for line in text.splitlines():
            line = re.sub(r"\b80\d\d\b", lambda found: str(self.port(found[0])), line)
            words = line.removesuffix("&").split()
            match words:
                case ["cd", where]:
                    self.directory = self.directory / where
                case ["balrog", "serve", *_] | ["python", "kitchen.py", *_]:
                    service = Service(line, words, env=self.env, cwd=self.directory)
                    self.services.append(service)
                    port = next(int(number) for number in re.findall(r"\b\d{4,5}\b", line))
                    service.wait_for_port(("127.0.0.1", port))
                case _:
                    done = subprocess.run(
                        words, env=os.environ | self.env, cwd=self.directory, capture_output=True, text=True
                    )
                    assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"

    def write(self, text):
        """Writes the file that the block's first line names, or appends to it."""
        name, end = re.match(r"# (\S+?)(, at its end)?\n", text).groups()
        with (self.directory / name).open("a" if end else "w") as file:
            file.write(text)

    def follow(self, path):
        """Does what the whole document says."""
        for language, text in blocks(path):
            match language:
                case "python":
                    self.write(text)
                case "sh":
                    self.type(text)
                case other:
                    assert other in TEXT, f"{path}: what is a block of {other!r}?"


def get(url):
    """Status and text of an answer."""
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def would_make(text):
    """The targets of `make` that a block names; each of them exists."""
    named = set(re.findall(r"^(?:BALROG_\S+ )?make ([a-z-]+)", text, re.M))
    for target in named:
        assert subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True).returncode == 0, target
    return named


async def double(number):
    """Something to await."""
    return 2 * number


#: What a document's lines take for granted.
GRANTED = {
    "docs/tasks.md": {
        "asyncio": asyncio,
        "main": lambda: None,
        "fetch": lambda url: url,
        **dict.fromkeys(["url", "a", "b"], "/"),
        "urls": ["/", "/orders/"],
        "tasks": [],
        "blocking_call": lambda: None,
        "fn": lambda: None,
        "view": lambda request: request,
        "request": "a request",
        "client": types.SimpleNamespace(get=double),
        "async_function": lambda a, b: double(a + b),
    }
}


@pytest.mark.parametrize("path", [path for path in documents() if path not in TOLD])
def test_blocks_of_python_run(path):
    """Each statement is run in a task, or as a coroutine where it awaits."""
    names = {**GRANTED.get(path, {})}
    for language, text in blocks(path):
        assert language in TEXT | {"python", "sh"}, f"{path}: nobody runs a block of {language!r}"
        if language == "sh":
            would_make(text)
        for statement in ast.parse(text).body if language == "python" else ():
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            code = compile(ast.Module([statement], []), path, "exec", flags=flags)
            if code.co_flags & inspect.CO_COROUTINE:
                asyncio.run(eval(code, names))
            else:
                balrog.run(exec, code, names)


def test_readme_shows_the_view_that_the_other_tests_run():
    (view,) = [text for language, text in blocks("README.md") if language == "python"]
    assert view in (HERE / "delivery" / "views.py").read_text()


def test_readme_names_only_commands_that_make_would_run():
    # Not run whole from here: `make test` is what runs this.
    shown = "\n".join(text for language, text in blocks("README.md") if language == "sh")
    assert {"demo", "test"} <= would_make(shown)
    assert {language for language, _ in blocks("README.md")} == {"python", "sh"}


@pytest.fixture
def shop(database):
    """A database `shop`, as the how-to wants it."""
    database.execute("DROP DATABASE IF EXISTS shop WITH (FORCE)")
    database.execute("CREATE DATABASE shop")
    return {name: value for name, value in database.environ().items() if name != "PGDATABASE"}


def test_django_how_to(shop, tmp_path):
    """Followed from an empty directory to the site that it makes."""
    with Shell(tmp_path, shop) as shell:
        # The site is started before the rest is written: it is started again at the end, with all of that.
        shell.follow("docs/django.md")
        address = ("127.0.0.1", shell.port("8000"))
        shell.services.pop().stop()
        shell.type("balrog serve shop.wsgi --bind 127.0.0.1:8000")
        base = "http://{}:{}".format(*address)

        async def visit():
            customer = Customer(address)
            nobody = await customer.request("GET", "/announce/")
            await customer.listen()
            customer.websocket.send("hello")
            said = await customer.message()
            announced = await customer.request("GET", "/announce/")
            heard = await customer.message()
            customer.leave()
            return nobody.status, said, announced.status, heard

        assert asyncio.run(visit()) == (500, "You said: hello", 200, "Your order is on its way.")
        assert get(f"{base}/ask/?url={base}/announce/") == (200, "1 sessions, answered 500")
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
            assert get(f"{base}/ask/?url={url}") == (504, "too slow")


def test_serve_document(tmp_path):
    with Shell(tmp_path, {}) as shell:
        shell.follow("docs/serve.md")
        address = ("127.0.0.1", shell.port("8000"))
        with pytest.raises(urllib.error.HTTPError, match="426") as refused:
            urllib.request.urlopen("http://{}:{}/".format(*address), timeout=20)
        assert refused.value.headers["Upgrade"] == "websocket"
        assert "upgrade" in refused.value.headers.get_all("Connection")

        async def visit():
            customer = Customer(address)
            await customer.listen()
            customer.websocket.send("hello")
            heard = await customer.message()
            customer.leave()
            return heard

        assert asyncio.run(visit()) == "hello"


def test_examples_readme(env, run_customer):
    with Shell(HERE, env) as shell:
        shell.env["KITCHEN_SERVICE"] = f"http://127.0.0.1:{shell.port('8001')}/orders"
        shell.follow("examples/food_delivery/README.md")
        response = run_customer(shell.services[-1], lambda customer: customer.order({"dish": "Ramen", "quantity": 1}))
        assert response.status == 200


def test_each_trap_of_django_names_tests_that_exist():
    rows = re.findall(r"^\| (\d+) \|.*\|(.*)\|$", (ROOT / "docs" / "django-traps.md").read_text(), re.M)
    assert [int(number) for number, _ in rows] == list(range(1, 26))
    tests = "\n".join(path.read_text() for path in (ROOT / "tests" / "python").rglob("test_*.py"))
    for number, proof in rows:
        assert proof.strip(), f"trap {number} has neither a test nor a reason why not"
        for name in re.findall(r"`(test_\w+)(?:…)?`", proof):
            assert f"def {name}" in tests or (ROOT / "tests/python/django_engine" / f"{name}.py").exists(), name


def test_each_trap_of_rust_names_tests_that_exist():
    rows = re.findall(r"^\| (\d+) \|.*\|(.*)\|$", (ROOT / "docs" / "rust-traps.md").read_text(), re.M)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    assert rows
    tests = "\n".join(path.read_text() for path in (ROOT / "crates").glob("balrog-*/**/*.rs"))
    for number, proof in rows:
        assert proof.strip(), f"trap {number} has neither a test nor a reason why not"
        for name in re.findall(r"`([a-z]+(?:_\w+)+)`", proof):
            assert f"fn {name}()" in tests, name
