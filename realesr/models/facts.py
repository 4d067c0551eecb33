"""The facts about a network that planning needs, as weights, zoo entries and engine files tell them."""

from dataclasses import dataclass

from realesr.models.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Facts about a network, known before it is opened."""

    name: str
    scale: int
    """Output pixels per input pixel and side."""
    radius_px: int | None
    """How far from an input pixel's place its value can change the output, in input px; None where unknown."""
    multiple_of: int
    """Heights and widths must be multiples of this, in input px."""
    architecture: Architecture | None
    """None for an .onnx file that realesr did not write."""
