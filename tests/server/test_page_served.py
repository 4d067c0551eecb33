"""The page in a real browser, from a real server that needs a token."""

from pathlib import Path
from typing import Any

from tests.browser import NEEDS_CHROMIUM, chromium

from .test_app import png
from .test_serving import NETWORK, running

pytestmark = NEEDS_CHROMIUM


def test_the_link_leads_to_the_page_and_a_photo_to_its_result(tmp_path: Path) -> None:
    (tmp_path / "my photo.png").write_bytes(png(60, 40))
    token = "correct-horse-battery-staple"
    with running(tmp_path / "server", host="0.0.0.0", token=token) as server, chromium() as browser:
        tab = browser.new_page()
        faults: list[str] = []
        requests: list[str] = []
        tab.on("console", lambda message: faults.append(message.text))
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        here = f"http://127.0.0.1:{server.port}/"
        tab.goto(f"{here}?token={token}")
        tab.wait_for_url(here)
        tab.wait_for_selector(f"#model option[value={NETWORK['model']}]", state="attached")
        tab.select_option("#model", NETWORK["model"])
        tab.set_input_files("#files", str(tmp_path / "my photo.png"))
        tab.wait_for_selector("text=/240 . 160 px/")
        cookies: list[Any] = tab.context.cookies()
        assert faults == []
        assert [url for url in requests if not url.startswith((here, "blob:", "data:"))] == []
        assert [url for url in requests if token in url] == [f"{here}?token={token}"]
        assert all(cookie["httpOnly"] for cookie in cookies) and len(cookies) == 2
        assert server.ended() == (0, "")
