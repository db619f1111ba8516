"""The hello of `bench/plaintext.py`: as WSGI, as ASGI, and under the servers that are started from Python."""

import sys

BODY = b"Hello, world!"
HEADERS = [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))]
RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS]


def application(environ, start_response):
    """PEP 3333."""
    start_response("200 OK", HEADERS)
    return [BODY]


async def asgi(scope, receive, send):
    """ASGI 3."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": RAW_HEADERS})
        await send({"type": "http.response.body", "body": BODY})


if __name__ == "__main__":
    server, port = sys.argv[1], int(sys.argv[2])
    if server == "bjoern":
        import bjoern

        bjoern.run(application, "127.0.0.1", port)
    else:
        import fastwsgi

        fastwsgi.server.nowait = 0
        fastwsgi.run(wsgi_app=application, host="127.0.0.1", port=port, loglevel=0)
