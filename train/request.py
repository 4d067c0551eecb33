"""Turns the options of a training run into its recipe, images and folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from realesr.errors import InputError, UsageError
from realesr.models.architecture import Architecture
from realesr.models.weights import SUFFIXES
from realesr.train.checkpoint import checkpoints, read_facts
from realesr.train.data.hold_out import hold_out
from realesr.train.data.image_list import find_training_images
from realesr.train.data.pairs import find_pairs
from realesr.train.degraded_pairs import check_outside
from realesr.train.recipe import Recipe, Stage, read_recipe, recipe_from
from realesr.train.start import NOTHING, network_at

DEFAULT_RECIPE = "x4plus"
FINE_TUNING = "finetune"
"""Recipe for a start from a network that is no run of ours; it is for any network."""

TRIAL_ITERATIONS = 8

_LISTS_OF_PATHS, _PATHS = ("data", "gt", "lq"), ("val_gt", "val_lq", "init_d", "patches", "vgg")


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
    """Name of a recipe, or path of a .toml file. None for that of the run in `init`, for FINE_TUNING where `init` is
    another network, else for DEFAULT_RECIPE."""
    changes: Sequence[str] | None = None
    """Changes of the recipe, like "stage1.batch=4"."""
    init: str | None = None
    """Where the generator starts: a network of the zoo, a file, a run's folder, or "none"."""
    init_d: Path | None = None
    """Where the discriminator starts: a file, or the folder of a run of stage 2."""
    patches: Path | None = None
    """Folder of a teacher's answers, which are trained on in the place of images; see `realesr.train.distill`."""
    vgg: Path | None = None
    """VGG19's file; None for the one in the cache, which is downloaded where it is missing."""
    device: str = "auto"
    """ "auto", "cpu", "cuda" or "mps"."""
    trial: bool = False
    """Whether the run is a short trial in a folder of its own."""
    resume: bool = False
    """Whether a run goes on with the recipe of its last checkpoint, in which `changes` may change the learning too."""

    def __post_init__(self) -> None:
        if not self.data and not self.gt and self.patches is None:
            raise UsageError("got no images: expected photos (data), or pairs (gt and lq)", option="data")
        if bool(self.gt) != bool(self.lq):
            raise UsageError(
                "got one of gt and lq, expected both: pairs need the large and the small images", option="gt"
            )
        if (self.val_gt is None) != (self.val_lq is None):
            raise UsageError("got one of val_gt and val_lq, expected both or none", option="val_gt")

    @property
    def run(self) -> Path:
        """Return the run's folder; a trial has another one."""
        return self.out.with_name(f"{self.out.name}-trial") if self.trial else self.out

    def as_record(self) -> dict[str, Any]:
        """Return what another process needs to resume the run, as JSON; see `resumed`. Paths are absolute."""
        record = {each.name: getattr(self, each.name) for each in fields(self)}
        for name in ("out", "recipe", "changes", "trial", "resume"):  # the folder and its checkpoint have them
            del record[name]
        for name in _LISTS_OF_PATHS:
            record[name] = None if record[name] is None else [str(path.absolute()) for path in record[name]]
        for name in _PATHS:
            record[name] = None if record[name] is None else str(record[name].absolute())
        if self.init is not None and Path(self.init).exists():
            record["init"] = str(Path(self.init).absolute())
        return record


@dataclass(frozen=True, kw_only=True)
class Images:
    """The images that are trained and validated on."""

    train: tuple[Path, ...]
    held_out: tuple[Path, ...]
    pairs: tuple[tuple[Path, Path], ...]
    """(HR, LR) each."""
    validation_pairs: tuple[tuple[Path, Path], ...]


def resumed(run: Path, *, changes: Sequence[str] = (), device: str | None = None) -> Request:
    """Return the request that goes on with a run as it was begun.

    Args:
        run: the run's folder.
        changes: of its recipe, like "stage2.learning_rate=5e-5"; see `realesr.train.resuming`.
        device: None for that of the run.

    Raises:
        InputError: the folder has no checkpoint, or an earlier realesr's, which has no such record.
    """
    there = checkpoints(run)
    if not there:
        raise InputError(f"{run} has no checkpoint to go on from: expected the folder of a run that was saved")
    record = read_facts(there[-1]).get("request")
    if record is None:
        raise InputError(f"{there[-1]} does not say how the run was begun: say the command that began it once more")
    known = {each.name for each in fields(Request)}
    values = {key: value for key, value in record.items() if key in known and value is not None}
    for name in _LISTS_OF_PATHS:
        if name in values:
            values[name] = [Path(path) for path in values[name]]
    values |= {name: Path(values[name]) for name in _PATHS if name in values}
    if device is not None:
        values["device"] = device
    return Request(**values, out=run, changes=changes, resume=True)


