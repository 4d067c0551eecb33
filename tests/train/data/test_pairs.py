"""Pairs images by their names: the forms of data sets, folders, and all that must be refused."""

from pathlib import Path

import pytest

from realesr.errors import InputError
from realesr.train.data.pairs import find_pairs


def pair_folders(tmp_path: Path, large: list[str], small: list[str]) -> tuple[Path, Path]:
    for side, side_names in (("sharp", large), ("small", small)):
        (tmp_path / side).mkdir()
        for name in side_names:
            (tmp_path / side / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / side / name).write_bytes(b"image")
    return tmp_path / "sharp", tmp_path / "small"


def test_pairs_are_found_by_name_whatever_their_format(tmp_path: Path) -> None:
    gt, lq = pair_folders(tmp_path, ["b.png", "a.png"], ["a.jpg", "b.png"])
    assert find_pairs([gt], [lq]) == [(gt / "a.png", lq / "a.jpg"), (gt / "b.png", lq / "b.png")]


@pytest.mark.parametrize(
    ("large", "small"),
    [
        ("0001.png", "0001x4.png"),  # DIV2K, Flickr2K
        ("0001.png", "0001x4m.png"),  # DIV2K, mild
        ("0001.png", "0001x4w1.png"),  # DIV2K, wild
        ("babies/baby.png", "babies/babyx2.png"),  # Set5 as EDSR has it
        ("0001.png", "0001_x4.jpg"),
        ("0001.png", "0001-X4.png"),
        ("0001.png", "0001_lq.png"),
        ("0001_gt.png", "0001_lq.png"),
        ("0001_HR.png", "0001.png"),
        ("Canon_001_HR.png", "Canon_001_LR4.png"),  # RealSR
        ("Canon_001_HR.png", "Canon_001_LRx4.png"),
        ("panasonic_103_x1.png", "panasonic_103_x4.png"),  # DRealSR
        ("img_001_SRF_4_HR.png", "img_001_SRF_4_LR.png"),  # Set5 as Huang et al. have it
    ],
)
def test_what_data_sets_append_to_names_does_not_part_pairs(tmp_path: Path, large: str, small: str) -> None:
    gt, lq = pair_folders(tmp_path, [large, "z.png"], [small, "z.png"])
    assert find_pairs([gt], [lq]) == [(gt / large, lq / small), (gt / "z.png", lq / "z.png")]


def test_equal_names_are_pairs_whatever_they_end_with(tmp_path: Path) -> None:
    gt, lq = pair_folders(tmp_path, ["box.png", "box2.png", "boxx2.png"], ["box.png", "box2.png", "boxx2.png"])
    assert find_pairs([gt], [lq]) == [(gt / name, lq / name) for name in ("box.png", "box2.png", "boxx2.png")]


@pytest.mark.parametrize(
    ("large", "small", "words"),
    [
        (
            ["1.png"],
            ["1x2.png", "1x4.png"],
            r"small/1x2\.png, \S*small/1x4\.png may each be the partner of \S*sharp/1\.png",
        ),
        (
            ["1.png"],
            ["1.png", "1_lq.png"],
            r"small/1\.png, \S*small/1_lq\.png may each be the partner of \S*sharp/1\.png",
        ),
        (
            ["1.png", "1_HR.png"],
            ["1x4.png"],
            r"sharp/1\.png, \S*1_HR\.png may each be the partner of \S*small/1x4\.png",
        ),
        (["1.png", "1x2.png"], ["1x2.png", "1x4.png"], r"small/1x2\.png, \S*1x4\.png may each be the partner"),
    ],
)
def test_names_that_could_be_paired_in_two_ways_are_refused(
    tmp_path: Path, large: list[str], small: list[str], words: str
) -> None:
    gt, lq = pair_folders(tmp_path, large, small)
    with pytest.raises(InputError, match=words):
        find_pairs([gt], [lq])


@pytest.mark.parametrize(
    ("large", "small"), [("0001.png", "00012.png"), ("1.png", "1x4x4.png"), ("a_LR.png", "a.png"), ("b.png", "x4.png")]
)
def test_names_that_differ_otherwise_are_no_pair(tmp_path: Path, large: str, small: str) -> None:
    gt, lq = pair_folders(tmp_path, [large], [small])
    with pytest.raises(
        InputError, match=rf"{large}, \S*{small} without a partner of that name: expected the same names"
    ):
        find_pairs([gt], [lq])


