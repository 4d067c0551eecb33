import doctest
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import realesr
from realesr import api
from realesr.engine import Engine, NearestEngine
from realesr.engines import ChosenEngine, ModelFacts
from realesr.errors import EngineError, InputError, OutputError, OutputExists, UsageError
from realesr.options import FileOptions, ImageOptions, NetworkOptions
from tests.runtime.fakes import FaultyEngine


def opens(engine: Engine) -> Callable[..., ChosenEngine]:
    """Return what stands for `open_chosen_engine` and gives this engine."""
    return lambda *_, **__: ChosenEngine(engine=engine)


@pytest.fixture
def upscaler() -> Any:
    with realesr.Upscaler(engine="nearest", tile_px=64, overlap_px=8) as opened:
        yield opened


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def pixels_of(path: Path) -> NDArray[Any]:
    with Image.open(path) as image:
        return np.asarray(image)


def test_the_examples_in_the_documentation_run() -> None:
    results = doctest.testmod(api)
    assert results.attempted > 4
    assert results.failed == 0


def test_a_file_comes_out_as_the_same_image_in_memory_does(upscaler: realesr.Upscaler, photo: Path) -> None:
    result = upscaler.upscale_file(photo)
    assert result.target == photo.with_name("photo_x4.png")
    assert (result.input_px, result.output_px) == ((130, 90), (520, 360))
    assert (result.engine, result.precision, result.passes, result.tile_px) == ("nearest", "fp32", 1, 64)
    assert result.seconds > 0
    assert result.peak_bytes > 10e6
    np.testing.assert_array_equal(pixels_of(result.target), upscaler.upscale(pixels_of(photo)))


def test_options_of_the_engine_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def opened(model: Any, **asked: Any) -> ChosenEngine:
        given.append(asked["options"])
        return ChosenEngine(engine=NearestEngine(2))

    facts = ModelFacts(name="n", scale=2, radius_px=3, multiple_of=1, architecture=None)
    monkeypatch.setattr(api, "_load_model", lambda *_: (object(), facts))
    monkeypatch.setattr("realesr.engines.open_chosen_engine", opened)
    with realesr.Upscaler(engine="torch", options={"mode": "graphs"}) as upscaler:
        assert upscaler.options.options == {"mode": "graphs"}
    realesr.upscale(np.zeros((8, 8, 3), np.uint8), engine="torch", options={"mode": "eager"})
    realesr.upscale(np.zeros((8, 8, 3), np.uint8), engine="torch")
    assert given == [{"mode": "graphs"}, {"mode": "eager"}, {}]


def test_an_upscaler_can_be_opened_from_options() -> None:
    options = NetworkOptions(engine="nearest", tile_px=32)
    with realesr.Upscaler.from_options(options) as upscaler:
        assert upscaler.options == replace(options, model="realesrgan-x4plus")
        assert upscaler.upscale(np.zeros((8, 6, 3), np.uint8)).shape == (32, 24, 3)


def test_the_engine_without_a_network_has_no_options() -> None:
    with pytest.raises(UsageError, match="engine nearest got the option mode, but it has no options"):
        realesr.Upscaler(engine="nearest", options={"mode": "graphs"})


@pytest.mark.parametrize(("scale", "name"), [(2.5, "photo_x2.5.png"), (1, "photo_x1.png"), (16, "photo_x16.png")])
def test_default_names_carry_the_scale(upscaler: realesr.Upscaler, photo: Path, scale: float, name: str) -> None:
    result = upscaler.upscale_file(photo, image=ImageOptions(scale=scale))
    assert result.target.name == name
    assert pixels_of(result.target).shape == (round(90 * scale), round(130 * scale), 3)


def test_progress_goes_from_nothing_to_all(upscaler: realesr.Upscaler, photo: Path) -> None:
    seen: list[tuple[int, int]] = []
    upscaler.upscale_file(photo, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 130 * 90)
    assert seen[-1] == (130 * 90, 130 * 90)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_an_output_that_exists_is_kept_unless_overwriting_was_asked_for(
    upscaler: realesr.Upscaler, photo: Path
) -> None:
    target = photo.with_name("there.png")
    target.write_bytes(b"mine")
    with pytest.raises(OutputExists, match=r"there\.png is there already") as caught:
        upscaler.upscale_file(photo, target)
    assert caught.value.option == "overwrite"
    assert target.read_bytes() == b"mine"
    upscaler.upscale_file(photo, target, file=FileOptions(overwrite=True))
    assert pixels_of(target).shape == (360, 520, 3)


