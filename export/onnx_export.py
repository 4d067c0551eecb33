"""Exports weights to an ONNX file: written beside its place, proven against the float32 network, moved into place.

weights -> graph -> proof -> (layers back to float32 -> proof) -> <file>.json, <file>
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from realesr.engine import Engine
from realesr.engines import open_engine
from realesr.engines.nvidia.tensorrt_sidecar import sidecar_path
from realesr.errors import ExportError, OutputExists, UsageError
from realesr.export.fp32_layers import find_fp32_convs
from realesr.export.proof import (
    FP16_TOLERANCE,
    FP32_TOLERANCE,
    LEVELS,
    UINT8_TOLERANCE,
    Case,
    Proof,
    RunBatch,
    check_proof,
    keeps,
    make_cases,
    measure,
    prove,
)
from realesr.export.request import ExportOptions
from realesr.export.sidecar import OnnxSidecar
from realesr.machine.memory import free_bytes
from realesr.machine.whole_file import folder_beside, not_written, put_in_place
from realesr.models.graph_options import GraphOptions
from realesr.models.onnx_graph import conv_names, graph_bytes
from realesr.models.weights import Weights
from realesr.progress import MessageCallback


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """An ONNX file that was exported."""

    path: Path
    sidecar: OnnxSidecar
    """Content of the JSON beside the file."""
    proofs: tuple[Proof, ...]


def export_onnx(
    options: ExportOptions,
    network: Weights,
    *,
    say: MessageCallback = lambda text: None,
    on_proof: Callable[[Proof], None] = lambda proof: None,
) -> ExportReport:
    """Export a network to ONNX, proven.

    Args:
        options: of the export; its `model` is ignored.
        network: its weights.
        say: called with a line for each step that takes long.
        on_proof: called with each proof as soon as it is measured, whether it holds or not.

    Raises:
        UsageError: options that make no sense for this network.
        OutputExists: the file is there and `overwrite` is false.
        OutputError: the file cannot be written.
        ExportError: the file does not compute what the network does; nothing was moved into place.
    """
    target = options.target(network.name)
    check_target(target, overwrite=options.overwrite)
    _check_fits(options, network)
    with beside(target) as folder:
        say(f"{network.name}: running the float32 network")
        cases = _reference_cases(network, options.shape_nhw, folder / "reference.onnx")
        export = _Export(network, options, folder / target.name, say, on_proof)
        graph, proofs = export.proven_body(cases)
        if options.uint8:
            graph, proofs = export.proven_integers(cases, graph, proofs)
        sidecar = OnnxSidecar.of(folder / target.name, network, graph, [proof.record for proof in proofs])
        move_into_place(folder / target.name, target, sidecar)
    return ExportReport(path=target, sidecar=sidecar, proofs=proofs)


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raise OutputExists where a file is in the way."""
    if target.exists() and not overwrite:
        raise OutputExists(f"{target} is there already", option="overwrite")


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Make a folder on the disk of `target`, for files that are moved into place once proven; delete it afterwards.

    Raises:
        OutputError: the disk is full, or the folder may not be written.
    """
    try:
        with folder_beside(target) as folder:
            yield folder
    except OSError as error:
        raise not_written(target, error, "free some space, or choose another place") from error


def move_into_place(path: Path, target: Path, sidecar: OnnxSidecar) -> None:
    """Move a file and its sidecar into place, the sidecar first: a file that is there has been proven."""
    described = sidecar_path(path)
    described.write_text(sidecar.text, encoding="utf-8")
    put_in_place(described, sidecar_path(target))
    put_in_place(path, target)


def run_alone(engine: Engine) -> RunBatch:
    """Return a function that runs a batch's pictures one by one: the reference for engines that run them at once."""
    return lambda batch: np.concatenate([engine.run(batch[i : i + 1]) for i in range(len(batch))])


