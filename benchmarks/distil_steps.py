"""Does the steps of a distillation: losses to the teacher's answers, the student, the discriminator.

Unlike realesr.train.steps, the discriminator sees the details of a part of each patch only, real and fake images in one
pass, and nothing waits for the GPU: the caller looks at the losses now and then.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional

from realesr.train.ema import Ema
from realesr.train.losses import gan_loss, l1

WINDOW_PX = 32
"""Side of the windows whose spectra are compared: large enough for a texture, small enough to be of one kind."""

MEAN_PX, GAIN = 7, 4.0
"""Side of the local means that the discriminator does not see, and the factor of what it does see."""

BETAS = (0.9, 0.99)
"""Decays of Adam, as in Real-ESRGAN's option files."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights of the losses; 0 leaves one out."""

    l1: float = 1.0
    laplacian: float = 0.0
    fft: float = 0.0
    gan: float = 0.0
    """Norm of the adversarial loss's gradient, as a share of that of the others: its own norm depends on how far the
    discriminator is, and that varies by orders of magnitude."""

    def __str__(self) -> str:
        return " ".join(f"{each.name}={getattr(self, each.name):g}" for each in fields(self))


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Learning rates of one step."""

    student: float
    discriminator: float = 0.0


class Learner:
    """A network, its optimiser and its running mean."""

    def __init__(self, module: nn.Module, *, ema_decay: float) -> None:
        self.module = module.train()
        self.parameters = [each for each in module.parameters() if each.requires_grad]
        self.ema = Ema(module, ema_decay)
        is_cuda = self.parameters[0].is_cuda
        self._optimiser = torch.optim.Adam(self.parameters, betas=BETAS, fused=is_cuda)

    def learn(self, output: Tensor, rate: float, gradient: Tensor | None = None) -> None:
        """Step down the gradient of a loss, or of an output that has this gradient; other networks get none."""
        self._optimiser.zero_grad(set_to_none=True)
        output.backward(gradient, inputs=self.parameters)  # type: ignore[no-untyped-call]
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()
        self.ema.update(self.module)


def learn(
    student: Learner,
    discriminator: Learner | None,
    lr: Tensor,
    answers: Tensor,
    weights: Weights,
    rates: Rates,
    *,
    gan_px: int,
    corner_px: tuple[int, int] = (0, 0),
) -> dict[str, Tensor]:
    """Step the student, then the discriminator; return their losses, unweighted.

    Args:
        student: changed in place; it rests where its rate is 0.
        discriminator: likewise; None leaves the adversarial loss out.
        lr: (N, 3, h, w) float32 RGB in [0, 1].
        answers: (N, 3, h * scale, w * scale), the teacher's.
        weights: of the losses.
        rates: learning rates of this step.
        gan_px: side of the square of each image that the discriminator sees, in HR px.
        corner_px: its top and left; the windows of the spectra begin there too.
    """
    rests = rates.student == 0
    with torch.set_grad_enabled(not rests), _bf16(lr):
        sr = student.module(lr.contiguous(memory_format=torch.channels_last)).float()
    square = Square(gan_px, *corner_px)
    losses: dict[str, Tensor] = {}
    if not rests:
        losses = pixel_losses(sr, answers, weights, corner_px)
        total = torch.stack([getattr(weights, name) * loss for name, loss in losses.items()]).sum()
        (gradient,) = torch.autograd.grad(total, sr)
        if discriminator is not None and weights.gan:
            losses["gan"] = gan_loss(_logits(discriminator.module.eval(), square(sr)), real=True)
            (adversarial,) = torch.autograd.grad(losses["gan"], sr)
            gradient = gradient + weights.gan * _as_long_as(square(gradient), adversarial)
        student.learn(sr, rates.student, gradient)
    fake, real = square(sr.detach()), square(answers)
    if discriminator is not None:
        logits = _logits(discriminator.module.train(), torch.cat([real, fake]))
        of_real, of_fake = logits.chunk(2)
        losses |= {"d_real": gan_loss(of_real, real=True), "d_fake": gan_loss(of_fake, real=False)}
        discriminator.learn(losses["d_real"] + losses["d_fake"], rates.discriminator)
        losses |= {"d_real_logit": of_real.mean(), "d_fake_logit": of_fake.mean()}
    return {name: loss.detach() for name, loss in losses.items()}


@dataclass(frozen=True)
class Square:
    """A square of images, in px."""

    side: int
    top: int
    left: int

    def __call__(self, images: Tensor) -> Tensor:
        """Cut it out of (N, C, H, W)."""
        return images[:, :, self.top : self.top + self.side, self.left : self.left + self.side]


def _as_long_as(wanted: Tensor, gradient: Tensor) -> Tensor:
    """Return a gradient with the norm of another one."""
    scaled: Tensor = gradient * (wanted.norm() / gradient.norm().clamp(min=1e-12))
    return scaled


def pixel_losses(
    sr: Tensor, answers: Tensor, weights: Weights, corner_px: tuple[int, int] = (0, 0)
) -> dict[str, Tensor]:
    """Return each loss between images that has a weight, unweighted, with gradients."""
    losses = {"l1": l1(sr, answers)}
    if weights.laplacian:
        losses["laplacian"] = laplacian_loss(sr, answers)
    if weights.fft:
        top, left = (place % WINDOW_PX for place in corner_px)
        losses["fft"] = fft_loss(sr[:, :, top:, left:], answers[:, :, top:, left:])
    return losses


def laplacian_loss(sr: Tensor, hr: Tensor) -> Tensor:
    """Return the mean absolute difference of the Laplacians (four neighbours), which sees edges and no colours.

    Args:
        sr: (N, C, H, W) in [0, 1], at least 3 px a side.
        hr: likewise.
    """
    return l1(laplacian(sr), laplacian(hr))


def laplacian(images: Tensor) -> Tensor:
    """Return the Laplacian (four neighbours) of (N, C, H, W), without the border."""
    inner = 4 * images[:, :, 1:-1, 1:-1]
    return inner - images[:, :, :-2, 1:-1] - images[:, :, 2:, 1:-1] - images[:, :, 1:-1, :-2] - images[:, :, 1:-1, 2:]


def fft_loss(sr: Tensor, hr: Tensor, *, window_px: int = WINDOW_PX) -> Tensor:
    """Return the mean absolute difference of the amplitudes of Fourier transforms of square windows.

    Without the phases it asks for texture of the right kind and strength, not for each of its pixels: what cannot be
    known from the input costs as much in a blurred image as it has energy, where L1 is lowest without any texture.

    Args:
        sr: (N, C, H, W) in [0, 1].
        hr: likewise.
        window_px: side of the windows, which touch each other, from the top left. What lies at their borders counts
            little: compare squares at other places at each step.
    """
    return l1(_amplitudes(sr, window_px), _amplitudes(hr, window_px))


def _amplitudes(images: Tensor, window_px: int) -> Tensor:
    """Return (N, C, rows, columns, window_px, window_px // 2 + 1); that of white noise is about its deviation."""
    window_px = min(window_px, *images.shape[2:])
    rows, columns = (side // window_px for side in images.shape[2:])
    whole = images[:, :, : rows * window_px, : columns * window_px].float()
    windows = whole.unflatten(3, (columns, window_px)).unflatten(2, (rows, window_px)).transpose(3, 4)  # type: ignore[no-untyped-call]
    taper = torch.hann_window(window_px, device=images.device)
    taper = taper[:, None] * taper
    centred = windows - windows.mean(dim=(4, 5), keepdim=True)
    spectrum = torch.fft.rfft2(centred * (taper / taper.square().mean().sqrt()), norm="ortho")
    # The root of a tiny number more: the gradient of an amplitude of zero is not finite.
    amplitudes: Tensor = (spectrum.real.square() + spectrum.imag.square() + 1e-10).sqrt()
    return amplitudes


def _logits(discriminator: nn.Module, images: Tensor) -> Tensor:
    """Return a discriminator's logits of the details of images."""
    with _bf16(images):
        logits: Tensor = discriminator(details(images).contiguous(memory_format=torch.channels_last))
    return logits.float()


def details(images: Tensor) -> Tensor:
    """Return GAIN times the differences from the local means, the shape as before.

    The student's images and the teacher's differ in faint textures, beside which the images themselves are large; and
    spectral norm keeps a discriminator from making small differences larger. Of whole images it told one from the other
    after thousands of iterations, of details after thirty. L1 looks after the rest.
    """
    return GAIN * (images - functional.avg_pool2d(images, MEAN_PX, 1, MEAN_PX // 2, count_include_pad=False))


def _bf16(images: Tensor) -> torch.autocast:
    """Return bfloat16 arithmetic on a GPU: on most CPUs it is slower than float32."""
    return torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda)
