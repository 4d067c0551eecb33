"""Compares batches: the same bytes in any number of processes, and wherever the run goes on."""

import multiprocessing
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import pytest
import pyvips
import torch
from PIL import Image

from realesr.errors import InputError, UsageError
from realesr.train.data.loader import Batch, TrainingData, batches
from tests.images.image_files import photo


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(6):
        Image.fromarray(photo(40 + number, 50, seed=number)).save(folder / f"{number}.png")
    for number in range(3):
        small = photo(12, 14 + number, seed=number)
        Image.fromarray(small).save(folder / f"small{number}.png")
        Image.fromarray(small.repeat(2, axis=0).repeat(2, axis=1)).save(folder / f"large{number}.png")
    return folder


@pytest.fixture
def data(folder: Path) -> TrainingData:
    return TrainingData(
        images=tuple(folder / f"{number}.png" for number in range(6)),
        pairs=tuple((folder / f"large{number}.png", folder / f"small{number}.png") for number in range(3)),
        pair_share=0.25,
        crop_px=32,
        pair_crop_px=16,
        scale=2,
        flip=True,
        rotate=True,
    )


def take(count: int, stream: Iterator[Batch]) -> list[Batch]:
    return list(islice(stream, count))


def same(one: Batch, other: Batch) -> bool:
    assert one.pair_hr is not None and one.pair_lr is not None
    assert other.pair_hr is not None and other.pair_lr is not None
    return (
        one.paths == other.paths
        and one.padded == other.padded
        and torch.equal(one.hr, other.hr)
        and torch.equal(one.pair_hr, other.pair_hr)
        and torch.equal(one.pair_lr, other.pair_lr)
    )


def test_a_batch_has_images_and_pairs_in_their_share(data: TrainingData, folder: Path) -> None:
    batch = take(1, batches(data, seed=1, first_iteration=0, batch=8))[0]
    assert batch.hr.shape == (6, 3, 32, 32)
    assert batch.pair_hr is not None and batch.pair_hr.shape == (2, 3, 16, 16)
    assert batch.pair_lr is not None and batch.pair_lr.shape == (2, 3, 8, 8)
    assert batch.hr.dtype == batch.pair_hr.dtype == batch.pair_lr.dtype == torch.uint8
    # Each large image was made of its small one by repeating pixels, so that flips and places can be seen to agree.
    assert torch.equal(batch.pair_hr[:, :, ::2, ::2], batch.pair_lr)
    assert [Path(path).name[:5] == "large" for path in batch.paths] == [False] * 6 + [True] * 2


def test_processes_that_read_change_nothing(data: TrainingData) -> None:
    here = take(4, batches(data, seed=1, first_iteration=0, batch=4))
    there = take(4, batches(data, seed=1, first_iteration=0, batch=4, workers=2))
    assert all(map(same, here, there))


def test_a_run_that_goes_on_sees_what_it_would_have_seen(data: TrainingData) -> None:
    whole = take(6, batches(data, seed=1, first_iteration=0, batch=4))
    rest = take(3, batches(data, seed=1, first_iteration=3, batch=4))
    assert all(map(same, whole[3:], rest))
    assert not same(whole[0], rest[0])


def test_two_processes_see_what_one_with_twice_the_batch_sees(data: TrainingData) -> None:
    one = take(3, batches(data, seed=1, first_iteration=2, batch=8))
    parts = [take(3, batches(data, seed=1, first_iteration=2, batch=4, rank=rank, world=2)) for rank in (0, 1)]
    for whole, first, second in zip(one, *parts, strict=True):
        for name in ("hr", "pair_hr", "pair_lr"):
            assert torch.equal(getattr(whole, name), torch.cat([getattr(first, name), getattr(second, name)])), name
        images, pairs = whole.paths[:6], whole.paths[6:]
        assert images == first.paths[:3] + second.paths[:3]
        assert pairs == first.paths[3:] + second.paths[3:]


def test_another_seed_gives_other_batches(data: TrainingData) -> None:
    one, other = (take(1, batches(data, seed=seed, first_iteration=0, batch=4))[0] for seed in (1, 2))
    assert not torch.equal(one.hr, other.hr)


