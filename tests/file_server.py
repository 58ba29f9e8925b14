"""A local HTTP server that answers as told and counts what it is asked."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import sleep


@dataclass(frozen=True, kw_only=True)
class Reply:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    sent: int | None = None  # bytes of the body that really go out
    delay_s: float = 0.0


@dataclass
class FileServer:
    """`replies` maps a path to what is answered, in turn; the last reply stays."""

    url: str
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)  # "GET /path" -> times

    def put(self, path: str, *replies: Reply) -> str:
        self.replies[path] = list(replies)
        return self.url + path

    def reply(self, method: str, path: str) -> Reply:
        self.asked[f"{method} {path}"] += 1
        replies = self.replies.get(path, [Reply(status=404)])
        return replies.pop(0) if len(replies) > 1 else replies[0]


@contextmanager
def serve() -> Iterator[FileServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            reply = files.reply(self.command, self.path)
            sleep(reply.delay_s)
            self.send_response(reply.status)
            for name, text in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(name, text)
            self.end_headers()
            if with_body:
                self.wfile.write(reply.body[: reply.sent])

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's own
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    files = FileServer(url=f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
