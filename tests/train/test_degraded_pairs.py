"""Checks exported pairs: what training reads back, where an export goes on, and what it refuses."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from realesr.errors import OutputError, OutputExists, UsageError
from realesr.train import degraded_pairs
from realesr.train.data.loader import TrainingData, batches
from realesr.train.data.pairs import find_pairs
from realesr.train.degrade.apply import apply, crop_pair
from realesr.train.degrade.degradation import Degradation
from realesr.train.degrade.filters import sharpen
from realesr.train.degrade.recipe import CORRECTED
from realesr.train.degraded_pairs import PairSettings, export_pairs
from realesr.train.run_lock import run_lock

SETTINGS = PairSettings(degrade=CORRECTED, scale=4, read_px=48, crop_px=32, sharpened=True, seed=0, max_failures=5)

Export = Callable[..., int]


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Three photos: two larger than what is read, one of exactly that."""
    (tmp_path / "photos").mkdir()
    paths = []
    for name, size in (("a", (60, 70)), ("b", (48, 48)), ("c", (90, 50))):
        image = Image.effect_noise((size[0] // 4, size[1] // 4), 90).convert("RGB")
        paths.append(tmp_path / "photos" / f"{name}.png")
        image.resize(size, Image.Resampling.BICUBIC).save(paths[-1])
    return paths


@pytest.fixture
def export(images: list[Path]) -> Export:
    """`export(folder, count)`; `said` and `done` are what it said and how far it was."""

    def call(folder: Path, count: int, settings: PairSettings = SETTINGS, **options: Any) -> int:
        values: dict[str, Any] = {"say": lambda _: None, "on_progress": lambda *_: None} | options
        return export_pairs(images, folder, count, settings, **values)

    return call


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_training_reads_the_pairs_back(tmp_path: Path, export: Export) -> None:
    assert export(tmp_path / "out", 5) == 5
    pairs = find_pairs([tmp_path / "out" / "hr"], [tmp_path / "out" / "lr"])
    assert len(pairs) == 5
    source = TrainingData(
        images=(),
        pairs=tuple(pairs),
        pair_share=1.0,
        crop_px=32,
        pair_crop_px=32,
        scale=4,
        flip=False,
        rotate=False,
        max_failures=0,
    )
    batch = next(batches(source, seed=0, first_iteration=0, batch=5))
    assert batch.pair_lr is not None and batch.pair_hr is not None
    for path, lr, hr in zip(batch.paths, batch.pair_lr, batch.pair_hr, strict=True):
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image).transpose(2, 0, 1), hr)
        with Image.open(Path(path).parents[1] / "lr" / Path(path).name) as image:
            assert np.array_equal(np.asarray(image).transpose(2, 0, 1), lr)


def test_the_parameters_of_a_pair_make_it_again_from_its_image(tmp_path: Path, export: Export) -> None:
    export(tmp_path / "out", 9)
    records = [json.loads(line) for line in (tmp_path / "out" / "parameters.jsonl").read_text().splitlines()]
    assert [record["name"] for record in records] == [f"{number:06d}.png" for number in range(9)]
    (record,) = [record for record in records[:3] if record["image"].endswith("b.png")]  # it is read whole
    degradation = Degradation.from_json(record["degradation"])
    with Image.open(record["image"]) as image:
        hr = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    lr, hr = crop_pair(apply(sharpen(hr), degradation), hr, degradation, 32)
    for kind, expected in (("lr", lr), ("hr", hr)):
        with Image.open(tmp_path / "out" / kind / record["name"]) as image:
            assert np.array_equal(np.asarray(image), (expected[0] * 255).round().byte().permute(1, 2, 0).numpy())


def test_every_pair_has_sizes_of_its_own(tmp_path: Path, export: Export) -> None:
    export(tmp_path / "out", 8)
    lines = (tmp_path / "out" / "parameters.jsonl").read_text().splitlines()
    factors = {json.loads(line)["degradation"]["samples"][0]["shared"]["first_resize"]["factor"] for line in lines}
    assert len(factors) > 4


