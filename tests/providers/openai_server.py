"""A small real HTTP server that speaks OpenAI's chat completions, with faults on order."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """One answer: a status, headers and a body; `cut` closes the connection before the body is complete."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


class Server:
    """Answers with `replies` in order, then with chat completions; keeps what it was sent."""

    def __init__(self) -> None:
        self.replies: deque[Reply] = deque()
        self.script: Callable[[dict[str, Any]], Reply | None] = lambda body: None
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.supports = ("json_schema", "json_object")
        self.finish_reason, self.text, self.url = "stop", '{"ok": true}', ""
        self.wants_key = ""

    def answer(self, body: dict[str, Any]) -> Reply:
        self.requests.append(body)
        if self.replies:
            return self.replies.popleft()
        if scripted := self.script(body):
            return scripted
        kind = body.get("response_format", {}).get("type")
        if kind and kind not in self.supports:
            return refusal(
                400, f"response_format of type {kind} is not supported by this model", param="response_format"
            )
        message = {"role": "assistant", "content": self.text, "refusal": None}
        prompt = max(100, sum(len(message["content"]) for message in body["messages"]) // 4)
        usage = {"prompt_tokens": prompt, "completion_tokens": 7, "total_tokens": prompt + 7}
        usage["prompt_tokens_details"] = {"cached_tokens": 60}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        return answered(choices=[choice], usage=usage)


def answered(**fields: Any) -> Reply:
    """A chat completion with these fields in place of the usual ones."""
    usual = {"role": "assistant", "content": '{"ok": true}'}
    choices = [{"index": 0, "message": usual, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return Reply(body={"id": "1", "object": "chat.completion", "choices": choices, "usage": usage} | fields)


def said(message: Any, finish: str | None = "stop", **fields: Any) -> Reply:
    """A chat completion with this message."""
    return answered(choices=[{"index": 0, "message": message, "finish_reason": finish}], **fields)


def refusal(status: int, message: str, *, headers: dict[str, str] | None = None, **fields: Any) -> Reply:
    return Reply(
        status, {"error": {"message": message, "type": "error", "param": None, "code": None, **fields}}, headers or {}
    )


@contextmanager
def running() -> Iterator[Server]:
    """A server on a free port of this machine; its `url` ends in /v1."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            server.headers.append(dict(self.headers))
            server.keys.append(self.headers.get("Authorization", ""))
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._send(server.answer(body) if self.path == "/v1/chat/completions" else refusal(404, "no such page"))

        def do_GET(self) -> None:
            server.headers.append(dict(self.headers))
            server.keys.append(self.headers.get("Authorization", ""))
            if server.wants_key and server.wants_key not in server.keys[-1]:
                self._send(refusal(401, "no key"))
                return
            models = [{"id": name, "object": "model", "created": 1, "owned_by": "me"} for name in ("b", "a")]
            self._send(Reply(body={"object": "list", "data": models}))

        def _send(self, reply: Reply) -> None:
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if reply.cut else body)
            self.close_connection = reply.cut

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
