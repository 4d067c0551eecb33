"""What engine winograd finds in lists of layers."""

from collections.abc import Sequence

import pytest

from realesr.engines.winograd.fusion import FusedConvolution, FusedDenseBlock, Output, fused, split_output
from realesr.engines.winograd.long_skip import LongSkip
from realesr.engines.winograd.schedule import (
    ALL_ROWS,
    ScheduledOperation,
    StageSchedule,
    rows_after,
    rows_kept,
    schedules,
)
from realesr.models.compact import Compact
from realesr.models.layers import (
    IMAGE,
    Activated,
    Concatenation,
    Layer,
    NearestEnlargement,
    PixelShuffle,
    Product,
    ScaledSum,
)
from realesr.models.rrdb import RRDB
from tests.engines.winograd.artificial import activation, conv, dense_block, gated


def kinds(operations: Sequence[ScheduledOperation]) -> dict[str, str]:
    return {operation.name: type(operation).__name__ for operation in operations}


def the_convolution(layers: list[Layer], name: str) -> FusedConvolution:
    """The one operation that layers come down to."""
    (operation,) = fused(layers, kept=[name])
    assert isinstance(operation, FusedConvolution)
    assert operation.name == name
    return operation


def total(*terms: tuple[str, float], offset: float = 0.0) -> ScaledSum:
    return ScaledSum(name="sum", terms=terms, offset=offset)


def test_an_activation_joins_the_convolution_that_nobody_else_reads() -> None:
    silu = Activated(name="silu", source="c", activation=activation("silu"))
    assert the_convolution([conv("c", "x", 8, 8), silu], "silu").activation == activation("silu")
    read_twice: list[Layer] = [conv("c", "x", 8, 8), silu, Product(name="y", sources=("c", "silu"))]
    assert kinds(fused(read_twice)) == {"c": "FusedConvolution", "silu": "Activated", "y": "Product"}


@pytest.mark.parametrize("kind", ["gelu", "mish"])
def test_an_activation_that_the_kernel_has_not_is_a_layer_of_its_own(kind: str) -> None:
    convolution, after = fused([conv("c", "x", 8, 8, kind)])
    assert isinstance(after, Activated)
    assert (after.name, after.sources, convolution.name) == ("c", (convolution.name,), f"c before its {kind}")


def test_nested_sums_join_the_convolution_and_their_factors_are_multiplied() -> None:
    layers: list[Layer] = [
        conv("c", "x", 8, 8),
        ScaledSum(name="inner", terms=(("c", 0.2), ("x", 1.0))),
        ScaledSum(name="outer", terms=(("inner", 0.5), ("y", -1.0))),
    ]
    joined = the_convolution(layers, "outer")
    assert (joined.factor, joined.addends) == (0.1, (("x", 0.5), ("y", -1.0)))


@pytest.mark.parametrize(
    "layers",
    [
        [conv("c", "x", 8, 8), total(("c", 1.0), ("x", 1.0), offset=0.5)],
        [conv("c", "x", 8, 8), total(("c", 1.0), ("x", 1.0), ("y", 1.0), ("z", 1.0))],
        [conv("c", "x", 8, 8, "relu"), total(("c", 0.5), ("x", 1.0))],
        [conv("c", "x", 8, 8), total(("c", 0.5), ("x", 1.0)), Product(name="p", sources=("c", "sum"))],
    ],
    ids=["offset", "three addends", "activation with a factor", "read twice"],
)
def test_other_sums_stay_by_themselves(layers: list[Layer]) -> None:
    assert kinds(fused(layers))["c"] == "FusedConvolution"
    assert kinds(fused(layers))["sum"] == "ScaledSum"


def test_of_two_convolutions_the_later_one_takes_the_sum() -> None:
    layers: list[Layer] = [conv("a", "x", 8, 8), conv("b", "x", 8, 8), total(("b", 1.0), ("a", 2.0))]
    first, second = fused(layers)
    assert isinstance(second, FusedConvolution)
    assert (first.name, second.layer.name, second.addends) == ("a", "b", (("a", 2.0),))


def test_a_result_that_others_read_is_kept() -> None:
    layers: list[Layer] = [conv("c", "x", 8, 8), total(("c", 1.0), ("x", 1.0))]
    assert kinds(fused(layers, kept=["c"])) == {"c": "FusedConvolution", "sum": "ScaledSum"}


