"""Opens a run with its folder, networks, images and logs, or takes it up from its last checkpoint."""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from realesr import networks
from realesr.machine.processor import has_fast_bf16
from realesr.progress import MessageCallback
from realesr.train.checkpoint import checkpoints, read_facts, read_state
from realesr.train.data.failures import ReadFailures
from realesr.train.data.hold_out import held_out_warning
from realesr.train.data.loader import TrainingData
from realesr.train.data.pair_pool import PairPool
from realesr.train.degrade.codecs import check_codecs
from realesr.train.distill.patch_batches import AnsweredPatches, answered_patches, answers_of
from realesr.train.distributed import World, data_parallel, wait_for_all
from realesr.train.log import RunLog, Throughput, amount_shown
from realesr.train.losses import PerceptualLoss
from realesr.train.recipe import Recipe, recipe_from
from realesr.train.request import (
    TRIAL_ITERATIONS,
    Images,
    Request,
    check_same_start,
    find_images,
    init_for,
    recipe_for,
)
from realesr.train.resuming import changes_since, judges_otherwise
from realesr.train.run import AGAIN, ROLLED_BACK, TrainingRun, failures_folder, leave_out, save
from realesr.train.run_lock import LOCK, run_lock
from realesr.train.stage_options import StageOptions
from realesr.train.start import start_discriminator, start_generator
from realesr.train.timing import Stopwatch
from realesr.train.train_state import TrainState, make_state
from realesr.train.validation import ValidationSet, answered_set, bicubic_scores, degraded_set, given_set
from realesr.train.vgg import find_vgg, load_vgg


def open_run(
    request: Request, world: World, say: MessageCallback, show: MessageCallback, held: ExitStack
) -> TrainingRun:
    """Begin a run, or resume it from its last checkpoint; `held` gets the lock on its folder.

    The largest download, VGG19's, comes last: whatever else is wrong is told before it.

    Args:
        request: the options of the run.
        world: the processes that train.
        say: called with each message.
        show: called with each version of the one line of status.
        held: closes what the run holds open.

    Raises:
        RealesrError: whatever is wrong with recipe, images or networks, or another process trains in this folder;
            nothing was begun.
    """
    recipe = recipe_for(request)
    options = recipe.stage(request.stage)
    images = find_images(request, recipe)
    state = _make_state(request, recipe, world, say, show, fresh=request.trial or not checkpoints(request.run))
    if world.is_first:
        held.enter_context(run_lock(request.run))
        if request.trial:
            _empty(request.run)
    wait_for_all(world)
    checkpoint, rolled_back = _checkpoint_to_go_on_from(request.run, world, say)
    validates = world.is_first and recipe.validation.every > 0
    left_out: dict[str, str] = {}
    validation = _validation_set(request, images, recipe, options, left_out) if validates else None
    run = TrainingRun(
        request=request,
        recipe=recipe,
        folder=request.run,
        world=world,
        state=state,
        data=_training_data(request, images, recipe, options),
        validation=validation,
        bicubic=None if validation is None else bicubic_scores(validation),
        perceptual=None,
        pool=PairPool(recipe.degrade.pool, eight_bit=False) if recipe.degrade.pool else None,
        watch=Stopwatch(world.device),
        throughput=Throughput(options.iterations),
        failures=ReadFailures(recipe.data.max_failures),
        judged_by=None if validation is None else validation.as_record(),
        log=None,
    )
    changes = {} if checkpoint is None else _restore(run, checkpoint, images, say)
    if options.perceptual:
        run.perceptual = _perceptual_loss(request.vgg, world, show)
    if rolled_back:
        run.rollbacks += 1
        save(run)
    if world.is_first:
        held.callback(_open_log(run, images).close)
        _tell_changes(run, changes, say)
        _say_images(run, images, len(left_out), say)
        _warn_of_bf16(run, say)
        say(f"{f'a trial of {TRIAL_ITERATIONS} iterations, ' if request.trial else ''}in the folder {run.folder}")
    leave_out(run, left_out, say, "left out of the validation")
    return run


def _warn_of_bf16(run: TrainingRun, say: MessageCallback) -> None:
    """Say where bfloat16 makes a run fifty times as slow as it could be."""
    if run.options.bf16 and run.world.device.type == "cpu" and not has_fast_bf16():
        stage = run.request.stage
        say(f"this processor has no bfloat16 instructions and imitates them: {stage}.bf16=false is many times as fast")


