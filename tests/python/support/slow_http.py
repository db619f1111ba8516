"""A handler of the standard library's HTTP server that takes its time."""

import http.server
import time


class Slow(http.server.BaseHTTPRequestHandler):
    """Answers a GET after half a second with its path, ``repeated`` times."""

    protocol_version = "HTTP/1.1"
    repeated = 100

    def do_GET(self):
        time.sleep(0.5)
        body = self.path.encode() * self.repeated
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass
