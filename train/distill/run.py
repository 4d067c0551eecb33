"""Distils a network: the teacher's answers, a stage that learns them, and one that learns their texture.

OUT/teacher      the answers, unless the recipe's teacher.cache names another folder
OUT/stage_a      a run of stage 1: L1 to the answers, which takes away noise and blur, and texture with them
OUT              a run of stage 2: a discriminator, whose real images are the answers, brings texture back
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from realesr import networks
from realesr.errors import UsageError
from realesr.models.weights import Weights
from realesr.models.zoo import ZOO, load_model
from realesr.progress import MessageCallback
from realesr.train.checkpoint import checkpoints, read_facts
from realesr.train.data.hold_out import hold_out
from realesr.train.data.image_list import find_training_images
from realesr.train.degraded_pairs import check_outside
from realesr.train.distill.asking import OpenTeacher, Question, answer_all
from realesr.train.distill.patches import PatchOptions
from realesr.train.distill.teacher_options import NONE
from realesr.train.distributed import is_torchrun
from realesr.train.log import amount_shown
from realesr.train.progress_lines import ProgressLines
from realesr.train.recipe import STAGES, Recipe, Stage, read_recipe, recipe_from
from realesr.train.request import Request
from realesr.train.resuming import changes_since
from realesr.train.start import network_at, start_generator
from realesr.train.trainer import train

DEFAULT_RECIPE = "distill_64x16"

STAGE_A, ANSWERS = "stage_a", "teacher"
"""Folders within the run's."""

_TRIAL_CHANGES = (
    "log_every=1",
    "teacher.patches=64",
    "teacher.cache=none",
    "stage1.iterations=8",
    "stage2.iterations=8",
    "stage2.gan_ramp=0",
    "stage2.d_warm_up=0",
    "validation.every=4",
    "validation.crops=2",
    "save.every=4",
)


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """The options of a distillation, which the command line has by the same names."""

    data: Sequence[Path]
    """Folders, images and lists of images."""
    out: Path
    """The run's folder."""
    teacher: str | None = None
    """The large network: a name of the zoo, a file, or a run's folder; None for the recipe's."""
    cache: Path | None = None
    """Folder of the teacher's answers; None for the recipe's, which may be one in the run's folder."""
    recipe: str = DEFAULT_RECIPE
    """Name of a recipe, or path of a .toml file."""
    changes: Sequence[str] = ()
    """Changes of the recipe, like "stage1.batch=4"."""
    init: str | None = None
    """Where the network starts: one of the zoo, a file, a run's folder, or "none"; None for the recipe's."""
    device: str = "auto"
    """Device of the training: "auto", "cpu", "cuda" or "mps"."""
    trial: bool = False
    """Whether few patches and eight iterations of each stage are done, in a folder of its own."""

    @property
    def run(self) -> Path:
        """Return the run's folder; a trial has another one."""
        return self.out.with_name(f"{self.out.name}-trial") if self.trial else self.out

    @property
    def all_changes(self) -> tuple[str, ...]:
        """Return the changes of the recipe with those of the other options, which come last."""
        changes = [*self.changes]
        changes += [f"teacher.model={json.dumps(self.teacher)}"] if self.teacher is not None else []
        changes += [f"teacher.cache={json.dumps(str(self.cache))}"] if self.cache is not None else []
        changes += [f"init={json.dumps(self.init)}"] if self.init is not None else []
        return (*changes, *(_TRIAL_CHANGES if self.trial else ()))


def distill(
    options: Distillation, *, open_teacher: OpenTeacher, say: MessageCallback, show: MessageCallback
) -> Path | None:
    """Have the patches answered, and train both stages; each goes on where it was stopped.

    Args:
        options: of the distillation.
        open_teacher: opens the teacher by the fastest engine; not called where all is answered.
        say: called with each message.
        show: called with each version of the one line of status.

    Returns:
        Path of the network, in the first process.

    Raises:
        KeyboardInterrupt: after Ctrl-C, once what was done is saved.
        RealesrError: whatever is wrong. Recipe, teacher, start and images are checked before anything is asked.
    """
    if not is_torchrun():  # else the command that has started these processes has asked before
        ask(options, open_teacher=open_teacher, say=say, show=show)
    folder = _answers_folder(options, read_recipe(options.recipe, options.all_changes, network_of=network_at))
    stage_a = Request(
        stage="stage1",
        out=options.run / STAGE_A,
        recipe=options.recipe,
        changes=options.all_changes,
        patches=folder,
        device=options.device,
    )
    say("stage A: what the teacher answers")
    train(stage_a, say=say, show=show)
    say("stage B: its texture")
    return train(replace(stage_a, stage="stage2", out=options.run, init=str(stage_a.out)), say=say, show=show)


