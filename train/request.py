"""Turns the options of a training run into its recipe, images and folder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from realesr.errors import InputError, UsageError
from realesr.train.checkpoint import checkpoints, read_facts
from realesr.train.data.image_list import find_pairs, find_training_images
from realesr.train.recipe import Recipe, Stage, read_recipe, recipe_from
from realesr.train.start import NOTHING
from realesr.train.validation import hold_out

DEFAULT_RECIPE = "x4plus"

DEBUG_ITERATIONS = 8

_FREE_TO_CHANGE = (
    "purpose",
    "validation",
    "save",
    "log_every",
    "data.workers",
    "stage1.iterations",
    "stage2.iterations",
)
"""Keys of a recipe that may differ when an unfinished run goes on: they change nothing that was learned."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of a run, which the command line has by the same names."""

    stage: Stage
    out: Path
    """The run's folder."""
    data: Sequence[Path] | None = None
    """Folders, images and lists of images to degrade."""
    gt: Sequence[Path] | None = None
    """The large images (ground truth) of given pairs."""
    lq: Sequence[Path] | None = None
    """The small images (low quality) of given pairs."""
    val_gt: Path | None = None
    """The large images of given pairs to validate on."""
    val_lq: Path | None = None
    """The small images of given pairs to validate on."""
    recipe: str | None = None
    """Name of a recipe, or path of a .toml file; None for that of the run in `init`, else DEFAULT_RECIPE."""
    changes: Sequence[str] | None = None
    """Changes of the recipe, like "stage1.batch=4"."""
    init: str | None = None
    """Where the generator starts: a network of the zoo, a file, a run's folder, or "none"."""
    init_d: Path | None = None
    """Weights where the discriminator starts."""
    vgg: Path | None = None
    """VGG19's file; None for the one in the cache, which is downloaded where it is missing."""
    device: str = "auto"
    """ "auto", "cpu", "cuda" or "mps"."""
    debug: bool = False
    """Whether the run is a short trial in a folder of its own."""

    def __post_init__(self) -> None:
        if not self.data and not self.gt:
            raise UsageError("got no images: expected photos (data), or pairs (gt and lq)", option="data")
        if bool(self.gt) != bool(self.lq):
            raise UsageError(
                "got one of gt and lq, expected both: pairs need the large and the small images", option="gt"
            )
        if (self.val_gt is None) != (self.val_lq is None):
            raise UsageError("got one of val_gt and val_lq, expected both or none", option="val_gt")

    @property
    def run(self) -> Path:
        """Return the run's folder; with `debug` it is another one."""
        return self.out.with_name(f"{self.out.name}-debug") if self.debug else self.out


@dataclass(frozen=True, kw_only=True)
class Images:
    """The images that are trained and validated on."""

    train: tuple[Path, ...]
    held_out: tuple[Path, ...]
    pairs: tuple[tuple[Path, Path], ...]
    """(HR, LR) each."""
    validation_pairs: tuple[tuple[Path, Path], ...]


def recipe_for(request: Request) -> Recipe:
    """Return the recipe that was named; without a name, that of the run where stage 2 starts.

    Raises:
        UsageError: it cannot be found, or has faults.
    """
    changes = request.changes or ()
    init_run = None if request.init is None else Path(request.init).expanduser()
    if request.recipe is None and init_run is not None and checkpoints(init_run):
        table = read_facts(checkpoints(init_run)[-1])["recipe"]
        recipe = recipe_from(table, f"the recipe of {init_run}", changes)
    else:
        recipe = read_recipe(request.recipe or DEFAULT_RECIPE, changes)
    return shortened(recipe) if request.debug else recipe


def shortened(recipe: Recipe) -> Recipe:
    """Return the recipe with eight iterations, two saves and two validations."""
    half = DEBUG_ITERATIONS // 2
    return replace(
        recipe,
        log_every=1,
        stage1=replace(recipe.stage1, iterations=DEBUG_ITERATIONS),
        stage2=replace(recipe.stage2, iterations=DEBUG_ITERATIONS, gan_ramp=0, d_warm_up=0),
        validation=replace(recipe.validation, every=half, crops=2),
        save=replace(recipe.save, every=half),
    )


def init_for(request: Request, recipe: Recipe) -> str:
    """Return where the generator starts.

    Raises:
        UsageError: stage 2 without `init`.
    """
    if request.init is not None:
        return request.init
    if request.stage == "stage2":
        raise UsageError(
            "stage2 got no init: expected where it starts, like runs/net, the folder of stage 1's run, or none",
            option="init",
        )
    return recipe.init or NOTHING


def find_images(request: Request, recipe: Recipe) -> Images:
    """Find all images, and hold out those for validation.

    Raises:
        InputError: there are none, some are missing, or pairs do not match.
        UsageError: there are photos and pairs, and the recipe does not say how to mix them.
    """
    if request.data and request.gt and not recipe.data.pair_share:
        raise UsageError(
            "got photos and pairs, but data.pair_share is 0: expected the recipe to have the pairs' share, like 0.5"
        )
    found = find_training_images(list(request.data)) if request.data else []
    pairs = tuple(find_pairs(list(request.gt), list(request.lq))) if request.gt and request.lq else ()
    if request.val_gt is not None and request.val_lq is not None:
        return Images(
            train=tuple(found),
            held_out=(),
            pairs=pairs,
            validation_pairs=tuple(find_pairs([request.val_gt], [request.val_lq])),
        )
    if found:
        train, held = hold_out(found, recipe.validation.hold_out)
        return Images(train=tuple(train), held_out=tuple(held), pairs=pairs, validation_pairs=())
    kept, held_pairs = _hold_out_pairs(pairs, recipe.validation.hold_out)
    return Images(train=(), held_out=(), pairs=kept, validation_pairs=held_pairs)


def check_same_run(run: Path, old: dict[str, object], new: dict[str, object]) -> None:
    """Raise where a run would not go on as it began.

    Raises:
        UsageError: the recipe differs in what is learned; the keys are named.
    """
    before, now = _flat(old), _flat(new)
    differing = [
        f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
        for key in {**before, **now}
        if before.get(key) != now.get(key) and not key.startswith(_FREE_TO_CHANGE)
    ]
    if differing:
        shown = "; ".join(differing[:5]) + (f"; and {len(differing) - 5} more" if len(differing) > 5 else "")
        raise UsageError(f"{run} was begun otherwise ({shown}): give it the same recipe, or another folder")


def _hold_out_pairs(
    pairs: tuple[tuple[Path, Path], ...], count: int
) -> tuple[tuple[tuple[Path, Path], ...], tuple[tuple[Path, Path], ...]]:
    if not pairs:
        raise InputError("found no images: expected photos (data), or pairs (gt and lq)")
    _, held = hold_out([hr for hr, _ in pairs], count)
    chosen = set(held)
    kept = tuple(pair for pair in pairs if pair[0] not in chosen) or pairs
    return kept, tuple(pair for pair in pairs if pair[0] in chosen)


def _flat(table: object, where: str = "") -> dict[str, object]:
    """Return nested tables with dotted keys, {"a": {"b": 1}} as {"a.b": 1}; tuples become lists, as in JSON."""
    if not isinstance(table, dict):
        return {where: list(table) if isinstance(table, tuple) else table}
    flat: dict[str, object] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{where}.{key}" if where else str(key))
    return flat
