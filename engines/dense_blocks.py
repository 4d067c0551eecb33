"""Finds the dense blocks in a network's list of layers, for engines that compute them as a whole.

In a dense block each convolution reads the concatenation of the block's source and of all results before it; the last
one's result, scaled, is added to the source:

    source -> conv 1 -> [source, conv 1] -> conv 2 -> [source, conv 1, conv 2] -> conv 3 ... -> scale * conv n + source

Blocks that follow one another may form a group: the last one's result, scaled, is added to the first one's source.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from realesr.models.layers import Concatenation, Convolution, Layer, ScaledSum


@dataclass(frozen=True, kw_only=True)
class GroupSum:
    """The sum that ends a group of dense blocks: scale * the last block's result + `source`."""

    layer: ScaledSum
    source: str
    """Name of the result that the group's first block reads."""
    scale: float


@dataclass(frozen=True, kw_only=True)
class DenseBlock:
    """A dense block. Other layers read none of its results but that of its sum."""

    source: str
    """Name of the result that it reads."""
    convolutions: tuple[Convolution, ...]
    """Two or more, in the order of use; five in ESRGAN's."""
    concatenations: tuple[Concatenation, ...]
    """Concatenations that the second and later convolutions read."""
    sum: ScaledSum
    scale: float
    """Factor of the last convolution's result in the sum."""
    group_sum: GroupSum | None = None
    """The group's sum, where the block ends a group; no other layer reads the result of `sum` then."""

    @property
    def result(self) -> str:
        """Return the name of the block's own result, without the group's sum."""
        return self.sum.name

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Return the block's layers, without the group's sum."""
        return (*self.convolutions, *self.concatenations, self.sum)


def find_dense_blocks(layers: Sequence[Layer]) -> tuple[DenseBlock, ...]:
    """Return the dense blocks among a network's layers, in their order; none where there are none."""
    readers: dict[str, list[Layer]] = {layer.name: [] for layer in layers}
    for layer in layers:
        for source in layer.sources:
            readers.setdefault(source, []).append(layer)
    blocks: dict[str, DenseBlock] = {}  # by their results' names
    for layer in layers:
        block = _block_from(layer, readers) if isinstance(layer, Convolution) else None
        if block is not None:
            blocks[block.result] = replace(block, group_sum=_group_sum(block, blocks, readers))
    return tuple(blocks.values())


def _block_from(first: Convolution, readers: dict[str, list[Layer]]) -> DenseBlock | None:
    """Return the block that begins with a convolution, if one does."""
    convolutions, concatenations = [first], []
    while True:
        known = (first.source, *(conv.name for conv in convolutions))
        after = _concatenated(known, readers)
        if after is None:
            break
        concatenations.append(after[0])
        convolutions.append(after[1])
    inside: list[Layer] = [*convolutions, *concatenations]
    is_closed = all(reader in inside for conv in convolutions[:-1] for reader in readers[conv.name])
    scaled = _scaled_onto(convolutions[-1].name, first.source, readers)
    if len(convolutions) < 2 or not is_closed or scaled is None:
        return None
    return DenseBlock(
        source=first.source,
        convolutions=tuple(convolutions),
        concatenations=tuple(concatenations),
        sum=scaled[0],
        scale=scaled[1],
    )


def _concatenated(known: tuple[str, ...], readers: dict[str, list[Layer]]) -> tuple[Concatenation, Convolution] | None:
    """Return the concatenation of these results, and the convolution that alone reads it, if there are such layers."""
    for layer in readers[known[-1]]:
        if isinstance(layer, Concatenation) and layer.sources == known and len(readers[layer.name]) == 1:
            (reader,) = readers[layer.name]
            if isinstance(reader, Convolution):
                return layer, reader
    return None


def _scaled_onto(name: str, source: str, readers: dict[str, list[Layer]]) -> tuple[ScaledSum, float] | None:
    """Return the only reader of a result and the result's factor, if that is a sum with `source` as it is."""
    if len(readers[name]) != 1:
        return None
    (reader,) = readers[name]
    if not isinstance(reader, ScaledSum) or reader.offset or len(reader.terms) != 2:
        return None
    factors = dict(reader.terms)
    if set(factors) != {name, source} or factors[source] != 1:
        return None
    return reader, factors[name]


def _group_sum(last: DenseBlock, blocks: dict[str, DenseBlock], readers: dict[str, list[Layer]]) -> GroupSum | None:
    """Return the sum that ends a group with this block, if one does."""
    source = last.source
    while source in blocks:
        source = blocks[source].source
        scaled = _scaled_onto(last.result, source, readers)
        if scaled is not None:
            return GroupSum(layer=scaled[0], source=source, scale=scaled[1])
    return None
