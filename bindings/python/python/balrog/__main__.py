"""``python -m balrog`` and the command ``balrog``."""

import argparse
import sys

from balrog import __version__
from balrog.serve import add_arguments, run


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line ``arguments`` (``sys.argv[1:]``) and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="balrog", description="Plain synchronous Python network code, run asynchronously underneath."
    )
    parser.add_argument("--version", action="version", version=f"balrog {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve a WSGI application",
        description="Serve a WSGI application, each request in a green task.",
    )
    add_arguments(serve)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
