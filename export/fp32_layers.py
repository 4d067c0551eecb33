"""Finds the convolutions of an fp16 body that have to stay float32, by trying."""

from collections.abc import Callable, Sequence

from realesr.models.architecture import Architecture
from realesr.models.onnx_graph import conv_names

Passes = Callable[[tuple[str, ...]], bool]
"""Tells whether the graph with these convolutions in float32, and all others in float16, keeps to the tolerance."""


def find_fp32_convs(architecture: Architecture, passes: Passes) -> tuple[str, ...]:
    """Return convolutions that have to stay float32, none of which can be spared.

    From all in float32 on, groups of convolutions go to float16 as long as the graph passes; a group that fails is
    halved. A layer whose values leave float16's range is thus found together with the next one, which takes them.

    Args:
        architecture: of the network.
        passes: the measurement.

    Returns:
        Names in the order of use; all of them where not even one in float16 passes.
    """
    order = _cheapest_last(architecture)
    kept = _lowered(order, frozenset(order), lambda names: passes(_in_order(architecture, names)))
    return _in_order(architecture, kept)


def _cheapest_last(architecture: Architecture) -> tuple[str, ...]:
    """Order convolutions: first the trunk, with most of the MACs; last the first one and those nearest to the pixels.

    These are the ones on the finest grids: behind an enlargement, or the very last one.
    """
    names = conv_names(architecture)
    trunk_grid = architecture.map_shapes[names[0]].grid
    tail = sum(architecture.map_shapes[name].grid > trunk_grid for name in names)
    tail = max(tail, 1)
    return (*names[1:-tail], names[0], *names[-tail:])


def _lowered(group: Sequence[str], kept: frozenset[str], passes: Callable[[frozenset[str]], bool]) -> frozenset[str]:
    """Return `kept` without those of `group` that may be float16."""
    lower = kept - frozenset(group)
    if passes(lower):
        return lower
    if len(group) == 1:
        return kept
    half = len(group) // 2
    return _lowered(group[half:], _lowered(group[:half], kept, passes), passes)


def _in_order(architecture: Architecture, names: frozenset[str]) -> tuple[str, ...]:
    return tuple(name for name in conv_names(architecture) if name in names)
