"""Pages in headless Chromium, as a person sees them: at the width of a screen or a phone, light or dark, on paper."""

import base64
import json
import select
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.hangs import HangGuard

SCREEN, PHONE, PAPER = 1280, 400, 718
"""Widths in CSS pixels: of a screen, a phone, and A4 within the browser's margins."""
MIN_CONTRAST = 4.5
"""Of text against what is behind it (Web Content Accessibility Guidelines 2.2, 1.4.3)."""
FAINT_TEXT = """(min) => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [red, green, blue] = channels(colour).map((value) => value / 255)
        .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const isPrinted = matchMedia("print").matches, faint = [];
  const behind = (element) => {
    for (let node = element; node && !isPrinted; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (channels(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";  // backgrounds are not printed
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || !element.checkVisibility() || element.closest("script, style, :disabled")) continue;
    const [dark, bright] = [getComputedStyle(element).color, behind(element)].map(luminance).sort((a, b) => a - b);
    if ((bright + 0.05) / (dark + 0.05) < min) faint.push(text.slice(0, 40));
  }
  return faint;
}"""
QUIET = ("gpu", "quic", "background-networking", "component-update", "sync", "extensions")
SECONDS_BETWEEN_CHECKS = 1.0


def find_chromium() -> str:
    """The browser's file; skips the test where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((found for found in map(shutil.which, names) if found), None)
    if browser is None:
        pytest.skip(f"no Chromium is installed: none of {', '.join(names)}")
    return browser


class Browser:
    """A tab, driven by the DevTools protocol over a pipe.

    `--window-size` will not do: headless Chromium has no window narrower than 500 px.
    """

    def __init__(self, folder: Path) -> None:
        """Start it with a profile of its own in `folder`."""
        # The pipe's two ends are file descriptors 3 and 4.
        command = ["sh", "-c", 'exec "$@" 3<&0 4>&1 >/dev/null', "sh", find_chromium(), "--headless", "--no-sandbox"]
        command += ["--no-first-run", *(f"--disable-{what}" for what in QUIET)]
        command += [f"--user-data-dir={folder / 'profile'}", "--remote-debugging-pipe", "about:blank"]
        self._errors = folder / "chromium.txt"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0
            )
        self._received = b""
        self._session: str | None = None
        self._num_calls = 0
        self._events: list[dict[str, Any]] = []
        targets = self._call("Target.getTargets")["targetInfos"]
        tab = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def console(self) -> list[str]:
        """What the pages wrote to the console, uncaught errors and refused requests among them."""
        lines = []
        for event in self._events:
            match event["method"]:
                case "Runtime.consoleAPICalled":
                    lines.append(" ".join(str(part.get("value")) for part in event["params"]["args"]))
                case "Runtime.exceptionThrown":
                    lines.append(json.dumps(event["params"]["exceptionDetails"]))
                case "Log.entryAdded":
                    lines.append(event["params"]["entry"]["text"])
        return lines

    def show(self, width: int, *, dark: bool = False, printed: bool = False) -> None:
        """Show this page and those opened later otherwise.

        Args:
            width: of the window, in CSS pixels; below 600 it is a phone's.
            dark: what the page is told that its reader prefers.
            printed: as on paper.
        """
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", media="print" if printed else "", features=[scheme])

    def open(self, url: str) -> None:
        """Load a page, all its images too."""
        failure = self._call("Page.navigate", url=url).get("errorText")
        assert failure is None, f"{url}: {failure}"
        self.evaluate(
            """(async () => {
            while (document.readyState !== "complete") await new Promise((go) => setTimeout(go, 20));
            for (const image of document.images) image.loading = "eager";
            await Promise.all([...document.images].map((image) => image.decode()));
            })()"""
        )

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, awaited where it is a promise."""
        outcome = self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in outcome, json.dumps(outcome["exceptionDetails"], indent=1)
        return outcome["result"].get("value")

    def assert_readable(self) -> None:
        """The page shown fits a screen, a phone and paper, and no text on it is faint, light or dark."""
        for width, printed in ((SCREEN, False), (PHONE, False), (PAPER, True)):
            for dark in (False, True):
                self.show(width, dark=dark, printed=printed)
                case = f"{width} px, {'dark' if dark else 'light'}{', printed' if printed else ''}"
                assert self.evaluate("innerWidth") == width
                assert self.evaluate("document.scrollingElement.scrollWidth") <= width, case
                assert self.evaluate(f"({FAINT_TEXT})({MIN_CONTRAST})") == [], case

    def cut_boxes(self) -> list[str]:
        """Boxes that have to be scrolled sideways, by their labels or how their text begins."""
        cut: list[str] = self.evaluate(
            """[...document.querySelectorAll(".scroll")].filter((box) => box.scrollWidth > box.clientWidth)
            .map((box) => box.getAttribute("aria-label") ?? box.innerText.slice(0, 40))"""
        )
        return cut

    def overfull_cells(self) -> list[str]:
        """Cells of tables whose text runs over their right edge, by how it begins."""
        overfull: list[str] = self.evaluate(
            """[...document.querySelectorAll("th, td")].filter((cell) => {
              const text = document.createRange();
              text.selectNodeContents(cell);
              const [inner, outer] = [text, cell].map((part) => part.getBoundingClientRect().right);
              return cell.checkVisibility() && inner > outer + 1;
            }).map((cell) => cell.innerText.slice(0, 40))"""
        )
        return overfull

    def screenshot(self, file: Path, *, whole: bool = True) -> None:
        """Write what is seen as a PNG: the whole page, or its first screen."""
        data = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        file.write_bytes(base64.b64decode(data))

    def print_pdf(self, file: Path) -> None:
        """Print the page on A4 by the margins and choices of the print dialogue."""
        data = self._call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"]
        file.write_bytes(base64.b64decode(data))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._num_calls += 1
        number = self._num_calls
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._process.stdin.write(json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != number:
            self._events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        guard = HangGuard()
        while b"\0" not in self._received:
            if select.select([self._process.stdout], [], [], SECONDS_BETWEEN_CHECKS)[0]:
                part = self._process.stdout.read(1 << 20)
                assert part, f"Chromium has ended:\n{self._errors.read_text()}"
                self._received += part
            guard.check(lambda: self._errors.read_text())
        first, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        return message
