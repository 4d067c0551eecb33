"""Joins the tiles of an image in the memory of torch's device: see `realesr.runtime.tile_rows`.

A row of tiles is uploaded whole. Its tiles go through the network on one stream or in turn on several, are checked and
joined on the device, fade into the row above, and come back on a stream for copies while the next row is computed:

    stream 0    up | tile 0 | tile 2 | round | up | tile 0 ...
    stream 1       | tile 1 | tile 3 |            | tile 1 ...
    copies                                   | down          ...

The arithmetic is that of `realesr.runtime.tiled`, float32 and in the same order: on a CPU both give the same bits.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from realesr.engine import ProgressCallback
from realesr.engines.pytorch.device import Stream, new_streams, on_device, thread_of, translated, working_on
from realesr.engines.pytorch.forward import Forward
from realesr.errors import NotFinite
from realesr.runtime.rows import Band, FinishedBand
from realesr.runtime.tiles import AxisTile, TilePlan, fade_in

_ROWS_IN_FLIGHT = 2
"""One row is computed and one is waited for."""


@dataclass(frozen=True, kw_only=True)
class _FetchedRow:
    """A finished row of tiles on its way to the host."""

    band: NDArray[Any]
    is_sound: NDArray[np.bool_]
    """Whether each tile is a picture; see `_is_sound`."""
    joined: list[Any]
    """An event for each tile; none on devices without streams."""
    fetched: Any
    """The event after which the arrays may be read; None on devices without streams."""


class TorchTileRows:
    """Rows of one image's tiles; see `realesr.runtime.tile_rows.TileRows`.

    Args:
        forwards: the network, once for each of `streams`.
        streams: of the device, as `new_streams` makes them.
        device: where everything lies.
        dtype: type that the network takes.
        scale: output pixels per input pixel and side.
        plan: how the image is cut.
        eight_bit: whether the result is clamped and rounded to uint8.
    """

    def __init__(
        self,
        forwards: Sequence[Forward],
        streams: Sequence[Stream],
        *,
        device: torch.device,
        dtype: torch.dtype,
        scale: int,
        plan: TilePlan,
        eight_bit: bool,
    ) -> None:
        self._forwards, self._streams = list(forwards), list(streams)
        self._device, self._dtype, self._scale = device, dtype, scale
        self._plan, self._eight_bit = plan, eight_bit
        self._copies = new_streams(device, 1)[0]
        self._column_weights: list[torch.Tensor] = []
        self._fades: dict[int, torch.Tensor] = {}
        self._fade_rows = len(fade_in(plan.rows.blend_px, scale))

    def push(self, index: int, lr: Band) -> "_PendingRow":
        """Begin the next row of tiles; see `TileRows.push`."""
        return _PendingRow(thread_of(str(self._device)).submit(self._enlarge_row, index, lr), self._device)

    def fade(self, index: int) -> Band | None:
        """Return the rows that a finished row of tiles holds back; see `TileRows.fade`."""
        if index not in self._fades:
            return None
        return thread_of(str(self._device)).submit(self._fetch_fade, index).result()

    def close(self) -> None:
        """Free everything on the device."""
        self._forwards, self._column_weights, self._fades = [], [], {}

    def _fetch_fade(self, index: int) -> Band:
        with working_on(self._device, self._streams[0]):
            band: Band = self._fades[index].to("cpu").numpy()
            return band

    def _enlarge_row(self, index: int, lr: Band) -> _FetchedRow:
        """Give all work of a row to the device; runs in the device's thread."""
        row, columns = self._plan.rows.tiles[index], self._plan.columns
        main = self._streams[0]
        with working_on(self._device, main):
            wide = on_device(np.ascontiguousarray(lr[None]), self._device)
            height = (row.last - row.first) * self._scale
            joined = torch.zeros((3, height, columns.length_px * self._scale), device=self._device)
            is_sound = torch.zeros(len(columns.tiles), dtype=torch.bool, device=self._device)
            if not self._column_weights:  # the same for every row
                self._column_weights = [on_device(columns.weights(c, self._scale), self._device) for c in columns.tiles]
            ready = _recorded(main)
        events: list[Any] = []
        for number, column in enumerate(columns.tiles):
            turn = number % len(self._streams)
            with working_on(self._device, self._streams[turn]):
                _wait(self._streams[turn], ready if number < len(self._streams) else None)
                tile = wide[:, :, :, column.start : column.start + columns.tile_px]
                sr = self._forwards[turn](tile.to(self._dtype, memory_format=torch.channels_last))[0]
                _wait(self._streams[turn], events[-1] if events else None)  # tiles overlap where they are joined
                is_sound[number] = _is_sound(tile, sr)
                self._join(joined, sr, row, column, self._column_weights[number])
                events.append(_recorded(self._streams[turn]))
        with working_on(self._device, main):
            _wait(main, events[-1])
            finished = self._faded(index, joined)
            band, sound, fetched = self._fetch(finished, is_sound)
        return _FetchedRow(band=band, is_sound=sound, joined=[e for e in events if e is not None], fetched=fetched)

    def _join(
        self, joined: torch.Tensor, sr: torch.Tensor, row: AxisTile, column: AxisTile, weights: torch.Tensor
    ) -> None:
        scale = self._scale
        top, bottom = (row.first - row.start) * scale, (row.last - row.start) * scale
        left, right = (column.first - column.start) * scale, (column.last - column.start) * scale
        part = sr[:, top:bottom, left:right].to(torch.float32)
        place = joined[:, :, column.first * scale : column.last * scale]
        if self._plan.columns.blend_px:
            place += part * weights
        else:
            place.copy_(part)

    def _faded(self, index: int, joined: torch.Tensor) -> torch.Tensor:
        """Return the rows that are finished; those that the next row is added to are held back."""
        rows, fade_rows = self._plan.rows, self._fade_rows
        if not fade_rows:
            return joined
        joined *= on_device(rows.weights(rows.tiles[index], self._scale), self._device)[:, None]
        if index:
            joined[:, :fade_rows] += self._fades[index - 1]
        self._fades.pop(index - _ROWS_IN_FLIGHT - 1, None)
        if index == len(rows.tiles) - 1:
            return joined
        self._fades[index] = joined[:, -fade_rows:].clone()
        return joined[:, :-fade_rows]

    def _fetch(self, finished: torch.Tensor, is_sound: torch.Tensor) -> tuple[NDArray[Any], NDArray[np.bool_], Any]:
        if self._eight_bit:
            levels = finished.mul_(255).round_().clamp_(0, 255).to(torch.uint8)
            finished = levels.permute(1, 2, 0).contiguous()
        else:
            finished = finished.contiguous()
        band, sound = (_copy(each, self._streams[0], self._copies) for each in (finished, is_sound))
        return band.transpose(2, 0, 1) if self._eight_bit else band, sound, _recorded(self._copies)


