"""The page of `realesr compare` in a real browser: Debian's Chromium without a window, driven by Playwright."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import realesr
from realesr.cli.comparing.page import LANCZOS, page
from tests.browser import NEEDS_CHROMIUM, chromium
from tests.images.image_files import photo

pytestmark = NEEDS_CHROMIUM

WIDTHS = {1440: 900, 390: 844}
NAMES = ["realesrgan-x4plus", "realesrgan-x2plus", "realesr-general-x4v3"]
DIVIDER = "parseFloat(getComputedStyle(document.getElementById('right-layer')).clipPath.split(' ').pop())"
TRANSFORM = "new DOMMatrix(document.getElementById('left-image').style.transform)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a photo of 90 x 60 px, one network of which has a name that is wider than a telephone."""
    folder = tmp_path_factory.mktemp("page")
    Image.fromarray(photo(60, 90)).save(folder / "photo.png")
    comparison = realesr.compare(folder / "photo.png", NAMES, (0, 0, 80, 60), engine="nearest")
    object.__setattr__(comparison.networks[2], "name", "networks/" + "a-very-long-name-" * 9 + ".safetensors")
    target = folder / "photo_compare.html"
    target.write_text(page(comparison, ["esrgan-x4"]), encoding="utf-8")
    return target


class Shown:
    """The open page, with what went wrong on it and what it asked for."""

    def __init__(self, tab: Any) -> None:
        self.tab = tab
        self.faults: list[str] = []
        self.requests: list[str] = []
        tab.on("console", lambda message: self.faults.append(message.text))
        tab.on("pageerror", lambda error: self.faults.append(str(error)))
        tab.on("request", lambda request: self.requests.append(request.url))

    @property
    def divider(self) -> float:
        """Where the right picture begins, in percent, as the browser draws it."""
        return float(self.tab.evaluate(DIVIDER))

    @property
    def zoom(self) -> float:
        return float(self.tab.evaluate(f"{TRANSFORM}.a"))

    @property
    def offset(self) -> tuple[float, float]:
        """Where the pictures' upper left corner is drawn, in px from the stage's."""
        x, y = self.tab.evaluate(f"(matrix => [matrix.e, matrix.f])({TRANSFORM})")
        return x, y

    def box(self, selector: str) -> tuple[float, float, float, float]:
        box = self.tab.locator(selector).bounding_box()
        return box["x"], box["y"], box["width"], box["height"]


@pytest.fixture(params=WIDTHS)
def shown(request: pytest.FixtureRequest, browser: Any, file: Path) -> Iterator[Shown]:
    width = request.param
    context = browser.new_context(viewport={"width": width, "height": WIDTHS[width]}, has_touch=True, offline=True)
    shown = Shown(context.new_page())
    shown.tab.goto(file.as_uri())
    yield shown
    context.close()


def test_both_pictures_show_and_nothing_goes_wrong(shown: Shown, file: Path) -> None:
    sizes = shown.tab.evaluate("[...document.images].map(image => [image.naturalWidth, image.naturalHeight])")
    assert sizes == [[320, 240], [320, 240], [320, 240], [320, 240], [160, 120], [320, 240]]
    assert shown.tab.evaluate("[...document.querySelectorAll('.layer img')].map(image => image.alt)") == [
        LANCZOS,
        NAMES[0],
    ]
    assert shown.box("#left-image") == shown.box("#right-image")
    assert shown.faults == []
    assert [url for url in shown.requests if not url.startswith("data:")] == [file.as_uri()]


def test_nothing_is_wider_than_the_window(shown: Shown) -> None:
    width = shown.tab.viewport_size["width"]
    assert shown.tab.evaluate("document.documentElement.scrollWidth") <= width
    rights = "[...document.body.querySelectorAll('*')].map(element => element.getBoundingClientRect().right)"
    assert max(shown.tab.evaluate(rights)) <= width


@pytest.mark.parametrize("size_px", [(1, 80), (80, 1)])
def test_a_photo_of_a_line_of_pixels_can_be_compared(browser: Any, tmp_path: Path, size_px: tuple[int, int]) -> None:
    Image.fromarray(photo(80, 80)).resize(size_px).save(tmp_path / "line.png")
    target = tmp_path / "line.html"
    target.write_text(page(realesr.compare(tmp_path / "line.png", NAMES, engine="nearest")), encoding="utf-8")
    shown = Shown(browser.new_page(viewport={"width": 390, "height": 844}))
    shown.tab.goto(target.as_uri())
    _, _, width, height = shown.box("#stage")
    assert width >= 90 and 30 <= height <= 844
    assert shown.tab.evaluate("getComputedStyle(document.getElementById('left-image')).objectFit") == "contain"
    shown.tab.close()


def test_the_line_follows_the_mouse(shown: Shown) -> None:
    x, y, width, height = shown.box("#stage")
    assert shown.divider == 50
    shown.tab.mouse.move(x + width / 2, y + height / 3)
    shown.tab.mouse.down()
    shown.tab.mouse.move(x + width / 4, y + height / 3, steps=3)
    shown.tab.mouse.up()
    assert shown.divider == pytest.approx(25, abs=1)
    shown.tab.mouse.move(x + width / 2, y + height / 3)
    assert shown.divider == pytest.approx(25, abs=1)
    assert shown.tab.get_by_role("slider").input_value() == "25"


