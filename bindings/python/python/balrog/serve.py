"""``balrog serve``: a WSGI server on this thread's hub."""

import argparse
import contextlib
import importlib
import os
import resource
import signal
import socket
import stat
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import balrog
from balrog._balrog import Server, Waiter

__all__ = ["StartError", "load_application", "serve"]

#: Connections that wait in the kernel until they are accepted.
BACKLOG = 2048
#: 10,000 connections, and as many of the application's own.
DESCRIPTORS = 20_480
#: How long cancelled requests have for their clean-up, in seconds.
CLEAN_UP = 5.0


class StartError(Exception):
    """The server cannot start; the message says why, in one line. ``trace`` is for who wrote the application."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``balrog serve``."""
    parser.add_argument(
        "application",
        metavar="MODULE[:APP]",
        help="WSGI application; APP is 'application' or 'app' unless told; 'make()' calls a factory",
    )
    parser.add_argument(
        "--bind",
        action="append",
        metavar="HOST:PORT|unix:PATH",
        help="where to listen; may be repeated (127.0.0.1:8000)",
    )
    parser.add_argument(
        "--unix-mode",
        type=_mode,
        metavar="OCTAL",
        help="permissions of the sockets of unix:PATH, as for chmod (what the umask leaves)",
    )
    parser.add_argument(
        "--access-log", action=argparse.BooleanOptionalAction, default=True, help="log requests to stdout (yes)"
    )
    parser.add_argument(
        "--keep-alive",
        type=_seconds,
        default=12.0,
        metavar="SECONDS",
        help="how long an idle connection stays open (12)",
    )
    parser.add_argument(
        "--graceful-timeout",
        type=_seconds,
        default=30.0,
        metavar="SECONDS",
        help="how long running requests may take after SIGTERM or SIGINT (30)",
    )
    parser.add_argument(
        "--max-requests-at-once",
        type=_count,
        default=4096,
        metavar="N",
        help="requests that run at once; more wait for their turn (4096)",
    )


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return count


def _mode(text: str) -> int:
    mode = int(text, 8)
    if not 0 <= mode <= 0o777:
        raise argparse.ArgumentTypeError(f"{text} is not an octal mode like 660")
    return mode


def run(options: argparse.Namespace) -> int:
    """Runs ``balrog serve`` and returns the exit status: 0, or 2 if it cannot start."""
    sys.path.insert(0, os.getcwd())
    _raise_descriptor_limit()
    try:
        application = load_application(options.application)
        serve(
            application,
            options.bind or ["127.0.0.1:8000"],
            name=options.application,
            access_log=options.access_log,
            keep_alive=options.keep_alive,
            graceful_timeout=options.graceful_timeout,
            max_requests_at_once=options.max_requests_at_once,
            unix_mode=options.unix_mode,
        )
    except StartError as error:
        print(f"{error.trace}balrog: {error}", file=sys.stderr)
        return 2
    return 0


def _raise_descriptor_limit() -> None:
    """As many descriptors as the server takes connections; the usual 1,024 are for ``select``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def load_application(spec: str) -> Callable[..., Any]:
    """The WSGI application that ``MODULE[:APP]`` names.

    Without ``APP`` it is the module's ``application``, else its ``app``; ``APP()`` calls a
    factory. Raises ``StartError``.
    """
    module_name, _, attribute = spec.partition(":")
    attribute, call, rest = attribute.partition("()")
    if rest:
        raise StartError(f"{spec!r} is not MODULE, MODULE:APP or MODULE:FACTORY()")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # An import that fails inside of the application's code is its own error.
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise StartError(f"there is no module {error.name!r} (looked in {os.getcwd()} and on sys.path)") from error
        raise StartError(f"cannot import {module_name!r}: {_one_line(error)}", _trace(error)) from error
    except Exception as error:
        raise StartError(f"cannot import {module_name!r}: {_one_line(error)}{_place(error)}", _trace(error)) from error
    names = [attribute] if attribute else ["application", "app"]
    for name in names:
        found: Any = module
        try:
            for part in name.split("."):
                found = getattr(found, part)
        except AttributeError:
            continue
        if call and callable(found):
            try:
                found = found()
            except Exception as error:
                where = f"calling {module_name}:{name}() failed"
                raise StartError(f"{where}: {_one_line(error)}{_place(error)}", _trace(error)) from error
        if not callable(found):
            raise StartError(f"{module_name}:{name} is not callable, so no WSGI application")
        return found
    wanted = " or ".join(repr(name) for name in names)
    raise StartError(f"module {module_name!r} has no {wanted}; name the application as MODULE:APP")


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def _trace(error: BaseException) -> str:
    """The traceback from where the application's own code begins."""
    ours = {__file__, importlib.__file__}
    trace = error.__traceback__
    while trace is not None and (
        trace.tb_frame.f_code.co_filename in ours or trace.tb_frame.f_code.co_filename.startswith("<frozen importlib")
    ):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))


