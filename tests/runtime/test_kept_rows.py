"""A job that was killed goes on behind the rows that it had finished, bit for bit; what does not fit is not used."""

import contextlib
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from realesr.api import Upscaler
from realesr.models.compact import Compact
from realesr.options import FileOptions, ImageOptions
from realesr.runtime import kept_rows
from realesr.runtime.kept_rows import Checkpoint, KeptRows
from tests.engines.small_models import small_model

ROWS = np.random.default_rng(0).random((3, 40, 20), np.float32) * 1.2 - 0.1
PLAN = "plan"


class StoppedError(Exception):
    """Ends a job as a signal would."""


@pytest.fixture(autouse=True)
def always_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_rows, "WORTH_SECONDS", -1.0)
    monkeypatch.setattr(kept_rows, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(kept_rows, "CHECKPOINT_SHARE", 1e9)


def facts(network: str = "a") -> Callable[[], dict[str, object]]:
    return lambda: {"network": network}


def keep(target: Path, *, as_levels: bool = False) -> None:
    """Keep two bands of an image of four, as a process that is killed then."""
    bands = KeptRows(target, facts()).stream("colour0", as_levels=as_levels)
    assert bands.begin(PLAN, 40, 20) is None
    for number in range(2):
        state = Checkpoint(done=number + 1, arrays={"state": ROWS[0, number], "more": np.arange(3)})
        bands.add(ROWS[:, 10 * number : 10 * number + 10], lambda state=state: state)  # type: ignore[misc]
    bands.close()


def found_by(target: Path, *, network: str = "a", plan: str = PLAN, as_levels: bool = False) -> Checkpoint | None:
    bands = KeptRows(target, facts(network)).stream("colour0", as_levels=as_levels)
    with contextlib.closing(bands):
        return bands.begin(plan, 40, 20)


def test_a_large_state_is_written_without_a_copy_in_memory(tmp_path: Path) -> None:
    state = np.arange(4_000_000, dtype=np.float32)
    bands = KeptRows(tmp_path / "a.png", facts()).stream("colour0", as_levels=False)
    bands.begin(PLAN, 40, 20)
    tracemalloc.start()
    try:
        bands.add(ROWS[:, :10], lambda: Checkpoint(done=1, arrays={"state": state, "none": state[:0]}))
        assert tracemalloc.get_traced_memory()[1] < state.nbytes / 2
    finally:
        tracemalloc.stop()
        bands.close()
    found = found_by(tmp_path / "a.png")
    assert found is not None
    assert np.array_equal(found.arrays["state"], state) and found.arrays["none"].shape == (0,)


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.endswith((".rows", ".state", ".part")))


@pytest.mark.parametrize("as_levels", [False, True])
def test_the_next_run_finds_bands_and_the_state_behind_them(tmp_path: Path, as_levels: bool) -> None:
    keep(tmp_path / "o.png", as_levels=as_levels)
    bands = KeptRows(tmp_path / "o.png", facts()).stream("colour0", as_levels=as_levels)
    found = bands.begin(PLAN, 40, 20)
    assert found is not None
    assert found.done == 2
    np.testing.assert_array_equal(found.arrays["state"], ROWS[0, 1])
    np.testing.assert_array_equal(found.arrays["more"], np.arange(3))
    kept = np.concatenate(list(bands.bands()), axis=1)
    bands.close()
    expected = np.rint(ROWS[:, :20] * 255).clip(0, 255).astype(np.uint8) if as_levels else ROWS[:, :20]
    np.testing.assert_array_equal(kept, expected)


def test_rows_behind_the_last_checkpoint_are_forgotten(tmp_path: Path) -> None:
    keep(tmp_path / "o.png")
    (rows,) = tmp_path.glob("*.rows")
    with rows.open("ab") as file:
        file.write(b"half a band")
    assert found_by(tmp_path / "o.png") is not None
    assert rows.stat().st_size == 3 * 20 * 20 * 4


@pytest.mark.parametrize(
    "other", [{"network": "b"}, {"plan": "another"}, {"as_levels": True}], ids=["network", "plan", "levels"]
)
def test_rows_of_another_job_are_not_used_and_make_room(tmp_path: Path, other: dict[str, Any]) -> None:
    keep(tmp_path / "o.png")
    assert found_by(tmp_path / "o.png", **other) is None
    assert hidden(tmp_path) == []
    keep(tmp_path / "o.png")
    assert found_by(tmp_path / "p.png") is None
    assert len(hidden(tmp_path)) == 2, "another output's"


