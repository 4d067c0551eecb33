"""Export to ONNX: what is written, that it is proven before it is there, and which layers stay float32."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from realesr.api import Upscaler
from realesr.errors import ExportError, OutputError, OutputExists, RealesrError, UsageError
from realesr.export import onnx_export, proof
from realesr.export.onnx_export import ExportReport
from realesr.export.proof import Proof, Tolerance
from realesr.export.request import ExportOptions
from realesr.export.run import Artefact, Listener, export_network
from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.onnx_graph import graph_bytes
from realesr.models.rrdb import RRDB
from tests.models.small_networks import SMALL

from .conftest import COMPACT, Saved

LIMITS = {"fp32": 90.0, "fp16": 60.0}


def export(path: Path, listener: Listener | None = None, **options: Any) -> Artefact:
    """Export to ONNX alone, beside the weights."""
    fields: dict[str, Any] = {"model": str(path), "to": "onnx", "output": path.parent, "overwrite": True} | options
    (artefact,) = export_network(ExportOptions(**fields), listener)
    return artefact


def hidden_files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("architecture", "precision"),
    [(each, "fp32") for each in SMALL] + [(SMALL[number], "fp16") for number in (0, 1, 6)],
    ids=str,
)
def test_every_architecture_is_exported_and_proven(saved: Saved, architecture: Architecture, precision: str) -> None:
    artefact = export(saved(architecture), precision=precision)
    assert artefact.path.name == ("net-fp16.onnx" if precision == "fp16" else "net.onnx")
    onnx.checker.check_model(onnx.load(artefact.path), full_check=True)
    (found,) = artefact.facts["proofs"]
    assert len(found["rows"]) == 6
    for row in found["rows"]:
        assert row["equal"] or row["psnr_db"] >= LIMITS[precision]
    assert {row["shape"][0] for row in found["rows"]} == {1, 2}
    assert any(side % (2 * architecture.multiple_of) for row in found["rows"] for side in row["shape"][2:])
    with Upscaler(artefact.path) as upscaler:
        assert upscaler.upscale(np.full((11, 9, 3), 99, np.uint8)).shape[0] == 11 * architecture.scale


@pytest.mark.parametrize(
    "options",
    [
        {"opset": 13},
        {"opset": 25, "precision": "fp16"},
        {"shape_nhw": (2, 16, 24)},
        {"uint8": True},
        {"precision": "fp16", "uint8": True, "shape_nhw": (1, 32, 32), "opset": 17},
    ],
    ids=str,
)
@pytest.mark.parametrize("architecture", [SMALL[1], SMALL[7]], ids=str)
def test_every_option_is_proven_and_gives_the_same_bytes_twice(
    saved: Saved, architecture: Architecture, options: dict[str, Any]
) -> None:
    weights = saved(architecture)
    first = export(weights, **options)
    content = first.path.read_bytes()
    assert export(weights, **options).path.read_bytes() == content
    model = onnx.load_model_from_string(content)
    assert model.opset_import[0].version == options.get("opset", 18) == first.facts["opset"]
    assert first.facts["values"] == ("uint8" if "uint8" in options else "float32")
    assert len(first.facts["proofs"]) == 1 + ("uint8" in options)


def test_the_json_beside_a_file_tells_what_it_is(saved: Saved) -> None:
    weights = saved()
    artefact = export(weights, precision="fp16", shape_nhw=(1, 20, 24))
    text = (weights.parent / "net-fp16.onnx.json").read_text()
    facts = json.loads(text)
    assert facts["file"] == "net-fp16.onnx"
    assert facts["file_sha256"] == hashlib.sha256(artefact.path.read_bytes()).hexdigest()
    assert facts["file_bytes"] == artefact.path.stat().st_size
    assert facts["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (facts["model"], facts["architecture"]) == ("net", COMPACT.title)
    assert (facts["scale"], facts["radius_px"], facts["multiple_of"]) == (2, 4, 1)
    assert (facts["precision"], facts["fp32_layers"], facts["input_shape"]) == ("fp16", [], [1, 3, 20, 24])
    assert set(facts["versions"]) == {"realesr", "python", "onnx", "onnxruntime", "numpy"}
    assert facts["proofs"][0]["tolerance"] == {"min_psnr_db": 60}
    assert facts["created"].startswith("20") and facts["created"].endswith("+00:00")
    assert str(weights.parent) not in text
    assert str(weights.parent).encode() not in artefact.path.read_bytes()


def test_a_file_that_is_there_stays_unless_it_may_be_replaced(saved: Saved) -> None:
    weights = saved()
    (weights.parent / "net.onnx").write_text("mine")
    with pytest.raises(OutputExists, match=r"net\.onnx is there already"):
        export(weights, overwrite=False)
    assert (weights.parent / "net.onnx").read_text() == "mine"
    export(weights)
    assert onnx.load(weights.parent / "net.onnx").producer_name == "realesr"


def test_a_file_that_is_not_proven_does_not_get_its_place(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = saved()
    (weights.parent / "net.onnx").write_text("mine")

    def wrong_bytes(network: Any, options: Any) -> bytes:
        """Each graph that is not the reference's has another bias than the one before."""
        if options.opset != 18:
            network.state["body.0.bias"][:] += 0.01
        return graph_bytes(network, options)

    monkeypatch.setattr(onnx_export, "graph_bytes", wrong_bytes)
    proofs: list[Proof] = []
    with pytest.raises(
        ExportError, match=r"fp32 against .*: got \d+\.\d dB .* expected at least 90 dB and at most 0.03"
    ):
        # What the reference runs on is written after the first check, with the bias of it.
        export(weights, Listener(on_proof=proofs.append), opset=17)
    assert [found.holds for found in proofs] == [False]
    assert sorted(path.name for path in weights.parent.iterdir()) == ["net.onnx", "net.safetensors"]
    assert (weights.parent / "net.onnx").read_text() == "mine"


