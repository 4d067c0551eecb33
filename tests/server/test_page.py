"""The page of `realesr serve` in a real browser: Debian's Chromium without a window, driven by Playwright."""

import base64
import io
import re
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser import NEEDS_CHROMIUM, chromium
from tests.images.image_files import photo

from .fake_api import FakeApi, served

pytestmark = NEEDS_CHROMIUM

WIDTHS = {360: 740, 390: 844, 1440: 900, 3840: 2160}
WIDE = 1440
DIVIDER = "parseFloat(getComputedStyle(document.getElementById('after')).clipPath.split(' ').pop())"
VIEW = "(stage => ['scale', 'x', 'y'].map(name => Number(stage.dataset[name])))(document.getElementById('stage'))"
DROP = """([target, files, kind]) => {
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[FakeApi, str]]:
    api = FakeApi()
    with served(api) as address:
        yield api, address


@pytest.fixture
def api(server: tuple[FakeApi, str]) -> FakeApi:
    server[0].reset()
    return server[0]


class Shown:
    """The open page, with what went wrong on it and what it asked for."""

    def __init__(self, context: Any, address: str) -> None:
        self.address = address
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.tab = context.new_page()
        self.tab.set_default_timeout(10_000)
        self.tab.on("console", lambda message: self.faults.append(f"{message.text} {message.location['url']}"))
        self.tab.on("pageerror", lambda error: self.faults.append(str(error)))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.open()

    def open(self) -> None:
        self.tab.goto(self.address)
        self.wait_until("document.querySelectorAll('#model option').length > 0")

    def add(self, *names: str) -> None:
        self.tab.set_input_files("#files", [upload(name) for name in names])

    def give(self, names: list[str], kind: str = "drop") -> None:
        """Drop files on the page, or paste them."""
        files = [[name, base64.b64encode(png(seed=seed)).decode()] for seed, name in enumerate(names)]
        self.tab.evaluate(DROP, ["#main", files, kind])

    def wait_until(self, expression: str) -> None:
        """Wait until an expression is true. Playwright's own waiting needs the eval that the page's policy forbids."""
        give_up = time.monotonic() + 10
        while not self.tab.evaluate(expression):
            assert time.monotonic() < give_up, (expression, self.tab.locator("#list").inner_text(), self.faults)
            self.tab.wait_for_timeout(20)

    def wait_for(self, state: str, number: int = 1) -> None:
        self.wait_until(f"document.querySelectorAll('.file[data-state={state}]').length === {number}")

    def show_result(self) -> None:
        """Wait until the photo in the viewer can be compared."""
        self.tab.wait_for_selector("#viewer.compares #handle")
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
        return str(self.tab.locator(".file", has_text=name).locator(".line").inner_text())


def opened(browser: Any, address: str, width: int = WIDE, **options: Any) -> Shown:
    context = browser.new_context(viewport={"width": width, "height": WIDTHS[width]}, has_touch=True, **options)
    return Shown(context, address)


def tiles_asked_for(shown: Shown, api: FakeApi) -> set[str]:
    """Return the paths of all tiles that were asked for, once no more of them come."""
    number = -1
    while number != len(api.tiles):
        number = len(api.tiles)
        shown.tab.wait_for_timeout(600)
    return set(api.tiles)


def is_about_a_deleted_job(fault: str, api: FakeApi) -> bool:
    """Return whether it is the browser's own note of a picture that was asked for just before its job was deleted."""
    picture = re.search(r"404 \(Not Found\) .*/api/jobs/([^/]+)/(?:thumbnail|source|preview)$", fault)
    return picture is not None and picture[1] not in api.jobs


@pytest.fixture
def shown(browser: Any, server: tuple[FakeApi, str], api: FakeApi) -> Iterator[Shown]:
    shown = opened(browser, server[1])
    yield shown
    shown.tab.context.close()
    assert [fault for fault in shown.faults if not is_about_a_deleted_job(fault, api)] == []
    assert [url for url in shown.requests if not url.startswith((shown.address, "blob:", "data:"))] == []


def test_dropped_files_are_enlarged_and_their_progress_is_seen_moving(shown: Shown, api: FakeApi) -> None:
    api.seconds = 1
    shown.give(["a.png", "b.png"])
    shown.wait_for("running")
    assert shown.line("b.png").startswith("Next")
    shares: set[float] = set()
    while shown.tab.locator(".file[data-state=running]").count() and len(api.jobs) == 2 and len(shares) < 4:
        shares.add(shown.tab.evaluate("document.querySelector('.file .text progress').value"))
        shown.tab.wait_for_timeout(40)
    assert len(shares) >= 4
    shown.wait_for("done", 2)
    assert "360 \u00d7 240 px" in shown.line("a.png")
    assert shown.tab.locator("#drop-sign").is_hidden()


