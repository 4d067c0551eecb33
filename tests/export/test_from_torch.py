"""Modules of other people, exported by PyTorch, proven and without a word about this machine."""

import copy
import doctest
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from realesr.api import Upscaler
from realesr.engines import model_facts, open_engine
from realesr.errors import ExportError, ModelError, OutputExists, UsageError
from realesr.export import from_torch
from realesr.export.from_torch import export_module
from realesr.export.onnx_export import ExportReport


class Residual(nn.Module):
    """Scale 3, with a skip, an attention over channels and an activation of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(8, 27, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.silu(self.first(x))
        y = y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        large = nn.functional.interpolate(x, scale_factor=3, mode="nearest")
        return nn.functional.pixel_shuffle(self.last(y), 3) + large


class Unshuffled(nn.Module):
    """Scale 2, for sides that are multiples of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(48, 192, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pixel_shuffle(self.conv(nn.functional.pixel_unshuffle(x, 4)), 8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, ExportReport]:
    """A module and its file, as `gated`."""
    torch.manual_seed(0)
    net = Residual().half().train()
    return net, export_module(net, tmp_path_factory.mktemp("exported") / "other.onnx", name="gated")


def test_a_module_is_exported_proven_and_run_by_its_file(exported: tuple[nn.Module, ExportReport]) -> None:
    net, path = copy.deepcopy(exported[0]).float().eval(), exported[1].path
    assert exported[1].proofs[0].holds
    facts = model_facts(path)
    assert (facts.name, facts.scale, facts.radius_px, facts.multiple_of) == ("other", 3, None, 1)
    assert facts.architecture is None
    for shape in ((1, 3, 5, 9), (3, 3, 16, 11)):
        batch = np.random.default_rng(0).random(shape, np.float32)
        with torch.inference_mode(), open_engine(path, engine="onnxruntime") as engine:
            np.testing.assert_allclose(engine.run(batch), net(torch.from_numpy(batch)).numpy(), atol=1e-5)
    with Upscaler(path) as upscaler:
        assert upscaler.upscale(np.zeros((7, 5, 3), np.uint8)).shape == (21, 15, 3)


def test_sides_of_multiples_are_told_to_the_exporter_and_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    report = export_module(Unshuffled(), path, multiple_of=4, radius_px=11)
    facts = model_facts(path)
    assert (facts.scale, facts.radius_px, facts.multiple_of) == (2, 11, 4)
    assert {side % 4 for row in report.proofs[0].rows for side in row.shape[2:]} == {0}
    with Upscaler(path) as upscaler:
        assert upscaler.upscale(np.zeros((7, 5, 3), np.uint8)).shape == (14, 10, 3)


def test_nothing_in_the_file_tells_of_this_machine_or_of_the_source(exported: tuple[nn.Module, ExportReport]) -> None:
    path = exported[1].path
    content, model = path.read_bytes(), onnx.load(path)
    for secret in (str(Path(__file__).parent), os.path.dirname(torch.__file__), "test_from_torch", "pixel_shuffle("):
        assert secret.encode() not in content
        assert secret not in path.with_name("other.onnx.json").read_text()
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert {item.key for item in model.metadata_props} == {
        "realesr.scale", "realesr.multiple_of", "realesr.sha256", "realesr.version"
    }  # fmt: skip
    onnx.checker.check_model(model, full_check=True)


def test_the_json_beside_it_says_what_was_exported(exported: tuple[nn.Module, ExportReport]) -> None:
    report = exported[1]
    facts = json.loads(report.path.with_name("other.onnx.json").read_text())
    assert (facts["model"], facts["architecture"], facts["scale"]) == ("gated", "Residual", 3)
    assert facts["input_shape"] == ["n", 3, "h", "w"]
    assert facts["weights_sha256"] == report.sidecar.weights_sha256
    assert len(facts["proofs"][0]["rows"]) == 6


def test_the_module_itself_is_left_as_it_is(exported: tuple[nn.Module, ExportReport]) -> None:
    net = exported[0]
    assert net.training
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float16}


def test_a_module_that_does_not_enlarge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gave \(1, 4, 24, 32\) for \(1, 3, 24, 32\)"):
        export_module(nn.Conv2d(3, 4, 3, padding=1), tmp_path / "x.onnx")
    with pytest.raises(ModelError, match=r"does not take float32 \(1, 3, 24, 32\): .*; set multiple_of") as caught:
        export_module(nn.Conv2d(4, 3, 3), tmp_path / "x.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


class Untraceable(nn.Module):
    """What it does depends on the pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if float(x.sum()) > 0 else -x


def test_a_module_that_cannot_be_exported_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="PyTorch cannot export Untraceable for all sizes") as caught:
        export_module(Untraceable(), tmp_path / "x.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_computes_something_else_does_not_get_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = from_torch._exported

    def other(module, *arguments):
        module = Residual()
        return real(module.eval(), *arguments)

    monkeypatch.setattr(from_torch, "_exported", other)
    with pytest.raises(ExportError, match="against the module"):
        export_module(Residual(), tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_targets_are_onnx_files_that_are_not_there_yet(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a file \*\.onnx"):
        export_module(Residual(), tmp_path / "x.pth")
    (tmp_path / "x.onnx").touch()
    with pytest.raises(OutputExists):
        export_module(Residual(), tmp_path / "x.onnx")


def test_the_example_runs() -> None:
    assert doctest.testmod(from_torch).failed == 0
