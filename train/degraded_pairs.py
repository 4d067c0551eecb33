"""Writes pairs of images, one of them degraded as in training, with the parameters of each.

    FOLDER/hr/000000.png        what was cut from an image, 8 bits
    FOLDER/lr/000000.png        the same, degraded
    FOLDER/parameters.jsonl     a line a pair: its name, its image, and everything that was drawn
    FOLDER/export.json          what they were made with

`gt` and `lq` of training read the two folders. A pair counts once its line is there, so that a process that was killed
goes on with the next pair.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from realesr.errors import InputError, OutputError, OutputExists, UsageError
from realesr.machine.whole_file import not_written, remove_unfinished, whole_file
from realesr.progress import AmountCallback, MessageCallback
from realesr.train.data.loader import TrainingData, batches
from realesr.train.data.samples import seed_of
from realesr.train.degrade.codecs import check_codecs
from realesr.train.degrade.degradation import Degradation
from realesr.train.degrade.recipe import DegradeRecipe
from realesr.train.degraded_crops import as_bytes, degraded_crops
from realesr.train.run_lock import LOCK, run_lock

HR, LR, PARAMETERS, EXPORT = "hr", "lr", "parameters.jsonl", "export.json"

VERSION = 1
"""Version of export.json and of the lines of parameters.jsonl."""

MOST_PAIRS = 1_000_000
"""Pairs have names of six digits."""

_ADVICE = "free some space, or choose another folder"


@dataclass(frozen=True, kw_only=True)
class PairSettings:
    """Everything that pairs depend on beside the images."""

    degrade: DegradeRecipe
    scale: int
    """HR px per LR px and side, 1 to 16."""
    read_px: int
    """Side of what is cut from an image and degraded, in HR px; a multiple of the scale."""
    crop_px: int
    """Side of what is kept of it, in HR px; a multiple of the scale, at most `read_px`."""
    sharpened: bool
    """Whether images are sharpened before they are degraded (Real-ESRGAN does so); `hr` is not sharpened."""
    seed: int
    max_failures: int
    """Most images that may be unreadable."""

    def __post_init__(self) -> None:
        if not 1 <= self.scale <= 16:
            raise UsageError(f"got the scale {self.scale}, expected 1 to 16")
        for name in ("read_px", "crop_px"):
            px = getattr(self, name)
            if px % self.scale or not self.scale <= px <= 8192:
                raise UsageError(
                    f"got {name} = {px}, expected a multiple of the scale {self.scale}, {self.scale} to 8192"
                )
        if self.crop_px > self.read_px:
            raise UsageError(f"got crop_px = {self.crop_px}, expected at most read_px = {self.read_px}")


def export_pairs(
    images: Sequence[Path],
    folder: Path,
    count: int,
    settings: PairSettings,
    *,
    say: MessageCallback,
    on_progress: AmountCallback,
) -> int:
    """Write pairs into a folder until there are `count`; return how many of them are new.

    The k-th pair follows from images, settings and k: neither from `count` nor from where an earlier call was stopped.
    No two share sizes, and no pool mixes them.

    Args:
        images: are cut and degraded; every one of them comes once before the first comes again.
        folder: new or empty, or of an earlier call with the same images and settings, which is gone on with.
        count: 1 to 1,000,000.
        settings: of the pairs.
        say: called with each message.
        on_progress: called with the pairs that are there and `count`.

    Raises:
        UsageError: the count is out of range, the folder has pairs of other images or settings, or another process
            writes into it.
        OutputExists: the folder has other files.
        OutputError: the folder cannot be written; the pairs that are there are whole.
        InputError: more than `settings.max_failures` images cannot be read.
        MissingDependency: a codec of the recipe is not installed.
    """
    if not 1 <= count <= MOST_PAIRS:
        raise UsageError(f"got {count} pairs, expected 1 to {MOST_PAIRS:,}")
    check_codecs(settings.degrade)
    settings = replace(settings, degrade=replace(settings.degrade, group=1, pool=0))
    _check_free(folder)
    with ExitStack() as held:
        held.enter_context(run_lock(folder))
        _begin(folder, _facts(images, settings))
        done = _whole_lines(folder / PARAMETERS)
        try:
            with (folder / PARAMETERS).open("ab") as lines:
                for number, pair in enumerate(_pairs(images, settings, done, count, say), start=done):
                    on_progress(number, count)
                    _write(folder, number, pair, lines)
        except OSError as error:
            raise not_written(folder, error, _ADVICE) from error
    on_progress(max(done, count), count)
    return max(0, count - done)


def check_outside(folder: Path, places: Sequence[Path]) -> None:
    """Raise UsageError where a folder lies in one that photos are taken from: what is written would become one of them.

    Args:
        folder: to be written into.
        places: folders, images and lists of images.
    """
    for place in places:
        if place.is_dir() and folder.resolve().is_relative_to(place.resolve()):
            raise UsageError(f"{folder} lies in {place}, from which the photos are taken: choose a folder elsewhere")


@dataclass(frozen=True, kw_only=True)
class _Pair:
    hr: Tensor
    """(3, crop, crop) float32 in [0, 1]."""
    lr: Tensor
    path: str
    drawn: Degradation


def _pairs(
    images: Sequence[Path], settings: PairSettings, first: int, count: int, say: MessageCallback
) -> Iterator[_Pair]:
    """Yield the pairs from `first` to below `count`."""
    if first >= count:
        return
    source = TrainingData(
        images=tuple(images),
        pairs=(),
        pair_share=0.0,
        crop_px=settings.read_px,
        pair_crop_px=settings.crop_px,
        scale=settings.scale,
        flip=False,
        rotate=False,
        max_failures=settings.max_failures,
    )
    mirrored = set[str]()
    stream = batches(source, seed=settings.seed, first_iteration=first, batch=1)
    for number, batch in zip(range(first, count), stream, strict=False):
        for reason in batch.failures.values():
            say(f"left out: {reason}")
        if batch.padded and batch.paths[0] not in mirrored:
            mirrored.add(batch.paths[0])
            say(f"{batch.paths[0]} is smaller than {settings.read_px} px and was mirrored to that size")
        lr, hr, drawn = degraded_crops(
            batch.hr,
            settings.degrade,
            seed=seed_of(number, settings.seed),
            scale=settings.scale,
            crop_px=settings.crop_px,
            sharpened=settings.sharpened,
        )
        yield _Pair(hr=hr[0], lr=lr[0], path=batch.paths[0], drawn=drawn)


def _write(folder: Path, number: int, pair: _Pair, lines: Any) -> None:
    """Write both images, then the line that makes them count."""
    name = f"{number:06d}.png"
    for kind, pixels in ((HR, pair.hr), (LR, pair.lr)):
        image = Image.fromarray(as_bytes(pixels).permute(1, 2, 0).contiguous().numpy())
        with whole_file(folder / kind / name) as part:
            image.save(part, "PNG")
    record = {"name": name, "image": pair.path, "degradation": pair.drawn.to_json()}
    lines.write(json.dumps(record).encode() + b"\n")
    lines.flush()
    os.fsync(lines.fileno())


def _check_free(folder: Path) -> None:
    """Raise where a folder has files of others."""
    try:
        has_files = folder.exists() and any(path.name != LOCK for path in folder.iterdir())
    except OSError as error:
        raise OutputError(f"{folder} cannot be written to ({error.strerror}): choose another folder") from None
    if has_files and not (folder / EXPORT).exists():
        raise OutputExists(f"{folder} has files that no export of pairs made: choose a new or an empty folder")


def _begin(folder: Path, facts: dict[str, Any]) -> None:
    """Make the folder, or check that what is there was begun with the same facts."""
    try:
        for kind in (HR, LR):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            remove_unfinished(folder / kind)
        (folder / PARAMETERS).touch()
        if not (folder / EXPORT).exists():
            with whole_file(folder / EXPORT) as part:
                part.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise not_written(folder, error, _ADVICE) from error
    before = _read_facts(folder / EXPORT)
    if before != facts:
        differing = ", ".join(key for key in {**before, **facts} if before.get(key) != facts.get(key))
        raise UsageError(f"{folder} has pairs that were made otherwise ({differing}): choose another folder")


def _facts(images: Sequence[Path], settings: PairSettings) -> dict[str, Any]:
    """Return what decides the pixels, as JSON reads it back."""
    names = "\n".join(str(path) for path in images)
    facts = {**asdict(settings), "images": len(images), "images_sha256": hashlib.sha256(names.encode()).hexdigest()}
    del facts["max_failures"]
    plain: dict[str, Any] = json.loads(json.dumps({"version": VERSION, **facts}))
    return plain


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{path} cannot be read: choose another folder") from None
    if not isinstance(facts, dict):
        raise InputError(f"{path} is not what an export of pairs writes: choose another folder")
    return facts


def _whole_lines(path: Path) -> int:
    """Cut off a last line without its end, which a process that was killed has left; return the number of lines."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    return content.count(b"\n")
