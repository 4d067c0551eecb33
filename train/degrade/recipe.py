"""Says how degradations are drawn: every range and probability. Two recipes ship.

CORRECTED   the paper's numbers with arithmetic that is right: JPEG like libjpeg's, no drift between LR and HR, noise
            that is independent from sample to sample and of the content's number of levels.
FAITHFUL    the reference's arithmetic with its quirks, for comparisons with the networks that were trained with it.

Numbers: Real-ESRGAN, options/train_realesr{net,gan}_x4plus.yml and realesrgan/data/realesrgan_dataset.py.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from realesr.errors import UsageError
from realesr.machine.tables import range_problems

Range = tuple[float, float]

MAX_KERNEL_PX = 21
"""Side of the canvas of every kernel."""


def _raise(problems: Iterator[str]) -> None:
    found = list(problems)
    if found:
        raise UsageError("; ".join(found))


def _bad_probabilities(options: object, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        value = getattr(options, name)
        if not 0 <= value <= 1:
            yield f"got {name} = {value}, expected a probability of 0 to 1"


def _bad_weights(options: object, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        values = getattr(options, name)
        if min(values) < 0 or not 0 < sum(values) < math.inf:
            yield f"got {name} = {list(values)}, expected weights of 0 or more, not all 0"


def _bad_ranges(
    options: object,
    names: tuple[str, ...],
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
) -> Iterator[str]:
    for name in names:
        low, high = getattr(options, name)
        if not (least <= low <= high <= most and above < low and high < math.inf):
            start = f"{least:g} or more" if above == -math.inf else f"more than {above:g}"
            end = "" if most == math.inf else f", at most {most:g}"
            yield f"got {name} = {[low, high]}, expected two numbers of {start}{end}, the smaller first"


@dataclass(frozen=True, kw_only=True)
class DegradeStage:
    """The options of one of the two stages: blur, resize, noise, JPEG. Defaults are those of the first."""

    blur: float = 1.0
    """Probability of the blur."""
    sinc: float = 0.1
    """Probability that the blur's kernel is a sinc."""
    families: tuple[float, float, float, float, float, float] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    """Weights of the other kernels: Gaussian, generalised Gaussian and plateau, each isotropic, anisotropic."""
    sigma_px: Range = (0.2, 3.0)
    """Standard deviation of the kernels."""
    beta_generalised: Range = (0.5, 4.0)
    """Exponent, half of the kernels below 1 and half above."""
    beta_plateau: Range = (1.0, 2.0)
    resize: tuple[float, float, float] = (0.2, 0.7, 0.1)
    """Weights of up, down and keep."""
    up: Range = (1.0, 1.5)
    """Factors of enlarging: of the HR size in the first stage, of the LR size in the second."""
    down: Range = (0.15, 1.0)
    noise: float = 1.0
    """Probability of noise."""
    gaussian: float = 0.5
    """Probability that the noise is Gaussian and not Poisson."""
    gaussian_levels: Range = (1.0, 30.0)
    """Standard deviation in levels of 255."""
    poisson_scale: Range = (0.05, 3.0)
    """Factor of Poisson noise of `photons` photons."""
    grey: float = 0.4
    """Probability that the noise is the same in all channels."""
    jpeg: float = 1.0
    """Probability of the JPEG."""
    jpeg_quality: Range = (30.0, 95.0)
    """Within 1 to 100."""

    def __post_init__(self) -> None:
        _raise(self._problems())

    def _problems(self) -> Iterator[str]:
        yield from _bad_probabilities(self, ("blur", "sinc", "noise", "gaussian", "grey", "jpeg"))
        yield from _bad_weights(self, ("families", "resize"))
        yield from _bad_ranges(self, ("sigma_px", "beta_generalised", "beta_plateau"), above=0.0, most=100.0)
        yield from _bad_ranges(self, ("up", "down"), least=0.01, most=16.0)
        yield from _bad_ranges(self, ("gaussian_levels", "poisson_scale"), least=0.0, most=1000.0)
        yield from _bad_ranges(self, ("jpeg_quality",), least=1.0, most=100.0)


SECOND = DegradeStage(
    blur=0.8,
    sigma_px=(0.2, 1.5),
    resize=(0.3, 0.4, 0.3),
    up=(1.0, 1.2),
    down=(0.3, 1.0),
    gaussian_levels=(1.0, 25.0),
    poisson_scale=(0.05, 2.5),
)
"""The second stage of the released networks."""


