"""Decides how the images of a network are cut: as requested, else as suits the network and the engine.

Networks of a receptive radius up to CHEAP_RADIUS_PX get tiles that overlap by all of it: those are exact. Tiles of
others fade into one another over a smaller overlap, unless images go untiled or in strips, which are exact too.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from realesr.engine import Engine, EngineSpec, SizeRule
from realesr.errors import UsageError
from realesr.models.architecture import Architecture
from realesr.models.facts import ModelFacts
from realesr.models.zoo import DEFAULT_MODEL, ZOO
from realesr.options import NetworkOptions
from realesr.runtime.tile_size import (
    StripBudget,
    max_untiled_area_px_for,
    strip_budget,
    tile_px_for,
)

BLEND_OVERLAP_PX = 32
"""Overlap of networks whose receptive radius is too large to be exact; in pixels of the network's own grid."""
EXACT_OVERLAP_PX = 128
"""Overlap at which x4plus differs from the untiled result by at most one 8-bit level (benchmarks/bench_seams.py)."""
CHEAP_RADIUS_PX = 40
"""Up to this receptive radius tiles overlap by all of it, and are exact."""
BAND_BYTES = 200_000_000
"""Most that the result of one row of tiles takes unless a tile size was requested; up to three are held at once."""
GPU_BAND_BYTES = 800_000_000
"""The same where a GPU runs the network: 1,024 rows of a photo 4,000 px wide, for less would cut down its tiles."""
SMALLEST_PART_PX = 32
"""Tiles are not made smaller than this: a device that cannot hold it cannot run the network."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Sizes of tiles and limits of strips for the images of one network."""

    tile_px: int
    """Side of the part of the result that one tile makes, in input px."""
    overlap_px: int
    """Margin that a tile reads beyond that on each side, in input px."""
    blend: bool
    """Whether neighbours fade into one another; needless where the overlap makes tiles exact."""
    band_bytes: int | None = None
    """Most memory for the result of one row of tiles, in float32: tiles are made less high for wide images."""
    max_untiled_area_px: int = 0
    """Area up to which an image is one tile, whatever `tile_px` is, in input px."""
    strips: StripBudget | None = None
    """Limits of strips; None where images are cut into tiles alone."""

    @property
    def in_words(self) -> str:
        """Return how images are cut: "strips where they fit, else tiles of 192 px that overlap by 32 px"."""
        tiles = f"tiles of {self.tile_px} px that overlap by {self.overlap_px} px"
        if self.max_untiled_area_px:
            tiles += f", images up to {self.max_untiled_area_px / 1e6:.2g} MP in one"
        return tiles if self.strips is None else f"strips where they fit, else {tiles}"


