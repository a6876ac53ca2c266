"""A page in headless Chromium, spoken to over its debugging port; tests skip where no Chromium is installed."""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from genesis_lab.reporting.figures import find_chrome


class Tab:
    def __init__(self, socket: Any) -> None:
        self._socket, self._numbers = socket, itertools.count(1)

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": given}))
        while (answer := json.loads(self._socket.recv())).get("id") != number:
            pass
        assert "error" not in answer, answer
        return dict(answer["result"])

    def js(self, code: str) -> Any:
        """What an expression comes to; of a promise what it is resolved to."""
        found = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, code: str, wanted: Any, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while (found := self.js(code)) != wanted:
            assert time.monotonic() < end, f"{code} is {found!r}, not {wanted!r}"
            time.sleep(0.05)

    def press(self, keys: str) -> None:
        for key in keys:
            self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key)


@contextmanager
def opened(page: Path, profile: Path) -> Iterator[Tab]:
    """The page in a Chromium of its own, whose profile is kept in a folder."""
    websocket = pytest.importorskip("websocket", reason="websocket-client, which JupyterLab brings, is not installed")
    if (chrome := find_chrome()) is None:
        pytest.skip("no Chrome or Chromium is installed")
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-allow-origins=*")
    command = [chrome, *flags, "--remote-debugging-port=0", f"--user-data-dir={profile}", page.as_uri()]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        told, end = profile / "DevToolsActivePort", time.monotonic() + 60
        while not (told.is_file() and told.read_text().count("\n")):
            assert browser.poll() is None and time.monotonic() < end, "Chromium did not start"
            time.sleep(0.05)
        with urlopen(f"http://127.0.0.1:{told.read_text().split()[0]}/json/list") as answer:
            (target,) = [one for one in json.load(answer) if one["type"] == "page"]
        with closing(websocket.create_connection(target["webSocketDebuggerUrl"], timeout=60)) as socket:
            yield Tab(socket)
    finally:
        browser.terminate()
        browser.wait(20)
