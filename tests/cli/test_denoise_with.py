"""`--denoise` between any two networks that fit, by blending their weights."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from realesr import Upscaler
from realesr import upscale as upscale_array
from realesr.errors import ModelError, UsageError
from realesr.models import zoo
from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.rrdb import RRDB
from realesr.models.weights import Weights, read_weights
from realesr.models.zoo import ZOO, load_model
from realesr.options import NetworkOptions
from tests.images.image_files import photo
from tests.models.small_networks import small_state

from .conftest import Command, FakeUpscaler

SMALL = Compact(scale=2, features=8, convs=2)
REAL_PAIR = Path(os.environ.get("REALESR_TEST_PAIR", "/nonexistent"))
"""Folder with the ncnn files of realesr-general-x4v3 and its partner, which no package has."""


def network(path: Path, seed: int, architecture: Architecture = SMALL) -> Path:
    path.write_bytes(save(small_state(architecture, seed)))
    return path


@pytest.fixture
def pair(folder: Path) -> tuple[Path, Path]:
    Image.fromarray(photo(24, 30)).save(folder / "photo.png")
    return network(folder / "sharp.safetensors", 1), network(folder / "soft.safetensors", 2)


def blend(pair: tuple[Path, Path], denoise: float) -> Weights:
    found = load_model(pair[0], denoise=denoise, denoise_with=pair[1])
    assert isinstance(found, Weights)
    return found


def test_weights_of_any_two_networks_that_fit_are_blended(pair: tuple[Path, Path]) -> None:
    sharp, soft = (read_weights(path).state for path in pair)
    for share in (0, 0.25, 1):
        found = blend(pair, share)
        assert found.name == f"sharp-denoise-{share:g}-with-soft"
        for key, array in found.state.items():
            np.testing.assert_allclose(array, share * sharp[key] + (1 - share) * soft[key], atol=1e-6)
    for share, same in ((0, soft), (1, sharp)):
        for key, array in blend(pair, share).state.items():
            np.testing.assert_array_equal(array, same[key])


def test_the_released_partner_by_its_name_is_the_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALESR_MODELS", str(folder))
    small = {}
    for seed, name in enumerate(("realesr-general-x4v3", "realesr-general-wdn-x4v3")):
        path = network(folder / f"{name}.safetensors", seed)
        sha256 = read_weights(path).sha256
        small[name] = replace(ZOO[name], file=path.name, sha256=sha256, architecture=SMALL)
    monkeypatch.setattr(zoo, "ZOO", dict(ZOO) | small)
    default = load_model("realesr-general-x4v3", denoise=0.3)
    named = load_model("realesr-general-x4v3", denoise=0.3, denoise_with="realesr-general-wdn-x4v3")
    assert isinstance(default, Weights)
    assert isinstance(named, Weights)
    assert default.sha256 == named.sha256


@pytest.mark.skipif(not REAL_PAIR.is_dir(), reason="REALESR_TEST_PAIR names no folder with the real pair")
def test_the_real_pair_gives_what_the_default_pair_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "realesr-general-x4v3": REAL_PAIR / "realesr-general-x4v3.bin",
        "realesr-general-wdn-x4v3": REAL_PAIR / "RealESRGAN_General_WDN_x4_v3.bin",
    }
    monkeypatch.setattr(zoo, "fetch", lambda entry, **_: files[entry.name])
    pixels = photo(40, 50)
    with Upscaler("realesr-general-x4v3", denoise=0.5) as default:
        expected = default.upscale(pixels)
    model, partner = files.values()
    for share, same in ((0.5, expected), (0.0, upscale_array(pixels, partner)), (1.0, upscale_array(pixels, model))):
        np.testing.assert_array_equal(upscale_array(pixels, model, denoise=share, denoise_with=partner), same)


def test_the_command_blends(realesr: Command, pair: tuple[Path, Path]) -> None:
    words = ("-m", "sharp.safetensors", "--denoise", 0.25, "--denoise-with", "soft.safetensors", "--json")
    record = json.loads(realesr("upscale", "photo.png", *words).stdout)
    assert record["model"] == "sharp-denoise-0.25-with-soft"
    expected = upscale_array(photo(24, 30), pair[0], denoise=0.25, denoise_with=pair[1])
    np.testing.assert_array_equal(np.asarray(Image.open("photo_x2.png")), expected)
    assert not np.array_equal(expected, upscale_array(photo(24, 30), pair[0]))


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (Compact(scale=4, features=8, convs=2), "SRVGGNetCompact x4: 2 convolutions, 8 features"),
        (Compact(scale=2, features=8, convs=3), "SRVGGNetCompact x2: 3 convolutions, 8 features"),
        (RRDB(scale=2, features=8, blocks=1, growth=4), "RRDBNet x2: 1 block"),
    ],
)
def test_two_networks_that_do_not_fit_are_wrong_usage_and_nothing_is_written(
    realesr: Command, pair: tuple[Path, Path], folder: Path, architecture: Architecture, message: str
) -> None:
    network(folder / "other.safetensors", 3, architecture)
    before = sorted(folder.rglob("*"))
    words = ("-m", "sharp.safetensors", "--denoise", 0.5, "--denoise-with", "other.safetensors", "-o", "out/")
    result = realesr("upscale", "photo.png", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert "sharp (SRVGGNetCompact x2: 2 convolutions, 8 features, prelu) and other (" in result.stderr
    assert message in result.stderr
    assert "cannot be blended: expected two networks of the same architecture, scale and size" in result.stderr
    assert [path for path in sorted(folder.rglob("*")) if path.suffix != ".jsonl"] == before


def test_they_must_fit_even_where_nothing_of_the_partner_is_wanted(pair: tuple[Path, Path], folder: Path) -> None:
    other = network(folder / "other.safetensors", 3, Compact(scale=4, features=8, convs=2))
    with pytest.raises(UsageError, match="cannot be blended"):
        load_model(pair[0], denoise=1, denoise_with=other)


@pytest.mark.parametrize("is_partner", [True, False])
def test_an_onnx_file_is_refused_with_the_reason(
    realesr: Command, pair: tuple[Path, Path], folder: Path, is_partner: bool
) -> None:
    (folder / "net.onnx").write_bytes(b"graph")
    model, partner = ("sharp.safetensors", "./net.onnx") if is_partner else ("./net.onnx", "sharp.safetensors")
    result = realesr("upscale", "photo.png", "-m", model, "--denoise", 0.5, "--denoise-with", partner, "-s", 2)
    assert result.exit_code == 2
    assert "net.onnx cannot be blended, for its weights are part of its graph: expected a file of weights" in (
        result.stderr
    )


def test_a_partner_without_a_strength_is_wrong_usage(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    (folder / "a.jpg").write_bytes(b"image")
    result = realesr("upscale", "a.jpg", "--denoise-with", "soft.pth")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: got denoise_with soft.pth without denoise: expected a number from 0, all of soft.pth, to 1, none of "
        "it; --denoise sets it\n"
    )
    assert not fake.opened
    with pytest.raises(UsageError, match=r"got soft\.pth to blend with and no denoise strength"):
        load_model("sharp.pth", denoise_with="soft.pth")


def test_a_network_without_a_partner_says_that_one_can_be_named(pair: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="any other network needs a partner of its architecture") as found:
        load_model(pair[0], denoise=0.5)
    assert found.value.option == "denoise_with"


def test_a_partner_that_is_not_there_names_the_near_ones(realesr: Command, pair: tuple[Path, Path]) -> None:
    words = ("-m", "sharp.safetensors", "--denoise", 0.5, "--denoise-with", "realesrgan-x4pluss")
    result = realesr("upscale", "photo.png", *words)
    assert result.exit_code == 1
    assert "no network is called realesrgan-x4pluss" in result.stderr


def test_an_empty_name_is_no_partner_and_not_the_default_one(folder: Path) -> None:
    with pytest.raises(ModelError, match="is a folder without"):
        load_model("realesr-general-x4v3", denoise=0.5, denoise_with="")


def test_it_arrives(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    (folder / "a.jpg").write_bytes(b"image")
    realesr("upscale", "a.jpg", "-m", "realesrgan-x4plus", "--denoise", 0.5, "--denoise-with", "realesrnet-x4plus")
    assert fake.network == NetworkOptions(model="realesrgan-x4plus", denoise=0.5, denoise_with="realesrnet-x4plus")