def test_the_time_left_and_the_pixels_are_shown(shown: Shown, api: FakeApi) -> None:
    api.seconds, api.hold = 0.5, True
    shown.add("a.png")
    shown.wait_until("document.querySelector('.line')?.textContent.includes('left')")
    assert "of 5,400 px, less than 1 s left" in shown.line("a.png")
    assert shown.tab.locator("#state-text").inner_text() == shown.line("a.png")


def test_files_are_chosen_by_the_button(shown: Shown) -> None:
    with shown.tab.expect_file_chooser() as chooser:
        shown.tab.get_by_role("button", name="Choose photos").click()
    chooser.value.set_files([upload("chosen.png")])
    shown.wait_for("done")


def test_a_folder_gives_its_images_and_tells_what_it_leaves_out(shown: Shown, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("a.png", "inner/b.jpg", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(png())
    with shown.tab.expect_file_chooser() as chooser:
        shown.tab.get_by_role("button", name="Choose a folder").click()
    chooser.value.set_files(tmp_path)
    shown.wait_for("done", 2)
    message = shown.tab.locator("#messages").inner_text()
    assert "Left out 2 files that are no photos" in message
    assert "notes.txt" in message


def test_a_picture_is_pasted(shown: Shown) -> None:
    shown.give(["image.png"], "paste")
    shown.wait_for("done")


def test_settings_become_fields_and_are_kept(shown: Shown, api: FakeApi) -> None:
    tab = shown.tab
    tab.get_by_label("Network").select_option("realesrgan-x2plus")
    assert "Fetched when first used (67.1 MB)" in tab.locator("#purpose").inner_text()
    tab.get_by_label("Size", exact=True).select_option("box")
    tab.get_by_label("Width of the box in pixels").fill("800")
    tab.get_by_label("Height of the box in pixels").fill("600")
    tab.get_by_label("Strength").fill("80")
    tab.get_by_label("Format").select_option("webp")
    tab.get_by_label("Quality").fill("85")
    shown.open()
    assert tab.get_by_label("Height of the box in pixels").input_value() == "600"
    shown.add("a.png")
    shown.wait_for("done")
    wanted = {"model": "realesrgan-x2plus", "width": "800", "height": "600", "strength": "0.8"}
    assert api.fields == [wanted | {"format": "webp", "quality": "85"}]
    tab.get_by_text("Settings").click()
    tab.get_by_label("Size", exact=True).select_option("2")
    tab.get_by_label("Format").select_option("png")
    tab.get_by_role("button", name="Enlarge again with the settings as they are now").click()
    shown.wait_for("done", 2)
    assert api.fields[1] == {"model": "realesrgan-x2plus", "scale": "2", "strength": "0.8", "format": "png"}


def test_a_number_out_of_range_is_pointed_at_and_nothing_is_sent(shown: Shown, api: FakeApi) -> None:
    shown.tab.get_by_label("Size", exact=True).select_option("scale")
    shown.tab.get_by_label("Factor").fill("40")
    shown.add("a.png")
    assert shown.tab.evaluate("document.activeElement.id") == "amount"
    assert api.fields == []


def test_cancel_while_it_runs_or_waits(shown: Shown, api: FakeApi) -> None:
    api.hold = True
    shown.add("a.png", "b.png", "c.png")
    shown.wait_for("running")
    shown.wait_for("queued", 2)
    shown.tab.get_by_role("button", name="Cancel b.png").click()
    shown.wait_for("cancelled")
    shown.tab.get_by_role("button", name="Cancel all").click()
    shown.wait_for("cancelled", 3)
    assert {job["state"] for job in api.jobs.values()} == {"cancelled"}
    shown.tab.get_by_role("button", name="Remove a.png from the list").click()
    shown.wait_until("document.querySelectorAll('.file').length === 2")


def test_a_full_queue_is_waited_for(shown: Shown, api: FakeApi) -> None:
    api.queue_length, api.hold = 1, True
    shown.add("a.png", "b.png", "c.png", "d.png")
    shown.wait_for("waiting", 2)
    assert shown.line("d.png") in ("Waits until the queue has a place", "Waits to be sent")
    api.hold = False
    shown.wait_for("done", 4)
    shown.faults[:] = [fault for fault in shown.faults if "503" not in fault]  # the browser writes refusals down


def test_errors_are_shown_in_the_server_s_words(shown: Shown) -> None:
    shown.tab.set_input_files("#files", [upload("broken.png"), upload("text.png", b"no image")])
    shown.wait_for("failed", 2)
    assert shown.line("broken.png").startswith("The file ends after 61 of its 480 rows")
    assert shown.line("text.png").startswith("Got a file that is no image, expected JPEG")
    shown.tab.get_by_role("button", name="Failed 2").click()
    assert shown.tab.locator(".file:visible").count() == 2
    shown.faults[:] = [fault for fault in shown.faults if "422" not in fault]


def test_a_file_over_the_limit_is_not_sent(shown: Shown, api: FakeApi) -> None:
    api.upload_bytes = 20_000
    shown.open()
    shown.tab.set_input_files("#files", [upload("small.png"), upload("large.png", bytes(30_000))])
    shown.wait_for("done")
    message = "large.png has 30 kB, and this server takes at most 20 kB"
    assert message in shown.tab.locator("#messages").inner_text()
    assert len(api.fields) == 1


def test_a_network_that_is_fetched_shows_its_progress(shown: Shown, api: FakeApi) -> None:
    api.seconds = 1.5
    shown.add("fetch.png")
    shown.wait_until("document.querySelector('.line')?.textContent.includes('Fetching')")
    assert "of 67.0 MB" in shown.line("fetch.png")
    shown.wait_for("done")


def test_a_reload_in_the_middle_of_a_job_shows_it_again(shown: Shown, api: FakeApi) -> None:
    api.hold = True
    shown.add("a.png", "b.png")
    shown.wait_for("running")
    shown.wait_for("queued")
    shown.open()
    shown.wait_for("running")
    shown.wait_for("queued")
    assert shown.tab.locator(".open").all_inner_texts() == ["a.png", "b.png"]
    api.hold = False
    shown.wait_for("done", 2)


def test_a_result_that_the_server_no_longer_keeps_is_marked(shown: Shown, api: FakeApi) -> None:
    shown.add("a.png")
    shown.show_result()
    tiles_asked_for(shown, api)
    api.jobs.clear()
    shown.tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    shown.wait_for("gone")
    assert shown.line("a.png") == "The server no longer keeps it"


def test_the_divider_follows_the_mouse_and_the_keyboard(shown: Shown) -> None:
    shown.add("a.png")
    shown.show_result()
    assert shown.divider == pytest.approx(50)
    box = shown.tab.locator("#stage").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    shown.tab.mouse.move(x, y)
    shown.tab.mouse.down()
    shown.tab.mouse.move(x - 90, y, steps=3)
    shown.tab.mouse.up()
    assert shown.divider == pytest.approx(25, abs=1)  # the photo is 360 px wide
    slider = shown.tab.get_by_role("slider", name="Divider between before and after")
    slider.press("End")
    assert shown.divider == pytest.approx(100)
    slider.press("ArrowLeft")
    assert shown.divider == pytest.approx(99.5)
    slider.press("Home")
    shown.tab.locator("#stage").press("ArrowRight")
    assert shown.divider == pytest.approx(2)


def test_both_halves_are_in_step_at_100_percent_with_tiles_on_demand(shown: Shown, api: FakeApi) -> None:
    shown.tab.set_input_files("#files", [upload("large.png", png(800, 600))])
    shown.show_result()
    shown.tab.wait_for_timeout(200)
    assert api.tiles == []  # the preview is enough
    shown.tab.get_by_role("button", name="100 %").click()
    assert shown.view[0] == 1
    assert shown.tab.locator("#zoom-value").inner_text() == "100 %"
    first = tiles_asked_for(shown, api)
    sides = [{tile.partition(f"/{side}/")[2] for tile in first if f"/{side}/" in tile} for side in ("source", "result")]
    assert sides[0] == sides[1] != set()
    assert len(sides[0]) < 7 * 5  # of all that there are at 3200 x 2400 px
    _, x, y = shown.view
    box = shown.tab.locator("#stage").bounding_box()
    shown.tab.mouse.move(box["x"] + 300, box["y"] + 300)
    shown.tab.mouse.down()
    shown.tab.mouse.move(box["x"] + 200, box["y"] + 250, steps=3)
    shown.tab.mouse.up()
    assert shown.view == [1, pytest.approx(x - 100, abs=1), pytest.approx(y - 50, abs=1)]
    for _ in range(6):
        shown.tab.locator("#stage").press("ArrowRight")
    assert shown.view[1] < x - 500
    assert tiles_asked_for(shown, api) > first
    assert shown.divider == pytest.approx(50)
    shown.tab.locator("#stage").press("0")
    assert shown.view[0] < 1


def test_the_halves_show_the_same_place(shown: Shown, api: FakeApi) -> None:
    api.enlarge = lambda image, scale: image.resize((image.width * 4, image.height * 4), Image.Resampling.LANCZOS)
    shown.tab.set_input_files("#files", [upload("large.png", png(700, 500))])
    shown.show_result()
    shown.tab.get_by_role("button", name="100 %").click()
    for _ in range(3):
        shown.tab.locator("#stage").press("ArrowDown")
    tiles_asked_for(shown, api)
    difference = """() => {
        const [before, after] = ['before', 'after'].map(id => {
            const canvas = document.getElementById(id);
            return canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        });
        let sum = 0;
        for (let i = 0; i < before.length; i += 1) sum += Math.abs(before[i] - after[i]);
        return sum / before.length;
    }"""
    assert shown.tab.evaluate(difference) < 0.5


def test_the_wheel_zooms_where_it_is(shown: Shown) -> None:
    shown.tab.set_input_files("#files", [upload("large.png", png(800, 600))])
    shown.show_result()
    scale, _, y = shown.view
    box = shown.tab.locator("#stage").bounding_box()
    shown.tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + 100)
    shown.tab.mouse.wheel(0, -240)
    shown.wait_until(f"document.getElementById('stage').dataset.scale > {1.9 * scale}")
    assert shown.view[0] == pytest.approx(2 * scale)
    assert (100 - shown.view[2]) / shown.view[0] == pytest.approx((100 - y) / scale, abs=2)


def test_results_are_saved_one_by_one_and_as_a_zip(shown: Shown) -> None:
    shown.add("a.png", "b.png")
    shown.wait_for("done", 2)
    with shown.tab.expect_download() as one:
        shown.tab.locator("#save").click()
    assert one.value.suggested_filename == "a_x4.png"
    with Image.open(one.value.path()) as image:
        assert image.size == (360, 240)
    with shown.tab.expect_download() as both:
        shown.tab.get_by_role("link", name="Save 2 as ZIP").click()
    with zipfile.ZipFile(both.value.path()) as archive:
        assert archive.namelist() == ["a_x4.png", "b_x4.png"]


def test_the_list_is_cleared_after_a_question(shown: Shown, api: FakeApi) -> None:
    shown.add("a.png", "b.png")
    shown.wait_for("done", 2)
    asked: list[str] = []

    def dismiss(dialog: Any) -> None:
        asked.append(dialog.message)
        dialog.dismiss()

    shown.tab.once("dialog", dismiss)
    shown.tab.get_by_role("button", name="Clear the list").click()
    assert asked == ["Remove 2 photos from the list? The results of 2 are deleted from the server."]
    assert len(api.jobs) == 2
    shown.tab.once("dialog", lambda dialog: dialog.accept())
    shown.tab.get_by_role("button", name="Clear the list").click()
    shown.tab.wait_for_selector("main.empty")
    assert api.jobs == {}


def test_every_control_has_a_name_and_the_focus_follows_the_page(shown: Shown) -> None:
    shown.add("a.png")
    shown.show_result()
    shown.tab.evaluate("document.activeElement.blur()")
    names = []
    for _ in range(18):
        shown.tab.keyboard.press("Tab")
        names.append(shown.tab.evaluate("document.activeElement.id || document.activeElement.className || 'summary'"))
    assert names[:7] == ["summary", "choose", "choose-folder", "skip", "open", "button icon save", "icon stop"]
    assert names[7:] == [
        *("previous", "next", "again", "save", "stage", "divider", "out", "in", "fit", "full"),
        names[-1],
    ]
    nameless = """[...document.querySelectorAll('button, a, input, select, progress')]
        .filter(one => one.checkVisibility())
        .filter(one => !(one.ariaLabel || one.getAttribute('aria-label') || one.labels?.length || one.innerText.trim()))
        .map(one => one.outerHTML)"""
    assert shown.tab.evaluate(nameless) == []


def test_the_arrow_keys_go_through_the_list_and_page_keys_through_the_photos(shown: Shown) -> None:
    shown.add("a.png", "b.png", "c.png")
    shown.wait_for("done", 3)
    shown.tab.locator(".open").first.press("ArrowDown")
    assert shown.tab.evaluate("document.activeElement.textContent") == "b.png"
    shown.tab.keyboard.press("Enter")
    assert shown.tab.locator("#viewer-title").inner_text() == "b.png"
    shown.tab.locator("#stage").press("PageDown")
    assert shown.tab.locator("#viewer-title").inner_text() == "c.png"
    assert shown.tab.locator("[aria-current]").inner_text() == "c.png"
    assert shown.tab.locator("#next").get_attribute("aria-disabled") == "true"


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(width: int, browser: Any, server: tuple[FakeApi, str], api: FakeApi) -> None:
    shown = opened(browser, server[1], width)
    fits = "document.documentElement.scrollWidth <= innerWidth"
    outside = """[...document.body.querySelectorAll('*')].filter(one => one.checkVisibility())
        .filter(one => one.getBoundingClientRect().right > innerWidth + 0.5).map(one => one.id || one.className)"""
    assert shown.tab.evaluate(fits)
    shown.add("broken-" + "a-very-long-name-" * 9 + ".png", *(f"{number}.png" for number in range(5)))
    shown.wait_for("done", 5)
    assert shown.tab.evaluate(fits)
    assert shown.tab.evaluate(outside) == []
    shown.tab.locator(".open").nth(1).click()
    shown.show_result()
    assert shown.tab.evaluate(fits)
    assert shown.tab.evaluate(outside) == []
    if width < 992:
        shown.tab.go_back()
        assert shown.tab.locator("#viewer").is_hidden()
        assert shown.tab.evaluate("document.activeElement.textContent") == "0.png"
    assert shown.faults == []
    shown.tab.context.close()


def test_two_fingers_zoom_on_a_telephone(browser: Any, server: tuple[FakeApi, str], api: FakeApi) -> None:
    shown = opened(browser, server[1], 390)
    shown.tab.set_input_files("#files", [upload("large.png", png(800, 600))])
    shown.wait_for("done")
    shown.tab.locator(".open").click()
    shown.show_result()
    scale = shown.view[0]
    box = shown.tab.locator("#stage").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    session = shown.tab.context.new_cdp_session(shown.tab)
    for kind, apart in (("Start", 60), ("Move", 80), ("Move", 100), ("Move", 120), ("End", 0)):
        points = [{"x": middle[0] + side * apart / 2, "y": middle[1], "id": side + 1} for side in (-1, 1)]
        session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points if apart else []})
    assert shown.view[0] == pytest.approx(2 * scale, rel=0.1)
    assert shown.divider == pytest.approx(50)
    shown.tab.context.close()


