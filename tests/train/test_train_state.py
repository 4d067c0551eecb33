import io

import pytest
import torch

from realesr import networks
from realesr.errors import ModelError
from realesr.models.compact import Compact
from realesr.models.discriminator import UNetDiscriminator
from realesr.models.rrdb import RRDB
from realesr.train.stage_options import StageOptions
from realesr.train.start import start_discriminator
from realesr.train.train_state import make_state, unwrapped

SMALL = Compact(scale=2, features=8, convs=1)
CPU = torch.device("cpu")


def options(**more):
    return StageOptions(**{"iterations": 10, "batch": 2, "crop_px": 32, **more})


def state(generator=SMALL, d_features=4, **more):
    discriminator = networks.build(UNetDiscriminator(features=d_features)) if d_features else None
    return make_state(networks.build(generator), discriminator, options(**more), CPU)


def saved(value):
    """Return a value as a file that may hold no code gives it back."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def stepped(state):
    """Give every optimiser something to remember."""
    for module, optimiser in ((state.generator, state.g_optimiser), (state.discriminator, state.d_optimiser)):
        if module is not None:
            module(torch.rand(1, 3, 16, 16)).square().mean().backward()
            optimiser.step()
    state.ema.update(state.generator)
    state.iteration = 7
    return state


def leaves(tree, path=""):
    """Yield (path, leaf) of nested dicts and lists."""
    if isinstance(tree, dict | list):
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, value in pairs:
            yield from leaves(value, f"{path}/{key}")
    else:
        yield path, tree


@pytest.mark.parametrize("d_features", [0, 4])
def test_what_was_saved_is_what_goes_on(d_features):
    own = stepped(state(d_features=d_features))
    before = saved(own.state_dict())
    other = state(d_features=d_features)
    other.load_state_dict(before)
    for mean, saved_mean, weights in zip(
        other.ema.module.parameters(), own.ema.module.parameters(), own.generator.parameters(), strict=True
    ):
        assert torch.equal(mean, saved_mean)
        assert not torch.equal(mean, weights)
    after = dict(leaves(other.state_dict()))
    assert other.iteration == 7
    assert after.keys() == dict(leaves(before)).keys()
    for path, value in leaves(before):
        assert torch.equal(value, after[path]) if isinstance(value, torch.Tensor) else value == after[path], path


def test_the_vectors_of_spectral_norm_are_saved():
    for number in range(1, 9):
        assert {f"conv{number}.weight_orig", f"conv{number}.weight_u", f"conv{number}.weight_v"} <= set(
            state().state_dict()["discriminator"]
        )


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        (Compact(scale=2, features=6, convs=1), r"generator has \[6, 3, 3, 3\] as body\.0\.weight, expected \[8, 3,"),
        (Compact(scale=2, features=8, convs=2), r"generator has \[8, 8, 3, 3\] as body\.4\.weight, expected \[12, 8,"),
        (RRDB(scale=2, features=8, blocks=1, growth=4), r"generator has nothing as body\.0\.weight, expected \[8, 3,"),
    ],
)
def test_a_state_of_another_network_is_refused_and_the_first_difference_named(other, problem):
    with pytest.raises(ModelError, match=rf"the checkpoint's {problem}.*another network") as caught:
        state().load_state_dict(state(other).state_dict())
    assert "\n" not in str(caught.value)


def test_a_state_of_another_discriminator_is_refused():
    with pytest.raises(ModelError, match=r"discriminator has \[6, 3, 3, 3\] as conv0\.weight, expected \[4, 3, 3, 3\]"):
        state().load_state_dict(state(d_features=6).state_dict())


@pytest.mark.parametrize(("own", "other"), [(4, 0), (0, 4)])
def test_a_state_of_the_other_stage_is_refused(own, other):
    with pytest.raises(ModelError, match="differ in whether there is a discriminator"):
        state(d_features=own).load_state_dict(state(d_features=other).state_dict())


def test_optimisers_are_those_of_the_options():
    made = state(learning_rate=1e-3, d_learning_rate=2e-3, beta1=0.8, beta2=0.95)
    for optimiser, rate in ((made.g_optimiser, 1e-3), (made.d_optimiser, 2e-3)):
        (group,) = optimiser.param_groups
        assert isinstance(optimiser, torch.optim.Adam)
        assert (group["lr"], group["betas"], group["weight_decay"]) == (rate, (0.8, 0.95), 0)


def test_adamw_decays_weights_but_neither_biases_nor_slopes():
    made = state(optimizer="adamw", weight_decay=0.5, learning_rate=0.1)
    before = {name: value.detach().clone() for name, value in made.generator.named_parameters()}
    for value in made.generator.parameters():
        value.grad = torch.zeros_like(value)
    made.g_optimiser.step()
    for name, value in made.generator.named_parameters():
        shrunk = before[name] * (1 - 0.1 * 0.5) if value.ndim > 1 else before[name]
        torch.testing.assert_close(value.detach(), shrunk)
    assert {value.ndim for value in before.values()} == {1, 4}


def test_adamw_goes_on_as_it_was_saved():
    more = {"optimizer": "adamw", "weight_decay": 0.01}
    own, other = stepped(state(**more)), state(**more)
    other.load_state_dict(saved(own.state_dict()))
    for each in (own, other):
        for module, optimiser in ((each.generator, each.g_optimiser), (each.discriminator, each.d_optimiser)):
            for value in module.parameters():
                value.grad = torch.ones_like(value)
            optimiser.step()
    for path, value in leaves(own.state_dict()):
        assert not isinstance(value, torch.Tensor) or torch.equal(value, dict(leaves(other.state_dict()))[path]), path


@pytest.mark.parametrize("channels_last", [True, False])
def test_networks_are_laid_out_as_asked(channels_last):
    made = state(channels_last=channels_last)
    for module in (made.generator, made.ema.module, made.discriminator):
        conv = max(module.parameters(), key=torch.Tensor.numel)
        assert conv.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_a_module_that_is_not_wrapped_is_plain():
    module = networks.build(SMALL)
    assert unwrapped(module) is module


def released_discriminator():
    """Return random weights by the names and shapes of the released files (RealESRGAN_x4plus_netD.pth)."""
    convs = {1: (64, 128, 4), 2: (128, 256, 4), 3: (256, 512, 4), 4: (512, 256, 3), 5: (256, 128, 3), 6: (128, 64, 3)}
    convs |= {7: (64, 64, 3), 8: (64, 64, 3)}
    random = torch.Generator().manual_seed(0)
    state = {"conv0.weight": (64, 3, 3, 3), "conv0.bias": (64,), "conv9.weight": (1, 64, 3, 3), "conv9.bias": (1,)}
    for number, (into, out, side) in convs.items():
        state[f"conv{number}.weight_orig"] = (out, into, side, side)
        state[f"conv{number}.weight_u"] = (out,)
        state[f"conv{number}.weight_v"] = (into * side * side,)
    return {key: torch.randn(shape, generator=random) for key, shape in state.items()}


def test_a_released_discriminator_goes_on(tmp_path):
    released = released_discriminator()
    torch.save({"params": released}, tmp_path / "RealESRGAN_x4plus_netD.pth")
    made = state(d_features=64)
    start_discriminator(made.discriminator, UNetDiscriminator(), tmp_path / "RealESRGAN_x4plus_netD.pth")
    own = saved(made.state_dict())["discriminator"]
    assert own.keys() == released.keys()
    assert all(torch.equal(own[key], value) for key, value in released.items())
    assert sum(each.numel() for each in made.discriminator.parameters()) == 4_376_897
    with pytest.raises(ModelError, match="64 features"):
        start_discriminator(
            state().discriminator, UNetDiscriminator(features=4), tmp_path / "RealESRGAN_x4plus_netD.pth"
        )
