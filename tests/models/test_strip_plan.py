"""Checks the lag and the delay of each result where a network runs strip by strip."""

from dataclasses import replace
from fractions import Fraction

import pytest

from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.layers import IMAGE, Convolution, PixelUnshuffle
from realesr.models.rrdb import RRDB
from realesr.models.stateful_graph import stateful_graphs
from realesr.models.strip_plan import Stage, stages, state_values_per_column, strip_plan
from tests.models.small_networks import SMALL, small_weights

X4PLUS = RRDB(scale=4)
ANIME = RRDB(scale=4, blocks=6)
X2PLUS = RRDB(scale=2)
VIDEO = Compact(scale=4)
GENERAL = Compact(scale=4, convs=32)


@pytest.mark.parametrize("architecture", SMALL, ids=lambda one: one.title)
def test_stages_are_all_layers_in_order(architecture: Architecture) -> None:
    parts = stages(architecture)
    assert tuple(layer for stage in parts for layer in stage.layers) == architecture.layers
    assert [stage.source for stage in parts] == [IMAGE, *(stage.result for stage in parts[:-1])]


def test_a_network_is_cut_before_an_enlargement_behind_which_it_convolves() -> None:
    assert [stage.result for stage in stages(X4PLUS)] == ["body", "conv_last"]
    assert [stage.result for stage in stages(VIDEO)] == ["sum"]


def test_a_plan_is_computed_once() -> None:
    stage = stages(X4PLUS)[0]
    assert strip_plan(stage) is strip_plan(stage)


@pytest.mark.parametrize("architecture", SMALL, ids=lambda one: one.title)
def test_the_whole_lag_is_the_receptive_radius(architecture: Architecture) -> None:
    lag = Fraction(0)
    for stage in stages(architecture):
        plan = strip_plan(stage)
        lag += plan.lag_rows[stage.result] / architecture.map_shapes[stage.result].grid
    assert lag <= architecture.radius_px < lag + 2 * architecture.multiple_of


def test_a_dense_block_keeps_only_what_its_convolutions_read() -> None:
    plan = strip_plan(stages(RRDB(scale=4, blocks=1))[0])
    assert {delay.source for delay in plan.waits} == {"conv_first"}, "for the sums over a block and over all of them"
    (branch, skip) = plan.reads["body.0.rdb2"]
    assert (branch.rows, skip.rows) == (0, 5)
    assert (skip.held_by, skip.first_channel) == ("body.0.rdb2.conv5", 0)
    assert plan.reads["body.0.rdb2.conv3.in"][1].held_by == "body.0.rdb2.conv2"
    assert plan.reads["body.0.rdb2.conv3.in"][1].first_channel == 64


def test_the_image_waits_and_not_its_enlargement() -> None:
    (stage,) = stages(VIDEO)
    plan = strip_plan(stage)
    assert [(delay.source, delay.rows) for delay in plan.waits] == [(IMAGE, 18)]


def test_what_lags_cannot_be_unshuffled() -> None:
    layers = (
        Convolution(name="first", source=IMAGE, in_channels=3, out_channels=3),
        PixelUnshuffle(name="small", source="first", factor=2),
    )
    with pytest.raises(ValueError, match="small cannot be done in strips: what it reads lags 1 rows"):
        strip_plan(Stage(source=IMAGE, layers=layers))


@pytest.mark.parametrize("architecture", [X4PLUS, ANIME, X2PLUS, VIDEO, GENERAL], ids=lambda one: one.title)
def test_states_are_counted_as_the_stateful_graphs_have_them(architecture: Architecture) -> None:
    """One column of the first conv's grid, after a first strip; skips that wait are not in the graphs' own numbers."""
    small: Architecture
    if isinstance(architecture, RRDB):
        small = replace(architecture, features=4, growth=2)
    else:
        assert isinstance(architecture, Compact)
        small = replace(architecture, features=4)
    weights = small_weights(small)
    waiting = 0
    columns = Fraction(small.multiple_of)
    for graph in stateful_graphs(weights):
        waiting += sum(int(2 * state.channels * state.width_scale * columns) for state in graph.states if state.rows)
    if isinstance(small, RRDB):
        waiting += small.blocks * 15 * small.features + (15 * small.blocks + 1) * small.features
    else:
        waiting += 3 * small.radius_px
    assert state_values_per_column(small) == waiting
