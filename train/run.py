"""Opens a run with its folder, networks, images and logs; resumes, saves and validates it."""

import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from realesr import networks
from realesr.progress import MessageCallback
from realesr.train.checkpoint import checkpoints, read_facts, read_state, write_checkpoint, write_file, write_networks
from realesr.train.data.loader import TrainingData
from realesr.train.data.pair_pool import PairPool
from realesr.train.distributed import World, data_parallel, wait_for_all
from realesr.train.log import RunLog, Throughput
from realesr.train.losses import PerceptualLoss
from realesr.train.recipe import Recipe
from realesr.train.request import Images, Request, check_same_run, find_images, init_for, recipe_for
from realesr.train.run_lock import LOCK, run_lock
from realesr.train.stage_options import StageOptions
from realesr.train.start import start_discriminator, start_generator
from realesr.train.timing import Stopwatch
from realesr.train.train_state import TrainState, make_state, unwrapped
from realesr.train.validation import ValidationSet, degraded_set, given_set, grid_picture, validate
from realesr.train.vgg import find_vgg, load_vgg

BEST, LAST = "best", "last"

AGAIN, ROLLED_BACK = "-again.json", "-rolled-back.json"
"""Ends of the names of records of a failure that came a second time, before and after the run was rolled back."""


@dataclass(kw_only=True)
class TrainingRun:
    """The state of a run while it trains: networks, images, logs and counters."""

    request: Request
    recipe: Recipe
    folder: Path
    world: World
    state: TrainState
    data: TrainingData
    validation: ValidationSet | None
    perceptual: PerceptualLoss | None
    pool: PairPool | None
    watch: Stopwatch
    throughput: Throughput
    log: RunLog | None
    """Log of the run, which only the first process writes."""
    best_psnr: float = float("-inf")
    rollbacks: int = 0
    """How often the run was rolled back; each time other batches come."""
    padded: int = 0
    """Samples of this process that were smaller than what is read, and were padded."""
    scores: dict[str, float] = field(default_factory=dict)
    """Scores of the last validation."""

    @property
    def options(self) -> StageOptions:
        """Return the options of the stage that is run."""
        return self.recipe.stage(self.request.stage)

    @property
    def seed(self) -> int:
        """Return the seed of everything that is drawn."""
        return self.recipe.seed + 1_000_003 * self.rollbacks

    @property
    def is_done(self) -> bool:
        """Return whether the last iteration has been done."""
        return self.state.iteration >= self.options.iterations


def open_run(request: Request, world: World, say: MessageCallback, held: ExitStack) -> TrainingRun:
    """Begin a run, or resume it from its last checkpoint; `held` gets the lock on its folder.

    Raises:
        RealesrError: whatever is wrong with recipe, images or networks, or another process trains in this folder;
            nothing was begun.
    """
    recipe = recipe_for(request)
    options = recipe.stage(request.stage)
    images = find_images(request, recipe)
    if world.is_first:
        held.enter_context(run_lock(request.run))
        if request.debug:
            _empty(request.run)
    wait_for_all(world)
    checkpoint, rolled_back = _checkpoint_to_go_on_from(request.run, world, say)
    perceptual = _perceptual_loss(request.vgg, world) if options.perceptual else None
    state = _make_state(request, recipe, world, say, fresh=checkpoint is None)
    run = TrainingRun(
        request=request,
        recipe=recipe,
        folder=request.run,
        world=world,
        state=state,
        data=_training_data(images, recipe, options),
        validation=_validation_set(images, recipe) if world.is_first and recipe.validation.every else None,
        perceptual=perceptual,
        pool=PairPool(recipe.degrade.pool, eight_bit=False) if recipe.degrade.pool else None,
        watch=Stopwatch(world.device),
        throughput=Throughput(options.iterations),
        log=None,
    )
    if checkpoint is not None:
        _restore(run, checkpoint, images, say)
        if rolled_back:
            run.rollbacks += 1
            save(run)
    if world.is_first:
        run.folder.mkdir(parents=True, exist_ok=True)
        run.log = RunLog(run.folder)
        run.log.write("run", run.state.iteration, _facts(run, images))
        _say_images(images, say)
    return run


def save(run: TrainingRun) -> None:
    """Write a checkpoint of all processes, and the network as it is.

    Raises:
        OutputError: the disk is full; what was saved before is still there.
    """
    pools = _pools(run)
    if run.world.is_first:
        state = {"train": run.state.state_dict(), "pools": pools}
        facts = {
            "stage": run.request.stage,
            "recipe": run.recipe.as_dict(),
            "images": len(run.data.images),
            "pairs": len(run.data.pairs),
            "processes": run.world.size,
            "best_psnr": None if run.best_psnr == float("-inf") else run.best_psnr,
            "shifts": run.rollbacks,
        }
        _write_networks(run, LAST)
        write_checkpoint(run.folder, run.state.iteration, state, facts, keep=run.recipe.save.keep)
    wait_for_all(run.world)


