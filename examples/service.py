#!/usr/bin/env python3
"""A service of the simplest kind, to be put behind Duragram: the answer to a message is that message in capitals.

    python3 examples/service.py 8000
    duragram serve --sink http://127.0.0.1:8000/
    duragram ask "open valve 7"

It knows nothing of Duragram. A request that it has answered may come again when it or the server was killed before that was on
disk; a service to which that matters looks at the header Idempotency-Key, which is the same both times.
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Service(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'  # one connection for many requests
    disable_nagle_algorithm = True  # head and body are written apart: the second does not wait for an ack of the first

    def do_POST(self):
        message = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        answer = message.upper()
        self.send_response(200)
        self.send_header('Content-Length', str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass  # one line a request would be many


if __name__ == '__main__':
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    server = ThreadingHTTPServer(('127.0.0.1', port), Service)
    print(f'service ready on http://127.0.0.1:{server.server_port}/', flush=True)
    server.serve_forever()
