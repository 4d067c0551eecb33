"""What people read, held against the program: examples run; options, networks, files and links are those that exist."""

import doctest
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

import realesr
import realesr.api
from realesr.cli.app import build_app
from realesr.models.compact import Compact
from realesr.models.onnx_graph import onnx_bytes
from realesr.models.zoo import ZOO
from tests.models.small_networks import small_weights

ROOT = Path(__file__).parents[1]
DOCS = sorted(file.relative_to(ROOT).as_posix() for file in (ROOT / "docs").glob("*.md"))
GUIDE = ["README.md", *DOCS]
"""What tells users how to use realesr."""
PAGES = [*GUIDE, "CONTRIBUTING.md", "CHANGELOG.md", "BENCHMARKS.md", "RELIABILITY.md", "examples/README.md"]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+|(?<![\w-])-[a-z](?![\w-])")
FOLDERS = "realesr|engines|export|train|tests|examples|scripts|benchmarks|docs"
MOST_WORDS = 1500
"""Of the README, as `wc -w` counts."""


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """Fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), flags=re.DOTALL | re.MULTILINE)


def pages_with(language: str) -> list[str]:
    return [page for page in GUIDE if blocks(page, language)]


def commands(page: str) -> list[list[str]]:
    """The words of every command `realesr ...` that a page shows, without `realesr` itself."""
    lines = [
        line for language in ("sh", "powershell") for block in blocks(page, language) for line in block.splitlines()
    ]
    words = [shlex.split(line.replace("\\", "/"), comments=True) for line in lines]
    return [line[1:] for line in words if line and line[0].rpartition("/")[2] == "realesr"]


def table_rows(page: str, first_heading: str) -> list[list[str]]:
    """Cells of a page's table whose first column has this heading, without its two head lines."""
    table = text_of(page).split(f"\n| {first_heading} |", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def anchors(page: str) -> set[str]:
    """What can follow `#` in a link to a page: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def help_of_upscale() -> str:
    """What `realesr upscale --help` prints."""
    command = [sys.executable, "-m", "realesr", "upscale", "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


PYTHON_RESULTS: dict[str, tuple[dict[str, tuple[int, int]], str]] = {
    "README.md": ({"photo_x4.png": (64, 48)}, ""),
    "docs/comparing.md": ({}, "span-x2 (24, 32, 3) "),
    "docs/export.md": ({}, ""),
    "docs/python.md": ({"photo_x4.png": (64, 48), "photo_x2.png": (32, 24)}, "(16, 12) (32, 24)"),
    "docs/scores.md": ({}, " dB, SSIM 0."),
}
"""Page -> the images that its examples in Python write, with width and height, and something that they print."""


def test_every_page_with_python_is_run() -> None:
    """That of the server is run by tests/server/test_serve_docs.py."""
    assert pages_with("python") == sorted([*PYTHON_RESULTS, "docs/serve.md"])


@pytest.mark.weights
@pytest.mark.parametrize("page", PYTHON_RESULTS)
def test_python_examples_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("realesr.engines.openvino_engine")  # it loads openvino without its reports of use
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((16, 12), 60).convert("RGB").save("photo.jpg")
    Path("realesrgan-x4plus-fp16.onnx").write_bytes(onnx_bytes(small_weights(Compact(scale=4, convs=1)), "fp16"))
    Path("models.json").write_text('{"4x-Made": {"architecture": "esrgan", "license": "MIT"}}')
    names: dict[str, Any] = {"image": np.zeros((1, 3, 16, 12), np.float32)}
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), names)
    images, printed = PYTHON_RESULTS[page]
    assert {file.name for file in tmp_path.glob("*.png")} == set(images)
    for name, size in images.items():
        with Image.open(name) as image:
            assert image.size == size
    if page == "docs/export.md":
        assert names["large"].shape == (1, 3, 64, 48)
    assert printed in capsys.readouterr().out


@pytest.mark.weights
def test_examples_in_docstrings_run() -> None:
    result = doctest.testmod(realesr.api)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("page", pages_with("sh"))
def test_commands_use_options_that_there_are(page: str, help_of_upscale: str) -> None:
    of_upscale = set(OPTION.findall(help_of_upscale))
    for words in commands(page):
        command: Any = typer.main.get_command(build_app())
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words[0]]
            words = words[1:]
        used = {word.partition("=")[0] for word in words if word.startswith("-") and word != "-"}  # `-` is stdin
        known = {name for parameter in command.params for name in parameter.opts} | {"-h", "--help"}
        assert used <= known, (page, words)
        if command.name == "upscale":
            assert used <= of_upscale, (page, words)


def test_commands_and_options_are_shown() -> None:
    used = {option for page in GUIDE for words in commands(page) for option in OPTION.findall(" ".join(words))}
    assert {"--scale", "-s", "-o", "-m", "--recursive", "--json"} <= used


def test_table_of_options_is_complete(help_of_upscale: str) -> None:
    listed = {option for row in table_rows("docs/options.md", "option") for option in OPTION.findall(row[0])}
    known = set(OPTION.findall(help_of_upscale.split("Examples")[0]))
    assert listed | {"-h", "--help"} == known


def test_table_of_networks_is_that_of_the_zoo() -> None:
    expected = [
        [
            f"`{entry.name}`",
            f"{entry.scale}",
            f"{entry.bytes / 1e6:.1f} MB" if entry.bytes else "?",
            f"{entry.architecture.macs_per_px / 1e6:.2f}",
            entry.purpose,
            entry.licence,
        ]
        for entry in ZOO.values()
    ]
    assert table_rows("docs/networks.md", "name") == expected


@pytest.mark.parametrize("page", GUIDE)
def test_networks_that_are_named_are_in_the_zoo(page: str) -> None:
    named = set(re.findall(r"(?:-m |`)((?:realesr|realesrgan|realesrnet|esrgan)-[a-z][\w-]*)(?=[`\s,])", text_of(page)))
    assert {name for name in named if not name.endswith("-py")} <= set(ZOO)


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    assert len(text_of("README.md").split()) <= MOST_WORDS
    assert [page for page in DOCS if f"]({page})" not in text_of("README.md")] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", text_of(page)):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.relative_to(ROOT).as_posix()), target


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    """Paths in backquotes with a folder, and modules that are named without one."""
    text = text_of(page)
    paths = re.findall(rf"`((?:{FOLDERS})/(?:[\w/.-]*\.\w+|[\w/-]*/))`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    modules = {file.name for folder in FOLDERS.split("|") for file in (ROOT / folder).rglob("*.py")}
    assert [name for name in re.findall(r"`([a-z_]+\.py)`", text) if name not in modules] == []


def test_the_way_through_the_core_is_told() -> None:
    core = re.findall(r"`(realesr/[\w/]+\.py)`", text_of("docs/source.md"))
    assert core
    assert [name for name in core if not (ROOT / name).exists()] == []


def test_the_tour_names_the_rooms_that_there_are() -> None:
    """The README's tree: every folder of modules in the four folders, and each top-level folder."""
    tree = text_of("README.md").split("## What is where", 1)[1].split("```")[1]
    named = set(re.findall(r"(?<![\w/])([a-z_]+)/", tree))
    rooms = {
        file.parent.name
        for folder in ("realesr", "engines", "export", "train")
        for file in (ROOT / folder).rglob("*.py")
    }
    assert rooms <= named
    assert set(FOLDERS.split("|")) <= named
    folders = {path.name for depth in ("*/", "*/*/", "*/*/*/") for path in ROOT.glob(depth)}
    assert named - folders == set()
