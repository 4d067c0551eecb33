"""What a training run was asked for, and what that comes to: recipe, images, and the run's folder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from realesr.errors import InputError, UsageError
from realesr.train.checkpoint import checkpoints, read_facts
from realesr.train.image_list import find_pairs, find_training_images
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
    """What was asked for, as on the command line."""

    stage: Stage
    out: Path
    """The run's folder."""
    data: Sequence[Path] | None = None
    """Folders, images and lists of images to degrade."""
    gt: Sequence[Path] | None = None
    lq: Sequence[Path] | None = None
    """Given pairs."""
    val_gt: Path | None = None
    val_lq: Path | None = None
    """Given pairs to validate on."""
    recipe: str | None = None
    changes: Sequence[str] | None = None
    """Like "stage1.batch=4"."""
    init: str | None = None
    init_d: Path | None = None
    vgg: Path | None = None
    device: str = "auto"
    debug: bool = False

    def __post_init__(self) -> None:
        if not self.data and not self.gt:
            raise UsageError("got no images: expected --data PHOTOS, or pairs by --gt and --lq")
        if bool(self.gt) != bool(self.lq):
            raise UsageError("got one of --gt and --lq, expected both: pairs need the large and the small images")
        if (self.val_gt is None) != (self.val_lq is None):
            raise UsageError("got one of --val-gt and --val-lq, expected both or none")

    @property
    def run(self) -> Path:
        """The run's folder; that of a trial is another one."""
        return self.out.with_name(f"{self.out.name}-debug") if self.debug else self.out


@dataclass(frozen=True, kw_only=True)
class Images:
    """What is trained and validated on."""

    train: tuple[Path, ...]
    held_out: tuple[Path, ...]
    pairs: tuple[tuple[Path, Path], ...]
    """(HR, LR) each."""
    validation_pairs: tuple[tuple[Path, Path], ...]


def recipe_for(request: Request) -> Recipe:
    """The recipe that was asked for; without one, that of the run where stage 2 starts.

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
    return short(recipe) if request.debug else recipe


def short(recipe: Recipe) -> Recipe:
    """The same, with eight iterations, two saves and two validations."""
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
    """Where the generator starts.

    Raises:
        UsageError: stage 2 without `--init`.
    """
    if request.init is not None:
        return request.init
    if request.stage == "stage2":
        raise UsageError(
            "stage2 got no --init: expected the run's folder of stage 1, like --init runs/net, or --init none"
        )
    return recipe.init or NOTHING


def find_images(request: Request, recipe: Recipe) -> Images:
    """All images that there are, those for validation apart.

    Raises:
        InputError: there are none, some are missing, or pairs do not match.
        UsageError: there are photos and pairs, and the recipe does not say how to mix them.
    """
    if request.data and request.gt and not recipe.data.pair_share:
        raise UsageError(
            "got photos and pairs, but data.pair_share is 0: expected the pairs' share of a batch, like "
            "--set data.pair_share=0.5"
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
    """Make sure that a run goes on as it began.

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
        raise UsageError(f"{run} was begun otherwise ({shown}): give it the same recipe, or another --out")


def _hold_out_pairs(
    pairs: tuple[tuple[Path, Path], ...], count: int
) -> tuple[tuple[tuple[Path, Path], ...], tuple[tuple[Path, Path], ...]]:
    if not pairs:
        raise InputError("found no images: expected photos below --data, or pairs below --gt and --lq")
    _, held = hold_out([hr for hr, _ in pairs], count)
    chosen = set(held)
    kept = tuple(pair for pair in pairs if pair[0] not in chosen) or pairs
    return kept, tuple(pair for pair in pairs if pair[0] in chosen)


def _flat(table: object, where: str = "") -> dict[str, object]:
    """{"a": {"b": 1}} -> {"a.b": 1}; tuples as JSON has them."""
    if not isinstance(table, dict):
        return {where: list(table) if isinstance(table, tuple) else table}
    flat: dict[str, object] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{where}.{key}" if where else str(key))
    return flat