def test_the_input_is_never_replaced(upscaler: realesr.Upscaler, photo: Path) -> None:
    before = photo.read_bytes()
    with pytest.raises(OutputError, match="would replace the input"):
        upscaler.upscale_file(photo, photo, file=FileOptions(overwrite=True))
    assert photo.read_bytes() == before


def test_sixteen_bits_stay_sixteen_bits(upscaler: realesr.Upscaler, tmp_path: Path) -> None:
    dark = np.random.default_rng(0).integers(0, 200, (20, 30), np.uint16)  # a look at the values would say 8 bits
    Image.fromarray(dark).save(tmp_path / "dark.png")
    result = upscaler.upscale_file(tmp_path / "dark.png")
    enlarged = pixels_of(result.target)
    assert np.abs(enlarged.astype(int) - dark.repeat(4, 0).repeat(4, 1).astype(int)).max() <= 1
    assert enlarged.max() > 100


def test_an_opaque_alpha_channel_is_left_out_of_a_jpeg_and_a_real_one_refused(
    upscaler: realesr.Upscaler, tmp_path: Path
) -> None:
    source, target = tmp_path / "a.png", tmp_path / "a.jpg"
    Image.new("RGBA", (20, 10), (200, 100, 50, 255)).save(source)
    upscaler.upscale_file(source, target)
    assert pixels_of(target).shape == (40, 80, 3)
    Image.new("RGBA", (20, 10), (200, 100, 50, 128)).save(source)
    with pytest.raises(OutputError, match="png"):
        upscaler.upscale_file(source, target, file=FileOptions(overwrite=True))


def test_a_failure_in_the_middle_leaves_nothing_behind(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(call: int, batch: NDArray[np.float32]) -> Exception | None:
        return RuntimeError("the device is gone") if call == 3 else None

    monkeypatch.setattr("realesr.engines.open_chosen_engine", opens(FaultyEngine(NearestEngine(), fault)))
    before = set(threading.enumerate())  # engine torch keeps a thread for each device
    with realesr.Upscaler(tile_px=32, overlap_px=4) as upscaler, pytest.raises(RuntimeError, match="device is gone"):
        upscaler.upscale_file(photo)
    assert [path.name for path in photo.parent.iterdir()] == ["photo.png"]
    left = set(threading.enumerate()) - before
    assert not [thread.name for thread in left if thread.name.startswith("realesr")]


def test_a_full_disk_ends_the_network_at_its_next_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles: list[int] = []

    def count(call: int, batch: NDArray[np.float32]) -> None:
        time.sleep(0.05)
        tiles.append(call)

    def fail(*_: Any) -> None:
        raise OutputError("no space left")

    Image.new("RGB", (640, 200)).save(tmp_path / "wide.png")
    monkeypatch.setattr(
        "realesr.engines.open_chosen_engine", lambda *_, **__: ChosenEngine(engine=FaultyEngine(NearestEngine(), count))
    )
    monkeypatch.setattr("realesr.images.writer.ImageWriter.write_rows", fail)
    with realesr.Upscaler(tile_px=16, overlap_px=0) as upscaler, pytest.raises(OutputError, match="no space left"):
        upscaler.upscale_file(tmp_path / "wide.png")
    assert 40 <= len(tiles) < 60  # a row has 40


def test_a_truncated_input_leaves_nothing_behind(upscaler: realesr.Upscaler, photo: Path) -> None:
    photo.write_bytes(photo.read_bytes()[:9000])
    with pytest.raises(InputError):
        upscaler.upscale_file(photo)
    assert [path.name for path in photo.parent.iterdir()] == ["photo.png"]


def test_several_devices_enlarge_one_file_and_say_so(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, str]] = []

    def open_fake(*_: Any, engine: str, device: str, **__: Any) -> ChosenEngine:
        fake = NearestEngine()
        fake.spec = replace(fake.spec, name="fake", device=device)
        opened.append((engine, device))
        return ChosenEngine(engine=fake, chosen_because="two GPUs" if engine == "auto" else "")

    monkeypatch.setattr("realesr.engines.open_chosen_engine", open_fake)
    with realesr.Upscaler(device="gpu:0,1", tile_px=16, overlap_px=2) as upscaler:
        result = upscaler.upscale_file(photo)
    assert opened == [("auto", "gpu:0"), ("fake", "gpu:1")], "the second device runs the first one's engine"
    assert (result.engine, result.device, result.chosen_because) == ("fake", "gpu:0, gpu:1", "two GPUs")
    np.testing.assert_array_equal(pixels_of(result.target), pixels_of(photo).repeat(4, 0).repeat(4, 1))


