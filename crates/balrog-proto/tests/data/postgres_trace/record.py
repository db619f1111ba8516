#!/usr/bin/env python3
"""Records a session of libpq: its bytes in both directions, and what PQtrace writes about them.

    scripts/postgres.py run PYTHON-WITH-PSYCOPG crates/balrog-proto/tests/data/postgres_trace/record.py

Bytes and trace begin behind the log-in, where PQtrace can be turned on.
"""

import multiprocessing
import os
import socket
import tempfile
import threading
from pathlib import Path

from psycopg import pq

HERE = Path(__file__).resolve().parent


def copy(source: socket.socket, target: socket.socket, kept: Path) -> None:
    with open(kept, "wb") as file:
        while data := source.recv(65536):
            file.write(data)
            target.sendall(data)
    target.shutdown(socket.SHUT_WR)


def proxy(listener: socket.socket) -> None:
    """One connection to the server, with a copy of everything."""
    client, _ = listener.accept()
    server = socket.socket(socket.AF_UNIX)
    server.connect(f"{os.environ['PGHOST']}/.s.PGSQL.{os.environ['PGPORT']}")
    threads = [
        threading.Thread(target=copy, args=(client, server, HERE / "frontend.bin")),
        threading.Thread(target=copy, args=(server, client, HERE / "backend.bin")),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def without_login(name: str, last: bytes | None) -> None:
    """Cuts off everything up to the first message of type `last`, or the start-up message."""
    data = (HERE / name).read_bytes()
    at, found = 0, False
    while not found:
        typed = last is not None
        found = not typed or data[at : at + 1] == last
        at += typed + int.from_bytes(data[at + typed : at + typed + 4], "big")
    (HERE / name).write_bytes(data[at:])


def session(conn: pq.PGconn) -> None:
    def results() -> None:
        while (result := conn.get_result()) is not None and result.status != pq.ExecStatus.COPY_IN:
            pass

    conn.exec_(b"select 1 as one, null, 'a\tb\x01'::text as x")
    conn.exec_(b"")
    conn.exec_(b"select 1/0")
    conn.exec_(b"do 'begin raise notice ''hm''; end'")
    conn.exec_(b"set application_name = 'trace'")
    conn.exec_params(b"select $1::int, $2::text", [b"1", b"\xff\x01"])
    conn.exec_params(b"select $1::int4, $2::text", [b"\0\0\0\1", None], [23, 25], [1, 0], 1)
    conn.prepare(b"st", b"select $1::int", [23])
    conn.describe_prepared(b"st")
    conn.exec_prepared(b"st", [b"4"])
    conn.exec_(b"listen ch")
    conn.exec_(b"notify ch, 'payload'")
    conn.exec_(b"create temp table t(a int)")
    for error in (None, b"no more"):
        conn.exec_(b"copy t from stdin")
        conn.put_copy_data(b"1\n")
        conn.put_copy_end(error)
        results()
    conn.exec_(b"copy t to stdout")
    while conn.get_copy_data(0)[0] > 0:
        pass
    results()
    conn.enter_pipeline_mode()
    conn.send_query_params(b"select 1", None)
    conn.send_flush_request()
    conn.pipeline_sync()
    conn.flush()
    results()
    results()
    conn.exit_pipeline_mode()
    conn.describe_portal(b"")
    conn.close_prepared(b"st")


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{directory}/.s.PGSQL.5432")
        listener.listen()
        # A process, since libpq may block with the interpreter locked.
        recorder = multiprocessing.get_context("fork").Process(target=proxy, args=(listener,))
        recorder.start()
        conn = pq.PGconn.connect(f"host={directory} port=5432".encode())
        with open(HERE / "trace.txt", "w") as trace:
            conn.trace(trace.fileno())
            conn.set_trace_flags(pq.Trace.SUPPRESS_TIMESTAMPS)
            session(conn)
            conn.finish()
        recorder.join()
    without_login("frontend.bin", None)
    without_login("backend.bin", b"Z")


if __name__ == "__main__":
    main()