@dataclass(frozen=True, kw_only=True)
class DegradeRecipe:
    """The options of the degradation of a batch."""

    arithmetic: Literal["corrected", "faithful"] = "corrected"
    """`faithful` also draws what the reference draws once a batch once a group."""
    group: int = 4
    """Samples that share sizes, interpolation and order; 0: the whole batch. Small is diverse, large is fast."""
    first: DegradeStage = DegradeStage()
    second: DegradeStage = SECOND
    kernel_px: tuple[int, ...] = (7, 9, 11, 13, 15, 17, 19, 21)
    """Sides of kernels, all as likely; odd, 1 to 21."""
    modes: tuple[Literal["area", "bilinear", "bicubic"], ...] = ("area", "bilinear", "bicubic")
    """Interpolations, all as likely."""
    sinc_cutoff: Range = (math.pi / 5, math.pi)
    """Cut-off frequency of sinc kernels of 13 px and more, in radians a px."""
    small_sinc_cutoff: Range = (math.pi / 3, math.pi)
    """Cut-off frequency of smaller ones, and of the final sinc of any size, in radians a px."""
    final_sinc: float = 0.8
    """Probability of the last filter."""
    jpeg_first: float = 0.5
    """Probability that the second JPEG comes before the resize to the LR size."""
    subsampling: tuple[float, float, float] = (0.7, 0.15, 0.15)
    """Weights of 4:2:0, 4:2:2 and 4:4:4. An assumption: the first is the default of most cameras and libraries, the
    others come from some cameras and from editors. Faithful has 4:2:0 only."""
    photons: float = 256.0
    """Photons that white stands for, before poisson_scale; what the reference takes for a patch of many levels.
    Faithful counts levels instead."""
    webp: float = 0.0
    """Probability that WebP takes the place of the second JPEG: a round trip over the host."""
    webp_quality: Range = (30.0, 95.0)
    avif: float = 0.0
    """Probability that AVIF takes its place: likewise a round trip over the host."""
    avif_quality: Range = (30.0, 95.0)
    motion_blur: float = 0.0
    """Probability of a motion blur of the LR image, after all that is above."""
    motion_px: Range = (2.0, 12.0)
    """Length of its path in LR px, 0 to 20. An assumption."""
    oversharpen: float = 0.0
    """Probability that the LR image is then sharpened until it has halos, as by a camera's or an editor's software."""
    oversharpen_amount: Range = (0.5, 2.0)
    """Factor of the unsharp mask. An assumption; 0.5 to 1 is what editors offer first."""
    oversharpen_sigma_px: Range = (0.5, 2.0)
    """Standard deviation of its Gaussian in LR px, above 0 to 3. An assumption."""
    h264: float = 0.0
    """Probability that the LR image is at last encoded as a frame of H.264: needs PyAV, a round trip over the host."""
    h264_crf: Range = (20.0, 38.0)
    """Constant rate factor, 0 to 51; x264's own default is 23."""
    pool: int = 0
    """Pairs of a PairPool that mixes batches; 0: none."""

    def __post_init__(self) -> None:
        _raise(self._problems())

    def _problems(self) -> Iterator[str]:
        yield from _bad_probabilities(self, ("final_sinc", "jpeg_first", "webp", "avif"))
        yield from _bad_probabilities(self, ("motion_blur", "oversharpen", "h264"))
        yield from _bad_weights(self, ("subsampling",))
        yield from _bad_ranges(self, ("sinc_cutoff", "small_sinc_cutoff"), above=0.0, most=math.pi)
        yield from _bad_ranges(self, ("webp_quality", "avif_quality"), least=1.0, most=100.0)
        yield from _bad_ranges(self, ("motion_px",), least=0.0, most=float(MAX_KERNEL_PX - 1))
        yield from _bad_ranges(self, ("oversharpen_amount",), least=0.0, most=10.0)
        yield from _bad_ranges(self, ("oversharpen_sigma_px",), above=0.0, most=3.0)
        yield from _bad_ranges(self, ("h264_crf",), least=0.0, most=51.0)
        yield from range_problems(self, {"group": (0, 10_000), "pool": (0, 100_000), "photons": (0, 1e9)})
        if not self.kernel_px or any(px % 2 == 0 or not 1 <= px <= MAX_KERNEL_PX for px in self.kernel_px):
            yield f"got kernel_px = {list(self.kernel_px)!r:.80}, expected odd numbers of 1 to {MAX_KERNEL_PX}"
        if not self.modes:
            yield "got no modes, expected area, bilinear or bicubic"
        if self.photons <= 0:
            yield f"got photons = {self.photons}, expected a number above 0"
        if self.webp + self.avif > 1:
            yield f"got webp = {self.webp} and avif = {self.avif}, expected at most 1 together"


CORRECTED = DegradeRecipe()
"""The default."""

FAITHFUL = DegradeRecipe(arithmetic="faithful", group=0, subsampling=(1.0, 0.0, 0.0), pool=180)
"""The degradation of the released networks' training, as far as the public code tells."""