class _PendingRow:
    """A row that is being computed; see `realesr.runtime.tile_rows.PendingRow`."""

    def __init__(self, row: "Future[_FetchedRow]", device: torch.device) -> None:
        self._row = row
        self._device = device

    def result(self, on_progress: ProgressCallback) -> Band | FinishedBand:
        """Wait for the finished rows; see `PendingRow.result`."""
        row = self._row.result()
        with translated(self._device):
            for number, event in enumerate(row.joined, start=1):
                event.synchronize()
                on_progress(number / len(row.joined))
            if row.fetched is not None:
                row.fetched.synchronize()
        if not row.is_sound.all():
            raise NotFinite(f"engine torch on {self._device} gave values that are no picture")
        return row.band


def _is_sound(lr: torch.Tensor, sr: torch.Tensor) -> torch.Tensor:
    """Return whether all values are finite and no picture that is not black came out black, as `tiled.is_sound`."""
    total = sr.sum(dtype=torch.float32)
    is_picture = (total > 0) | (sr.amax() > 1 / 255) | (lr.mean() < 2 / 255)
    return total.isfinite() & is_picture


def _copy(values: torch.Tensor, stream: Stream, copies: Stream) -> NDArray[Any]:
    """Copy to the host: at once, or on the stream for copies into page-locked memory, which belongs to the caller."""
    if copies is None:
        array: NDArray[Any] = values.to("cpu").numpy()
        return array
    locked = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    copies.wait_stream(stream)
    with torch.cuda.stream(copies):
        locked.copy_(values, non_blocking=True)
    values.record_stream(copies)
    fetched: NDArray[Any] = locked.numpy()
    return fetched


def _recorded(stream: Stream) -> Any:
    """Return an event for when all that was given to the stream is done; None where there are no streams."""
    return None if stream is None else stream.record_event()


def _wait(stream: Stream, event: Any) -> None:
    if event is not None:
        stream.wait_event(event)
