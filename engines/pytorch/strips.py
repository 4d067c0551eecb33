"""Strips of an image's rows through a network's layers, as `realesr.models.strip_plan` says, with torch.

Tensors are (1, channels, rows, width) in channels-last order, so that rows are one block: parts are no copies.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from realesr.engines.pytorch.device import Stream, in_thread_of, on_device, on_host, working_on
from realesr.engines.pytorch.layers import ConvolutionOperation, LayerNetwork, unread_after
from realesr.models.layers import Concatenation, Convolution, Layer
from realesr.models.strip_plan import Delay, Stage, least_rows, stages, strip_plan
from realesr.runtime.strips import joined_states, state_of, through_stages

_CHANNELS, _ROWS = 1, 2
"""Axes."""


class TorchStripRun:
    """Strips of one image; see `realesr.runtime.strips.StripRun`.

    Args:
        network: its layers, which the strips go through.
        device: where the network lies. Likewise `stream`, one of the device's.
        dtype: type that the network computes in.
        rows_px: rows that will be given at a time.
    """

    def __init__(
        self, network: LayerNetwork, *, device: torch.device, stream: Stream, dtype: torch.dtype, rows_px: int
    ) -> None:
        self._device, self._stream, self._dtype = device, stream, dtype
        self._stages = [TorchStagePass(network, stage) for stage in stages(network.architecture)]
        # Portions are of the network's own grid, on which the second stage begins.
        least_rows = [stage.least_rows for stage in self._stages[1:]]
        self._portion_rows = max([1, rows_px // network.architecture.multiple_of, *least_rows])

    def step(self, rows: NDArray[np.float32], *, is_last: bool) -> NDArray[np.float32]:
        """Enlarge the next rows; see `StripRun.step`."""
        return in_thread_of(self._device, self._step, rows, is_last)

    def _step(self, rows: NDArray[np.float32], is_last: bool) -> NDArray[np.float32]:
        with working_on(self._device, self._stream):
            lr = on_device(rows, self._device).to(self._dtype, memory_format=torch.channels_last)
            return on_host(self.advance(lr, is_last=is_last))

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what the next strip is computed from, as bytes on the host; see `StripRun.state`."""
        return in_thread_of(self._device, self._state)

    def _state(self) -> dict[str, NDArray[Any]]:
        with working_on(self._device, self._stream):
            return joined_states(
                [
                    {
                        name: tensor.contiguous().cpu().view(torch.uint8).numpy()
                        for name, tensor in stage.state().items()
                    }
                    for stage in self._stages
                ]
            )

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a state; see `StripRun.restore`."""
        in_thread_of(self._device, self._restore, state)

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        with working_on(self._device, self._stream):
            for number, stage in enumerate(self._stages):
                stage.restore(
                    {
                        name: torch.from_numpy(array.copy()).view(self._dtype).to(self._device)
                        for name, array in state_of(number, state).items()
                    }
                )

    def advance(self, rows: Tensor, *, is_last: bool) -> Tensor:
        """Enlarge the next rows on the device, in inference mode: (1, 3, h, width) -> (1, 3, H, width * scale)."""
        result: Tensor = through_stages(
            self._stages,
            rows,
            portion_rows=self._portion_rows,
            is_last=is_last,
            joined=lambda parts: torch.cat(parts, _ROWS),
        )
        return result


@dataclass(frozen=True)
class _RowsOf:
    """Key of the rows that a convolution reads: those of its state, then its source's."""

    convolution: str


_Key = str | Delay | _RowsOf
"""Key of a result, of a delayed one, or of the rows that a convolution reads."""


@dataclass(frozen=True)
class _Read:
    """Source of a layer: a result, or some channels of a convolution's rows."""

    key: _Key
    first_channel: int = 0
    channels: int = 0


