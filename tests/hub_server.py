"""As much of the Hugging Face hub as a push needs, on this machine."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import pytest

from genesis_lab.settings import get_settings


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a push of small files needs, on the wire."""

    def do_GET(self) -> None:
        self._answer({"siblings": [], "sha": "0" * 40, "id": "me/mine"} if "/tree/" not in self.path else [])

    def do_POST(self) -> None:
        body = self._body()
        hub = self.server
        hub.tokens.add(self.headers.get("authorization"))
        if hub.refuse:
            self._answer({"error": "no"}, 401)
        elif self.path.endswith("/repos/create"):
            hub.created.append(json.loads(body))
            self._answer({"url": self._url(hub.created[-1].get("type"))})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self._answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        elif "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    hub.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            url = self._url("dataset" if "/datasets/" in self.path else None)
            self._answer({"commitUrl": f"{url}/commit/1", "commitOid": "1" * 40, "hookOutput": "", "success": True})
        else:
            self._answer({"errors": [], "warnings": []})

    def _url(self, kind: str | None) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{'datasets/' if kind == 'dataset' else ''}me/mine"

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, data, status: int = 200) -> None:
        payload = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_) -> None:
        pass


@contextmanager
def running_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """A hub that this process pushes to; `files`, `created` and `tokens` are what it got, `refuse` makes it say no."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.created, server.files, server.tokens, server.refuse = [], {}, set(), False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("GENESIS_HF_TOKEN", "hf_test")
    get_settings.cache_clear()
    yield server
    server.shutdown()
    server.server_close()
