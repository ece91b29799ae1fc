"""A headless Chromium, driven over WebDriver by plain HTTP."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


def missing() -> str:
    """Why no browser can be started; empty where one can."""
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"no {' and no '.join(absent)} on this machine" if absent else ""


class Browser:
    """One window; use as a context manager."""

    def __init__(self, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        self.width, self.height, self.dark = width, height, dark

    def __enter__(self) -> Browser:
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        self.driver = subprocess.Popen(
            ["chromedriver", "--port=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.driver.stdout is not None
        for line in self.driver.stdout:
            if "successfully on port" in line:
                port = line.split("on port")[1].strip(" .\n")
                self.root = f"http://127.0.0.1:{port}"
                break
        flags = [*FLAGS, f"--user-data-dir={self.profile}"]
        flags += [f"--window-size={self.width},{self.height}"]
        flags += ["--force-dark-mode"] if self.dark else []
        options = {"args": flags, "binary": shutil.which("chromium")}
        logs = {"goog:loggingPrefs": {"browser": "ALL"}}
        capabilities = {"alwaysMatch": {"goog:chromeOptions": options, **logs}}
        try:
            session = self._call("POST", "/session", {"capabilities": capabilities})
        except BaseException:
            self.driver.terminate()
            raise
        self.root += f"/session/{session['sessionId']}"
        self.metrics(self.width, self.height)
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._call("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait(10)
            shutil.rmtree(self.profile, ignore_errors=True)

    def metrics(self, width: int, height: int, phone: bool = False) -> None:
        """The size of the page, narrower than a window may be, and whether it is a phone's."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )

    def devtools(self, command: str, **parameters: Any) -> Any:
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, path: Path) -> None:
        self._call("POST", "/url", {"url": path.resolve().as_uri()})

    def run(self, script: str) -> Any:
        """The value of a JavaScript function body."""
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def click(self, selector: str, right_of_centre: int = 0) -> None:
        """A real press of the mouse on an element, so many pixels right of its centre."""
        element = self._element(selector)
        self.scroll_to(selector)
        self._settle(selector)
        move = {
            "type": "pointerMove",
            "duration": 0,
            "x": right_of_centre,
            "y": 0,
            "origin": {ELEMENT: element},
        }
        press = [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        mouse = {"type": "pointer", "id": "mouse", "actions": [move, *press]}
        self._call("POST", "/actions", {"actions": [mouse]})
        time.sleep(0.05)

    def _settle(self, selector: str) -> None:
        """Waits until an element stays in its place: a filter may still be moving the page."""
        where = f"const r = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
        before = None
        for _ in range(50):
            now = self.run(f"{where} return [r.x, r.y, r.width, r.height]")
            if now == before:
                return
            before = now
            time.sleep(0.1)

    def scroll_to(self, selector: str) -> None:
        how = "{block: 'center', behavior: 'instant'}"
        self.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({how})")

    def picture_of(self, selector: str) -> Image.Image:
        """How an element looks now."""
        self.scroll_to(selector)
        shot = self._call("GET", f"/element/{self._element(selector)}/screenshot")
        return Image.open(io.BytesIO(base64.b64decode(shot))).convert("RGB")

    def choose(self, selector: str, option: str) -> None:
        """Click on an option of a select, by its text."""
        options = self.run(
            f"return [...document.querySelectorAll({json.dumps(selector + ' option')})]"
            ".map(option => option.textContent)"
        )
        wanted = f"{selector} option:nth-of-type({options.index(option) + 1})"
        self._call("POST", f"/element/{self._element(wanted)}/click", {})

    def type(self, selector: str, text: str) -> None:
        self._call("POST", f"/element/{self._element(selector)}/value", {"text": text})

    def complaints(self) -> list[str]:
        """What the page wrote to the console: errors, warnings, files that it did not find."""
        entries = self._call("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries]

    def screenshot(self, path: Path, whole_page: bool = False) -> None:
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=whole_page)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, path: Path) -> None:
        printed = self.devtools("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(printed["data"]))

    def _element(self, selector: str) -> str:
        wanted = {"using": "css selector", "value": selector}
        return str(self._call("POST", "/element", wanted)[ELEMENT])

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(self.root + path, data=data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from error
