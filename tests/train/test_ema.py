import torch
from torch import nn

from realesr.train.ema import Ema


def small_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_the_mean_begins_as_a_frozen_copy():
    module = small_net()
    ema = Ema(module, 0.9)
    for own, other in zip(ema.module.parameters(), module.parameters(), strict=True):
        assert torch.equal(own, other)
        assert own.data_ptr() != other.data_ptr()
        assert not own.requires_grad
        assert other.requires_grad
    assert not ema.module.training
    assert module.training


def test_each_update_keeps_exactly_the_decay():
    module = small_net()
    ema = Ema(module, 0.97)
    expected = [each.detach().double() for each in module.parameters()]
    for seed in range(1, 21):
        module.load_state_dict(small_net(seed).state_dict())
        ema.update(module)
        expected = [
            0.97 * mean + 0.03 * new.detach().double() for mean, new in zip(expected, module.parameters(), strict=True)
        ]
    for own, mean in zip(ema.module.parameters(), expected, strict=True):
        torch.testing.assert_close(own.double(), mean, rtol=0, atol=3e-7)


def test_a_decay_of_nothing_follows_at_once():
    ema = Ema(small_net(), 0.0)
    module = small_net(1)
    ema.update(module)
    for own, other in zip(ema.module.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(own, other.detach(), rtol=0, atol=1e-7)


def test_buffers_are_copied():
    module = small_net()
    ema = Ema(module, 0.999)
    module(torch.rand(2, 3, 8, 8))
    ema.update(module)
    own, other = dict(ema.module.named_buffers()), dict(module.named_buffers())
    assert {"1.running_mean", "1.running_var", "1.num_batches_tracked"} == set(own)
    for name, buffer in own.items():
        assert torch.equal(buffer, other[name])


def test_a_mean_that_was_saved_goes_on():
    ema, other = Ema(small_net(), 0.9), Ema(small_net(5), 0.9)
    ema.update(small_net(1))
    other.load_state_dict(ema.state_dict())
    for each in (ema, other):
        each.update(small_net(2))
    for own, expected in zip(other.module.parameters(), ema.module.parameters(), strict=True):
        assert torch.equal(own, expected)
