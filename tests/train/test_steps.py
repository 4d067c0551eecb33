"""Compares one step with a second, plain implementation, and tries what other programs failed in."""

import copy
import io
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from realesr import networks
from realesr.errors import UsageError
from realesr.models.compact import Compact
from realesr.models.discriminator import UNetDiscriminator
from realesr.models.rrdb import RRDB
from realesr.train.distributed import World, data_parallel, true_in_all
from realesr.train.losses import PerceptualLoss, artefact_loss, fft_loss, laplacian_loss, ms_ssim_loss
from realesr.train.stage_options import StageOptions
from realesr.train.steps import StepError, gan_step, psnr_step
from realesr.train.train_state import make_state, unwrapped
from tests.train.waiting import waiting_is_an_error

CPU = torch.device("cpu")
BATCH = 4
ALL_LOSSES = {"gan": 0.1, "artefact": 2.0, "colour": 0.5, "perceptual": 0.3, "laplacian": 0.3, "fft": 0.2}
SLOWLY = {"learning_rate": 2e-5, "d_learning_rate": 2e-5}
"""Adam makes whole steps even of gradients that are rounding alone: where steps are small, 1e-6 is fair."""


def stage(step, **more):
    """Return options in float32, which a test can compare; stage 2 has a discriminator."""
    least = {"iterations": 100, "batch": BATCH, "crop_px": 16, "bf16": False, "channels_last": False, "ema_decay": 0.9}
    return StageOptions(**{**least, **({"gan": 0.1} if step is gan_step else {}), **more})


def make(step, options, *, generator=None, seed=0):
    torch.manual_seed(seed)
    made = networks.build(generator or Compact(scale=2, features=8, convs=1))
    discriminator = networks.build(UNetDiscriminator(features=4)) if step is gan_step else None
    return make_state(made, discriminator, options, CPU)