def _make_state(
    request: Request, recipe: Recipe, world: World, say: MessageCallback, show: MessageCallback, *, fresh: bool
) -> TrainState:
    """Make the networks; fresh ones get their first weights, others will get those of the checkpoint."""
    options = recipe.stage(request.stage)
    torch.manual_seed(recipe.seed)
    generator = networks.build(recipe.architecture)
    discriminator = networks.build(recipe.discriminator) if options.gan else None
    if fresh:
        init = init_for(request, recipe)
        say(start_generator(generator, recipe.architecture, init, amount_shown(f"fetching {init}", show)))
        if request.init_d is not None and discriminator is not None:
            say(start_discriminator(discriminator, recipe.discriminator, request.init_d))
    state = make_state(generator, discriminator, options, world.device)
    state.generator = _ready(state.generator, options, world)
    if state.discriminator is not None:
        state.discriminator = _ready(state.discriminator, options, world)
    return state


def _ready(module: nn.Module, options: StageOptions, world: World) -> nn.Module:
    if options.compile:
        module.compile()
    return data_parallel(module, world)


def _training_data(
    request: Request, images: Images, recipe: Recipe, options: StageOptions
) -> TrainingData | AnsweredPatches:
    if request.patches is not None:
        return answered_patches(request.patches, recipe, options)
    if images.train:
        check_codecs(recipe.degrade)
    share = recipe.data.pair_share
    if images.pairs and not images.train:
        share = 1.0
    return TrainingData(
        images=images.train,
        pairs=images.pairs,
        pair_share=share if images.pairs else 0.0,
        crop_px=recipe.data.read_px,
        pair_crop_px=options.crop_px,
        scale=recipe.architecture.scale,
        flip=recipe.data.flip,
        rotate=recipe.data.rotate,
        max_failures=recipe.data.max_failures,
    )


def _validation_set(
    request: Request, images: Images, recipe: Recipe, stage: StageOptions, left_out: dict[str, str]
) -> ValidationSet:
    """Make the validation set; `left_out` gets the images and pairs that cannot be read, with the reasons."""
    scale, options = recipe.architecture.scale, recipe.validation
    if request.patches is not None:
        return answered_set(*answers_of(request.patches, recipe).held_out(), options, stage=stage)
    if images.validation_pairs:
        pairs = images.validation_pairs
        return given_set(pairs, options, stage=stage, scale=scale, on_failure=left_out.__setitem__)
    return degraded_set(
        images.held_out, recipe.degrade, options, stage=stage, scale=scale, on_failure=left_out.__setitem__
    )


def _perceptual_loss(path: Path | None, world: World, show: MessageCallback) -> PerceptualLoss:
    """Load VGG19; one process of each machine fetches the file where it is missing, and the others then find it."""
    if world.rank_here == 0:
        find_vgg(path, on_progress=amount_shown("fetching VGG19", show))
    wait_for_all(world)
    return PerceptualLoss(load_vgg(find_vgg(path)).to(world.device))


def _empty(run: Path) -> None:
    """Delete all that an earlier run has left in a folder, but for the lock, which is held."""
    for path in run.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK:
            path.unlink()


def _checkpoint_to_go_on_from(run: Path, world: World, say: MessageCallback) -> tuple[Path | None, bool]:
    """Return the last checkpoint; where the run failed twice after it, the one before, and True."""
    there = checkpoints(run)
    repeated = sorted(failures_folder(run).glob(f"*{AGAIN}"))
    wait_for_all(world)
    if not there or not repeated:
        return (there[-1] if there else None), False
    chosen = there[-2] if len(there) > 1 else there[-1]
    if world.is_first:
        for newer in there[there.index(chosen) + 1 :]:
            shutil.rmtree(newer)
        for path in repeated:
            path.rename(path.with_name(path.name.replace(AGAIN, ROLLED_BACK)))
    wait_for_all(world)
    say(f"rolled back to iteration {int(chosen.name)}: what came after failed twice; other batches come now")
    return chosen, True