def test_the_line_is_a_slider_for_the_keyboard(shown: Shown) -> None:
    slider = shown.tab.get_by_role("slider", name="Divider between the left and the right picture")
    slider.focus()
    slider.press("ArrowRight")
    assert shown.divider == 50.5
    slider.press("Home")
    assert shown.divider == 0
    slider.press("End")
    assert shown.divider == 100
    assert shown.zoom == 1


def test_every_control_has_a_name_and_is_reached_by_the_tab_key(shown: Shown) -> None:
    focused = "document.activeElement.id || document.activeElement.textContent"
    names = []
    for _ in range(13):
        shown.tab.keyboard.press("Tab")
        names.append(shown.tab.evaluate(focused))
    assert names == ["left", "swap", "right", "stage", "divider", "out", "1x", "2x", "4x", "8x", "in", "Left", "Right"]
    assert shown.tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for role, name in (("combobox", "Left"), ("combobox", "Right"), ("button", "Swap left and right")):
        assert shown.tab.get_by_role(role, name=name, exact=True).count() == 1


def test_any_two_can_be_chosen_and_swapped(shown: Shown) -> None:
    left, right = (shown.tab.get_by_role("combobox", name=name, exact=True) for name in ("Left", "Right"))
    left.select_option(label=NAMES[1])
    assert shown.tab.evaluate("document.getElementById('left-image').naturalWidth") == 160
    assert shown.tab.locator("#left-name").inner_text() == NAMES[1]
    shown.tab.get_by_role("button", name="Swap left and right").click()
    assert (left.input_value(), right.input_value()) == ("1", "2")
    shown.tab.get_by_role("button", name=f"Show {LANCZOS} on the right").click()
    assert right.input_value() == "0"
    assert shown.tab.get_by_role("button", name=f"Show {LANCZOS} on the right").get_attribute("aria-pressed") == "true"
    assert shown.box("#left-image") == shown.box("#right-image")


def test_zoom_by_buttons_and_keys(shown: Shown) -> None:
    shown.tab.get_by_role("button", name="4x").click()
    assert shown.zoom == 4
    assert shown.tab.get_by_role("button", name="4x").get_attribute("aria-pressed") == "true"
    stage = shown.tab.locator("#stage")
    stage.press("-")
    assert shown.zoom == pytest.approx(4 / 2**0.5)
    stage.press("+")
    before = shown.offset
    stage.press("ArrowRight")
    stage.press("ArrowDown")
    assert shown.offset < before
    assert shown.box("#left-image") == shown.box("#right-image")
    for _ in range(40):
        stage.press("ArrowLeft")
    assert shown.offset[0] == 0  # never beyond the picture's edge
    stage.press("0")
    assert (shown.zoom, shown.offset) == (1, (0, 0))
    stage.press("ArrowRight")
    assert shown.divider == 52


def test_the_wheel_zooms_where_it_is_and_the_mouse_then_moves_the_picture(shown: Shown) -> None:
    x, y, width, height = shown.box("#stage")
    shown.tab.mouse.move(x + width / 4, y + height / 4)
    shown.tab.mouse.wheel(0, -240)
    shown.tab.wait_for_function(f"{TRANSFORM}.a > 1.9")
    assert shown.zoom == pytest.approx(2)
    assert shown.offset == pytest.approx((-width / 4, -height / 4), abs=1)
    shown.tab.mouse.down()
    shown.tab.mouse.move(x + width / 4 - 20, y + height / 4 + 10, steps=2)
    shown.tab.mouse.up()
    assert shown.offset == pytest.approx((-width / 4 - 20, -height / 4 + 10), abs=1)
    assert shown.divider == 50


def test_two_fingers_zoom(shown: Shown) -> None:
    x, y, width, height = shown.box("#stage")
    session = shown.tab.context.new_cdp_session(shown.tab)
    middle = (x + width / 2, y + height / 2)

    def touch(kind: str, apart: float) -> None:
        points = [{"x": middle[0] + side * apart / 2, "y": middle[1], "id": side + 1} for side in (-1, 1)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points if apart else []})

    touch("touchStart", 60)
    for apart in (80, 100, 120):
        touch("touchMove", apart)
    touch("touchEnd", 0)
    assert shown.zoom == pytest.approx(2, rel=0.1)
    assert shown.divider == 50


def test_the_policy_forbids_what_is_not_in_the_page(shown: Shown) -> None:
    blocked = shown.tab.evaluate(
        """() => new Promise(resolve => {
            addEventListener('securitypolicyviolation', event => resolve(event.effectiveDirective));
            new Image().src = 'http://192.0.2.1/picture.png';
        })"""
    )
    assert blocked == "img-src"


def test_the_page_is_dark_where_the_system_is(shown: Shown) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light = shown.tab.evaluate(colour)
    shown.tab.emulate_media(color_scheme="dark")
    assert shown.tab.evaluate(colour) != light


def test_without_scripts_the_table_still_has_every_picture(browser: Any, file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(file.as_uri())
    assert tab.locator("td.picture img").count() == 4
    assert tab.get_by_role("rowheader").count() == 4
    context.close()
