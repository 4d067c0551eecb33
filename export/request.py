"""Options of an export, checked once, before anything is read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from realesr.errors import UsageError
from realesr.models.graph_options import DEFAULT_OPSET, GraphOptions, GraphPrecision
from realesr.models.zoo import DEFAULT_MODEL

Target = Literal["onnx", "tensorrt", "tensorrt-rtx"]
SUFFIXES: dict[str, str] = {"onnx": ".onnx", "tensorrt": ".engine", "tensorrt-rtx": ".engine"}


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of one export: the network, the format, the output and how it is built."""

    model: str = DEFAULT_MODEL
    """Name in the zoo, a file of weights, or the folder of a training run; for TensorRT an .onnx file as well."""
    to: Target | None = None
    """None is ONNX, and for fp16 an engine beside it, where TensorRT is installed."""
    output: Path | None = None
    """A file, or a folder that is there; none is `<model>.onnx` or `<model>-fp16.onnx` in the current folder."""
    overwrite: bool = False
    precision: GraphPrecision = "fp32"
    opset: int = DEFAULT_OPSET
    shape_nhw: tuple[int, int, int] | None = None
    """The one batch, height and width that the result takes; none takes all."""
    uint8: bool = False
    """Input and output are 8-bit levels, converted inside the graph."""
    denoise: float | None = None
    """0 keeps noise, 1 removes most; for networks with a partner to blend with."""
    denoise_with: str | None = None
    """Name or file of the partner; None is the one that was released with the network."""
    compute_capabilities: tuple[str, ...] = ()
    """Compute capabilities that TensorRT for RTX builds for: "sm89", ..."""
    workspace_mb: int | None = None
    """Most memory of the GPU that one layer may use beside its input and output; none leaves TensorRT 4 GiB."""
    limit_minutes: float | None = None
    """After this the builder is ended; none is half an hour."""
    timing_cache: Path | None = None
    """A file of TensorRT's measurements: read if it is there, written after, so that the next build is faster."""

    def __post_init__(self) -> None:
        if self.kind not in SUFFIXES:
            raise UsageError(f"got the target {self.to}, expected {', '.join(SUFFIXES)}", option="to")
        if self.compute_capabilities and self.to != "tensorrt-rtx":
            raise UsageError(
                "got compute_capabilities: expected them with tensorrt-rtx, which alone builds for other GPUs",
                option="to",
            )
        self._check_build()
        suffix = SUFFIXES[self.kind]
        if self.output is not None and not self.output.is_dir() and self.output.suffix.lower() != suffix:
            raise UsageError(
                f"got {self.output} for {self.kind}, expected a folder or a file *{suffix}", option="output"
            )
        self.graph()

    def _check_build(self) -> None:
        """Raise UsageError where options that only builds of engines have make no sense."""
        of_builds = {
            "workspace_mb": self.workspace_mb,
            "limit_minutes": self.limit_minutes,
            "timing_cache": self.timing_cache,
        }
        asked = [name for name, value in of_builds.items() if value is not None]
        if asked and self.to in (None, "onnx"):
            raise UsageError(
                f"got {asked[0]}: expected it with tensorrt or tensorrt-rtx, for it is about a build", option="to"
            )
        for name in asked:
            value = of_builds[name]
            if not isinstance(value, Path | None) and value <= 0:
                raise UsageError(f"got {name} {value:g}, expected more than 0", option=name)
        if self.timing_cache is not None and self.to != "tensorrt":
            raise UsageError(
                "got timing_cache: expected it with tensorrt, for tensorrt-rtx measures nothing", option="to"
            )

    @property
    def kind(self) -> Target:
        """Return the kind of file that `output` is."""
        return self.to or "onnx"

    def graph(self, *, uint8: bool | None = None, fp32_convs: tuple[str, ...] = ()) -> GraphOptions:
        """Return the options of the graph, with another `uint8` and layers that stay float32 where they are given."""
        return GraphOptions(
            precision=self.precision,
            opset=self.opset,
            shape_nhw=self.shape_nhw,
            uint8=self.uint8 if uint8 is None else uint8,
            fp32_convs=fp32_convs,
        )

    def target(self, name: str) -> Path:
        """Return the path of the result of a network of this name."""
        file = f"{name}{'-fp16' if self.precision == 'fp16' else ''}{SUFFIXES[self.kind]}"
        if self.output is None:
            return Path(file)
        return self.output / file if self.output.is_dir() else self.output
