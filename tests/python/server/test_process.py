"""The command: its errors, its signals, its sockets."""

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests
from support.serving import serving
from support.wire import Wire
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

HERE = Path(__file__).parent
SLEEP = b"GET /sleep?0.7 HTTP/1.1\r\nHost: a.example\r\n\r\n"


def serve(*arguments: str, directory: Path = HERE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "balrog", "serve", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=20, check=False)


def test_version():
    done = subprocess.run([sys.executable, "-m", "balrog", "--version"], capture_output=True, text=True, timeout=20)
    assert re.fullmatch(r"balrog \d+\.\d+\.\d+\S*\n", done.stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_module"], "there is no module 'no_such_module'"),
        (["no_such.module:app"], "there is no module 'no_such'"),
        (["application:nothing"], "has no 'nothing'"),
        (["json"], "has no 'application' or 'app'"),
        (["application:seen"], "is not callable"),
        (["application", "--bind", "nonsense"], "it has to be HOST:PORT or unix:PATH"),
        (["application", "--bind", "127.0.0.1:99999"], "it has to be HOST:PORT or unix:PATH"),
        (["application", "--bind", "unix:/no/such/directory/socket"], "No such file or directory"),
        (["application", "--bind", "host.invalid:8000"], "cannot listen on host.invalid:8000"),
    ],
)
def test_what_cannot_start_is_one_line_and_status_2(arguments, message):
    done = serve(*arguments)
    assert done.returncode == 2, done
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_module_that_fails_shows_its_own_traceback_and_one_line(tmp_path):
    (tmp_path / "broken.py").write_text("import json\n\ndef fail():\n    raise ValueError('not\\ntoday')\n\nfail()\n")
    (tmp_path / "lacking.py").write_text("import no_such_dependency\n")
    (tmp_path / "unreadable.py").write_text("def application(:\n")
    done = serve("broken", directory=tmp_path)
    assert done.returncode == 2
    *trace, last = done.stderr.splitlines()
    assert last.startswith("balrog: cannot import 'broken': ValueError: not today (")
    assert last.endswith("line 4)")
    # The user's code, and none of ours.
    assert trace[0] == "Traceback (most recent call last):"
    assert [line for line in trace if line.startswith("  File")] == [
        f'  File "{tmp_path}/broken.py", line 6, in <module>',
        f'  File "{tmp_path}/broken.py", line 4, in fail',
    ]
    done = serve("lacking", directory=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("balrog: cannot import 'lacking': ModuleNotFoundError: No module")
    assert "importlib" not in done.stderr and "serve.py" not in done.stderr
    done = serve("unreadable", directory=tmp_path)
    assert done.returncode == 2
    assert "def application(:" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("balrog: cannot import 'unreadable': SyntaxError")


@pytest.mark.parametrize(("mode", "expected"), [("600", 0o600), ("0666", 0o666), (None, None)])
def test_the_permissions_of_a_unix_socket(tmp_path, mode, expected):
    path = tmp_path / "socket"
    options = ["--unix-mode", mode] if mode else []
    with serving(HERE, "application", *options, bind=f"unix:{path}"):
        umask = os.umask(0)
        os.umask(umask)
        assert path.stat().st_mode & 0o777 == (0o777 & ~umask if expected is None else expected)


@pytest.mark.parametrize("mode", ["888", "rw", "7777", "-1"])
def test_permissions_that_are_none(mode):
    done = serve("application", "--unix-mode", mode)
    assert done.returncode == 2
    assert "--unix-mode" in done.stderr


def test_a_file_in_the_place_of_a_socket_is_left_alone(tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    done = serve("application", "--bind", f"unix:{path}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert path.read_text() == "data"


def test_a_port_that_is_taken(own_server):
    done = serve("application", "--bind", f"127.0.0.1:{own_server.port}")
    assert done.returncode == 2
    assert "Address already in use" in done.stderr


def test_a_unix_socket(tmp_path):
    path = tmp_path / "socket"
    with serving(HERE, "application", bind=f"unix:{path}") as server:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /environ HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert b" 200 OK" in answer
        done = serve("application", "--bind", f"unix:{path}")
        assert (done.returncode, "Address already in use" in done.stderr) == (2, True)
        server.process.kill()
        server.process.wait()
        assert path.exists()
        # What a killed server left behind is in nobody's way.
        with serving(HERE, "application", bind=f"unix:{path}") as second:
            assert second.stop() == 0
        assert not path.exists()


def test_the_default_attribute_and_the_access_log(tmp_path):
    (tmp_path / "little.py").write_text(
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'little']\n"
    )
    command = [sys.executable, "-m", "balrog", "serve", "little", "--bind", "127.0.0.1:0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as process:
        url = re.search(r"http://\S+", process.stderr.readline())[0]
        assert requests.get(f"{url}/a?b", timeout=5).text == "little"
        assert re.fullmatch(
            r'127\.0\.0\.1 - - \[\S+ \+0000\] "GET /a\?b HTTP/1\.1" 200 6 \d+\.\d{4}\n', process.stdout.readline()
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_running_requests_finish(own_server, number):
    with Wire(own_server.host, own_server.port) as running, Wire(own_server.host, own_server.port) as idle:
        running.send(SLEEP)
        time.sleep(0.3)
        stopper = threading.Thread(target=own_server.stop, args=(number,))
        begun = time.monotonic()
        stopper.start()
        assert idle.wait_end(0.5)
        response = running.response()
        assert response.status == 200
        assert response.get("connection") == "close"
        assert response.complete
        running.socket.close()
        stopper.join()
    assert time.monotonic() - begun < 3
    assert own_server.process.returncode == 0
    with pytest.raises(ConnectionRefusedError):
        Wire(own_server.host, own_server.port)


def test_a_second_signal_quits(own_server):
    with Wire(own_server.host, own_server.port) as running:
        running.send(SLEEP.replace(b"0.7", b"30"))
        time.sleep(0.2)
        own_server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        own_server.process.send_signal(signal.SIGTERM)
        assert own_server.process.wait(5) == 128 + signal.SIGTERM


def test_a_request_that_does_not_end_is_cancelled():
    with serving(HERE, "application", "--graceful-timeout", "0.3") as server:
        with Wire(server.host, server.port) as running:
            running.send(SLEEP.replace(b"0.7", b"60"))
            time.sleep(0.2)
            begun = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - begun < 8
        assert "time is over for 1 requests" in server.errors


def test_websockets_are_told_to_come_back(own_server):
    with connect(f"ws://{own_server.host}:{own_server.port}/ws_name?a") as ws:
        assert ws.recv(timeout=5) == "ready"
        own_server.process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(timeout=5)
        assert closed.value.rcvd.code == 1012
    assert own_server.process.wait(10) == 0


def memory(pid: int) -> int:
    """The resident set in KiB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def test_slow_and_stuck_peers_keep_nobody_out(own_server):
    requests.get(f"{own_server.url}/body", timeout=5)
    before = memory(own_server.process.pid)
    slow = [
        b"GET /body HTTP/1.1\r\nHost: half",
        b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf",
        b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n" * 5,
    ]
    wires = [Wire(own_server.host, own_server.port) for _ in range(300)]
    for number, wire in enumerate(wires):
        # A reader that never reads, with as little as possible in the kernel's hands.
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.send(slow[number % 3])
    begun = time.monotonic()
    for _ in range(20):
        assert requests.get(f"{own_server.url}/body", timeout=5).json() == [0, None]
    assert time.monotonic() - begun < 3
    # Bounded for each: a stack, a machine, and the piece of the answer that is being sent.
    assert memory(own_server.process.pid) - before < 300 * 512
    for wire in wires:
        wire.reset()


def test_out_of_descriptors(own_server):
    pid = own_server.process.pid
    requests.get(f"{own_server.url}/body", timeout=5)
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (40, limits[1]))
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(Wire(own_server.host, own_server.port))
        time.sleep(0.3)
        # It waits for better times, and not by spinning.
        ticks = sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[11:13]))
        time.sleep(1)
        spent = sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[11:13])) - ticks
        assert spent < 30
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    assert requests.get(f"{own_server.url}/body", timeout=5).json() == [0, None]


def test_descriptors_come_back(own_server):
    directory = Path(f"/proc/{own_server.process.pid}/fd")
    requests.get(f"{own_server.url}/body", timeout=5)
    time.sleep(0.1)
    before = len(list(directory.iterdir()))
    wires = [Wire(own_server.host, own_server.port) for _ in range(200)]
    for number, wire in enumerate(wires):
        wire.send([b"", b"GET / HT", SLEEP, b"nonsense\r\n\r\n"][number % 4])
    time.sleep(0.2)
    for number, wire in enumerate(wires):
        wire.reset() if number % 3 else wire.socket.close()
    until = time.monotonic() + 10
    while (now := len(list(directory.iterdir()))) > before:
        assert time.monotonic() < until, (before, now)
        time.sleep(0.1)
    assert requests.get(f"{own_server.url}/body", timeout=5).json() == [0, None]
