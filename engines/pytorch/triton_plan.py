"""Finds the layers that Triton's convolutions compute: groups of dense blocks, and others whose channels fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from realesr.engines.dense_blocks import DenseBlock, find_dense_blocks
from realesr.errors import UsageError
from realesr.models.architecture import Architecture
from realesr.models.layers import Activation, Convolution, Layer, NearestEnlargement, ScaledSum

LEAST_CHANNELS = 16
"""Numbers of channels must be multiples of it: the least that Triton multiplies at once."""
BLOCKS_PER_GROUP = 3
RESIDUAL_SCALE = 0.2
LEAKY_RELU = Activation(kind="leaky_relu", slope=0.2)
"""These two are constants of the kernel."""


@dataclass(frozen=True)
class Group:
    """Three dense blocks of the same channels, and the sum of their result and the source of the first."""

    blocks: tuple[DenseBlock, ...]
    sum: ScaledSum

    @property
    def source(self) -> str:
        """Return the name of the result that the group reads."""
        return self.blocks[0].source

    @property
    def widest(self) -> int:
        """Return the channels of a dense block's buffer: those that its last convolution reads."""
        return self.blocks[0].convolutions[-1].in_channels

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Return the layers of the blocks, and the sum."""
        return (*(layer for block in self.blocks for layer in block.layers), self.sum)


@dataclass(frozen=True, kw_only=True)
class Fused:
    """A convolution with a doubling before it and a sum after it, where there is one."""

    convolution: Convolution
    enlargement: NearestEnlargement | None
    sum: ScaledSum | None
    skip: str = ""
    """Name of the sum's other result, which is added as it is; empty without a sum."""
    scale: float = 1.0
    """The convolution's factor in the sum."""

    @property
    def source(self) -> str:
        """Return the name of the result that is convolved, or doubled first."""
        return self.convolution.source if self.enlargement is None else self.enlargement.source

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Return the layers, in their order."""
        return tuple(layer for layer in (self.enlargement, self.convolution, self.sum) if layer is not None)


def readers_of(layers: Sequence[Layer]) -> dict[str, list[Layer]]:
    """Return the layers that read each result, by its name."""
    readers: dict[str, list[Layer]] = {layer.name: [] for layer in layers}
    for layer in layers:
        for source in dict.fromkeys(layer.sources):
            readers.setdefault(source, []).append(layer)
    return readers


def find_groups(architecture: Architecture) -> list[Group]:
    """Return the groups of dense blocks of a network.

    Raises:
        UsageError: There are no dense blocks, or some that the kernel does not compute.
    """
    blocks = find_dense_blocks(architecture.layers)
    if not blocks:
        raise UsageError(
            f"kernels=triton got {architecture.title}, expected a network of dense blocks: take kernels=cudnn"
        )
    readers = readers_of(architecture.layers)
    for block in blocks:
        _check_block(block)
    firsts = range(0, len(blocks), BLOCKS_PER_GROUP)
    return [_group(blocks[first : first + BLOCKS_PER_GROUP], readers) for first in firsts]


def _group(blocks: tuple[DenseBlock, ...], readers: dict[str, list[Layer]]) -> Group:
    """Return blocks that follow one another as a group, or raise UsageError."""
    group_sum = blocks[-1].group_sum
    if group_sum is not None and len(blocks) == BLOCKS_PER_GROUP and group_sum.source == blocks[0].source:
        group = Group(blocks, group_sum.layer)
        is_chain = all(after.source == before.result for before, after in pairwise(blocks))
        inner = group.layers[:-1]
        is_closed = all(reader in group.layers for layer in inner for reader in readers[layer.name])
        if is_chain and is_closed and len({_channels(block) for block in blocks}) == 1:
            _check_scale(group.sum, group_sum.scale)
            return group
    raise UsageError(
        f"kernels=triton got the dense block {blocks[0].result} outside a group, expected groups of "
        f"{BLOCKS_PER_GROUP} with the same channels and a sum over them: take kernels=cudnn"
    )


def _check_block(block: DenseBlock) -> None:
    """Raise UsageError where the kernel does not compute a dense block."""
    features, growth, _ = _channels(block)
    if features % LEAST_CHANNELS or growth % LEAST_CHANNELS:
        raise UsageError(
            f"kernels=triton got dense blocks of {features} features and growth {growth}, "
            f"expected multiples of {LEAST_CHANNELS}: take kernels=cudnn"
        )
    last = block.convolutions[-1]
    for conv in block.convolutions:
        activation, channels = (None, features) if conv is last else (LEAKY_RELU, growth)
        if not has_kernel(conv) or (conv.activation, conv.out_channels) != (activation, channels):
            raise UsageError(
                f"kernels=triton got the convolution {conv.name} in a dense block, expected 3x3 without groups, with a "
                f"bias, {channels} channels and {'a leaky ReLU of slope 0.2' if activation else 'no activation'}: "
                "take kernels=cudnn"
            )
    _check_scale(block.sum, block.scale)


def _channels(block: DenseBlock) -> tuple[int, int, int]:
    """Return a block's features, growth and number of convolutions."""
    first = block.convolutions[0]
    return first.in_channels, first.out_channels, len(block.convolutions)


