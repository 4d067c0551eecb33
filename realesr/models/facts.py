"""The facts about a network that planning needs, as found in weights, zoo entries and engine files."""

from dataclasses import dataclass

from realesr.models.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Facts about a network, known before it is opened."""

    name: str
    scale: int
    """Output pixels per input pixel and side."""
    radius_px: int | None
    """Receptive radius in input px: distance at which a pixel's value can change the output; None where unknown."""
    multiple_of: int
    """Heights and widths must be multiples of this, in input px."""
    architecture: Architecture | None
    """Layers of the network; None for an .onnx file that realesr did not write."""
