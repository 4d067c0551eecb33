"""Answers that are kept: read back where nothing has changed, and not looked at where anything has."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from realesr.engines import open_chosen_engine, tuning
from realesr.engines.tuning import Answer, Setting, forget, keep, kept, kept_setting
from realesr.errors import OutputError, UsageError
from realesr.models.compact import Compact
from tests.models.small_networks import small_weights

WEIGHTS = small_weights(Compact(scale=2, features=8, convs=1))
OTHERS = replace(WEIGHTS, sha256="1" * 64)
FAST = Setting(engine="openvino", device="cpu", precision="bf16", threads=3, tile_px=192)
EXACT = Setting(engine="ncnn", device="cpu", precision="fp32")
GRAPHS = Setting(engine="torch", device="cuda", precision="fp16", options={"mode": "graphs"})
ANSWER = Answer(best=FAST, fp32=EXACT)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("REALESR_CACHE", str(tmp_path))
    yield tmp_path


def test_an_answer_is_read_back() -> None:
    assert kept(WEIGHTS) is None
    path = keep(WEIGHTS, ANSWER)
    assert kept(WEIGHTS) == ANSWER
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_options_of_the_engine_are_read_back() -> None:
    keep(WEIGHTS, Answer(best=GRAPHS, fp32=EXACT))
    setting = kept_setting(WEIGHTS, "auto")
    assert setting == GRAPHS
    assert setting.options == {"mode": "graphs"}


def test_settings_are_told_apart_by_their_options() -> None:
    plain = replace(GRAPHS, options={})
    assert {GRAPHS: 1, plain: 2}[replace(GRAPHS, options={"mode": "graphs"})] == 1
    assert plain != GRAPHS
    assert plain == Setting(engine="torch", device="cuda", precision="fp16")


def test_the_precision_that_was_asked_for_decides() -> None:
    keep(WEIGHTS, ANSWER)
    assert kept_setting(WEIGHTS, "auto") == FAST
    assert kept_setting(WEIGHTS, "fp32") == EXACT
    assert kept_setting(WEIGHTS, "fp16") is None
    assert kept_setting(OTHERS, "auto") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("processor_name", lambda: "another"),
        ("usable_cores", lambda: 99),
        ("gpu_names", lambda: ("NVIDIA H100 80GB HBM3",)),
        ("_has_winograd", lambda: "since then"),
        ("_versions", lambda: [("ncnn", "2.0")]),
    ],
)
def test_an_answer_ends_with_what_it_was_measured_with(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    keep(WEIGHTS, ANSWER)
    monkeypatch.setattr(tuning, name, value)
    assert kept(WEIGHTS) is None


def test_fewer_instructions_are_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(WEIGHTS, ANSWER)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    assert kept(WEIGHTS) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"measured_with": 1}',
        "\xff",
        "\0\1\2",
        "[" * 200_000,
        '{"a":' * 100_000,
        "9" * 5000,
        "NaN",
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_a_damaged_file_is_no_answer(text: str) -> None:
    path = keep(WEIGHTS, ANSWER)
    path.write_text(text, encoding="latin-1")
    assert kept(WEIGHTS) is None


HOSTILE: tuple[Any, ...] = (
    None,
    0,
    -1,
    10**9,
    10**30,
    1.5,
    True,
    float("nan"),
    float("inf"),
    "\ud800",
    "x",
    "\x1b[31m",
    [],
    {"a": 1},
)


@pytest.mark.parametrize("key", ["threads", "tile_px", "engine", "device", "precision", "options"])
def test_values_that_no_answer_has_are_no_answer(key: str) -> None:
    path = keep(WEIGHTS, ANSWER)
    record = json.loads(path.read_text())
    for which in ("best", "fp32"):
        for value in HOSTILE:
            changed = {**record, which: {**record[which], key: value}}
            path.write_text(json.dumps(changed))
            is_right = value is None and key in ("threads", "tile_px")
            assert (kept(WEIGHTS) is not None) == is_right, (which, value)


def test_something_else_in_the_place_of_a_file_is_no_answer(cache: Path) -> None:
    path = keep(WEIGHTS, ANSWER)
    path.write_bytes(path.read_bytes() + b" " * (1 << 20))
    assert kept(WEIGHTS) is None
    path.unlink()
    path.mkdir()
    assert kept(WEIGHTS) is None
    path.rmdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)
        assert kept(WEIGHTS) is None


def test_a_setting_that_the_engine_refuses_gives_way_to_the_next_engine() -> None:
    odd = replace(EXACT, options={"no such option": "1"})
    keep(WEIGHTS, Answer(best=odd, fp32=odd))
    opened = open_chosen_engine(WEIGHTS, device="cpu")
    opened.engine.close()
    assert "ncnn on cpu did not start" in opened.chosen_because


def test_another_gpu_or_one_more_ends_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "gpu_names", lambda: ("NVIDIA H100 80GB HBM3",))
    keep(WEIGHTS, ANSWER)
    assert kept(WEIGHTS) == ANSWER
    for names in ((), ("NVIDIA L4",), ("NVIDIA H100 80GB HBM3",) * 2):
        monkeypatch.setattr(tuning, "gpu_names", lambda names=names: names)
        assert kept(WEIGHTS) is None


@pytest.mark.parametrize(
    ("old", "new"), [('"bf16"', '"int4"'), ('"engine"', '"motor"'), ('"options": {}', '"options": {"streams": 2}')]
)
def test_a_setting_that_cannot_be_is_no_answer(old: str, new: str) -> None:
    path = keep(WEIGHTS, ANSWER)
    path.write_text(path.read_text().replace(old, new))
    assert kept(WEIGHTS) is None


def test_all_answers_are_forgotten() -> None:
    paths = [keep(WEIGHTS, ANSWER), keep(OTHERS, ANSWER)]
    assert sorted(forget()) == sorted(paths)
    assert kept(WEIGHTS) is None
    assert forget() == []


def test_a_cache_that_cannot_be_written_is_told(cache: Path) -> None:
    (cache / "tuning").write_text("a file in the folder's place")
    with pytest.raises(OutputError, match="set REALESR_CACHE to another folder"):
        keep(WEIGHTS, ANSWER)


def test_a_precision_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="got precision int8, expected fp32, fp16 or bf16"):
        Setting(engine="ncnn", device="cpu", precision="int8")  # type: ignore[arg-type]
