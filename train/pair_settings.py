"""Reads how photos are degraded: from a degradation by name, from a recipe of training, or from its table alone."""

from collections.abc import Sequence
from typing import Any

from realesr.machine.tables import TableError, read_toml, set_key
from realesr.models.architecture import Architecture
from realesr.models.zoo import ZOO
from realesr.train.degrade.recipe import DegradeRecipe
from realesr.train.degraded_pairs import PairSettings
from realesr.train.recipe import DataOptions, Recipe, read_degradation, recipe_from, recipe_text

DEGRADATIONS = ("corrected", "faithful")
"""The degradations that have a name of their own."""

SCALE, CROP_PX = 4, 256
"""Those of a degradation without a recipe around it: of x4plus."""

_NETWORK = "realesrgan-x4plus"
"""Stands in where a recipe is for any network."""

_DEGRADATION_ALONE = {"version", "purpose", "seed", "degrade"}
"""Keys of a file that says nothing about networks."""


def read_pair_settings(
    recipe: str = "corrected",
    changes: Sequence[str] = (),
    *,
    scale: int | None = None,
    crop_px: int | None = None,
    seed: int | None = None,
) -> PairSettings:
    """Return how a recipe degrades; what is None is the recipe's.

    Args:
        recipe: "corrected", "faithful", the name of a recipe of training, or the path of a .toml file: a recipe, or
            its table [degrade] alone.
        changes: like "degrade.h264=0.3"; they go over the file.
        scale: HR px per LR px and side.
        crop_px: side of the pairs, in HR px. More is read, as in training, so that borders fall away.
        seed: of everything that is drawn.

    Raises:
        UsageError: the recipe cannot be found or has faults, or the sizes do not fit together.
    """
    what = f"the recipe {recipe}"
    if recipe in DEGRADATIONS:
        table: dict[str, Any] = {"degrade": {"arithmetic": recipe}}
    else:
        table = read_toml(recipe_text(recipe), what)
    for change in changes:
        set_key(table, change)
    if set(table) <= _DEGRADATION_ALONE:
        return _settings(_degradation_alone(table, what), None, scale, crop_px, seed)
    whole = recipe_from(table, what, stages=("stage1",), network_of=_network_of)
    return _settings(whole.degrade, whole, scale, crop_px, seed)


def _network_of(init: str) -> Architecture:
    """Return the network of a recipe that names none: of where it starts, where that is known without its file."""
    return ZOO.get(init, ZOO[_NETWORK]).architecture


def _degradation_alone(table: dict[str, Any], what: str) -> DegradeRecipe:
    problems: list[str] = []
    degrade = read_degradation(table.get("degrade", {}), problems)
    if problems:
        raise TableError(what, problems)
    return degrade


def _settings(
    degrade: DegradeRecipe, whole: Recipe | None, scale: int | None, crop_px: int | None, seed: int | None
) -> PairSettings:
    data = DataOptions() if whole is None else whole.data
    if scale is None:
        scale = SCALE if whole is None else whole.architecture.scale
    default_px = CROP_PX if whole is None else whole.stage1.crop_px
    crop_px = default_px // scale * scale if crop_px is None else crop_px
    return PairSettings(
        degrade=degrade,
        scale=scale,
        read_px=max(data.read_px // scale * scale, crop_px),
        crop_px=crop_px,
        sharpened=True if whole is None else whole.stage1.l1_sharp,
        seed=(0 if whole is None else whole.seed) if seed is None else seed,
        max_failures=data.max_failures,
    )