def test_a_gate_joins_its_convolution() -> None:
    *_, last = fused(gated("b", "x"), kept=["b"])
    assert isinstance(last, FusedConvolution)
    assert (last.name, last.layer.name, last.addends, last.gate_offset) == ("b", "b.c3", (("x", 1.0),), -0.5)
    swapped: list[Layer] = [*gated("b", "x")[:-1], Product(name="b", sources=("b.gate", "b.sum"))]
    assert fused(swapped, kept=["b"]) == fused(gated("b", "x"), kept=["b"])


@pytest.mark.parametrize("read", ["b.c3", "b.sum", "b.sigmoid", "b.gate"])
def test_a_gate_whose_parts_others_read_stays_as_it_is(read: str) -> None:
    operations = fused(gated("b", "x"), kept=["b", read])
    assert kinds(operations)["b"] == "Product"
    assert read in kinds(operations)


def test_an_enlargement_by_two_is_read_in_place_by_its_only_reader() -> None:
    enlarged = NearestEnlargement(name="large", source="x", factor=2)
    joined = the_convolution([enlarged, conv("c", "large", 8, 8)], "c")
    assert (joined.source, joined.nearest_x2_input) == ("x", True)
    twice: list[Layer] = [enlarged, conv("c", "large", 8, 8), total(("c", 1.0), ("large", 1.0))]
    assert kinds(fused(twice)) == {"large": "NearestEnlargement", "sum": "FusedConvolution"}
    by_three: list[Layer] = [NearestEnlargement(name="large", source="x", factor=3), conv("c", "large", 8, 8)]
    assert kinds(fused(by_three)) == {"large": "NearestEnlargement", "c": "FusedConvolution"}


def test_a_concatenation_that_grows_is_a_dense_block_with_its_sums() -> None:
    layers: list[Layer] = [
        *dense_block("d1", "x", 12, 5, 4, "relu"),
        *dense_block("d2", "d1", 12, 5, 4, "relu"),
        ScaledSum(name="group", terms=(("d2", 0.5), ("x", 1.0))),
    ]
    first, second = fused(layers, kept=["group"])
    assert isinstance(first, FusedDenseBlock) and isinstance(second, FusedDenseBlock)
    assert (first.name, first.source, len(first.convolutions)) == ("d1", "x", 4)
    assert (second.name, second.sources) == ("group", ("d1", "d1", "x"))
    assert second.convolutions[-1].factor == 0.3 * 0.5


@pytest.mark.parametrize(("count", "kind"), [(2, "relu"), (4, "gelu")])
def test_other_concatenations_are_copied(count: int, kind: str) -> None:
    operations = fused(dense_block("d", "x", 12, 5, count, kind), kept=["d"])
    assert sum(isinstance(operation, Concatenation) for operation in operations) == count - 1


def test_the_pixel_shuffle_and_the_enlarged_image_are_put_together_at_the_end() -> None:
    layers = Compact(scale=4, features=8, convs=1).layers
    left, output = split_output(layers)
    assert left == layers[:-3]
    assert output == Output(source="body.4", factor=4, adds_enlarged_image=True)
    assert split_output(layers[:-2]) == (left, Output(source="body.4", factor=4))
    assert split_output(left) == (left, Output(source="body.4"))


def test_a_shuffled_image_that_others_read_is_not_put_together_at_the_end() -> None:
    layers = (
        conv("c", IMAGE, 3, 12),
        PixelShuffle(name="shuffled", source="c", factor=2),
        NearestEnlargement(name="large", source=IMAGE, factor=2),
        Product(name="product", sources=("shuffled", "large")),
        total(("shuffled", 1.0), ("large", 1.0)),
    )
    assert split_output(layers) == (layers, Output(source="sum"))


def test_an_rrdbnet_is_dense_blocks_in_three_maps_and_a_tail_of_convolutions() -> None:
    trunk, tail = schedules(RRDB(scale=4), 16)
    assert kinds(trunk.operations) == {
        "conv_first": "FusedConvolution",
        **{f"body.{block}{name}": "FusedDenseBlock" for block in range(23) for name in (".rdb1", ".rdb2", "")},
        "body": "FusedConvolution",
    }
    buffers = {place.buffer: place.channels for place in trunk.places.values()}
    assert sorted(buffers.values()) == [16, 32, 32, 64, 64, 64]
    assert list(kinds(tail.operations)) == ["conv_up1", "conv_up2", "conv_hr", "conv_last"]
    assert trunk.runs_whole and not tail.runs_whole


def test_in_strips_no_map_of_an_rrdbnet_takes_turns_with_one_whose_rows_are_kept() -> None:
    trunk, _ = schedules(RRDB(scale=4), 16, in_strips=True)
    buffers = {place.buffer: place.channels for place in trunk.places.values()}
    assert sorted(buffers.values()) == [16, 16, 32, 32, 32, 32, 64, 64, 64]


