"""The search for layers that stay float32, with measurements that are made up."""

import pytest

from realesr.export.fp32_layers import find_fp32_convs
from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.onnx_graph import conv_names
from realesr.models.rrdb import RRDB

RRDB_X4 = RRDB(scale=4, features=8, blocks=2, growth=4)
COMPACT = Compact(scale=2, features=8, convs=6)


@pytest.mark.parametrize("architecture", [RRDB_X4, COMPACT], ids=str)
def test_exactly_the_layers_that_are_needed_are_found(architecture: Architecture) -> None:
    names = conv_names(architecture)
    for needed in [(), names[:1], names[-1:], names[3:5], (names[0], names[4], names[-1]), names]:
        asked: list[int] = []

        def passes(kept: tuple[str, ...], needed: tuple[str, ...] = needed, asked: list[int] = asked) -> bool:
            asked.append(len(kept))
            return set(needed) <= set(kept)

        assert find_fp32_convs(architecture, passes) == needed
        assert len(asked) < 2 * len(names)


def test_few_layers_among_many_take_few_measurements() -> None:
    architecture = RRDB(scale=4)
    needed, asked = {"body.11.rdb2.conv3", "conv_last"}, []

    def passes(kept: tuple[str, ...]) -> bool:
        asked.append(kept)
        return needed <= set(kept)

    assert set(find_fp32_convs(architecture, passes)) == needed
    assert len(asked) < 40 < len(conv_names(architecture)) / 8


def test_where_only_so_much_error_is_allowed_the_tail_stays_and_the_trunk_goes() -> None:
    # Any layer costs 1, and all but three may be afforded.
    names = conv_names(RRDB_X4)
    assert find_fp32_convs(RRDB_X4, lambda kept: len(kept) >= 3) == names[-3:]


def test_where_nothing_helps_all_stay() -> None:
    assert find_fp32_convs(COMPACT, lambda kept: False) == conv_names(COMPACT)
