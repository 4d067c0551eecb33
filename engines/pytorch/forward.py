"""Calls a torch module: kernel by kernel, compiled, or as a CUDA graph; with cuDNN's kernels or our own."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from realesr.engines.pytorch.layers import LayerNetwork
from realesr.errors import UsageError

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "mode": ("eager", "compile", "graphs"),
    "kernels": ("cudnn", "triton"),
    "join": ("auto", "host", "device"),
    "streams": ("1", "2"),
    "benchmark": ("1", "0"),
}
"""Options of engine torch by name, with their values; the first is the default.

mode: kernel by kernel; compiled by TorchInductor, anew for each shape of tiles; or as one CUDA graph, recorded at the
first tile of a shape. kernels: torch's own or, for networks of dense blocks in fp16, realesr's in Triton; other
precisions, in which tiles are done again and images of 16 bits are done, have torch's own. join: where the tiles of an
image are joined; auto is a GPU itself, and the host for all else. streams: tiles in flight at once, where the device
joins them. benchmark: whether cuDNN tries its algorithms once for each shape, or takes its best guess.
"""

Forward = Callable[[torch.Tensor], torch.Tensor]


def check_options(options: Mapping[str, str], device: torch.device) -> None:
    """Raise UsageError where a device does not have an option's value."""
    if options["mode"] == "graphs" and device.type != "cuda":
        raise UsageError(f"engine torch got mode=graphs on {device}, expected an NVIDIA GPU: CUDA graphs run there")
    if options["kernels"] == "triton" and device.type != "cuda":
        raise UsageError(f"engine torch got kernels=triton on {device}, expected an NVIDIA GPU")


def forward_for(network: LayerNetwork, options: Mapping[str, str]) -> Forward:
    """Make the function that takes a batch of tiles through a network; one for each stream that is used at once.

    Raises:
        UsageError: kernels=triton, and they do not compute the network's layers.
        EngineError: likewise, and Triton is not installed.
    """
    called: Forward = network
    is_fp16 = next(network.parameters()).dtype == torch.float16
    if options["kernels"] == "triton" and is_fp16:
        from realesr.engines.pytorch.triton_dense_blocks import triton_network

        called = triton_network(network)
    if options["mode"] == "compile":
        compiled: Forward = torch.compile(called, dynamic=False)
        return compiled
    return _Recorded(called) if options["mode"] == "graphs" else called


class _Recorded:
    """A module as a CUDA graph: hundreds of kernels start as one. Recorded anew where the shape of tiles changes.

    Source: "CUDA Graphs" in torch's notes on CUDA semantics: warm up on another stream than the default one, then
    record; inputs and outputs keep their addresses.
    """

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._graph: torch.cuda.CUDAGraph | None = None
        self._input = self._output = torch.empty(0)

    def __call__(self, lr: torch.Tensor) -> torch.Tensor:
        """Return the module's output; the next call writes over it."""
        if self._graph is None or self._input.shape != lr.shape:
            self._record(lr)
        assert self._graph is not None
        self._input.copy_(lr)
        self._graph.replay()
        return self._output

    def _record(self, lr: torch.Tensor) -> None:
        self._graph, self._output = None, torch.empty(0)  # gives back the memory of the last shape
        self._input = lr.clone()
        for _ in range(2):
            self._forward(self._input)
        graph = torch.cuda.CUDAGraph()
        # A stream of this device: torch's own default for recording belongs to the first device that was used. Only
        # this thread's mistakes spoil the recording: other devices have threads that allocate meanwhile.
        stream: Any = torch.cuda.Stream(lr.device)  # type: ignore[no-untyped-call]
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            self._output = self._forward(self._input)
        self._graph = graph