def validate_run(run: TrainingRun, say: MessageCallback) -> None:
    """Score the generator's mean, keep it if it is the best so far, and write a picture of it."""
    if run.validation is None or run.log is None:
        return
    scores, enlarged = validate(run.state.ema.module, run.validation, run.world.device)
    run.scores = scores.as_dict()
    run.log.write("validation", run.state.iteration, run.scores)
    picture = grid_picture(run.validation, enlarged, run.recipe.validation.grid)
    path = run.folder / "validation" / f"{run.state.iteration:08d}.png"
    path.parent.mkdir(exist_ok=True)
    write_file(path, lambda part: picture.save(part, format="png"))
    is_best = scores.psnr > run.best_psnr
    if is_best:
        run.best_psnr = scores.psnr
        _write_networks(run, BEST)
    say(
        f"iteration {run.state.iteration}: PSNR {scores.psnr:.2f} dB{' (best)' if is_best else ''}, "
        f"SSIM {scores.ssim:.4f}, colours off by {scores.colour_drift:.2f} levels"
    )


def failures_folder(run: Path) -> Path:
    """Return the folder of the records of batches that a run failed on."""
    return run / "failures"


def _empty(run: Path) -> None:
    """Delete all that an earlier run has left in a folder, but for the lock, which is held."""
    for path in run.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK:
            path.unlink()


def _perceptual_loss(path: Path | None, world: World) -> PerceptualLoss:
    """Load VGG19; one process of each machine fetches the file where it is missing, and the others then find it."""
    if world.rank_here == 0:
        find_vgg(path)
    wait_for_all(world)
    return PerceptualLoss(load_vgg(find_vgg(path)).to(world.device))


def _make_state(request: Request, recipe: Recipe, world: World, say: MessageCallback, *, fresh: bool) -> TrainState:
    """Make the networks; fresh ones get their first weights, others will get those of the checkpoint."""
    options = recipe.stage(request.stage)
    torch.manual_seed(recipe.seed)
    generator = networks.build(recipe.architecture)
    discriminator = networks.build(recipe.discriminator) if options.gan else None
    if fresh:
        say(start_generator(generator, recipe.architecture, init_for(request, recipe)))
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


def _training_data(images: Images, recipe: Recipe, options: StageOptions) -> TrainingData:
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
    )


def _validation_set(images: Images, recipe: Recipe) -> ValidationSet:
    scale = recipe.architecture.scale
    if images.validation_pairs:
        return given_set(images.validation_pairs, scale=scale)
    return degraded_set(images.held_out, recipe.degrade, recipe.validation, scale=scale)


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


def _restore(run: TrainingRun, checkpoint: Path, images: Images, say: MessageCallback) -> None:
    facts, state = read_facts(checkpoint), read_state(checkpoint)
    before, now = ({"stage": facts["stage"], **facts["recipe"]}, {"stage": run.request.stage, **run.recipe.as_dict()})
    check_same_run(run.folder, before, now)
    run.state.load_state_dict(state["train"])
    run.best_psnr = float("-inf") if facts["best_psnr"] is None else facts["best_psnr"]
    run.rollbacks = facts["shifts"]
    say(f"going on at iteration {run.state.iteration} of {run.options.iterations}")
    if (facts["images"], facts["pairs"]) != (len(images.train), len(images.pairs)):
        say(f"the run was begun with {facts['images']} images and {facts['pairs']} pairs, and goes on with others")
    if facts["processes"] != run.world.size:
        say(f"the run was begun with {facts['processes']} processes and goes on with {run.world.size}: other batches")
    elif run.pool is not None:
        run.pool.load_state_dict(state["pools"][run.world.rank], run.world.device)


def _pools(run: TrainingRun) -> list[Any]:
    """Return the pools of all processes in the first one."""
    if run.pool is None:
        return []
    own = run.pool.state_dict()
    if run.world.size == 1:
        return [own]
    import torch.distributed as dist

    gathered: list[Any] | None = [None] * run.world.size if run.world.is_first else None
    dist.gather_object(own, gathered)
    return gathered or []


def _write_networks(run: TrainingRun, name: str) -> None:
    raw = unwrapped(run.state.generator)
    write_networks(run.folder, name, run.state.ema.module.state_dict(), raw.state_dict(), run.recipe.architecture)


def _facts(run: TrainingRun, images: Images) -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "stage": run.request.stage,
        "recipe": run.recipe.as_dict(),
        "images": len(images.train),
        "held_out": [str(path) for path in images.held_out],
        "pairs": len(images.pairs),
        "processes": run.world.size,
        "device": str(run.world.device),
        "realesr": version("realesr"),
        "torch": torch.__version__,
    }


def _say_images(images: Images, say: MessageCallback) -> None:
    parts = [f"{len(images.train)} images"] if images.train else []
    parts += [f"{len(images.pairs)} pairs"] if images.pairs else []
    held = len(images.held_out) or len(images.validation_pairs)
    only = " (the same: there is only one)" if images.held_out == images.train else ""
    say(f"training on {' and '.join(parts)}, validating on {held} others{only}")