def _check_fits(options: ExportOptions, network: Weights) -> None:
    """Raise UsageError where options do not fit the network, or a shape does not fit into memory.

    Linux ends a process that has had too much memory without a word.
    """
    graph_bytes(network, options.graph())
    if options.shape_nhw is None:
        return
    from realesr.engines.onnx_runtime.engine import COST  # onnxruntime takes half a second to import

    batch, height, width = options.shape_nhw
    needed, free = batch * COST.tile_bytes(network.architecture, height, width, "fp16"), free_bytes()
    if needed > free:
        shape = "x".join(map(str, options.shape_nhw))
        raise UsageError(
            f"got the shape {shape}: to prove it takes {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free; "
            "expected a smaller one"
        )


def _reference_cases(network: Weights, shape_nhw: tuple[int, int, int] | None, path: Path) -> list[Case]:
    """Make pictures, and run the network on them in ONNX Runtime's float32 on the CPU."""
    path.write_bytes(graph_bytes(network, GraphOptions()))
    with open_engine(path, engine="onnxruntime", device="cpu") as engine:
        return make_cases(run_alone(engine), multiple_of=network.architecture.multiple_of, shape_nhw=shape_nhw)


@dataclass(frozen=True)
class _Export:
    """An export in progress: its file is written to `path` and measured, as often as it takes."""

    network: Weights
    options: ExportOptions
    path: Path
    say: MessageCallback
    on_proof: Callable[[Proof], None]

    def proven_body(self, cases: Sequence[Case]) -> tuple[GraphOptions, tuple[Proof, ...]]:
        """Return the graph of floats, with as many layers in float32 as it needs, and its proof.

        Raises:
            ExportError: it does not compute what the network does.
        """
        graph = self.options.graph(uint8=False)
        proof = self._proof(graph, cases)
        if not proof.holds and graph.precision == "fp16":
            self.on_proof(proof)
            self.say(f"{self.network.name}: fp16 loses too much; looking for layers that must stay float32")
            kept = self._fp32_convs(proof, cases)
            if kept == conv_names(self.network.architecture):
                raise ExportError(
                    f"{self.network.name} in fp16: no convolution but loses too much, expected "
                    f"{proof.tolerance.min_psnr_db:g} dB; nothing was written: export it in fp32",
                    option="fp16",
                )
            graph = self.options.graph(uint8=False, fp32_convs=kept)
            proof = self._proof(graph, cases)
        self.on_proof(proof)
        check_proof(proof)
        return graph, (proof,)

    def proven_integers(
        self, cases: Sequence[Case], body: GraphOptions, proofs: tuple[Proof, ...]
    ) -> tuple[GraphOptions, tuple[Proof, ...]]:
        """Return the same graph with integers outside, proven against itself with floats outside."""
        with self._opened(body) as floats:
            rounded = [
                replace(case, expected=np.rint(floats.run(case.batch).clip(0, 1) * LEVELS) / np.float32(LEVELS))
                for case in cases
            ]
        graph = replace(body, uint8=True)
        with self._opened(graph) as engine:
            proof = prove("uint8 against the same graph of float32, rounded", rounded, engine.run, UINT8_TOLERANCE)
        self.on_proof(proof)
        check_proof(proof)
        return graph, (*proofs, proof)

    def _proof(self, graph: GraphOptions, cases: Sequence[Case]) -> Proof:
        tolerance = FP16_TOLERANCE if graph.precision == "fp16" else FP32_TOLERANCE
        kept = f" ({len(graph.fp32_convs)} convolutions in fp32)" if graph.fp32_convs else ""
        with self._opened(graph) as engine:
            of = f"{graph.precision}{kept} against the fp32 network, both in ONNX Runtime on the CPU"
            return prove(of, cases, engine.run, tolerance)

    def _fp32_convs(self, proof: Proof, cases: Sequence[Case]) -> tuple[str, ...]:
        order = sorted(range(len(cases)), key=lambda i: keeps(proof.rows[i], FP16_TOLERANCE))  # what failed comes first

        def passes(fp32_convs: tuple[str, ...]) -> bool:
            with self._opened(self.options.graph(uint8=False, fp32_convs=fp32_convs)) as engine:
                return all(keeps(measure(cases[i], engine.run), FP16_TOLERANCE) for i in order)

        return find_fp32_convs(self.network.architecture, passes)

    def _opened(self, graph: GraphOptions) -> Engine:
        self.path.write_bytes(graph_bytes(self.network, graph))
        return open_engine(self.path, engine="onnxruntime", device="cpu")
