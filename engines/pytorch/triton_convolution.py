"""A 3x3 convolution in Triton that reads and writes slices of channels: bias, activation and residuals are fused.

Tensors are (images, height, width, channels), channels with stride 1; all other strides are free, so that a dense block
lives in one buffer and needs no concatenation. A source has a border of zeros of one pixel around it, and `SLACK_PX`
pixels that may be read after its end (`bordered`): the kernels load without masks. Rows are addressed with 64 bits.

A pixel is loaded once for each of the nine taps. A kernel that goes down a strip of columns and loads it once for each
column of taps (one product for three rows of outputs) was no faster on an H100.
"""
# ruff: noqa: N803 - Triton's constants are written in capitals
# mypy: allow-untyped-decorators, allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

SLACK_PX = 256
"""Pixels after a source that may be read; what they hold is never used. No block of columns is wider."""

_SLOPE = tl.constexpr(0.2)
"""Slope of the leaky ReLU."""
_RESIDUAL_SCALE = tl.constexpr(0.2)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Sizes of the blocks that a convolution is cut into, one for each program."""

    block_width: int
    """Columns of one program."""
    block_height: int
    """Rows of one program."""
    block_k: int
    """Input channels of one product; halved until it divides their number."""
    block_n: int = 64
    """Output channels of one program; likewise."""
    warps: int
    stages: int
    """Depth of the software pipeline."""


DEFAULT = Configuration(block_width=64, block_height=2, block_k=64, warps=4, stages=4)
"""The fastest of seventeen for nearly every layer of x4plus on an H100 (benchmarks/results, 2026-11-27-gpu-kernels)."""


@dataclass(frozen=True)
class Packed:
    """Weights and bias of a convolution, in the order in which the kernel reads them."""

    weight: torch.Tensor
    """(3 kx, 3 ky, C_in, C_out)."""
    bias: torch.Tensor
    """(C_out,)."""


def pack(conv: torch.nn.Conv2d) -> Packed:
    """Return the weights of a convolution in the order in which the kernel reads them."""
    assert conv.bias is not None
    return Packed(conv.weight.detach().permute(3, 2, 1, 0).contiguous(), conv.bias.detach())


def bordered(images: int, height: int, width: int, channels: int, like: torch.Tensor) -> torch.Tensor:
    """Return zeros (images, height, width, channels), like `like` in dtype and device, within border and slack."""
    strides = ((height + 2) * (width + 2) * channels, (width + 2) * channels, channels, 1)
    memory = like.new_zeros(images * strides[0] + SLACK_PX * channels)
    return memory.as_strided((images, height, width, channels), strides, strides[1] + strides[2])


def convolve(
    source: torch.Tensor,
    packed: Packed,
    target: torch.Tensor,
    *,
    leaky: bool = False,
    residual: bool = False,
    skip: torch.Tensor | None = None,
    skip_scale: float = 1.0,
    doubled: bool = False,
    configuration: Configuration | None = None,
) -> None:
    """Write a 3x3 convolution of `source` into `target`.

    With `y` the convolution and its bias: `y`, or `leaky_relu(y)`; with `residual` 0.2 y + the first channels of
    `source`; with `skip` that times `skip_scale` + `skip`, which may be `target` itself. With `doubled` the source is
    enlarged to twice its size first, by nearest neighbour. `target` must not share elements with `source`.
    """
    images, height, width, c_out = target.shape
    c_in = source.shape[3]
    chosen = configuration or DEFAULT
    block_n = largest_block(c_out, at_most=chosen.block_n)
    # Programs of the same pixels come one after the other: the second finds them in the cache.
    across, down = -(-width // chosen.block_width) * (c_out // block_n), -(-height // chosen.block_height)
    constants: dict[str, Any] = {
        "C_IN": c_in,
        "C_OUT": c_out,
        "BLOCK_WIDTH": chosen.block_width,
        "BLOCK_HEIGHT": chosen.block_height,
        "BLOCK_K": largest_block(c_in, at_most=chosen.block_k),
        "BLOCK_N": block_n,
        "DOUBLED": int(doubled),
        "LEAKY": leaky,
        "RESIDUAL": residual,
        "SKIP": skip is not None,
        "SKIP_SCALE": skip_scale,
        "num_warps": chosen.warps,
        "num_stages": chosen.stages,
    }
    other = target if skip is None else skip
    convolution_kernel[(across, down, images)](
        source, packed.weight, packed.bias, target, other, height, width,
        *source.stride()[:3], *target.stride()[:3], *other.stride()[:3],
        **constants,
    )  # fmt: skip


def largest_block(channels: int, *, at_most: int) -> int:
    """Return the largest power of two that divides `channels` and is no larger than `at_most`."""
    return min(channels & -channels, at_most)


@triton.jit
def _finish(
    total, bias, target, residual, skip, n, mask,
    LEAKY: tl.constexpr, RESIDUAL: tl.constexpr, SKIP: tl.constexpr, SKIP_SCALE: tl.constexpr,
):  # fmt: skip
    """Write finished sums: pointers and mask have the shape of `total`, (pixels, channels)."""
    y = total + tl.load(bias + n).to(tl.float32)[None, :]
    if LEAKY:
        y = tl.where(y < 0, y * _SLOPE, y)
    if RESIDUAL:
        y = y * _RESIDUAL_SCALE + tl.load(residual, mask=mask, other=0.0).to(tl.float32)
    if SKIP:
        y = y * SKIP_SCALE + tl.load(skip, mask=mask, other=0.0).to(tl.float32)
    tl.store(target, y.to(target.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["height", "width"])
def convolution_kernel(
    source, weight, bias, target, skip, height, width,
    source_image, source_row, source_px, target_image, target_row, target_px, skip_image, skip_row, skip_px,
    C_IN: tl.constexpr, C_OUT: tl.constexpr, BLOCK_WIDTH: tl.constexpr, BLOCK_HEIGHT: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, DOUBLED: tl.constexpr,
    LEAKY: tl.constexpr, RESIDUAL: tl.constexpr, SKIP: tl.constexpr, SKIP_SCALE: tl.constexpr,
):  # fmt: skip
    """Compute a block of BLOCK_HEIGHT x BLOCK_WIDTH pixels as one product for each tap and block of input channels.

    The taps of the same channels follow one another.
    """
    blocks_n: tl.constexpr = C_OUT // BLOCK_N
    n = tl.program_id(0) % blocks_n * BLOCK_N + tl.arange(0, BLOCK_N)
    first_row = tl.program_id(1) * BLOCK_HEIGHT
    image = tl.program_id(2).to(tl.int64)
    place = tl.arange(0, BLOCK_HEIGHT * BLOCK_WIDTH)
    row = first_row + place // BLOCK_WIDTH
    column = tl.program_id(0) // blocks_n * BLOCK_WIDTH + place % BLOCK_WIDTH
    k = tl.arange(0, BLOCK_K)
    origin_row = first_row >> DOUBLED
    origin = source + image * source_image + origin_row.to(tl.int64) * source_row
    total = tl.full((BLOCK_HEIGHT * BLOCK_WIDTH, BLOCK_N), 0.0, tl.float32)
    for step in range(9 * (C_IN // BLOCK_K)):
        tap = step % 9
        channel = step // 9 * BLOCK_K + k
        # Rows below the border are not there; `height` is the border's own.
        tap_row = (tl.minimum(row + tap % 3 - 1, height) >> DOUBLED) - origin_row
        tap_column = (column + tap // 3 - 1) >> DOUBLED
        pixels = tl.load(origin + (tap_row * source_row + tap_column * source_px)[:, None] + channel[None, :])
        taps = tl.load(weight + (tap * C_IN + channel)[:, None] * C_OUT + n[None, :])
        total = tl.dot(pixels, taps, total)
    mask = ((row < height) & (column < width))[:, None]
    long_row = row.to(tl.int64)
    at_target = image * target_image + long_row * target_row + column * target_px
    at_source = image * source_image + long_row * source_row + column * source_px
    at_skip = image * skip_image + long_row * skip_row + column * skip_px
    _finish(
        total, bias, target + at_target[:, None] + n[None, :], source + at_source[:, None] + n[None, :],
        skip + at_skip[:, None] + n[None, :], n, mask, LEAKY, RESIDUAL, SKIP, SKIP_SCALE,
    )  # fmt: skip
