"""Strips with ONNX Runtime: the graph of `realesr.strip_graph`, whose states stay in the library between strips."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.strip_graph import StripGraph


class OnnxRuntimeStripRun:
    """One image in a session on the CPU; see `realesr.strips.StripRun`.

    Args:
        session: of `graph.content`.
        graph: what the session runs.
        width_px: width of the image.
        make_value: makes an OrtValue of an array.
        run_options: for every run.
        translated: the seam at which the library's errors become ours.
    """

    def __init__(
        self,
        session: Any,
        graph: StripGraph,
        width_px: int,
        *,
        make_value: Callable[[NDArray[Any]], Any],
        run_options: Any,
        translated: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._session = session
        self._graph = graph
        self._width_px = width_px
        self._make_value = make_value
        self._run_options = run_options
        self._translated = translated
        self._states: list[Any] = [make_value(state.zeros(width_px)) for state in graph.states]

    def step(self, rows: NDArray[np.float32], *, is_last: bool) -> NDArray[np.float32]:
        """Enlarge the next rows; see `StripRun.step`."""
        with self._translated():
            binding = self._session.io_binding()
            binding.bind_cpu_input("input", rows)
            borders = [self._make_value(item.zeros(self._width_px, more_rows=is_last)) for item in self._graph.borders]
            given = (*self._graph.borders, *self._graph.states)
            for item, value in zip(given, (*borders, *self._states), strict=True):
                binding.bind_ortvalue_input(item.name, value)
            for name in ("output", *(f"{state.name}.next" for state in self._graph.states)):
                binding.bind_output(name, "cpu")
            self._session.run_with_iobinding(binding, self._run_options)
            output, *states = binding.get_outputs()
            result: NDArray[np.float32] = output.numpy()
        self._states = states
        return result
