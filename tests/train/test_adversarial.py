"""Checks what the discriminator sees, and the strength of the adversarial gradient, against separate computations."""

import copy
import io

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional

from realesr import networks
from realesr.models.compact import Compact
from realesr.models.discriminator import UNetDiscriminator
from realesr.train import steps
from realesr.train.adversarial import DETAILS_GAIN, MEAN_PX, MOST_FACTOR, balanced_gradient, details, enlarged, seen
from realesr.train.losses import gan_loss, l1, laplacian_loss
from realesr.train.stage_options import StageOptions
from realesr.train.train_state import make_state

CPU = torch.device("cpu")
ALL_THREE = {"gan_adaptive": True, "gan_details": True}
"""With a discriminator of six channels."""


def stage(**more):
    least = {"iterations": 100, "batch": 4, "crop_px": 16, "bf16": False, "channels_last": False, "gan": 0.5}
    return StageOptions(**{**least, **more})


def make(options, *, channels=3, seed=0):
    torch.manual_seed(seed)
    generator = networks.build(Compact(scale=2, features=8, convs=1))
    return make_state(generator, networks.build(UNetDiscriminator(features=4, channels=channels)), options, CPU)


def batch(seed=0, count=4):
    """Return LR, HR and sharpened HR."""
    random = torch.Generator().manual_seed(seed)
    hr = functional.interpolate(torch.rand(count, 3, 5, 5, generator=random), size=16, mode="bicubic").clamp(0, 1)
    lr = functional.avg_pool2d(hr, 2) + 0.02 * torch.randn(count, 3, 8, 8, generator=random)
    return lr, hr, (1.3 * hr - 0.15).clamp(0, 1)


def step(state, images, options):
    lr, hr, sharp = images
    return steps.gan_step(state, lr, hr, sharp, options)


def at_output(state):
    """Return a dictionary that gets the last gradient at the generator's output, by the number of the batch's part."""
    found = dict[int, torch.Tensor]()

    def catch(_, __, output):
        part = len(found)
        output.register_hook(lambda gradient: found.update({part: gradient.clone()}))

    state.generator.register_forward_hook(catch)
    return found


def gradients(state):
    return torch.cat([each.grad.flatten() for each in state.generator.parameters()])


def tensors(state):
    parts = state.state_dict()
    named = {
        f"{part}.{key}": value for part in ("generator", "ema", "discriminator") for key, value in parts[part].items()
    }
    for part in ("g_optimiser", "d_optimiser"):
        for index, kept in parts[part]["state"].items():
            named |= {f"{part}.{index}.{key}": value for key, value in kept.items()}
    return named


def test_details_are_the_differences_from_local_means():
    images = torch.rand(2, 3, 20, 17, generator=torch.Generator().manual_seed(0))
    square, inside = np.ones((MEAN_PX, MEAN_PX)), np.ones((20, 17))
    for image, found in zip(
        images.double().numpy().reshape(-1, 20, 17), details(images).reshape(-1, 20, 17), strict=True
    ):
        sums, counts = (ndimage.convolve(plane, square, mode="constant") for plane in (image, inside))
        np.testing.assert_allclose(found.numpy(), DETAILS_GAIN * (image - sums / counts), atol=1e-5)


def test_a_constant_colour_changes_no_details():
    images = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    colour = torch.tensor([0.3, -0.2, 0.7]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(details(images + colour), details(images), rtol=0, atol=1e-5)


def test_the_enlarged_input_is_of_the_images_size_and_range():
    lr, hr, _ = batch()
    found = enlarged(3 * lr - 1, hr)
    assert (found.shape, found.dtype) == (hr.shape, torch.float32)
    assert (float(found.min()), float(found.max())) == (0, 1)
    torch.testing.assert_close(enlarged(torch.full_like(lr, 0.4), hr), torch.full_like(hr, 0.4))


def test_a_plain_discriminator_sees_the_very_image():
    lr, hr, _ = batch()
    options = stage()
    assert seen(make(options).discriminator, hr, lr, options) is hr


@pytest.mark.parametrize("in_details", [False, True])
def test_a_conditional_discriminator_judges_by_the_input_too(in_details):
    lr, hr, _ = batch()
    options = stage(gan_details=in_details)
    judge = make(options, channels=6).discriminator.eval()
    shown = seen(judge, hr, lr, options)
    assert torch.equal(shown[:, :3], details(hr) if in_details else hr)
    assert torch.equal(shown[:, 3:], enlarged(lr, hr))
    assert not torch.allclose(judge(shown), judge(seen(judge, hr, lr.flip(0), options)))


@pytest.mark.parametrize("parts", [1, 2])
def test_images_are_judged_beside_their_own_inputs(parts):
    lr, hr, sharp = batch()
    options = stage(accumulate=parts, gan_details=True)
    state = make(options, channels=6)
    sr, judged = state.generator(lr).detach(), list[torch.Tensor]()
    state.discriminator.register_forward_pre_hook(lambda _, images: judged.append(images[0].detach()))
    steps.gan_step(state, lr, hr, sharp, options)
    for number, images in enumerate((sr, hr, sr)):
        expected = torch.cat([details(images), enlarged(lr, hr)], dim=1)
        torch.testing.assert_close(torch.cat(judged[parts * number : parts * (number + 1)]), expected)


@pytest.mark.parametrize("share", [0.05, 0.2])
@pytest.mark.parametrize("more", [{}, {"laplacian": 0.5, "colour": 1.0}, {"gan_details": True}])
def test_the_adversarial_gradient_has_the_share_that_was_asked_for(share, more):
    lr, hr, sharp = batch()
    options = stage(gan=share, gan_adaptive=True, **more)
    state = make(options)
    caught, judge = at_output(state), copy.deepcopy(state.discriminator)
    sr = state.generator(lr).detach().requires_grad_()
    logits = judge(details(sr) if options.gan_details else sr)
    functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits)).backward()
    adversarial = sr.grad.double()
    found = steps.gan_step(state, lr, hr, sharp, options)
    pulled = float(found["gan_factor"]) * adversarial
    others = caught[0].double() - pulled
    assert float(pulled.norm() / others.norm()) == pytest.approx(share, rel=1e-4)
    if not more:
        expected = torch.sign(sr.detach() - sharp).double() / sr.numel()
        torch.testing.assert_close(others, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))
    torch.testing.assert_close(
        found["gan"], functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
    )


