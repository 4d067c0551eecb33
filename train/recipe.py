"""Reads recipes: all that a run depends on beside its images, in TOML, checked before anything starts."""

import copy
import dataclasses
import importlib.resources
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from realesr.errors import UsageError
from realesr.machine.tables import TableError, one_of_tables, range_problems, read_table, read_toml, set_key
from realesr.models.architecture import Architecture
from realesr.models.discriminator import UNetDiscriminator
from realesr.models.recognition import FAMILIES
from realesr.train.degrade.recipe import CORRECTED, FAITHFUL, DegradeRecipe
from realesr.train.stage_options import StageOptions

VERSION = 1
"""Version of the form of recipes. A recipe with a higher one was written for a later realesr."""

Stage = Literal["stage1", "stage2"]

_LARGEST_FILE_BYTES = 1 << 20
_MOST_SEED = 2**53 - 1
"""Largest seed: whole numbers up to here come through every reader of JSON unchanged."""
_MOST_ITERATIONS = 10**9
_MOST_PX = 8192
_NETWORK = (0, 4096)
"""Range of the numbers in which networks differ; what else they must be, the networks say."""


def _check_ranges(options: object, ranges: dict[str, tuple[float, float]]) -> None:
    problems = list(range_problems(options, ranges))
    if problems:
        raise UsageError("; ".join(problems))


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How images are read."""

    read_px: int = 400
    """Side of the crops that are cut from images and degraded, in HR px. More than the stage's crop_px, so that the
    borders of blurs and resizes fall away. 400 is Real-ESRGAN's (realesrgan_dataset.py)."""
    flip: bool = True
    """Whether half of the samples are mirrored."""
    rotate: bool = False
    """Whether half are flipped upside down, and half have their axes swapped."""
    workers: int = 4
    """Processes that read images; 0 reads in the training process."""
    pair_share: float = 0.0
    """Share of a batch that is taken from given pairs where there are some; the rest is degraded. 1: pairs only."""

    def __post_init__(self) -> None:
        _check_ranges(self, {"read_px": (16, _MOST_PX), "workers": (0, 512), "pair_share": (0, 1)})


@dataclass(frozen=True, kw_only=True)
class ValidationOptions:
    """How a run is validated."""

    every: int = 5000
    """Iterations between validations; 0 never validates."""
    crops: int = 16
    """Degraded crops, cut from the images that are held out."""
    hold_out: int = 8
    """Images that are held out from training; fewer where there are few images, at most a tenth of them."""
    crop_px: int = 256
    """Side of the crops, in HR px."""
    grid: int = 4
    """Crops that are shown in the picture of each validation."""

    def __post_init__(self) -> None:
        ranges = {"every": (0, _MOST_ITERATIONS), "crops": (1, 10_000), "hold_out": (1, 1_000_000)}
        _check_ranges(self, {**ranges, "crop_px": (32, _MOST_PX), "grid": (1, 100)})


@dataclass(frozen=True, kw_only=True)
class SaveOptions:
    """How often a run is saved, and what is kept."""

    every: int = 5000
    """Iterations between checkpoints. The run can be taken up again at each, and after Ctrl-C where it was stopped."""
    keep: int = 2
    """Checkpoints that are kept, beside the networks of the last and the best iteration."""

    def __post_init__(self) -> None:
        _check_ranges(self, {"every": (1, _MOST_ITERATIONS), "keep": (1, 1_000_000)})