def ask(options: Distillation, *, open_teacher: OpenTeacher, say: MessageCallback, show: MessageCallback) -> None:
    """Check everything, and have the patches answered that are not; arguments and errors are those of `distill`."""
    recipe = read_recipe(options.recipe, options.all_changes, network_of=network_at)
    _check_sizes(recipe)
    if not options.trial:
        _check_begun_alike(options, recipe)
    check_outside(options.run, options.data)
    images = find_training_images(list(options.data))
    learned, held_out = hold_out(images, recipe.validation.hold_out)
    teacher = _load_teacher(recipe, show)
    if options.trial and options.run.is_dir():
        shutil.rmtree(options.run)
    start_generator(networks.build(recipe.architecture), recipe.architecture, recipe.init)
    question = Question(
        teacher=teacher,
        images=tuple(learned),
        held_out=tuple(held_out),
        options=PatchOptions(
            degrade=recipe.degrade,
            scale=recipe.architecture.scale,
            patch_px=recipe.teacher.patch_px,
            read_px=recipe.data.read_px,
            native=recipe.teacher.native,
            sharpened=recipe.stage1.l1_sharp,
            seed=recipe.seed,
        ),
        patches=recipe.teacher.patches,
        held_out_patches=recipe.validation.crops,
        workers=recipe.data.workers,
        max_failures=recipe.data.max_failures,
        device="cuda" if options.device in ("auto", "cuda") and torch.cuda.is_available() else "cpu",
    )
    folder = _answers_folder(options, recipe)
    answer_all(question, folder, open_teacher, say=say, on_progress=ProgressLines("patches", show))


def _answers_folder(options: Distillation, recipe: Recipe) -> Path:
    return options.run / ANSWERS if recipe.teacher.cache == NONE else Path(recipe.teacher.cache).expanduser()


def _load_teacher(recipe: Recipe, show: MessageCallback) -> Weights | Path:
    """Load the teacher; raise UsageError where there is none, or it has another scale: then it is not fetched."""
    model, entry = recipe.teacher.model, ZOO.get(recipe.teacher.model)
    if model == NONE:
        raise UsageError("got no teacher: expected a large network, like realesrgan-x4plus", option="teacher")
    if entry is not None:
        _check_scale(model, entry.scale, recipe)
    teacher = load_model(model, on_progress=amount_shown(f"fetching {model}", show))
    if isinstance(teacher, Weights):
        _check_scale(model, teacher.architecture.scale, recipe)
    return teacher


def _check_scale(model: str, scale: int, recipe: Recipe) -> None:
    wanted = recipe.architecture.scale
    if scale != wanted:
        raise UsageError(
            f"the teacher {model} enlarges {scale} times and the network that learns {wanted} times: expected the same "
            "of both",
            option="teacher",
        )


def _check_begun_alike(options: Distillation, recipe: Recipe) -> None:
    """Raise UsageError where a stage was begun otherwise in its folder, before hours are spent on what precedes it."""
    folders: tuple[tuple[Stage, Path], ...] = (("stage1", options.run / STAGE_A), ("stage2", options.run))
    for stage, folder in folders:
        there = checkpoints(folder)
        if not there:
            continue
        facts = read_facts(there[-1])
        before = recipe_from(facts["recipe"], f"the recipe of {folder}", stages=()).as_dict()
        now = recipe.as_dict()
        changes_since(
            {"stage": facts["stage"], **before}, {"stage": stage, **now}, folder, stage=stage, on_purpose=False
        )


def _check_sizes(recipe: Recipe) -> None:
    """Raise UsageError where patches are larger than what is read, or crops larger than patches."""
    patch_px = recipe.teacher.patch_px * recipe.architecture.scale
    if patch_px > recipe.data.read_px:
        raise UsageError(
            f"got teacher.patch_px = {recipe.teacher.patch_px}, which is {patch_px} px of a photo: expected at most "
            f"data.read_px = {recipe.data.read_px}"
        )
    for name in STAGES:
        crop_px = recipe.stage(name).crop_px
        if crop_px > patch_px:
            raise UsageError(
                f"got {name}.crop_px = {crop_px}, expected at most {patch_px}, the side of the teacher's answers to "
                f"patches of teacher.patch_px = {recipe.teacher.patch_px}"
            )
