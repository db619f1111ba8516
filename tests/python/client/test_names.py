"""Names: looked up off the hub, with a deadline; and URLs that lead elsewhere than they seem to."""

import os
import shutil
import subprocess
import sys
import time

import pytest
import requests
from support.client import keep_alive

#: A resolver that takes its time over one name.
RESOLVER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    typeof(getaddrinfo) *real = dlsym(RTLD_NEXT, "getaddrinfo");
    if (node && strcmp(node, "slow.example") == 0) {
        usleep(1500000);
        node = "127.0.0.1";
    }
    return real(node, service, hints, found);
}
"""

SCRIPT = """
import sys, time
import balrog, balrog.requests, requests
balrog.requests.install()
url = sys.argv[1]

def ask():
    begun = time.monotonic()
    try:
        requests.get(url, timeout=(0.4, 5))
    except requests.exceptions.ConnectTimeout as error:
        assert "slow.example" in str(error) and "could not be looked up" in str(error), error
    else:
        raise AssertionError("no time-out")
    assert 0.3 < time.monotonic() - begun < 1.2, time.monotonic() - begun
    assert requests.get(url, timeout=10).content == b"ok"

def green():
    turns, tasks = 0, [balrog.spawn(ask) for _ in range(5)]
    while not all(task.done() for task in tasks):
        balrog.sleep(0.01)
        turns += 1
    for task in tasks:
        task.result()
    assert turns > 30, turns

(ask if sys.argv[2] == "thread" else lambda: balrog.run(green))()
"""


@pytest.mark.parametrize("mode", ["thread", "task"])
def test_a_slow_resolver_holds_nobody_up(mode, server, tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "Rust links with a C compiler, so there is one"
    (tmp_path / "resolver.c").write_text(RESOLVER)
    library = str(tmp_path / "resolver.so")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, str(tmp_path / "resolver.c"), "-ldl"], check=True)
    port = server(keep_alive(lambda peer, head: peer.answer(b"ok"))).port
    command = [sys.executable, "-c", SCRIPT, f"http://slow.example:{port}/", mode]
    done = subprocess.run(command, env=os.environ | {"LD_PRELOAD": library}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_both_families_are_tried(run, server):
    """``localhost`` is ::1 first on most machines, where nobody listens."""
    url = server(keep_alive(lambda peer, head: peer.answer(b"ok"))).url

    def body():
        begun = time.monotonic()
        assert requests.get(url.replace("127.0.0.1", "localhost"), timeout=5).content == b"ok"
        assert time.monotonic() - begun < 1

    run(body)


@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.0.0.1.1",
        "1.2.3.256",
        "[::1%25lo]",
        "[::1]]",
        "a b",
    ],
)
def test_hosts_that_are_none(host, run):
    def body():
        with pytest.raises(requests.exceptions.RequestException) as raised:
            requests.get(f"http://{host}:1/", timeout=5)
        kinds = requests.exceptions.InvalidURL | requests.exceptions.ConnectionError
        assert isinstance(raised.value, kinds)
        if host[0].isdigit():
            assert isinstance(raised.value, requests.exceptions.InvalidURL)

    run(body)


@pytest.mark.parametrize(
    "at", ["{here}\\@evil.example/", "{here}/@evil.example", "{here}#@evil.example", "{here}?@evil.example"]
)
def test_where_a_url_leads(at, run, server):
    def respond(peer, head):
        peer.answer(head.split(b"\r\nHost: ")[1].split(b"\r\n")[0])

    found = server(keep_alive(respond))
    here = f"127.0.0.1:{found.port}"

    def body():
        try:
            response = requests.get(f"http://{at.format(here=here)}", timeout=2)
        except requests.exceptions.RequestException:
            # Or nowhere.
            return
        assert response.text == here

    run(body)


def test_nothing_is_injected(run, server):
    heads = []

    def respond(peer, head):
        heads.append(head)
        peer.answer()

    url = server(keep_alive(respond)).url

    def body():
        for path in ("/a\r\nX-Evil: 1", "/a b", "/a\x00b", "/a\tb", "/\xe9"):
            requests.get(url + path, timeout=5)
        for method in ("GET / HTTP/1.1\r\nX-Evil: 1\r\n\r\nGET", "GE T", "G\0T", ""):
            try:
                requests.request(method, url, timeout=5)
            except requests.exceptions.RequestException:
                continue
            assert method == ""
        prepared = requests.Request("GET", url).prepare()
        for field, value in (("X-A\r\nX-Evil", "1"), ("X-A", "1\r\nX-Evil: 1"), ("X A", "1"), ("", "1"), ("X-A", "\0")):
            prepared.headers.clear()
            prepared.headers[field] = value
            with pytest.raises(requests.exceptions.InvalidHeader):
                requests.Session().send(prepared, timeout=5)
        prepared.headers.clear()
        for raw in ("/a\r\nX-Evil: 1", "/a b", "/\xff"):
            prepared.url = url + raw
            with pytest.raises(requests.exceptions.RequestException):
                requests.Session().send(prepared, timeout=5)
        assert not any(
            b"evil" in head.lower().replace(b"x-evil:%20", b"") and b"\r\nx-evil" in head.lower() for head in heads
        )
        for head in heads:
            assert head.count(b"\r\n\r\n") == 1 and head.split(b"\r\n")[0].count(b" ") == 2

    run(body)


def test_secrets_stay_at_home(run, server):
    """A redirect to another origin takes neither passwords nor cookies along."""
    seen = []

    def away(peer, head):
        seen.append(head.lower())
        peer.answer(b"away")

    other = server(keep_alive(away))

    def home(peer, head):
        seen.append(head.lower())
        if b"/here" in head.split()[1]:
            peer.answer(b"home")
        elif b"/inside" in head.split()[1]:
            peer.answer(b"", "Location: /here", status="307 Temporary Redirect")
        else:
            peer.answer(b"", f"Location: http://localhost:{other.port}/", status="307 Temporary Redirect")

    url = server(keep_alive(home)).url

    def body():
        seen.clear()
        session = requests.Session()
        session.cookies.set("secret", "1", domain="127.0.0.1")
        for path, content in (("/inside", b"home"), ("/outside", b"away")):
            seen.clear()
            answer = session.post(url + path, data="x", auth=("me", "secret"), timeout=5)
            assert answer.content == content and len(seen) == 2
            assert b"authorization: basic" in seen[0] and b"cookie: secret" in seen[0]
            assert (b"authorization" in seen[1]) == (b"cookie" in seen[1]) == (path == "/inside")

    run(body)