def batch(seed=0, count=BATCH):
    """Return LR, HR and sharpened HR: smooth, so that there is something to learn, and all different."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=random)
    hr = functional.interpolate(coarse, size=16, mode="bicubic").clamp(0, 1)
    lr = functional.avg_pool2d(hr, 2) + 0.02 * torch.randn(count, 3, 8, 8, generator=random)
    return lr, hr, (1.3 * hr - 0.15).clamp(0, 1)


class Views(nn.Module):
    """Stands for VGG19: five views of an image, none linear."""

    def forward(self, image):
        return [(image * factor).sin() for factor in (1, 2, 3, 4, 5)]


def run(step, state, options, images, **more):
    extra = (PerceptualLoss(Views()),) if step is gan_step and options.perceptual else ()
    return step(state, *images, options, *extra, **more)


def numbers(state):
    """Return every tensor that training changes, by a name."""
    parts = state.state_dict()
    named = {"generator": parts["generator"], "ema": parts["ema"], "discriminator": parts["discriminator"] or {}}
    flat = {f"{part}.{key}": value for part, tensors in named.items() for key, value in tensors.items()}
    for part in ("g_optimiser", "d_optimiser"):
        for index, kept in ((parts[part] or {}).get("state", {})).items():
            flat |= {f"{part}.{index}.{key}": value for key, value in kept.items()}
    return {key: value.detach().clone() for key, value in flat.items()}


def assert_close(own, expected, atol):
    assert own.keys() == expected.keys()
    for key, value in own.items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=atol, msg=f"{key} differs")


def gradients(module):
    return torch.cat([each.grad.flatten() for each in unwrapped(module).parameters()])


BOTH = pytest.mark.parametrize("step", [psnr_step, gan_step])


def cross_entropy(logits, label):
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def test_stage_1_is_l1_on_the_sharpened_truth_then_adam_then_the_mean():
    options = stage(psnr_step)
    state = make(psnr_step, options)
    net = copy.deepcopy(state.generator)
    mean = copy.deepcopy(net)
    adam = torch.optim.Adam(net.parameters(), 2e-4, (0.9, 0.99))
    for seed in range(3):
        lr, hr, sharp = batch(seed)
        adam.zero_grad()
        loss = (net(lr) - sharp).abs().mean()
        loss.backward()
        adam.step()
        with torch.no_grad():
            for own, new in zip(mean.parameters(), net.parameters(), strict=True):
                own.mul_(0.9).add_(new, alpha=0.1)
        losses = psnr_step(state, lr, hr, sharp, options)
        torch.testing.assert_close(losses["l1"], loss.detach())
    assert state.iteration == 3
    assert_close(dict(state.generator.state_dict()), dict(net.state_dict()), 1e-6)
    assert_close(state.ema.state_dict(), dict(mean.state_dict()), 1e-6)


def test_stage_2_is_the_order_of_the_paper():
    options = stage(gan_step, perceptual=1.0, learning_rate=1e-4)
    state = make(gan_step, options)
    net, judge = copy.deepcopy(state.generator), copy.deepcopy(state.discriminator)
    adam = torch.optim.Adam(net.parameters(), 1e-4, (0.9, 0.99))
    judge_adam = torch.optim.Adam(judge.parameters(), 1e-4, (0.9, 0.99))
    for seed in range(3):
        lr, hr, sharp = batch(seed)
        adam.zero_grad()
        sr = net(lr)
        expected = {"l1": (sr - sharp).abs().mean()}
        views = zip(Views()(sr), Views()(sharp), (0.1, 0.1, 1, 1, 1), strict=True)
        expected["perceptual"] = sum(weight * (a - b).abs().mean() for a, b, weight in views)
        expected["gan"] = cross_entropy(judge(sr), 1.0)
        (expected["l1"] + expected["perceptual"] + 0.1 * expected["gan"]).backward()
        adam.step()
        judge_adam.zero_grad()
        expected["d_real"] = cross_entropy(judge(hr), 1.0)
        expected["d_fake"] = cross_entropy(judge(sr.detach()), 0.0)
        (expected["d_real"] + expected["d_fake"]).backward()
        judge_adam.step()
        losses = run(gan_step, state, options, (lr, hr, sharp))
        for name, value in expected.items():
            torch.testing.assert_close(losses[name], value.detach(), rtol=1e-5, atol=1e-6)
    assert_close(dict(state.generator.state_dict()), dict(net.state_dict()), 1e-6)
    assert_close(dict(state.discriminator.state_dict()), dict(judge.state_dict()), 1e-6)


def test_each_loss_sees_its_own_truth():
    lr, hr, sharp = batch()
    for sharpened in (True, False):
        sees = {"l1_sharp": sharpened, "perceptual_sharp": sharpened, "gan_sharp": not sharpened}
        options = stage(gan_step, mse=1.0, laplacian=1.0, fft=1.0, perceptual=1.0, artefact=1.0, **sees)
        state = make(gan_step, options)
        state.ema.load_state_dict(make(gan_step, options, seed=1).ema.state_dict())
        sr, mean_sr = state.generator(lr).detach(), state.ema.module(lr)
        judged: list[torch.Tensor] = []
        state.discriminator.register_forward_pre_hook(lambda _, images, seen=judged: seen.append(images[0].detach()))
        losses = run(gan_step, state, options, (lr, hr, sharp))
        truth, real = (sharp, hr) if sharpened else (hr, sharp)
        torch.testing.assert_close(losses["l1"], (sr - truth).abs().mean())
        torch.testing.assert_close(losses["mse"], ((sr - truth) ** 2).mean())
        torch.testing.assert_close(losses["laplacian"], laplacian_loss(sr, truth))
        torch.testing.assert_close(losses["fft"], fft_loss(sr, truth))
        torch.testing.assert_close(losses["artefact"], artefact_loss(sr, mean_sr, truth))
        torch.testing.assert_close(losses["perceptual"], PerceptualLoss(Views())(sr, truth))
        # What the discriminator calls fake was made before the generator's step.
        assert [torch.equal(own, other) for own, other in zip(judged, (sr, real, sr), strict=True)] == [True] * 3


def test_the_adversarial_term_changes_the_generators_gradients_as_it_should():
    images = batch()
    with_it, without = stage(gan_step), stage(psnr_step)
    state, plain_state = make(gan_step, with_it), make(psnr_step, without)
    net, judge = copy.deepcopy(state.generator), copy.deepcopy(state.discriminator)
    run(gan_step, state, with_it, images)
    run(psnr_step, plain_state, without, images)
    difference = gradients(state.generator) - gradients(plain_state.generator)
    (0.1 * cross_entropy(judge(net(images[0])), 1.0)).backward()
    assert gradients(net).norm() > 1e-4
    torch.testing.assert_close(difference, gradients(net), rtol=1e-3, atol=1e-6)


def test_neither_network_gets_gradients_from_the_others_step():
    options = stage(gan_step)
    state = make(gan_step, options)
    at_generator, at_discriminator = list[torch.Tensor](), list[torch.Tensor]()

    def may_step(finite):
        if not at_generator:
            assert all(each.grad is None for each in state.discriminator.parameters())
            at_generator.append(gradients(state.generator))
        else:
            at_discriminator.append(gradients(state.generator))
            assert all(each.grad is not None for each in state.discriminator.parameters())
        return bool(finite)

    run(gan_step, state, options, batch(), may_step=may_step)
    assert torch.equal(at_generator[0], at_discriminator[0])
    assert all(each.requires_grad for each in state.discriminator.parameters())


def test_losses_carry_no_graph():
    options = stage(gan_step, **ALL_LOSSES)
    losses = run(gan_step, make(gan_step, options), options, batch())
    assert {"l1", *ALL_LOSSES, "g_norm", "d_real", "d_fake", "d_norm"} <= set(losses)
    assert not any(value.requires_grad or value.ndim for value in losses.values())


@BOTH
@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_is_the_batch(step, parts):
    more = ALL_LOSSES if step is gan_step else {"colour": 0.5, "artefact": 2.0}
    ends, first = [], []
    for accumulate in (1, parts):
        options = stage(step, accumulate=accumulate, clip_norm=0.05, **SLOWLY, **more)
        state = make(step, options)
        for seed in range(3):
            losses = run(step, state, options, batch(seed))
            if seed == 0:
                first.append({"g": gradients(state.generator)})
                if state.discriminator is not None:
                    first[-1]["d"] = gradients(state.discriminator)
        ends.append((losses, numbers(state)))
    assert_close(first[1], first[0], 1e-7)
    assert_close(ends[1][0], ends[0][0], 1e-5)
    assert_close(ends[1][1], ends[0][1], 1e-6)


def test_gradients_are_clipped_and_their_norm_is_told():
    ends = []
    for clip_norm in (None, 1e-3):
        options = stage(gan_step, clip_norm=clip_norm)
        state = make(gan_step, options)
        losses = run(gan_step, state, options, batch())
        ends.append((losses, gradients(state.generator), gradients(state.discriminator)))
    (whole, g_whole, d_whole), (clipped, g_clipped, d_clipped) = ends
    for name, own, short in (("g_norm", g_whole, g_clipped), ("d_norm", d_whole, d_clipped)):
        torch.testing.assert_close(whole[name], own.norm())
        torch.testing.assert_close(clipped[name], whole[name])
        torch.testing.assert_close(short, own / own.norm() * 1e-3, rtol=1e-3, atol=1e-9)


def test_the_discriminator_warms_up_alone():
    options = stage(gan_step, d_warm_up=2)
    state = make(gan_step, options)
    for seed in range(3):
        before = numbers(state)
        losses = run(gan_step, state, options, batch(seed))
        changed = {key.split(".")[0] for key, value in before.items() if not torch.equal(value, numbers(state)[key])}
        assert "discriminator" in changed
        assert ("generator" in changed) == ("ema" in changed) == ("l1" in losses) == (seed == 2)


def test_the_generator_steps_once_in_so_many_iterations():
    options = stage(gan_step, d_every=3)
    state = make(gan_step, options)
    stepped = ["l1" in run(gan_step, state, options, batch(seed)) for seed in range(7)]
    assert stepped == [True, False, False, True, False, False, True]
    assert int(state.g_optimiser.state_dict()["state"][0]["step"]) == 3
    assert int(state.d_optimiser.state_dict()["state"][0]["step"]) == 7


def test_a_ramp_weakens_the_adversarial_gradient():
    images, found = batch(), []
    for more in ({"gan": 0.1, "gan_ramp": 4}, {"gan": 0.025}):
        options = stage(gan_step, **more)
        state = make(gan_step, options)
        run(gan_step, state, options, images)
        found.append(gradients(state.generator))
    torch.testing.assert_close(*found)


def test_steps_take_the_scheduled_learning_rates():
    options = stage(gan_step, learning_rate=1e-3, d_learning_rate=4e-3, milestones=(1,), gamma=0.5)
    state = make(gan_step, options)
    for rate in (1, 0.5):
        run(gan_step, state, options, batch())
        assert state.g_optimiser.param_groups[0]["lr"] == 1e-3 * rate
        assert state.d_optimiser.param_groups[0]["lr"] == 4e-3 * rate


@BOTH
def test_bfloat16_and_channels_last_learn_as_float32_does(step):
    ends = {}
    for bf16, channels_last in ((False, False), (False, True), (True, False), (True, True)):
        options = stage(step, bf16=bf16, channels_last=channels_last, learning_rate=1e-3)
        state = make(step, options, generator=RRDB(scale=2, features=8, blocks=1, growth=4))
        for seed in range(20):
            losses = run(step, state, options, batch(seed))
        assert all(value.dtype == torch.float32 for value in losses.values())
        ends[bf16, channels_last] = losses
    expected = ends.pop((False, False))
    for (bf16, _), losses in ends.items():
        for name in ("l1", *(("gan", "d_real", "d_fake") if step is gan_step else ())):
            torch.testing.assert_close(losses[name], expected[name], rtol=0.02 if bf16 else 1e-3, atol=0)


def test_what_makes_no_sense_is_told():
    state, images = make(gan_step, stage(gan_step)), batch()
    with pytest.raises(UsageError, match=r"stage 1 got gan = 0\.1, perceptual = 0: expected 0 and 0"):
        run(psnr_step, state, stage(psnr_step, gan=0.1), images)
    with pytest.raises(UsageError, match=r"got perceptual = 1 and no VGG19"):
        gan_step(state, images[0], images[1], images[2], stage(gan_step, perceptual=1.0))
    with pytest.raises(UsageError, match=r"got gan = 0 and no discriminator"):
        run(gan_step, make(psnr_step, stage(psnr_step)), stage(psnr_step), images)


@BOTH
@pytest.mark.parametrize("channels_last", [True, False])
def test_a_state_that_was_saved_goes_on_with_the_same_bits(step, channels_last):
    more = {**ALL_LOSSES, "gan_ramp": 5} if step is gan_step else {}
    options = stage(step, channels_last=channels_last, bf16=True, warm_up=3, clip_norm=1.0, **more)
    whole, half, rest = (make(step, options, seed=seed) for seed in (0, 0, 1))
    for seed in range(5):
        run(step, whole, options, batch(seed))
    for seed in range(2):
        run(step, half, options, batch(seed))
    file = io.BytesIO()
    torch.save(half.state_dict(), file)
    file.seek(0)
    rest.load_state_dict(torch.load(file, weights_only=True))
    for seed in range(2, 5):
        run(step, rest, options, batch(seed))
    assert rest.iteration == 5
    assert_close(numbers(rest), numbers(whole), 0)


@BOTH
def test_adamw_and_a_cosine_go_on_with_the_same_bits(step):
    more = {"optimizer": "adamw", "weight_decay": 0.01, "schedule": "cosine", "min_learning_rate": 1e-6, "warm_up": 2}
    options = stage(step, iterations=6, **more)
    whole, half, rest = (make(step, options, seed=seed) for seed in (0, 0, 1))
    for seed in range(5):
        run(step, whole, options, batch(seed))
    for seed in range(2):
        run(step, half, options, batch(seed))
    rest.load_state_dict(copy.deepcopy(half.state_dict()))
    for seed in range(2, 5):
        run(step, rest, options, batch(seed))
    assert_close(numbers(rest), numbers(whole), 0)
    assert [group["lr"] for group in whole.g_optimiser.param_groups] == pytest.approx([1e-6 + 1.99e-4 / 2] * 2)


def test_ms_ssim_compares_with_the_truth_too():
    options = stage(psnr_step, batch=1, crop_px=176, l1=0.0, ms_ssim=0.5, l1_sharp=False)
    state = make(psnr_step, options)
    hr = functional.interpolate(torch.rand(1, 3, 12, 12), size=176, mode="bilinear")
    lr = functional.avg_pool2d(hr, 2)
    sr = state.generator(lr).detach()
    losses = run(psnr_step, state, options, (lr, hr, torch.full_like(hr, float("nan"))))
    torch.testing.assert_close(losses["ms_ssim"], ms_ssim_loss(sr, hr))


@BOTH
@pytest.mark.parametrize("place", ["lr", "truth"])
def test_what_is_not_finite_changes_no_weight(step, place):
    options = stage(step)
    state = make(step, options)
    run(step, state, options, batch())
    before = {key: value for key, value in numbers(state).items() if not key.endswith(("_u", "_v"))}
    images = batch(1)
    images[0 if place == "lr" else 2][0, 0, 0, 0] = float("nan")
    with pytest.raises(StepError) as caught:
        run(step, state, options, images)
    assert not caught.value.losses["l1"].isfinite()
    assert state.iteration == 1
    after = numbers(state)
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_a_gradient_that_is_not_finite_is_noticed_though_the_losses_are():
    options = stage(psnr_step)
    state = make(psnr_step, options)
    before = numbers(state)
    next(state.generator.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(StepError) as caught:
        run(psnr_step, state, options, batch())
    assert caught.value.losses["l1"].isfinite()
    assert_close(numbers(state), before, 0)


def test_the_discriminators_step_can_be_refused_by_itself():
    options = stage(gan_step)
    state = make(gan_step, options)
    before, answers = numbers(state), [True, False]
    with pytest.raises(StepError) as caught:
        run(gan_step, state, options, batch(), may_step=lambda _: answers.pop(0))
    assert {"d_real", "d_fake"} <= set(caught.value.losses)
    after = numbers(state)
    assert state.iteration == 0
    assert torch.equal(after["discriminator.conv0.weight"], before["discriminator.conv0.weight"])
    assert not torch.equal(after["generator.body.0.weight"], before["generator.body.0.weight"])


class Waits(TorchDispatchMode):
    """Counts what would make the host wait for the device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, arguments=(), more=None):
        name = function.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique"):
            self.found.append(name)
        return function(*arguments, **(more or {}))


