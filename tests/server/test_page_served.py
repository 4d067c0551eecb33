"""The page in a real browser, from a real `realesr serve` that runs a real network."""

import contextlib
import socket
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser import NEEDS_CHROMIUM, chromium

from .server_process import MOST_SECONDS, ServerProcess, killed_at_the_end
from .shown_page import WIDE, WIDTHS, Shown, plain, png, upload
from .test_serving import running

pytestmark = NEEDS_CHROMIUM

NETWORK = "realesr-general-x4v3"
MOST_UPLOAD_BYTES = 2_000_000

SHARE = "document.querySelector('.file > progress:not([hidden])')?.getAttribute('value')"


class Served(ServerProcess):
    """A `realesr serve` that runs."""

    def __init__(self, temporary: Path, *arguments: str, port: int = 0) -> None:
        super().__init__(temporary, "-m", "realesr", "serve", "--port", str(port), *arguments)

    @property
    def job_folders(self) -> list[Path]:
        return list(self.temporary.glob("realesr-serve-*/job-*"))


@contextlib.contextmanager
def serving(temporary: Path, *arguments: str, port: int = 0) -> Iterator[Served]:
    with killed_at_the_end(Served(temporary, *arguments, port=port)) as served:
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    limit = f"--max-upload={MOST_UPLOAD_BYTES / 1e6:g}MB"
    with serving(tmp_path_factory.mktemp("server"), limit, "--grace", "1s") as server:
        yield server
        assert server.ended()[0] == 0


@pytest.fixture
def shown(browser: Any, server: Served) -> Iterator[Shown]:
    context = browser.new_context(viewport={"width": WIDE, "height": WIDTHS[WIDE]})
    shown = Shown(context, server.link, MOST_SECONDS)
    shown.tab.get_by_label("Network").select_option(NETWORK)
    yield shown
    shown.tab.close()
    for job in context.request.get(f"{server.link}api/jobs").json()["jobs"]:
        context.request.delete(f"{server.link}api/jobs/{job['id']}")
    context.close()
    assert shown.faults == []
    assert shown.foreign_requests == []


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


def test_a_folder_that_is_dropped_is_enlarged_and_its_progress_is_seen_moving(
    shown: Shown, tmp_path: Path, pictures: Path
) -> None:
    (tmp_path / "photos" / "inner" / "empty").mkdir(parents=True)
    for name, size in (("10.png", (30, 20)), ("9.png", (360, 240)), ("inner/11.png", (30, 20))):
        (tmp_path / "photos" / name).write_bytes(png(*size))
    (tmp_path / "photos" / "inner" / "notes.txt").write_text("no photo")
    shown.drop(tmp_path / "photos")
    shares = set()
    give_up = time.monotonic() + MOST_SECONDS
    while shown.tab.locator(".file[data-state=done]").count() < 3:
        assert time.monotonic() < give_up
        shares.add(shown.tab.evaluate(SHARE))
    shown.picture(pictures, "served-folder")
    moving = sorted(float(share) for share in shares if share is not None)
    assert len(moving) >= 3
    assert 0 < moving[1] < 1
    assert shown.tab.locator(".open").all_inner_texts() == ["9.png", "10.png", "11.png"]
    assert shown.line("9.png").startswith("1440 \u00d7 960 px")
    assert shown.messages.startswith("Left out 1 file that is no photo: notes.txt")
    assert shown.tab.locator("#drop-sign").is_hidden()


