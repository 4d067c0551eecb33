"""Checks how a teacher is asked: once, going on after a stop, and never for another question's answers."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from realesr.engine import NearestEngine, SizeRule
from realesr.errors import EngineError, OutOfMemory, OutputError, UsageError
from realesr.models.compact import Compact
from realesr.models.weights import Weights
from realesr.train.degrade.recipe import CORRECTED
from realesr.train.distill.answers import SHARD, Answers
from realesr.train.distill.asking import Question, answer_all, answered
from realesr.train.distill.patches import PatchOptions
from realesr.train.run_lock import run_lock

TEACHER = Weights("teacher", Compact(scale=2, features=1, convs=0), {}, "0123")


class Teacher(NearestEngine):
    """Repeats pixels; fails at a call that is named."""

    def __init__(self, fail_at: int | None = None, scale: int = 2, size: SizeRule | None = None) -> None:
        super().__init__(scale, size, max_batch=16)
        self.calls, self._fail_at = 0, fail_at

    def run(self, batch: NDArray[np.float32], on_progress: Any = None) -> NDArray[np.float32]:
        self.calls += 1
        if self.calls == self._fail_at:
            raise KeyboardInterrupt
        return super().run(batch, on_progress)


@pytest.fixture
def question(tmp_path: Path) -> Question:
    paths = []
    (tmp_path / "photos").mkdir()
    for name in "abc":
        paths.append(tmp_path / "photos" / f"{name}.png")
        Image.effect_noise((10, 10), 90).convert("RGB").resize((40, 36), Image.Resampling.BICUBIC).save(paths[-1])
    return Question(
        teacher=TEACHER,
        images=tuple(paths[:2]),
        held_out=tuple(paths[2:]),
        options=PatchOptions(degrade=CORRECTED, scale=2, patch_px=8, read_px=32, native=0.25, sharpened=False, seed=0),
        patches=2 * SHARD - 5,
        held_out_patches=3,
        workers=0,
        max_failures=2,
        device="cpu",
    )


Ask = Callable[..., Answers]


@pytest.fixture
def ask() -> Ask:
    """`ask(question, folder, teacher)`."""

    def call(question: Question, folder: Path, teacher: Teacher | None = None, **options: Any) -> Answers:
        def open_teacher(_: object) -> Teacher:
            assert teacher is not None, "the teacher was opened for nothing"
            return teacher

        values: dict[str, Any] = {"say": lambda _: None, "on_progress": lambda *_: None} | options
        return answer_all(question, folder, open_teacher, **values)

    return call


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_every_patch_gets_its_answer_and_a_record(tmp_path: Path, question: Question, ask: Ask) -> None:
    kept = ask(question, tmp_path / "out", Teacher())
    assert kept.whole_shards() == 2  # rounded up
    lr, answers = (np.load(tmp_path / "out" / "000001" / name) for name in ("lr.npy", "answers.npy"))
    assert np.array_equal(answers, lr.repeat(2, 2).repeat(2, 3))
    lines = (tmp_path / "out" / "000001" / "patches.jsonl").read_text().splitlines()
    assert {Path(json.loads(line)["image"]).name for line in lines} == {"a.png", "b.png"}
    assert kept.held_out()[2] == ["c", "c", "c"]


def test_a_later_call_asks_for_what_is_missing_alone(tmp_path: Path, question: Question, ask: Ask) -> None:
    said: list[str] = []
    ask(question, tmp_path / "out", Teacher())
    before = content(tmp_path / "out")
    ask(question, tmp_path / "out", say=said.append)
    assert "are there" in said[0]
    more = dataclasses.replace(question, patches=3 * SHARD)
    teacher, amounts = Teacher(), []
    ask(more, tmp_path / "out", teacher, on_progress=lambda *amount: amounts.append(amount))
    assert teacher.calls == SHARD / teacher.spec.best_batch
    assert amounts == [(2 * SHARD, 3 * SHARD), (3 * SHARD, 3 * SHARD)]
    after = content(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    ask(question, tmp_path / "out")  # fewer are a part of them


def test_answers_are_the_same_however_often_they_were_stopped(tmp_path: Path, question: Question, ask: Ask) -> None:
    ask(question, tmp_path / "whole", Teacher())
    per_shard = SHARD // Teacher().spec.best_batch
    for fail_at in (1, 2 + per_shard // 2, per_shard // 2):
        with pytest.raises(KeyboardInterrupt):
            ask(question, tmp_path / "parts", Teacher(fail_at))
    (tmp_path / "parts" / ".realesr-0123456789ab.part").mkdir()  # of a process that was killed
    ask(question, tmp_path / "parts", Teacher())
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda q: dataclasses.replace(q, teacher=dataclasses.replace(TEACHER, sha256="4567")), "teacher_sha256"),
        (lambda q: with_options(q, seed=1), "seed"),
        (lambda q: with_options(q, degrade=dataclasses.replace(CORRECTED, final_sinc=0.0)), "degrade"),
        (lambda q: with_options(q, patch_px=16), "patch_px"),
        (lambda q: dataclasses.replace(q, images=q.images[:1]), "images, images_sha256"),
    ],
)
def test_answers_to_another_question_are_refused(
    tmp_path: Path, question: Question, ask: Ask, change: Callable[[Question], Question], words: str
) -> None:
    ask(question, tmp_path / "out", Teacher())
    before = content(tmp_path / "out")
    with pytest.raises(UsageError, match=rf"of another teacher \({words}\): delete it, or choose") as caught:
        ask(change(question), tmp_path / "out")
    assert caught.value.option == "cache"
    assert content(tmp_path / "out") == before


def with_options(question: Question, **values: Any) -> Question:
    return dataclasses.replace(question, options=dataclasses.replace(question.options, **values))


def test_photos_that_were_moved_are_the_same(tmp_path: Path, question: Question, ask: Ask) -> None:
    ask(question, tmp_path / "out", Teacher())
    shutil.copytree(tmp_path / "photos", tmp_path / "moved")
    moved: dict[str, Any] = {
        name: tuple(tmp_path / "moved" / path.name for path in getattr(question, name))
        for name in ("images", "held_out")
    }
    ask(dataclasses.replace(question, **moved), tmp_path / "out")


def test_a_teacher_of_another_scale_or_size_is_refused(tmp_path: Path, question: Question, ask: Ask) -> None:
    with pytest.raises(UsageError, match="enlarges 3 times and the network that learns 2 times"):
        ask(question, tmp_path / "out", Teacher(scale=3))
    with pytest.raises(UsageError, match="does not take patches of 8 x 8 px"):
        ask(question, tmp_path / "out", Teacher(size=SizeRule(minimum_px=16, multiple_of=16)))


def test_too_little_room_is_told_before_the_first_answer(
    tmp_path: Path, question: Question, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=2000, used=1000, free=1000))
    with pytest.raises(OutputError, match="are free: make room"):
        ask(question, tmp_path / "out")


def test_too_little_memory_makes_batches_smaller() -> None:
    class Small(Teacher):
        def run(self, batch: NDArray[np.float32], on_progress: Any = None) -> NDArray[np.float32]:
            if len(batch) > 2:
                raise OutOfMemory("no room")
            return super().run(batch, on_progress)

    lr = np.arange(7 * 3 * 4, dtype=np.uint8).reshape(7, 3, 2, 2)
    assert np.array_equal(answered(Small(), lr), lr.repeat(2, 2).repeat(2, 3))


def test_answers_that_are_not_finite_are_never_kept(tmp_path: Path, question: Question, ask: Ask) -> None:
    class Broken(Teacher):
        def run(self, batch: NDArray[np.float32], on_progress: Any = None) -> NDArray[np.float32]:
            return super().run(batch, on_progress) * np.float32("nan")

    with pytest.raises(EngineError, match="not finite"):
        ask(question, tmp_path / "out", Broken())
    assert Answers(folder=tmp_path / "out", patch_px=8, scale=2).whole_shards() == 0


def test_two_processes_do_not_write_into_one_folder(tmp_path: Path, question: Question, ask: Ask) -> None:
    with run_lock(tmp_path / "out"), pytest.raises(UsageError, match="is in use"):
        ask(question, tmp_path / "out", Teacher())