def _restore(
    run: TrainingRun, checkpoint: Path, images: Images, say: MessageCallback
) -> dict[str, tuple[object, object]]:
    """Take up a run from a checkpoint; return the keys of the recipe that differ, with both values."""
    facts, stage = read_facts(checkpoint), run.request.stage
    check_same_start(run.folder, facts, run.request)
    # Read anew, so that it has the keys that have come since it was written.
    old = recipe_from(facts["recipe"], f"the recipe of {checkpoint}", stages=()).as_dict()
    before, now = {"stage": facts["stage"], **old}, {"stage": stage, **run.recipe.as_dict()}
    changes = changes_since(before, now, run.folder, stage=stage, on_purpose=run.request.resume)
    state = read_state(checkpoint)
    run.state.load_state_dict(state["train"])
    run.saved_iteration = run.state.iteration
    _take_best(run, facts, changes, say)
    run.rollbacks = facts["shifts"]
    say(f"going on at iteration {run.state.iteration} of {run.options.iterations}")
    if (facts["images"], facts["pairs"]) != (len(run.data.images), len(run.data.pairs)):
        say(f"the run was begun with {facts['images']} images and {facts['pairs']} pairs, and goes on with others")
    if facts["processes"] != run.world.size:
        say(f"the run was begun with {facts['processes']} processes and goes on with {run.world.size}: other batches")
    elif run.pool is not None and state["pools"]:
        run.pool.load_state_dict(state["pools"][run.world.rank], run.world.device)
    return changes


def _take_best(
    run: TrainingRun, facts: dict[str, Any], changes: dict[str, tuple[object, object]], say: MessageCallback
) -> None:
    """Take up the best score so far, unless the scores from now on cannot be compared with it."""
    judged_by = facts.get("judged_by")  # an earlier realesr, which scored against another truth, kept no record
    if run.validation is None:
        run.judged_by = judged_by
    if facts["best_psnr"] is None:
        return
    if run.judged_by == judged_by and not judges_otherwise(changes):
        run.best_psnr = facts["best_psnr"]
    elif run.world.is_first:
        say("the validation is another one, so the best network is judged anew")


def _open_log(run: TrainingRun, images: Images) -> RunLog:
    """Open the run's log, and write how it begins or goes on."""
    run.folder.mkdir(parents=True, exist_ok=True)
    run.log = RunLog(run.folder, run.state.iteration)
    run.log.write("run", run.state.iteration, _facts(run, images))
    run.log.text("recipe", run.state.iteration, run.recipe.as_dict())
    return run.log


def _tell_changes(run: TrainingRun, changes: dict[str, tuple[object, object]], say: MessageCallback) -> None:
    """Say and log what is otherwise in the recipe from here on."""
    if not changes or run.log is None or run.is_done:
        return
    named = "; ".join(f"{key} was {old!r} and is {new!r}" for key, (old, new) in changes.items())
    say(f"from iteration {run.state.iteration} on the recipe has changed: {named}")
    run.log.write("changed", run.state.iteration, {"changes": {key: list(both) for key, both in changes.items()}})


def _facts(run: TrainingRun, images: Images) -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "stage": run.request.stage,
        "recipe": run.recipe.as_dict(),
        "images": len(run.data.images),
        "held_out": [str(path) for path in images.held_out],
        "pairs": len(run.data.pairs),
        "processes": run.world.size,
        "device": str(run.world.device),
        "realesr": version("realesr"),
        "torch": torch.__version__,
    }


def _say_images(run: TrainingRun, images: Images, left_out: int, say: MessageCallback) -> None:
    if isinstance(run.data, AnsweredPatches):
        held = 0 if run.validation is None else len(run.validation)
        say(f"training on a teacher's answers to {run.data.count:,} patches, validating on {held} others")
        return
    parts = [f"{len(images.train)} images"] if images.train else []
    parts += [f"{len(images.pairs)} pairs"] if images.pairs else []
    held = (len(images.held_out) or len(images.validation_pairs)) - left_out
    held_alike = images.held_out == images.train and images.validation_pairs == images.pairs
    only = " (the same: there is only one)" if held_alike else ""
    say(f"training on {' and '.join(parts)}, validating on {held} others{only}")
    if run.validation is not None and (warning := held_out_warning(held, len(run.validation))):
        say(warning)