def check_same_start(run: Path, facts: Mapping[str, Any], request: Request) -> None:
    """Raise where a run is to go on that started from another network than the request names.

    Raises:
        UsageError: it did; both are named. An earlier realesr has kept no start, so that nothing can be said.
    """
    before, now = facts.get("request", {}).get("init"), request.init
    if before is not None and now is not None and before not in (now, str(Path(now).absolute())):
        raise UsageError(f"{run} started from {before}, and {now} is given: choose another folder", option="out")


def processes_of(run: Path) -> int:
    """Return how many processes have trained a run; 1 where it has no checkpoint."""
    there = checkpoints(run)
    return int(read_facts(there[-1])["processes"]) if there else 1


def default_folder(stage: Stage, recipe: str | None, init: str | None) -> Path:
    """Return the folder of a run for which none was named, like runs/realesr-animevideov3-stage1."""
    source = recipe or (init if init not in (None, NOTHING) else None) or DEFAULT_RECIPE
    name = Path(source).name
    for suffix in (".toml", *SUFFIXES):
        name = name.removesuffix(suffix)
    return Path("runs") / f"{name}-{stage}"


def recipe_for(request: Request) -> Recipe:
    """Return the recipe that was named, else the one that suits where the run starts; see `Request.recipe`.

    A recipe without a table of a network is for the one that training starts from.

    Raises:
        UsageError: it cannot be found, or has faults.
        ModelError: it takes its network from one that cannot be had.
    """
    changes, stages = request.changes or (), (request.stage,)
    own, of_init = checkpoints(request.run), checkpoints(Path(request.init or NOTHING).expanduser())
    if request.resume or (request.recipe is None and of_init):
        run, there = (request.run, own) if request.resume else (request.init, of_init)
        recipe = recipe_from(read_facts(there[-1])["recipe"], f"the recipe of {run}", changes, stages=stages)
    else:
        starts_elsewhere = request.init not in (None, NOTHING)
        name = request.recipe or (FINE_TUNING if starts_elsewhere else DEFAULT_RECIPE)
        recipe = read_recipe(name, changes, stages=stages, network_of=lambda init: _network_of(request, init))
    return shortened(recipe) if request.trial else recipe


def _network_of(request: Request, init_of_recipe: str) -> Architecture:
    """Return the network of a run whose recipe names none: that of its checkpoint, else of where it starts."""
    own = checkpoints(request.run)
    if own and not request.trial:
        return recipe_from(read_facts(own[-1])["recipe"], stages=()).architecture
    return network_at(request.init or init_of_recipe)


def shortened(recipe: Recipe) -> Recipe:
    """Return the recipe with eight iterations, two saves and two validations."""
    half = TRIAL_ITERATIONS // 2
    return replace(
        recipe,
        log_every=1,
        stage1=replace(recipe.stage1, iterations=TRIAL_ITERATIONS),
        stage2=replace(recipe.stage2, iterations=TRIAL_ITERATIONS, gan_ramp=0, d_warm_up=0),
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
        UsageError: there are photos and pairs, and the recipe does not say how to mix them; or the run's folder lies
            among the images, and its pictures would become some of them.
    """
    if request.data and request.gt and not recipe.data.pair_share:
        raise UsageError(
            "got photos and pairs, but data.pair_share is 0: expected the recipe to have the pairs' share, like 0.5"
        )
    if request.patches is not None:
        return Images(train=(), held_out=(), pairs=(), validation_pairs=())
    found = find_training_images(list(request.data)) if request.data else []
    pairs = tuple(find_pairs(list(request.gt), list(request.lq))) if request.gt and request.lq else ()
    check_outside(request.run, [*(request.data or ()), *(request.gt or ()), *(request.lq or ())])
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


def _hold_out_pairs(
    pairs: tuple[tuple[Path, Path], ...], count: int
) -> tuple[tuple[tuple[Path, Path], ...], tuple[tuple[Path, Path], ...]]:
    if not pairs:
        raise InputError("found no images: expected photos (data), or pairs (gt and lq)")
    _, held = hold_out([hr for hr, _ in pairs], count)
    chosen = set(held)
    kept = tuple(pair for pair in pairs if pair[0] not in chosen) or pairs
    return kept, tuple(pair for pair in pairs if pair[0] in chosen)