def test_a_tolerance_holds_for_each_picture_and_for_values_that_are_no_numbers(saved: Saved) -> None:
    zeros = np.zeros((1, 3, 4, 4), np.float32)
    cases = proof.make_cases(lambda batch: batch, multiple_of=1, shape_nhw=(1, 4, 4))
    assert proof.prove("same", cases, lambda batch: batch, Tolerance(max_levels=0, min_psnr_db=200)).holds
    assert not proof.prove("off", cases, lambda batch: batch + 0.01, Tolerance(max_levels=2, min_psnr_db=0)).holds
    assert not proof.prove("off", cases, lambda batch: batch + 0.01, Tolerance(max_levels=9, min_psnr_db=41)).holds
    found = proof.prove("off", cases, lambda batch: batch + 0.01, Tolerance(max_levels=9, min_psnr_db=39))
    assert found.holds
    assert found.worst.psnr_db == pytest.approx(40, abs=0.01)
    assert found.worst.mean_levels == pytest.approx(2.55, abs=0.01)
    nothing = proof.prove("nan", cases, lambda batch: zeros + np.nan, Tolerance(max_levels=1e9, min_psnr_db=-1e9))
    assert not nothing.holds
    assert nothing.record["rows"][0]["psnr_db"] is None
    json.dumps(nothing.record, allow_nan=False)


# --- layers that stay float32 ---


def test_layers_that_overflow_in_half_precision_stay_float32_and_are_named(saved: Saved) -> None:
    # Values of 1e6 between body.2 and body.4: only with both in float32 is there no type that cannot hold them.
    weights = saved(Compact(scale=2, features=8, convs=3), **{"body.2.weight": 1e6, "body.4.weight": 1e-6})
    proofs: list[Proof] = []
    said: list[str] = []
    artefact = export(weights, Listener(say=said.append, on_proof=proofs.append), precision="fp16")
    assert artefact.facts["fp32_layers"] == ("body.2", "body.4")
    assert [found.holds for found in proofs] == [False, True]
    assert "(2 convolutions in fp32)" in proofs[1].of
    assert any("looking for layers that must stay float32" in line for line in said)
    types = {tensor.name: tensor.data_type for tensor in onnx.load(artefact.path).graph.initializer}
    wide = {name for name, kind in types.items() if kind == onnx.TensorProto.FLOAT and name.endswith("0.weight")}
    assert not wide
    assert types["body.2.weight"] == types["body.4.weight"] == onnx.TensorProto.FLOAT


def test_a_weight_that_half_precision_cannot_hold_keeps_its_layer_in_float32(saved: Saved) -> None:
    weights = saved(RRDB(scale=4, features=8, blocks=1, growth=4), **{"conv_hr.weight": 1e6, "conv_last.weight": 1e-6})
    assert export(weights, precision="fp16").facts["fp32_layers"] == ("conv_hr", "conv_last")


def test_a_network_that_needs_nothing_in_float32_keeps_nothing_in_it(saved: Saved) -> None:
    assert export(saved(), precision="fp16").facts["fp32_layers"] == ()