class TorchStagePass:
    """One image on its way through one stage; see `realesr.runtime.strips.Stage`."""

    def __init__(self, network: LayerNetwork, stage: Stage) -> None:
        plan = strip_plan(stage)
        channels = {name: shape.channels for name, shape in network.architecture.map_shapes.items()}
        operations = dict(zip((layer.name for layer in network.layers), network.operations, strict=True))
        self._stage = stage
        self._steps: list[tuple[Layer, nn.Module, list[_Read]]] = []
        for layer in stage.layers:
            reads = [_read(delay, channels) for delay in plan.reads[layer.name]]
            reads = _merged(reads) if isinstance(layer, Concatenation) else reads
            self._steps.append((layer, operations[layer.name], reads))
        self._waits = {
            name: [delay for delay in plan.waits if delay.source == name]
            for name in (stage.source, *(layer.name for layer in stage.layers))
        }
        self._unread = unread_after(self._reads())[:-1]
        self._states: dict[str | Delay, Tensor] = {}
        self.least_rows = least_rows(network.architecture, stage)
        """Rows that the first strip must have, unless it is the last too."""

    def _reads(self) -> list[list[_Key]]:
        """Return the keys that each step reads or makes, and the last result's: those without a later use can go."""
        reads: list[list[_Key]] = [
            [*(read.key for read in sources), _RowsOf(layer.name), layer.name] for layer, _, sources in self._steps
        ]
        reads[0].append(self._stage.source)
        return [*reads, [self._stage.result]]

    def advance(self, rows: Tensor, *, is_last: bool) -> Tensor:
        """Take the next rows through the layers."""
        results: dict[_Key, Tensor] = {}
        self._keep(self._stage.source, rows, results, is_last)
        for (layer, operation, reads), unread in zip(self._steps, self._unread, strict=True):
            sources = [_found(results, read) for read in reads]
            if isinstance(operation, ConvolutionOperation) and isinstance(layer, Convolution) and layer.kernel > 1:
                joined = self._with_state(layer, sources.pop(), is_last)
                _drop(results, unread)  # its source lies in `joined`, and makes room for the result
                results[_RowsOf(layer.name)] = joined
                result = operation.without_row_padding(joined)
                del joined
            else:
                result = operation(*sources)
            del sources
            self._keep(layer.name, result, results, is_last)
            del result
            _drop(results, unread)
        return results[self._stage.result]

    def state(self) -> dict[str, Tensor]:
        """Return the rows that are kept for the next strip, by what they are rows of."""
        return {str(key): rows for key, rows in self._states.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from the state of another pass."""
        keys: dict[str, str | Delay] = {layer.name: layer.name for layer in self._stage.layers}
        keys |= {str(delay): delay for delays in self._waits.values() for delay in delays}
        self._states = {keys[name]: rows for name, rows in state.items()}

    def _with_state(self, layer: Convolution, rows: Tensor, is_last: bool) -> Tensor:
        """Put a convolution's state above its next rows, and zeros around the image; keep the last rows for later."""
        border = rows.new_zeros(1, rows.shape[_CHANNELS], layer.kernel // 2, rows.shape[3])
        parts = [self._states.get(layer.name, border), rows, *([border] if is_last else [])]
        joined = torch.cat(parts, _ROWS).contiguous(memory_format=torch.channels_last)
        self._leave(layer.name, joined[:, :, 1 - layer.kernel :])
        return joined

    def _keep(self, name: str, rows: Tensor, results: dict[_Key, Tensor], is_last: bool) -> None:
        """Store a result and its delayed copies, which hold all but the last rows: those come with the next strip."""
        results[name] = rows
        for delay in self._waits[name]:
            state = self._states.get(delay)
            joined = rows if state is None else torch.cat([state, rows], _ROWS)
            count = joined.shape[_ROWS] - (0 if is_last else delay.rows)
            results[delay] = joined[:, :, :count]
            self._leave(delay, joined[:, :, count:])

    def _leave(self, key: str | Delay, rows: Tensor) -> None:
        """Copy rows for the next strip, into the memory of the state before: it is kept for as long as the image."""
        state = self._states.get(key)
        if state is not None and state.shape == rows.shape:
            state.copy_(rows)
        else:
            self._states[key] = rows.clone()


def _read(delay: Delay, channels: dict[str, int]) -> _Read:
    if not delay.rows:
        return _Read(delay.source)
    if not delay.held_by:
        return _Read(delay)
    return _Read(_RowsOf(delay.held_by), delay.first_channel, channels[delay.source])


def _merged(reads: list[_Read]) -> list[_Read]:
    """Return the sources of a concatenation, with neighbouring channels of the same rows as one slice."""
    merged: list[_Read] = []
    for read in reads:
        before = merged[-1] if merged else None
        if (
            before is not None
            and isinstance(read.key, _RowsOf)
            and before.key == read.key
            and before.first_channel + before.channels == read.first_channel
        ):
            merged[-1] = replace(before, channels=before.channels + read.channels)
        else:
            merged.append(read)
    return merged


def _drop(results: dict[_Key, Tensor], unread: tuple[_Key, ...]) -> None:
    for key in unread:
        results.pop(key, None)


def _found(results: dict[_Key, Tensor], read: _Read) -> Tensor:
    value = results[read.key]
    if isinstance(read.key, _RowsOf):
        return value[:, read.first_channel : read.first_channel + read.channels, 1:-1]
    return value
