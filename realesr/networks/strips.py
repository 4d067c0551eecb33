"""The networks strip by strip: what `realesr.strip_graph` does for ONNX, for the torch modules.

Every 3x3 convolution keeps the rows that its next strip needs, every sum and concatenation waits for the later of its
inputs. Tensors are (1, channels, rows, width) in channels-last order, so that rows are one block: parts are no copies.

An RRDBNet is done in two parts, for with the last strip come all rows that it lags: the part after its doublings, which
needs sixteen times the memory a row, gets them in portions.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from realesr.networks.rrdb import RRDBNet
from realesr.networks.srvgg import SRVGGNetCompact
from realesr.strips import LEAST_PORTION_ROWS, through_stages

_RESIDUAL_SCALE = 0.2
_SLOPE = 0.2
_ROWS = 2
"""Axis."""


class StripModule:
    """One image on its way through a module of ours, in evaluation mode; use it in inference mode.

    Args:
        module: `RRDBNet` or `SRVGGNetCompact`.
        rows_px: rows that will be given at a time.
    """

    def __init__(self, module: nn.Module, rows_px: int) -> None:
        self._stages: list[_Stage]
        if isinstance(module, RRDBNet):
            self._stages = [_Stage(_rrdb_trunk, module), _Stage(_rrdb_tail, module)]
            rows_px //= module.unshuffle
        elif isinstance(module, SRVGGNetCompact):
            self._stages = [_Stage(_compact, module)]
        else:
            raise TypeError(f"got {type(module).__name__}, expected RRDBNet or SRVGGNetCompact")
        self._portion_rows = max(rows_px, LEAST_PORTION_ROWS)

    def step(self, rows: Tensor, *, is_last: bool) -> Tensor:
        """(1, 3, h, width) -> (1, 3, H, width * scale): the next rows.

        The first rows must be more than the receptive radius, unless they are the last too.
        """
        result: Tensor = through_stages(
            self._stages,
            rows,
            portion_rows=self._portion_rows,
            is_last=is_last,
            joined=lambda parts: torch.cat(parts, _ROWS),
        )
        return result


class _Stage:
    """One image on its way through one part of a module."""

    def __init__(self, part: "Callable[[nn.Module, Tensor, _Strip], Tensor]", module: nn.Module) -> None:
        self._part = part
        self._module = module
        self._states: list[Tensor] = []

    def advance(self, rows: Tensor, *, is_last: bool) -> Tensor:
        strip = _Strip(self._states, is_last)
        result = self._part(self._module, rows, strip)
        self._states = strip.next_states
        return result


class _Strip:
    """One strip: takes the states that the one before left, in order of use, and leaves its own."""

    def __init__(self, states: list[Tensor], is_last: bool) -> None:
        self._states = iter(states)
        self._is_first = not states
        self._is_last = is_last
        self.next_states: list[Tensor] = []

    def conv(self, conv: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        """The convolution, and the rows of `x` that belong to its own: one row later."""
        assert isinstance(conv, nn.Conv2d)
        border = x.new_zeros(1, x.shape[1], 1, x.shape[3])
        state = border if self._is_first else next(self._states)
        rows = torch.cat([state, x, border] if self._is_last else [state, x], _ROWS)
        rows = rows.contiguous(memory_format=torch.channels_last)
        self.next_states.append(rows[:, :, -2:].clone())
        return functional.conv2d(rows, conv.weight, conv.bias, padding=(0, 1)), rows[:, :, 1:-1]

    def delayed(self, x: Tensor, later: Tensor) -> Tensor:
        """As many rows of `x` as `later` has, from the first that has not been handed out."""
        rows = x if self._is_first else torch.cat([next(self._states), x], _ROWS)
        count = later.shape[_ROWS]
        self.next_states.append(rows[:, :, count:].clone())
        return rows[:, :, :count]


def _compact(net: nn.Module, lr: Tensor, strip: _Strip) -> Tensor:
    assert isinstance(net, SRVGGNetCompact)
    x = lr
    for layer in net.body:
        x = strip.conv(layer, x)[0] if isinstance(layer, nn.Conv2d) else layer(x)
    skip = functional.interpolate(strip.delayed(lr, x), scale_factor=net.scale, mode="nearest")
    return functional.pixel_shuffle(x, net.scale) + skip


def _rrdb_trunk(net: nn.Module, lr: Tensor, strip: _Strip) -> Tensor:
    assert isinstance(net, RRDBNet)
    first, _ = strip.conv(net.conv_first, functional.pixel_unshuffle(lr, net.unshuffle))
    x = first
    for block in net.body:
        inner = x
        for rdb in (1, 2, 3):
            inner = _dense_block(block.get_submodule(f"rdb{rdb}"), inner, strip)
        x = inner * _RESIDUAL_SCALE + strip.delayed(x, inner)
    x, _ = strip.conv(net.conv_body, x)
    return strip.delayed(first, x) + x


def _rrdb_tail(net: nn.Module, x: Tensor, strip: _Strip) -> Tensor:
    assert isinstance(net, RRDBNet)
    for up in range(1, net.upsamplings + 1):
        x = functional.interpolate(x, scale_factor=2, mode="nearest")
        x = _leaky_relu(strip.conv(net.get_submodule(f"conv_up{up}"), x)[0])
    x = _leaky_relu(strip.conv(net.conv_hr, x)[0])
    return strip.conv(net.conv_last, x)[0]


def _dense_block(block: nn.Module, x: Tensor, strip: _Strip) -> Tensor:
    joined, features = x, x.shape[1]
    for conv in (1, 2, 3, 4):
        y, seen = strip.conv(block.get_submodule(f"conv{conv}"), joined)
        joined = torch.cat((seen, _leaky_relu(y)), 1)
    y, seen = strip.conv(block.get_submodule("conv5"), joined)
    return y * _RESIDUAL_SCALE + seen[:, :features]


def _leaky_relu(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, _SLOPE)
