"""Shares of a folder's images."""

from pathlib import Path

import pytest

from realesr.cli.files import Found
from realesr.cli.upscaling.shard import Shard, shard_from
from realesr.errors import UsageError

IMAGES = [Found(Path(f"/anywhere/{folder}/{number}.jpg"), Path(folder)) for folder in "abc" for number in range(400)]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_image_is_in_one_share_and_shares_are_about_equal(count: int) -> None:
    shares = [[image for image in IMAGES if Shard(number, count).has(image)] for number in range(1, count + 1)]
    assert sorted(str(image.path) for share in shares for image in share) == sorted(str(i.path) for i in IMAGES)
    assert all(len(share) == pytest.approx(len(IMAGES) / count, rel=0.25) for share in shares)


def test_shares_stay_when_the_folder_moves_and_images_come() -> None:
    names = [Path(f"{number}.jpg") for number in range(50)]
    before = [Shard(2, 4).has(Found(Path("/one") / name)) for name in names]
    assert [Shard(2, 4).has(Found(Path("/another/place") / name)) for name in names] == before
    assert [name.name for name, mine in zip(names, before, strict=True) if mine][:4] == FIRST_OF_50


FIRST_OF_50 = ["1.jpg", "9.jpg", "13.jpg", "16.jpg"]
"""Of the names whose SHA-256, its first 8 bytes as a number, leaves 1 when divided by 4 (`sha256sum`)."""


@pytest.mark.parametrize(
    ("text", "shard"), [(None, Shard(1, 1)), ("1/1", Shard(1, 1)), ("2/8", Shard(2, 8)), ("8/8", Shard(8, 8))]
)
def test_a_share_is_a_number_and_a_count(text: str | None, shard: Shard) -> None:
    assert shard_from(text, {}) == shard


@pytest.mark.parametrize("text", ["0/8", "9/8", "1/0", "2", "/", "1/8/2", "-1/8", "²/8", "a/b", "", "slurm"])
def test_what_is_no_share_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match=r"got --shard"):
        shard_from(text, {})


def test_a_task_of_a_slurm_array_takes_its_share() -> None:
    def array(task: int, first: int, last: int, step: int = 1) -> dict[str, str]:
        values = {"ID": task, "MIN": first, "MAX": last, "STEP": step}
        return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}

    assert shard_from("slurm", array(0, 0, 7)) == Shard(1, 8)
    assert shard_from("slurm", array(12, 5, 12)) == Shard(8, 8)
    assert [shard_from("slurm", array(task, 0, 9, 4)) for task in (0, 4, 8)] == [Shard(n, 3) for n in (1, 2, 3)]
