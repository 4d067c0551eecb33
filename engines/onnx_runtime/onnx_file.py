"""Reads what an ONNX file says of itself: the shape and type of its input, and the facts in its metadata."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.engine import IoDtype, Precision
from realesr.errors import ModelError

_IO_DTYPES: dict[str, IoDtype] = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}


@dataclass(frozen=True, kw_only=True)
class FileForm:
    """Shape and type of a file's batches, and conversions to and from them."""

    io_dtype: IoDtype = "float32"
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
        return np.ascontiguousarray(batch)

    def from_output(self, output: NDArray[Any], count: int) -> NDArray[np.float32]:
        """Turn what the file gave into float32 in [0, 1], for the first `count` images."""
        output = output[:count]
        return output.astype(np.float32) / np.float32(255) if self.io_dtype == "uint8" else output


def form_from_session(session: Any, path: Path) -> FileForm:
    """Return the form of an open session's file; sizes that the file leaves open are texts or None.

    Raises:
        ModelError: it takes no RGB image, or more than that.
    """
    if len(session.get_inputs()) != 1:
        names = ", ".join(value.name for value in session.get_inputs())
        raise ModelError(f"{path} takes the inputs {names}, expected one: an image, float32 (N, 3, H, W)")
    source, result = session.get_inputs()[0], session.get_outputs()[0]
    for value in (source, result):
        shape = value.shape
        is_image = len(shape) == 4 and (shape[1] == 3 or not isinstance(shape[1], int))
        if value.type not in _IO_DTYPES or value.type != source.type or not is_image:
            raise ModelError(
                f"{path} has {value.name} as {value.type} {shape}, expected float32 or uint8 (N, 3, H, W), RGB"
            )
    batch, _, height, width = (side if isinstance(side, int) else None for side in source.shape)
    if (height is None) != (width is None):
        raise ModelError(
            f"{path} takes images of {source.shape[3]} x {source.shape[2]} px, expected both sides open or both fixed: "
            "export it with dynamic height and width"
        )
    size = None if height is None or width is None else (height, width)
    return FileForm(io_dtype=_IO_DTYPES[source.type], batch=batch, size_px=size)


def precision_from_metadata(written: Mapping[str, str]) -> Precision:
    """Return what the file says of its arithmetic; one that says nothing is taken for float32."""
    return "fp16" if written.get("realesr.precision") == "fp16" else "fp32"
