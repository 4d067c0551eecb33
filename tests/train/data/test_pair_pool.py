"""Checks that the pool loses and repeats nothing, keeps partners together, and goes on where it stopped."""

import io
from collections import Counter

import pytest
import torch
from scipy import stats

from realesr.errors import UsageError
from realesr.train.data.pair_pool import PairPool


def pairs(*numbers: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pairs whose pixels tell their number: LR number / 255, HR 255 - number."""
    values = torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1, 1)
    return (values / 255).repeat(1, 3, 2, 2), ((255 - values) / 255).repeat(1, 3, 8, 8)


def numbers(lr: torch.Tensor, hr: torch.Tensor) -> list[int]:
    """Return the numbers of pairs, and assert that partners are together."""
    small = (lr[:, 0, 0, 0] * 255).round().int().tolist()
    assert (255 - (hr[:, 0, 0, 0] * 255).round().int()).tolist() == small
    return list(small)


def run(pool: PairPool, batches: list[list[int]], seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [numbers(*pool.exchange(*pairs(*batch), generator)) for batch in batches]


@pytest.mark.parametrize("batch", [1, 3, 4, 7, 10, 23])
def test_every_pair_leaves_once_and_the_rest_is_in_the_pool(batch: int) -> None:
    pool, batches = PairPool(10), [list(range(start, min(start + batch, 240))) for start in range(0, 240, batch)]
    out = run(pool, batches)
    assert [len(some) for some in out] == [len(some) for some in batches]
    left = Counter(number for some in out for number in some)
    state = pool.state_dict()
    inside = Counter(numbers(state["lr"].float() / 255, state["hr"].float() / 255))
    while_it_filled = Counter(range(10))  # given back at once, and kept
    assert left + inside == Counter(range(240)) + while_it_filled
    assert len(pool) == 10


def test_while_it_fills_batches_come_back_as_they_are() -> None:
    assert run(PairPool(10), [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]) == [
        [1, 2, 3, 4],
        [5, 6, 7, 8],
        [9, 10, 11, 12],
    ]


def test_every_place_is_as_likely_and_waiting_is_as_long_as_the_pool() -> None:
    pool, generator = PairPool(8), torch.Generator().manual_seed(1)
    pool.exchange(*pairs(*range(8)), generator)
    inside = {number: 0 for number in range(8)}
    waits, slots = [], Counter[int]()
    for step in range(1, 6001):
        before = pool.state_dict()["lr"][:, 0, 0, 0].tolist()
        new = 8 + step % 200
        (gone,) = numbers(*pool.exchange(*pairs(new), generator))
        slots[before.index(gone)] += 1
        waits.append(step - inside.pop(gone))
        inside[new] = step
    assert sum(waits) / len(waits) == pytest.approx(8, rel=0.06)
    assert stats.chisquare([slots[slot] for slot in range(8)]).pvalue > 1e-4


@pytest.mark.parametrize("eight_bit", [True, False])
def test_it_goes_on_bit_by_bit_from_its_state(eight_bit: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    pool = PairPool(6, eight_bit=eight_bit)
    for start in range(0, 30, 5):
        pool.exchange(*pairs(*range(start, start + 5)), generator)
    file = io.BytesIO()
    torch.save({"pool": pool.state_dict(), "random": generator.get_state()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other, other_generator = PairPool(6, eight_bit=eight_bit), torch.Generator()
    other.load_state_dict(saved["pool"], "cpu")
    other_generator.set_state(saved["random"])
    for start in range(30, 90, 4):
        batch = pairs(*range(start, start + 4))
        expected, found = pool.exchange(*batch, generator), other.exchange(*batch, other_generator)
        assert torch.equal(expected[0], found[0])
        assert torch.equal(expected[1], found[1])


def test_pairs_go_to_the_device_that_is_named() -> None:
    pool, other = PairPool(2), PairPool(2)
    run(pool, [[1, 2]])
    other.load_state_dict(pool.state_dict(), "meta")
    assert [other.state_dict()[name].device.type for name in ("lr", "hr")] == ["meta", "meta"]


def test_a_state_that_was_loaded_is_not_shared() -> None:
    pool, other = PairPool(2), PairPool(2)
    run(pool, [[1, 2]])
    other.load_state_dict(pool.state_dict())
    run(other, [[3, 4]])
    assert pool.state_dict()["lr"][:, 0, 0, 0].tolist() == [1, 2]


def test_an_empty_pool_can_be_saved_and_loaded() -> None:
    pool = PairPool(3)
    pool.load_state_dict(PairPool(3).state_dict())
    assert run(pool, [[1, 2]]) == [[1, 2]]


def test_bytes_are_exact_for_levels_of_8_bits_and_floats_for_all() -> None:
    generator = torch.Generator().manual_seed(3)
    levels = torch.arange(256, dtype=torch.float32).view(1, 1, 16, 16).repeat(1, 3, 1, 1) / 255
    pool = PairPool(1)
    pool.exchange(levels, levels, generator)
    assert torch.equal(pool.exchange(levels * 0, levels * 0, generator)[0], levels)
    fine = torch.rand(1, 3, 4, 4)
    pool = PairPool(1, eight_bit=False)
    pool.exchange(fine, fine, generator)
    assert torch.equal(pool.exchange(fine * 0, fine * 0, generator)[1], fine)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="expected 1 or more"):
        PairPool(0)
    pool = PairPool(4)
    run(pool, [[1, 2]])
    with pytest.raises(UsageError, match="expected those of the pool"):
        pool.exchange(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 16, 16), torch.Generator())
    with pytest.raises(UsageError, match=r"degrade\.pool"):
        PairPool(5).load_state_dict(pool.state_dict())


def test_an_empty_batch_gives_an_empty_one() -> None:
    lr, hr = pairs(1)
    none, _ = PairPool(4).exchange(lr[:0], hr[:0], torch.Generator())
    assert none.shape == (0, 3, 2, 2)
