"""benchmarks/bench_faults.py: a handful of trials of each kind, and that the judges see the faults they look for."""

import importlib
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
KINDS = (
    *("images", "jpegs", "models", "onnx", "recipes", "downloads"),
    *("kills", "disks", "memory", "engines", "soak"),
)
FEW = {"images": 12, "jpegs": 20, "models": 20, "onnx": 4, "recipes": 20, "downloads": 10, "engines": 8, "soak": 12}
FEW |= {"kills": 1, "disks": 4, "memory": 2}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and control groups are those of Linux")


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a file of the benchmarks; they are scripts of one folder, not a package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


SECONDS_ALONE = ("images", "kills", "recipes", "downloads", "soak")
"""Kinds of which a few trials take three seconds at most; those of the others take longer."""


@pytest.mark.parametrize(
    "kind",
    [
        *SECONDS_ALONE,
        *(pytest.param(kind, marks=[pytest.mark.long]) for kind in KINDS if kind not in (*SECONDS_ALONE, "memory")),
        pytest.param("memory", marks=[pytest.mark.long, pytest.mark.weights]),
    ],
)
def test_a_few_trials_of_each_kind_run_and_are_counted(imported: Any, tmp_path: Path, kind: str) -> None:
    bench = imported("bench_faults")
    bench.main(["--only", kind, "--trials", str(FEW[kind]), "--out", str(tmp_path)])
    (file,) = tmp_path.glob("*-faults.json")
    found = json.loads(file.read_text())["kinds"]
    assert list(found) == [kind]
    *rows, total = found[kind]["rows"]
    assert total["trials"] >= FEW[kind] - 8, rows  # of damaged JPEGs those do not count that show the same picture
    assert total["trials"] == sum(row["trials"] for row in rows)
    page = (tmp_path / "RELIABILITY.md").read_text()
    assert f"--only {kind} --seed 0 --trials {FEW[kind]}" in page
    assert f"| all | {total['trials']:,} |" in page


def test_a_later_run_of_one_kind_keeps_the_figures_of_the_others(imported: Any, tmp_path: Path) -> None:
    bench = imported("bench_faults")
    bench.main(["--only", "recipes", "--trials", "3", "--out", str(tmp_path)])
    bench.main(["--only", "models", "--trials", "3", "--out", str(tmp_path)])
    (file,) = tmp_path.glob("*-faults.json")
    assert set(json.loads(file.read_text())["kinds"]) == {"recipes", "models"}


def test_kinds_are_those_of_the_files(imported: Any) -> None:
    assert set(imported("bench_faults").KINDS) == set(imported("faults_page").WHAT) == set(KINDS)


def test_a_fault_ends_with_exit_code_1_and_is_named(
    imported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = imported("bench_faults")

    def inject(tally: Any, trials: int, seed: int, folder: Path) -> None:
        tally.add("tif", "memory", "wide.tif took 2 GB")

    monkeypatch.setitem(bench.KINDS, "images", bench.Kind(inject=inject, trials=1))
    assert bench.main(["--only", "images", "--out", str(tmp_path)]) == 1
    assert "wide.tif took 2 GB" in capsys.readouterr().err
    assert "- images, tif: memory, once" in (tmp_path / "RELIABILITY.md").read_text()


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("a.png is truncated after row 3 of 20; get a whole copy", "refused"),
        ("a.png: unexpected KeyError: 3 (--debug shows where)", "unexpected error"),
        ("Traceback (most recent call last):\n  File ...", "traceback"),
        ("two\nlines", "wrong result"),
        ("colours \x1b[31m", "wrong result"),
        ("", "wrong result"),
    ],
)
def test_messages_are_judged(imported: Any, text: str, verdict: str) -> None:
    assert imported("faults_verdicts").judged_message(text)[0] == verdict


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        ("import os; os.abort()", "crash"),
        ("raise ValueError", "traceback"),
        ("import time; time.sleep(60)", "hang"),
        ("x = bytearray(b'x') * 400_000_000; import time; time.sleep(60)", "memory"),
        ("raise SystemExit(1)", ""),
    ],
)
def test_a_command_that_goes_wrong_is_seen(imported: Any, program: str, fault: str) -> None:
    run = imported("faults_commands").run_watched
    seconds = 0.5 if fault == "hang" else 20
    assert run([sys.executable, "-c", program], limit_seconds=seconds, limit_bytes=200_000_000).fault == fault


