"""What a client asks for: the text fields of a request, checked, in the words of the rest of realesr."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self, TypeVar

from realesr.errors import UsageError
from realesr.images.output_format import DEFAULT_QUALITY, output_format
from realesr.options import FileOptions, ImageOptions
from realesr.target_size import TargetSize

SIZE_FIELDS = {
    "long_side": "long_side_px",
    "short_side": "short_side_px",
    "width": "width_px",
    "height": "height_px",
    "megapixels": "megapixels",
}
"""Name of a field -> field of `TargetSize`."""

FIELDS = ("model", "scale", *SIZE_FIELDS, "strength", "format", "quality")
"""Names of all text fields."""

_Number = TypeVar("_Number", int, float)

_MODEL_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._+-]{0,98}[A-Za-z0-9])?")
"""A name: never a path. Which names there are, only the inspector knows."""
_WHOLE = re.compile(r"[+-]?\d{1,12}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(?:\d{1,12}(?:\.\d{0,20})?|\.\d{1,20})", re.ASCII)
"""With as many digits as programs write of a quotient, such as 3.3333333333333335."""


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What is done to one image.

    Raises:
        UsageError: a value is out of range, or two contradict each other.
    """

    model: str | None = None
    """Name of a network; None is the default one."""
    scale: float | None = None
    """Output pixels per input pixel and side; None is the network's own scale, or follows from `size`."""
    size: TargetSize | None = None
    """Size of the result, in the place of a scale."""
    strength: float = 1.0
    """Share of the network's detail, 0 to 1."""
    format: str | None = None
    """ "png", "jpeg", "tiff", "webp" or "avif"; None is the input's, or PNG where that is not written."""
    quality: int | None = None
    """1 to 100, where the format of the result is JPEG, WebP or AVIF."""

    def __post_init__(self) -> None:
        if self.model is not None and not _MODEL_NAME.fullmatch(self.model):
            raise UsageError(f"got model {self.model[:100]!r}, expected the name of a network", option="model")
        _ = self.image_options, self.file_options  # they check their values
        if self.format is None:
            return
        fmt = output_format(None, None, self.format)
        if self.quality is not None and fmt not in DEFAULT_QUALITY:
            raise UsageError(f"got quality {self.quality} for {fmt.upper()}, which is lossless: leave one out")

    @property
    def image_options(self) -> ImageOptions:
        """Return what is done to the pixels."""
        return ImageOptions(scale=self.scale, size=self.size, strength=self.strength)

    @property
    def file_options(self) -> FileOptions:
        """Return how the files are read and written."""
        return FileOptions(format=self.format, quality=self.quality)

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> Self:
        """Return the options that the text fields of a request state; an empty field is one that was left out.

        Raises:
            UsageError: a field is unknown, is no number where one is expected, or has a value out of range.
        """
        unknown = [name for name in fields if name not in FIELDS]
        if unknown:
            raise UsageError(f"got the field {unknown[0][:40]!r}, expected {', '.join(FIELDS)}")
        given = {name: text.strip() for name, text in fields.items() if text.strip()}
        return cls(
            model=given.get("model"),
            scale=_number(given, "scale", _decimal),
            size=_size(given),
            strength=1.0 if "strength" not in given else _decimal("strength", given["strength"]),
            format=given["format"].lower() if "format" in given else None,
            quality=_number(given, "quality", _whole),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON: the fields of a request that were given, as numbers and texts."""
        values = {"model": self.model, "scale": self.scale, "strength": self.strength}
        values |= {"format": self.format, "quality": self.quality}
        sizes = asdict(self.size) if self.size else {}
        values |= {name: sizes.get(field) for name, field in SIZE_FIELDS.items()}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the options that `to_json` has written."""
        sizes = {field: values[name] for name, field in SIZE_FIELDS.items() if name in values}
        others = {name: value for name, value in values.items() if name not in SIZE_FIELDS}
        return cls(**others, size=TargetSize(**sizes) if sizes else None)


def _size(given: Mapping[str, str]) -> TargetSize | None:
    """Return the size that the fields state; None where they state none."""
    sizes: dict[str, Any] = {
        field: (_decimal if name == "megapixels" else _whole)(name, given[name])
        for name, field in SIZE_FIELDS.items()
        if name in given
    }
    return TargetSize(**sizes) if sizes else None


def _number(given: Mapping[str, str], name: str, number_from: Callable[[str, str], _Number]) -> _Number | None:
    """Return the number in a field; None where the field was left out."""
    return number_from(name, given[name]) if name in given else None


def _whole(name: str, text: str) -> int:
    """Return the whole number in a field."""
    if not _WHOLE.fullmatch(text):
        raise UsageError(f"got {name} {text[:40]!r}, expected a whole number", option=name)
    return int(text)


def _decimal(name: str, text: str) -> float:
    """Return the number in a field."""
    if not _DECIMAL.fullmatch(text):
        raise UsageError(f"got {name} {text[:40]!r}, expected a number such as 2.5", option=name)
    return float(text)
