"""Compares batches: the same bytes in any number of processes, and wherever the run goes on."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import pyvips
import torch
from PIL import Image

from realesr.errors import InputError, UsageError
from realesr.train.data import loader
from realesr.train.data.crops import Crop, read_crop
from realesr.train.data.loader import Batch, TrainingData, batches
from realesr.train.data.samples import image_of
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
        max_failures=2,
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


@pytest.fixture
def partly_broken(data: TrainingData, tmp_path: Path) -> TrainingData:
    """The same images, of which the third is cut and the fifth is gone; and pairs, of which the second does not fit."""
    (tmp_path / "2.png").write_bytes(data.images[2].read_bytes()[:3000])
    images = (*data.images[:2], tmp_path / "2.png", data.images[3], tmp_path / "4.png", data.images[5])
    pairs = (data.pairs[0], (data.pairs[1][0], data.pairs[2][1]), data.pairs[2])
    return replace(data, images=images, pairs=pairs, max_failures=3)


def test_unreadable_images_are_left_out_and_named_once(partly_broken: TrainingData, tmp_path: Path) -> None:
    read = take(12, batches(partly_broken, seed=1, first_iteration=0, batch=8))
    unfit = f"{partly_broken.pairs[1][0]} and {partly_broken.pairs[1][1]}"
    broken = [str(tmp_path / "2.png"), str(tmp_path / "4.png"), unfit]
    assert sorted(name for batch in read for name in batch.failures) == sorted(broken)
    reasons = {name: reason for batch in read for name, reason in batch.failures.items()}
    assert "2.png is truncated or damaged" in reasons[broken[0]]
    assert "4.png does not exist" in reasons[broken[1]]
    assert "expected the first to be 2 times the second" in reasons[unfit]
    assert {path for batch in read for path in batch.paths}.isdisjoint([*broken, str(partly_broken.pairs[1][0])])
    assert all(len(batch.hr) == 6 and batch.pair_hr is not None and len(batch.pair_hr) == 2 for batch in read)


def test_a_readable_sample_is_what_it_is_without_broken_ones(data: TrainingData, partly_broken: TrainingData) -> None:
    whole, rest = (
        take(8, batches(replace(source, pair_share=0.0), seed=1, first_iteration=0, batch=6))
        for source in (data, partly_broken)
    )
    readable = set(map(str, partly_broken.images)) & set(map(str, data.images))
    for one, other in zip(whole, rest, strict=True):
        for place, path in enumerate(one.paths):
            if path in readable:
                assert other.paths[place] == path
                assert torch.equal(one.hr[place], other.hr[place])


def test_the_image_of_the_next_sample_replaces_an_unreadable_one_but_is_cut_elsewhere(
    data: TrainingData, tmp_path: Path
) -> None:
    images = tuple(sorted({*data.images[1:], tmp_path / "gone.png"}))
    source = replace(data, images=images, pair_share=0.0, rotate=False, flip=False)
    batch = take(1, batches(source, seed=3, first_iteration=0, batch=6))[0]
    order = [str(images[image_of(sample, 6, 3)]) for sample in range(6)]
    place = order.index(str(tmp_path / "gone.png"))
    following = (place + 1) % 6
    assert batch.paths == [path if number != place else order[following] for number, path in enumerate(order)]
    assert not torch.equal(batch.hr[place], batch.hr[following])


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_that_read_and_a_resume_change_nothing(partly_broken: TrainingData, workers: int) -> None:
    """Nothing may depend on which failures a process has met before."""
    whole = take(6, batches(partly_broken, seed=1, first_iteration=0, batch=8))
    resumed = take(3, batches(partly_broken, seed=1, first_iteration=3, batch=8, workers=workers))
    assert all(map(same, whole[3:], resumed))


def test_replacements_are_the_same_in_two_processes(partly_broken: TrainingData) -> None:
    whole = take(2, batches(partly_broken, seed=1, first_iteration=4, batch=8))
    ranks = [take(2, batches(partly_broken, seed=1, first_iteration=4, batch=4, rank=rank, world=2)) for rank in (0, 1)]
    for one, first, second in zip(whole, *ranks, strict=True):
        for name in ("hr", "pair_hr", "pair_lr"):
            assert torch.equal(getattr(one, name), torch.cat([getattr(first, name), getattr(second, name)])), name


def test_a_file_that_is_cut_or_deleted_while_a_run_reads_it_is_replaced(data: TrainingData, tmp_path: Path) -> None:
    images = []
    for path in data.images:
        images.append(tmp_path / path.name)
        images[-1].write_bytes(path.read_bytes())
    source = replace(data, images=tuple(images), pair_share=0.0)
    stream = batches(source, seed=1, first_iteration=0, batch=6)
    assert next(stream).failures == {}
    os.truncate(images[1], 2000)
    images[3].unlink()
    later = next(stream)
    assert sorted(later.failures) == [str(images[1]), str(images[3])]
    assert len(later.hr) == 6
    assert next(stream).failures == {}


@pytest.mark.parametrize("workers", [0, 1])
def test_more_failures_than_allowed_end_the_run_and_are_named(data: TrainingData, tmp_path: Path, workers: int) -> None:
    gone = [tmp_path / f"gone{number}.png" for number in range(3)]
    source = replace(data, images=(*data.images, *gone), pair_share=0.0)
    reason = r"\S*gone\d\.png does not exist[^;]*"
    words = rf"^3 images cannot be read, more than data\.max_failures = 2 allows \({reason}; {reason}; {reason}\):"
    with pytest.raises(InputError, match=words):
        take(3, batches(source, seed=1, first_iteration=0, batch=3, workers=workers))


def test_a_disk_that_is_gone_ends_the_run_without_asking_for_every_image(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def counted(path: Path, *args: Any, **options: Any) -> Crop:
        asked.append(path)
        return read_crop(path, *args, **options)

    monkeypatch.setattr(loader, "read_crop", counted)
    images = tuple(tmp_path / "unmounted" / f"{number}.png" for number in range(10_000))
    source = replace(data, images=images, pair_share=0.0, max_failures=20)
    with pytest.raises(InputError, match=r"^21 images cannot be read.*and 16 more\): check that their disk is there"):
        next(batches(source, seed=1, first_iteration=0, batch=64))
    assert len(asked) == 21


def test_where_no_image_can_be_read_the_run_ends_whatever_is_allowed(data: TrainingData, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    source = replace(data, images=(tmp_path / "broken.png",), pair_share=0.0, max_failures=100)
    with pytest.raises(InputError, match=r"^no image is left that can be read \(\S*broken\.png is damaged"):
        next(batches(source, seed=1, first_iteration=0, batch=2))


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
                          scale=2, flip=True, rotate=True, max_failures=0)
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
        ({"max_failures": -1}, "0 or more"),
    ],
)
def test_data_that_makes_no_sense_is_refused(data: TrainingData, change: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(data, **change)  # type: ignore[arg-type]