@pytest.mark.parametrize("adaptive", [False, True])
@BOTH
def test_the_host_never_waits_but_for_may_step(step, adaptive, monkeypatch):
    # Adam counts its steps on the host, where reading them makes nobody wait.
    monkeypatch.setattr(torch.optim.Adam, "step", lambda _: None)
    more = {**ALL_LOSSES, "gan_adaptive": adaptive, "gan_details": adaptive} if step is gan_step else {}
    options = stage(step, clip_norm=1.0, accumulate=2, **more)
    state = make(step, options)
    with Waits() as waits:
        run(step, state, options, batch(), may_step=lambda _: True)
    assert waits.found == []


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_nothing_waits_for_a_gpu():
    device = torch.device("cuda")
    options = stage(gan_step, clip_norm=1.0, accumulate=2, **{**ALL_LOSSES, "bf16": True, "channels_last": True})
    generator = networks.build(Compact(scale=2, features=8, convs=1))
    state = make_state(generator, networks.build(UNetDiscriminator(features=4)), options, device)
    images = [each.to(device) for each in batch()]
    run(gan_step, state, options, images)
    with waiting_is_an_error():
        run(gan_step, state, options, images, may_step=lambda _: True)


def test_each_part_of_the_time_is_counted_once():
    named, open_parts = set[str](), list[str]()

    @contextmanager
    def timed(part):
        assert not open_parts
        open_parts.append(part)
        named.add(part)
        yield
        open_parts.pop()

    options = stage(gan_step, **ALL_LOSSES)
    run(gan_step, make(gan_step, options), options, batch(), timed=timed)
    assert named == {"G", "VGG", "D", "optimiser"}


