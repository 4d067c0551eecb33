import pytest
import torch

from realesr.models.compact import Compact
from realesr.models.discriminator import UNetDiscriminator
from realesr.models.rrdb import RRDB
from realesr.networks import build
from realesr.networks.discriminator import NormedConv


@pytest.mark.parametrize(
    "architecture",
    [
        RRDB(scale=4, features=8, blocks=2, growth=4),
        RRDB(scale=1, features=8, blocks=1, growth=4),
        RRDB(scale=8, features=8, blocks=1, growth=4, upsamplings=3),
        Compact(scale=3, features=8, convs=3),
        Compact(scale=4, features=8, convs=1, activation="relu"),
        UNetDiscriminator(features=4),
        UNetDiscriminator(features=4, channels=6),
    ],
)
def test_state_dicts_have_exactly_the_keys_and_shapes_of_the_architecture(architecture):
    state = build(architecture).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == architecture.shapes


@pytest.mark.parametrize(("scale", "multiple"), [(4, 1), (2, 2), (1, 4)])
def test_rrdb_enlarges_by_its_scale(scale, multiple):
    net = build(RRDB(scale=scale, features=4, blocks=1, growth=2))
    lr = torch.rand(2, 3, 3 * multiple, 5 * multiple)
    assert net(lr).shape == (2, 3, 3 * multiple * scale, 5 * multiple * scale)


def test_dense_blocks_begin_near_the_identity_and_without_bias():
    torch.manual_seed(0)
    net = build(RRDB(scale=4, features=64, blocks=1, growth=32))
    conv = net.get_submodule("body.0.rdb1.conv1")
    assert isinstance(conv, torch.nn.Conv2d)
    assert conv.bias is not None
    assert float(conv.weight.detach().std()) == pytest.approx(0.1 * (2 / (64 * 9)) ** 0.5, rel=0.05)
    assert not conv.bias.any()


def test_a_compact_network_with_zero_weights_is_nearest_neighbour():
    net = build(Compact(scale=3, features=4, convs=2))
    for parameter in net.parameters():
        parameter.data.zero_()
    lr = torch.rand(1, 3, 4, 5)
    assert torch.equal(net(lr), lr.repeat_interleave(3, 2).repeat_interleave(3, 3))


def test_a_compact_network_begins_with_the_image_in_its_first_features():
    net = build(Compact(scale=4, features=8, convs=2))
    lr = torch.rand(1, 3, 6, 5)
    body = net.get_submodule("body")
    assert isinstance(body, torch.nn.Sequential)
    assert torch.equal(body[:-1](lr)[:, :3], lr)
    assert build(Compact(scale=4, features=2, convs=1))(lr).shape == (1, 3, 24, 20)


def test_the_discriminator_judges_every_pixel_and_normalises_its_inner_weights():
    torch.manual_seed(0)
    net = build(UNetDiscriminator(features=4)).train()
    image = torch.rand(2, 3, 8, 16)
    with torch.no_grad():
        for _ in range(30):  # one step of the power iteration each
            logits = net(image)
    assert logits.shape == (2, 1, 8, 16)
    conv = net.get_submodule("conv4")
    assert isinstance(conv, NormedConv)
    largest = torch.linalg.matrix_norm(conv.eval().normed_weight().detach().flatten(1), 2)
    assert float(largest) == pytest.approx(1, abs=0.05)
