"""UNetDiscriminatorSN, which judges images in training: how it is recognised.

It enlarges nothing, so it has no list of layers. Source: Real-ESRGAN, realesrgan/archs/discriminator_arch.py.
"""

from dataclasses import dataclass
from math import prod

from realesr.errors import ModelError
from realesr.models.architecture import Shapes, State, conv_shape


@dataclass(frozen=True, kw_only=True)
class UNetDiscriminator:
    """The numbers in which networks of the family UNetDiscriminatorSN differ."""

    features: int = 64
    """Channels of the first convolution."""
    channels: int = 3
    """Channels of what it sees: 3, an image, or 6, an image and the generator's input, enlarged to the same size. The
    second judges whether a texture belongs to that input: Isola et al. 2017 (pix2pix), arXiv 1611.07004."""

    def __post_init__(self) -> None:
        if self.channels not in (3, 6):
            raise ModelError(
                f"this discriminator sees {self.channels} channels: expected 3 (an image) or 6 (an image and the "
                "generator's input)"
            )

    @property
    def shapes(self) -> Shapes:
        """Return every key of the state dict with its shape; spectral norm adds two vectors to conv1 to conv8."""
        f = self.features
        sizes = [(f, 2 * f, 4), (2 * f, 4 * f, 4), (4 * f, 8 * f, 4), (8 * f, 4 * f, 3), (4 * f, 2 * f, 3)]
        sizes += [(2 * f, f, 3), (f, f, 3), (f, f, 3)]
        shapes: Shapes = {"conv0.weight": (f, self.channels, 3, 3), "conv0.bias": (f,)}
        for number, (into, out, kernel) in enumerate(sizes, start=1):
            shapes[f"conv{number}.weight_orig"] = (out, into, kernel, kernel)
            shapes[f"conv{number}.weight_u"] = (out,)
            shapes[f"conv{number}.weight_v"] = (into * kernel * kernel,)
        return {**shapes, "conv9.weight": (1, f, 3, 3), "conv9.bias": (1,)}

    @property
    def parameters(self) -> int:
        """Return how many numbers training changes; the vectors of spectral norm are not among them."""
        return sum(prod(shape) for key, shape in self.shapes.items() if not key.endswith(("_u", "_v")))

    @property
    def title(self) -> str:
        """Return a description in one line, for people."""
        channels = "" if self.channels == 3 else f", {self.channels} channels"
        return f"UNetDiscriminatorSN: {self.features} features{channels} (for training; it enlarges nothing)"


def detect_discriminator(state: State) -> UNetDiscriminator | None:
    """Return the discriminator whose state dict this looks like; None where it looks like another network.

    Raises:
        ModelError: it sees another number of channels than a discriminator does.
    """
    if "conv1.weight_orig" not in state or "conv0.weight" not in state:
        return None
    features, channels = conv_shape(state, "conv0")[:2]
    return UNetDiscriminator(features=features, channels=channels)