def test_the_same_pairs_come_however_often_an_export_is_stopped_or_enlarged(tmp_path: Path, export: Export) -> None:
    class StoppedError(Exception):
        pass

    def stop_at(number: int) -> Callable[[int, int], None]:
        def on_progress(done: int, _: int) -> None:
            if done == number:
                raise StoppedError

        return on_progress

    assert export(tmp_path / "whole", 19) == 19
    parts = tmp_path / "parts"
    for number in (3, 11):
        with pytest.raises(StoppedError):
            export(parts, 12, on_progress=stop_at(number))
    assert export(parts, 12) == 1
    assert export(parts, 19) == 7
    assert content(parts) == content(tmp_path / "whole")
    assert export(parts, 10) == 0


def test_a_killed_export_leaves_half_a_line_and_half_an_image_that_do_not_count(tmp_path: Path, export: Export) -> None:
    export(tmp_path / "whole", 4)
    export(tmp_path / "killed", 3)
    with (tmp_path / "killed" / "parameters.jsonl").open("ab") as lines:
        lines.write(b'{"name": "000003.png", "ima')
    (tmp_path / "killed" / "hr" / ".realesr-0123456789ab.part").write_bytes(b"half")
    (tmp_path / "killed" / "hr" / "000003.png").write_bytes(b"of another time")
    export(tmp_path / "killed", 4)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_another_seed_gives_other_pairs(tmp_path: Path, export: Export) -> None:
    export(tmp_path / "a", 2)
    export(tmp_path / "b", 2, dataclasses.replace(SETTINGS, seed=1))
    assert content(tmp_path / "a")["lr/000000.png"] != content(tmp_path / "b")["lr/000000.png"]


def test_folders_of_other_things_and_other_settings_are_refused(tmp_path: Path, export: Export) -> None:
    out = tmp_path / "out"
    export(out, 2)
    with pytest.raises(UsageError, match=r"made otherwise \(scale, "):
        export(out, 4, dataclasses.replace(SETTINGS, scale=2, crop_px=30))
    with pytest.raises(UsageError, match=r"made otherwise \(degrade\)"):
        export(out, 4, dataclasses.replace(SETTINGS, degrade=dataclasses.replace(CORRECTED, final_sinc=0.0)))
    with pytest.raises(OutputExists, match="no export of pairs made"):
        export(tmp_path / "photos", 2)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OutputError, match="choose another folder"):
        export(file, 2)
    for count in (0, 1_000_001):
        with pytest.raises(UsageError, match="1 to 1,000,000"):
            export(tmp_path / "new", count)
    assert not (tmp_path / "new").exists()


def test_two_exports_do_not_write_into_one_folder(tmp_path: Path, export: Export) -> None:
    with run_lock(tmp_path / "out"), pytest.raises(UsageError, match="is in use"):
        export(tmp_path / "out", 2)


def test_an_image_that_cannot_be_read_is_named_and_replaced(tmp_path: Path, images: list[Path], export: Export) -> None:
    images[0].write_bytes(b"no image")
    said: list[str] = []
    assert export(tmp_path / "out", 3, say=said.append) == 3
    assert [line for line in said if "left out" in line and "a.png" in line]


def test_images_that_are_mirrored_are_told(tmp_path: Path, export: Export) -> None:
    said: list[str] = []
    export(tmp_path / "out", 6, dataclasses.replace(SETTINGS, read_px=64), say=said.append)
    assert sum("smaller than 64 px and was mirrored" in line for line in said) == 3  # once an image


def test_a_full_disk_leaves_whole_pairs_that_the_next_call_goes_on_from(
    tmp_path: Path, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(tmp_path / "whole", 4)
    write = degraded_pairs._write

    def full(folder: Path, number: int, *rest: Any) -> None:
        if number == 2:
            raise OSError(28, "No space left on device")
        write(folder, number, *rest)

    monkeypatch.setattr(degraded_pairs, "_write", full)
    with pytest.raises(OutputError, match="No space left"):
        export(tmp_path / "out", 4)
    monkeypatch.undo()
    assert len((tmp_path / "out" / "parameters.jsonl").read_text().splitlines()) == 2
    assert export(tmp_path / "out", 4) == 2
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"scale": 0}, "the scale 0, expected 1 to 16"),
        ({"read_px": 50}, "read_px = 50, expected a multiple"),
        ({"crop_px": 64}, "crop_px = 64, expected at most read_px = 48"),
        ({"crop_px": 0}, "crop_px = 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        dataclasses.replace(SETTINGS, **values)
