"""Dense blocks are found by their layers alone, and nothing else is taken for one."""

from dataclasses import replace

import pytest

from realesr.engines.dense_blocks import find_dense_blocks
from realesr.models.compact import Compact
from realesr.models.layers import IMAGE, Activated, Activation, Concatenation, Convolution, Layer, ScaledSum
from realesr.models.rrdb import RRDB


def test_the_blocks_of_a_network_are_found_in_their_order_with_the_sums_over_three() -> None:
    architecture = RRDB(scale=4, features=8, blocks=2, growth=4)
    blocks = find_dense_blocks(architecture.layers)
    assert [block.result for block in blocks] == [f"body.{b}.rdb{d}" for b in (0, 1) for d in (1, 2, 3)]
    assert [block.source for block in blocks] == [
        *("conv_first", "body.0.rdb1", "body.0.rdb2"),
        *("body.0", "body.1.rdb1", "body.1.rdb2"),
    ]
    assert [len(block.convolutions) for block in blocks] == [5] * 6
    assert {block.scale for block in blocks} == {0.2}
    group_sums = [block.group_sum for block in blocks]
    assert [each and (each.layer.name, each.source, each.scale) for each in group_sums] == [
        *(None, None, ("body.0", "conv_first", 0.2)),
        *(None, None, ("body.1", "body.0", 0.2)),
    ]


def test_blocks_and_sums_hold_all_layers_of_the_trunk() -> None:
    architecture = RRDB(scale=2, features=8, blocks=1, growth=4)
    found: set[Layer] = set()
    for block in find_dense_blocks(architecture.layers):
        found |= set(block.layers)
        if block.group_sum is not None:
            found.add(block.group_sum.layer)
    assert [layer.name for layer in architecture.layers if layer not in found] == [
        *("unshuffled", "conv_first", "conv_body", "body"),
        *("conv_up1.in", "conv_up1", "conv_up2.in", "conv_up2", "conv_hr", "conv_last"),
    ]


def test_a_network_without_dense_blocks_has_none() -> None:
    assert find_dense_blocks(Compact(scale=4, features=8, convs=3).layers) == ()


def conv(name: str, source: str, into: int, out: int) -> Convolution:
    return Convolution(name=name, source=source, in_channels=into, out_channels=out)


FIRST = conv("a", IMAGE, 3, 4)
JOINED = Concatenation(name="b.in", sources=(IMAGE, "a"))
LAST = conv("b", "b.in", 7, 3)
SUM = ScaledSum(name="sum", terms=((IMAGE, 1.0), ("b", 0.5)))
BLOCK: tuple[Layer, ...] = (FIRST, JOINED, LAST, SUM)


def test_two_convolutions_make_a_block_and_the_order_of_terms_does_not_matter() -> None:
    (block,) = find_dense_blocks(BLOCK)
    assert (block.source, block.scale, block.convolutions) == (IMAGE, 0.5, (FIRST, LAST))


@pytest.mark.parametrize(
    "layers",
    [
        (*BLOCK, Activated(name="x", source="a", activation=Activation(kind="relu"))),
        (*BLOCK, Activated(name="x", source="b", activation=Activation(kind="relu"))),
        (*BLOCK, conv("x", "b.in", 7, 3)),
        (FIRST, replace(JOINED, sources=("a", IMAGE)), LAST, SUM),
        (FIRST, JOINED, LAST, replace(SUM, offset=0.5)),
        (FIRST, JOINED, LAST, replace(SUM, terms=((IMAGE, 0.5), ("b", 0.5)))),
        (FIRST, JOINED, LAST, replace(SUM, terms=((IMAGE, 1.0), ("b", 0.5), ("b", 0.5)))),
        (FIRST, JOINED, LAST),
        (conv("b", IMAGE, 3, 3), SUM),
    ],
    ids=[
        "a convolution's result is read elsewhere",
        "the last one's is read elsewhere",
        "a concatenation is read elsewhere",
        "another order of channels",
        "an offset",
        "a scaled source",
        "three terms",
        "no sum",
        "one convolution",
    ],
)
def test_what_only_resembles_a_block_is_none(layers: tuple[Layer, ...]) -> None:
    assert find_dense_blocks(layers) == ()
