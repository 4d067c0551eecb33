"""Reads recipes: all that a run depends on beside its images, in TOML, checked before anything starts."""

import copy
import dataclasses
import importlib.resources
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from realesr.errors import UsageError
from realesr.machine.tables import TableError, one_of_tables, range_problems, read_table, read_toml, set_key
from realesr.models.architecture import Architecture
from realesr.models.discriminator import UNetDiscriminator
from realesr.models.recognition import FAMILIES
from realesr.train.data.hold_out import HELD_OUT
from realesr.train.degrade.recipe import CORRECTED, FAITHFUL, DegradeRecipe
from realesr.train.distill.teacher_options import NO_TEACHER, TeacherOptions
from realesr.train.stage_options import StageOptions

VERSION = 1
"""Version of the form of recipes. A recipe with a higher one was written for a later realesr."""

Stage = Literal["stage1", "stage2"]
STAGES: tuple[Stage, ...] = ("stage1", "stage2")

_LARGEST_FILE_BYTES = 1 << 20
_MOST_SEED = 2**53 - 1
"""Largest seed: whole numbers up to here come through every reader of JSON unchanged."""
_MOST_ITERATIONS = 10**9
_MOST_PX = 8192
_MOST_IMAGES = 10**9
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
    max_failures: int = 100
    """Images that may be unreadable, or pairs whose sizes do not fit: each is named, and the next one takes its place.
    With more the run saves and ends."""

    def __post_init__(self) -> None:
        ranges = {"read_px": (16, _MOST_PX), "workers": (0, 512), "pair_share": (0, 1)}
        _check_ranges(self, {**ranges, "max_failures": (0, _MOST_IMAGES)})