def test_a_folder_that_is_chosen_gives_its_photos(shown: Shown, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("a.png", "inner/b.png", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(png(30, 20))
    with shown.tab.expect_file_chooser() as chooser:
        shown.tab.get_by_role("button", name="Choose a folder").click()
    chooser.value.set_files(tmp_path)
    shown.wait_for("done", 2)
    assert "Left out 2 files that are no photos" in shown.messages


def test_a_picture_is_pasted_from_the_clipboard(shown: Shown) -> None:
    shown.tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    shown.tab.evaluate("""async () => {
        const canvas = Object.assign(document.createElement('canvas'), { width: 24, height: 16 });
        canvas.getContext('2d').fillRect(0, 0, 9, 9);
        const blob = await new Promise(done => canvas.toBlob(done));
        await navigator.clipboard.write([new ClipboardItem({ 'image/png': blob })]);
    }""")
    shown.tab.keyboard.press("Control+V")
    shown.wait_for("done")
    assert shown.line("image.png").startswith("96 \u00d7 64 px")


def test_the_divider_follows_the_mouse_and_the_keyboard(shown: Shown, pictures: Path) -> None:
    shown.tab.set_input_files("#files", [upload("photo.png", png(90, 60))])
    shown.show_result()
    assert shown.divider == pytest.approx(50)
    box = shown.tab.locator("#stage").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    shown.tab.mouse.move(x, y)
    shown.tab.mouse.down()
    shown.tab.mouse.move(x - 90, y, steps=3)
    shown.tab.mouse.up()
    assert shown.divider == pytest.approx(25, abs=1)  # the result is 360 px wide
    shown.picture(pictures, "served-viewer")
    slider = shown.tab.get_by_role("slider", name="Divider between before and after")
    slider.press("End")
    assert shown.divider == pytest.approx(100)
    slider.press("ArrowLeft")
    assert shown.divider == pytest.approx(99.5)
    slider.press("Home")
    shown.tab.locator("#stage").press("ArrowRight")
    assert shown.divider == pytest.approx(2)


def test_a_photo_is_looked_at_by_its_pixels_with_the_keyboard_alone(shown: Shown) -> None:
    shown.tab.set_input_files("#files", [upload("photo.png", png(300, 220))])
    shown.show_result()
    stage = shown.tab.locator("#stage")
    with shown.tab.expect_response("**/tiles/result/**"), shown.tab.expect_response("**/tiles/source/**"):
        stage.press("1")
    assert shown.view[0] == 1
    _, x, y = shown.view
    stage.press("ArrowRight")
    stage.press("ArrowDown")
    assert shown.view[1] < x
    assert shown.view[2] < y
    stage.press("+")
    assert shown.view[0] == pytest.approx(2**0.5)
    stage.press("0")
    assert shown.view[0] < 1


def test_results_are_saved_one_by_one_and_as_a_zip(shown: Shown) -> None:
    names = ["\u05e9\u05dc\u05d5\u05dd \U0001f600.png", "a-very-long-name-" * 9 + ".png"]
    shown.tab.set_input_files("#files", [upload(name, png(30, 20)) for name in names])
    shown.wait_for("done", 2)
    assert shown.tab.locator(".open").all_inner_texts() == names
    with shown.tab.expect_download() as one:
        shown.tab.locator("#save").click()
    assert one.value.suggested_filename == names[0].replace(".png", "_x4.png")
    with Image.open(one.value.path()) as image:
        assert image.size == (120, 80)
    with shown.tab.expect_download() as both:
        shown.tab.get_by_role("link", name="Save 2 as ZIP").click()
    with zipfile.ZipFile(both.value.path()) as archive:
        assert archive.namelist() == ["\u05e9\u05dc\u05d5\u05dd \U0001f600_x4.png", names[1][:113] + "_x4.png"]
        assert archive.testzip() is None


def test_settings_decide_the_size_and_the_format(shown: Shown) -> None:
    tab = shown.tab
    tab.get_by_label("Size", exact=True).select_option("box")
    tab.get_by_label("Width of the box in pixels").fill("100")
    tab.get_by_label("Height of the box in pixels").fill("50")
    tab.get_by_label("Format").select_option("webp")
    tab.get_by_label("Quality").fill("85")
    shown.open()
    shown.tab.set_input_files("#files", [upload("photo.png", png(30, 20))])
    shown.wait_for("done")
    assert "30 \u00d7 20 \u2192 75 \u00d7 50 px \u00b7 WEBP" in plain(tab.locator("#facts").inner_text())


def test_cancel_while_a_photo_runs_waits_or_is_sent(shown: Shown, server: Served) -> None:
    shown.tab.set_input_files("#files", [upload("large.png", png(900, 700)), upload("next.png", png(900, 700))])
    shown.wait_for("running")
    shown.wait_for("queued")
    session = shown.tab.context.new_cdp_session(shown.tab)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 50_000}
    session.send("Network.enable")
    session.send("Network.emulateNetworkConditions", slow)
    shown.tab.set_input_files("#files", [upload("slow.png", bytes(1_500_000))])
    shown.wait_for("uploading")
    for name in ("slow.png", "next.png", "large.png"):
        shown.tab.get_by_role("button", name=f"Cancel {name}").click()
    shown.wait_for("cancelled", 3)
    session.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
    give_up = time.monotonic() + MOST_SECONDS
    while server.job_folders:
        assert time.monotonic() < give_up
        time.sleep(0.05)
    shown.add("after.png")
    shown.wait_for("done")
    assert shown.tab.locator(".file").count() == 4


def test_a_reload_in_the_middle_of_a_job_shows_it_again(shown: Shown) -> None:
    shown.tab.set_input_files("#files", [upload("large.png", png(900, 700)), upload("next.png", png(900, 700))])
    shown.wait_for("running")
    shown.wait_for("queued")
    shown.open()
    shown.wait_for("running")
    shown.wait_for("queued")
    # Both are uploaded at once, and either may be the first there.
    assert sorted(shown.tab.locator(".open").all_inner_texts()) == ["large.png", "next.png"]
    shown.wait_until("document.querySelector('.line').textContent.includes('left')")
    shown.tab.get_by_role("button", name="Cancel all").click()
    shown.wait_for("cancelled", 2)


def test_errors_are_shown_in_the_product_s_words(shown: Shown, pictures: Path) -> None:
    whole = png(90, 60)
    damaged = upload("damaged.png", whole[: len(whole) // 2])
    too_large = upload("large.png", bytes(MOST_UPLOAD_BYTES + 1))
    shown.tab.set_input_files("#files", [damaged, upload("text.png", b"no image"), too_large])
    shown.wait_for("failed", 2)
    shown.picture(pictures, "served-errors")
    assert shown.line("damaged.png").startswith("damaged.png is truncated or damaged near row")
    assert shown.line("text.png").startswith("text.png is")
    assert "large.png has 2.0 MB, and this server takes at most 2.0 MB" in shown.messages
    shown.tab.get_by_role("button", name="Failed 2").click()
    assert shown.tab.locator(".file:visible").count() == 2
    refused = [fault for fault in shown.faults if "422" not in fault]  # the browser writes refusals down
    shown.faults[:] = refused


def test_a_server_that_is_gone_or_lets_nobody_in_is_told_and_waited_for(browser: Any, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = browser.new_context()
    nearest = ("--engine", "nearest", "--grace", "0s")
    with serving(tmp_path / "first", *nearest, port=port) as first:
        shown = Shown(context, first.link, MOST_SECONDS)
        shown.tab.set_input_files("#files", [upload("kept.png")])
        shown.wait_for("done")
        first.ended()
    shown.tab.set_input_files("#files", [upload("patient.png")])
    shown.wait_until("document.getElementById('banner').textContent.startsWith('The server does not answer')")
    with serving(tmp_path / "second", *nearest, "--token", "correct-horse-battery", port=port):
        shown.wait_until("document.getElementById('banner').textContent.startsWith('This server needs a token')")
        assert shown.tab.locator(".file[data-state=waiting]").count() == 1
    with serving(tmp_path / "third", *nearest, port=port):
        shown.tab.wait_for_selector("#banner", state="hidden")
        shown.wait_for("done")
        assert shown.line("kept.png") == "The server no longer keeps it"
        assert shown.line("patient.png").startswith("360 \u00d7 240 px")
    context.close()


def test_the_link_with_a_token_leads_to_the_page_and_a_photo_to_its_result(browser: Any, tmp_path: Path) -> None:
    token = "correct-horse-battery-staple"
    with running(tmp_path / "server", host="0.0.0.0", token=token) as server:
        context, here = browser.new_context(), f"http://127.0.0.1:{server.port}/"
        requests: list[str] = []
        context.on("request", lambda request: requests.append(request.url))
        entrance = context.new_page()
        entrance.goto(f"{here}?token={token}")
        entrance.wait_for_url(here)
        shown = Shown(context, here, MOST_SECONDS)
        shown.tab.set_input_files("#files", [upload("my photo.png", png(60, 40))])
        shown.wait_for("done")
        cookies: list[Any] = context.cookies()
        assert shown.faults == []
        assert [url for url in requests if token in url] == [f"{here}?token={token}"]
        assert shown.foreign_requests == []
        assert all(cookie["httpOnly"] for cookie in cookies)
        assert len(cookies) == 2
        context.close()
        assert server.ended() == (0, "")
