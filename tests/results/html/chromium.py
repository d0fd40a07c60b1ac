"""A headless Chromium that tests drive over a pipe, by its DevTools protocol; no driver and no library is needed."""

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import Any

from ...conftest import guard

FLAGS = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-pipe --no-first-run".split()
KEYS = {
    "Enter": (13, "\r"), "Tab": (9, ""), " ": (32, " "), "Escape": (27, ""), "ArrowDown": (40, ""),
    "ArrowRight": (39, ""),
}  # fmt: skip


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One page, with everything that it complained of or asked the network for."""

    def __init__(self, to: int, back: int) -> None:
        self.to, self.back, self.rest, self.last = to, back, b"", 0
        self.session: str | None = None
        self.complaints: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.last:
            self._note(answer)
        if method == "Runtime.evaluate" and "navigated" in answer.get("error", {}).get("message", ""):
            return self.call(method, **parameters)  # between two pages there was nothing to ask
        assert "error" not in answer, (method, answer)
        return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + guard(60)
        while b"\0" not in self.rest:
            assert select([self.back], [], [], max(0, end - time.monotonic()))[0], "Chromium does not answer"
            self.rest += os.read(self.back, 1 << 20)
        first, _, self.rest = self.rest.partition(b"\0")
        return dict(json.loads(first))

    def _note(self, event: dict[str, Any]) -> None:
        about = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(about["exceptionDetails"])[:1000])
            case "Runtime.consoleAPICalled":
                self.complaints.append(json.dumps(about["args"])[:1000])
            case "Log.entryAdded":
                self.complaints.append(json.dumps(about["entry"])[:1000])
            case "Network.requestWillBeSent":
                self.requests.append(about["request"]["url"])

    def open(self, path: Path, fragment: str = "") -> None:
        self.call("Page.navigate", url="about:blank")  # a change of the fragment alone would load nothing
        self.call("Page.navigate", url=path.as_uri() + fragment)
        self.wait_for("document.readyState === 'complete' && !!document.getElementById('theme')")

    def value(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        end = time.monotonic() + guard(30)
        while not self.value(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        where = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{where}.scrollIntoView({{block: 'center', inline: 'center'}})")
        x, y = self.value(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({where}.getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        code, text = KEYS.get(key) or (ord(key.upper()), key)
        name = {" ": "Space"}.get(key, f"Key{key.upper()}" if len(key) == 1 else key)
        about = {"key": key, "code": name, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def tab_to(self, selector: str) -> None:
        """By keyboard alone, from where the focus is."""
        for _ in range(400):
            self.press("Tab")
            if self.value(f"document.activeElement.matches({json.dumps(selector)})"):
                return
        raise AssertionError(f"the Tab key never comes to {selector}")

    def size(self, width: int, height: int, dark: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])


@contextmanager
def page_of_chromium(program: str, profile: Path) -> Iterator[Page]:
    """A fresh browser with one page; it ends with the block."""
    ours_in, theirs_out = os.pipe()
    theirs_in, ours_out = os.pipe()
    high_in, high_out = (fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (theirs_in, theirs_out))

    def as_three_and_four() -> None:
        os.dup2(high_in, 3)
        os.dup2(high_out, 4)

    process = subprocess.Popen(
        [program, *FLAGS, f"--user-data-dir={profile}"], pass_fds=(3, 4), preexec_fn=as_three_and_four,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for fd in (theirs_in, theirs_out, high_in, high_out):
        os.close(fd)
    try:
        yield Page(ours_out, ours_in)
    finally:
        process.terminate()
        process.wait(guard(60))
        os.close(ours_in)
        os.close(ours_out)