def test_the_page_is_dark_where_the_system_is_and_still_where_motion_is_not_wanted(shown: Shown, api: FakeApi) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light = shown.tab.evaluate(colour)
    shown.tab.emulate_media(color_scheme="dark", reduced_motion="reduce")
    assert shown.tab.evaluate(colour) != light
    api.hold = True
    shown.add("a.png")
    shown.wait_for("running")
    assert shown.tab.evaluate("getComputedStyle(document.getElementById('state-progress')).animationName") == "none"


def test_two_hundred_files_are_listed_and_sent_in_their_order(shown: Shown, api: FakeApi) -> None:
    api.hold, api.queue_length = True, 500
    shown.add(*(f"{number:03}.png" for number in range(200)))
    shown.wait_until("document.querySelectorAll('.file').length === 200")
    shown.wait_for("waiting", 0)
    shown.wait_for("uploading", 0)
    assert shown.tab.locator("#count").inner_text() == "200 photos"
    names = [job["name"] for job in api.jobs.values()]
    assert all(abs(int(name[:3]) - place) <= 2 for place, name in enumerate(names))  # two at a time


def test_a_server_that_does_not_answer_is_told(shown: Shown) -> None:
    shown.tab.route("**/api/jobs", lambda route: route.abort())
    shown.tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    shown.wait_until("document.getElementById('banner').textContent.startsWith('The server does not answer')")
    shown.tab.unroute("**/api/jobs")
    shown.tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    shown.tab.wait_for_selector("#banner", state="hidden")
    shown.faults[:] = [fault for fault in shown.faults if "ERR_FAILED" not in fault]
