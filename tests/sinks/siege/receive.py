"""An HTTP server that appends what it is sent to a file, a line a record, and only then answers."""

import base64
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

path, port, token = sys.argv[1], int(sys.argv[2]), sys.argv[3]
out = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
end = os.lseek(out, 0, os.SEEK_END)
if end > 0 and os.pread(out, 1, end - 1) != b"\n":
    # It was killed within a line.
    os.write(out, b"\n")
lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:
            # The connection was cut within the request, which was none then.
            self.close_connection = True
            return
        self.answer(self.judge(body))

    def judge(self, body):
        if self.headers.get("Authorization") != "Bearer " + token:
            return 401
        if b"refuse-me" in body:
            return 422
        if self.headers["Content-Type"] != "application/x-ndjson":
            offset, index = self.headers["Duragram-Offset"].split("-")
            record = {
                "offset": int(offset),
                "index": int(index),
                "client": self.headers["Duragram-Client"],
                "epoch": int(self.headers["Duragram-Epoch"]),
                "seq": int(self.headers["Duragram-Seq"]),
                "channel": int(self.headers["Duragram-Channel"]),
                "received_at": "",
                "payload_base64": base64.b64encode(body).decode(),
            }
            body = json.dumps(record).encode() + b"\n"
        with lock:
            os.write(out, body)
            os.fsync(out)
        return 204

    def answer(self, status):
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *said):
        pass


ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
