"""Checks how many images are held out, which, and when that is said to be few."""

from pathlib import Path

import pytest

from realesr.train.data.hold_out import held_out_count, held_out_warning, hold_out


@pytest.mark.parametrize(
    ("images", "held_out"),
    [(0, 0), (1, 1), (2, 1), (7, 1), (8, 2), (17, 4), (20, 5), (49, 5), (50, 5), (79, 7), (80, 8), (10_000, 8)],
)
def test_of_few_images_up_to_a_quarter_is_held_out_of_many_at_most_a_tenth(images: int, held_out: int) -> None:
    assert held_out_count(images, 8) == held_out


def test_no_more_is_held_out_than_was_asked_for() -> None:
    assert held_out_count(1000, 3) == held_out_count(17, 3) == 3


def test_no_image_is_on_both_sides_and_a_folder_that_grows_holds_out_the_same() -> None:
    paths = [Path("photos") / f"{number}.png" for number in range(100)]
    train, held = hold_out(paths, 8)
    assert sorted([*train, *held]) == sorted(paths)
    assert len(held) == 8
    assert set(hold_out(paths[:90], 8)[1]) >= set(held) & set(paths[:90])
    assert hold_out([path.with_name(path.name) for path in reversed(paths)], 8)[1] == held[::-1]


def test_a_single_image_serves_for_both() -> None:
    assert hold_out([Path("1.png")], 8) == ([Path("1.png")], [Path("1.png")])


def test_few_held_out_images_are_told_with_the_crops_that_come_from_them() -> None:
    expected = "all 24 validation crops come from one image: scores of fewer than 5 images say little about others"
    assert held_out_warning(1, 24) == expected
    assert str(held_out_warning(4, 24)).startswith("all 24 validation crops come from 4 images:")
    assert held_out_warning(5, 24) is None
    assert held_out_warning(0, 0) is None