def test_a_device_that_cannot_start_closes_those_that_did(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    class Fake(NearestEngine):
        def close(self) -> None:
            closed.append("closed")

    def open_fake(*_: Any, device: str, **__: Any) -> ChosenEngine:
        if device == "gpu:1":
            raise EngineError("there is no second GPU")
        return ChosenEngine(engine=Fake())

    monkeypatch.setattr("realesr.engines.open_chosen_engine", open_fake)
    with pytest.raises(EngineError, match="no second GPU"):
        realesr.Upscaler(device="gpu:0,1")
    assert closed == ["closed"]


def test_many_threads_share_one_upscaler(upscaler: realesr.Upscaler) -> None:
    images = [np.full((40, 50, 3), level, np.uint8) for level in range(8)]
    results: dict[int, NDArray[np.uint8]] = {}
    threads = [
        threading.Thread(target=lambda i=i: results.update({i: upscaler.upscale(images[i])}))  # type: ignore[misc]
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.all(results[i] == i) for i in range(8))


@pytest.mark.parametrize(("bits", "asked", "opened"), [(8, "auto", "auto"), (16, "auto", "fp32"), (16, "fp16", "fp16")])
def test_sixteen_bits_run_in_float32_unless_asked_otherwise(
    bits: int, asked: str, opened: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    precisions: list[str] = []

    def open_engine(*_: Any, precision: str, **__: Any) -> ChosenEngine:
        precisions.append(precision)
        engine = NearestEngine()
        engine.spec = replace(engine.spec, precision="fp32" if precision == "fp32" else "fp16")
        return ChosenEngine(engine=engine)

    monkeypatch.setattr("realesr.engines.open_chosen_engine", open_engine)
    with realesr.Upscaler(precision=asked) as upscaler:
        upscaler.pool_for(bits=bits)
    assert precisions[-1] == opened


def test_unknown_names_are_refused_when_the_upscaler_is_made() -> None:
    with pytest.raises(UsageError, match="tensorflow"):
        realesr.Upscaler(engine="tensorflow")


def test_a_closed_upscaler_says_that_it_is_closed(photo: Path) -> None:
    closed = realesr.Upscaler(engine="nearest")
    closed.close()
    closed.close()
    with pytest.raises(UsageError, match="this Upscaler is closed"):
        closed.upscale(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UsageError, match="this Upscaler is closed"):
        closed.upscale_file(photo)


@pytest.mark.parametrize(
    ("engine", "options", "is_told"),
    [
        ("network", FileOptions(), True),
        ("network", FileOptions(provenance=False), False),
        ("network", FileOptions(strip=True), False),
        ("nearest", FileOptions(), False),
    ],
)
def test_an_output_says_that_a_network_made_it_unless_none_did_or_it_shall_not(
    engine: str, options: FileOptions, is_told: bool, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = NearestEngine(2)
    network.spec = replace(network.spec, name=engine)
    facts = ModelFacts(name="my <net>", scale=2, radius_px=3, multiple_of=1, architecture=None)
    monkeypatch.setattr(api, "_load_model", lambda *_: (object(), facts))
    monkeypatch.setattr("realesr.engines.open_chosen_engine", opens(network))
    with realesr.Upscaler(engine="torch") as upscaler:
        target = upscaler.upscale_file(photo, file=options).target
    with Image.open(target) as image:
        xmp = image.info.get("xmp", b"")
    assert (b"(my &lt;net&gt;, x2)</xmp:CreatorTool>" in xmp) is is_told
    assert (b"compositeWithTrainedAlgorithmicMedia" in xmp) is is_told
