"""A convolution's weights, in the Winograd domain."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.engines.winograd.fusion import FusedConvolution
from realesr.engines.winograd.kernel import LEAKY_RELU, NO_ACTIVATION, SIGMOID, SILU, Kernel, aligned, aligned_parts
from realesr.errors import EngineError
from realesr.models.architecture import Architecture, State
from realesr.models.layers import Activation, Convolution

_ACTIVATIONS = {"relu": LEAKY_RELU, "leaky_relu": LEAKY_RELU, "prelu": LEAKY_RELU, "silu": SILU, "sigmoid": SIGMOID}

DenseInputs = tuple[int, ...] | None
"""Channels of the maps that a dense block has joined to a convolution's input, which is in the Winograd domain then;
None outside of dense blocks."""


class Filters:
    """Weights and bias of one convolution, and how its input is read and its result activated and gated."""

    def __init__(
        self,
        kernel: Kernel,
        filters: NDArray[np.float32],
        bias: NDArray[np.float32],
        *,
        inputs: tuple[int, ...],
        factor: float = 1.0,
        activation: int = NO_ACTIVATION,
        slopes: NDArray[np.float32] | None = None,
        nearest_x2_input: bool = False,
        gate_offset: float | None = None,
        weights: NDArray[np.float32] | None = None,
    ) -> None:
        """Transform the filters.

        Args:
            kernel: what computes with them.
            filters: (out, in, 3, 3), or (out, in, 1, 1).
            bias: (out,).
            inputs: channels of what is joined to the input; each part is padded in its map.
            factor: what filters and bias are multiplied by.
            activation: as in winograd.c.
            slopes: (out,), of a leaky ReLU.
            nearest_x2_input: whether every pixel is read twice in either direction.
            gate_offset: of the gate; see `FusedConvolution`.
            weights: memory for the transformed filters, of `Kernel.weights_count`; by default their own.
        """
        self.channels = kernel.padded(len(bias))
        self.is_1x1 = filters.shape[2] == 1
        if weights is None:
            weights = aligned((kernel.weights_count(len(bias), inputs, is_1x1=self.is_1x1),))
        kernel.prepare_weights(filters, inputs, factor, weights)
        self.weights = weights
        self.bias = self._padded(bias * np.float32(factor))
        self.activation = activation
        self.slopes = None if slopes is None else self._padded(slopes)
        self.nearest_x2_input, self.gate_offset = nearest_x2_input, gate_offset

    @property
    def fields(self) -> dict[str, Any]:
        """Return the fields of `Convolution` for these."""
        return {
            "nearest_x2_input": int(self.nearest_x2_input),
            "is_1x1": int(self.is_1x1),
            "weights": self.weights.ctypes.data,
            "bias": self.bias.ctypes.data,
            "activation": self.activation,
            "slopes": None if self.slopes is None else self.slopes.ctypes.data,
            "has_gate": int(self.gate_offset is not None),
            "gate_offset": self.gate_offset or 0.0,
        }

    def _padded(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        padded = aligned((self.channels,))
        padded[: len(values)] = values
        return padded


def weights_memory(
    kernel: Kernel, convolutions: Iterable[tuple[FusedConvolution, DenseInputs]]
) -> list[NDArray[np.float32]]:
    """Return memory for the transformed filters of each convolution; all of it is one array.

    Args:
        kernel: what computes with them.
        convolutions: each with its inputs.
    """
    return aligned_parts(
        [
            kernel.weights_count(
                each.layer.out_channels, inputs or (each.layer.in_channels,), is_1x1=_is_1x1(each, inputs)
            )
            for each, inputs in convolutions
        ]
    )


def filters_for(
    kernel: Kernel,
    operation: FusedConvolution,
    inputs: DenseInputs,
    state: State,
    weights: NDArray[np.float32],
) -> Filters:
    """Return the filters of a convolution; the factor for its result is folded into them.

    Args:
        kernel: what computes with them.
        operation: the convolution.
        inputs: as in `weights_memory`.
        state: the network's arrays.
        weights: memory for the transformed filters.
    """
    layer = operation.layer
    bias = state[f"{layer.name}.bias"] if layer.has_bias else np.zeros(layer.out_channels, np.float32)
    filters = _ungrouped(layer, state[f"{layer.name}.weight"])
    if layer.kernel == 1 and not _is_1x1(operation, inputs):
        filters = np.pad(filters, ((0, 0), (0, 0), (1, 1), (1, 1)))  # the middle one of 3x3
    return Filters(
        kernel,
        filters,
        bias,
        inputs=inputs or (layer.in_channels,),
        factor=operation.factor,
        activation=_ACTIVATIONS[operation.activation.kind] if operation.activation else NO_ACTIVATION,
        slopes=slopes_of(operation.activation, layer.out_channels, state),
        nearest_x2_input=operation.nearest_x2_input,
        gate_offset=operation.gate_offset,
        weights=weights,
    )


def _is_1x1(operation: FusedConvolution, inputs: DenseInputs) -> bool:
    """Return whether it is computed as such, from pixels: not from the Winograd domain, nor from an enlarged map."""
    return operation.layer.kernel == 1 and not (inputs or operation.nearest_x2_input)


def slopes_of(activation: Activation | None, channels: int, state: State) -> NDArray[np.float32] | None:
    """Return the slopes of a ReLU of any kind for values below 0, (channels,); None of other activations."""
    match activation:
        case Activation(kind="prelu"):
            return np.broadcast_to(state[activation.slopes].astype(np.float32), (channels,))
        case Activation(kind="leaky_relu"):
            return np.full(channels, activation.slope, np.float32)
        case Activation(kind="relu"):
            return np.zeros(channels, np.float32)
    return None


def _ungrouped(layer: Convolution, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the filters, (out, in, k, k), of one group: those between groups are 0."""
    if layer.groups == 1:
        return weight
    dense = np.zeros((layer.out_channels, layer.in_channels, *weight.shape[2:]), np.float32)
    count_out, count_in = layer.out_channels // layer.groups, layer.in_channels // layer.groups
    for group in range(layer.groups):
        rows, columns = (slice(group * count, (group + 1) * count) for count in (count_out, count_in))
        dense[rows, columns] = weight[rows]
    return dense


def check_convolutions(architecture: Architecture) -> None:
    """Raise EngineError where a convolution is none that winograd.c has."""
    for layer in architecture.convolutions:
        if layer.kernel not in (1, 3):
            raise EngineError(
                f"engine winograd got the convolution {layer.name} with a kernel of {layer.kernel} x {layer.kernel}, "
                "expected 3 x 3 or 1 x 1; engines onnxruntime, openvino, ncnn and torch take any"
            )
        if layer.kernel == 3 and layer.groups > 1:
            raise EngineError(
                f"engine winograd got the convolution {layer.name} in {layer.groups} groups, expected one; engines "
                "onnxruntime, openvino, ncnn and torch take any"
            )
