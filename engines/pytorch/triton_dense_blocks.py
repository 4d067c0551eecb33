"""Networks of dense blocks for inference with our own convolutions in Triton, without concatenations.

A dense block's buffer has its source in the first channels and the output of each convolution in the channels after
them, so that every convolution reads the first channels and writes the next ones. The three dense blocks of a group
have a buffer each, since all read their source until their last convolution; the third adds its result to the first
one's source in place, where the next group begins.

Other convolutions whose channels fit are Triton's too; all other layers are torch's. Results are (N, channels, H, W)
with channels of stride 1, as torch's channels-last ones; those that Triton's convolutions read lie within a border.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from realesr.engines.pytorch.layers import ConvolutionOperation, LayerNetwork, unread_after
from realesr.engines.pytorch.triton_plan import (
    BLOCKS_PER_GROUP,
    RESIDUAL_SCALE,
    Fused,
    Group,
    chains,
    find_fused,
    find_groups,
    readers_of,
)
from realesr.errors import EngineError, UsageError
from realesr.models.layers import IMAGE

if TYPE_CHECKING:
    from realesr.engines.pytorch.triton_convolution import Packed


def triton_network(network: LayerNetwork, *, tail: bool = True) -> "TritonNetwork":
    """Return a module that computes what a network of dense blocks with float16 weights does.

    Args:
        network: what torch would run.
        tail: whether convolutions behind an enlargement are Triton's too.

    Raises:
        UsageError: The network has no dense blocks, theirs are not what the kernel computes, or its weights are not
            float16.
        EngineError: Triton is not installed.
    """
    groups = find_groups(network.architecture)
    dtype = next(network.parameters()).dtype
    if dtype != torch.float16:
        raise UsageError(f"kernels=triton got {dtype}, expected float16: take precision fp16, or kernels=cudnn")
    try:
        return TritonNetwork(network, groups, tail=tail)
    except ImportError as error:
        raise EngineError(f"kernels=triton needs Triton, which cannot be imported ({error}): install triton") from error


@dataclass(frozen=True)
class _Step:
    """Some layers that are computed at once."""

    sources: tuple[str, ...]
    result: str
    run: Callable[..., Tensor]
    """Takes the sources' results."""


class TritonNetwork(nn.Module):
    """Network of (N, 3, H, W) -> (N, 3, H * scale, W * scale), channels last; see `LayerNetwork`.

    It keeps no memory between calls but its weights: buffers come from torch's allocator, which keeps those of each
    stream apart. Nothing waits for the GPU, so that a CUDA graph can record it after a first call.
    """

    def __init__(self, network: LayerNetwork, groups: list[Group], *, tail: bool = True) -> None:
        super().__init__()
        self._network = network
        self._steps = _planned(network, groups, tail=tail)
        self._unread = unread_after([step.sources for step in self._steps])

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge a batch."""
        results = {IMAGE: lr}
        for step, unread in zip(self._steps, self._unread, strict=True):
            results[step.result] = step.run(*[results[source] for source in step.sources])
            for name in unread:
                del results[name]
        return results[self._network.layers[-1].name]


def _planned(network: LayerNetwork, groups: list[Group], *, tail: bool) -> list[_Step]:
    """Return the steps that compute a network's layers, in their order."""
    from realesr.engines.pytorch import triton_convolution as kernels

    readers = readers_of(network.layers)
    in_groups = {layer.name for group in groups for layer in group.layers}
    fused = find_fused(network.architecture, in_groups, readers, tail=tail)
    elsewhere = in_groups | {layer.name for each in fused for layer in each.layers}
    bordered = {each.source for each in fused}
    # A chain is computed in place of its first convolution, fused layers in place of the last of them.
    steps = {
        chain[0].blocks[0].convolutions[0].name: _chain_step(kernels, network, chain)
        for chain in chains(groups, readers)
    }
    for each in fused:
        result = each.layers[-1].name
        steps[result] = _fused_step(kernels, network, each, is_bordered=result in bordered)
    for layer, operation in zip(network.layers, network.operations, strict=True):
        if layer.name not in elsewhere:
            run = partial(_run_by_torch, kernels, operation) if layer.name in bordered else operation
            steps[layer.name] = _Step(layer.sources, layer.name, run)
    return [steps[layer.name] for layer in network.layers if layer.name in steps]


