"""Finds in a network's list of layers what the kernel can do in one call, and what one schedule can do at once.

An activation, residual sums and a gate join the convolution that they follow; an enlargement by two is read in place by
the convolution behind it; a concatenation that grows from convolution to convolution becomes a dense block; and the
pixels of the enlarged image are put together as they are written. All else stays as it is in the list.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from realesr.engines.dense_blocks import find_dense_blocks
from realesr.models.layers import (
    IMAGE,
    Activated,
    Activation,
    ChannelSlice,
    Concatenation,
    Convolution,
    Layer,
    NearestEnlargement,
    PixelShuffle,
    PixelUnshuffle,
    Product,
    ScaledSum,
)

KERNEL_ACTIVATIONS = ("relu", "leaky_relu", "prelu", "silu", "sigmoid")
"""What winograd.c does behind a convolution; others follow it as layers of their own."""

LARGEST_SUM = 2
"""Maps that winograd.c adds to a convolution's result."""

SHORTEST_DENSE_BLOCK = 3
"""Convolutions of a concatenation that grows; two are better off with strips."""


@dataclass(frozen=True, kw_only=True)
class FusedConvolution:
    """A convolution with what follows it: (activation(factor * convolution) + addends) * gate."""

    name: str
    """Of the last layer's result."""
    layer: Convolution
    source: str
    """What is read; where that is enlarged as it is read, the result before."""
    activation: Activation | None = None
    """Only with a factor of 1."""
    nearest_x2_input: bool = False
    factor: float = 1.0
    addends: tuple[tuple[str, float], ...] = ()
    """Name of a result and its factor, at most LARGEST_SUM of them."""
    gate_offset: float | None = None
    """Of the gate sigmoid(convolution) + offset; None without a gate."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the names of the results that are read."""
        return (self.source, *(name for name, _ in self.addends))

    @property
    def is_bare(self) -> bool:
        """Return whether nothing has followed the convolution so far."""
        return self.name == self.layer.name and self.activation is None


@dataclass(frozen=True, kw_only=True)
class FusedDenseBlock:
    """Convolutions each of which reads the block's source and what all before it gave.

    Only the result of the last one is read elsewhere; the others have no addends and no gate.
    """

    convolutions: tuple[FusedConvolution, ...]

    @property
    def name(self) -> str:
        """Return the name of the block's result."""
        return self.convolutions[-1].name

    @property
    def source(self) -> str:
        """Return the name of what the first convolution reads."""
        return self.convolutions[0].source

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the names of the results that are read."""
        return (self.source, *(name for name, _ in self.convolutions[-1].addends))


PlainOperation = (
    Activated | Concatenation | ScaledSum | Product | PixelShuffle | PixelUnshuffle | NearestEnlargement | ChannelSlice
)
"""A layer that nothing takes in."""
Operation = FusedConvolution | FusedDenseBlock | PlainOperation


@dataclass(frozen=True, kw_only=True)
class Output:
    """How the enlarged image is put together: a pixel-shuffle of `source`, onto the enlarged image if wanted."""

    source: str
    factor: int = 1
    """Of the pixel-shuffle; 1 for none."""
    adds_enlarged_image: bool = False


def split_output(layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], Output]:
    """Take from the end of a network's layers those that `Output` stands for."""
    readers, made = readers_of(layers), {layer.name: layer for layer in layers}
    last = layers[-1]
    if isinstance(last, PixelShuffle):
        return tuple(layers[:-1]), Output(source=last.source, factor=last.factor)
    if isinstance(last, ScaledSum) and not last.offset and [factor for _, factor in last.terms] == [1.0, 1.0]:
        parts = [made.get(source) for source in last.sources]
        for shuffle, enlarged in (parts, parts[::-1]):
            if (
                isinstance(shuffle, PixelShuffle)
                and isinstance(enlarged, NearestEnlargement)
                and enlarged.source == IMAGE
                and enlarged.factor == shuffle.factor
                and all(len(readers[part.name]) == 1 for part in (shuffle, enlarged))
            ):
                left = tuple(layer for layer in layers if layer not in (last, shuffle, enlarged))
                return left, Output(source=shuffle.source, factor=shuffle.factor, adds_enlarged_image=True)
    return tuple(layers), Output(source=last.name)


def fused(layers: Iterable[Layer], kept: Iterable[str] = ()) -> list[Operation]:
    """Return the operations that layers come down to, in an order in which they can be done.

    Args:
        layers: in an order in which they can be computed.
        kept: names of results that are read by others than these layers.
    """
    layers = tuple(layers)
    readers = readers_of(layers)
    for name in kept:
        readers.setdefault(name, []).append(name)
    operations: dict[str, Operation] = {}
    for layer in layers:
        for operation in _joined(layer, operations, readers):
            operations[operation.name] = operation
    return _with_dense_blocks(operations, layers)


def readers_of(layers: Iterable[Layer]) -> dict[str, list[str]]:
    """Return for each result that is read the names of the layers that read it."""
    readers: dict[str, list[str]] = {}
    for layer in layers:
        for source in layer.sources:
            readers.setdefault(source, []).append(layer.name)
    return readers


def _joined(layer: Layer, operations: dict[str, Operation], readers: dict[str, list[str]]) -> Iterator[Operation]:
    """Yield the operation of a layer; what it takes in is removed from the operations."""
    match layer:
        case Convolution():
            yield from _convolution(layer, operations, readers)
        case Activated():
            yield _activated(layer, operations, readers)
        case ScaledSum():
            yield _sum(layer, operations, readers)
        case Product():
            yield _product(layer, operations, readers)
        case _:
            yield layer