def _check_scale(layer: ScaledSum, scale: float) -> None:
    if scale != RESIDUAL_SCALE:
        raise UsageError(
            f"kernels=triton got the sum {layer.name} with a factor of {scale}, expected {RESIDUAL_SCALE}: "
            "take kernels=cudnn"
        )


def has_kernel(conv: Convolution) -> bool:
    """Return whether Triton's kernel computes this convolution."""
    fits = conv.in_channels % LEAST_CHANNELS == 0 and conv.out_channels % LEAST_CHANNELS == 0
    return fits and conv.kernel == 3 and conv.groups == 1 and conv.has_bias and conv.activation in (None, LEAKY_RELU)


def chains(groups: Sequence[Group], readers: dict[str, list[Layer]]) -> list[list[Group]]:
    """Return groups together that can go through the same buffers: only the next one reads what each gives."""
    joined: list[list[Group]] = []
    for group in groups:
        before = joined[-1][-1] if joined else None
        if (
            before is not None
            and group.source == before.sum.name
            and _channels(group.blocks[0]) == _channels(before.blocks[0])
            and all(reader in group.layers for reader in readers[before.sum.name])
        ):
            joined[-1].append(group)
        else:
            joined.append([group])
    return joined


def find_fused(
    architecture: Architecture, taken: set[str], readers: dict[str, list[Layer]], *, tail: bool
) -> list[Fused]:
    """Return the convolutions outside groups that Triton computes.

    Args:
        architecture: the network's.
        taken: names of the layers in groups.
        readers: those of its layers, from `readers_of`.
        tail: whether those behind an enlargement are among them.
    """
    shapes = architecture.map_shapes
    own_grid = shapes[architecture.convolutions[0].name].grid
    by_name = {layer.name: layer for layer in architecture.layers}
    fused = []
    for conv in architecture.convolutions:
        is_ours = conv.name not in taken and has_kernel(conv) and (tail or shapes[conv.name].grid <= own_grid)
        if is_ours:
            before = by_name.get(conv.source)
            is_doubling = isinstance(before, NearestEnlargement) and before.factor == 2
            enlargement = before if is_doubling and len(readers[conv.source]) == 1 else None
            fused.append(_with_sum(conv, enlargement, readers))  # type: ignore[arg-type]
    return fused


def _with_sum(conv: Convolution, enlargement: NearestEnlargement | None, readers: dict[str, list[Layer]]) -> Fused:
    """Return a convolution with the sum that alone reads it, if that adds one other result as it is."""
    if len(readers[conv.name]) == 1:
        (reader,) = readers[conv.name]
        if isinstance(reader, ScaledSum) and len(reader.terms) == 2 and not reader.offset:
            (skip, factor), *own = sorted(reader.terms, key=lambda term: term[0] == conv.name)
            if skip != conv.name and factor == 1:
                return Fused(convolution=conv, enlargement=enlargement, sum=reader, skip=skip, scale=own[0][1])
    return Fused(convolution=conv, enlargement=enlargement, sum=None)
