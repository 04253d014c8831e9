"""Headless Chromium, driven through chromedriver's HTTP interface (W3C WebDriver): no client library is needed."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.servers import free_port, wait_until

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_INSTALL = "install it: on Debian `apt-get install chromium chromium-driver`, elsewhere Chrome and chromedriver"


class Chromium:
    """One window. `session` is the WebDriver session's address."""

    def __init__(self, session: httpx.Client) -> None:
        self._session = session

    def open(self, address: str) -> None:
        self._call("POST", "/url", {"url": address})

    @property
    def tab(self) -> str:
        """The one that everything else is about."""
        return str(self._call("GET", "/window"))

    @tab.setter
    def tab(self, handle: str) -> None:
        self._call("POST", "/window", {"handle": handle})

    def add_tab(self) -> str:
        """Another one, of the same browser session."""
        return str(self._call("POST", "/window/new", {"type": "tab"})["handle"])

    def close_tab(self, then: str) -> None:
        """Close this one and go to another."""
        self._call("DELETE", "/window")
        self.tab = then

    def before_every_page(self, script: str) -> str:
        """Run a script in each page of this tab before the page's own; returns what `forget` takes."""
        return str(self._devtools("Page.addScriptToEvaluateOnNewDocument", {"source": script})["identifier"])

    def forget(self, script: str) -> None:
        self._devtools("Page.removeScriptToEvaluateOnNewDocument", {"identifier": script})

    def reload(self) -> None:
        self._call("POST", "/refresh")

    @property
    def address(self) -> str:
        return str(self._call("GET", "/url"))

    def type(self, selector: str, text: str) -> None:
        self._call("POST", f"/element/{self._find(selector)}/value", {"text": text})

    def click(self, selector: str) -> None:
        """Once more where the page has just taken that part of itself anew."""
        try:
            self._call("POST", f"/element/{self._find(selector)}/click")
        except AssertionError as error:
            if "stale element" not in str(error):
                raise
            self._call("POST", f"/element/{self._find(selector)}/click")

    def accept_question(self) -> None:
        self._call("POST", "/alert/accept")

    def text(self, selector: str) -> str:
        """As shown. One script, so that a page that redraws itself cannot take the element away in between."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText.trim()"))

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self._call("POST", "/execute/sync", {"script": f"return {script}", "args": []})

    def wait_for(self, expression: str, seconds: float = 20) -> None:
        """Until a JavaScript expression is true; TimeoutError otherwise."""
        wait_until(lambda: bool(self.run(expression)), expression, seconds)

    def problems(self) -> list[str]:
        """What the browser complained of since the last call: refused scripts, errors, failed loads."""
        return [str(entry["message"]) for entry in self._call("POST", "/se/log", {"type": "browser"})]

    def emulate(self, width: int, height: int, scheme: str = "light") -> None:
        """A screen of this many CSS pixels whose owner prefers `light` or `dark`."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._devtools("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._devtools("Emulation.setEmulatedMedia", {"features": features})

    def slow_down(self, times: float) -> None:
        """As a machine whose processor is so many times slower."""
        self._devtools("Emulation.setCPUThrottlingRate", {"rate": times})

    def screenshot(self, path: Path, highest: int | None = None) -> None:
        """The whole page, however long, or its first `highest` CSS pixels."""
        options: dict[str, Any] = {"captureBeyondViewport": True}
        if highest is not None:
            width, height = self.run("[innerWidth, document.documentElement.scrollHeight]")
            options["clip"] = {"x": 0, "y": 0, "width": width, "height": min(height, highest), "scale": 1}
        taken = self._devtools("Page.captureScreenshot", options)
        path.write_bytes(base64.b64decode(taken["data"]))

    def _devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _find(self, selector: str) -> str:
        found = self._call("POST", "/element", {"using": "css selector", "value": selector})
        return str(found[_ELEMENT])

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = self._session.request(method, path, json=(body or {}) if method == "POST" else None)
        value = answer.json()["value"]
        if answer.is_error:
            raise AssertionError(f"{method} {path} {body}: {value['message']}")
        return value


@contextmanager
def chromium(folder: Path) -> Iterator[Chromium]:
    """A fresh browser with its profile below `folder`. FileNotFoundError says what to install."""
    driver, browser = _executable("chromedriver"), _executable("chromium", "chromium-browser", "google-chrome")
    port = free_port()
    log = folder / "chromedriver.log"
    process = subprocess.Popen([driver, f"--port={port}", f"--log-path={log}"], stdout=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            wait_until(lambda: _is_ready(client), "start of chromedriver")
            with (
                _session(client, browser, folder / "profile") as address,
                httpx.Client(base_url=client.base_url.join(address), timeout=60) as session,
            ):
                yield Chromium(session)
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def _session(client: httpx.Client, browser: str, profile: Path) -> Iterator[str]:
    options = {"binary": browser, "args": [*_FLAGS, f"--user-data-dir={profile}"]}
    wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
    answer = client.post("/session", json={"capabilities": {"alwaysMatch": wanted}}).json()["value"]
    assert "sessionId" in answer, answer
    address = f"/session/{answer['sessionId']}"
    try:
        yield address
    finally:
        client.delete(address)


def _is_ready(client: httpx.Client) -> bool:
    try:
        return bool(client.get("/status").json()["value"]["ready"])
    except httpx.TransportError:
        return False


def _executable(*names: str) -> str:
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        raise FileNotFoundError(f"{names[0]} is not installed, and the dashboard is tested in it; {_INSTALL}")
    return found
