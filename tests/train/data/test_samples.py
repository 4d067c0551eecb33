"""Checks samples by number: every image once an epoch, seeds of their own, shares that hold over iterations."""

from collections import Counter

import pytest

from realesr.train.data.samples import image_of, images_in_turn, pairs_before, seed_of


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_every_image_comes_once_an_epoch(count: int) -> None:
    for epoch in range(3):
        assert sorted(image_of(epoch * count + place, count, 5) for place in range(count)) == list(range(count))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {
        tuple(image_of(epoch * 50 + place, 50, seed) for place in range(50)) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(orders) == 4


def test_a_sample_needs_no_history() -> None:
    late = image_of(10**12 + 3, 17, 9)
    for number in (0, 500, 10**9):
        image_of(number, 17, 9)
    assert image_of(10**12 + 3, 17, 9) == late


def test_the_images_that_follow_in_the_order_replace_one_that_cannot_be_read() -> None:
    """The sixth sample of seven is followed by the seventh, then by the first of the same epoch, not of the next."""
    epoch = [image_of(sample, 7, 5) for sample in range(14, 21)]
    assert list(images_in_turn(14 + 5, 7, 5)) == [*epoch[5:], *epoch[:5]]
    assert sorted(images_in_turn(3, 7, 5)) == list(range(7))


def test_first_images_are_spread_evenly() -> None:
    counts = Counter(image_of(0, 8, seed) for seed in range(4000))
    # 4000 / 8 = 500, standard deviation 21.
    assert all(abs(counts[image] - 500) < 105 for image in range(8))


def test_seeds_are_different_for_every_sample_and_run() -> None:
    seeds = [seed_of(number, run) for run in range(3) for number in range(3000)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("batch", "share"), [(1, 0.5), (4, 0.1), (8, 0.25), (12, 1 / 3), (5, 0.0), (5, 1.0), (3, 0.999)]
)
def test_pairs_have_their_share_and_batches_differ_by_one_at_most(batch: int, share: float) -> None:
    counts = [pairs_before(i + 1, batch, share) - pairs_before(i, batch, share) for i in range(1000)]
    assert {*counts} <= {int(batch * share), int(batch * share) + 1}
    assert abs(sum(counts) - 1000 * batch * share) < 1.5


def test_whole_numbers_of_pairs_are_the_same_in_every_batch() -> None:
    assert {pairs_before(i + 1, 10, 0.1) - pairs_before(i, 10, 0.1) for i in range(5000)} == {1}
    assert pairs_before(10**6, 10, 0.7) == 7 * 10**6
