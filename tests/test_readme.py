"""What the README says, held against the program: examples run, options and networks are those that there are."""

import doctest
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import realesr
import realesr.api
from realesr.architectures import Compact
from realesr.onnx_graph import onnx_bytes
from realesr.zoo import ZOO
from tests.core.small_networks import small_weights

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", "CONTRIBUTING.md", "examples/README.md"]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+|(?<![\w-])-[a-z](?![\w-])")


def blocks(language: str) -> list[str]:
    """Fenced blocks of the README in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def help_of_upscale() -> str:
    """What `realesr upscale --help` prints."""
    command = [sys.executable, "-m", "realesr", "upscale", "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def table_rows(first_heading: str) -> list[list[str]]:
    """Cells of the README's table whose first column has this heading, without its two head lines."""
    table = README.split(f"\n| {first_heading} |", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


@pytest.mark.weights
def test_python_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("realesr.engines.openvino_engine")  # it loads openvino without its reports of use
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((16, 12), 60).convert("RGB").save("photo.jpg")
    Path("realesrgan-x4plus-fp16.onnx").write_bytes(onnx_bytes(small_weights(Compact(scale=4, convs=1)), "fp16"))
    names: dict[str, Any] = {"image": np.zeros((1, 3, 16, 12), np.float32)}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    with Image.open("photo_x4.png") as large, Image.open("photo_x2.png") as twice:
        assert (large.size, twice.size) == ((64, 48), (32, 24))
    assert names["large"].shape == (1, 3, 64, 48)
    assert "(16, 12) (32, 24)" in capsys.readouterr().out


@pytest.mark.weights
def test_examples_in_docstrings_run() -> None:
    result = doctest.testmod(realesr.api)
    assert result.attempted > 0
    assert result.failed == 0


def test_commands_use_options_that_there_are(help_of_upscale: str) -> None:
    known = set(OPTION.findall(help_of_upscale))
    lines = [line.split("#")[0] for block in blocks("sh") + blocks("powershell") for line in block.splitlines()]
    used = {option for line in lines if "realesr upscale" in line for option in OPTION.findall(line)}
    assert used
    assert used <= known


def test_table_of_options_is_complete(help_of_upscale: str) -> None:
    listed = {option for row in table_rows("option") for option in OPTION.findall(row[0])}
    known = set(OPTION.findall(help_of_upscale.split("Examples")[0]))
    assert listed | {"-h", "--help"} == {option for option in known if not option.startswith("--no-")}


def test_table_of_networks_is_that_of_the_zoo() -> None:
    expected = [
        [
            f"`{entry.name}`",
            f"{entry.scale}",
            f"{entry.bytes / 1e6:.1f} MB" if entry.bytes else "?",
            f"{entry.architecture.mac_per_px / 1e6:.2f}",
            entry.purpose,
            entry.licence,
        ]
        for entry in ZOO.values()
    ]
    assert table_rows("name") == expected


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    headings = {"#" + title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target in headings
        elif not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    """Paths in backquotes with a folder and a suffix, and the modules of the core that the README walks through."""
    text = (ROOT / page).read_text(encoding="utf-8")
    paths = re.findall(r"`((?:realesr|engines|train|tests|examples|scripts|benchmarks)/[\w/.-]*\.\w+)`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    if page == "README.md":
        core = re.findall(r"`([a-z_]+\.py)`", text)
        assert core
        assert [name for name in core if not (ROOT / "realesr" / name).exists()] == []
