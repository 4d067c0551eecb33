"""What is exported after what; the builder of TensorRT is a fake here."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from realesr.engines.nvidia import tensorrt_library
from realesr.errors import EngineError, MissingDependency, ModelError, OutputExists, UsageError
from realesr.export import tensorrt_build
from realesr.export.proof import Proof
from realesr.export.request import ExportOptions
from realesr.export.run import Listener, export_network

from .conftest import Saved

Built = list[dict[str, Any]]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Built:
    """What engines were built from, and how; both libraries seem to be installed."""
    builds: Built = []

    def build(onnx_path: Path, target: Path, options: Any) -> Any:
        model = onnx.load(onnx_path)
        reference = None if options.reference is None else onnx.load(options.reference)
        builds.append({"model": model, "name": onnx_path.stem, "options": options, "reference": reference})
        target.write_bytes(b"engine")
        target.with_name(f"{target.name}.json").write_text(json.dumps({"precision": "fp16", "proof": "not proven"}))
        return type("Report", (), {"engine": target})

    monkeypatch.setattr(tensorrt_build, "export_tensorrt", build)
    monkeypatch.setattr(tensorrt_library, "installed", lambda: ("tensorrt", "tensorrt-rtx"))
    return builds


def float_types(model: onnx.ModelProto) -> set[int]:
    return {tensor.data_type for tensor in model.graph.initializer if tensor.name.endswith("weight")}


def test_half_precision_makes_both_files_where_tensorrt_is_installed(saved: Saved, built: Built) -> None:
    weights = saved()
    artefacts = export_network(ExportOptions(model=str(weights), precision="fp16", output=weights.parent))
    assert [artefact.path.name for artefact in artefacts] == ["net-fp16.onnx", "net-fp16.engine"]
    assert artefacts[1].facts["proof"] == "not proven"
    assert built[0]["options"].library == "tensorrt"
    assert float_types(built[0]["model"]) == {onnx.TensorProto.FLOAT16}
    assert float_types(built[0]["reference"]) == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "fp16", "to": "onnx"},
        {"precision": "fp32"},
        {"precision": "fp16", "shape_nhw": (2, 16, 16)},
    ],
    ids=str,
)
def test_elsewhere_there_is_one_file(saved: Saved, built: Built, options: dict[str, Any]) -> None:
    weights = saved()
    assert len(export_network(ExportOptions(model=str(weights), output=weights.parent, **options))) == 1
    assert built == []


def test_without_tensorrt_there_is_one_file(saved: Saved, built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_library, "installed", lambda: ())
    weights = saved()
    assert len(export_network(ExportOptions(model=str(weights), precision="fp16", output=weights.parent))) == 1


def test_that_the_engine_beside_a_file_cannot_be_built_is_said_and_no_error(
    saved: Saved, built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> None:
        raise EngineError("no GPU here")

    monkeypatch.setattr(tensorrt_build, "export_tensorrt", failing)
    weights = saved()
    said: list[str] = []
    options = ExportOptions(model=str(weights), precision="fp16", output=weights.parent)
    assert len(export_network(options, Listener(say=said.append))) == 1
    assert said[-1] == "no TensorRT engine beside it: no GPU here"
    with pytest.raises(EngineError, match="no GPU here"):
        export_network(ExportOptions(model=str(weights), precision="fp16", output=weights.parent, to="tensorrt"))


def test_an_engine_is_built_from_a_proven_graph_of_all_sizes(saved: Saved, built: Built) -> None:
    weights = saved()
    proofs: list[Proof] = []
    options = ExportOptions(
        model=str(weights),
        precision="fp16",
        to="tensorrt-rtx",
        compute_capabilities=("sm89", "sm120"),
        shape_nhw=(2, 16, 24),
        output=weights.parent / "out.engine",
        workspace_mb=512,
        limit_minutes=2,
    )
    (artefact,) = export_network(options, Listener(on_proof=proofs.append))
    assert artefact.path == weights.parent / "out.engine"
    assert [proof.holds for proof in proofs] == [True]
    build = built[0]
    assert build["name"] == "net"
    assert [dim.dim_param for dim in build["model"].graph.input[0].type.tensor_type.shape.dim] == ["n", "", "h", "w"]
    assert build["options"].compute_capabilities == ("sm89", "sm120")
    assert (build["options"].workspace_bytes, build["options"].limit_seconds) == (512 << 20, 120)
    profile = build["options"].profile
    assert (profile.min_hw, profile.opt_hw, profile.max_hw) == ((16, 24), (16, 24), (16, 24))
    assert profile.max_batch == 2
    assert sorted(path.name for path in weights.parent.iterdir()) == [
        "net.safetensors",
        "out.engine",
        "out.engine.json",
    ]


def test_an_engine_of_integers_is_built_from_a_graph_of_integers(saved: Saved, built: Built) -> None:
    weights = saved()
    export_network(ExportOptions(model=str(weights), to="tensorrt", uint8=True, output=weights.parent))
    types = [built[0][name].graph.input[0].type.tensor_type.elem_type for name in ("model", "reference")]
    assert types == [onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT]


def test_an_engine_of_an_onnx_file_is_built_from_it(saved: Saved, built: Built, tmp_path: Path) -> None:
    weights = saved()
    export_network(ExportOptions(model=str(weights), to="onnx", output=tmp_path))
    (artefact,) = export_network(ExportOptions(model=str(tmp_path / "net.onnx"), to="tensorrt", output=tmp_path))
    assert artefact.path.name == "net.engine"
    assert built[0]["reference"] is None
    assert built[0]["options"].profile.min_hw == (1, 1)
    with pytest.raises(UsageError, match="an ONNX file has its own; leave them out"):
        export_network(
            ExportOptions(
                model=str(tmp_path / "net.onnx"), to="tensorrt", output=tmp_path, precision="fp16", overwrite=True
            )
        )


def test_an_engine_of_an_onnx_file_of_one_shape_takes_that_shape(saved: Saved, built: Built, tmp_path: Path) -> None:
    export_network(ExportOptions(model=str(saved()), to="onnx", output=tmp_path, shape_nhw=(1, 16, 24)))
    export_network(ExportOptions(model=str(tmp_path / "net.onnx"), to="tensorrt", output=tmp_path))
    profile = built[0]["options"].profile
    assert (profile.min_hw, profile.max_hw, profile.max_batch) == ((16, 24), (16, 24), 1)


def test_a_damaged_onnx_file_is_one_line(built: Built, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no network")
    with pytest.raises(ModelError, match=r"net\.onnx cannot be opened as an ONNX network") as caught:
        export_network(ExportOptions(model=str(tmp_path / "net.onnx"), to="tensorrt", output=tmp_path))
    assert "\n" not in str(caught.value)


def test_an_engine_that_is_there_is_told_before_anything_runs(saved: Saved, built: Built, tmp_path: Path) -> None:
    (tmp_path / "net.engine").touch()
    with pytest.raises(OutputExists):
        export_network(ExportOptions(model=str(saved()), to="tensorrt", output=tmp_path))
    assert built == []


def test_a_missing_library_is_told_before_anything_is_made(
    saved: Saved, built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_library, "installed", lambda: ("tensorrt-rtx",))
    proofs: list[Any] = []
    options = ExportOptions(model=str(saved()), to="tensorrt")
    with pytest.raises(MissingDependency, match="tensorrt is not installed: run 'pip install tensorrt cuda-bindings'"):
        export_network(options, Listener(on_proof=proofs.append))
    assert proofs == built == []
