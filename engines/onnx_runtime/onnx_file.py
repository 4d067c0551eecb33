"""Reads what an ONNX file says of itself: the shape and type of its input, and the facts in its metadata.

Metadata are input like any other: they may be damaged or forged. Those that are not as we write them count for nothing;
those that are must agree with the graph and with what it does.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.engine import IoDtype, Precision
from realesr.engines.onnx_runtime.onnx_contents import OnnxContents
from realesr.errors import ModelError
from realesr.models.architecture import Architecture
from realesr.models.facts import ModelFacts
from realesr.models.recognition import architecture_from_text

_IO_DTYPES: dict[str, IoDtype] = {"tensor(float)": "float32", "tensor(float16)": "float32", "tensor(uint8)": "uint8"}

_NUMBER = re.compile(r"0|[1-9][0-9]{0,3}")
_MAX_RADIUS_PX = 1 << 11
"""Assumption: six times the largest network's. An overlap of tiles is as wide."""


@dataclass(frozen=True, kw_only=True)
class FileForm:
    """Shape and type of a file's batches, and conversions to and from them."""

    io_dtype: IoDtype = "float32"
    is_half: bool = False
    """Whether it takes float16: the numbers of a float32 one, rounded."""
    batch: int | None = None
    """The one number of images that the file takes; none where it takes any."""
    size_px: tuple[int, int] | None = None
    """The one height and width that it takes."""

    def to_input(self, batch: NDArray[np.float32]) -> NDArray[Any]:
        """Turn (n, 3, h, w) float32 in [0, 1] into what the file takes: its levels, and as many images as its batch."""
        if self.batch is not None and len(batch) < self.batch:
            batch = np.concatenate([batch, np.zeros((self.batch - len(batch), *batch.shape[1:]), np.float32)])
        if self.io_dtype == "uint8":
            return np.rint(batch.clip(0, 1) * np.float32(255)).astype(np.uint8)
        return np.ascontiguousarray(batch, np.float16 if self.is_half else np.float32)

    def from_output(self, output: NDArray[Any], count: int) -> NDArray[np.float32]:
        """Turn what the file gave into float32 in [0, 1], for the first `count` images."""
        output = output[:count]
        if self.io_dtype == "uint8":
            return output.astype(np.float32) / np.float32(255)
        return np.asarray(output, np.float32)


def form_from_session(session: Any, path: Path) -> FileForm:
    """Return the form of an open session's file; sizes that the file leaves open are texts or None.

    Raises:
        ModelError: it takes no RGB image, or more than that.
    """
    if len(session.get_inputs()) != 1:
        names = ", ".join(value.name for value in session.get_inputs())
        raise ModelError(f"{path} takes the inputs {names[:200]}, expected one: an image, float32 (N, 3, H, W)")
    source, result = session.get_inputs()[0], session.get_outputs()[0]
    for value in (source, result):
        shape = value.shape
        is_image = len(shape) == 4 and (shape[1] == 3 or not isinstance(shape[1], int))
        if _IO_DTYPES.get(value.type) is None or _IO_DTYPES[value.type] != _IO_DTYPES.get(source.type) or not is_image:
            raise ModelError(
                f"{path} has {value.name} as {value.type} {shape}, "
                "expected float32 or uint8 (N, 3, H, W), RGB, or float16 likewise"
            )
    batch, _, height, width = (side if isinstance(side, int) else None for side in source.shape)
    if (height is None) != (width is None):
        raise ModelError(
            f"{path} takes images of {source.shape[3]} x {source.shape[2]} px, expected both sides open or both fixed: "
            "export it with dynamic height and width"
        )
    size = None if height is None or width is None else (height, width)
    if min(side for side in (batch, height, width, 1) if side is not None) < 1:
        raise ModelError(f"{path} takes images of the shape {source.shape}: expected sizes from 1")
    return FileForm(
        io_dtype=_IO_DTYPES[source.type], is_half=source.type == "tensor(float16)", batch=batch, size_px=size
    )


def file_precision(written: Mapping[str, str], form: FileForm) -> Precision:
    """Return the precision of a file's arithmetic: as its metadata or its input say, else float32."""
    return "fp16" if form.is_half or written.get("realesr.precision") == "fp16" else "fp32"


def written_architecture(contents: OnnxContents, path: Path) -> Architecture | None:
    """Return the architecture in a file's metadata; None where there is none as we write it.

    Raises:
        ModelError: The file's graph is not that of this architecture.
    """
    found = architecture_from_text(contents.metadata.get("realesr.architecture", ""))
    if found is None:
        return None
    # The numbers of a network bound the layers that are made of them, so its convolutions are counted first.
    convolutions = contents.operators["Conv"]
    if convolutions != len(found.convolutions) or 2 * found.parameters > contents.stored_bytes:
        raise ModelError(
            f"{path} says that it is {found.title} ({len(found.convolutions)} convolutions, {found.parameters:,} "
            f"numbers), but has {convolutions} convolutions in {contents.stored_bytes:,} bytes: export it again, or "
            "take the metadata realesr.architecture out"
        )
    return found


def checked_facts(
    contents: OnnxContents, architecture: Architecture | None, path: Path, *, scale: int, multiple_of: int
) -> ModelFacts:
    """Return the facts about a file's network.

    Args:
        contents: of the file.
        architecture: what `written_architecture` gave.
        path: of the file.
        scale: as measured, like `multiple_of`.

    Raises:
        ModelError: Its metadata contradict each other or what was measured.
    """
    names = "scale", "multiple_of", "radius_px"
    texts = {name: contents.metadata.get(f"realesr.{name}", "") for name in names}
    written = {name: int(text) for name, text in texts.items() if _NUMBER.fullmatch(text)}
    expected = {"scale": scale}
    if architecture is not None:
        expected |= {"multiple_of": architecture.multiple_of, "radius_px": architecture.radius_px}
        if architecture.output_scale != scale:
            written["scale"] = architecture.output_scale
    for name in expected.keys() & written.keys():
        if written[name] != expected[name]:
            raise ModelError(
                f"{path} says {name} = {written[name]}, but its network has {expected[name]}: export it again, or take "
                f"the metadata realesr.{name} out"
            )
    multiple_of = max(multiple_of, expected.get("multiple_of", 1))
    radius = expected.get("radius_px", written.get("radius_px"))
    return ModelFacts(
        name=path.stem,
        scale=scale,
        radius_px=radius if radius is not None and radius <= _MAX_RADIUS_PX else None,
        multiple_of=multiple_of,
        architecture=architecture,
    )
