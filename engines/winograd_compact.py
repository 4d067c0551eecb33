"""Compact networks with the convolutions of winograd.c, strip by strip; a whole image is its only strip.

Each convolution's map begins with the rows that it still needs of the strip before: one of zeros above the image, then
two. Below the image's last row comes another one of zeros. See `realesr.strip_graph` for the same in ONNX.
"""

import numpy as np
from numpy.typing import NDArray

from realesr.architectures import Compact
from realesr.engines.winograd_kernel import Kernel
from realesr.engines.winograd_layers import FeatureMap, Layer, Workers, padded_shape, step
from realesr.weights import Weights


class CompactNetwork:
    """A compact network's layers, and room for the maps of one strip: the image, a layer's input and its output."""

    def __init__(self, kernel: Kernel, workers: Workers, weights: Weights) -> None:
        architecture, state = weights.architecture, weights.state
        assert isinstance(architecture, Compact)
        self.scale = architecture.scale
        self.workers = workers
        self.in_channels = kernel.padded(3)
        self.layers = [
            Layer(
                kernel,
                state[f"body.{2 * conv}.weight"],
                state[f"body.{2 * conv}.bias"],
                inputs=(3 if conv == 0 else architecture.features,),
                slopes=None if conv == architecture.convs + 1 else _slopes(architecture, weights, conv),
            )
            for conv in range(architecture.convs + 2)
        ]
        self._rooms: dict[tuple[int, int], FeatureMap] = {}

    def run(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """A whole image: (3, h, w) to (3, h * scale, w * scale)."""
        result = CompactRun(self, image.shape[2]).step(image[None], is_last=True)
        return result.reshape(result.shape[1:])

    def map_for(self, number: int, height: int, width: int, channels: int) -> FeatureMap:
        """The input of a layer: in the place of the last but one, or of the last image. What is inside has any values.

        Only the image has channels that no layer writes; they stay zero, for it has a place of its own.
        """
        room = number % 2 if number else -1
        held = self._rooms.get((room, channels))
        rows = padded_shape(height, width, channels)[0]
        if held is None or held.width != width or len(held.numbers) < rows:
            self._rooms.pop((room, channels), None)  # its memory makes room first
            held = self._rooms[room, channels] = FeatureMap(height, width, channels)
        return FeatureMap(height, width, channels, numbers=held.numbers[:rows])


class CompactRun:
    """One image; see `realesr.strips.StripRun`."""

    def __init__(self, network: CompactNetwork, width_px: int) -> None:
        self._network = network
        self._width = width_px
        inputs = (network.in_channels, *(layer.channels for layer in network.layers[:-1]))
        self._states = [np.zeros((1, width_px, channels), np.float32) for channels in inputs]
        self._waiting = np.empty((3, 0, width_px), np.float32)
        """Rows of the image to which the network's result has not come yet."""

    def step(self, rows: NDArray[np.float32], *, is_last: bool) -> NDArray[np.float32]:
        """Enlarge the next rows; see `StripRun.step`."""
        self._waiting = np.concatenate([self._waiting, rows[0]], axis=1)
        count = rows.shape[2]
        source, top = self._begun(0, count, is_last=is_last)
        source.numbers[top : top + count, 1 : self._width + 1, :3] = rows[0].transpose(1, 2, 0)
        last = len(self._network.layers) - 1
        for number, layer in enumerate(self._network.layers):
            self._states[number] = source.numbers[top + count - 2 : top + count, 1 : self._width + 1].copy()
            count = source.height
            if number < last:
                target, top = self._begun(number + 1, count, is_last=is_last)
            else:
                target, top = self._network.map_for(number + 1, count, self._width, layer.channels), 1
            self._network.workers.run_alone(step(layer, source, target, top=top))
            source = target
        return self._joined(source.inside)[None]

    def _begun(self, number: int, count: int, *, is_last: bool) -> tuple[FeatureMap, int]:
        """A layer's input, with the rows of before and below the image, and the row at which `count` new ones begin."""
        state = self._states[number]
        top, channels = len(state), state.shape[2]
        begun = self._network.map_for(number, top + count + is_last - 2, self._width, channels)
        begun.numbers[:top, 1 : self._width + 1] = state
        # Zeros below the image's last row; elsewhere what was left there would show in the last bits of whole tiles.
        begun.numbers[top + count :] = 0
        return begun, top

    def _joined(self, residual: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the last convolution gave, as pixels, and the image enlarged by repetition."""
        (height, width), scale = residual.shape[:2], self._network.scale
        image, self._waiting = self._waiting[:, :height], self._waiting[:, height:]
        pixels = residual[:, :, : 3 * scale**2].reshape(height, width, 3, scale, scale).transpose(2, 0, 3, 1, 4)
        output: NDArray[np.float32] = (pixels + image[:, :, None, :, None]).reshape(3, height * scale, width * scale)
        return output


def _slopes(architecture: Compact, weights: Weights, conv: int) -> NDArray[np.float32]:
    """Of the activation behind a convolution."""
    if architecture.slope is None:
        slopes: NDArray[np.float32] = weights.state[f"body.{2 * conv + 1}.weight"]
        return slopes
    return np.full(architecture.features, architecture.slope, np.float32)
