"""Holds a run while it trains: validates it, and saves it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from realesr.progress import MessageCallback
from realesr.train.checkpoint import write_checkpoint, write_discriminator, write_file, write_networks
from realesr.train.data.failures import ReadFailures
from realesr.train.data.loader import TrainingData
from realesr.train.data.pair_pool import PairPool
from realesr.train.distill.patch_batches import AnsweredPatches
from realesr.train.distributed import World, merged_of_all, wait_for_all
from realesr.train.log import LossMeans, RunLog, Throughput
from realesr.train.losses import PerceptualLoss
from realesr.train.recipe import Recipe
from realesr.train.request import Request
from realesr.train.stage_options import StageOptions
from realesr.train.timing import Stopwatch
from realesr.train.train_state import TrainState, unwrapped
from realesr.train.validation import Scores, ValidationSet, comparison_rows, grid_picture, scores_line, validate

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
    data: TrainingData | AnsweredPatches
    validation: ValidationSet | None
    bicubic: Scores | None
    """Scores of bicubic interpolation on the validation set."""
    perceptual: PerceptualLoss | None
    pool: PairPool | None
    watch: Stopwatch
    throughput: Throughput
    losses: LossMeans = field(default_factory=LossMeans)
    """Losses since the last record."""
    saved_iteration: int = 0
    """Iteration of the last checkpoint; 0 where there is nothing to save yet."""
    is_half_done: bool = False
    """Whether an iteration was broken off between the steps of its two optimisers: it must not be saved."""
    log: RunLog | None
    """Log of the run, which only the first process writes."""
    best_psnr: float = float("-inf")
    """PSNR of the best network so far, against `judged_by`."""
    judged_by: dict[str, Any] | None = None
    """Record of the validation set that the best network was found with; None where there is none."""
    rollbacks: int = 0
    """How often the run was rolled back; each time other batches come."""
    padded: int = 0
    """Samples of this process that were smaller than what is read, and were padded."""
    failures: ReadFailures
    """Images and pairs that some process could not read and left out; the same in all of them."""
    scores: dict[str, float] = field(default_factory=dict)
    """Scores of the last validation."""

    @property
    def options(self) -> StageOptions:
        """Return the options of the stage that is run."""
        return self.recipe.stage(self.request.stage)

    @property
    def learning_rates(self) -> dict[str, float]:
        """Return the learning rates of the last step, by the names of their options."""
        rates = {"learning_rate": self.state.g_optimiser.param_groups[0]["lr"]}
        if self.state.d_optimiser is not None:
            rates["d_learning_rate"] = self.state.d_optimiser.param_groups[0]["lr"]
        return rates

    @property
    def seed(self) -> int:
        """Return the seed of everything that is drawn."""
        return self.recipe.seed + 1_000_003 * self.rollbacks

    @property
    def is_done(self) -> bool:
        """Return whether the last iteration has been done."""
        return self.state.iteration >= self.options.iterations


def save(run: TrainingRun, *, alone: bool = False) -> None:
    """Write a checkpoint of all processes, and the networks as they are.

    Args:
        run: the run, between two iterations.
        alone: whether the other processes, if any, do not call this too. Then there must be no pool.

    Raises:
        OutputError: the disk is full; what was saved before is still there.
    """
    pools = [] if alone and run.world.size > 1 else _pools(run)
    if run.world.is_first:
        state = {"train": run.state.state_dict(), "pools": pools}
        facts = {
            "stage": run.request.stage,
            "request": run.request.as_record(),
            "recipe": run.recipe.as_dict(),
            "images": len(run.data.images),
            "pairs": len(run.data.pairs),
            "processes": run.world.size,
            "best_psnr": None if run.best_psnr == float("-inf") else run.best_psnr,
            "judged_by": run.judged_by,
            "shifts": run.rollbacks,
        }
        _write_networks(run, LAST)
        write_checkpoint(run.folder, run.state.iteration, state, facts, keep=run.recipe.save.keep)
    run.saved_iteration = run.state.iteration
    if not alone:
        wait_for_all(run.world)


def leave_out(run: TrainingRun, reasons: Mapping[str, str], say: MessageCallback, words: str) -> None:
    """Count, tell and log the images and pairs that this process could not read. All processes call this together.

    Args:
        run: the run; its failures become those of all processes.
        reasons: those of this process, by name.
        say: called once for each that is new.
        words: what happens now, before the reason.

    Raises:
        InputError: with those of all processes there are too many, in every process.
    """
    for name, reason in run.failures.add(merged_of_all(reasons, run.world)).items():
        say(f"{words}: {reason}")
        if run.log is not None:
            run.log.write("unreadable", run.state.iteration, {"image": name, "reason": reason})


def validate_run(run: TrainingRun, say: MessageCallback) -> None:
    """Score the generator's mean, keep it if it is the best so far, and write a picture of it."""
    if run.validation is None or run.bicubic is None or run.log is None:
        return
    scores, enlarged = validate(run.state.ema.module, run.validation, run.world.device)
    run.scores = scores.as_dict()
    bicubic = {f"bicubic_{name}": value for name, value in run.bicubic.as_dict().items()}
    run.log.write("validation", run.state.iteration, {**run.scores, **bicubic})
    picture = grid_picture(comparison_rows(run.validation, enlarged, run.recipe.validation.grid))
    path = run.folder / "validation" / f"{run.state.iteration:08d}.png"
    path.parent.mkdir(exist_ok=True)
    write_file(path, lambda part: picture.save(part, format="png"))
    run.log.picture("validation", run.state.iteration, np.asarray(picture))
    is_best = scores.psnr > run.best_psnr
    if is_best:
        run.best_psnr = scores.psnr
        _write_networks(run, BEST)
    say(f"iteration {run.state.iteration}: {scores_line(scores, run.bicubic, is_best=is_best)}")


def failures_folder(run: Path) -> Path:
    """Return the folder of the records of batches that a run failed on."""
    return run / "failures"


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
    if run.state.discriminator is not None:
        write_discriminator(run.folder, name, unwrapped(run.state.discriminator).state_dict())
