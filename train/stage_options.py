"""Holds the options of one stage of training: sizes, losses and their weights, optimisers, arithmetic.

Defaults are those of Real-ESRGAN's released option files (options/train_realesrnet_x4plus.yml and
train_realesrgan_x4plus.yml) where those name a value; everything else is off.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from realesr.errors import UsageError
from realesr.machine.tables import range_problems


@dataclass(frozen=True, kw_only=True)
class StageOptions:
    """The options of one stage. A weight of 0 leaves a loss out, and what it needs with it."""

    iterations: int
    """Steps of the generator's optimiser; 1 or more."""
    batch: int = 12
    """Samples a process and step; 1 or more."""
    crop_px: int = 256
    """Side of the HR crops that the networks see, in HR px; a multiple of the scale (and of 8 with a discriminator)."""
    learning_rate: float = 2e-4
    """Learning rate of Adam for the generator; above 0."""
    d_learning_rate: float = 1e-4
    """Learning rate of Adam for the discriminator; above 0."""
    beta1: float = 0.9
    """Decay of the mean of gradients in both Adams, 0 to below 1."""
    beta2: float = 0.99
    """Decay of the mean of squared gradients in both Adams, 0 to below 1."""
    milestones: tuple[int, ...] = ()
    """Iterations at which both learning rates are multiplied by `gamma`."""
    gamma: float = 0.5
    """Factor of the learning rates at each milestone; above 0."""
    warm_up: int = 0
    """Iterations over which the learning rates rise from 0; 0 starts at once."""
    ema_decay: float = 0.999
    """Decay of the exponential moving average of the generator's weights, a step; 0 to below 1."""
    l1: float = 1.0
    """Weight of the mean absolute error."""
    mse: float = 0.0
    """Weight of the mean squared error, which is what PSNR measures; 10 is about as strong as 1 of l1."""
    perceptual: float = 0.0
    """Weight of the VGG19 loss."""
    gan: float = 0.0
    """Weight of the adversarial loss; above 0 there is a discriminator."""
    artefact: float = 0.0
    """Weight of the locally discriminative loss (LDL), which needs one more pass of the generator's mean (EMA)."""
    colour: float = 0.0
    """Weight of L1 between images shrunk to 1/16, which holds colours."""
    l1_sharp: bool = True
    """Whether L1 (and mse and artefact) compare with the sharpened truth."""
    perceptual_sharp: bool = True
    """Whether the VGG19 loss compares with the sharpened truth."""
    gan_sharp: bool = False
    """Whether the discriminator's real images are sharpened."""
    gan_ramp: int = 0
    """Iterations over which the weight of the adversarial loss rises from 0."""
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
        pixels = self.l1_sharp and (self.l1 > 0 or self.mse > 0 or self.artefact > 0)
        return pixels or (self.perceptual_sharp and self.perceptual > 0) or (self.gan_sharp and self.gan > 0)

    def _problems(self) -> Iterator[str]:
        yield from range_problems(self, _RANGES)
        positive = ("learning_rate", "d_learning_rate", "gamma", "clip_norm")
        for name in positive:
            value = getattr(self, name)
            if value is not None and value <= 0:
                yield f"got {name} = {value}, expected a number above 0"
        for name in ("beta1", "beta2", "ema_decay"):
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
        if not any((self.l1, self.mse, self.perceptual, self.gan, self.artefact, self.colour)):
            yield "got no loss above 0, expected l1, mse, perceptual, gan, artefact or colour"


_MOST_ITERATIONS = 10**9
_MOST_WEIGHT = 1e6
_RANGES: dict[str, tuple[float, float]] = {
    "iterations": (1, _MOST_ITERATIONS),
    "batch": (1, 10_000),
    "crop_px": (16, 8192),
    "learning_rate": (0, 10),
    "d_learning_rate": (0, 10),
    "gamma": (0, 10),
    "warm_up": (0, _MOST_ITERATIONS),
    "l1": (0, _MOST_WEIGHT),
    "mse": (0, _MOST_WEIGHT),
    "perceptual": (0, _MOST_WEIGHT),
    "gan": (0, _MOST_WEIGHT),
    "artefact": (0, _MOST_WEIGHT),
    "colour": (0, _MOST_WEIGHT),
    "gan_ramp": (0, _MOST_ITERATIONS),
    "d_warm_up": (0, _MOST_ITERATIONS),
    "d_every": (1, _MOST_ITERATIONS),
    "accumulate": (1, 10_000),
    "clip_norm": (0, 1e9),
}
"""Least and most of each option; rates are above 0 as well. The most is far beyond what anybody trains with."""
