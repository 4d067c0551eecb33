"""Everything that was drawn to degrade a batch, as plain values: to be logged, sliced, written as JSON and replayed.

A sample's values in the order in which they are used:

    first    blur -> resize -> noise -> JPEG
    second   blur -> resize -> noise
    final    resize to the LR size -> sinc -> JPEG, or JPEG -> resize -> sinc
    crop_yx  where the pair is cut
"""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, overload

from realesr.errors import InputError

Arithmetic = Literal["corrected", "faithful"]
Family = Literal["gaussian", "gaussian_aniso", "generalised", "generalised_aniso", "plateau", "plateau_aniso", "sinc"]
Mode = Literal["area", "bilinear", "bicubic"]
Subsampling = Literal["4:2:0", "4:2:2", "4:4:4"]
Codec = Literal["jpeg", "webp", "avif"]

VERSION = 1
"""Of the JSON."""


@dataclass(frozen=True, kw_only=True)
class KernelDraw:
    """A blur kernel. What its family does not use is 0."""

    family: Family
    side_px: int
    """Odd, 1 to 21; the rest of the canvas is zero."""
    sigma_x: float = 0.0
    """Standard deviation along the first axis of the ellipse, in px."""
    sigma_y: float = 0.0
    theta: float = 0.0
    """By how much the ellipse is turned, in radians."""
    beta: float = 0.0
    """Exponent of generalised and plateau kernels; 1 is the Gaussian's."""
    cutoff: float = 0.0
    """Of sinc kernels, in radians a px; pi is Nyquist."""


@dataclass(frozen=True, kw_only=True)
class ResizeDraw:
    """A resize."""

    mode: Mode
    height_px: int
    width_px: int
    factor: float
    """That the size was made from: of the input in the first stage, of the LR size in the second."""


@dataclass(frozen=True, kw_only=True)
class NoiseDraw:
    """Noise of one sample."""

    kind: Literal["gaussian", "poisson"]
    strength: float
    """Gaussian: standard deviation in levels of 255. Poisson: what the noise is multiplied by."""
    grey: bool
    """Whether all three channels get the same."""
    seed: int
    """Of the random field, below 2**63; fields are the same only on the same kind of device."""


@dataclass(frozen=True, kw_only=True)
class CodecDraw:
    """A lossy round trip."""

    codec: Codec
    quality: float
    """1 to 100, whole unless the arithmetic is faithful."""
    subsampling: Subsampling
    """Of JPEG's chroma."""


@dataclass(frozen=True, kw_only=True)
class StageDraw:
    """What one of the two stages does to one sample; None leaves a step out."""

    blur: KernelDraw | None
    noise: NoiseDraw | None
    codec: CodecDraw | None


@dataclass(frozen=True, kw_only=True)
class SharedDraw:
    """What the samples of a group share, so that they can be one tensor."""

    first_resize: ResizeDraw
    second_resize: ResizeDraw
    final_resize: ResizeDraw
    codec_first: bool
    """Whether the second JPEG comes before the final resize and sinc, or after them."""


@dataclass(frozen=True, kw_only=True)
class SampleDraw:
    """All values of one sample."""

    shared: SharedDraw
    first: StageDraw
    second: StageDraw
    final_sinc: KernelDraw | None
    crop_yx: tuple[int, int] | None
    """Top left corner of the crop in LR px."""


@dataclass(frozen=True, kw_only=True)
class Degradation(Sequence[SampleDraw]):
    """All values of a batch. `degradation[2:5]` is that of three samples."""

    arithmetic: Arithmetic
    scale: int
    hr_px: tuple[int, int]
    """Height and width of the images that it was drawn for."""
    photons: float
    """That white stands for, in the corrected arithmetic's Poisson noise."""
    crop_px: int | None
    """Side of the crops in HR px; None where none were drawn."""
    samples: tuple[SampleDraw, ...]

    @property
    def lr_px(self) -> tuple[int, int]:
        """Height and width of the degraded images."""
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
        """Numbers, texts, lists and dicts, that `json.dumps` takes."""
        return {"version": VERSION, **dataclasses.asdict(self)}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> "Degradation":
        """What `to_json` gave, also after a round trip through JSON text.

        Raises:
            InputError: another version, or values that are missing, unknown or of another type.
        """
        values = dict(record)
        version = values.pop("version", None)
        if version != VERSION:
            raise InputError(f"got parameters of version {version}, expected {VERSION}: draw them again")
        degradation: Degradation = _read(Degradation, values, "degradation")
        return degradation


def _read(hint: Any, value: Any, place: str) -> Any:
    """The value as its type says, for the few kinds of types that this file has."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _read_fields(hint, value, place)
    if origin is UnionType:
        return None if value is None else _read(arguments[0], value, place)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            pairs = zip(kinds, value, strict=True)
            return tuple(_read(kind, item, f"{place}[{at}]") for at, (kind, item) in enumerate(pairs))
    if hint in (int, float, bool) and type(value) in ((int, float) if hint is float else (hint,)):
        return hint(value)
    raise InputError(f"got {place} = {value!r}, which parameters of a degradation cannot have; draw them again")


def _read_fields(hint: Any, value: Any, place: str) -> Any:
    hints = typing.get_type_hints(hint)
    if not isinstance(value, Mapping) or set(value) != set(hints):
        raise InputError(f"got {place} = {value!r}, expected the keys {', '.join(hints)}; draw them again")
    return hint(**{name: _read(kind, value[name], f"{place}.{name}") for name, kind in hints.items()})
