"""A notebook's kernel as JupyterLab drives it, whose cells can be interrupted, and what is seen of that."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.manager import KernelManager

from genesis_lab.notebooks import kernel_config

SENTENCE = "Interrupted: "


@dataclass
class Seen:
    """Of one cell: its errors and printed text in the order they came; seconds from the interrupt, None where there was none."""

    said: list[str] = field(default_factory=list)
    interrupted: bool = False
    sentence_s: float | None = None
    ended_s: float | None = None

    @property
    def errors(self) -> list[str]:
        return [one.removeprefix("error ") for one in self.said if one.startswith("error ")]


@dataclass
class Kernel:
    manager: Any
    client: Any

    def run(self, source: str, *, interrupt_after: float | None = None) -> Seen:
        """Run a cell as a person before a notebook does; interrupt it when it has worked for so many seconds."""
        seen, request, began, at = Seen(), self.client.execute(source, allow_stdin=True, stop_on_error=False), 0.0, 0.0
        while True:
            now = time.monotonic()
            waiting = interrupt_after is not None and began and not at
            if interrupt_after is not None and waiting and now - began >= interrupt_after:
                self.manager.interrupt_kernel()
                at, seen.interrupted, waiting = time.monotonic(), True, False
            left = max(interrupt_after - (now - began), 0.0) if interrupt_after is not None and waiting else 1.0
            try:
                message = self.client.get_iopub_msg(timeout=left)
            except Empty:
                if not self.manager.is_alive():
                    raise RuntimeError("The kernel died.") from None
                continue
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content, now = message["msg_type"], message["content"], time.monotonic()
            if kind == "error":
                seen.said.append(f"error {content['ename']}: {content['evalue']}")
                if at and seen.sentence_s is None and content["ename"] == "Interrupted":
                    seen.sentence_s = now - at
            elif kind == "stream":
                seen.said.append(content["text"])
            elif kind == "status" and content["execution_state"] == "busy":
                began = now
            elif kind == "status" and content["execution_state"] == "idle":
                seen.ended_s = now - at if at else None
                return seen


@contextmanager
def kernel(folder: Path, outputs: Path) -> Iterator[Kernel]:
    """A kernel that works in `folder` and writes to `outputs`."""
    with kernel_config() as config:
        manager = KernelManager(config=config, kernel_name="python3")
        manager.start_kernel(cwd=str(folder), env=os.environ | {"GENESIS_OUTPUT_ROOT": str(outputs)})
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=120)
        try:
            yield Kernel(manager, client)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