def serve(
    application: Callable[..., Any],
    bind: Sequence[str] = ("127.0.0.1:8000",),
    *,
    name: str = "application",
    access_log: bool = True,
    keep_alive: float = 12.0,
    graceful_timeout: float = 30.0,
    max_requests_at_once: int = 4096,
    unix_mode: int | None = None,
) -> None:
    """Serves ``application`` until SIGTERM or SIGINT, then lets running requests finish.

    Call it on the main thread. ``bind`` has items ``HOST:PORT``, ``[IPV6]:PORT`` or
    ``unix:PATH``, with the permissions ``unix_mode``. Times are in seconds. Raises ``StartError`` if it cannot listen.
    """
    if sys.stdin is not None and sys.stdin.isatty():
        # Somebody may debug here: the prompts of two requests come one after the other.
        from balrog import _debugger

        _debugger.install()
    stopping, stopped = Waiter(), Waiter()
    write_log = _write_log if access_log else None
    server = Server(
        application,
        _log_error,
        stopped.wake,
        keep_alive=keep_alive,
        at_once=max_requests_at_once,
        access_log=write_log,
    )
    with contextlib.ExitStack() as cleanup:
        sockets = [_listen(address, unix_mode, cleanup) for address in bind]
        addresses = []
        for listening in sockets:
            host, port, url = _describe(listening)
            addresses.append(url)
            server.listen(listening.detach(), host, port)

        def on_signal(number: int, _frame: object) -> None:
            if stopping.woken:
                # Somebody does not want to wait.
                os._exit(128 + number)
            stopping.wake()

        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(number, on_signal)
            cleanup.callback(signal.signal, number, before)
        print(f"balrog: serving {name} on {', '.join(addresses)} (pid {os.getpid()})", file=sys.stderr, flush=True)
        stopping.wait()
        print("balrog: stopping; running requests may finish, a second signal quits", file=sys.stderr, flush=True)
        server.stop()
        if not stopped.wait(graceful_timeout):
            _cancel(server, stopped)


def _cancel(server: Server, stopped: Waiter) -> None:
    counts = server.counts()
    print(
        f"balrog: time is over for {counts['running']} requests on {counts['connections']} connections",
        file=sys.stderr,
        flush=True,
    )
    for task in balrog.tasks():
        task.cancel()
    stopped.wait(CLEAN_UP)


def _listen(address: str, unix_mode: int | None, cleanup: contextlib.ExitStack) -> socket.socket:
    try:
        if address.startswith("unix:"):
            return _listen_unix(address.removeprefix("unix:"), unix_mode, cleanup)
        host, port = _host_and_port(address)
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit it.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(where)
    except OSError as error:
        raise StartError(f"cannot listen on {address}: {error.strerror or error}") from error
    listening.listen(BACKLOG)
    listening.setblocking(False)
    return listening


def _host_and_port(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise StartError(f"cannot listen on {address!r}: it has to be HOST:PORT or unix:PATH")
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)


def _listen_unix(path: str, mode: int | None, cleanup: contextlib.ExitStack) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode) and not _is_served(path):
            # Left behind by a server that was killed.
            os.unlink(path)
    listening.bind(path)
    inode = os.stat(path).st_ino
    cleanup.callback(_remove_socket, path, inode)
    if mode is not None:
        # Before it listens: nobody comes in under other permissions.
        os.chmod(path, mode)
    listening.listen(BACKLOG)
    listening.setblocking(False)
    return listening


def _is_served(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
    return True


def _remove_socket(path: str, inode: int) -> None:
    with contextlib.suppress(OSError):
        # Another server may have taken the place since.
        if os.stat(path).st_ino == inode:
            os.unlink(path)


def _describe(listening: socket.socket) -> tuple[str, str, str]:
    """Host and port for the environ, and a URL for people."""
    if listening.family == socket.AF_UNIX:
        return "localhost", "80", f"unix:{listening.getsockname()}"
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return host, str(port), f"http://{shown}:{port}"


def _write_log(lines: str) -> None:
    sys.stdout.write(lines)
    sys.stdout.flush()


def _log_error(what: str, error: BaseException) -> None:
    text = "".join(traceback.format_exception(error))
    print(f"balrog: exception in {what}\n{text}", end="", file=sys.stderr, flush=True)
