import numpy as np
import pytest
import torch

from realesr.errors import ModelError
from realesr.models.compact import Compact
from realesr.models.discriminator import UNetDiscriminator
from realesr.models.recognition import architecture_from_text, detect, recognise, text_from_architecture
from realesr.models.rrdb import RRDB
from realesr.networks import build


def _state(architecture):
    return {key: np.zeros(shape, np.float32) for key, shape in architecture.shapes.items()}


# Parameters and MAC as published for the released networks.
@pytest.mark.parametrize(
    ("architecture", "parameters", "mega_mac"),
    [
        (RRDB(scale=4), 16_697_987, 17.93),
        (RRDB(scale=2), 16_703_171, 4.48),
        (RRDB(scale=1), 16_723_907, 1.12),
        (RRDB(scale=4, blocks=6), 4_467_779, 5.71),
        (Compact(scale=4), 621_424, 0.619),
        (Compact(scale=4, convs=32), 1_213_296, 1.209),
        (Compact(scale=2), 600_652, 0.598),
    ],
)
def test_parameters_and_work_are_the_published_ones(architecture, parameters, mega_mac):
    assert architecture.parameters == parameters
    assert architecture.macs_per_px / 1e6 == pytest.approx(mega_mac, abs=0.005)


@pytest.mark.parametrize(
    ("architecture", "radius_px"),
    [
        (RRDB(scale=4), 349),
        (RRDB(scale=4, blocks=6), 94),
        (Compact(scale=4), 18),
        (Compact(scale=4, convs=32), 34),
        (RRDB(scale=2), 698),
        (RRDB(scale=1), 1396),
    ],
)
def test_radii_of_the_released_networks(architecture, radius_px):
    assert architecture.radius_px == radius_px


@pytest.mark.parametrize(
    "architecture",
    [
        RRDB(scale=4, features=2, blocks=1, growth=2),
        RRDB(scale=4, features=2, blocks=2, growth=1),
        RRDB(scale=2, features=2, blocks=1, growth=2),
        RRDB(scale=1, features=2, blocks=1, growth=2),
        RRDB(scale=2, features=2, blocks=1, growth=2, upsamplings=1),
        RRDB(scale=8, features=2, blocks=1, growth=2, upsamplings=3),
        RRDB(scale=1, features=2, blocks=1, growth=2, upsamplings=0),
        Compact(scale=4, features=2, convs=3),
        Compact(scale=2, features=2, convs=5, activation="leakyrelu"),
    ],
)
def test_one_pixel_changes_the_output_exactly_as_far_as_the_radius(architecture):
    # With positive weights and no bias, the output is above zero where, and only where, the pixel reaches.
    net = build(architecture).double()
    for key, parameter in net.named_parameters():
        parameter.data = torch.zeros_like(parameter) if key.endswith("bias") else torch.full_like(parameter, 0.5)
    step = architecture.multiple_of
    width = (2 * (architecture.radius_px // step) + 5) * step
    reach = 0
    for place in range(width // 2, width // 2 + step):
        image = torch.zeros(1, 3, step, width, dtype=torch.float64)
        image[..., place] = 1
        with torch.no_grad():
            reached = (net(image)[0].amax((0, 1)) > 0).nonzero().flatten() // architecture.scale
        reach = max(reach, place - int(reached.min()), int(reached.max()) - place)
    assert reach == architecture.radius_px


@pytest.mark.parametrize(
    "architecture",
    [
        RRDB(scale=4, features=8, blocks=3, growth=4),
        RRDB(scale=2, features=8, blocks=1, growth=4),
        RRDB(scale=1, features=8, blocks=1, growth=4),
        RRDB(scale=8, features=8, blocks=1, growth=4, upsamplings=3),
        RRDB(scale=2, features=8, blocks=1, growth=4, upsamplings=1),
        RRDB(scale=1, features=8, blocks=1, growth=4, upsamplings=0),
        Compact(scale=4, features=8, convs=3),
        Compact(scale=1, features=8, convs=0),
        Compact(scale=3, features=8, convs=1),
    ],
)
def test_an_architecture_is_found_again_from_its_shapes_and_from_its_text(architecture):
    assert detect(_state(architecture)) == architecture
    assert architecture_from_text(text_from_architecture(architecture)) == architecture


def test_text_of_others_is_no_architecture():
    for text in ("", "[]", "{}", '{"network": "RRDB", "scale": 3}', '{"network": "RRDB", "colour": 1}', "RRDB"):
        assert architecture_from_text(text) is None


@pytest.mark.parametrize("activation", ["relu", "leakyrelu"])
def test_a_compact_network_without_slopes_needs_to_be_told_its_activation(activation):
    architecture = Compact(scale=2, features=4, convs=2, activation=activation)
    with pytest.raises(ModelError, match="do not tell ReLU from leaky ReLU"):
        detect(_state(architecture))
    assert detect(_state(architecture), activation=activation) == architecture


def test_a_discriminator_is_recognised_but_is_no_generator():
    state = _state(UNetDiscriminator(features=8))
    assert recognise(state)[0] == UNetDiscriminator(features=8)
    assert UNetDiscriminator().parameters == 4_376_897
    with pytest.raises(ModelError, match="weights of a discriminator, which enlarges nothing"):
        detect(state)


def test_a_conditional_discriminator_is_recognised_by_its_six_channels():
    architecture = UNetDiscriminator(features=8, channels=6)
    state = _state(architecture)
    assert recognise(state)[0] == architecture
    assert "8 features, 6 channels" in architecture.title
    assert "channels" not in UNetDiscriminator(features=8).title
    state["conv0.weight"] = np.zeros((8, 5, 3, 3), np.float32)
    with pytest.raises(ModelError, match=r"this discriminator sees 5 channels: expected 3 .* or 6"):
        recognise(state)


def test_unknown_weights_are_refused_with_their_first_keys():
    with pytest.raises(ModelError, match=r"got layers\.0\.attn\.qkv; expected"):
        detect({"layers.0.attn.qkv": np.zeros(3)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("body.0.rdb2.conv3.bias"), "miss body.0.rdb2.conv3.bias"),
        (lambda s: s.update({"body.0.rdb1.conv1x1.weight": np.zeros((4, 8, 1, 1))}), "also hold body.0.rdb1.conv1x1"),
        (lambda s: s.update({"conv_hr.bias": np.zeros(9)}), r"conv_hr.bias of a RRDBNet x4.* the shape \(9,\)"),
        (lambda s: s.update({"conv_first.weight": np.zeros((8, 4, 3, 3))}), "takes 4 channels"),
        (lambda s: s.update({"conv_last.weight": np.zeros((1, 8, 3, 3))}), "and gives 1"),
        (lambda s: s.update({"conv_first.weight": np.zeros(8)}), "four dimensions"),
        (lambda s: s.update({"body.999999999.rdb1.conv1.weight": np.zeros(8)}), "miss body.1.rdb1"),
        (lambda s: s.update({"conv_first.weight": np.zeros((8, 192, 3, 3))}), "would shrink"),
    ],
)
def test_weights_that_are_nearly_ours_are_refused_with_the_difference(change, message):
    state = _state(RRDB(scale=4, features=8, blocks=1, growth=4))
    change(state)
    with pytest.raises(ModelError, match=message):
        detect(state)


def test_impossible_architectures_cannot_be_made():
    for make in (
        lambda: RRDB(scale=3),
        lambda: RRDB(scale=4, blocks=0),
        lambda: RRDB(scale=2**40, upsamplings=40),
        lambda: Compact(scale=0),
        lambda: Compact(scale=4, activation="gelu"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ModelError, match="cannot be"):
            make()
