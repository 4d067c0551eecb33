"""Plans a network's way through an image strip by strip: which results lag, which wait, what each layer keeps.

A strip is the image's next rows. A convolution needs rows above and below each of its own, so that the rows of its
result end `kernel // 2` rows above those that it was given: they lag. It keeps the last `kernel - 1` rows that it read.
Where results of unequal lag meet, in a sum or a concatenation, the earlier ones wait: their last rows are kept too,
unless a convolution has them already among the rows that it reads.

With an image's last strip come all rows that the network lags. Where its convolutions go on behind an enlargement, rows
cost many times the memory there; so the network is cut into stages before it, and the later one takes its rows in
portions.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from realesr.models.architecture import Architecture, MapShape
from realesr.models.layers import (
    IMAGE,
    Concatenation,
    Convolution,
    Layer,
    NearestEnlargement,
    PixelShuffle,
    PixelUnshuffle,
)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Consecutive layers that read one earlier result alone."""

    source: str
    """The result that they read: the image, or the result of the stage before."""
    layers: tuple[Layer, ...]

    @property
    def result(self) -> str:
        """Return the name of what the stage gives."""
        return self.layers[-1].name


@dataclass(frozen=True, kw_only=True)
class Delay:
    """A result as a layer reads it beside later ones: some rows late."""

    source: str
    rows: int
    """Delay in its own rows; 0 for the result as it comes."""
    held_by: str = ""
    """Name of a convolution among whose rows it is found, without their first and last one; empty where it waits."""
    first_channel: int = 0
    """First channel of the result among those that the convolution reads."""


@dataclass(frozen=True, kw_only=True)
class StripPlan:
    """Delays and lags of one stage that is computed in strips."""

    reads: dict[str, tuple[Delay, ...]]
    """Name of a layer -> its sources."""
    lag_rows: dict[str, int]
    """Name of a result -> the number of its own rows by which it lags the rows that the stage has received."""
    waits: tuple[Delay, ...]
    """Delayed results that are kept from strip to strip beside the rows that convolutions read, each once."""


@functools.cache
def stages(architecture: Architecture) -> tuple[Stage, ...]:
    """Cut a network before its first enlargement, if all that follows depends on one result and convolves."""
    layers = architecture.layers
    for number, layer in enumerate(layers):
        if isinstance(layer, NearestEnlargement | PixelShuffle):
            later = layers[number:]
            made = {each.name for each in later}
            read = {source for each in later for source in each.sources} - made
            if number and read == {layers[number - 1].name} and any(isinstance(each, Convolution) for each in later):
                return Stage(source=IMAGE, layers=layers[:number]), Stage(source=read.pop(), layers=later)
            break
    return (Stage(source=IMAGE, layers=layers),)


@functools.lru_cache(maxsize=16)  # engines, their memory cost and their first rows ask for it
def strip_plan(stage: Stage) -> StripPlan:
    """Compute the lag of every result of a stage.

    Raises:
        ValueError: Pixels of a result that lags would be unshuffled: its rows need not be whole blocks.
    """
    lag_rows, reads = {stage.source: 0}, {}
    late_rows = _late_enlargements(stage)
    parts: dict[str, list[Delay]] = {}  # of a concatenation, in the order of its channels
    held: dict[tuple[str, int], Delay] = {}
    waits: dict[tuple[str, int], Delay] = {}
    channels = _channels(stage)
    for layer in stage.layers:
        lag = max(late_rows.get(layer.name, 0), *(lag_rows[source] for source in layer.sources))
        delays = []
        for source in layer.sources:
            rows = lag - lag_rows[source]
            delay = held.get((source, rows), Delay(source=source, rows=rows))
            if rows and not delay.held_by:
                waits[source, rows] = delay
            delays.append(delay)
        reads[layer.name] = tuple(delays)
        if isinstance(layer, Concatenation):
            parts[layer.name] = delays
        if isinstance(layer, Convolution) and layer.kernel == 3:
            held |= _held_by(layer, parts.get(layer.source, []), channels)
        lag_rows[layer.name] = _lag_behind(layer, lag)
    return StripPlan(reads=reads, lag_rows=lag_rows, waits=tuple(waits.values()))


def _late_enlargements(stage: Stage) -> dict[str, int]:
    """Return the enlargements that read delayed rows, and the delay: those whose only reader has to wait anyway.

    The few rows of an image wait rather than the many of its enlargement.
    """
    lag_rows = {stage.source: 0}
    readers: dict[str, list[Layer]] = {}
    for layer in stage.layers:
        lag_rows[layer.name] = _lag_behind(layer, max(lag_rows[source] for source in layer.sources))
        for source in layer.sources:
            readers.setdefault(source, []).append(layer)
    late = {}
    for layer in stage.layers:
        if isinstance(layer, NearestEnlargement) and len(readers.get(layer.name, ())) == 1:
            (reader,) = readers[layer.name]
            late[layer.name] = max(lag_rows[source] for source in reader.sources) // layer.factor
    return late


def least_rows(architecture: Architecture, stage: Stage) -> int:
    """Return the fewest rows of its source that let a stage produce a row: one more than its largest lag."""
    shapes = architecture.map_shapes
    own_grid = shapes[stage.source].grid
    return max(int(lag * own_grid / shapes[name].grid) for name, lag in strip_plan(stage).lag_rows.items()) + 1


@functools.cache
def state_values_per_column(architecture: Architecture) -> int:
    """Return how many values strips keep for each column of the network's own grid: that of its first convolution."""
    shapes = architecture.map_shapes
    unit = shapes[architecture.convolutions[0].name].grid
    kept = Fraction(0)
    for stage in stages(architecture):
        for layer in stage.layers:
            if isinstance(layer, Convolution):
                kept += (layer.kernel - 1) * _values_per_column(shapes[layer.source], unit)
        for delay in strip_plan(stage).waits:
            kept += delay.rows * _values_per_column(shapes[delay.source], unit)
    return int(kept)


def _values_per_column(shape: MapShape, unit: Fraction) -> Fraction:
    return shape.channels * shape.grid / unit


def _held_by(layer: Convolution, parts: Sequence[Delay], channels: dict[str, int]) -> dict[tuple[str, int], Delay]:
    """Return the delays that the rows of a 3x3 convolution hold: its source one row late, and that source's parts."""
    found = {(layer.source, 1): Delay(source=layer.source, rows=1, held_by=layer.name)}
    first_channel = 0
    for part in parts:
        key = part.source, part.rows + 1
        found[key] = Delay(source=part.source, rows=key[1], held_by=layer.name, first_channel=first_channel)
        first_channel += channels[part.source]
    return found


def _channels(stage: Stage) -> dict[str, int]:
    """Return the channels of the results that convolutions read or produce, and of others that follow from them."""
    channels: dict[str, int] = {}
    for layer in stage.layers:
        if isinstance(layer, Convolution):
            channels[layer.source], channels[layer.name] = layer.in_channels, layer.out_channels
        elif layer.sources[0] in channels and not isinstance(layer, Concatenation | PixelShuffle | PixelUnshuffle):
            channels[layer.name] = channels[layer.sources[0]]
    return channels


def _lag_behind(layer: Layer, lag: int) -> int:
    """Return the lag of a layer's result from that of what it reads."""
    match layer:
        case Convolution():
            return lag + layer.kernel // 2
        case NearestEnlargement() | PixelShuffle():
            return lag * layer.factor
        case PixelUnshuffle() if lag:
            raise ValueError(f"{layer.name} cannot be done in strips: what it reads lags {lag} rows")
    return lag