CHILD = """
import os, sys, time
sys.path.insert(0, {folder!r})
from faults_children import answer_lines
from realesr.errors import ModelError

def judge(line):
    if line == "dies":
        os.abort()
    if line == "hangs":
        time.sleep(60)
    if line == "raises":
        raise KeyError("x")
    if line == "refuses":
        raise ModelError("no such network: expected another")
    if line == "takes much":
        held = bytearray(b"x") * 300_000_000
        del held
    return "right", line

answer_lines(judge)
"""


def test_a_child_that_dies_or_hangs_is_one_fault_and_the_next_input_goes_on(
    imported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = imported("faults_children")
    monkeypatch.setattr(children, "LIMIT_SECONDS", 3)  # less is too little beside other work
    script = tmp_path / "child.py"
    limit = "import faults_children; faults_children.LIMIT_BYTES = 250_000_000\n"
    script.write_text(CHILD.format(folder=str(BENCHMARKS)).replace("\ndef judge", f"{limit}\ndef judge"))
    child = children.AnsweringChild(script)
    try:
        asked = ("a", "dies", "b", "hangs", "c", "raises", "refuses", "takes much")
        assert [child.ask(line)[0] for line in asked] == [
            *("right", "crash", "right", "hang", "right", "unexpected error", "refused", "memory"),
        ]
    finally:
        child.close()


def test_the_same_dice_make_the_same_mutations_and_every_one_changes_something(imported: Any) -> None:
    module = imported("faults_mutations")
    data = bytes(range(256))
    assert module.mutated(data, random.Random(3)) == module.mutated(data, random.Random(3))
    for name, mutation in module.MUTATIONS.items():
        results = {mutation(data, random.Random(seed), data[::-1]) for seed in range(40)}
        assert len(results - {data}) > 10, name


def test_a_hole_in_an_output_and_another_picture_are_seen(imported: Any, tmp_path: Path) -> None:
    images, files = imported("faults_images"), imported("faults_image_files")
    whole = files.whole_files()
    target, source = tmp_path / "a_x4.png", tmp_path / "0~plain~cut.png"
    target.write_bytes(whole["plain.png"])
    record = {"input_px": [6, 5], "output_px": [24, 20], "target": str(target), "notices": []}
    import pyvips

    picture = pyvips.Image.new_from_file(str(target)).copy_memory()
    assert images.judged(source, record, {"plain.png": picture})[0] == "right"
    assert images.judged(source, record, {"plain.png": picture.invert()})[0] == "wrong result"
    assert images.judged(source, record | {"output_px": [24, 24]}, {})[0] == "wrong result"
    target.write_bytes(whole["plain.png"][:300])
    assert images.judged(source, record, {})[0] == "half output"


def test_a_command_that_never_comes_to_a_file_ends_the_run(
    imported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = imported("faults_images")
    monkeypatch.setattr(images, "COMMAND", ("sh", "-c", "echo broken >&2; exit 3"))
    (tmp_path / "in").mkdir()
    for number in range(30):
        (tmp_path / "in" / f"{number}.png").touch()
    with pytest.raises(RuntimeError, match=r"ended 20 times before its first file: .*exit code 3: broken"):
        list(images.enlarged(tmp_path / "in", tmp_path / "out"))


@pytest.mark.long
@pytest.mark.weights
@pytest.mark.parametrize("kind", KINDS)
def test_all_trials_of_a_kind_end_without_a_fault(imported: Any, tmp_path: Path, kind: str) -> None:
    assert imported("bench_faults").main(["--only", kind, "--out", str(tmp_path)]) == 0