DISCRIMINATOR = UNetDiscriminator()


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All options of a run's two stages."""

    version: int = VERSION
    purpose: str = ""
    """The purpose of the recipe, in a few words."""
    architecture: Architecture = field(metadata=one_of_tables("network", FAMILIES))
    """The generator. In the file it is the table that its family is called, with what differs from the defaults."""
    discriminator: UNetDiscriminator = DISCRIMINATOR
    init: str = "none"
    """Where stage 1 starts: a network of the zoo, a file or a run's folder; "none" is random initialisation."""
    seed: int = 0
    """Seed of everything that is drawn, 0 to 2**53 - 1."""
    degrade: DegradeRecipe = CORRECTED
    data: DataOptions = DataOptions()
    stage1: StageOptions
    stage2: StageOptions
    validation: ValidationOptions = ValidationOptions()
    save: SaveOptions = SaveOptions()
    log_every: int = 100
    """Iterations between records of the losses, which wait for the GPU."""

    def __post_init__(self) -> None:
        ranges = {"version": (1, VERSION), "seed": (0, _MOST_SEED), "log_every": (1, _MOST_ITERATIONS)}
        # A network of 10^9 layers must be refused before anything asks for them.
        sizes = [line for network in (self.architecture, self.discriminator) for line in _size_problems(network)]
        problems = [*range_problems(self, ranges), *sizes]
        if problems:
            raise UsageError("; ".join(problems))
        scale = self.architecture.scale
        if self.stage1.gan or self.stage1.perceptual:
            problems.append("got stage1.gan or stage1.perceptual above 0, expected 0: they are what stage 2 is for")
        if not self.stage2.gan:
            problems.append("got stage2.gan = 0, expected more: a stage without it is stage 1")
        for name, stage in (("stage1", self.stage1), ("stage2", self.stage2)):
            if stage.crop_px % scale:
                problems.append(f"got {name}.crop_px = {stage.crop_px}, expected a multiple of the scale {scale}")
            if stage.crop_px > self.data.read_px:
                problems.append(
                    f"got {name}.crop_px = {stage.crop_px}, expected at most data.read_px = {self.data.read_px}"
                )
        multiple = scale * self.architecture.multiple_of
        if self.data.read_px % multiple:
            problems.append(f"got data.read_px = {self.data.read_px}, expected a multiple of {multiple}")
        if problems:
            raise UsageError("; ".join(problems))

    def stage(self, name: Stage) -> StageOptions:
        """Return the options of one stage."""
        return self.stage1 if name == "stage1" else self.stage2

    def as_dict(self) -> dict[str, Any]:
        """Return every value as `recipe_from` takes it, for logs and checkpoints."""
        values = dataclasses.asdict(self)
        family = next(name for name, kind in FAMILIES.items() if type(self.architecture) is kind)
        return {family if key == "architecture" else key: value for key, value in values.items()}


def _size_problems(network: object) -> Iterator[str]:
    fields = [field.name for field in dataclasses.fields(network)]  # type: ignore[arg-type]
    ranges = {name: _NETWORK for name in fields if type(getattr(network, name)) is int}
    least = {"features": (1, _NETWORK[1])} if isinstance(network, UNetDiscriminator) else {}
    return range_problems(network, {**ranges, **least})


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with realesr."""
    folder = importlib.resources.files("realesr.train").joinpath("recipes")
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))


def recipe_text(name_or_path: str) -> str:
    """Return the TOML text of a recipe.

    Raises:
        UsageError: no recipe has this name, and there is no such file.
    """
    if name_or_path in recipe_names():
        return importlib.resources.files("realesr.train").joinpath("recipes", f"{name_or_path}.toml").read_text("utf-8")
    path = Path(name_or_path).expanduser()
    try:
        is_odd = path.exists() and not path.is_dir() and not path.is_file()  # pipes would be waited for
        if not is_odd and path.stat().st_size <= _LARGEST_FILE_BYTES:
            return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text: expected a recipe in TOML") from None
    except (OSError, ValueError, RuntimeError):  # of names with zero bytes; of homes that cannot be found
        raise UsageError(
            f"got the recipe {name_or_path if name_or_path.isprintable() else ascii(name_or_path):.200}, expected one "
            f"of {', '.join(recipe_names())}, or the path of a .toml file"
        ) from None
    raise UsageError(f"{path} is no recipe: expected a file of at most {_LARGEST_FILE_BYTES:,} bytes")


def read_recipe(name_or_path: str, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        name_or_path: one of `recipe_names`, or the path of a .toml file.
        changes: like "stage1.batch=4"; they go over the file.

    Raises:
        TableError: all that is wrong, a line each with key, value, what was expected, and the nearest key.
        UsageError: the recipe cannot be found, or is no TOML.
    """
    what = f"the recipe {name_or_path}"
    return recipe_from(read_toml(recipe_text(name_or_path), what), what, changes)


def recipe_from(table: dict[str, Any], what: str = "the recipe", changes: Sequence[str] = ()) -> Recipe:
    """Make a recipe from TOML's tables, or from `Recipe.as_dict`; see `read_recipe`."""
    table = copy.deepcopy(table)
    for change in changes:
        set_key(table, change)
    version = table.get("version", VERSION)
    if isinstance(version, int) and version > VERSION:
        raise UsageError(
            f"{what} is of version {min(version, 10**9)}, expected {VERSION} or lower: it needs a later realesr"
        )
    problems: list[str] = []
    table = _with_degradation(table, problems)
    recipe = read_table(Recipe, table, "", problems)
    if problems:
        raise TableError(what, problems)
    return recipe


def _with_degradation(table: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """Read [degrade], whose defaults depend on its arithmetic: "corrected" or "faithful"."""
    degrade = table.get("degrade", {})
    if not isinstance(degrade, dict):
        return table  # read_table says that it is no table
    base = FAITHFUL if degrade.get("arithmetic") == "faithful" else CORRECTED
    changed = read_table(DegradeRecipe, degrade, "degrade", problems, base)
    return {**{key: value for key, value in table.items() if key != "degrade"}, "degrade": changed}
