"""What is ncnn's own: every architecture's graph against torch, devices, codes for errors, Vulkan that is not there."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realesr.engines import open_engine
from realesr.errors import EngineError, OutOfMemory, UsageError
from realesr.machine.environment import default_variable
from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.layers import IMAGE, Activated, Activation, ActivationKind, PixelShuffle, PixelUnshuffle, ScaledSum
from realesr.models.reference import reference_answer
from realesr.models.weights import Weights
from tests.engines.small_models import small_model, write_nearest
from tests.models.layer_lists import LAYER_LISTS, LayerList, conv
from tests.models.small_networks import SMALL, small_weights

pytest.importorskip("ncnn", reason="needs the package of the `ncnn` extra")

from realesr.engines import ncnn_engine

COMPACT = small_model(Compact(scale=2, features=8, convs=1))


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).random((1, 3, height, width), dtype=np.float32)


@pytest.mark.parametrize("architecture", SMALL, ids=str)
def test_every_architecture_gives_what_torch_gives(architecture: Architecture) -> None:
    weights, batch = small_model(architecture), picture(12, 20)
    expected = open_engine(weights, engine="torch", device="cpu", precision="fp32", threads=1).run(batch)
    got = open_engine(weights, engine="ncnn", threads=1).run(batch)
    assert np.ptp(expected) > 0.1, "a flat output proves nothing"
    np.testing.assert_allclose(got, expected, atol=1e-4)


def assert_ncnn_computes(weights: Weights) -> None:
    batch = picture(12, 20)
    expected = reference_answer(weights.architecture, weights.state, batch[0])
    got = open_engine(weights, engine="ncnn", threads=1).run(batch)[0]
    assert np.ptp(expected) > 0.1, "a flat output proves nothing"
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("architecture", LAYER_LISTS, ids=str)
def test_every_kind_of_layer_computes_what_its_definition_says(architecture: Architecture) -> None:
    assert_ncnn_computes(small_weights(architecture))


ACTIVATIONS: tuple[ActivationKind, ...] = ("relu", "leaky_relu", "prelu", "silu", "gelu", "sigmoid", "mish")


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_every_activation_of_a_convolution_computes_what_its_definition_says(kind: ActivationKind, groups: int) -> None:
    layers = (conv("first", IMAGE, 3, 6, kind=kind, groups=groups), conv("last", "first", 6, 3, has_bias=False))
    assert_ncnn_computes(small_weights(LayerList(title=kind, layers=layers)))


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_every_activation_by_itself_computes_what_its_definition_says(kind: ActivationKind) -> None:
    slopes = "active.slopes" if kind == "prelu" else ""
    layers = (
        conv("first", IMAGE, 3, 3),
        Activated(name="active", source="first", activation=Activation(kind=kind, slope=0.3, slopes=slopes)),
        ScaledSum(name="last", terms=(("active", 1.0), ("first", 0.25))),
    )
    assert_ncnn_computes(small_weights(LayerList(title=kind, layers=layers)))


@pytest.mark.parametrize(
    ("terms", "offset"),
    [
        ((("first", 1.0),), 0.0),
        ((("first", 1 / 3),), 0.0),
        ((("first", -2.0),), 1e-7 / 3),
        ((("first", 1.0), ("first", 1.0)), 0.125),
        ((("first", 1.0), (IMAGE, 1.0), ("first", -1 / 7)), 1 / 3),
    ],
)
def test_sums_of_any_factors_compute_what_their_definition_says(
    terms: tuple[tuple[str, float], ...], offset: float
) -> None:
    layers = (conv("first", IMAGE, 3, 3), ScaledSum(name="last", terms=terms, offset=offset))
    assert_ncnn_computes(small_weights(LayerList(title="sum", layers=layers)))


def test_pixels_are_unshuffled_in_the_order_of_the_definition() -> None:
    layers = (
        PixelUnshuffle(name="blocks", source=IMAGE, factor=4),
        conv("mixed", "blocks", 48, 48, kernel=1),
        PixelShuffle(name="last", source="mixed", factor=4),
    )
    assert_ncnn_computes(small_weights(LayerList(title="unshuffled", layers=layers)))


def test_an_onnx_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"x.onnx, expected weights .*take engine onnxruntime"):
        open_engine(write_nearest(tmp_path / "x.onnx"), engine="ncnn")


def test_a_machine_without_vulkan_says_so_and_prints_nothing() -> None:
    """In a process of its own, for ncnn writes to stderr past Python."""
    script = (
        "from realesr.engines import ncnn_engine\n"
        "ncnn_engine._VULKAN_LOADERS_ELSEWHERE = ncnn_engine._VULKAN_LOADERS['darwin'] = ('libnothing.so',)\n"
        "print(ncnn_engine.devices())"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert (run.stdout, run.stderr) == ("('cpu',)\n", "")


def test_an_unknown_device_is_told_which_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ncnn_engine, "_has_vulkan_loader", lambda: False)
    with pytest.raises(EngineError, match=r"vulkan, expected one that it has here: cpu \(Vulkan is not installed\)"):
        open_engine(COMPACT, engine="ncnn", device="vulkan")


def test_gpus_are_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ncnn_engine, "_gpu_count", lambda: 2)
    assert ncnn_engine.devices() == ("cpu", "vulkan:0", "vulkan:1")
    assert [ncnn_engine._parsed_device(name) for name in ("auto", "cpu", "vulkan", "vulkan:1")] == [None, None, 0, 1]
    with pytest.raises(EngineError, match="vulkan:2, expected one that it has here: cpu, vulkan:0, vulkan:1"):
        ncnn_engine._parsed_device("vulkan:2")


@pytest.mark.parametrize(
    ("gpu", "asked", "expected"),
    [(None, "auto", "fp32"), (0, "auto", "fp16"), (0, "fp32", "fp32"), (0, "fp16", "fp16")],
)
def test_precisions(gpu: int | None, asked: str, expected: str) -> None:
    assert ncnn_engine._body_precision(gpu, asked) == expected


def test_precisions_that_there_are_not() -> None:
    with pytest.raises(UsageError, match="fp16 on the CPU, expected fp32"):
        open_engine(COMPACT, engine="ncnn", device="cpu", precision="fp16")
    with pytest.raises(UsageError, match="bf16, expected fp32 or fp16"):
        open_engine(COMPACT, engine="ncnn", device="cpu", precision="bf16")


class FakeExtractor:
    """Gives a code, as ncnn does."""

    def __init__(self, code: int) -> None:
        self._code = code

    def create_extractor(self) -> "FakeExtractor":
        return self

    def input(self, *_: Any) -> int:
        return 0

    def extract(self, _: str) -> tuple[int, None]:
        return self._code, None


@pytest.mark.parametrize(("code", "expected"), [(-100, OutOfMemory), (-1, EngineError)])
def test_codes_are_translated_and_the_engine_goes_on(code: int, expected: type[Exception]) -> None:
    with open_engine(COMPACT, engine="ncnn") as engine:
        working = engine._net  # type: ignore[attr-defined]
        engine._net = FakeExtractor(code)  # type: ignore[attr-defined]
        with pytest.raises(EngineError) as caught:
            engine.run(picture(4, 4))
        engine._net = working  # type: ignore[attr-defined]
        assert engine.run(picture(4, 4)).shape == (1, 3, 8, 8)
    assert type(caught.value) is expected
    assert "\n" not in str(caught.value)


def test_a_folder_for_temporary_files_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(EngineError, match="set TMPDIR"):
        open_engine(COMPACT, engine="ncnn")


def test_no_files_are_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    open_engine(COMPACT, engine="ncnn").close()
    assert list(tmp_path.iterdir()) == []


def test_a_closed_engine_says_so() -> None:
    engine = open_engine(COMPACT, engine="ncnn")
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(picture(4, 4))


@pytest.mark.parametrize("own", [None, "ACTIVE"])
def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if own is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", own)
    with default_variable("OMP_WAIT_POLICY", "PASSIVE"):
        assert os.environ["OMP_WAIT_POLICY"] == (own or "PASSIVE")
    assert os.environ.get("OMP_WAIT_POLICY") == own
