"""What Triton's convolutions compute of a network, and what they refuse, told from its layers alone."""

from dataclasses import replace
from typing import Any

import pytest

from realesr.engines.pytorch.triton_plan import chains, find_fused, find_groups, readers_of
from realesr.errors import UsageError
from realesr.models.architecture import Architecture
from realesr.models.layers import Activation, Convolution
from realesr.models.rrdb import RRDB
from tests.engines.pytorch.layered_networks import SPAN_LIKE, Layered

DENSE = RRDB(scale=4, features=32, blocks=2, growth=16)


def changed(name: str, **fields: Any) -> Layered:
    """Return the network with other fields of the layer of this name."""
    layers = tuple(replace(layer, **fields) if layer.name == name else layer for layer in DENSE.layers)
    return Layered(name="changed x4", scale=4, steps=layers)


def planned(architecture: Architecture, *, tail: bool) -> list[tuple[str, str, str, str]]:
    """Return source, enlargement, sum and skip of what is fused."""
    groups = find_groups(architecture)
    taken = {layer.name for group in groups for layer in group.layers}
    fused = find_fused(architecture, taken, readers_of(architecture.layers), tail=tail)
    return [
        (each.source, each.enlargement.name if each.enlargement else "", each.sum.name if each.sum else "", each.skip)
        for each in fused
    ]


def test_groups_that_follow_one_another_share_their_buffers() -> None:
    (chain,) = chains(find_groups(DENSE), readers_of(DENSE.layers))
    assert [(group.source, group.sum.name, group.widest) for group in chain] == [
        ("conv_first", "body.0", 96),
        ("body.0", "body.1", 96),
    ]


def test_a_group_whose_result_is_read_elsewhere_keeps_it() -> None:
    later = changed("body", terms=(("conv_body", 1.0), ("body.0", 1.0)))
    assert len(chains(find_groups(later), readers_of(later.layers))) == 2


def test_convolutions_around_the_blocks_are_fused_with_doublings_and_sums() -> None:
    trunk = [("body.1", "", "body", "conv_first")]
    tail = [("body", "conv_up1.in", "", ""), ("conv_up1", "conv_up2.in", "", ""), ("conv_up2", "", "", "")]
    assert planned(DENSE, tail=False) == trunk
    assert planned(DENSE, tail=True) == trunk + tail


def test_convolutions_that_the_kernel_does_not_compute_stay_torchs() -> None:
    silu = Activation(kind="silu")
    smooth = changed("conv_hr", activation=silu)
    assert "conv_up2" not in [source for source, *_ in planned(smooth, tail=True)]
    grouped = changed("conv_body", groups=2)
    assert planned(grouped, tail=False) == []


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (SPAN_LIKE, "attention x2, expected a network of dense blocks"),
        (RRDB(scale=4, features=24, growth=16, blocks=1), "24 features and growth 16, expected multiples of 16"),
        (changed("body.0.rdb2.conv3", activation=None), "rdb2.conv3 in a dense block"),
        (changed("body.0.rdb2.conv5", has_bias=False), "conv5 in a dense block"),
        (changed("body.0.rdb2.conv1", kernel=1), "conv1 in a dense block"),
        (
            changed("body.1.rdb1", terms=(("body.1.rdb1.conv5", 0.3), ("body.0", 1.0))),
            "rdb1 with a factor of 0.3, expected 0.2",
        ),
        (changed("body.1", terms=(("body.1.rdb3", 0.3), ("body.0", 1.0))), "body.1 with a factor of 0.3, expected 0.2"),
        (changed("body.1", offset=1.0), "body.1.rdb1 outside a group"),
    ],
)
def test_dense_blocks_that_the_kernel_does_not_compute_are_refused(architecture: Architecture, message: str) -> None:
    with pytest.raises(UsageError, match=rf"kernels=triton got .*{message}.*take kernels=cudnn"):
        find_groups(architecture)


def test_every_convolution_of_a_group_is_one_of_the_networks() -> None:
    (group, _) = find_groups(DENSE)
    convolutions = [layer for layer in group.layers if isinstance(layer, Convolution)]
    assert len(convolutions) == 15
    assert set(convolutions) <= set(DENSE.convolutions)
