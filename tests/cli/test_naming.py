"""Names of outputs by a template."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from realesr.cli.files import Output
from realesr.cli.upscaling.naming import FIELDS, template_from
from realesr.errors import UsageError

from .conftest import Command, FakeUpscaler, write

NEAREST = ("--engine", "nearest", "-m", "realesr-animevideov3")


def picture(path: Path, size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10, 200, 30)).save(path)


def test_every_field_has_its_value(realesr: Command, folder: Path) -> None:
    picture(folder / "holiday" / "photo.jpg")
    template = "{stem}-{model}-{scale}-{width:05d}x{height}-{suffix}-{parent}"
    result = realesr("upscale", "holiday", "-o", "out", "--name", template, *NEAREST, "-s", 2.5)
    assert result.stdout == "out/photo-realesr-animevideov3-x2.5-00015x10-jpg-holiday.jpg\n"
    assert {name for name in FIELDS if f"{{{name}" in template} == set(FIELDS)


def test_the_scale_of_a_size_is_that_of_the_image(realesr: Command, folder: Path) -> None:
    picture(folder / "photo.png")
    words = ("upscale", "photo.png", "--name", "{stem}_{scale}_{width}", "--long-side", 11, *NEAREST)
    assert realesr(*words).stdout == "photo_x1.83_11.png\n"


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("large_{stem}", [], ["large_a.jpg", "large_b.png"]),
        ("large_{stem}", ["--format", "webp"], ["large_a.webp", "large_b.webp"]),
        ("{stem}_large.tif", [], ["a_large.tif", "b_large.tif"]),
        ("{stem}.{suffix}", ["-o", "out"], ["out/a.jpg", "out/b.bmp.png"]),
        ("{stem}.{suffix}", ["-o", "out", "--format", "png"], ["out/a.jpg.png", "out/b.bmp.png"]),
        ("{stem}.v2", [], ["a.v2.jpg", "b.v2.png"]),
        ("{{{stem}}}", [], ["{a}.jpg", "{b}.png"]),
        ("{parent}_{model}_{stem:.1}", ["-m", "nets/own.safetensors"], ["photos_own_a.jpg", "photos_own_b.png"]),
    ],
)
def test_the_suffix_is_added_unless_the_template_ends_in_it(
    realesr: Command,
    fake: FakeUpscaler,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    options: list[str],
    expected: list[str],
) -> None:
    monkeypatch.setattr("realesr.cli.upscaling.run.facts_of", lambda model: (4.0, None))
    write(folder, "photos/a.jpg", "photos/b.bmp")
    monkeypatch.chdir(folder / "photos")
    result = realesr("upscale", ".", "--name", name, *options)
    assert result.stdout.splitlines() == expected


def test_an_input_without_a_suffix_leaves_no_dot(realesr: Command, fake: FakeUpscaler, folder: Path) -> None:
    write(folder, "bare")
    assert realesr("upscale", "bare", "--name", "{stem}.{suffix}").stdout == "bare.png\n"


def test_a_second_run_skips_what_is_there_and_takes_no_output_for_an_image(realesr: Command, folder: Path) -> None:
    picture(folder / "a.png")
    words = ("upscale", ".", "--name", "{stem}_{width}", *NEAREST)
    assert realesr(*words).stdout == "a_24.png\n"
    second = realesr(*words)
    assert (second.exit_code, second.stdout) == (0, "")
    assert "a_24.png is taken for an output of a.png: skipped" in second.stderr
    assert "a_24.png exists: skipped" in second.stderr
    assert {item.name for item in folder.iterdir()} == {"a.png", "a_24.png", "realesr-manifest.jsonl"}


def test_headers_are_read_once_and_only_where_a_size_is_asked_for(
    realesr: Command, fake: FakeUpscaler, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from realesr.images import reader

    read: list[Path] = []
    open_image = reader.open_image

    def counted(path: Path, **given: Any) -> Any:
        read.append(path)
        return open_image(path, **given)

    monkeypatch.setattr(reader, "open_image", counted)
    picture(folder / "a.png")
    realesr("upscale", "a.png", "--name", "{stem}_{scale}_{model}")
    assert read == []
    realesr("upscale", "a.png", "--name", "{stem}_{height}")
    assert read == [Path("a.png")]


def test_an_image_whose_size_cannot_be_read_fails_alone(realesr: Command, folder: Path) -> None:
    picture(folder / "a.png")
    (folder / "b.png").write_bytes(b"hello")
    result = realesr("upscale", ".", "--name", "{stem}_{width}", "--json", *NEAREST)
    assert result.exit_code == 1
    failed, done = map(json.loads, result.stdout.splitlines())
    assert (failed["source"], done["target"]) == ("b.png", "a_24.png")
    assert "is not an image" in failed["error"]


def test_the_default_network_is_decided_before_it_gives_its_name(
    realesr: Command, fake: FakeUpscaler, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    monkeypatch.setattr(
        "realesr.runtime.default_network.with_network",
        lambda options, on_download: (replace(options, model="realesr-general-x4v3"), "the former cannot be fetched"),
    )
    write(folder, "a.jpg")
    result = realesr("upscale", "a.jpg", "--name", "{stem}_{model}")
    assert result.stdout == "a_realesr-general-x4v3.jpg\n"
    assert result.stderr.startswith("the former cannot be fetched")
    assert fake.network.model == "realesr-general-x4v3"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--name", "{foo}"], "{foo} is no field: expected {stem}, {model}, {scale}, {width}, {height}, {suffix}"),
        (["--name", "{stem.__class__}"], "{stem.__class__} is no field"),
        (["--name", "{stem[0]}"], "{stem[0]} is no field"),
        (["--name", "{stem!r}"], "{stem!r} is no field"),
        (["--name", "{}"], "{} is no field"),
        (["--name", "{0}"], "{0} is no field"),
        (["--name", "{stem"], "expected pairs of braces"),
        (["--name", "stem}"], "expected pairs of braces"),
        (["--name", "{width:{height}}"], "the format of {width} is {height}"),
        (["--name", "{width:99999999d}"], "the format of {width} is 99999999d"),
        (["--name", "{stem:05d}"], "expected formats such as {width:05d}"),
        (["--name", "out/{stem}"], "with / in the name"),
        (["--name", "../{stem}"], "with / in the name"),
        (["--name", "{stem}\n"], "a control character"),
        (["--name", ""], "makes the name ''"),
        (["--name", ".."], "makes the name '..'"),
        (["--name", "{stem}.gif"], "ends in .gif, expected .png, "),
        (["--name", "{stem}.png", "--format", "jpeg"], "contradict each other"),
        (["--name", "{stem}", "-o", "one.png"], "name the file twice"),
        (["--name", "{stem}"], "would be written over the input"),
        (["--name", "same", "--format", "png"], "a.jpg and b.png would both be written to same.png: tell them apart"),
        (["--name", "{width}", "--format", "png"], "a.jpg and b.png would both be written to 24.png"),
    ],
)
def test_a_template_that_makes_no_names_is_wrong_usage(
    realesr: Command, folder: Path, words: list[str], message: str
) -> None:
    for name in ("a.jpg", "b.png"):
        picture(folder / name)
    inputs = ["a.jpg"] if "-o" in words else ["a.jpg", "b.png"]
    result = realesr("upscale", *inputs, *words, *NEAREST)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert {item.name for item in folder.iterdir()} == {"a.jpg", "b.png"}


@given(st.lists(st.sampled_from([*"{}[]!:.0/ ax", "{stem}", "{width", "scale"]), max_size=12).map("".join))
def test_a_template_is_refused_by_usage_errors_alone(text: str) -> None:
    try:
        template = template_from(text, Output())
    except UsageError:
        return
    assert template.fields <= set(FIELDS)
    assert "/" not in template.text.format_map(FIELDS)
