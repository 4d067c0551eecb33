"""Options of a written ONNX graph. They need no library."""

from dataclasses import dataclass
from typing import Literal

from realesr.errors import UsageError

GraphPrecision = Literal["fp32", "fp16"]

OLDEST_OPSET, DEFAULT_OPSET, NEWEST_OPSET = 13, 18, 25
"""Operator sets that the graphs can be written in; the newest is what TensorRT 11 reads. 18 loads everywhere."""


@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """Form of a network's graph; the defaults are those that `realesr upscale` runs."""

    precision: GraphPrecision = "fp32"
    """Precision of the arithmetic between input and output."""
    opset: int = DEFAULT_OPSET
    shape_nhw: tuple[int, int, int] | None = None
    """Fixed batch, height and width of the input; None leaves them open."""
    uint8: bool = False
    """Whether input and output are integers from 0 to 255, converted inside the graph, not float32 in [0, 1]."""
    fp32_convs: tuple[str, ...] = ()
    """Convolutions of an fp16 body that stay float32, by the names of their weights: "conv_last", "body.0"."""

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "fp16"):
            raise UsageError(f"{self.precision} is not for ONNX: expected fp32 or fp16 (bf16 needs the engine torch)")
        if not OLDEST_OPSET <= self.opset <= NEWEST_OPSET:
            raise UsageError(f"got the opset {self.opset}, expected {OLDEST_OPSET} to {NEWEST_OPSET}")
        if self.shape_nhw is not None and (len(self.shape_nhw) != 3 or min(self.shape_nhw) < 1):
            raise UsageError(f"got the shape {self.shape_nhw}, expected three numbers from 1: batch, height, width")
        if self.fp32_convs and self.precision == "fp32":
            raise UsageError("got convolutions that stay float32 in a float32 graph: expected them with fp16")