@pytest.mark.parametrize("suffix", ["rows", "state"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "missing"])
def test_damaged_rows_are_not_used(tmp_path: Path, suffix: str, damage: str) -> None:
    keep(tmp_path / "o.png")
    (path,) = tmp_path.glob(f"*.{suffix}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    changed = {"flipped": bytes(content), "cut": bytes(content[:-5]), "empty": b""}
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(changed[damage])
    assert found_by(tmp_path / "o.png") is None
    assert hidden(tmp_path) == []


def test_a_full_disk_ends_the_keeping_and_not_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bands = KeptRows(tmp_path / "o.png", facts()).stream("colour0")
    bands.begin(PLAN, 40, 20)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bands, "_append", full)
    assert bands.add(ROWS[:, :10], lambda: Checkpoint(done=1, arrays={})) is not None
    assert hidden(tmp_path) == []
    assert bands.add(ROWS[:, 10:20], lambda: Checkpoint(done=2, arrays={})) is not None


def test_short_work_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_rows, "WORTH_SECONDS", 60.0)
    keep(tmp_path / "o.png")
    assert hidden(tmp_path) == []


def test_rows_that_nobody_goes_on_with_are_deleted_after_a_week(tmp_path: Path) -> None:
    keep(tmp_path / "o.png")
    for days, left in ((6, 2), (8, 0)):
        for path in tmp_path.iterdir():
            os.utime(path, (time.time() - days * 86_400,) * 2)
        kept_rows._tidied_folders.clear()  # as in a process of its own
        KeptRows(tmp_path / "another.png", facts())
        assert len(hidden(tmp_path)) == left


@pytest.mark.parametrize(
    ("engine", "scale", "mode"),
    [("onnxruntime", None, "RGB"), ("onnxruntime", None, "L"), ("onnxruntime", 3.0, "RGBA"), ("winograd", 5.0, "RGB")],
)
def test_a_stopped_job_goes_on_bit_for_bit(tmp_path: Path, mode: str, engine: str, scale: float | None) -> None:
    from safetensors.numpy import save_file

    weights = small_model(Compact(scale=2, features=8, convs=2))
    save_file(dict(weights.state), tmp_path / "n.safetensors")
    rng = np.random.default_rng(1)
    shape = (600, 100) if mode == "L" else (600, 100, len(mode))
    Image.fromarray(rng.integers(0, 255, shape, np.uint8)).save(tmp_path / "a.png")
    seen: list[float] = []

    def stop(done_px: int, total_px: int) -> None:
        if done_px > 0.7 * total_px:
            raise StoppedError

    with Upscaler(tmp_path / "n.safetensors", engine=engine) as upscaler:
        options: dict[str, Any] = {"image": ImageOptions(scale=scale)}
        upscaler.upscale_file(tmp_path / "a.png", tmp_path / "whole.png", **options)
        options["file"] = FileOptions(resume=True)
        with pytest.raises(StoppedError):
            upscaler.upscale_file(tmp_path / "a.png", tmp_path / "o.png", on_progress=stop, **options)
        assert hidden(tmp_path) != []
        done = upscaler.upscale_file(
            tmp_path / "a.png", tmp_path / "o.png", on_progress=lambda done, total: seen.append(done / total), **options
        )
    assert any("finished rows of an earlier run" in notice for notice in done.notices)
    assert (tmp_path / "o.png").read_bytes() == (tmp_path / "whole.png").read_bytes()
    assert hidden(tmp_path) == []
    assert seen[1] > 0.2, "it began anew"
    assert seen[-1] == 1


KILLED_COMMAND = """
import os, signal, sys
from realesr.cli import main
from realesr.runtime import kept_rows

kept_rows.WORTH_SECONDS, kept_rows.CHECKPOINT_SECONDS, kept_rows.CHECKPOINT_SHARE = -1.0, 0.0, 1e9
write_state, begin = kept_rows.KeptBands._write_state, kept_rows.KeptBands.begin

def killed(bands, checkpoint):
    write_state(bands, checkpoint)
    if "KILL" in os.environ and checkpoint.done >= 3:
        os.kill(os.getpid(), signal.SIGKILL)

def told(bands, *size):
    found = begin(bands, *size)
    print("goes on" if found else "begins")
    return found

kept_rows.KeptBands._write_state, kept_rows.KeptBands.begin = killed, told
sys.argv[:1] = "realesr upscale a.png -o o.png --engine nearest --tile 16 --quiet".split()
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_command_goes_on_and_no_resume_begins_anew(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(2).integers(0, 255, (200, 40, 3), np.uint8)).save(tmp_path / "a.png")

    def run(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", KILLED_COMMAND, *options],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    assert run(KILL="1").returncode == -9
    assert len(hidden(tmp_path)) == 3, "rows, their state, and the half-written image"
    done = run()
    assert (done.stdout, done.stderr) == ("goes on\no.png\n", "")
    with Image.open(tmp_path / "a.png") as source, Image.open(tmp_path / "o.png") as output:
        np.testing.assert_array_equal(np.asarray(output)[::4, ::4], np.asarray(source))
    assert hidden(tmp_path) == []
    (tmp_path / "o.png").unlink()
    assert run(KILL="1").returncode == -9
    assert run("--no-resume").stdout == "o.png\n"
