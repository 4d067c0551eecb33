"""Does one step of each stage: networks, losses, optimisers, mean. Only `may_step` waits for the device."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from realesr.errors import UsageError
from realesr.train.adversarial import balanced_gradient, seen
from realesr.train.losses import (
    PerceptualLoss,
    artefact_loss,
    colour_loss,
    fft_loss,
    gan_loss,
    l1,
    laplacian_loss,
    ms_ssim_loss,
    mse,
)
from realesr.train.schedule import gan_weight, learning_rate_at, set_learning_rate
from realesr.train.stage_options import StageOptions
from realesr.train.train_state import TrainState, unwrapped

_IMAGE_LOSSES = {"l1": l1, "mse": mse, "laplacian": laplacian_loss, "fft": fft_loss, "ms_ssim": ms_ssim_loss}
"""Name of a weight in the options -> the loss of an image and its truth."""

Timed = Callable[[str], AbstractContextManager[None]]
"""Called with the name of a part, returns a context whose time counts as that part's: "G" (with the backward pass of
all its losses), "VGG", "D", "optimiser"."""

MayStep = Callable[[Tensor], bool]
"""Called with whether all losses and gradients are finite; returns whether the optimisers of all processes may step."""


class StepError(ArithmeticError):
    """Raised where losses or gradients are not finite; no weight was changed by them."""

    def __init__(self, losses: dict[str, Tensor]) -> None:
        super().__init__("losses or gradients are not finite")
        self.losses = losses
        """Losses by name, as far as they were computed."""


def _untimed(_: str) -> AbstractContextManager[None]:
    return nullcontext()


def psnr_step(
    state: TrainState,
    lr: Tensor,
    hr: Tensor,
    sharp: Tensor,
    options: StageOptions,
    *,
    may_step: MayStep = bool,
    timed: Timed = _untimed,
) -> dict[str, Tensor]:
    """Do one iteration of stage 1: pixel losses, the generator, its mean.

    Args:
        state: changed in place; its iteration goes up by one.
        lr: (N, 3, h, w) float32 RGB in [0, 1].
        hr: (N, 3, h * scale, w * scale), the truth.
        sharp: `hr`, sharpened.
        options: of the stage.
        may_step: called before an optimiser steps; see `MayStep`.
        timed: called with the name of each part; see `Timed`.

    Returns:
        Losses, and the generator's norm of gradients, without gradients of their own.

    Raises:
        StepError: `may_step` said no; no weight was changed.
        UsageError: the options ask for losses of stage 2.
    """
    if options.gan or options.perceptual:
        raise UsageError(f"stage 1 got gan = {options.gan:g}, perceptual = {options.perceptual:g}: expected 0 and 0")
    losses = _generator_step(state, lr, hr, sharp, options, None, may_step, timed)[0]
    state.iteration += 1
    return losses


def gan_step(
    state: TrainState,
    lr: Tensor,
    hr: Tensor,
    sharp: Tensor,
    options: StageOptions,
    perceptual: PerceptualLoss | None = None,
    *,
    may_step: MayStep = bool,
    timed: Timed = _untimed,
) -> dict[str, Tensor]:
    """Do one iteration of stage 2: the generator against the discriminator, then the discriminator.

    The discriminator sees what the generator made before its own step. Where the adversarial loss is adaptive, the
    results have "gan_factor" too, by which its gradient was multiplied. Source of the order: Real-ESRGAN,
    realesrgan/models/realesrgan_model.py, optimize_parameters. Arguments, results and errors are those of `psnr_step`;
    `perceptual` is needed where its weight is above 0. Where the discriminator's step is refused, the generator has
    stepped already: go on from a checkpoint.
    """
    if state.discriminator is None or state.d_optimiser is None:
        raise UsageError(f"stage 2 got gan = {options.gan:g} and no discriminator: expected a weight above 0")
    if options.perceptual and perceptual is None:
        raise UsageError(f"stage 2 got perceptual = {options.perceptual:g} and no VGG19: expected one, or 0")
    generator_learns = state.iteration >= options.d_warm_up and state.iteration % options.d_every == 0
    if generator_learns:
        losses, fake = _generator_step(state, lr, hr, sharp, options, perceptual, may_step, timed)
    else:
        with torch.no_grad(), timed("G"), _autocast(lr.device, options):
            losses, fake = {}, state.generator(_laid_out(lr, options)).float()
    real = sharp if options.gan_sharp else hr
    losses |= _discriminator_step(state, lr, fake, real, options, may_step, timed)
    state.iteration += 1
    return losses


def _generator_step(
    state: TrainState,
    lr: Tensor,
    hr: Tensor,
    sharp: Tensor,
    options: StageOptions,
    perceptual: PerceptualLoss | None,
    may_step: MayStep,
    timed: Timed,
) -> tuple[dict[str, Tensor], Tensor]:
    """Step the generator; return its losses, and what it made, without gradients."""
    state.g_optimiser.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    outputs = []
    parts = options.accumulate
    with _frozen(state.discriminator):
        for number, (lr_part, hr_part, sharp_part) in enumerate(_parts(parts, lr, hr, sharp)):
            last = _gradients_synchronised(state.generator, only_if=number == parts - 1)
            with last, _spectral_norm_updates(state.discriminator, only_if=number == 0):
                with timed("G"), _autocast(lr.device, options):
                    sr = state.generator(_laid_out(lr_part, options)).float()
                losses = _losses(state, lr_part, sr, hr_part, sharp_part, options, perceptual, timed)
                with timed("G"):
                    if options.gan_adaptive:
                        losses["gan_factor"] = _backward_balanced(losses, sr, state.iteration, options)
                    else:
                        (_weighted_sum(losses, state.iteration, options) / parts).backward()  # type: ignore[no-untyped-call]
            _add(sums, losses, parts)
            outputs.append(sr.detach())
    rate = learning_rate_at(options.learning_rate, state.iteration, options)
    with timed("optimiser"):
        sums["g_norm"] = _step(state.generator, state.g_optimiser, rate, sums, options, may_step)
        state.ema.update(unwrapped(state.generator))
    return sums, torch.cat(outputs)


def _losses(
    state: TrainState,
    lr: Tensor,
    sr: Tensor,
    hr: Tensor,
    sharp: Tensor,
    options: StageOptions,
    perceptual: PerceptualLoss | None,
    timed: Timed,
) -> dict[str, Tensor]:
    """Return each loss that has a weight, unweighted, with gradients."""
    truth = sharp if options.l1_sharp else hr
    with timed("G"):
        losses = {name: loss(sr, truth) for name, loss in _IMAGE_LOSSES.items() if getattr(options, name)}
        if options.colour:
            losses["colour"] = colour_loss(sr, hr)
        if options.artefact:
            with torch.no_grad(), _autocast(lr.device, options):
                mean_sr = state.ema.module(_laid_out(lr, options))
            losses["artefact"] = artefact_loss(sr, mean_sr, truth)
    if perceptual is not None and options.perceptual:
        with timed("VGG"), _autocast(lr.device, options):
            losses["perceptual"] = perceptual(sr, sharp if options.perceptual_sharp else hr)
    if options.gan and state.discriminator is not None:
        with timed("D"), _autocast(lr.device, options):
            shown = seen(state.discriminator, sr, lr, options)
            logits = unwrapped(state.discriminator)(_laid_out(shown, options))
        losses["gan"] = gan_loss(logits, real=True)
    return losses


def _weighted_sum(losses: dict[str, Tensor], iteration: int, options: StageOptions) -> Tensor:
    weights = {name: gan_weight(iteration, options) if name == "gan" else getattr(options, name) for name in losses}
    return torch.stack([loss * weights[name] for name, loss in losses.items()]).sum()


def _backward_balanced(losses: dict[str, Tensor], sr: Tensor, iteration: int, options: StageOptions) -> Tensor:
    """Give the generator the gradients of a part's losses, the adversarial one's by its share; return its factor."""
    others = _weighted_sum({name: loss for name, loss in losses.items() if name != "gan"}, iteration, options)
    gradient, factor = balanced_gradient(others, losses["gan"], sr, gan_weight(iteration, options))
    sr.backward(gradient / options.accumulate)  # type: ignore[no-untyped-call]
    return factor


def _discriminator_step(
    state: TrainState, lr: Tensor, fake: Tensor, real: Tensor, options: StageOptions, may_step: MayStep, timed: Timed
) -> dict[str, Tensor]:
    """Step the discriminator, whose loss is the sum of both means; return its losses."""
    discriminator, optimiser = state.discriminator, state.d_optimiser
    if discriminator is None or optimiser is None:
        raise AssertionError("gan_step has checked this")
    optimiser.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    parts = options.accumulate
    with timed("D"):
        for name, images in (("real", real), ("fake", fake)):
            for number, (part, lr_part) in enumerate(_parts(parts, images, lr)):
                last = _gradients_synchronised(discriminator, only_if=number == parts - 1 and name == "fake")
                with last, _spectral_norm_updates(discriminator, only_if=number == 0):
                    with _autocast(real.device, options):
                        shown = seen(discriminator, part, lr_part, options)
                        logits = discriminator(_laid_out(shown, options)).float()
                    loss = gan_loss(logits, real=name == "real")
                    (loss / parts).backward()  # type: ignore[no-untyped-call]
                _add(sums, {f"d_{name}": loss, f"d_{name}_logit": logits.mean()}, parts)
    rate = learning_rate_at(options.d_learning_rate, state.iteration, options)
    with timed("optimiser"):
        sums["d_norm"] = _step(discriminator, optimiser, rate, sums, options, may_step)
    return sums


def _step(
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    rate: float,
    losses: dict[str, Tensor],
    options: StageOptions,
    may_step: MayStep,
) -> Tensor:
    """Clip, ask, step; return the norm of the gradients before they were clipped."""
    gradients = [each.grad for each in module.parameters() if each.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    finite = torch.stack([norm.detach(), *losses.values()]).isfinite().all()
    if not may_step(finite):
        raise StepError(losses)
    if options.clip_norm is not None:
        nn.utils.clip_grads_with_norm_(module.parameters(), options.clip_norm, norm)
    set_learning_rate(optimiser, rate)
    optimiser.step()
    return norm.detach()


def _parts(count: int, *batches: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(batch.chunk(count) for batch in batches), strict=True)


def _add(sums: dict[str, Tensor], losses: dict[str, Tensor], parts: int) -> None:
    """Add a part's share to the means over a batch, whose parts are of one size."""
    for name, loss in losses.items():
        share = loss.detach() / parts
        sums[name] = sums[name] + share if name in sums else share


def _laid_out(images: Tensor, options: StageOptions) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last) if options.channels_last else images


def _autocast(device: torch.device, options: StageOptions) -> AbstractContextManager[None]:
    return torch.autocast(device.type, torch.bfloat16, enabled=options.bf16)


def _gradients_synchronised(module: nn.Module, *, only_if: bool) -> AbstractContextManager[None]:
    """Let processes exchange gradients only with the last part of a batch."""
    if isinstance(module, DistributedDataParallel) and not only_if:
        return module.no_sync()
    return nullcontext()


@contextmanager
def _spectral_norm_updates(module: nn.Module | None, *, only_if: bool) -> Iterator[None]:
    """Let spectral norm take one step a batch, not one a part: else the parts would not add up to the batch."""
    if module is None or only_if:
        yield
        return
    module.eval()
    try:
        yield
    finally:
        module.train()


@contextmanager
def _frozen(module: nn.Module | None) -> Iterator[None]:
    """Give a module's parameters no gradients within the block; what goes through it gets them."""
    if module is None:
        yield
        return
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
