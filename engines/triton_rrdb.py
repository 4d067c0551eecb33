"""RRDBNet for inference with our own convolutions in Triton: dense blocks in one buffer, without concatenations.

A dense block's buffer has its input in the first channels and the output of each convolution in the channels after
them, so that every convolution reads the first channels and writes the next ones. The three dense blocks of an RRDB
have a buffer each, since all read their input until their last convolution; the third adds its result to the first
one's input in place, where the next RRDB begins.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from realesr.errors import EngineError, UsageError
from realesr.networks import RRDBNet

if TYPE_CHECKING:
    from realesr.engines.triton_convolution import Packed

_LEAST_CHANNELS = 16
"""Features and growth must be multiples of it: the least that Triton multiplies at once."""
_RESIDUAL_SCALE = 0.2


def triton_rrdb(module: nn.Module, *, tail: bool = True) -> "TritonRRDBNet":
    """Return a module that computes what an RRDBNet of float16 weights does; with `tail` the enlargement likewise.

    Raises:
        UsageError: The module is no RRDBNet, its number of channels does not fit, or its weights are not float16.
        EngineError: Triton is not installed.
    """
    if not isinstance(module, RRDBNet):
        raise UsageError(f"kernels=triton got a {type(module).__name__}, expected an RRDBNet: take kernels=cudnn")
    first = module.get_submodule("body.0.rdb1.conv1")
    assert isinstance(first, nn.Conv2d)
    growth, features = first.out_channels, first.in_channels
    if features % _LEAST_CHANNELS or growth % _LEAST_CHANNELS:
        raise UsageError(
            f"kernels=triton got an RRDBNet of {features} features and growth {growth}, "
            f"expected multiples of {_LEAST_CHANNELS}: take kernels=cudnn"
        )
    dtype = module.conv_first.weight.dtype
    if dtype != torch.float16:
        raise UsageError(f"kernels=triton got {dtype}, expected float16: take precision fp16, or kernels=cudnn")
    try:
        return TritonRRDBNet(module, tail=tail)
    except ImportError as error:
        raise EngineError(f"kernels=triton needs Triton, which cannot be imported ({error}): install triton") from error


class TritonRRDBNet(nn.Module):
    """(N, 3, H, W) -> (N, 3, H * scale, W * scale), channels last; see `RRDBNet`.

    It keeps no memory between calls but its weights: buffers come from torch's allocator, which keeps those of each
    stream apart. Nothing waits for the GPU, so that a CUDA graph can record it after a first call.
    """

    def __init__(self, module: RRDBNet, *, tail: bool = True) -> None:
        super().__init__()
        from realesr.engines import triton_convolution

        self._kernels = triton_convolution
        self._tail = tail
        self._module = module
        self._blocks: list[list[list[Packed]]] = [
            [[self._packed(f"body.{block}.rdb{rdb}.conv{conv}") for conv in (1, 2, 3, 4, 5)] for rdb in (1, 2, 3)]
            for block in range(len(module.body))
        ]
        self._conv_body = self._packed("conv_body")
        self._conv_ups = [self._packed(f"conv_up{up}") for up in range(1, module.upsamplings + 1)]
        self._conv_hr = self._packed("conv_hr")

    def _packed(self, name: str) -> "Packed":
        """Return the weights of a convolution of the module."""
        conv = self._module.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        return self._kernels.pack(conv)

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge a batch."""
        trunk = self._trunk(lr)
        sr: Tensor = self._module.conv_last(self._enlarged(trunk) if self._tail else self._enlarged_by_torch(trunk))
        return sr

    def _trunk(self, lr: Tensor) -> Tensor:
        """Return the sum before the enlargement, (N, H, W, features) with a border."""
        module = self._module
        first = module.conv_first(functional.pixel_unshuffle(lr, module.unshuffle))
        first = first.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
        images, height, width, features = first.shape
        growth = self._blocks[0][0][0].bias.shape[0]
        channels = features + 4 * growth
        buffers = [self._kernels.bordered(images, height, width, channels, first) for _ in range(3)]
        buffers[0][..., :features].copy_(first)
        for rrdb in self._blocks:
            for number, block in enumerate(rrdb):
                self._dense_block(block, buffers, number, features)
        x, sums = buffers[0][..., :features], buffers[1][..., :features]
        self._kernels.convolve(x, self._conv_body, sums, skip=first)
        return sums

    def _dense_block(self, block: "list[Packed]", buffers: list[Tensor], number: int, features: int) -> None:
        """Run dense block `number` of an RRDB, from its buffer to the next one's first channels."""
        convolve = self._kernels.convolve
        buffer = buffers[number]
        known = features
        for packed in block[:4]:
            after = known + packed.bias.shape[0]
            convolve(buffer[..., :known], packed, buffer[..., known:after], leaky=True)
            known = after
        out = buffers[(number + 1) % 3][..., :features]
        is_last = number == 2
        convolve(
            buffer, block[4], out, residual=True, skip=out if is_last else None, skip_scale=_RESIDUAL_SCALE
        )  # what `out` holds then is the RRDB's input

    def _enlarged(self, x: Tensor) -> Tensor:
        """Return the input of the last convolution, (N, features, H', W') channels last."""
        kernels = self._kernels
        images, height, width, features = x.shape
        for packed in self._conv_ups:
            height, width = 2 * height, 2 * width
            larger = kernels.bordered(images, height, width, features, x)
            kernels.convolve(x, packed, larger, leaky=True, doubled=True)
            x = larger
        last = x.new_empty((images, height, width, features))
        kernels.convolve(x, self._conv_hr, last, leaky=True)
        return last.permute(0, 3, 1, 2)

    def _enlarged_by_torch(self, trunk: Tensor) -> Tensor:
        """Return the same by torch's own kernels."""
        module = self._module
        x = trunk.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        for up in range(1, module.upsamplings + 1):
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = functional.leaky_relu(module.get_submodule(f"conv_up{up}")(x), 0.2)
        hr: Tensor = functional.leaky_relu(module.conv_hr(x), 0.2)
        return hr
