"""The JSON beside an exported ONNX file, `<file>.json`: what it is, from what it was made, and its proof."""

import datetime
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import realesr
from realesr.engine import IoDtype
from realesr.models.graph_options import GraphOptions
from realesr.models.weights import Weights

_PACKAGES = ("onnx", "onnxruntime", "numpy")


@dataclass(frozen=True, kw_only=True)
class OnnxSidecar:
    """Description of one exported file. No path of this machine is in it."""

    file: str
    file_sha256: str
    file_bytes: int
    created: str
    """Date and time in UTC, ISO 8601."""
    model: str
    weights_sha256: str
    architecture: str
    """In words; the name of its class for a module of PyTorch."""
    scale: int
    radius_px: int | None
    multiple_of: int
    opset: int
    ir_version: int
    precision: str
    fp32_layers: tuple[str, ...]
    """Convolutions of an fp16 body that stayed float32."""
    values: IoDtype
    """Type of input and output."""
    input_shape: tuple[int | str, ...]
    """(N, 3, H, W); names stand for sizes that are open."""
    versions: dict[str, str]
    proofs: tuple[dict[str, Any], ...]
    """Proofs: the comparison in words, the tolerance and the figures of every picture."""

    @classmethod
    def of(cls, path: Path, network: Weights, graph: GraphOptions, proofs: Sequence[dict[str, Any]]) -> Self:
        """Describe a file of ours."""
        architecture = network.architecture
        return cls(
            **facts_of_file(path),
            model=network.name,
            weights_sha256=network.sha256,
            architecture=architecture.title,
            scale=architecture.scale,
            radius_px=architecture.radius_px,
            multiple_of=architecture.multiple_of,
            precision=graph.precision,
            fp32_layers=graph.fp32_convs,
            proofs=tuple(proofs),
        )

    @property
    def text(self) -> str:
        """Return the JSON as it is written."""
        return json.dumps(asdict(self), indent=1) + "\n"


def facts_of_file(path: Path) -> dict[str, Any]:
    """Return facts from an ONNX file itself, the date and the versions: fields of `OnnxSidecar`."""
    import onnx

    content = path.read_bytes()
    model = onnx.load_model_from_string(content)
    source = model.graph.input[0].type.tensor_type
    versions = {package: importlib.metadata.version(package) for package in _installed(_PACKAGES)}
    return {
        "file": path.name,
        "file_sha256": hashlib.sha256(content).hexdigest(),
        "file_bytes": len(content),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "opset": next(item.version for item in model.opset_import if item.domain == ""),
        "ir_version": model.ir_version,
        "values": "uint8" if source.elem_type == onnx.TensorProto.UINT8 else "float32",
        "input_shape": tuple(dim.dim_param or dim.dim_value for dim in source.shape.dim),
        "versions": {"realesr": realesr.__version__, "python": platform.python_version(), **versions},
    }


def _installed(packages: Sequence[str]) -> list[str]:
    """Return the packages that are installed; onnxruntime has other names for other devices."""
    found = {name.lower() for name in map(lambda item: item.metadata["Name"] or "", importlib.metadata.distributions())}
    return [package for package in packages if package in found]
