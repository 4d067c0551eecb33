"""Asks a teacher for its answers to patches, once: what is there from an earlier call is kept, if it was made alike."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.engine import Engine
from realesr.errors import EngineError, InputError, OutOfMemory, OutputError, UsageError
from realesr.machine.whole_file import file_sha256, not_written, remove_unfinished, whole_file
from realesr.models.weights import Weights
from realesr.progress import AmountCallback, MessageCallback
from realesr.runtime.rows import prefetch
from realesr.train.degrade.codecs import check_codecs
from realesr.train.distill.answers import HELD_OUT, SHARD, Answers, Bytes
from realesr.train.distill.patches import Inputs, PatchOptions, patches
from realesr.train.run_lock import run_lock

TEACHER = "teacher.json"

VERSION = 1
"""Version of teacher.json."""

OpenTeacher = Callable[[Weights | Path], Engine]
"""Opens a network by the fastest engine that there is here."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a teacher is asked."""

    teacher: Weights | Path
    images: tuple[Path, ...]
    held_out: tuple[Path, ...]
    """Images that nothing is learned from."""
    options: PatchOptions
    patches: int
    """At least so many answers; a whole number of shards is made."""
    held_out_patches: int
    workers: int
    """Processes that read images."""
    max_failures: int
    device: str
    """Device on which images are degraded."""

    @property
    def shards(self) -> int:
        """Return how many folders of patches it takes."""
        return -(-self.patches // SHARD)

    def facts(self) -> dict[str, Any]:
        """Return what decides the answers, as JSON reads it back."""
        facts = {
            "version": VERSION,
            "teacher_sha256": file_sha256(self.teacher) if isinstance(self.teacher, Path) else self.teacher.sha256,
            **asdict(self.options),
            "images": len(self.images),
            "images_sha256": _fingerprint(self.images),
            "held_out": len(self.held_out),
            "held_out_sha256": _fingerprint(self.held_out),
            "held_out_patches": self.held_out_patches,
        }
        plain: dict[str, Any] = json.loads(json.dumps(facts))
        return plain


def answer_all(
    question: Question,
    folder: Path,
    open_teacher: OpenTeacher,
    *,
    say: MessageCallback,
    on_progress: AmountCallback,
) -> Answers:
    """Have all patches answered; return where they are.

    Args:
        question: what is asked.
        folder: of the answers; those that are there are kept, and more are added.
        open_teacher: called where there is something to answer.
        say: called with each message.
        on_progress: called with the patches that are answered and those in all.

    Raises:
        UsageError: the folder has answers to another question, or another process writes into it; or the teacher has
            another scale, or does not take patches of this size.
        OutputError: the disk has no room for the answers, or the folder cannot be written; what is there is whole.
        InputError: more images than may cannot be read.
        EngineError: the teacher fails.
        MissingDependency: a codec of the recipe is not installed.
    """
    check_codecs(question.options.degrade)
    answers = Answers(folder=folder, patch_px=question.options.patch_px, scale=question.options.scale)
    with run_lock(folder):
        _begin(folder, question.facts())
        done, total = answers.whole_shards(), question.shards
        if done >= total and (folder / HELD_OUT).is_dir():
            say(f"the teacher's answers to {total * SHARD:,} patches are there: {folder}")
            return answers
        _check_room(answers, total - done)
        with closing(open_teacher(question.teacher)) as teacher:
            _check_teacher(teacher, question.options)
            spec = teacher.spec
            say(f"the teacher answers {(total - done) * SHARD:,} patches by engine {spec.name} {spec.precision}")
            _answer_held_out(question, answers, teacher, say)
            _answer_rest(question, answers, teacher, done, say, on_progress)
    return answers


def _answer_held_out(question: Question, answers: Answers, teacher: Engine, say: MessageCallback) -> None:
    if (answers.folder / HELD_OUT).is_dir():
        return
    stream = patches(
        question.held_out,
        question.options,
        size=question.held_out_patches,
        held_out=True,
        max_failures=question.max_failures,
        device=question.device,
    )
    _answer(answers, None, next(stream), teacher, say)


def _answer_rest(
    question: Question,
    answers: Answers,
    teacher: Engine,
    done: int,
    say: MessageCallback,
    on_progress: AmountCallback,
) -> None:
    total = question.shards
    if done >= total:
        return
    stream = patches(
        question.images,
        question.options,
        size=SHARD,
        first=done,
        workers=question.workers,
        max_failures=question.max_failures,
        device=question.device,
    )
    on_progress(done * SHARD, total * SHARD)
    with closing(prefetch(islice(stream, total - done), depth=1)) as lots:  # made while the teacher answers
        for number, inputs in enumerate(lots, start=done):
            _answer(answers, number, inputs, teacher, say)
            on_progress((number + 1) * SHARD, total * SHARD)


def _answer(answers: Answers, number: int | None, inputs: Inputs, teacher: Engine, say: MessageCallback) -> None:
    for name, reason in inputs.failures.items():
        say(f"{name} is left out, and the next image takes its place: {reason}")
    lr = inputs.lr.numpy()
    answers.write(number, lr, answered(teacher, lr), inputs.records)


def answered(teacher: Engine, lr: Bytes) -> Bytes:
    """Return a teacher's answers to (N, 3, h, w) bytes, (N, 3, h * scale, w * scale) bytes, rounded.

    Raises:
        EngineError: they are not finite, or even one patch does not fit into memory.
    """
    spec = teacher.spec
    # A patch is much smaller than a tile: one alone does not fill a GPU.
    size, parts, start = spec.best_batch if spec.device == "cpu" else spec.max_batch, [], 0
    while start < len(lr):
        try:
            parts.append(_run(teacher, lr[start : start + size]))
        except OutOfMemory:
            if size == 1:
                raise
            size = max(1, size // 2)
            continue
        start += size
    return np.concatenate(parts)


def _run(teacher: Engine, lr: Bytes) -> Bytes:
    enlarged: NDArray[np.float32] = teacher.run(np.ascontiguousarray(lr, np.float32) / np.float32(255))
    if not np.isfinite(enlarged).all():
        raise EngineError(
            f"the teacher's answers are not finite in {teacher.spec.precision}: expected a network that can be run so"
        )
    return (enlarged.clip(0, 1) * 255).round().astype(np.uint8)


def _check_teacher(teacher: Engine, options: PatchOptions) -> None:
    spec, px = teacher.spec, options.patch_px
    if spec.scale != options.scale:
        raise UsageError(f"the teacher enlarges {spec.scale} times and the network that learns {options.scale} times")
    if not spec.size.fits(px, px):
        raise UsageError(
            f"the teacher does not take patches of {px} x {px} px: expected another teacher.patch_px "
            f"({spec.size.fixed_px or f'a multiple of {spec.size.multiple_of}'})"
        )


def _begin(folder: Path, facts: dict[str, Any]) -> None:
    """Note what is asked, or check that what is there answers the same."""
    path = folder / TEACHER
    try:
        remove_unfinished(folder)
        if not path.exists():
            with whole_file(path) as part:
                part.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        before = json.loads(path.read_text("utf-8"))
    except ValueError:
        raise InputError(f"{path} is damaged: delete its folder, or choose another one") from None
    except OSError as error:
        raise not_written(folder, error, "choose another folder") from error
    if not isinstance(before, dict) or before != facts:
        old = before if isinstance(before, dict) else {}
        differing = ", ".join(key for key in {**old, **facts} if old.get(key) != facts.get(key))
        raise UsageError(
            f"{folder} has answers to other patches or of another teacher ({differing}): delete it, or choose another "
            "folder",
            option="cache",
        )


def _check_room(answers: Answers, shards: int) -> None:
    """Raise OutputError before hours of work where the disk could not hold them."""
    needed, free = shards * answers.shard_bytes(), shutil.disk_usage(answers.folder).free
    if needed > free:
        raise OutputError(
            f"{answers.folder} needs {needed / 1e9:.1f} GB for the teacher's answers, and {free / 1e9:.1f} GB are "
            "free: make room, lower teacher.patches, or choose another folder",
            option="cache",
        )


def _fingerprint(images: Sequence[Path]) -> str:
    """Return a hash of the images' names and sizes in bytes: a folder that was moved has the same."""
    lines = [f"{path.name} {path.stat().st_size}" for path in images]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