@dataclass(frozen=True, kw_only=True)
class ValidationOptions:
    """How a run is validated."""

    every: int = 5000
    """Iterations between validations; 0 never validates."""
    crops: int = 16
    """Degraded crops, cut from the images that are held out."""
    hold_out: int = HELD_OUT
    """Images that are held out from training: at most a tenth of them, of few images five or a quarter."""
    crop_px: int = 256
    """Side of the crops, in HR px."""
    grid: int = 4
    """Crops that are shown in the picture of each validation."""
    lpips: tuple[str, ...] = ()
    """Files of LPIPS' weights, its linear layers and AlexNet or VGG16, with which it is scored too; none: it is not."""

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

    RANGES: ClassVar[dict[str, tuple[float, float]]] = {
        "version": (1, VERSION),
        "seed": (0, _MOST_SEED),
        "log_every": (1, _MOST_ITERATIONS),
    }
    """Least and most of each number of the file itself."""

    version: int = VERSION
    purpose: str = ""
    """The purpose of the recipe, in a few words."""
    architecture: Architecture = field(metadata=one_of_tables("network", FAMILIES))
    """The generator. In the file it is the table that its family is called, with what differs from the defaults; a file
    without such a table is for the network that training starts from."""
    discriminator: UNetDiscriminator = DISCRIMINATOR
    init: str = "none"
    """Where stage 1 starts: a network of the zoo, a file or a run's folder; "none" is random initialisation."""
    seed: int = 0
    """Seed of everything that is drawn, 0 to 2**53 - 1."""
    degrade: DegradeRecipe = CORRECTED
    data: DataOptions = DataOptions()
    teacher: TeacherOptions = NO_TEACHER
    stage1: StageOptions
    stage2: StageOptions
    validation: ValidationOptions = ValidationOptions()
    save: SaveOptions = SaveOptions()
    log_every: int = 100
    """Iterations between records of the losses, which wait for the GPU."""

    def __post_init__(self) -> None:
        # A network of 10^9 layers must be refused before anything asks for them.
        sizes = [f"{_family(self.architecture)}: {line}" for line in _size_problems(self.architecture)]
        sizes += [f"discriminator: {line}" for line in _size_problems(self.discriminator)]
        problems = [*range_problems(self, self.RANGES), *sizes]
        multiple = 1 if problems else self.architecture.scale * self.architecture.multiple_of
        if self.data.read_px % multiple:
            problems.append(f"got data.read_px = {self.data.read_px}, expected a multiple of {multiple}")
        if problems:
            raise UsageError("; ".join(problems))

    def stage_problems(self, name: Stage) -> Iterator[str]:
        """Yield what is wrong with a stage beside the rest of the recipe; the other stage does not matter."""
        stage, scale = self.stage(name), self.architecture.scale
        if name == "stage1" and (stage.gan or stage.perceptual):
            yield "got stage1.gan or stage1.perceptual above 0, expected 0: they are what stage 2 is for"
        if name == "stage2" and not stage.gan:
            yield "got stage2.gan = 0, expected more: a stage without it is stage 1"
        first_step = -(-stage.d_warm_up // stage.d_every) * stage.d_every
        if stage.gan and first_step >= stage.iterations:
            yield (
                f"got {name}.d_warm_up = {stage.d_warm_up:,}, d_every = {stage.d_every:,} and iterations = "
                f"{stage.iterations:,}, expected more iterations or less of the others: the generator would never learn"
            )
        if stage.crop_px % scale:
            yield f"got {name}.crop_px = {stage.crop_px}, expected a multiple of the scale {scale}"
        if stage.crop_px > self.data.read_px:
            yield f"got {name}.crop_px = {stage.crop_px}, expected at most data.read_px = {self.data.read_px}"

    def stage(self, name: Stage) -> StageOptions:
        """Return the options of one stage."""
        return self.stage1 if name == "stage1" else self.stage2

    def as_dict(self) -> dict[str, Any]:
        """Return every value as `recipe_from` takes it, for logs and checkpoints."""
        values = {key: value for key, value in dataclasses.asdict(self).items() if key != "architecture"}
        return {**values, **_network_table(self.architecture)}


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


def recipe_purpose(name_or_path: str) -> str:
    """Return what a recipe is for, in a few words; the errors are those of `recipe_text`."""
    return str(read_toml(recipe_text(name_or_path), f"the recipe {name_or_path}").get("purpose", ""))


def read_recipe(
    name_or_path: str,
    changes: Sequence[str] = (),
    *,
    stages: Sequence[Stage] = STAGES,
    network_of: Callable[[str], Architecture] | None = None,
) -> Recipe:
    """Read a recipe.

    Args:
        name_or_path: one of `recipe_names`, or the path of a .toml file.
        changes: like "stage1.batch=4"; they go over the file.
        stages: those that must fit the rest of the recipe.
        network_of: called with the recipe's `init` where the recipe has no table of a network; returns the network.
            None: such a recipe is refused.

    Raises:
        TableError: all that is wrong, a line each with key, value, what was expected, and the nearest key.
        UsageError: the recipe cannot be found, or is no TOML.
        ModelError: of `network_of`.
    """
    what = f"the recipe {name_or_path}"
    table = read_toml(recipe_text(name_or_path), what)
    return recipe_from(table, what, changes, stages=stages, network_of=network_of)


def recipe_from(
    table: dict[str, Any],
    what: str = "the recipe",
    changes: Sequence[str] = (),
    *,
    stages: Sequence[Stage] = STAGES,
    network_of: Callable[[str], Architecture] | None = None,
) -> Recipe:
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
    if network_of is not None and not any(name in table for name in FAMILIES):
        table |= _network_table(network_of(str(table.get("init", "none"))))
    table = _with_degradation(table, problems)
    recipe = read_table(Recipe, table, "", problems)
    if not problems:
        problems.extend(line for stage in stages for line in recipe.stage_problems(stage))
    if problems:
        raise TableError(what, problems)
    return recipe


def _family(network: Architecture) -> str:
    """Return what the table of this network is called."""
    return next(name for name, kind in FAMILIES.items() if type(network) is kind)


def _network_table(network: Architecture) -> dict[str, Any]:
    """Return the table of a recipe that names this network."""
    return {_family(network): dataclasses.asdict(network)}  # type: ignore[call-overload]  # every architecture is a dataclass


def _with_degradation(table: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """Read [degrade], whose defaults depend on its arithmetic: "corrected" or "faithful"."""
    degrade = table.get("degrade", {})
    if not isinstance(degrade, dict):
        return table  # read_table says that it is no table
    return {**table, "degrade": read_degradation(degrade, problems)}


def read_degradation(table: dict[str, Any], problems: list[str]) -> DegradeRecipe:
    """Read the table [degrade]; problems are added, a line each, as `read_table` does."""
    base = FAITHFUL if table.get("arithmetic") == "faithful" else CORRECTED
    return read_table(DegradeRecipe, table, "degrade", problems, base)
