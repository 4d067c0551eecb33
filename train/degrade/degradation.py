"""Holds everything that was drawn to degrade a batch as plain values, to log, slice, write as JSON and replay.

A sample's values in the order in which they are used:

    first    blur -> resize -> noise -> JPEG
    second   blur -> resize -> noise
    final    resize to the LR size -> sinc -> JPEG, or JPEG -> resize -> sinc
    after    motion blur -> oversharpening -> H.264, each only where the recipe asks for it
    crop_yx  where the pair is cut
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

from realesr.errors import InputError
from realesr.machine.tables import TableError, read_record

Arithmetic = Literal["corrected", "faithful"]
Family = Literal["gaussian", "gaussian_aniso", "generalised", "generalised_aniso", "plateau", "plateau_aniso", "sinc"]
Mode = Literal["area", "bilinear", "bicubic"]
Subsampling = Literal["4:2:0", "4:2:2", "4:4:4"]
Codec = Literal["jpeg", "webp", "avif"]

VERSION = 2
"""Version of the JSON. Version 1 has no steps after the final ones; it is still read."""


@dataclass(frozen=True, kw_only=True)
class KernelDraw:
    """The parameters of a blur kernel; those that its family does not use are 0."""

    family: Family
    side_px: int
    """Odd, 1 to 21; the rest of the canvas is zero."""
    sigma_x: float = 0.0
    """Standard deviation along the first axis of the ellipse, in px."""
    sigma_y: float = 0.0
    theta: float = 0.0
    """Rotation of the ellipse, in radians."""
    beta: float = 0.0
    """Exponent of generalised and plateau kernels; 1 is the Gaussian's."""
    cutoff: float = 0.0
    """Cut-off frequency of sinc kernels, in radians a px; pi is Nyquist."""


@dataclass(frozen=True, kw_only=True)
class ResizeDraw:
    """The parameters of a resize."""

    mode: Mode
    height_px: int
    width_px: int
    factor: float
    """Factor that gave the size: of the input's in the first stage, of the LR size in the second."""


@dataclass(frozen=True, kw_only=True)
class NoiseDraw:
    """The parameters of one sample's noise."""

    kind: Literal["gaussian", "poisson"]
    strength: float
    """Gaussian: standard deviation in levels of 255. Poisson: factor of the noise."""
    grey: bool
    """Whether all three channels get the same noise."""
    seed: int
    """Seed of the random field, below 2**63; fields are the same only on the same kind of device."""


@dataclass(frozen=True, kw_only=True)
class CodecDraw:
    """The parameters of lossy compression."""

    codec: Codec
    quality: float
    """1 to 100, whole unless the arithmetic is faithful."""
    subsampling: Subsampling
    """Chroma subsampling of JPEG."""


@dataclass(frozen=True, kw_only=True)
class MotionDraw:
    """The parameters of a motion blur: a camera that moves evenly along a line while the shutter is open."""

    length_px: float
    """Length of the path, in LR px; 0 moves nothing."""
    angle: float
    """Direction of the path in radians: 0 is along rows, pi / 2 along columns."""


@dataclass(frozen=True, kw_only=True)
class OversharpenDraw:
    """The parameters of an unsharp mask that is stronger than it should be, which leaves halos."""

    amount: float
    """Factor of the difference from the blurred image that is added."""
    sigma_px: float
    """Standard deviation of the Gaussian, in LR px."""


@dataclass(frozen=True, kw_only=True)
class H264Draw:
    """The parameters of H.264."""

    crf: float
    """Constant rate factor of x264, 0 (lossless) to 51."""


@dataclass(frozen=True, kw_only=True)
class StageDraw:
    """The steps of one of the two stages for one sample; None leaves a step out."""

    blur: KernelDraw | None
    noise: NoiseDraw | None
    codec: CodecDraw | None


@dataclass(frozen=True, kw_only=True)
class SharedDraw:
    """The parameters that the samples of a group share, so that they can be one tensor."""

    first_resize: ResizeDraw
    second_resize: ResizeDraw
    final_resize: ResizeDraw
    codec_first: bool
    """Whether the second JPEG comes before the final resize and sinc, or after them."""


@dataclass(frozen=True, kw_only=True)
class SampleDraw:
    """All parameters of one sample."""

    shared: SharedDraw
    first: StageDraw
    second: StageDraw
    final_sinc: KernelDraw | None
    motion: MotionDraw | None
    oversharpen: OversharpenDraw | None
    h264: H264Draw | None
    crop_yx: tuple[int, int] | None
    """Top left corner of the crop in LR px."""


@dataclass(frozen=True, kw_only=True)
class Degradation(Sequence[SampleDraw]):
    """All parameters of a batch. `degradation[2:5]` has those of three samples."""

    arithmetic: Arithmetic
    scale: int
    hr_px: tuple[int, int]
    """Height and width of the images that it was drawn for."""
    photons: float
    """Photons that white stands for in the corrected arithmetic's Poisson noise."""
    crop_px: int | None
    """Side of the crops in HR px; None where none were drawn."""
    samples: tuple[SampleDraw, ...]

    @property
    def lr_px(self) -> tuple[int, int]:
        """Return height and width of the degraded images."""
        return self.hr_px[0] // self.scale, self.hr_px[1] // self.scale

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> SampleDraw: ...
    @overload
    def __getitem__(self, index: slice) -> "Degradation": ...
    def __getitem__(self, index: int | slice) -> "SampleDraw | Degradation":
        if isinstance(index, slice):
            return dataclasses.replace(self, samples=self.samples[index])
        return self.samples[index]

    def to_json(self) -> dict[str, Any]:
        """Return numbers, texts, lists and dicts, which `json.dumps` takes."""
        return {"version": VERSION, **dataclasses.asdict(self)}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> "Degradation":
        """Return the degradation that `to_json` was called on, also after a round trip through JSON text.

        Raises:
            InputError: another version, or values that are missing, unknown or of another type.
        """
        values = dict(record)
        version = values.pop("version", None)
        if version not in (1, VERSION):
            raise InputError(f"got parameters of version {version}, expected {VERSION}: draw them again")
        if version == 1:
            values["samples"] = [_without_later_steps(sample) for sample in values.get("samples", ())]
        try:
            return read_record(Degradation, values, "the degradation's record")
        except TableError as error:
            raise InputError(f"{error}; draw them again") from error


def _without_later_steps(sample: object) -> object:
    """Return a sample's record of version 1 as one of version 2."""
    if not isinstance(sample, Mapping):
        return sample
    return {**sample, "motion": None, "oversharpen": None, "h264": None}