def test_every_image_is_seen_once_an_epoch(data: TrainingData) -> None:
    data = replace(data, pair_share=0.0)
    for world in (1, 3):
        streams = [batches(data, seed=4, first_iteration=0, batch=2, rank=rank, world=world) for rank in range(world)]
        seen = [path for _ in range(6 // world) for stream in streams for path in next(stream).paths]
        assert Counter(seen) == Counter({str(path): 2 for path in data.images})


def test_an_image_is_cut_elsewhere_each_time(data: TrainingData) -> None:
    data = replace(data, images=data.images[:1], pair_share=0.0)
    crops = take(1, batches(data, seed=4, first_iteration=0, batch=12))[0].hr
    assert len({crop.numpy().tobytes() for crop in crops}) > 8


def test_less_than_one_pair_a_batch_comes_now_and_then(data: TrainingData) -> None:
    data = replace(data, pair_share=0.1)
    pairs = [batch.pair_hr for batch in take(10, batches(data, seed=1, first_iteration=0, batch=2))]
    assert sum(0 if each is None else len(each) for each in pairs) == 2
    again = [batch.pair_hr for batch in take(5, batches(data, seed=1, first_iteration=5, batch=2))]
    assert [each is None for each in again] == [each is None for each in pairs[5:]]


def test_pairs_alone(data: TrainingData) -> None:
    batch = take(1, batches(replace(data, images=(), pair_share=1.0), seed=1, first_iteration=0, batch=3))[0]
    assert len(batch.hr) == 0
    assert batch.pair_lr is not None and len(batch.pair_lr) == 3


def test_images_alone_have_no_pairs(data: TrainingData) -> None:
    batch = take(1, batches(replace(data, pairs=(), pair_share=0.0), seed=1, first_iteration=0, batch=3))[0]
    assert batch.pair_hr is None and batch.pair_lr is None


def test_small_images_are_counted(data: TrainingData) -> None:
    data = replace(data, crop_px=44, pair_share=0.0)
    batch = take(1, batches(data, seed=1, first_iteration=0, batch=6))[0]
    assert batch.hr.shape == (6, 3, 44, 44)
    assert batch.padded == 4  # heights are 40 to 45


def test_one_deep_image_makes_the_batch_float(data: TrainingData, tmp_path: Path) -> None:
    values = np.full((32, 32, 3), 12345, np.uint16)
    pyvips.Image.new_from_array(values).copy(interpretation="rgb16").pngsave(str(tmp_path / "deep.png"))
    plain = np.full((32, 32, 3), 51, np.uint8)
    Image.fromarray(plain).save(tmp_path / "plain.png")
    data = replace(data, images=(tmp_path / "deep.png", tmp_path / "plain.png"), pair_share=0.0)
    batch = take(1, batches(data, seed=1, first_iteration=0, batch=2))[0]
    values_by_name = {Path(path).name: float(hr[0, 0, 0]) for path, hr in zip(batch.paths, batch.hr, strict=True)}
    assert batch.hr.dtype == torch.float32
    assert values_by_name["deep.png"] * 65535 == pytest.approx(12345, abs=0.01)
    assert values_by_name["plain.png"] == pytest.approx(0.2, abs=1e-7)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_breaks_in_the_middle_of_a_run_is_named(data: TrainingData, tmp_path: Path, workers: int) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    data = replace(data, images=(tmp_path / "broken.png",), pair_share=0.0)
    with pytest.raises(InputError, match=r"^\S*broken\.png is damaged"):
        next(batches(data, seed=1, first_iteration=0, batch=2, workers=workers))


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="no such signal here")
def test_a_reading_process_that_was_killed_ends_the_run_with_advice(data: TrainingData) -> None:
    before = set(multiprocessing.active_children())
    stream = batches(data, seed=1, first_iteration=0, batch=2, workers=1)
    next(stream)
    (reader,) = set(multiprocessing.active_children()) - before
    # Else torch's handler of this signal might raise its error in the middle of the test.
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        reader.kill()
        with pytest.raises(InputError, match=r"a process that reads images was ended.*lower data\.workers"):
            take(10, stream)
    finally:
        signal.signal(signal.SIGCHLD, handler)


READ = """
import sys
from pathlib import Path
from realesr.train.data.loader import TrainingData, batches
if __name__ == "__main__":
    source = TrainingData(images=tuple(map(Path, sys.argv[1:])), pairs=(), pair_share=0.0, crop_px=32, pair_crop_px=16,
                          scale=2, flip=True, rotate=True)
    stream = batches(source, seed=1, first_iteration=0, batch=2, workers=2)
    next(stream)
    print("reading", flush=True)
    import time
    time.sleep(60)
"""


def test_reading_processes_end_with_a_trainer_that_is_killed(data: TrainingData, tmp_path: Path) -> None:
    script = tmp_path / "read.py"
    script.write_text(READ)
    command = [sys.executable, str(script), *map(str, data.images)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None and trainer.stdout.readline() == "reading\n"
        readers = psutil.Process(trainer.pid).children(recursive=True)
        assert len(readers) >= 2
        trainer.kill()
    _, alive = psutil.wait_procs(readers, timeout=5)
    assert alive == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pair_share": 1.5}, "pair_share"),
        ({"images": ()}, "no images"),
        ({"pairs": ()}, "no pairs"),
        ({"pair_crop_px": 15}, "multiple of the scale 2"),
        ({"crop_px": 0}, "1 or more"),
    ],
)
def test_data_that_makes_no_sense_is_refused(data: TrainingData, change: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(data, **change)  # type: ignore[arg-type]
