"""The command line: errors at the start, addresses, signals, the access log."""

import signal
import socket
import subprocess
import sys
import time

import pytest
from support.serving import serving
from support.wire import Wire

from .conftest import HERE, Client, request


def balrog(*arguments, directory=HERE):
    command = [sys.executable, "-m", "balrog", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no.such.package"], "no"),
        (["application:events()"], "events"),
        (["application:make()()"], "make()()"),
        (["application", "--bind", "nonsense"], "nonsense"),
        (["application", "--bind", "127.0.0.1:99999"], "99999"),
        (["application", "--bind", "no-such-host.invalid:0"], "no-such-host.invalid"),
        (["application", "--bind", "unix:/no/such/directory/socket"], "/no/such/directory/socket"),
    ],
)
def test_errors_at_the_start_are_one_line(arguments, says):
    result = balrog("serve", *arguments)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1, result.stderr
    assert says in result.stderr


def test_a_factory_that_fails_shows_where():
    result = balrog("serve", "application:broken_factory()")
    assert result.returncode == 2
    *trace, last = result.stderr.splitlines()
    assert "calling application:broken_factory() failed: RuntimeError: no luck" in last
    assert "in broken_factory" in trace[1] and "serve.py" not in result.stderr


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "[::1]:0", "localhost:0"])
def test_addresses(bind):
    with serving(HERE, "application:application", bind=bind) as served:
        port = int(served.ready.split("http://")[1].split()[0].rpartition(":")[2].rstrip("/,"))
        with Wire("::1" if "::" in bind else "localhost", port) as wire:
            wire.send(request("/hello"))
            assert wire.response().body == b"hello"


def over_unix(path, data):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(path))
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
        return answer


def test_a_unix_socket(tmp_path):
    path = tmp_path / "socket"
    with serving(HERE, "application", bind=f"unix:{path}") as served:
        assert over_unix(path, request("/hello")).endswith(b"hello")
        # The place is taken as long as somebody answers there.
        assert balrog("serve", "application", "--bind", f"unix:{path}").returncode == 2
        served.process.kill()
        served.process.wait()
    assert path.exists()
    with serving(HERE, "application", bind=f"unix:{path}") as served:
        assert over_unix(path, request("/hello")).endswith(b"hello")
        assert served.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_running_requests_finish(number):
    with serving(HERE, "application") as served:
        client = Client(served)
        with client.wire(10) as running, client.wire() as idle, client.wire() as half:
            idle.send(request("/hello"))
            assert idle.response().body == b"hello"
            running.send(request("/sleep?1"))
            half.send(b"GET /hello HT")
            time.sleep(0.3)
            begun = time.monotonic()
            served.process.send_signal(number)
            assert idle.wait_end(2)
            response = running.response()
            assert (response.body, response.closes) == (b"slept", True)
            with pytest.raises(OSError):
                client.wire()
            running.wait_end(2)
        assert served.process.wait(5) == 0
        assert time.monotonic() - begun < 5


def test_the_access_log(tmp_path):
    log = tmp_path / "log"
    command = [sys.executable, "-m", "balrog", "serve", "application", "--bind", "127.0.0.1:0", "--access-log"]
    with (
        log.open("w") as out,
        subprocess.Popen(command, cwd=HERE, stdout=out, stderr=subprocess.PIPE, text=True) as process,
    ):
        try:
            port = int(process.stderr.readline().split("http://127.0.0.1:")[1].split()[0].rstrip("/,"))
            with Wire("127.0.0.1", port) as wire:
                wire.send(request("/hello?%0a%22"))
                assert wire.response().status == 200
                wire.send(request('/hello?"forged\\'))
                second = wire.response()
                wire.send(request("/raise", "Connection: close"))
                wire.response()
                wire.wait_end(2)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
    lines = log.read_text().splitlines()
    assert '"GET /hello?%0a%22 HTTP/1.1" 200 5' in lines[0]
    if second is not None and second.status == 200:
        assert '?"' not in lines[1].split("GET ")[1]
    assert '"GET /raise HTTP/1.1" 500' in lines[-1]


def test_a_factory_and_a_limit_of_requests_at_once():
    with serving(HERE, "application:make()", "--max-requests-at-once", "2") as served:
        client = Client(served)
        begun = time.monotonic()
        with client.wire() as one, client.wire() as two, client.wire() as three:
            for wire in (one, two):
                wire.send(request("/sleep?0.5"))
            # Of requests that come at once, any may be the first.
            time.sleep(0.2)
            three.send(request("/sleep?0.5"))
            assert one.response().body == two.response().body == b"slept"
            assert time.monotonic() - begun < 0.95
            assert three.response().body == b"slept"
            assert time.monotonic() - begun > 0.95
