"""The page of `realesr serve`, open in a real browser, for tests against a real server and against a fake one."""

import base64
import io
import os
import time
from pathlib import Path
from typing import Any

from PIL import Image

from tests.images.image_files import photo

WIDTHS = {360: 740, 390: 844, 1280: 800, 1440: 900, 3840: 2160}
"""Widths of windows -> their heights."""
WIDE = 1440
DIVIDER = "parseFloat(getComputedStyle(document.getElementById('after')).clipPath.split(' ').pop())"
VIEW = "(stage => ['scale', 'x', 'y'].map(name => Number(stage.dataset[name])))(document.getElementById('stage'))"
GIVE = """([target, files, kind]) => {
    const transfer = new DataTransfer();
    for (const [name, content] of files) {
        const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
        transfer.items.add(new File([bytes], name, { type: 'image/png' }));
    }
    const facts = { bubbles: true, cancelable: true };
    const at = document.querySelector(target);
    if (kind === 'paste') at.dispatchEvent(new ClipboardEvent('paste', { ...facts, clipboardData: transfer }));
    else for (const type of ['dragenter', 'dragover', 'drop']) {
        at.dispatchEvent(new DragEvent(type, { ...facts, dataTransfer: transfer }));
    }
}"""


def png(width: int = 90, height: int = 60, seed: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photo(height, width, seed=seed)).save(file, "PNG")
    return file.getvalue()


def upload(name: str, content: bytes | None = None) -> Any:
    return {"name": name, "mimeType": "image/png", "buffer": png() if content is None else content}


def plain(text: str) -> str:
    """The text with common spaces, and without the marks that keep the direction of a name to itself."""
    return text.replace("\u00a0", " ").replace("\u2068", "").replace("\u2069", "")


class Shown:
    """The open page, with what went wrong on it and what it asked for."""

    def __init__(self, context: Any, address: str, seconds: float = 30.0) -> None:
        """Open the page; nothing that is waited for may take longer than `seconds`."""
        self.address, self.seconds = address, seconds
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.tab = context.new_page()
        self.tab.set_default_timeout(1000 * seconds)
        self.tab.on("console", lambda message: self.faults.append(f"{message.text} {message.location['url']}"))
        self.tab.on("pageerror", lambda error: self.faults.append(str(error)))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.open()

    @property
    def foreign_requests(self) -> list[str]:
        return [url for url in self.requests if not url.startswith((self.address, "blob:", "data:"))]

    def open(self) -> None:
        self.tab.goto(self.address)
        self.wait_until("document.querySelectorAll('#model option').length > 0")

    def add(self, *names: str) -> None:
        self.tab.set_input_files("#files", [upload(name) for name in names])

    def give(self, names: list[str], kind: str = "drop") -> None:
        """Drop files on the page, or paste them."""
        files = [[name, base64.b64encode(png(seed=seed)).decode()] for seed, name in enumerate(names)]
        self.tab.evaluate(GIVE, ["#main", files, kind])

    def drop(self, *paths: Path) -> None:
        """Drop files and folders of the disk on the page, as the mouse does."""
        session = self.tab.context.new_cdp_session(self.tab)
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})

    def wait_until(self, expression: str) -> None:
        """Wait until an expression is true. Playwright's own waiting needs the eval that the page's policy forbids."""
        give_up = time.monotonic() + self.seconds
        while not self.tab.evaluate(expression):
            assert time.monotonic() < give_up, (expression, self.tab.locator("#list").inner_text(), self.faults)
            self.tab.wait_for_timeout(20)

    def wait_for(self, state: str, number: int = 1) -> None:
        self.wait_until(f"document.querySelectorAll('.file[data-state={state}]').length === {number}")

    def show_result(self) -> None:
        """Wait until the photo in the viewer can be compared."""
        self.tab.wait_for_selector("#viewer.compares:not(.blank) #handle")
        self.wait_until("document.getElementById('stage').dataset.scale > 0")
        self.settle()

    def settle(self) -> None:
        self.tab.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    @property
    def view(self) -> list[float]:
        """Scale, x and y as the canvases were drawn, in px of the screen."""
        self.settle()
        view: list[float] = self.tab.evaluate(VIEW)
        return view

    @property
    def divider(self) -> float:
        """Where the right side begins, in percent of the photo, as the browser draws it."""
        self.settle()
        left, right = self.tab.evaluate(
            "(style => ['--left', '--right'].map(name => parseFloat(style.getPropertyValue(name))))"
            "(document.getElementById('stage').style)"
        )
        width = self.tab.evaluate("document.getElementById('stage').clientWidth")
        return float(100 * (self.tab.evaluate(DIVIDER) - left) / (width - left - right))

    def line(self, name: str) -> str:
        return plain(self.tab.locator(".file", has_text=name).locator(".line").inner_text())

    @property
    def messages(self) -> str:
        return plain(self.tab.locator("#messages").inner_text())

    def picture(self, folder: Path, name: str) -> None:
        """Keep a picture of the window, in the folder that REALESR_SCREENSHOTS names, or else in `folder`."""
        target = Path(os.environ.get("REALESR_SCREENSHOTS", folder))
        self.tab.screenshot(path=target / f"{name}.png")
