"""A server of chat completions on this machine that answers by a script, or misbehaves by it."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers by the script of its server: one entry per request, the last one for all that follow."""

    server: Any
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append((self.path, self.headers.get("Authorization"), self.body, time.monotonic()))
            answer = self.server.script.pop(0) if len(self.server.script) > 1 else self.server.script[0]
        answer(self)

    def send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, promised: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if promised is None else promised))
        self.end_headers()
        self.wfile.write(body)
        if promised is not None:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Quiet."""


def completion(text: str | None, ended: str = "stop", **message: Any) -> dict[str, Any]:
    choice = {"finish_reason": ended, "message": {"role": "assistant", "content": text, **message}}
    usage = {"prompt_tokens": 10, "completion_tokens": 2}
    return {"model": "judge-2030", "system_fingerprint": "fp_1", "choices": [choice], "usage": usage}


def says(text: str | None, ended: str = "stop", **message: Any) -> Answer:
    return lambda handler: handler.send(200, json.dumps(completion(text, ended, **message)).encode())


def fails(status: int, body: str = "{}", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.send(status, body.encode(), named)


@contextmanager
def chat_server(*script: Answer) -> Iterator[Any]:
    """Runs such a server; its `script` may be changed, and `seen` holds (path, authorization, body, time)."""
    made: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.script, made.seen, made.lock = list(script), [], threading.Lock()
    made.daemon_threads = True
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.shutdown()
        made.server_close()
        thread.join()
