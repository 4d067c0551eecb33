"""Strips with ONNX Runtime: graphs of `realesr.models.stateful_graph`, whose states stay in the library."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.engine import Precision
from realesr.models.stateful_graph import StatefulGraph, stateful_graphs
from realesr.models.strip_plan import least_rows, stages
from realesr.models.weights import Weights
from realesr.runtime.strips import joined_states, state_of, through_stages

OpenGraph = tuple[Any, StatefulGraph]
"""A session, and the graph that it runs."""


@dataclass(frozen=True, kw_only=True)
class OnnxRuntimeLibrary:
    """The functions of ONNX Runtime that strips need; only the engine imports the library."""

    open_session: Callable[[bytes], Any]
    """Opens a session from an ONNX file's bytes, on the CPU."""
    make_value: Callable[[NDArray[Any]], Any]
    """Makes an OrtValue from an array."""
    run_options: Any
    """RunOptions of every run."""
    translated: Callable[[], AbstractContextManager[None]]
    """Context in which the library's errors become ours."""


class StatefulSessions:
    """One network as stateful graphs, opened when the first image begins: a network that has none costs nothing."""

    def __init__(self, weights: Weights, precision: Precision, library: OnnxRuntimeLibrary) -> None:
        self._weights = weights
        self._precision = precision
        self._library = library
        self._opened: list[OpenGraph] = []

    def begin(self, width_px: int, rows_px: int) -> "OnnxRuntimeStripRun":
        """Begin an image of this width; see `Engine.open_strips`."""
        with self._library.translated():
            if not self._opened:
                graphs = stateful_graphs(self._weights, self._precision)
                self._opened = [
                    (self._library.open_session(graph.content), replace(graph, content=b"")) for graph in graphs
                ]
            architecture = self._weights.architecture
            least = least_rows(architecture, stages(architecture)[-1])
            portion = max(rows_px // architecture.multiple_of, least)
            return OnnxRuntimeStripRun([_SessionPass(*one, width_px, self._library) for one in self._opened], portion)


class OnnxRuntimeStripRun:
    """Strips of one image; see `StripRun`. The second stage gets in portions what the first gives at once."""

    def __init__(self, stages: list["_SessionPass"], portion_rows: int) -> None:
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

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what the next strip is computed from; see `StripRun.state`."""
        return joined_states([stage.state() for stage in self._stages])

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a state; see `StripRun.restore`."""
        for number, stage in enumerate(self._stages):
            stage.restore(state_of(number, state))


class _SessionPass:
    """One image on its way through one graph."""

    def __init__(self, session: Any, graph: StatefulGraph, width_px: int, library: OnnxRuntimeLibrary) -> None:
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

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the states by their names in the graph."""
        with self._library.translated():
            return {item.name: value.numpy() for item, value in zip(self._graph.states, self._states, strict=True)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from the states of another pass."""
        with self._library.translated():
            self._states = [self._library.make_value(state[item.name]) for item in self._graph.states]
