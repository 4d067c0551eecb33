"""Logs means, rates and pictures, in JSON and for TensorBoard."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from realesr.errors import OutputError
from realesr.train.log import LOG, LossMeans, RunLog, amount_shown


class Board:
    """Stands for TensorBoard's writer, and remembers what it is given."""

    def __init__(self, folder: str, purge_step: int | None) -> None:
        self.opened = (Path(folder).name, purge_step)
        self.seen: dict[str, Any] = {}

    def add_scalar(self, name: str, value: float, iteration: int) -> None:
        self.seen[name] = (value, iteration)

    def add_image(self, name: str, pixels: Any, iteration: int, *, dataformats: str) -> None:
        self.seen[name] = (pixels.shape, iteration, dataformats)

    def add_text(self, name: str, text: str, iteration: int) -> None:
        self.seen[name] = (text, iteration)

    def close(self) -> None:
        self.seen["closed"] = True


@pytest.fixture
def boards(monkeypatch: pytest.MonkeyPatch) -> list[Board]:
    """Put a fake in the place of TensorBoard; return those that were opened."""
    opened: list[Board] = []

    def writer(folder: str, purge_step: int | None = None) -> Board:
        opened.append(Board(folder, purge_step))
        return opened[-1]

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return opened


def test_a_record_goes_to_the_file_and_its_numbers_to_tensorboard(tmp_path: Path, boards: list[Board]) -> None:
    log = RunLog(tmp_path, 0)
    log.write("losses", 5, {"l1": 0.5, "learning_rate": 1e-4, "seconds": {"data": 2.0}, "is": True, "word": "x"})
    log.picture("validation", 5, np.zeros((4, 6, 3), np.uint8))
    log.text("recipe", 5, {"stage1": {"batch": 2}})
    log.close()
    (record,) = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert (record["kind"], record["iteration"], record["learning_rate"]) == ("losses", 5, 1e-4)
    (board,) = boards
    text, _ = board.seen.pop("recipe")
    assert '"batch": 2' in text
    assert board.seen == {
        "losses/l1": (0.5, 5),
        "losses/learning_rate": (1e-4, 5),
        "losses/seconds/data": (2.0, 5),
        "validation": ((4, 6, 3), 5, "HWC"),
        "closed": True,
    }


def test_a_line_that_was_broken_off_is_removed_before_others_follow(tmp_path: Path, boards: list[Board]) -> None:
    (tmp_path / LOG).write_text('{"kind": "losses", "iteration": 1}\n{"kind": "los')
    log = RunLog(tmp_path, 1)
    log.write("losses", 2, {})
    log.close()
    records = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [record["iteration"] for record in records] == [1, 2]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has it")
def test_a_full_disk_is_told_by_the_log(tmp_path: Path, boards: list[Board]) -> None:
    log = RunLog(tmp_path, 0)
    log.close()
    with Path("/dev/full").open("ab", buffering=0) as log._file, pytest.raises(OutputError) as caught:
        log.write("losses", 1, {"l1": 0.5})
    assert str(caught.value) == (
        f"{tmp_path / LOG} cannot be written (No space left on device): make room and say the same command again"
    )


@pytest.mark.parametrize(("iteration", "purge"), [(0, None), (40, 41)])
def test_what_came_after_the_checkpoint_is_hidden_from_tensorboard(
    tmp_path: Path, boards: list[Board], iteration: int, purge: int | None
) -> None:
    RunLog(tmp_path, iteration).close()
    assert boards[0].opened == ("tensorboard", purge)


def test_means_are_over_the_iterations_that_have_a_loss_and_begin_anew() -> None:
    means = LossMeans()
    for l1, extra in ((1.0, {}), (2.0, {"gan": torch.tensor(4.0)}), (6.0, {"gan": torch.tensor(8.0)})):
        means.add({"l1": torch.tensor(l1), **extra})
    assert {name: float(value) for name, value in means.take().items()} == {"l1": 3.0, "gan": 6.0}
    means.add({"l1": torch.tensor(5.0)})
    assert {name: float(value) for name, value in means.take().items()} == {"l1": 5.0}


def test_a_download_is_told_at_each_twentieth() -> None:
    lines: list[str] = []
    progress = amount_shown("fetching VGG19", lines.append)
    for done in range(0, 575_000_000, 1_000_000):
        progress(done, 575_000_000)
    assert lines[0] == "fetching VGG19: 0 of 575 MB"
    assert lines[10] == "fetching VGG19: 288 of 575 MB"
    assert len(lines) == 20
    unknown: list[str] = []
    progress = amount_shown("fetching it", unknown.append)
    for done in range(0, 30_000_000, 1_000_000):
        progress(done, 0)
    assert unknown == ["fetching it: 0 MB", "fetching it: 10 MB", "fetching it: 20 MB"]
