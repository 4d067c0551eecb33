"""The page of `realesr serve` in a real browser, in states that a real server is not easily brought into."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageColor

from tests.browser import NEEDS_CHROMIUM, chromium

from .fake_api import FakeApi, served
from .shown_page import WIDE, WIDTHS, Shown, plain, png, upload

pytestmark = NEEDS_CHROMIUM

AA_OF_WORDS, AA_OF_CONTROLS = 4.5, 3.0
"""Least contrasts by WCAG 2.2, 1.4.3 and 1.4.11."""


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
    picture = re.search(r"404 \(Not Found\) .*/api/jobs/([^/]+)/(?:thumbnail|source|preview|tiles/.*)$", fault)
    return picture is not None and picture[1] not in api.jobs


@pytest.fixture
def shown(browser: Any, server: tuple[FakeApi, str], api: FakeApi) -> Iterator[Shown]:
    shown = opened(browser, server[1])
    yield shown
    shown.tab.context.close()
    assert [fault for fault in shown.faults if not is_about_a_deleted_job(fault, api)] == []
    assert shown.foreign_requests == []


def test_the_time_left_and_the_pixels_are_shown(shown: Shown, api: FakeApi) -> None:
    api.seconds, api.hold = 0.5, True
    shown.add("a.png")
    shown.wait_until("document.querySelector('.line')?.textContent.startsWith('2,700')")
    assert shown.line("a.png") == "2,700 of 5,400 px, less than 1 s left"
    assert plain(shown.tab.locator("#state-text").inner_text()) == shown.line("a.png")


def test_settings_become_fields_and_are_kept(shown: Shown, api: FakeApi) -> None:
    tab = shown.tab
    tab.get_by_label("Network").select_option("realesrgan-x2plus")
    assert "Fetched when first used (67.1 MB)" in plain(tab.locator("#purpose").inner_text())
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
    shown.tab.wait_for_selector("#messages p")
    assert shown.messages.startswith("1 photo was not added: correct the settings, and add them again")
    assert shown.tab.evaluate("document.activeElement.id") == "amount"
    assert api.fields == []


def test_photos_that_come_before_the_networks_are_known_wait_for_them(shown: Shown, api: FakeApi) -> None:
    api.models_seconds = 1
    shown.tab.goto(shown.address)
    shown.add("early.png")
    assert shown.tab.locator("#model option").count() == 0
    shown.wait_for("done")
    assert api.fields[0]["model"] == "realesr-general-x4v3"


@pytest.mark.parametrize(
    "kept", ["7", "null", '{"amounts": null, "quality": 3, "size": "huge", "model": {}}', "no JSON"]
)
def test_settings_that_another_version_kept_do_no_harm(kept: str, shown: Shown, api: FakeApi) -> None:
    shown.tab.evaluate("kept => localStorage.setItem('realesr.settings', kept)", kept)
    shown.open()
    shown.tab.get_by_label("Size", exact=True).select_option("long_side")
    shown.add("a.png")
    shown.wait_for("done")
    assert api.fields == [{"model": "realesr-general-x4v3", "long_side": "3840"}]


def test_a_full_queue_is_waited_for(shown: Shown, api: FakeApi) -> None:
    api.queue_length, api.hold = 1, True
    shown.add("a.png", "b.png", "c.png", "d.png")
    shown.wait_for("waiting", 2)
    lines = [plain(line) for line in shown.tab.locator(".line").all_inner_texts()]
    assert "Waits to be sent: the queue is full: 1 wait" in lines
    api.hold = False
    shown.wait_for("done", 4)
    shown.faults[:] = [fault for fault in shown.faults if "503" not in fault]  # the browser writes refusals down


def test_a_network_that_is_fetched_shows_its_progress(shown: Shown, api: FakeApi) -> None:
    api.seconds = 1.5
    shown.tab.get_by_label("Network").select_option("realesrgan-x2plus")
    shown.add("fetch.png")
    shown.wait_until("document.querySelector('.line')?.textContent.includes('Fetching')")
    assert "of 67.0 MB" in shown.line("fetch.png")
    assert "Fetched when first used" in shown.tab.locator("#purpose").text_content()
    shown.wait_for("done")
    assert "On disk" in shown.tab.locator("#purpose").text_content()
    assert shown.tab.get_by_label("Network").input_value() == "realesrgan-x2plus"


def test_a_photo_that_is_cancelled_once_it_is_sent_does_not_come_back(shown: Shown, api: FakeApi) -> None:
    api.answer_seconds, api.hold = 1, True
    shown.add("a.png")
    shown.wait_until("document.querySelector('.file > progress')?.value === 1")
    shown.tab.locator(".stop").click()
    shown.wait_for("cancelled")
    while not api.fields:
        shown.tab.wait_for_timeout(20)
    shown.tab.wait_for_timeout(300)
    shown.tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    shown.tab.wait_for_timeout(300)
    assert api.jobs == {}
    assert [shown.line("a.png"), shown.tab.locator(".file").count()] == ["Cancelled", 1]


def test_a_result_that_the_server_no_longer_keeps_is_marked(shown: Shown, api: FakeApi) -> None:
    shown.add("a.png")
    shown.show_result()
    tiles_asked_for(shown, api)
    api.jobs.clear()
    shown.tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    shown.wait_for("gone")
    assert shown.line("a.png") == "The server no longer keeps it"


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


@pytest.mark.parametrize("width", [360, 390, 1440, 3840])
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


def test_nothing_moves_while_photos_are_worked_on(browser: Any, server: tuple[FakeApi, str], api: FakeApi) -> None:
    shown = opened(browser, server[1], 360)
    shown.add(*(f"{number}.png" for number in range(12)))
    shown.wait_until("document.querySelectorAll('.file').length === 12")
    shown.tab.evaluate("""() => {
        window.moved = [];
        new PerformanceObserver((list) => {
            for (const entry of list.getEntries()) {
                moved.push(...entry.sources.map(({ node }) => node?.id || node?.className || node?.nodeName));
            }
        }).observe({ type: "layout-shift" });
    }""")
    shown.wait_for("done", 12)
    shown.settle()
    assert [name for name in shown.tab.evaluate("moved") if name != "actions"] == []  # they grow; the cross stays
    shown.tab.context.close()


def test_fingers_find_every_control_of_a_telephone(browser: Any, server: tuple[FakeApi, str], api: FakeApi) -> None:
    shown = opened(browser, server[1], 360)
    small = """[...document.querySelectorAll('button, a, select, input, summary')]
        .filter(one => one.checkVisibility() && !one.matches('.open, .filters button, .skip, [type=range]'))
        .map(one => [one.id || one.className || one.localName, one.getBoundingClientRect()])
        .filter(([, box]) => box.width < 44 || box.height < 43.5).map(([name]) => name)"""
    shown.add("a.png", "b.png")
    shown.wait_for("done", 2)
    assert shown.tab.evaluate(small) == []
    shown.tab.locator(".open").first.click()
    shown.show_result()
    assert shown.tab.evaluate(small) == []
    shown.tab.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(scheme: str, shown: Shown) -> None:
    shown.tab.emulate_media(color_scheme=scheme)
    colours = shown.tab.evaluate(
        "names => Object.fromEntries(names.map(name =>"
        " [name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`)]))",
        ["paper", "card", "tint", "mat", "ink", "faint", "accent", "on-accent", "bad", "bad-tint", "field-line"],
    )
    pairs = [(word, behind) for word in ("ink", "faint", "accent", "bad") for behind in ("paper", "card", "tint")]
    pairs += [("on-accent", "accent"), ("bad", "bad-tint")]
    low = [pair for pair in pairs if contrast(colours, *pair) < AA_OF_WORDS]
    assert low == []
    assert contrast(colours, "field-line", "card") >= AA_OF_CONTROLS


def contrast(colours: dict[str, str], *names: str) -> float:
    """The contrast of two colours; source: WCAG 2.2, "contrast ratio" and "relative luminance"."""
    lights = []
    for name in names:
        channels = [value / 255 for value in ImageColor.getrgb(colours[name])]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280, 3840])
def test_pictures_of_the_page(
    width: int, scheme: Any, browser: Any, server: tuple[FakeApi, str], api: FakeApi, tmp_path: Path
) -> None:
    shown = opened(browser, server[1], width, color_scheme=scheme)
    name = f"page-{width}-{scheme}"
    shown.picture(tmp_path, f"{name}-0")
    shown.tab.set_input_files("#files", [upload("photo.png", png(480, 320))])
    shown.wait_for("done")
    shown.picture(tmp_path, f"{name}-1")
    shown.tab.locator(".open").click()
    shown.show_result()
    shown.picture(tmp_path, f"{name}-viewer")
    if width == 360:
        shown.tab.go_back()
    shown.add("broken.png", *(f"{number:02}.png" for number in range(10)))
    shown.wait_for("failed")
    shown.picture(tmp_path, f"{name}-12")
    shown.tab.locator(".open").nth(1).click()
    shown.picture(tmp_path, f"{name}-error")
    api.queue_length = 500
    if width == 360:
        shown.tab.go_back()
    shown.add(*(f"{number:03}.png" for number in range(188)))
    shown.wait_until("document.querySelectorAll('.file').length === 200")
    shown.picture(tmp_path, f"{name}-200")
    shown.tab.context.close()