def tiling_for(
    facts: ModelFacts, options: NetworkOptions, engine: Engine, *, tuned_tile_px: int | None = None
) -> Tiling:
    """Return how images are cut for a network that is open in an engine.

    Args:
        facts: about the network.
        options: what was asked for.
        engine: the open engine, of which the spec and the memory cost count.
        tuned_tile_px: side of the tile that was measured to be the fastest, with what it overlaps; None without it.

    Raises:
        UsageError: The network takes only smaller tiles, or only tiles of one size that does not fit.
    """
    spec = engine.spec
    radius = math.inf if facts.radius_px is None else facts.radius_px
    overlap = overlap_for(facts, options)
    if spec.size.fixed_px is not None:
        return _fixed_tiling(options, spec.size, overlap, radius)
    blend = overlap < radius
    room_px = (spec.size.maximum_px or math.inf) - 2 * overlap
    if (options.tile_px or 1) > room_px:
        raise UsageError(
            f"{_model_name(options)} takes tiles of at most {spec.size.maximum_px} px with all that they overlap: "
            f"got an overlap of {overlap} px" + _and_tile(options) + ", expected less"
        )
    if options.tile_px is not None:
        return Tiling(tile_px=options.tile_px, overlap_px=overlap, blend=blend)
    read_px = tile_px_for(architecture_of(facts), engine)
    read_px = min(read_px, tuned_tile_px or read_px)
    tile_px = int(min(max(read_px - 2 * overlap, read_px // 2), room_px))
    return Tiling(
        tile_px=tile_px,
        overlap_px=overlap,
        blend=blend,
        band_bytes=BAND_BYTES if spec.device_bytes is None else GPU_BAND_BYTES,
        max_untiled_area_px=0 if tuned_tile_px else _max_untiled_area_px(facts, options, engine),
        strips=_strip_budget(facts, options, engine),
    )


def overlap_for(facts: ModelFacts, options: NetworkOptions) -> int:
    """Return the margin that tiles read on each side, in input px: as requested, else as the network needs."""
    radius = math.inf if facts.radius_px is None else facts.radius_px
    if options.overlap_px is not None:
        return options.overlap_px
    if options.exact or radius <= CHEAP_RADIUS_PX:
        return int(min(radius, EXACT_OVERLAP_PX * facts.multiple_of))
    return BLEND_OVERLAP_PX * facts.multiple_of


def architecture_of(facts: ModelFacts) -> Architecture:
    """Return the network's architecture; where it is unknown, that of the network that needs most memory."""
    return facts.architecture or ZOO[DEFAULT_MODEL].architecture


def _max_untiled_area_px(facts: ModelFacts, options: NetworkOptions, engine: Engine) -> int:
    """Return the area up to which images are not cut; 0 where strips or tiles are exact anyway."""
    architecture, has_strips = facts.architecture, engine.spec.first_rows_px is not None
    if architecture is None or has_strips or not _is_open(options, engine.spec):
        return 0
    if architecture.radius_px <= CHEAP_RADIUS_PX:
        return 0
    return max_untiled_area_px_for(architecture, engine)


def _strip_budget(facts: ModelFacts, options: NetworkOptions, engine: Engine) -> StripBudget | None:
    """Return the limits of strips; None where tiles were requested, or the engine has no strips."""
    architecture = facts.architecture
    if architecture is None or engine.spec.first_rows_px is None or not _is_open(options, engine.spec):
        return None
    halo = min(architecture.radius_px, EXACT_OVERLAP_PX * architecture.multiple_of)
    return strip_budget(architecture, engine, halo)


def _is_open(options: NetworkOptions, spec: EngineSpec) -> bool:
    """Return whether images need not be tiled: no tiles were requested, and the engine runs on the CPU alone."""
    return options.overlap_px is None and spec.device == "cpu" and len(options.devices) == 1


def _fixed_tiling(options: NetworkOptions, size: SizeRule, overlap: int, radius: float) -> Tiling:
    """Return how images are cut for a file of a fixed shape; a default overlap shrinks to fit it."""
    assert size.fixed_px is not None
    side = min(size.fixed_px)
    if options.overlap_px is None and not options.exact:
        overlap = min(overlap, side // 4 // size.multiple_of * size.multiple_of)
    room_px = side - 2 * overlap
    if room_px < 1 or options.tile_px not in (None, room_px):
        height, width = size.fixed_px
        raise UsageError(
            f"{_model_name(options)} takes only tiles of {width} x {height} px with all that they overlap: got an "
            f"overlap of {overlap} px"
            + _and_tile(options)
            + ", expected "
            + (
                f"a tile of {room_px} px, or none"
                if room_px >= 1
                else "a smaller one, or a network that takes all sizes"
            )
        )
    return Tiling(tile_px=max(size.fixed_px) - 2 * overlap, overlap_px=overlap, blend=overlap < radius)


def _model_name(options: NetworkOptions) -> str:
    return Path(options.model or DEFAULT_MODEL).name


def _and_tile(options: NetworkOptions) -> str:
    return f" and a tile of {options.tile_px} px" if options.tile_px else ""