TWO = [
    (psnr_step, {"artefact": 2.0, "clip_norm": 0.05}),
    (gan_step, {}),
    (gan_step, {**ALL_LOSSES, "accumulate": 2, "d_warm_up": 1, "clip_norm": 0.05}),
    (gan_step, {"gan_adaptive": True, "gan_details": True}),
]


def several_steps(step, more, world, places):
    """Do three steps on these samples of every batch."""
    options = stage(step, batch=places.stop - places.start, **SLOWLY, **more)
    state = make(step, options)
    state.generator = data_parallel(state.generator, world)
    if state.discriminator is not None:
        state.discriminator = data_parallel(state.discriminator, world)
    for seed in range(3):
        images = tuple(each[places] for each in batch(seed, 2 * BATCH))
        run(step, state, options, images, may_step=lambda finite: true_in_all(finite, world))
    return numbers(state)


def infinite_in_one_process(world):
    """Return what a process meets where one batch has an infinite loss that exchanged gradients do not show."""
    options = stage(gan_step)
    state = make(gan_step, options)
    state.generator = data_parallel(state.generator, world)
    images = batch(world.rank)
    if world.rank == 1:
        images[2][0, 0, 0, 0] = float("inf")
    before = numbers(state)["generator.body.0.weight"]
    try:
        run(gan_step, state, options, images, may_step=lambda finite: true_in_all(finite, world))
    except StepError:
        assert all(each.grad.isfinite().all() for each in state.generator.parameters())
        return {"refused": torch.tensor(1), "change": numbers(state)["generator.body.0.weight"] - before}
    return {"refused": torch.tensor(0), "change": torch.tensor(0)}