def test_one_name_in_two_folders_is_told_apart_by_the_folder(tmp_path: Path) -> None:
    names = ["cats/1.png", "dogs/1.png", "dogs/old/1.png"]
    gt, lq = pair_folders(tmp_path, names, ["cats/1x2.jpg", "dogs/1x2.png", "dogs/old/1.png"])
    expected = [
        (gt / "cats/1.png", lq / "cats/1x2.jpg"),
        (gt / "dogs/1.png", lq / "dogs/1x2.png"),
        (gt / "dogs/old/1.png", lq / "dogs/old/1.png"),
    ]
    assert find_pairs([gt], [lq]) == expected


def test_folders_do_not_matter_where_the_sides_have_others_and_names_come_once(tmp_path: Path) -> None:
    gt, lq = pair_folders(tmp_path, ["HR/1.png", "HR/2.png"], ["LR/x4/1.png", "LR/x4/2.png"])
    assert find_pairs([gt], [lq]) == [(gt / "HR" / name, lq / "LR" / "x4" / name) for name in ("1.png", "2.png")]


def test_one_name_in_two_folders_is_refused_where_the_other_side_has_other_folders(tmp_path: Path) -> None:
    gt, lq = pair_folders(tmp_path, ["cats/1.png", "dogs/1.png"], ["cats/1.png", "birds/1.png"])
    with pytest.raises(
        InputError, match=r"cats/1\.png and \S*dogs/1\.png have one name: .* or the same folders on both"
    ):
        find_pairs([gt], [lq])


def test_a_name_is_not_paired_across_folders_that_both_sides_have(tmp_path: Path) -> None:
    gt, lq = pair_folders(tmp_path, ["cats/1.png", "dogs/2.png"], ["cats/2.png", "dogs/1.png"])
    with pytest.raises(InputError, match=r"sharp/cats/1\.png, .*small/dogs/1\.png without a partner"):
        find_pairs([gt], [lq])


def test_one_folder_may_hold_both_sides(tmp_path: Path) -> None:
    """RealSR lies in one folder like this; before, every image was its own partner."""
    gt, _ = pair_folders(tmp_path, ["C_1_HR.png", "C_1_LR4.png", "C_2_HR.png", "C_2_LR4.png"], [])
    assert find_pairs([gt], [gt]) == [(gt / f"C_{number}_HR.png", gt / f"C_{number}_LR4.png") for number in (1, 2)]


def test_an_image_is_not_its_own_partner(tmp_path: Path) -> None:
    gt, lq = pair_folders(tmp_path, ["1.png", "2.png"], ["3.png"])
    with pytest.raises(InputError, match=r"sharp/1\.png, \S*2\.png is given as large and as small"):
        find_pairs([gt], [gt])
    with pytest.raises(InputError, match=r"sharp/1\.png is given as large and as small"):
        find_pairs([gt], [lq, gt / "1.png"])


def test_images_without_a_partner_are_named(tmp_path: Path) -> None:
    gt, lq = pair_folders(tmp_path, ["a.png", "b.png"], ["a.png", "c.png"])
    with pytest.raises(InputError, match=r"sharp/b\.png, \S*small/c\.png without a partner of that name"):
        find_pairs([gt], [lq])


def test_a_name_that_comes_twice_on_one_side_is_an_error(tmp_path: Path) -> None:
    gt, lq = pair_folders(tmp_path, ["a.png", "a.jpg"], ["a.png"])
    with pytest.raises(InputError, match=r"a\.jpg and \S*a\.png have one name"):
        find_pairs([gt], [lq])


def test_a_list_of_pairs_pairs_by_its_lines(tmp_path: Path) -> None:
    gt, lq = pair_folders(tmp_path, ["1.png", "two words.png"], ["x.png", "y.png"])
    path = tmp_path / "pairs.txt"
    path.write_text("sharp/two words.png, small/x.png\nsharp/1.png,small/y.png\n")
    expected = [(gt / "1.png", lq / "y.png"), (gt / "two words.png", lq / "x.png")]
    assert find_pairs([path], [path]) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sharp/1.png\n", r"has the line 'sharp/1\.png': expected a pair"),
        ("sharp/1.png, \n", "expected a pair"),
        ("# nothing\n", "names no pairs"),
        ("sharp/1.png, small/gone.png\n", r"1 of 2 images: \S*gone\.png does not exist"),
    ],
)
def test_what_is_wrong_with_a_list_of_pairs_is_said(tmp_path: Path, text: str, words: str) -> None:
    pair_folders(tmp_path, ["1.png"], ["x.png"])
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(InputError, match=words):
        find_pairs([tmp_path / "pairs.txt"], [tmp_path / "pairs.txt"])
