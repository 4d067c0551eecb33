"""`realesr export`: options -> one request, paths on stdout, figures on stderr."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from realesr.cli import export as command
from realesr.errors import UsageError
from realesr.export import onnx_export, proof
from realesr.export.request import ExportOptions
from realesr.export.run import Artefact
from realesr.models.compact import Compact

from .conftest import Command


@pytest.fixture
def weights(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    shapes = Compact(scale=2, features=4, convs=1).shapes
    save_file(
        {name: (rng.normal(size=shape) / 3).astype(np.float32) for name, shape in shapes.items()}, "own.safetensors"
    )
    return folder / "own.safetensors"


def test_a_file_is_written_and_its_path_and_its_proof_are_told(realesr: Command, weights: Path) -> None:
    result = realesr("export", weights.name, "--fp16", "--to", "onnx")
    assert (result.exit_code, result.stdout) == (0, "own-fp16.onnx\n")
    assert (weights.parent / "own-fp16.onnx.json").exists()
    for words in ("fp16 against the fp32 network", "PSNR dB", "at least 60 dB: holds", "photo", "noise", "2 x 3 x 33"):
        assert words in result.stderr
    assert "own-fp16.onnx  fp16, " in result.stderr


def test_json_has_everything_and_quiet_says_nothing(realesr: Command, weights: Path) -> None:
    result = realesr("export", weights.name, "--json", "--quiet", "--shape", "1x16x24", "--opset", 17, "-o", "x.onnx")
    assert (result.exit_code, result.stderr) == (0, "")
    record = json.loads(result.stdout)
    assert (record["path"], record["opset"], record["input_shape"]) == ("x.onnx", 17, [1, 3, 16, 24])


def test_every_option_comes_through(realesr: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[ExportOptions] = []

    def fake(options: ExportOptions, _: object) -> tuple[Artefact, ...]:
        asked.append(options)
        return ()

    monkeypatch.setattr("realesr.export.run.export_network", fake)
    assert realesr("export").exit_code == 0
    assert realesr(
        "export", "a.pth", "--fp16", "--to", "tensorrt-rtx", "--for", "SM89,sm120", "-o", tmp_path, "--opset", 20,
        "--shape", "2x64x48", "--denoise", 0.5, "--denoise-with", "b.pth", "--overwrite", "--workspace-mb", 512,
        "--limit-minutes", 2.5,
    ).exit_code == 0  # fmt: skip
    assert asked == [
        ExportOptions(),
        ExportOptions(
            model="a.pth",
            to="tensorrt-rtx",
            output=tmp_path,
            overwrite=True,
            precision="fp16",
            opset=20,
            shape_nhw=(2, 64, 48),
            denoise=0.5,
            denoise_with="b.pth",
            compute_capabilities=("sm89", "sm120"),
            workspace_mb=512,
            limit_minutes=2.5,
        ),
    ]


def test_a_proof_that_fails_shows_its_figures_and_is_exit_1(
    realesr: Command, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "FP16_TOLERANCE", proof.Tolerance(max_levels=1, min_psnr_db=999))
    result = realesr("export", weights.name, "--fp16", "--to", "onnx")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "at least 999 dB and at most 1 levels: FAILS" in " ".join(result.stderr.split())
    assert result.stderr.splitlines()[-1] == (
        "error: own in fp16: no convolution but loses too much, expected 999 dB; nothing was written: export it "
        "in fp32; leave out --fp16"
    )
    assert [path.name for path in weights.parent.iterdir()] == [weights.name]


def test_layers_that_stay_float32_are_named(realesr: Command, folder: Path) -> None:
    rng = np.random.default_rng(0)
    state = {
        name: (rng.normal(size=shape) / 3).astype(np.float32)
        for name, shape in Compact(scale=2, features=4, convs=2).shapes.items()
    }
    state["body.0.weight"] *= np.float32(1e6)
    state["body.2.weight"] *= np.float32(1e-6)
    save_file(state, "own.safetensors")
    result = realesr("export", "own.safetensors", "--fp16", "--to", "onnx")
    assert result.exit_code == 0
    assert "own-fp16.onnx: float32 stayed body.0, body.2" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("--shape", "256x256"), "got --shape 256x256, expected batch x height x width, like 1x256x256", 2),
        (("--opset", "9"), "got the opset 9, expected 13 to 25", 2),
        (
            ("--for", "sm89"),
            "got compute_capabilities: expected them with tensorrt-rtx, which alone builds for other GPUs; --to",
            2,
        ),
        (
            ("--workspace-mb", "512"),
            "got workspace_mb: expected it with tensorrt or tensorrt-rtx, for it is about a build; --to",
            2,
        ),
        (
            ("--to", "tensorrt", "--limit-minutes", "0"),
            "got limit_minutes 0, expected more than 0; 'realesr export --limit-minutes'",
            2,
        ),
        (
            ("--to", "tensorrt-rtx", "--timing-cache", "a.bin"),
            "got timing_cache: expected it with tensorrt, for tensorrt-rtx measures nothing; --to",
            2,
        ),
        (("--denoise", "0.5"), "own.safetensors has no denoise strength", 2),
        (("-o", "x.png"), "got x.png for onnx, expected a folder or a file *.onnx; --output", 2),
        (("-o", "taken.onnx"), "taken.onnx is there already; --overwrite replaces it", 1),
    ],
)
def test_bad_options_are_one_line(
    realesr: Command, weights: Path, arguments: tuple[str, ...], words: str, code: int
) -> None:
    (weights.parent / "taken.onnx").touch()
    result = realesr("export", weights.name, *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.splitlines() == [result.stderr.rstrip("\n")]
    assert words in result.stderr


def test_a_name_that_there_is_not_is_told_the_near_ones(realesr: Command, folder: Path) -> None:
    result = realesr("export", "x4plus")
    assert result.exit_code == 1
    assert "did you mean" in result.stderr


def test_quarters_of_a_build_are_told_once() -> None:
    said: list[str] = []
    on_build = command.quarters(said.append)
    for share in (0.0, 0.1, 0.3, 0.3, 0.8, 1.0, 1.0):
        on_build(share, "tactics")
    assert said == ["25 % built", "75 % built", "100 % built"]


def test_shapes_are_three_numbers() -> None:
    assert command.parsed_shape("2x64x48") == (2, 64, 48)
    with pytest.raises(UsageError):
        command.parsed_shape("2x64")
