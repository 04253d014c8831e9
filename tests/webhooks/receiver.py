"""A receiver of webhooks on loopback that does what a test says: answers, is slow, redirects, cuts, never ends."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.servers import wait_until


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def message_id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


#: writes an answer to a connection, to the request that came as number n of the receiver's
Manner = Callable[[socket.socket, int], None]


def answering(status: int, *headers: str, body: bytes = b"") -> Manner:
    head = "\r\n".join([f"HTTP/1.1 {status} said", f"Content-Length: {len(body)}", *headers])
    return lambda connection, number: connection.sendall(f"{head}\r\n\r\n".encode() + body)


def first(count: int, manner: Manner, then: Manner) -> Manner:
    """`manner` to the first requests, and then the other."""
    return lambda connection, number: (manner if number <= count else then)(connection, number)


OK = answering(204)


def huge(connection: socket.socket, number: int) -> None:
    """200, and a body without end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    with suppress(OSError):
        while True:
            connection.sendall(b"x" * 65536)


def dripping_headers(connection: socket.socket, number: int) -> None:
    """A header line after the other, for ever."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    with suppress(OSError):
        while True:
            connection.sendall(b"x: y\r\n")
            time.sleep(0.05)


def cut_body(connection: socket.socket, number: int) -> None:
    """200, and less than it says."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")


def cut(connection: socket.socket, number: int) -> None:
    """Nothing at all."""


def endless_header(connection: socket.socket, number: int) -> None:
    with suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
        while True:
            connection.sendall(b"y" * 65536)


@dataclass
class Receiver:
    url: str
    manner: Manner = OK
    received: list[Received] = field(default_factory=list)
    #: until `open` is set, no request is answered but the first `free`
    free: int = 0
    open: threading.Event = field(default_factory=threading.Event)

    def ids(self) -> list[str]:
        return [each.message_id for each in [*self.received]]

    def has(self, count: int, seconds: float = 20) -> list[Received]:
        """Wait for so many requests."""
        wait_until(lambda: len(self.received) >= count, f"{count} requests at the receiver", seconds)
        return self.received


@contextmanager
def receiving(manner: Manner = OK, *, closed: bool = False, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """`closed`: no request is answered until its `open` is set."""

    counting = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers["content-length"]))
            with counting:
                receiver.received.append(Received(self.path, headers, body))
                number = len(receiver.received)
            if number > receiver.free:
                receiver.open.wait()
            with suppress(OSError):
                receiver.manner(self.connection, number)
            self.close_connection = True

        do_GET = do_POST

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 1024

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiver = Receiver(f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_address[1]}/hook", manner)
    if not closed:
        receiver.open.set()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.open.set()
        server.shutdown()
        thread.join()
        server.server_close()
