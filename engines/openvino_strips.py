"""Strips with OpenVINO: the graph of `realesr.models.stateful_graph`, compiled for each shape that it meets.

An image has three shapes: the first strip, all that follow, and the last one. In one graph for all of them, the same
strips take 1.3 to 1.5 times as long; compiling for a shape takes an eighth of a second (realesr-animevideov3).
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.models.stateful_graph import StatefulGraph, stateful_graphs
from realesr.models.weights import Weights

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each input, by its name."""


@dataclass(frozen=True, kw_only=True)
class OpenVinoLibrary:
    """The functions of OpenVINO that strips need; only the engine imports the library."""

    compile_graph: Callable[[bytes, Shapes], Any]
    """Makes an infer request from an ONNX file's bytes, for these shapes."""
    translated: Callable[[], AbstractContextManager[None]]
    """Context in which the library's errors become ours."""


class StatefulRequest:
    """A network as a stateful graph. The most recent shape is kept, for all images that are under way."""

    def __init__(self, weights: Weights, library: OpenVinoLibrary) -> None:
        self._weights = weights
        self._library = library
        self._graph: StatefulGraph | None = None
        self._shapes: Shapes = {}
        self._request: Any = None

    def begin(self, width_px: int) -> "OpenVinoStripRun":
        """Begin an image of this width; see `Engine.open_strips`."""
        if self._graph is None:
            (self._graph,) = stateful_graphs(self._weights)
        return OpenVinoStripRun(self, self._graph, width_px)

    def infer(self, graph: StatefulGraph, feed: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Return the graph's outputs by name, as arrays of their own."""
        shapes = {name: array.shape for name, array in feed.items()}
        with self._library.translated():
            if shapes != self._shapes:
                self._shapes, self._request = {}, None  # its memory makes room first
                self._request = self._library.compile_graph(graph.content, shapes)
                self._shapes = shapes
            # What has no rows is no input of the compiled network's.
            self._request.infer({name: array for name, array in feed.items() if array.size})
            names = (graph.output, *(f"{state.name}.next" for state in graph.states))
            return {name: self._request.get_tensor(name).data.copy() for name in names}


class OpenVinoStripRun:
    """Strips of one image; see `realesr.runtime.strips.StripRun`."""

    def __init__(self, network: StatefulRequest, graph: StatefulGraph, width_px: int) -> None:
        self._network = network
        self._graph = graph
        self._width_px = width_px
        self._states = {state.name: state.zeros(width_px) for state in graph.states}

    def step(self, rows: NDArray[np.float32], *, is_last: bool) -> NDArray[np.float32]:
        """Enlarge the next rows; see `StripRun.step`."""
        borders = {border.name: border.zeros(self._width_px, more_rows=is_last) for border in self._graph.borders}
        given = self._network.infer(self._graph, {self._graph.input: rows, **self._states, **borders})
        self._states = {state.name: given[f"{state.name}.next"] for state in self._graph.states}
        return given[self._graph.output]

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what the next strip is computed from; see `StripRun.state`."""
        return dict(self._states)

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a state; see `StripRun.restore`."""
        self._states = dict(state)
