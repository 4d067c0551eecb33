"""Strips with ONNX Runtime: the graphs of `realesr.strip_graph`, whose states stay in the library between strips."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.engine import Precision
from realesr.strip_graph import StripGraph, strip_graphs
from realesr.strips import LEAST_PORTION_ROWS, through_stages
from realesr.weights import Weights

OpenGraph = tuple[Any, StripGraph]
"""A session, and what it runs."""


@dataclass(frozen=True, kw_only=True)
class StripLibrary:
    """What is needed of ONNX Runtime; only the engine imports it."""

    open_session: Callable[[bytes], Any]
    """Of an ONNX file's bytes, on the CPU."""
    make_value: Callable[[NDArray[Any]], Any]
    """An OrtValue of an array."""
    run_options: Any
    """For every run."""
    translated: Callable[[], AbstractContextManager[None]]
    """The seam at which the library's errors become ours."""


class StripNetwork:
    """One network in its second form, opened when the first image begins: a network that has none costs nothing."""

    def __init__(self, weights: Weights, precision: Precision, library: StripLibrary) -> None:
        self._weights = weights
        self._precision = precision
        self._library = library
        self._opened: list[OpenGraph] = []

    def begin(self, width_px: int, rows_px: int) -> "OnnxRuntimeStripRun":
        """Begin an image of this width; see `Engine.open_strips`."""
        with self._library.translated():
            if not self._opened:
                graphs = strip_graphs(self._weights, self._precision)
                self._opened = [
                    (self._library.open_session(graph.content), replace(graph, content=b"")) for graph in graphs
                ]
            portion = max(rows_px // self._weights.architecture.multiple_of, LEAST_PORTION_ROWS)
            return OnnxRuntimeStripRun([_Stage(*one, width_px, self._library) for one in self._opened], portion)


class OnnxRuntimeStripRun:
    """One image; see `realesr.strips.StripRun`. What the first stage gives at once, the second gets in portions."""

    def __init__(self, stages: list["_Stage"], portion_rows: int) -> None:
        self._stages = stages
        self._portion_rows = portion_rows

    def step(self, rows: NDArray[np.float32], *, is_last: bool) -> NDArray[np.float32]:
        """Enlarge the next rows; see `StripRun.step`."""
        result: NDArray[np.float32] = through_stages(
            self._stages,
            rows,
            portion_rows=self._portion_rows,
            is_last=is_last,
            joined=lambda parts: np.concatenate(parts, axis=2),
        )
        return result


class _Stage:
    """One image on its way through one graph."""

    def __init__(self, session: Any, graph: StripGraph, width_px: int, library: StripLibrary) -> None:
        self._session = session
        self._graph = graph
        self._width_px = width_px
        self._library = library
        self._states: list[Any] = [library.make_value(state.zeros(width_px)) for state in graph.states]

    def advance(self, rows: NDArray[Any], *, is_last: bool) -> NDArray[Any]:
        graph, make_value = self._graph, self._library.make_value
        rows = np.ascontiguousarray(rows)  # kept until the run has ended
        with self._library.translated():
            binding = self._session.io_binding()
            binding.bind_cpu_input(graph.input, rows)
            borders = [make_value(item.zeros(self._width_px, more_rows=is_last)) for item in graph.borders]
            for item, value in zip((*graph.borders, *graph.states), (*borders, *self._states), strict=True):
                binding.bind_ortvalue_input(item.name, value)
            for name in (graph.output, *(f"{state.name}.next" for state in graph.states)):
                binding.bind_output(name, "cpu")
            self._session.run_with_iobinding(binding, self._library.run_options)
            output, *self._states = binding.get_outputs()
            result: NDArray[Any] = output.numpy()
        return result