def _convolution(
    layer: Convolution, operations: dict[str, Operation], readers: dict[str, list[str]]
) -> Iterator[Operation]:
    enlargement = operations.get(layer.source)
    source, is_x2 = layer.source, False
    if isinstance(enlargement, NearestEnlargement) and enlargement.factor == 2 and len(readers[source]) == 1:
        del operations[source]
        source, is_x2 = enlargement.source, True
    activation = layer.activation
    if activation is None or activation.kind in KERNEL_ACTIVATIONS:
        yield FusedConvolution(
            name=layer.name, layer=layer, source=source, nearest_x2_input=is_x2, activation=activation
        )
        return
    linear = f"{layer.name} before its {activation.kind}"
    readers[linear] = [layer.name]
    yield FusedConvolution(name=linear, layer=layer, source=source, nearest_x2_input=is_x2)
    yield Activated(name=layer.name, source=linear, activation=activation)


def _activated(layer: Activated, operations: dict[str, Operation], readers: dict[str, list[str]]) -> Operation:
    before = operations.get(layer.source)
    if (
        isinstance(before, FusedConvolution)
        and before.is_bare
        and len(readers[layer.source]) == 1
        and layer.activation.kind in KERNEL_ACTIVATIONS
    ):
        del operations[layer.source]
        return replace(before, name=layer.name, activation=layer.activation)
    return layer


def _sum(layer: ScaledSum, operations: dict[str, Operation], readers: dict[str, list[str]]) -> Operation:
    """Join a sum to the last of its terms that is a convolution which nobody else reads."""
    order = list(operations)
    terms = [term for term in layer.terms if term[0] in operations]
    for name, factor in sorted(terms, key=lambda term: order.index(term[0]), reverse=True):
        before = operations[name]
        others = tuple(term for term in layer.terms if term[0] != name)
        if (
            isinstance(before, FusedConvolution)
            and len(readers[name]) == 1
            and before.gate_offset is None
            and (before.activation is None or factor == 1.0)
            and len(before.addends) + len(others) <= LARGEST_SUM
            and not layer.offset
        ):
            del operations[name]
            scaled = tuple((addend, share * factor) for addend, share in before.addends)
            return replace(before, name=layer.name, factor=before.factor * factor, addends=scaled + others)
    return layer


def _product(layer: Product, operations: dict[str, Operation], readers: dict[str, list[str]]) -> Operation:
    """Join (convolution + others) * (sigmoid(convolution) + offset) to the convolution."""
    for total_name, gate_name in (layer.sources, layer.sources[::-1]):
        total, gate = operations.get(total_name), _gate(gate_name, operations, readers)
        if gate is None or not isinstance(total, ScaledSum) or total.offset or len(readers[total_name]) > 1:
            continue
        before = operations.get(gate.convolution)
        others = tuple(term for term in total.terms if term[0] != gate.convolution)
        if (
            isinstance(before, FusedConvolution)
            and before.is_bare
            and total.terms.count((gate.convolution, 1.0)) == 1
            and len(others) == len(total.terms) - 1 <= LARGEST_SUM
            and sorted(readers[gate.convolution]) == sorted((total_name, gate.activated))
        ):
            for name in {gate.convolution, gate.activated, gate_name, total_name}:
                del operations[name]
            return replace(before, name=layer.name, addends=others, gate_offset=gate.offset)
    return layer


@dataclass(frozen=True, kw_only=True)
class _Gate:
    """The sigmoid of a convolution's result, plus an offset."""

    convolution: str
    activated: str
    """Name of the sigmoid's result."""
    offset: float


def _gate(name: str, operations: dict[str, Operation], readers: dict[str, list[str]]) -> _Gate | None:
    """Return what a result is, if it is a gate that is read once."""
    operation, activated, offset = operations.get(name), name, 0.0
    if isinstance(operation, ScaledSum) and [factor for _, factor in operation.terms] == [1.0]:
        activated, offset = operation.terms[0][0], operation.offset
        operation = operations.get(activated)
    if not isinstance(operation, Activated) or operation.activation.kind != "sigmoid":
        return None
    if any(len(readers[each]) > 1 for each in (name, activated)):
        return None
    return _Gate(convolution=operation.source, activated=activated, offset=offset)


def _with_dense_blocks(operations: dict[str, Operation], layers: Sequence[Layer]) -> list[Operation]:
    """Replace the convolutions of each dense block, and what joins their inputs, in the place of the last one."""
    last_of = {each.layer.name: each for each in operations.values() if isinstance(each, FusedConvolution)}
    blocks: dict[str, FusedDenseBlock] = {}
    removed: set[str] = set()
    for block in find_dense_blocks(layers):
        *names, last = [layer.name for layer in block.convolutions]
        inner = [
            each for name in names if isinstance(each := operations.get(name), FusedConvolution) and _is_inner(each)
        ]
        if len(inner) == len(names) >= SHORTEST_DENSE_BLOCK - 1 and not last_of[last].nearest_x2_input:
            blocks[last_of[last].name] = FusedDenseBlock(convolutions=(*inner, last_of[last]))
            removed |= {*names, *(layer.name for layer in block.concatenations)}
    return [blocks.get(name, operation) for name, operation in operations.items() if name not in removed]


def _is_inner(convolution: FusedConvolution) -> bool:
    """Return whether a convolution may stand before the last one of a dense block."""
    return not convolution.addends and convolution.gate_offset is None and not convolution.nearest_x2_input
