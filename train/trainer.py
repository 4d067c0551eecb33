"""Runs the training loop: a batch, a step, and now and then a record, a validation, a checkpoint."""

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from torch import Tensor

from realesr.errors import InputError, TrainingError
from realesr.progress import MessageCallback
from realesr.train.checkpoint import write_json
from realesr.train.data.loader import Batch, batches
from realesr.train.distributed import join_world, leave_world, mean_of_all, true_in_all, true_in_any
from realesr.train.log import status_line
from realesr.train.request import Request
from realesr.train.run import AGAIN, LAST, TrainingRun, failures_folder, open_run, save, validate_run
from realesr.train.steps import StepError, gan_step, psnr_step
from realesr.train.synthesis import Pairs, make_pairs


def train(request: Request, *, say: MessageCallback, show: MessageCallback) -> Path | None:
    """Train until the last iteration, from the beginning or from where the run was stopped.

    Args:
        request: the options of the run.
        say: called with each message.
        show: called with each version of the one line of status.

    Returns:
        Path of the network, in the first process.

    Raises:
        KeyboardInterrupt: after Ctrl-C, once what was done is saved.
        TrainingError: a loss is not finite; the last checkpoint stays.
        InputError: an image cannot be read any more; what was done is saved, where one process trains.
        RealesrError: whatever else is wrong.
    """
    world = join_world(request.device)
    tell = say if world.is_first else _nothing
    try:
        with ExitStack() as held:
            run = open_run(request, world, tell, held)
            if run.log is not None:
                held.callback(run.log.close)
            if run.is_done:
                tell(f"{run.folder} is finished: all {run.options.iterations} iterations are done")
            else:
                _train(run, tell, show if world.is_first else _nothing)
    finally:
        leave_world()
    return run.folder / f"{LAST}.safetensors" if world.is_first else None


def _train(run: TrainingRun, say: MessageCallback, show: MessageCallback) -> None:
    options, world, first = run.options, run.world, run.state.iteration
    stream = batches(
        run.data,
        seed=run.seed,
        first_iteration=run.state.iteration,
        batch=options.batch,
        rank=world.rank,
        world=world.size,
        workers=run.recipe.data.workers,
    )
    run.throughput.at(run.state.iteration)
    with _stop_signals() as signals:
        while not run.is_done:
            try:
                losses = _iterate(run, stream)
            except InputError as error:
                raise _unreadable(run, error) from error
            _log_losses(run, losses, show)
            stop = true_in_any(bool(signals), world)
            _validate_and_save(run, say, stop=stop)
            if stop:
                say(f"stopped at iteration {run.state.iteration}; the same command goes on from there")
                raise KeyboardInterrupt
    if run.padded:
        seen = options.batch * (run.state.iteration - first)
        say(f"{run.padded} of {seen} samples were smaller than {run.recipe.data.read_px} px and were mirrored")
    say(f"done: {run.options.iterations} iterations; the network is in {run.folder}")


def _unreadable(run: TrainingRun, error: InputError) -> InputError:
    """Save what was done before an image could not be read; return the error that says so.

    Other processes know nothing of it, and saving needs them all: with them the last checkpoint has to do.
    """
    if run.world.size > 1 or run.state.iteration == 0:
        return error
    save(run)
    return InputError(
        f"{error}; iteration {run.state.iteration} is saved: mend or remove the image, and the same command goes on"
    )


def _iterate(run: TrainingRun, stream: Iterator[Batch]) -> dict[str, Tensor]:
    """Do one iteration; return its losses."""
    with run.watch("data"):
        batch = next(stream)
    run.padded += batch.padded
    with run.watch("degrade"):
        pairs = make_pairs(
            batch,
            run.recipe.degrade,
            seed=run.seed,
            iteration=run.state.iteration,
            world=run.world,
            scale=run.recipe.architecture.scale,
            crop_px=run.options.crop_px,
            sharpened=run.options.l1_sharp,
            sharp_truth=run.options.needs_sharp,
            pool=run.pool,
        )
    try:
        return _step(run, pairs)
    except StepError as failure:
        raise _non_finite_error(run, batch, pairs, failure.losses) from failure


def _step(run: TrainingRun, pairs: Pairs) -> dict[str, Tensor]:
    def may_step(finite: Tensor) -> bool:
        return true_in_all(finite, run.world)

    images = (pairs.lr, pairs.hr, pairs.sharp)
    if run.request.stage == "stage1":
        return psnr_step(run.state, *images, run.options, may_step=may_step, timed=run.watch)
    return gan_step(run.state, *images, run.options, run.perceptual, may_step=may_step, timed=run.watch)


def _log_losses(run: TrainingRun, losses: dict[str, Tensor], show: MessageCallback) -> None:
    """Log the losses and show the status line, every so many iterations."""
    iteration = run.state.iteration
    if iteration % run.recipe.log_every and not run.is_done:
        return
    values = mean_of_all(losses, run.world)
    run.throughput.at(iteration)
    seconds = run.watch.seconds()
    if run.log is not None:
        pace = {"iterations_per_second": run.throughput.per_second, "padded": run.padded}
        run.log.write("losses", iteration, {**values, **pace, "seconds": seconds})
    show(status_line(iteration, run.options.iterations, values, run.throughput, seconds))


def _validate_and_save(run: TrainingRun, say: MessageCallback, *, stop: bool) -> None:
    """Validate and save, each when it is due."""
    iteration, recipe = run.state.iteration, run.recipe
    with run.watch("save"):
        if recipe.validation.every and (iteration % recipe.validation.every == 0 or run.is_done):
            validate_run(run, say)
        if iteration % recipe.save.every == 0 or run.is_done or stop:
            save(run)


def _non_finite_error(run: TrainingRun, batch: Batch, pairs: Pairs, losses: dict[str, Tensor]) -> TrainingError:
    """Write down what the batch was; return the error that ends the run."""
    folder = failures_folder(run.folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{run.state.iteration:08d}-rank{run.world.rank}"
    path = folder / f"{name}.json"
    if path.exists():
        path = folder / f"{name}{AGAIN}"
    values = {key: float(value) for key, value in losses.items()}
    drawn = None if pairs.drawn is None else pairs.drawn.to_json()
    write_json(path, {"iteration": run.state.iteration, "losses": values, "images": batch.paths, "degradation": drawn})
    bad = ", ".join(f"{key} = {value}" for key, value in values.items() if not math.isfinite(value))
    return TrainingError(
        f"iteration {run.state.iteration} is not finite ({bad or 'in another process'}), see {path}; the last "
        "checkpoint is whole: the same command goes on from there, and rolls back further if it happens again"
    )


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM instead of ending at once; a second one ends at once."""
    signals: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if signals:
            raise KeyboardInterrupt
        signals.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before: dict[int, Any] = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _nothing(_: str) -> None:
    pass
