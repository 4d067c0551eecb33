"""Names outputs by a template: `{stem}_{model}_{scale}`.

    --name --template_from--> NameTemplate --named_images--> Found with its target's name

The template names the file, `-o` its folder. Where it ends in a suffix of its own, that is the output's format.
"""

import os
import re
import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from realesr.cli.files import Found, Output
from realesr.cli.names import shown
from realesr.errors import RealesrError, UsageError
from realesr.images.info import OutputFormat
from realesr.images.kinds import IMAGE_SUFFIXES, expected_kind
from realesr.images.output_format import SUFFIXES, format_of, output_format, suffix_for
from realesr.options import FileOptions, ImageOptions

FIELDS: dict[str, str | int] = {
    "stem": "photo",
    "model": "realesrgan-x4plus",
    "scale": "x4",
    "width": 3200,
    "height": 2400,
    "suffix": "jpg",
    "parent": "holiday",
}
"""Field -> an example of its value, on which a template is tried."""

FIELDS_OF_THE_SIZE = frozenset(("width", "height"))
"""Fields for which each image's header is read; `scale` is another where a size is asked for."""

_WINDOWS_REFUSES = frozenset('<>:"|?*\\')
"""Source: Microsoft's "Naming Files, Paths, and Namespaces"."""

_WEIGHTS_SUFFIXES = frozenset((".pth", ".safetensors", ".onnx", ".engine", ".bin", ".param"))

_LARGE_NUMBER = re.compile(r"\d{4}")


@dataclass(frozen=True)
class NameTemplate:
    """A template whose fields are known to exist."""

    text: str
    fields: frozenset[str]
    format: OutputFormat | None
    """Format that the suffix at its end stands for; None where it has none."""

    @property
    def ends_in_suffix(self) -> bool:
        """Return whether names end in the input's own suffix."""
        return self.text.endswith(".{suffix}")


def template_from(text: str, output: Output) -> NameTemplate:
    """Return the template that `--name` states.

    Args:
        text: value of `--name`.
        output: what `-o` and `--format` state.

    Raises:
        UsageError: a field is not known or more than a name, braces do not match, the result would be no name of a
            file, or its suffix is of a format that cannot be written or contradicts `--format`; or `-o` names a file.
    """
    if not output.is_folder:
        raise UsageError(f"got --name {text} and -o {output.path}, which name the file twice: leave one of them out")
    if any(unicodedata.category(char) == "Cc" for char in text):
        raise UsageError(f"got --name {text}, which has a control character in it: expected the name of a file")
    fields = _fields_of(text)
    try:
        example = text.format_map(FIELDS)
    except (ValueError, TypeError) as error:
        raise UsageError(f"got --name {text}, expected formats such as {{width:05d}}: {error}") from None
    _check_name(example, f"got --name {text}")
    return NameTemplate(text, fields, _format_at_end(text, output.format))


def _fields_of(text: str) -> frozenset[str]:
    """Return the names of the fields in a template; raise UsageError where one is not known."""
    names = []
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise UsageError(f"got --name {text}, expected pairs of braces, {{{{ for one alone: {error}") from None
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if name not in FIELDS or conversion:
            wrong = f"{{{name}!{conversion}}}" if conversion else f"{{{name}}}"
            known = ", ".join(f"{{{field}}}" for field in FIELDS)
            raise UsageError(f"got --name {text}, where {wrong} is no field: expected {known}")
        if "{" in (spec or "") or _LARGE_NUMBER.search(spec or ""):
            raise UsageError(f"got --name {text}, where the format of {{{name}}} is {spec}: expected one like 05d")
        names.append(name)
    return frozenset(names)


def _check_name(name: str, what: str) -> None:
    """Raise UsageError where no file can have a name; `what` begins the message."""
    refused = [char for char in name if char in "/\0" or (os.name == "nt" and char in _WINDOWS_REFUSES)]
    if refused:
        raise UsageError(f"{what}, with {refused[0]} in the name: expected the name of a file; -o names its folder")
    if not name.strip(" ."):
        raise UsageError(f"{what}, which makes the name {name!r}: expected one such as {{stem}}_{{scale}}")


def _format_at_end(text: str, wanted: OutputFormat | None) -> OutputFormat | None:
    """Return the format of the suffix at a template's end; raise UsageError where that cannot be written."""
    suffix = Path(text).suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        return None
    named = format_of(Path(text))
    if named is None:
        raise UsageError(
            f"got --name {text}, which ends in {suffix}, expected {', '.join(SUFFIXES)}, or none: it is added"
        )
    if wanted is not None and wanted != named:
        raise UsageError(f"got --name {text} and --format {wanted}, which contradict each other: leave one of them out")
    return named


class SizeRule(NamedTuple):
    """What the size of an output follows from, besides the image."""

    network_scale: int
    image: ImageOptions
    file: FileOptions


def named_images(
    found: Sequence[Found], template: NameTemplate, *, model: str, wanted: OutputFormat | None, rule: SizeRule
) -> tuple[list[Found], list[tuple[Path, RealesrError]]]:
    """Return the images with the names of their outputs, and those whose header cannot be read, with the reason.

    Args:
        found: the images; each is opened once, and only where a field asks for its size.
        template: what their outputs are called.
        model: name or path of the network.
        wanted: value of `--format`.
        rule: what their sizes follow from.

    Raises:
        UsageError: the template gives an image no name that a file can have.
    """
    needs_size = bool(template.fields & FIELDS_OF_THE_SIZE) or (
        "scale" in template.fields and rule.image.size is not None
    )
    scale: dict[str, str | int] = {"scale": rule.image.ending or f"x{rule.network_scale}"}
    named: list[Found] = []
    failures: list[tuple[Path, RealesrError]] = []
    for image in found:
        try:
            size = _size_fields(image.path, rule) if needs_size else scale
        except RealesrError as error:
            failures.append((image.path, error))
        else:
            named.append(replace(image, target_name=_name_of(image, template, size, model=model, wanted=wanted)))
    return named, failures


def _size_fields(path: Path, rule: SizeRule) -> dict[str, str | int]:
    """Return the fields that follow from an image's size; raise RealesrError where its header cannot be read."""
    from realesr.images.reader import open_with
    from realesr.runtime.pipeline import sizes_for

    file = rule.file
    with open_with(path, file) as reader:
        info = reader.info
    height_px, width_px = sizes_for(info, rule.network_scale, rule.image).output
    scale = rule.image.scale or (width_px / info.width_px if rule.image.size else rule.network_scale)
    return {"width": width_px, "height": height_px, "scale": f"x{round(scale, 2):g}"}


def _name_of(
    image: Found, template: NameTemplate, size: dict[str, str | int], *, model: str, wanted: OutputFormat | None
) -> str:
    """Return the name of an image's output, with its suffix."""
    path = image.path
    values = {
        "stem": path.stem,
        "model": Path(model).stem if Path(model).suffix in _WEIGHTS_SUFFIXES else Path(model).name,
        "suffix": path.suffix.removeprefix("."),
        "parent": Path(os.path.abspath(path)).parent.name,
        **size,
    }
    name = template.text.format_map(values)
    _check_name(name, f"{shown(path)} by --name {template.text}")
    if template.format is not None:
        return name
    name = name.removesuffix(".") if template.ends_in_suffix else name  # of an input without a suffix
    fmt = output_format(image.kind or expected_kind(path), None, wanted)
    if template.ends_in_suffix and format_of(Path(name)) == fmt:
        return name
    return name + suffix_for(fmt, path)
