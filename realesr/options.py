"""The options of an upscale, checked once, before anything is opened."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from realesr.errors import UsageError
from realesr.target_size import TargetSize

MAX_SCALE = 16.0


def check_engine_options(options: Mapping[str, str]) -> None:
    """Raise UsageError where a name or a value is not text; which names there are, only the engine knows."""
    for name, value in options.items():
        for part in (name, value):
            if not isinstance(part, str):
                raise UsageError(
                    f"got the option {name}={value} of type {type(part).__name__}, expected text", option="options"
                )


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Options for the network: which one runs, where and how."""

    model: str | None = None
    """Name in the zoo, or path to .onnx, .safetensors, .pth or ncnn files; None is realesrgan-x4plus where it is on
    disk or can be fetched, and realesr-general-x4v3, which comes with the package, where it is neither."""
    denoise: float | None = None
    """Denoising strength: 0 keeps noise, 1 removes the most. For networks with a partner to blend with."""
    denoise_with: str | None = None
    """Name or file of the partner, which is what `denoise` = 0 gives; None is the one that was released with it."""
    engine: str = "auto"
    """ "auto", or a name of `realesr.engines.ENGINE_NAMES`."""
    device: str = "auto"
    """One device, or several separated by commas, which share the tiles: "cuda:0,1"."""
    precision: str = "auto"
    """ "auto", "fp32", "fp16" or "bf16"."""
    threads: int | None = None
    """CPU threads, at least 1; None uses every core that this process may use."""
    options: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Options of the engine by name, such as {"mode": "graphs"}: switches that only this engine has."""
    tta: bool = False
    """Average over the eight flips and transposes: eight times slower."""
    tile_px: int | None = None
    """Side of the tiles in input pixels without their overlap, at least 16; None derives it from the network."""
    overlap_px: int | None = None
    """Overlap of the tiles on each side in input pixels; None derives it from the network."""
    exact: bool = False
    """Choose an overlap so wide that tiles differ from the whole image by at most one 8-bit level."""

    @property
    def devices(self) -> tuple[str, ...]:
        """Return the devices one by one: "cuda:0,1" -> ("cuda:0", "cuda:1"), "cpu" -> ("cpu",)."""
        names: list[str] = []
        for part in map(str.strip, self.device.lower().split(",")):
            kind = names[-1].partition(":")[0] if names else ""
            name = f"{kind}:{part}" if part.isdigit() and kind else part
            if not name or name.isdigit() or (name == "auto" and "," in self.device):
                raise UsageError(
                    f"got device {self.device}, expected one name, or several like cuda:0,1", option="device"
                )
            if name in names:
                raise UsageError(
                    f"got device {self.device}, which has {name} twice: name each device once", option="device"
                )
            names.append(name)
        return tuple(names)

    def __post_init__(self) -> None:
        _ = self.devices  # raises where the list is bad
        check_engine_options(self.options)
        if self.denoise is not None and not 0 <= self.denoise <= 1:
            raise UsageError(f"got denoise {self.denoise:g}, expected a number from 0 to 1", option="denoise")
        if self.denoise_with is not None and self.denoise is None:
            raise UsageError(
                f"got denoise_with {self.denoise_with} without denoise: expected a number from 0, all of "
                f"{self.denoise_with}, to 1, none of it",
                option="denoise",
            )
        if self.precision not in ("auto", "fp32", "fp16", "bf16"):
            raise UsageError(f"got precision {self.precision}, expected auto, fp32, fp16 or bf16", option="precision")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"got threads {self.threads}, expected at least 1", option="threads")
        self._check_tiling()

    def _check_tiling(self) -> None:
        """Raise UsageError where the tile, the overlap or both together are invalid."""
        if self.tile_px is not None and self.tile_px < 16:
            raise UsageError(f"got tile_px {self.tile_px}, expected at least 16 px", option="tile_px")
        if self.overlap_px is not None and self.overlap_px < 0:
            raise UsageError(f"got overlap_px {self.overlap_px}, expected 0 px or more", option="overlap_px")
        if self.exact and self.overlap_px is not None:
            raise UsageError(
                f"got exact and overlap_px {self.overlap_px}: exact chooses the overlap itself", option="exact"
            )


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Options for enlarging the pixels of an image."""

    scale: float | None = None
    """Output pixels per input pixel and side, 1 to 16; None is the network's own scale, or follows from `size`."""
    size: TargetSize | None = None
    """Size of the output, in the place of a scale. An image that is as large already stays as it is."""
    shrink: bool = False
    """Resample images that are larger than `size` down to it."""
    alpha: Literal["network", "lanczos"] = "network"
    """How an alpha channel is enlarged."""
    strength: float = 1.0
    """Share of the network's detail: 1 is all of it, 0 is Lanczos alone; see `realesr.runtime.strength`."""

    def __post_init__(self) -> None:
        if self.scale is not None and not 1 <= self.scale <= MAX_SCALE:
            raise UsageError(f"got scale {self.scale:g}, expected a number from 1 to {MAX_SCALE:g}", option="scale")
        if self.scale is not None and self.size is not None:
            raise UsageError(f"got scale {self.scale:g} and {self.size.in_words}: expected one of them")
        if self.shrink and self.size is None:
            raise UsageError("got shrink without a size to shrink to", option="size")
        if self.alpha not in ("network", "lanczos"):
            raise UsageError(f"got alpha {self.alpha}, expected network or lanczos", option="alpha")
        if not 0 <= self.strength <= 1:
            raise UsageError(f"got strength {self.strength:g}, expected a number from 0 to 1", option="strength")

    @property
    def ending(self) -> str | None:
        """Return what the stem of an output's name ends in: "x2.5", "3840px"; None for the network's own scale."""
        if self.size is not None:
            return self.size.label
        return None if self.scale is None else f"x{self.scale:g}"


Region = tuple[int, int, int, int]
"""A part of an image: left, top, width and height in px, from its upper left corner."""


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Options for reading and writing files."""

    format: str | None = None
    """ "png", "jpeg", "tiff", "webp" or "avif"; None follows the output's suffix, then the input."""
    quality: int | None = None
    """1 to 100, for JPEG, WebP and AVIF; None is 95, 90 and 80."""
    overwrite: bool = False
    """Replace an output that exists."""
    strip: bool = False
    """Leave out metadata."""
    provenance: bool = True
    """Write into the XMP that a network has enlarged the image, which one and by what factor; never with `strip`."""
    page: int | None = None
    """Page, frame or image of a file with several, from 0; None is the one that the file itself presents."""
    region: Region | None = None
    """The only part of the upright image that is enlarged, as a preview; None is all of it."""
    max_pixels: int | None = None
    """Largest input area that is read, in pixels; None is `realesr.images.reader.MAX_PIXELS`."""
    allow_damaged: bool = False
    """Enlarge files that have lost rows, with a notice, instead of refusing them."""
    resume: bool = False
    """Keep the finished rows of a large image beside the output until it is complete, and go on behind those that a
    job which was stopped or killed has left there."""

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"got quality {self.quality}, expected 1 to 100", option="quality")
        if self.page is not None and self.page < 0:
            raise UsageError(f"got page {self.page}, expected 0 or more", option="page")
        if self.region is not None and (min(self.region[:2]) < 0 or min(self.region[2:]) < 1):
            raise UsageError(
                f"got region {','.join(map(str, self.region))}, expected left and top of 0 px or more, and width and "
                "height of 1 px or more",
                option="region",
            )
        if self.max_pixels is not None and self.max_pixels < 1:
            raise UsageError(f"got max_pixels {self.max_pixels}, expected at least 1", option="max_pixels")
