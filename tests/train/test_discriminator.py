"""Compares the discriminator's spectral norm with torch's to the bit; it is float32 whatever convolutions run in."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import spectral_norm
from torch.utils._python_dispatch import TorchDispatchMode

from realesr.models.discriminator import UNetDiscriminator
from realesr.networks import build
from realesr.networks.discriminator import NormedConv


def both() -> tuple[NormedConv, nn.Module]:
    """Return our convolution and torch's, from the same random numbers."""
    torch.manual_seed(0)
    own = NormedConv(4, 6, 3, padding=1)
    torch.manual_seed(0)
    return own, spectral_norm(nn.Conv2d(4, 6, 3, padding=1, bias=False))


def test_it_is_torchs_spectral_norm_to_the_bit_forwards_and_backwards():
    own, other = both()
    image = torch.rand(2, 4, 9, 8)
    for step in range(4):
        for module in (own, other):
            module.train(step != 2)
        first, second = own(image), other(image)
        assert torch.equal(first, second)
        (first.square().sum() + own(image).sum()).backward()
        (second.square().sum() + other(image).sum()).backward()
    assert own.state_dict().keys() == other.state_dict().keys()
    for key, value in own.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])
    first, second = (module.get_parameter("weight_orig").grad for module in (own, other))
    assert first is not None
    assert second is not None
    assert torch.equal(first, second)


def test_a_state_dict_goes_into_torchs_form_and_back():
    own, other = both()
    own(torch.rand(1, 4, 5, 5))
    other.load_state_dict(own.state_dict())
    again = NormedConv(4, 6, 3, padding=1)
    again.load_state_dict(other.state_dict())
    image = torch.rand(1, 4, 5, 5)
    assert torch.equal(again.eval()(image), own.eval()(image))


class _Dtypes(TorchDispatchMode):
    """Notes the types of the vectors and matrices that are multiplied, and of the convolutions."""

    def __init__(self):
        super().__init__()
        self.products, self.convolutions = set(), set()

    def __torch_dispatch__(self, function, types, arguments=(), more=None):
        name = function.overloadpacket.__name__
        if name in ("mv", "dot", "mm", "addmv"):
            self.products.add(arguments[0].dtype)
        if name in ("convolution", "mkldnn_convolution"):
            self.convolutions.add(arguments[0].dtype)
        return function(*arguments, **(more or {}))


def test_sigma_is_computed_in_float32_under_autocast():
    own, other = both()
    image = torch.rand(2, 4, 9, 8)
    with _Dtypes() as seen, torch.autocast("cpu", torch.bfloat16):
        logits = own(image)
    assert (seen.products, seen.convolutions) == ({torch.float32}, {torch.bfloat16})
    assert logits.dtype == torch.bfloat16
    other(image)
    assert torch.equal(own.get_buffer("weight_u"), other.get_buffer("weight_u"))
    assert own.normed_weight().dtype == torch.float32


@pytest.mark.parametrize("is_training", [True, False])
def test_a_whole_discriminator_multiplies_in_float32_under_autocast(is_training):
    net = build(UNetDiscriminator(features=4)).train(is_training)
    with _Dtypes() as seen, torch.autocast("cpu", torch.bfloat16):
        functional.softplus(net(torch.rand(1, 3, 16, 16))).mean().backward()
    assert seen.products == {torch.float32}
