"""Makes page.webp, the picture of the page of `realesr serve` in the README, by a real server and a real browser.

    .venv/bin/python examples/make_page_picture.py

Needs Chromium and the extras `serve` and `dev`. The photo that is compared is the sample photo; the others come with
scikit-image, shrunk: Chelsea the cat by Stefan van der Walt and a cup of coffee by Rachel Michetti, both CC0, and a
rocket by SpaceX, in the public domain.
"""

import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

SAMPLE_PHOTO = Path(__file__).parents[1] / "export" / "portrait.jpg"
OTHERS = ("chelsea", "coffee", "rocket")
OTHERS_PX = (200, 140)
WINDOW_PX = (1200, 760)
DONE = f".file:nth-child({1 + len(OTHERS)})[data-state=done]"
WEBP_QUALITY = 88


def main() -> None:
    """Write page.webp beside this file."""
    target = Path(__file__).with_name("page.webp")
    with served() as address, page_at(address) as page:
        page.get_by_label("Network").select_option("realesr-general-x4v3")
        page.set_input_files(
            "#files", [upload(SAMPLE_PHOTO.name, SAMPLE_PHOTO.read_bytes()), *map(other_photo, OTHERS)]
        )
        page.wait_for_selector(DONE, timeout=120_000)
        with page.expect_response("**/tiles/result/**"):
            page.get_by_role("button", name="100 %").click()
        page.mouse.move(0, 0)
        page.evaluate("document.activeElement.blur()")
        page.wait_for_load_state("networkidle")
        screenshot = page.screenshot()
    Image.open(io.BytesIO(screenshot)).convert("RGB").save(target, quality=WEBP_QUALITY, method=6)
    print(target)


def other_photo(name: str) -> dict[str, Any]:
    """Return a photo of scikit-image, shrunk, as a JPEG file for the page."""
    from skimage import data

    photo = Image.fromarray(getattr(data, name)())
    photo.thumbnail(OTHERS_PX)
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=85)
    return upload(f"{name}.jpg", buffer.getvalue())


def upload(name: str, content: bytes) -> dict[str, Any]:
    """Return a JPEG file as Playwright puts it into a field for files."""
    return {"name": name, "mimeType": "image/jpeg", "buffer": content}


@contextmanager
def served() -> Iterator[str]:
    """Yield the address of a server that runs."""
    command = [sys.executable, "-m", "realesr", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


@contextmanager
def page_at(address: str) -> Iterator[Any]:
    """Yield the open page in a browser without a window."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WINDOW_PX[0], "height": WINDOW_PX[1]})
        page.goto(address)
        yield page
        browser.close()


if __name__ == "__main__":
    main()
