"""A Bedrock that runs on this machine: unmodified boto3 talks to it by ``endpoint_url``.

with BedrockEmulator(quota=Quota(tokens_per_minute=200_000, burst="bucket", burndown=5), latency_s=0.05) as server:
    client = boto3.client("bedrock-runtime", endpoint_url=server.url, region_name="us-east-1", ...)
    ...
    server.stats().settled_tokens
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from typing import Any
from urllib.request import Request, urlopen

from bedrock_emulator.answers import Answers, answer
from bedrock_emulator.faults import Faults
from bedrock_emulator.jobs import Batch
from bedrock_emulator.quota import Quota
from bedrock_emulator.service import Reply, Service
from bedrock_emulator.stats import Stats

__all__ = ["Batch", "BedrockEmulator", "Faults", "Quota", "Stats"]

_PHRASES = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 408: "Request Timeout", 409: "Conflict",
            424: "Failed Dependency", 429: "Too Many Requests", 500: "Internal Server Error", 503: "Unavailable"}  # fmt: skip


class BedrockEmulator:
    """The server, in a thread of this process or, with ``process=True``, in a process of its own.

    Parameters
    ----------
    quota, faults, batch : see there.
    latency_s : seconds to the first token, or a range to draw from.
    tokens_per_second : speed of generation, for latencies that grow with the answer; None is at once.
    answers : "grammar" (conversations for the prompts of the conversations domain), "fixed" (one short text for
        everything: fastest), or a function of system prompt and task (not in a process of its own).
    malformed : share of answers that are broken, in five different ways.
    output_tokens : what `usage` says instead of the answer's length, or a range to draw from.
    s3 : True starts moto's S3 (`s3_url`) for batch jobs; or the URL of one that runs.
    """

    def __init__(
        self,
        *,
        quota: Quota = Quota(),
        faults: Faults = Faults(),
        batch: Batch = Batch(),
        latency_s: float | tuple[float, float] = 0.0,
        tokens_per_second: float | None = None,
        answers: Answers = "grammar",
        malformed: float = 0.0,
        output_tokens: int | tuple[int, int] | None = None,
        s3: bool | str = False,
        process: bool = False,
    ) -> None:
        if process and callable(answers):
            raise ValueError("A function of answers can't be sent to a process of its own.")
        self._options: dict[str, Any] = {
            "quota": quota, "faults": faults, "batch": batch, "latency_s": latency_s, "answers": answers,
            "tokens_per_second": tokens_per_second, "malformed": malformed, "output_tokens": output_tokens,
        }  # fmt: skip
        self._s3, self._moto = s3, None
        self._process, self._child = process, None
        self.service: Service | None = None
        self.url = ""
        self.s3_url: str | None = None

    def __enter__(self) -> BedrockEmulator:
        if self._s3 is True:
            from moto.server import ThreadedMotoServer

            logging.getLogger("werkzeug").setLevel(logging.ERROR)
            self._moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
            self._moto.start()
            host, port = self._moto.get_host_and_port()
            self.s3_url = f"http://{host}:{port}"
        elif self._s3:
            self.s3_url = str(self._s3)
        self._options["s3_url"] = self.s3_url
        if self._process:
            self._start_process()
        else:
            self._start_thread()
        return self

    def __exit__(self, *error: object) -> None:
        if self._child is not None:
            self._child.stdin.close()
            self._child.wait(10)
        else:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
        if self._moto is not None:
            self._moto.stop()

    def stats(self) -> Stats:
        """What the server has counted so far."""
        if self.service is not None:
            return self.service.stats()
        told = json.loads(urlopen(f"{self.url}/emulator/stats").read())
        return Stats(**told | {"timeline": tuple(tuple(entry) for entry in told["timeline"])})

    def change(self, quota: Quota | None = None, **changes: Any) -> None:
        """Another quota from now on, or the present one with some fields changed: ``change(tokens_per_minute=100)``."""
        quota = replace(quota or self._options["quota"], **changes)
        self._options["quota"] = quota
        if self.service is not None:
            self.service.change(quota)
        else:
            urlopen(Request(f"{self.url}/emulator/quota", json.dumps(asdict(quota)).encode(), method="POST")).read()

    def _start_thread(self) -> None:
        self.service = Service(**self._options)
        _warm_up(self._options["answers"])
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_serve, args=(self._loop, self.service, listener), daemon=True)
        self._thread.start()

    def _start_process(self) -> None:
        options = {k: asdict(v) if k in ("quota", "faults", "batch") else v for k, v in self._options.items()}
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self._child = subprocess.Popen(
            [sys.executable, "-m", "bedrock_emulator.server", json.dumps(options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.url = self._child.stdout.readline().strip()
        if not self.url:
            raise RuntimeError("The emulator's process did not start.")


def _warm_up(answers: Answers) -> None:
    from bedrock_emulator import wire

    wire.operations()
    if answers == "grammar":
        answer(answers, "", "Intent: lost_or_stolen_card: x\nExactly 4 turns.")


def _serve(loop: asyncio.AbstractEventLoop, service: Service, listener: socket.socket) -> None:
    asyncio.set_event_loop(loop)
    server = loop.run_until_complete(loop.create_server(lambda: _Connection(service, loop), sock=listener))
    try:
        loop.run_forever()
    finally:
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


class _Connection(asyncio.Protocol):
    """One kept-alive HTTP/1.1 connection, one request at a time."""

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        self._service, self._loop = service, loop
        self._buffer = b""
        self._head: tuple[str, str, str] | None = None
        self._region = ""
        self._length = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._read_head(self._buffer[:end])
            self._buffer = self._buffer[end + 4 :]
        if len(self._buffer) < self._length:
            return
        body, self._buffer = self._buffer[: self._length], self._buffer[self._length :]
        method, path, query = self._head or ("", "", "")
        self._head = None
        reply = self._reply(method, path, query, body)
        if reply.delay_s:
            self._loop.call_later(reply.delay_s, self._send, reply)
        else:
            self._send(reply)

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        path, _, query = target.partition("?")
        self._head, self._length = (method, path, query), 0
        for line in lines:
            name, _, value = line.partition(":")
            if name.lower() == "content-length":
                self._length = int(value)
            elif name.lower() == "authorization":  # …Credential=key/date/region/service/aws4_request, …
                self._region = value.split("/")[2] if value.count("/") > 2 else ""
            elif name.lower() == "expect":
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _reply(self, method: str, path: str, query: str, body: bytes) -> Reply:
        if path == "/emulator/stats":
            return Reply(200, json.dumps(asdict(self._service.stats())).encode())
        if path == "/emulator/quota":
            self._service.change(Quota(**json.loads(body)))
            return Reply(200, b"{}")
        self._service.region = self._region
        try:
            return self._service.handle(method, path, query, body)
        except Exception as error:  # a fault of the emulator itself must not look like one of the service
            return Reply(
                400, json.dumps({"message": f"emulator: {error!r}"}).encode(), {"x-amzn-ErrorType": "Emulator"}
            )

    def _send(self, reply: Reply) -> None:
        if reply.settle:
            reply.settle()
        if self._transport.is_closing():
            return
        if reply.cut == "before":
            self._transport.abort()
            return
        headers = {"Content-Type": "application/json", "x-amzn-RequestId": "emulated"} | reply.headers
        lines = [f"HTTP/1.1 {reply.status} {_PHRASES.get(reply.status, 'Other')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join([*lines, f"Content-Length: {len(reply.body)}", "", ""]).encode()
        if reply.cut == "half":
            self._transport.write(head + reply.body[: len(reply.body) // 2])
            self._transport.close()
            return
        self._transport.write(head + reply.body)


def _main() -> None:
    options = json.loads(sys.argv[1])
    for name, kind in (("quota", Quota), ("faults", Faults), ("batch", Batch)):
        options[name] = kind(**options[name])
    for name in ("latency_s", "output_tokens"):
        options[name] = tuple(options[name]) if isinstance(options[name], list) else options[name]
    options["batch"] = replace(options["batch"], outcomes=tuple(options["batch"].outcomes))
    emulator = BedrockEmulator()
    emulator._options = options
    emulator._start_thread()
    print(emulator.url, flush=True)
    sys.stdin.read()
    emulator.__exit__()


if __name__ == "__main__":
    _main()
