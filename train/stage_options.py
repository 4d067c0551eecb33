"""Holds the options of one stage of training: sizes, losses and their weights, optimisers, arithmetic.

Defaults are those of Real-ESRGAN's released option files (options/train_realesrnet_x4plus.yml and
train_realesrgan_x4plus.yml) where those name a value; everything else is off.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from realesr.errors import UsageError
from realesr.machine.tables import range_problems


@dataclass(frozen=True, kw_only=True)
class StageOptions:
    """The options of one stage. A weight of 0 leaves a loss out, and what it needs with it."""

    RANGES: ClassVar[dict[str, tuple[float, float]]]
    """Least and most of each option; rates are above 0 as well. The most is far beyond what anybody trains with."""

    iterations: int
    """Steps of the generator's optimiser; 1 or more."""
    batch: int = 12
    """Samples a process and step; 1 or more."""
    crop_px: int = 256
    """Side of the HR crops that the networks see, in HR px; a multiple of the scale (and of 8 with a discriminator)."""
    learning_rate: float = 2e-4
    """Learning rate of the generator; above 0."""
    d_learning_rate: float = 1e-4
    """Learning rate of the discriminator; above 0."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Optimiser of both networks; adamw needs a `weight_decay`."""
    weight_decay: float = 0.0
    """Decoupled weight decay of adamw, a step: weights shrink by it times the learning rate; 0.01 is usual. Biases and
    the slopes of PReLU keep their size."""
    beta1: float = 0.9
    """Decay of the mean of gradients in both optimisers, 0 to below 1."""
    beta2: float = 0.99
    """Decay of the mean of squared gradients in both optimisers, 0 to below 1."""
    schedule: Literal["multistep", "cosine"] = "multistep"
    """Course of both learning rates: steps at the `milestones`, or half a cosine from the end of the warm-up down to
    `min_learning_rate` at the last iteration."""
    milestones: tuple[int, ...] = ()
    """Iterations at which both learning rates are multiplied by `gamma`."""
    gamma: float = 0.5
    """Factor of the learning rates at each milestone; above 0."""
    min_learning_rate: float = 0.0
    """Learning rate at which the cosine ends; at most the learning rates."""
    warm_up: int = 0
    """Iterations over which the learning rates rise linearly from 0; 0 starts at once."""
    ema_decay: float = 0.999
    """Decay of the exponential moving average of the generator's weights, a step; 0 to below 1."""
    l1: float = 1.0
    """Weight of the mean absolute error."""
    mse: float = 0.0
    """Weight of the mean squared error, which is what PSNR measures; 10 is about as strong as 1 of l1."""
    laplacian: float = 0.0
    """Weight of L1 between the bands of Laplacian pyramids: fine details count beside coarse errors."""
    fft: float = 0.0
    """Weight of L1 between Fourier transforms, amplitudes with phases."""
    ms_ssim: float = 0.0
    """Weight of 1 - MS-SSIM; needs crops of 176 px or more."""
    perceptual: float = 0.0
    """Weight of the VGG19 loss."""
    gan: float = 0.0
    """Weight of the adversarial loss; above 0 there is a discriminator. A share where `gan_adaptive` is true."""
    artefact: float = 0.0
    """Weight of the locally discriminative loss (LDL), which needs one more pass of the generator's mean (EMA)."""
    colour: float = 0.0
    """Weight of L1 between images shrunk to 1/16, which holds colours; in stage 2 it looks at the truth as it is."""
    l1_sharp: bool = True
    """Whether photos are sharpened before they are degraded, and L1 (and mse, laplacian, fft, ms_ssim, artefact)
    compare with the sharpened truth."""
    perceptual_sharp: bool = True
    """Whether the VGG19 loss compares with the sharpened truth."""
    gan_sharp: bool = False
    """Whether the discriminator's real images are sharpened."""
    gan_adaptive: bool = False
    """Whether `gan` is a share: in each step the gradient of the adversarial loss at the generator's output is made so
    many times as long as that of the other losses together, unless it would be enlarged more than ten times for that. 1
    is as strong as they are. Source: Esser et al. 2021, "Taming Transformers", arXiv 2012.09841, equation 7."""
    gan_details: bool = False
    """Whether the discriminator sees the differences from local means, enlarged, in the place of images: their details,
    which it then tells apart far sooner; the other losses must hold colours and coarse structure."""
    gan_ramp: int = 0
    """Iterations over which the weight (or share) of the adversarial loss rises from 0."""
    d_warm_up: int = 0
    """First iterations in which only the discriminator learns."""
    d_every: int = 1
    """Iterations from one step of the generator to the next; the discriminator steps in each."""
    accumulate: int = 1
    """Parts into which a batch is cut, one after the other, to save memory; divides the batch."""
    clip_norm: float | None = None
    """Largest norm of the gradients of each network; none leaves them."""
    bf16: bool = True
    """Whether the networks run in bfloat16 (autocast); losses and degradation never do."""
    channels_last: bool = True
    """Whether tensors have the memory layout NHWC, which is faster on most devices."""
    compile: bool = False
    """Whether the networks are compiled by torch.compile."""

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise UsageError("; ".join(problems))

    @property
    def needs_sharp(self) -> bool:
        """Return whether some loss uses the sharpened truth, which takes time to make."""
        pixels = self.l1_sharp and self._has_pixel_loss
        return pixels or (self.perceptual_sharp and self.perceptual > 0) or (self.gan_sharp and self.gan > 0)

    @property
    def learns_sharp(self) -> bool:
        """Return whether what the generator learns is the sharpened truth.

        It is that of the pixel losses; without them that of the VGG19 loss; and with neither that of the discriminator.
        """
        if self._has_pixel_loss:
            return self.l1_sharp
        return self.perceptual_sharp if self.perceptual else self.gan_sharp and self.gan > 0

    @property
    def _has_pixel_loss(self) -> bool:
        return any(getattr(self, name) > 0 for name in PIXEL_LOSSES)

    def _problems(self) -> Iterator[str]:
        yield from range_problems(self, self.RANGES)
        positive = ("learning_rate", "d_learning_rate", "gamma", "clip_norm")
        for name in positive:
            value = getattr(self, name)
            if value is not None and value <= 0:
                yield f"got {name} = {value}, expected a number above 0"
        for name in ("beta1", "beta2", "ema_decay", "weight_decay"):
            if not 0 <= getattr(self, name) < 1:
                yield f"got {name} = {getattr(self, name)}, expected 0 or more, below 1"
        if not all(1 <= milestone <= _MOST_ITERATIONS for milestone in self.milestones):
            yield f"got milestones = {list(self.milestones)!r:.80}, expected iterations, each 1 to {_MOST_ITERATIONS:,}"
        yield from self._misfits()

    def _misfits(self) -> Iterator[str]:
        """Yield what is wrong with values that do not go together."""
        if self.accumulate >= 1 and self.batch % self.accumulate:
            yield f"got accumulate = {self.accumulate}, expected a divisor of batch = {self.batch}"
        if self.gan and self.crop_px % 8:
            yield f"got crop_px = {self.crop_px}, expected a multiple of 8: the discriminator halves it three times"
        if not any(getattr(self, name) for name in LOSSES):
            yield f"got no loss above 0, expected {', '.join(LOSSES[:-1])} or {LOSSES[-1]}"
        if self.ms_ssim and self.crop_px < MS_SSIM_LEAST_PX:
            yield (
                f"got ms_ssim = {self.ms_ssim:g} and crop_px = {self.crop_px}, expected crops of {MS_SSIM_LEAST_PX} px "
                "or more: smaller ones have no five scales"
            )
        if (self.optimizer == "adamw") != (self.weight_decay > 0):
            yield (
                f"got optimizer = {self.optimizer} and weight_decay = {self.weight_decay:g}, expected adamw with a "
                "decay above 0, like 0.01, or adam without"
            )
        yield from self._gan_misfits()
        yield from self._schedule_misfits()

    def _gan_misfits(self) -> Iterator[str]:
        for name in ("gan_adaptive", "gan_details"):
            if getattr(self, name) and not self.gan:
                yield f"got {name} = true and gan = 0, expected gan above 0, or {name} = false"
        if self.gan_adaptive and not any(getattr(self, name) for name in LOSSES if name != "gan"):
            yield (
                "got gan_adaptive = true and no other loss above 0, expected one, like l1, of which gan is "
                "the share, or gan_adaptive = false"
            )

    def _schedule_misfits(self) -> Iterator[str]:
        if self.schedule == "cosine" and self.milestones:
            yield f"got schedule = cosine and {len(self.milestones)} milestones, expected milestones = [] or multistep"
        if self.schedule == "multistep" and self.min_learning_rate:
            yield f"got min_learning_rate = {self.min_learning_rate:g} without schedule = cosine, where alone it counts"
        least = min(self.learning_rate, self.d_learning_rate) if self.gan else self.learning_rate
        if self.min_learning_rate > least:
            yield f"got min_learning_rate = {self.min_learning_rate:g}, expected at most the learning rate, {least:g}"


PIXEL_LOSSES = ("l1", "mse", "laplacian", "fft", "ms_ssim", "artefact")
"""Losses between images, which all compare with one truth; see `StageOptions.l1_sharp`."""
LOSSES = (*PIXEL_LOSSES, "perceptual", "gan", "colour")

MS_SSIM_LEAST_PX = 176
"""Least side of an image for MS-SSIM, whose window of 11 px has to fit after four halvings."""

_MOST_ITERATIONS = 10**9
_MOST_WEIGHT = 10**6
StageOptions.RANGES = {
    "iterations": (1, _MOST_ITERATIONS),
    "batch": (1, 10_000),
    "crop_px": (16, 8192),
    "learning_rate": (0, 10),
    "d_learning_rate": (0, 10),
    "gamma": (0, 10),
    "min_learning_rate": (0, 10),
    "warm_up": (0, _MOST_ITERATIONS),
    **dict.fromkeys(LOSSES, (0, _MOST_WEIGHT)),
    "gan_ramp": (0, _MOST_ITERATIONS),
    "d_warm_up": (0, _MOST_ITERATIONS),
    "d_every": (1, _MOST_ITERATIONS),
    "accumulate": (1, 10_000),
    "clip_norm": (0, 10**9),
}
