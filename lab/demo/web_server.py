"""The shop's two Python services, which run in containers: `web` asks `api`, and `api` counts in Redis.

Standard library only. `python3 web_server.py web|api`; other services are found by name alone.
"""

import http.client
import http.server
import json
import os
import signal
import socket
import socketserver
import sys
import threading
from typing import Any

PORT = 8000
CALL_TIMEOUT_SECONDS = 1.0
IDLE_TIMEOUT_SECONDS = 2.0


def own_address() -> str:
    """The address that others see: that of the interface which leads out (no packet is sent)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def count_visit() -> int:
    """INCR in Redis, by its protocol (RESP)."""
    with socket.create_connection(("redis", 6379), CALL_TIMEOUT_SECONDS) as link:
        link.sendall(b"*2\r\n$4\r\nINCR\r\n$6\r\nvisits\r\n")
        answer = link.makefile("rb").readline()
    if not answer.startswith(b":"):
        raise OSError(f"redis answered {answer!r}")
    return int(answer[1:])


def ask_api() -> dict[str, Any]:
    """One request to the service `api`, over a new connection."""
    link = http.client.HTTPConnection("api", PORT, timeout=CALL_TIMEOUT_SECONDS)
    try:
        link.request("GET", "/")
        answer = link.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise OSError(f"api answered {answer.status}: {body.decode(errors='replace').strip()}")
        value: dict[str, Any] = json.loads(body)
        return value
    finally:
        link.close()


class Handler(http.server.BaseHTTPRequestHandler):
    """/healthz says that this process serves; / does the service's work."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT_SECONDS

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self.reply(200, "ok\n")
            return
        identity = {"task": os.uname().nodename, "address": own_address(), "client": self.client_address[0]}
        try:
            if sys.argv[1] == "api":
                value = {**identity, "visits": count_visit()}
            else:
                api = ask_api()
                value = {"web": identity, "api": api, "visits": api["visits"]}
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            self.reply(503, f"{sys.argv[1]} on {identity['task']}: {error}\n")
            return
        self.reply(200, json.dumps(value) + "\n")

    def reply(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if text.startswith("{") else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        if stopping.is_set():
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        if self.path != "/healthz" and str(arguments[1:2]) != "('200',)":
            super().log_message(format, *arguments)


class Server(http.server.ThreadingHTTPServer):
    """Finishes the requests that have begun before it ends."""

    daemon_threads = False
    request_queue_size = 128

    def server_bind(self) -> None:
        # Not HTTPServer's: that asks the DNS for the host's own name, which may take seconds.
        socketserver.TCPServer.server_bind(self)


stopping = threading.Event()


def main() -> None:
    server = Server(("", PORT), Handler)

    def stop(*_: object) -> None:
        stopping.set()
        threading.Thread(target=server.shutdown).start()

    # The first process of a container gets only the signals that it has asked for.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"{sys.argv[1]} serves on port {PORT} as {os.uname().nodename}", flush=True)
    server.serve_forever(poll_interval=0.1)
    server.server_close()


if __name__ == "__main__":
    main()