def _chain_step(kernels: ModuleType, network: LayerNetwork, chain: list[Group]) -> _Step:
    packed = [
        [[_packed(kernels, network, conv.name) for conv in block.convolutions] for block in group.blocks]
        for group in chain
    ]
    return _Step((chain[0].source,), chain[-1].sum.name, partial(_run_chain, kernels, packed, chain[0].widest))


def _fused_step(kernels: ModuleType, network: LayerNetwork, fused: Fused, *, is_bordered: bool) -> _Step:
    packed = _packed(kernels, network, fused.convolution.name)
    sources = (fused.source, fused.skip) if fused.skip else (fused.source,)
    run = partial(_run_fused, kernels, packed, fused, is_bordered)
    return _Step(sources, fused.layers[-1].name, run)


def _packed(kernels: ModuleType, network: LayerNetwork, name: str) -> "Packed":
    """Return the weights of a convolution in the order in which the kernel reads them."""
    operation = network.operation(name)
    assert isinstance(operation, ConvolutionOperation)
    packed: Packed = kernels.pack(operation.convolution)
    return packed


def _run_chain(kernels: ModuleType, groups: "list[list[list[Packed]]]", widest: int, source: Tensor) -> Tensor:
    """Run groups of dense blocks one after the other through the same buffers."""
    images, features, height, width = source.shape
    like = source.permute(0, 2, 3, 1)
    buffers = [kernels.bordered(images, height, width, widest, like) for _ in range(BLOCKS_PER_GROUP)]
    buffers[0][..., :features].copy_(like)
    for group in groups:
        for number, block in enumerate(group):
            _run_block(kernels, block, buffers, number, features)
    last: Tensor = buffers[0]
    return last[..., :features].permute(0, 3, 1, 2)


def _run_block(kernels: ModuleType, block: "list[Packed]", buffers: list[Tensor], number: int, features: int) -> None:
    """Run dense block `number` of a group, from its buffer to the next one's first channels."""
    buffer = buffers[number]
    known = features
    for packed in block[:-1]:
        after = known + packed.bias.shape[0]
        kernels.convolve(buffer[..., :known], packed, buffer[..., known:after], leaky=True)
        known = after
    out = buffers[(number + 1) % BLOCKS_PER_GROUP][..., :features]
    skip = out if number == BLOCKS_PER_GROUP - 1 else None  # holds the group's source then
    kernels.convolve(buffer, block[-1], out, residual=True, skip=skip, skip_scale=RESIDUAL_SCALE)


def _run_fused(
    kernels: ModuleType, packed: "Packed", fused: Fused, is_bordered: bool, source: Tensor, skip: Tensor | None = None
) -> Tensor:
    """Run a convolution on a result with a border."""
    x = source.permute(0, 2, 3, 1)
    scale = 1 if fused.enlargement is None else fused.enlargement.factor
    shape = x.shape[0], x.shape[1] * scale, x.shape[2] * scale, packed.bias.shape[0]
    target = kernels.bordered(*shape, x) if is_bordered else x.new_empty(shape)
    if skip is not None and skip.stride(1) != 1:
        skip = skip.contiguous(memory_format=torch.channels_last)
    kernels.convolve(
        x,
        packed,
        target,
        leaky=fused.convolution.activation is not None,
        skip=None if skip is None else skip.permute(0, 2, 3, 1),
        skip_scale=fused.scale,
        doubled=fused.enlargement is not None,
    )
    return target.permute(0, 3, 1, 2)


def _run_by_torch(kernels: ModuleType, operation: nn.Module, *sources: Tensor) -> Tensor:
    """Run a layer by torch, and copy its result into a border."""
    result = operation(*sources).permute(0, 2, 3, 1)
    target: Tensor = kernels.bordered(*result.shape, result)
    return target.copy_(result).permute(0, 3, 1, 2)
