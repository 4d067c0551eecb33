"""Exports any PyTorch module that enlarges images to an ONNX file, proven against the module."""

import contextlib
import copy
import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx  # noqa: TID253
import torch  # noqa: TID253

import realesr
from realesr.engines import open_engine
from realesr.errors import ModelError, UsageError
from realesr.export.onnx_export import ExportReport, beside, check_target, move_into_place
from realesr.export.proof import FP32_TOLERANCE, Batch, Proof, check_proof, make_cases, prove
from realesr.export.sidecar import OnnxSidecar, facts_of_file
from realesr.models.graph_options import DEFAULT_OPSET

_EXAMPLE_UNITS = (24, 32)
"""Height and width of the image that the exporter traces with, in multiples of `multiple_of`."""


def export_module(
    module: torch.nn.Module,
    target: Path,
    *,
    name: str | None = None,
    multiple_of: int = 1,
    radius_px: int | None = None,
    opset: int = DEFAULT_OPSET,
    overwrite: bool = False,
    on_proof: Callable[[Proof], None] = lambda proof: None,
) -> ExportReport:
    """Export a module that realesr does not know to an .onnx file that realesr runs.

    The file takes float32 (N, 3, H, W) with N, H and W open, and holds no path of this machine and no source text, both
    of which PyTorch's exporter puts in. The module itself is not changed.

    Args:
        module: takes (N, 3, H, W) float32 RGB in [0, 1] and gives (N, 3, H * scale, W * scale).
        target: the file, *.onnx; its description goes to `<target>.json`.
        name: of the network; none takes the file's.
        multiple_of: heights and widths that the module takes are multiples of this.
        radius_px: how far from an input pixel's place its value can change the output; none where it is unknown.
        opset: of ONNX, 18 or later.
        overwrite: whether a file that is there may be replaced.
        on_proof: gets the proof when it is measured.

    Raises:
        UsageError: a target that is no *.onnx, or numbers that make no sense.
        ModelError: the module gives no enlarged image, or PyTorch cannot export it for all sizes.
        OutputExists: the file is there and `overwrite` is false.
        OutputError: the file cannot be written.
        ExportError: the file does not compute what the module does.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 12, 3, padding=1), torch.nn.PixelShuffle(2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = export_module(net, Path(folder) / "net.onnx", radius_px=1)
        ...     report.sidecar.scale, report.sidecar.input_shape, report.proofs[0].holds
        (2, ('n', 3, 'h', 'w'), True)
    """
    if target.suffix.lower() != ".onnx" or multiple_of < 1:
        raise UsageError(f"got {target} and multiples of {multiple_of}, expected a file *.onnx and a number from 1")
    check_target(target, overwrite=overwrite)
    module = copy.deepcopy(module).cpu().float().eval()
    scale = _scale_of(module, multiple_of)
    sha256 = _sha256(module)
    facts = {"scale": scale, "multiple_of": multiple_of, "radius_px": radius_px, "sha256": sha256}
    with beside(target) as folder:
        path = folder / target.name
        onnx.save_model(_exported(module, multiple_of, opset, facts), path)
        with open_engine(path, engine="onnxruntime", device="cpu") as engine:
            cases = make_cases(lambda batch: _run(module, batch), multiple_of=multiple_of)
            proof = prove("the file in ONNX Runtime against the module, fp32, CPU", cases, engine.run, FP32_TOLERANCE)
        on_proof(proof)
        check_proof(proof)
        sidecar = OnnxSidecar(
            **facts_of_file(path),
            model=name or target.stem,
            weights_sha256=sha256,
            architecture=type(module).__name__,
            scale=scale,
            radius_px=radius_px,
            multiple_of=multiple_of,
            precision="fp32",
            fp32_layers=(),
            proofs=(proof.record,),
        )
        move_into_place(path, target, sidecar)
    return ExportReport(path=target, sidecar=sidecar, proofs=(proof,))


def _run(module: torch.nn.Module, batch: Batch) -> Batch:
    with torch.inference_mode():
        output: Batch = module(torch.from_numpy(batch)).numpy()
    return output


def _scale_of(module: torch.nn.Module, multiple_of: int) -> int:
    """Find a module's scale by a trial, as for a file."""
    height, width = (side * multiple_of for side in _EXAMPLE_UNITS)
    try:
        shape = _run(module, np.full((1, 3, height, width), 0.5, np.float32)).shape
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ModelError(
            f"the module does not take float32 (1, 3, {height}, {width}): {_one_line(error)}; set multiple_of if it "
            "needs larger multiples"
        ) from error
    scale = shape[2] // height if len(shape) == 4 else 0
    if scale < 1 or shape != (1, 3, height * scale, width * scale):
        raise ModelError(
            f"the module gave {shape} for (1, 3, {height}, {width}), expected (1, 3, H * scale, W * scale)"
        )
    return scale


def _exported(module: torch.nn.Module, multiple_of: int, opset: int, facts: dict[str, Any]) -> onnx.ModelProto:
    height, width = (side * multiple_of for side in _EXAMPLE_UNITS)
    sides = {2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    if multiple_of > 1:
        sides = {axis: multiple_of * dim for axis, dim in sides.items()}
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                (torch.full((2, 3, height, width), 0.5),),
                input_names=["input"],
                output_names=["output"],
                dynamic_shapes=({0: torch.export.Dim("n"), **sides},),
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # it raises whatever its many parts raise
        raise ModelError(f"PyTorch cannot export {type(module).__name__} for all sizes: {_one_line(error)}") from error
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _clean(model)
    known = {key: value for key, value in facts.items() if value is not None}
    entries = {f"realesr.{key}": str(value) for key, value in known.items()} | {"realesr.version": realesr.__version__}
    onnx.helper.set_model_props(model, entries)
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which logs its own internals and missing packages that it does without."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _clean(model: onnx.ModelProto) -> None:
    """Remove what the exporter tells about this machine: paths and lines of source, at every node and value."""
    parts: list[Any] = [model, model.graph, *model.functions]
    for holder in (model.graph, *model.functions):
        parts += [*holder.node, *holder.value_info]
    parts += [*model.graph.input, *model.graph.output, *model.graph.initializer]
    for part in parts:
        for field in ("metadata_props", "doc_string"):
            part.ClearField(field)


def _sha256(module: torch.nn.Module) -> str:
    """Return the SHA-256 of all arrays with their names, in the module's order."""
    digest = hashlib.sha256()
    for key, tensor in module.state_dict().items():
        digest.update(key.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:120]} ... {text[-70:]}"
