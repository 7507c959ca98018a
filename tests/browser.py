"""Opens a page as a user's browser does, and tells what it asked the network for and what it complained of.

As a program it takes the pictures of docs:
python -m tests.browser PAGE PICTURE [WIDTH [HEIGHT [SELECTOR [light|dark [SCRIPT [SCRIPT]]]]]]
PAGE is a file or an address; a script is asked until it says something true.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
PATIENCE_S = 120  # only for telling a hang from a slow machine


def find_browser() -> str | None:
    """The machine's Chromium, if it has one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Page:
    """A tab, by the protocol of Chrome's developer tools over a pipe: JSON that ends with a zero byte.

    Attributes:
        requests: the addresses that it asked for.
        complaints: errors and warnings of its console.
    """

    def __init__(self, write: int, read: int):
        self._write, self._read = os.fdopen(write, "wb"), os.fdopen(read, "rb", buffering=0)
        self._left, self._number, self._session = b"", 0, None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def open(self, page: Path | str, width: int, height: int) -> None:
        """Open a file or an address in a window of this size, and wait until all of it is there."""
        address = page if isinstance(page, str) else page.absolute().as_uri()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=address)
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, script: str) -> Any:
        """What an expression is in the page."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def picture(self, selector: str = "") -> bytes:
        """What the window shows, or the first element that the selector names, as PNG."""
        clip = {}
        if selector:
            script = f"(() => {{ const r = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            box = self.evaluate(f"{script} return [r.x + scrollX, r.y + scrollY, r.width, r.height] }})()")
            clip = {"clip": {**dict(zip(("x", "y", "width", "height"), box)), "scale": 1}}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=bool(clip), **clip)
        return base64.b64decode(shot["data"])

    def pdf(self) -> bytes:
        """The page as it would be printed."""
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"])

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._number, "method": method, "params": arguments, **session}
        self._write.write(json.dumps(message).encode() + b"\0")
        self._write.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            more = self._read.read(1 << 20)
            assert more, "the browser ended"
            self._left += more
        text, _, self._left = self._left.partition(b"\0")
        message = json.loads(text)
        method, what = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(what["request"]["url"])
        elif method == "Log.entryAdded":
            self.complaints.append(f"{what['entry']['level']}: {what['entry']['text']}")
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.complaints.append(json.dumps(what))
        return message


@contextmanager
def browser_page() -> Iterator[Page]:
    """A tab of a browser that ends with the block."""
    to_browser, from_page = os.pipe()
    to_page, from_browser = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        words = [str(find_browser()), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        words += ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # WebGL without a graphics card
        words += ["--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run", "--disable-extensions"]
        shell = f'exec 3<&{to_browser} 4>&{from_browser}; exec "$@"'
        process = subprocess.Popen(
            ["timeout", str(PATIENCE_S), "bash", "-c", shell, "-", *words],
            pass_fds=(to_browser, from_browser),
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        try:
            yield Page(from_page, to_page)
        finally:
            process.terminate()
            process.wait()


def main(words: list[str]) -> None:
    page, picture, width, height, selector, dark, ready, then = (
        *words,
        *("", "", "1000", "800", "", "", "", "")[len(words) :],
    )
    with browser_page() as tab:
        if dark:
            tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": dark}])
        tab.open(page if "://" in page else Path(page), int(width), int(height))
        for script in filter(None, (ready, then)):
            while not tab.evaluate(script):
                time.sleep(0.1)
        Path(picture).write_bytes(tab.picture(selector))


if __name__ == "__main__":
    main(sys.argv[1:])
