"""A 3x3 convolution in Triton that reads and writes slices of channels: bias, activation and residuals are fused.

Tensors are (images, height, width, channels), channels with stride 1; all other strides are free, so that a dense block
lives in one buffer and needs no concatenation. A source has a border of zeros of one pixel around it, and `SLACK_PX`
pixels that may be read after its end (`bordered`): the kernels load without masks. Rows are addressed with 64 bits.

Two kernels compute the same: "gather" loads a pixel once for each of the nine taps; "walk" goes down a strip of columns
and loads a pixel three times, once for each column of taps, for the three rows of outputs that it takes part in.
"""
# ruff: noqa: N803 - Triton's constants are written in capitals
# mypy: allow-untyped-decorators, allow-untyped-defs, allow-untyped-calls

from dataclasses import dataclass
from typing import Any, Literal

import torch
import triton
import triton.language as tl

SLACK_PX = 256
"""Pixels after a source that may be read; what they hold is never used. No block of columns is wider."""

_SLOPE = tl.constexpr(0.2)
"""Of the leaky ReLU."""
_RESIDUAL_SCALE = tl.constexpr(0.2)

_FEWEST_PROGRAMS = 264
"""Programs that a walk is cut into where the image allows: two for each multiprocessor of an H100."""
_FEWEST_ROWS = 4
"""Of a walk: two more rows are loaded than are written."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """How a convolution is cut into programs."""

    kernel: Literal["gather", "walk"]
    block_width: int
    """Columns of one program."""
    block_height: int
    """Rows of one program: at once in "gather", at most and one after the other in "walk"."""
    block_k: int
    """Input channels of one product; halved until it divides their number."""
    block_n: int = 64
    """Output channels of one program; likewise."""
    warps: int
    stages: int
    """Depth of the software pipeline; 1 loads through the L1 cache instead of copying to shared memory ahead."""
    flatten: bool = False
    """Of "walk": the loops over rows and channels are pipelined as one."""


DEFAULT = Configuration(kernel="walk", block_width=128, block_height=32, block_k=64, warps=8, stages=3)

CONFIGURATIONS: dict[tuple[int, int], Configuration] = {}
"""(input channels, output channels) -> configuration, where it is another than `DEFAULT`."""


@dataclass(frozen=True)
class Packed:
    """Weights (3 kx, 3 ky, C_in, C_out) and bias (C_out,) of a convolution."""

    weight: torch.Tensor
    bias: torch.Tensor


def pack(conv: torch.nn.Conv2d) -> Packed:
    """Return the weights of a convolution in the order in which the kernels read them."""
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
    chosen = configuration or CONFIGURATIONS.get((c_in, c_out), DEFAULT)
    block_n = largest_block(c_out, at_most=chosen.block_n)
    across, blocks_n = -(-width // chosen.block_width), c_out // block_n
    rows = chosen.block_height
    if chosen.kernel == "walk":
        rows = rows_of_a_walk(chosen, height=height, strips=across * blocks_n * images)
    constants: dict[str, Any] = {
        "C_IN": c_in,
        "C_OUT": c_out,
        "BLOCK_WIDTH": chosen.block_width,
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
    constants |= {"FLATTEN": chosen.flatten} if chosen.kernel == "walk" else {"BLOCK_HEIGHT": rows}
    other = target if skip is None else skip
    kernel = walk if chosen.kernel == "walk" else gather
    sizes = (height, width, rows) if chosen.kernel == "walk" else (height, width)
    kernel[(across * blocks_n, -(-height // rows), images)](
        source, packed.weight, packed.bias, target, other, *sizes,
        *source.stride()[:3], *target.stride()[:3], *other.stride()[:3],
        **constants,
    )  # fmt: skip


def rows_of_a_walk(configuration: Configuration, *, height: int, strips: int) -> int:
    """Return the rows of one program: fewer where the image would else give too few programs to fill a GPU."""
    return min(configuration.block_height, max(_FEWEST_ROWS, height * strips // _FEWEST_PROGRAMS))


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
def gather(
    source, weight, bias, target, skip, height, width,
    source_image, source_row, source_px, target_image, target_row, target_px, skip_image, skip_row, skip_px,
    C_IN: tl.constexpr, C_OUT: tl.constexpr, BLOCK_WIDTH: tl.constexpr, BLOCK_HEIGHT: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, DOUBLED: tl.constexpr,
    LEAKY: tl.constexpr, RESIDUAL: tl.constexpr, SKIP: tl.constexpr, SKIP_SCALE: tl.constexpr,
):  # fmt: skip
    """Compute a block of BLOCK_HEIGHT x BLOCK_WIDTH pixels as one product for each tap and block of input channels."""
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
    chunks: tl.constexpr = C_IN // BLOCK_K
    total = tl.full((BLOCK_HEIGHT * BLOCK_WIDTH, BLOCK_N), 0.0, tl.float32)
    for step in range(9 * chunks):
        tap = step // chunks
        kx = tap // 3
        channel = step % chunks * BLOCK_K + k
        # Rows below the border are not there; `height` is the border's own.
        tap_row = (tl.minimum(row + tap % 3 - 1, height) >> DOUBLED) - origin_row
        tap_column = (column + kx - 1) >> DOUBLED
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


@triton.jit(do_not_specialize=["height", "width", "rows"])
def walk(
    source, weight, bias, target, skip, height, width, rows,
    source_image, source_row, source_px, target_image, target_row, target_px, skip_image, skip_row, skip_px,
    C_IN: tl.constexpr, C_OUT: tl.constexpr, BLOCK_WIDTH: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, DOUBLED: tl.constexpr,
    LEAKY: tl.constexpr, RESIDUAL: tl.constexpr, SKIP: tl.constexpr, SKIP_SCALE: tl.constexpr, FLATTEN: tl.constexpr,
):  # fmt: skip
    """Compute `rows` rows of BLOCK_WIDTH columns: each row of inputs is added to three rows of outputs."""
    blocks_n: tl.constexpr = C_OUT // BLOCK_N
    n = tl.program_id(0) % blocks_n * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.program_id(0) // blocks_n * BLOCK_WIDTH + tl.arange(0, BLOCK_WIDTH)
    first_row = tl.program_id(1) * rows
    image = tl.program_id(2).to(tl.int64)
    k = tl.arange(0, BLOCK_K)
    chunks: tl.constexpr = C_IN // BLOCK_K
    mask = (column < width)[:, None]
    source += image * source_image
    target += image * target_image
    skip += image * skip_image
    source_row = source_row.to(tl.int64)
    target_row = target_row.to(tl.int64)
    skip_row = skip_row.to(tl.int64)
    # Sums of the rows of outputs above, at and below the row of inputs: ky is 2, 1 and 0.
    above = tl.full((BLOCK_WIDTH, BLOCK_N), 0.0, tl.float32)
    level = tl.full((BLOCK_WIDTH, BLOCK_N), 0.0, tl.float32)
    below = tl.full((BLOCK_WIDTH, BLOCK_N), 0.0, tl.float32)
    for row in tl.range(first_row - 1, tl.minimum(first_row + rows, height) + 1, flatten=FLATTEN):
        inputs = source + (row >> DOUBLED) * source_row
        for step in range(3 * chunks):
            kx = step // chunks
            channel = step % chunks * BLOCK_K + k
            pixels = tl.load(inputs + (((column + kx - 1) >> DOUBLED) * source_px)[:, None] + channel[None, :])
            taps = weight + (kx * 3 * C_IN + channel)[:, None] * C_OUT + n[None, :]
            below = tl.dot(pixels, tl.load(taps), below)
            level = tl.dot(pixels, tl.load(taps + C_IN * C_OUT), level)
            above = tl.dot(pixels, tl.load(taps + 2 * C_IN * C_OUT), above)
        done = row - 1
        _finish(
            above, bias, target + done * target_row + (column * target_px)[:, None] + n[None, :],
            source + done * source_row + (column * source_px)[:, None] + n[None, :],
            skip + done * skip_row + (column * skip_px)[:, None] + n[None, :], n, mask & (done >= first_row),
            LEAKY, RESIDUAL, SKIP, SKIP_SCALE,
        )  # fmt: skip
        above, level = level, below
        below = tl.full((BLOCK_WIDTH, BLOCK_N), 0.0, tl.float32)