def process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    world = World(rank=rank, size=2, device=CPU)
    places = slice(rank * BATCH, (rank + 1) * BATCH)
    ends = [several_steps(step, more, world, places) for step, more in TWO]
    torch.save([*ends, infinite_in_one_process(world)], Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Return the result of each of two processes."""
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2]))
        spawn(process, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.long
@pytest.mark.parametrize("number", range(len(TWO)))
def test_two_processes_are_one_with_twice_the_batch(two, number):
    step, more = TWO[number]
    alone = World(rank=0, size=1, device=CPU)
    # The share of an adaptive loss is measured in each process, as in each part of a batch.
    parts = {"accumulate": 2} if more.get("gan_adaptive") else {}
    expected = several_steps(step, {**more, **parts}, alone, slice(0, 2 * BATCH))
    assert_close(two[0][number], two[1][number], 0)
    assert_close(two[0][number], expected, 1e-6)
    half = several_steps(step, more, alone, slice(0, BATCH))
    apart = [float((half[key] - expected[key]).abs().max()) for key in half if key.startswith("generator")]
    assert max(apart) > 1e-5


def test_a_batch_that_is_not_finite_in_one_process_is_refused_in_both(two):
    for ends in two:
        assert int(ends[-1]["refused"]) == 1
        assert not ends[-1]["change"].any()


@pytest.mark.parametrize("step", [psnr_step, gan_step])
@pytest.mark.parametrize(
    "flags", [(False, False, False), (True, False, False), (False, True, False), (False, False, True)]
)
def test_the_sharpened_truth_is_looked_at_just_where_options_say_so(step, flags):
    l1_sharp, perceptual_sharp, gan_sharp = flags
    losses = {"perceptual": 0.3} if step is gan_step else {}
    options = stage(step, l1_sharp=l1_sharp, perceptual_sharp=perceptual_sharp, gan_sharp=gan_sharp, **losses)
    state = make(step, options)
    lr, hr = torch.rand(BATCH, 3, 8, 8), torch.rand(BATCH, 3, 16, 16)
    never = torch.full_like(hr, float("nan"))
    arguments = (state, lr, hr, never, options, *([PerceptualLoss(Views())] if step is gan_step else []))
    found = step(*arguments, may_step=lambda _: True)
    assert any(bool(value.isnan().any()) for value in found.values()) == options.needs_sharp