def test_the_share_rises_on_the_ramp():
    lr, hr, sharp = batch()
    factors = []
    for more in ({"gan": 0.5, "gan_ramp": 4}, {"gan": 0.125}):
        options = stage(gan_adaptive=True, **more)
        factors.append(steps.gan_step(make(options), lr, hr, sharp, options)["gan_factor"])
    torch.testing.assert_close(*factors)


def test_a_gradient_of_zeros_stays_one():
    sr = torch.rand(1, 3, 8, 8, requires_grad=True)
    gradient, factor = balanced_gradient(sr.sum(), (0 * sr).sum(), sr, 0.5)
    assert torch.equal(gradient, torch.ones_like(sr))
    assert factor.isfinite()


def test_a_discriminator_that_has_given_up_is_not_enlarged_without_end():
    sr = torch.ones(2, 3, 4, 4, requires_grad=True)
    gradient, factor = balanced_gradient(sr.sum(), 1e-4 * sr.sum(), sr, 0.5)
    assert factor == MOST_FACTOR
    torch.testing.assert_close(gradient, torch.full_like(sr, 1 + 1e-4 * MOST_FACTOR))


def test_without_the_options_a_step_has_the_bits_of_the_plain_sum():
    lr, hr, sharp = batch()
    options = stage(gan=0.1, perceptual=0.0, laplacian=0.3)
    state = make(options)
    net, judge = copy.deepcopy(state.generator), copy.deepcopy(state.discriminator)
    found = steps.gan_step(state, lr, hr, sharp, options)
    sr = net(lr)
    losses = {"l1": l1(sr, sharp), "laplacian": laplacian_loss(sr, sharp)}
    losses["gan"] = gan_loss(judge.requires_grad_(False)(sr), real=True)
    torch.stack([losses["l1"] * 1.0, losses["laplacian"] * 0.3, losses["gan"] * 0.1]).sum().backward()
    assert "gan_factor" not in found
    assert torch.equal(gradients(state), torch.cat([each.grad.flatten() for each in net.parameters()]))


def test_the_share_holds_over_a_batch_in_parts():
    """Each part scales its own gradient: norms over disjoint images add up in squares, so the share is the batch's."""
    lr, hr, sharp = batch()
    ends = {}
    for parts in (1, 2):
        plain, adaptive = stage(gan=1e-30, accumulate=parts), stage(gan_adaptive=True, accumulate=parts)
        caught = []
        for options in (plain, adaptive):
            state = make(options)
            found = at_output(state)
            steps.gan_step(state, lr, hr, sharp, options)
            caught.append(torch.cat(list(found.values())).double())
        others, together = caught
        ends[parts] = others
        assert float((together - others).norm() / others.norm()) == pytest.approx(0.5, rel=1e-4)
    torch.testing.assert_close(ends[2], ends[1], rtol=0, atol=1e-9)


def test_equal_parts_are_the_batch():
    lr, hr, sharp = (each.repeat(2, 1, 1, 1) for each in batch(count=2))
    ends = []
    for parts in (1, 2):
        options = stage(accumulate=parts, **ALL_THREE)
        state = make(options, channels=6)
        losses = steps.gan_step(state, lr, hr, sharp, options)
        ends.append((gradients(state), losses))
    torch.testing.assert_close(ends[1][0], ends[0][0], rtol=1e-4, atol=1e-7)
    for name, value in ends[0][1].items():
        torch.testing.assert_close(ends[1][1][name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layout", [True, False])
def test_a_run_with_all_three_goes_on_with_the_same_bits(layout):
    options = stage(bf16=True, channels_last=layout, gan_ramp=4, d_warm_up=1, accumulate=2, clip_norm=1.0, **ALL_THREE)
    whole, half, rest = (make(options, channels=6, seed=seed) for seed in (0, 0, 1))
    for seed in range(5):
        step(whole, batch(seed), options)
    for seed in range(2):
        step(half, batch(seed), options)
    file = io.BytesIO()
    torch.save(half.state_dict(), file)
    file.seek(0)
    rest.load_state_dict(torch.load(file, weights_only=True))
    for seed in range(2, 5):
        step(rest, batch(seed), options)
    own, expected = tensors(rest), tensors(whole)
    assert own.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in own.items())


def test_bfloat16_keeps_the_factor_in_float32_and_near():
    factors = []
    for bf16 in (False, True):
        options = stage(bf16=bf16, **ALL_THREE)
        factors.append(step(make(options, channels=6), batch(), options)["gan_factor"])
    assert factors[1].dtype == torch.float32
    assert not factors[1].requires_grad
    torch.testing.assert_close(factors[1], factors[0], rtol=0.05, atol=0)