def test_layers_that_overflow_stay_float32_with_integers_outside_too(saved: Saved) -> None:
    weights = saved(**{"body.0.weight": 1e6, "body.2.weight": 1e-6})
    artefact = export(weights, precision="fp16", uint8=True)
    assert artefact.facts["fp32_layers"] == ("body.0", "body.2")
    assert [found["of"].split()[0] for found in artefact.facts["proofs"]] == ["fp16", "uint8"]


# --- what is refused ---


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"to": "caffe"}, "got the target caffe, expected onnx, tensorrt, tensorrt-rtx"),
        ({"compute_capabilities": ("sm89",)}, "got compute_capabilities: expected them with tensorrt-rtx"),
        ({"output": Path("x.engine")}, r"got x\.engine for onnx, expected a folder or a file \*\.onnx"),
        ({"to": "tensorrt", "output": Path("x.onnx")}, r"expected a folder or a file \*\.engine"),
        ({"opset": 12}, "got the opset 12, expected 13 to 25"),
        ({"precision": "bf16"}, "bf16 is not for ONNX"),
    ],
)
def test_requests_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ExportOptions(**options)


def test_a_shape_that_does_not_fit_the_network_is_told_before_anything_runs(saved: Saved) -> None:
    with pytest.raises(UsageError, match="got the shape 15 x 16, expected sides that are multiples of 2 px"):
        export(saved(SMALL[1]), shape_nhw=(1, 15, 16))


def test_a_shape_that_does_not_fit_into_memory_is_told_before_anything_runs(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realesr.export.onnx_export.free_bytes", lambda: 1_000_000)
    with pytest.raises(UsageError, match=r"got the shape 1x900x1000: .* takes 0\.\d GB of memory, 0\.0 GB are free"):
        export(saved(), shape_nhw=(1, 900, 1000))


def test_an_onnx_file_is_no_source_of_an_onnx_file(saved: Saved) -> None:
    made = export(saved())
    with pytest.raises(UsageError, match="which is an ONNX file already: give weights, or export it to tensorrt"):
        export(made.path)


def test_a_folder_that_cannot_be_made_is_one_line(saved: Saved) -> None:
    weights = saved()
    (weights.parent / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be written .*: free some space, or choose another place") as caught:
        export(weights, output=weights.parent / "file" / "x.onnx")
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_nothing_behind(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = saved()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx_export, "move_into_place", full)
    with pytest.raises(OutputError, match="No space left on device"):
        export(weights)
    assert [path.name for path in weights.parent.iterdir()] == ["net.safetensors"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RealesrError])
def test_nothing_is_left_of_an_export_that_is_stopped(
    saved: Saved, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    weights = saved()

    def stopped(*_: object) -> NDArray[np.float32]:
        raise stop("stopped")

    monkeypatch.setattr(onnx_export, "prove", stopped)
    with pytest.raises(stop):
        export(weights)
    assert os.listdir(weights.parent) == ["net.safetensors"]


# --- where from ---


def test_the_folder_of_a_training_run_is_exported_under_its_name(saved: Saved, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "gan"
    run.mkdir(parents=True)
    saved().rename(run / "last.safetensors")
    assert export(run, output=tmp_path).path == tmp_path / "gan.onnx"


def test_the_default_place_is_the_current_folder(saved: Saved, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weights = saved()
    monkeypatch.chdir(tmp_path)
    assert export(weights, output=None, precision="fp16").path == Path("net-fp16.onnx")
    assert (tmp_path / "net-fp16.onnx").exists()


@pytest.mark.weights
def test_official_weights_need_no_layer_in_float32(tmp_path: Path) -> None:
    report = export_network(ExportOptions(model="realesr-animevideov3", to="onnx", precision="fp16", output=tmp_path))[
        0
    ]
    assert report.facts["fp32_layers"] == ()
    assert min(row["psnr_db"] for row in report.facts["proofs"][0]["rows"]) > 70


def test_the_report_says_what_the_file_says(saved: Saved, tmp_path: Path) -> None:
    from realesr.models.weights import read_weights

    options = ExportOptions(model="ignored", to="onnx", output=tmp_path / "x.onnx")
    report: ExportReport = onnx_export.export_onnx(options, read_weights(saved()))
    assert json.loads((tmp_path / "x.onnx.json").read_text()) == json.loads(report.sidecar.text)
    assert report.proofs[0].holds