def test_what_a_convolution_made_from_few_channels_is_made_again_for_a_sum_far_behind() -> None:
    trunk, _ = schedules(RRDB(scale=4), 16, in_strips=True)
    *_, skip, again, body = trunk.operations
    assert isinstance(skip, LongSkip) and isinstance(again, FusedConvolution) and isinstance(body, FusedConvolution)
    assert (skip.source, again.source, again.layer.name) == ("input", skip.name, "conv_first")
    assert trunk.places[skip.name].own_channels == 3
    assert again.name in body.sources and "conv_first" not in body.sources
    rows = rows_after(trunk, 1000)
    assert rows[again.name] == rows["body"] == rows["conv_first"] - skip.lag_rows


def test_what_a_convolution_made_from_many_channels_waits_itself() -> None:
    trunk, _ = schedules(RRDB(scale=1), 16, in_strips=True)
    skips = [operation for operation in trunk.operations if isinstance(operation, LongSkip)]
    assert [(skip.source, trunk.places[skip.name].own_channels) for skip in skips] == [("conv_first", 64)]


def test_a_chain_of_convolutions_takes_turns_in_two_maps() -> None:
    for in_strips in (False, True):
        (schedule,) = schedules(Compact(scale=4), 16, in_strips=in_strips)
        buffers = {place.buffer: place.channels for place in schedule.places.values()}
        assert sorted(buffers.values()) == [16, 48, 64, 64]
        assert schedule.runs_whole != in_strips


def kept_counts(schedule: StageSchedule, rows: dict[str, int], end_row: int | None = None) -> dict[str, int]:
    return {name: end - first for name, (first, end) in rows_kept(schedule, rows, end_row).items()}


def test_convolutions_give_a_row_less_than_they_read_and_carry_two() -> None:
    (schedule,) = schedules(Compact(scale=2, features=8, convs=1), 16, in_strips=True)
    rows = rows_after(schedule, 10)
    assert rows == {"input": 10, "body.0": 9, "body.2": 8, "body.4": 7}
    assert kept_counts(schedule, rows) == {"input": 2, "body.0": 2, "body.2": 2, "body.4": 0}
    rows = rows_after(schedule, 10 + ALL_ROWS, 10)
    assert set(rows.values()) == {10}
    assert set(kept_counts(schedule, rows, 10).values()) == {0}


def test_the_rows_that_lag_are_led_out_strip_by_strip() -> None:
    (schedule,) = schedules(Compact(scale=2, features=8, convs=1), 16, in_strips=True)
    known = [rows_after(schedule, source_rows, 10)["body.4"] for source_rows in (10, 11, 12, 13, 14)]
    assert known == [7, 8, 9, 10, 10]


def test_a_dense_block_goes_on_at_a_whole_tile_below_which_its_last_convolution_stopped() -> None:
    trunk, _ = schedules(RRDB(scale=4, blocks=1), 16, in_strips=True)
    rows = rows_after(trunk, 101)
    first = "body.0.rdb1"
    assert [rows[f"{first}.conv{number}"] for number in (1, 2, 3, 4)] == [95, 94, 93, 92]
    assert [rows[name] for name in ("conv_first", first, "body.0.rdb2", "body.0", "body")] == [96, 90, 84, 78, 72]
    kept = rows_kept(trunk, rows)
    assert [kept[f"{first}.conv{number}"] for number in (1, 2, 3, 4)] == [(89, 90)] * 4
    assert kept[first] == (83, 90)
    assert kept["conv_first"] == (72, 96)


@pytest.mark.parametrize("architecture", [RRDB(scale=4), RRDB(scale=2), RRDB(scale=1)], ids=str)
def test_in_strips_the_tiles_of_a_trunk_with_dense_blocks_are_those_of_a_whole_image(architecture: RRDB) -> None:
    trunk, *_ = schedules(architecture, 16, in_strips=True)
    for taken in range(400, 460):
        rows = rows_after(trunk, taken)
        convolutions = [each for each in trunk.operations if isinstance(each, FusedConvolution | FusedDenseBlock)]
        assert all(rows[each.name] % 6 == 0 for each in convolutions)


def test_a_tail_gives_whole_tiles_until_the_last() -> None:
    _, tail = schedules(RRDB(scale=4), 16)
    rows = rows_after(tail, 10)
    assert [rows[name] for name in ("conv_up1", "conv_up2", "conv_hr", "conv_last")] == [18, 30, 24, 18]
    assert rows_after(tail, 10 + ALL_ROWS, 10)["conv_last"] == 40
