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

from realesr.errors import InputError, OutputError, RealesrError, TrainingError
from realesr.progress import MessageCallback
from realesr.train.checkpoint import write_json
from realesr.train.data.loader import Batch, batches
from realesr.train.distill.patch_batches import AnsweredPatches, patch_batches
from realesr.train.distributed import (
    greatest_of_all,
    is_of_lost_process,
    join_world,
    leave_world,
    mean_of_all,
    true_in_all,
    true_in_any,
)
from realesr.train.log import status_line
from realesr.train.opening import open_run
from realesr.train.request import Request
from realesr.train.run import AGAIN, LAST, TrainingRun, failures_folder, leave_out, save, validate_run
from realesr.train.steps import StepError, gan_step, psnr_step
from realesr.train.synthesis import Pairs, make_pairs

_FAILURES, _NO_BATCH = 1, 2
"""What a process may tell the others before an iteration: that it left images out, or that it cannot go on."""


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
        TrainingError: a loss is not finite; nothing is saved, for the weights may be on their way there.
        RealesrError: whatever else is wrong. What was done is saved if it is whole; see `_save_after_error`.
    """
    world = join_world(request.device)
    tell = say if world.is_first else _nothing
    try:
        with ExitStack() as held:
            shown = show if world.is_first else _nothing
            run = open_run(request, world, tell, shown, held)
            if run.is_done:
                tell(_finished(run))
            else:
                _train(run, tell, shown)
    except RuntimeError as error:
        if not is_of_lost_process(error):
            raise
        raise TrainingError("another process has ended: see its error, above or below") from error
    finally:
        leave_world()
    return run.folder / f"{LAST}.safetensors" if world.is_first else None


def _finished(run: TrainingRun) -> str:
    done, wanted = run.state.iteration, run.options.iterations
    if done > wanted:
        return f"{run.folder} is finished: {done} iterations are done, and the recipe has {wanted}"
    return f"{run.folder} is finished: all {wanted} iterations are done"


def _train(run: TrainingRun, say: MessageCallback, show: MessageCallback) -> None:
    options, first = run.options, run.state.iteration
    stream = _batches(run)
    run.throughput.at(run.state.iteration)
    try:
        with _stop_signals() as signals:
            _loop(run, stream, say, show, signals)
    except (TrainingError, OutputError):  # the weights may be on their way to NaN; the disk itself was what failed
        raise
    except Exception:
        _save_after_error(run, say)
        raise
    if run.padded:
        seen = options.batch * (run.state.iteration - first)
        say(f"{run.padded} of {seen} samples were smaller than {run.recipe.data.read_px} px and were mirrored")
    if run.failures:
        say(f"{len(run.failures)} images or pairs could not be read and were left out; they are named above")
    trial = "; the trial is over, and its folder may be deleted" if run.request.trial else ""
    say(f"done: {run.options.iterations} iterations; the network is in {run.folder}{trial}")


def _batches(run: TrainingRun) -> Iterator[Batch]:
    """Return the batches of this process from the next iteration on: of images, or of a teacher's answers."""
    part = {
        "seed": run.seed,
        "first_iteration": run.state.iteration,
        "batch": run.options.batch,
        "rank": run.world.rank,
        "world": run.world.size,
    }
    if isinstance(run.data, AnsweredPatches):
        return patch_batches(run.data, **part, device=run.world.device)
    return batches(run.data, **part, workers=run.recipe.data.workers)


def _loop(
    run: TrainingRun, stream: Iterator[Batch], say: MessageCallback, show: MessageCallback, signals: list[int]
) -> None:
    """Do iterations until the last one, or until some process is told to stop or has no batch."""
    while not run.is_done:
        batch, error = _next_batch(run, stream, signals)
        own = _NO_BATCH if batch is None else _FAILURES if batch.failures else 0
        found = greatest_of_all(own, run.world)
        if found == _FAILURES and batch is not None:
            error = _left_out(run, batch, say)
        if found == _NO_BATCH or batch is None or error is not None:
            raise _end(run, error, say)
        run.losses.add(_iterate(run, batch))
        _log_losses(run, show)
        _validate_and_save(run, say)


def _left_out(run: TrainingRun, batch: Batch, say: MessageCallback) -> RealesrError | None:
    """Tell which images could not be read in some process; return an error, in all of them, where they are too many."""
    try:
        leave_out(run, batch.failures, say, "left out, and the next image takes its place")
    except InputError as error:
        return error if run.world.is_first else TrainingError("too many images cannot be read: see the error above")
    return None


def _end(run: TrainingRun, error: Exception | None, say: MessageCallback) -> BaseException:
    """Save what was done, say so, and return what ends this process; all processes call this together."""
    failed = true_in_any(error is not None, run.world)
    if run.state.iteration > run.saved_iteration:
        save(run)
    done = f"iteration {run.state.iteration}, which is saved" if run.saved_iteration else "the first iteration"
    say(f"{'an error came' if failed else 'stopped'} at {done}")
    return error or (TrainingError("another process met the error above") if failed else KeyboardInterrupt())


def _next_batch(run: TrainingRun, stream: Iterator[Batch], signals: list[int]) -> tuple[Batch | None, Exception | None]:
    """Return the next batch; None where this process was told to stop, and with an error where it cannot be had.

    Errors are returned, so that processes that train together can agree to save before the one that has it ends.
    """
    if signals:
        return None, None
    try:
        with run.watch("data"):
            return next(stream), None
    except Exception as error:
        # A signal to a whole process group ends the reading processes too, which is then no error of theirs.
        return None, None if signals else error


def _save_after_error(run: TrainingRun, say: MessageCallback) -> None:
    """Save what was done before an error ended the run, and say so, or why not.

    Nothing is saved of an iteration that was broken off between the steps of its two optimisers. One process of many
    saves alone, for the others wait in the middle of an iteration: the first one, if there is no pool to gather.
    After an error within a step the vectors of spectral norm, and the pool, may be one iteration ahead of the weights.
    """
    done = run.state.iteration
    if done == run.saved_iteration or not run.world.is_first:
        return
    left = "the last checkpoint is whole" if run.saved_iteration else "there is no checkpoint yet"
    if run.is_half_done:
        say(f"iteration {done} was broken off half done and cannot be saved; {left}")
        return
    if run.world.size > 1 and run.pool is not None:
        say(f"the pairs of the other processes are not to be had, so nothing is saved; {left}")
        return
    try:
        save(run, alone=True)
    except Exception as error:  # whatever this one is, the error that ended the run is the one to be told
        say(f"iteration {done} could not be saved ({error}); {left}")
    else:
        say(f"an error came at iteration {done}, which is saved")


def _iterate(run: TrainingRun, batch: Batch) -> dict[str, Tensor]:
    """Do one iteration; return its losses."""
    run.padded += batch.padded
    with run.watch("degrade"):
        pairs = make_pairs(
            batch,
            run.recipe.degrade,
            seed=run.seed,
            iteration=run.state.iteration,
            world=run.world,
            scale=run.recipe.architecture.scale,
            options=run.options,
            pool=run.pool,
        )
    steps_before = run.state.steps
    try:
        return _step(run, pairs)
    except StepError as failure:
        raise _non_finite_error(run, batch, pairs, failure.losses) from failure
    except Exception:
        run.is_half_done = run.state.steps != steps_before
        raise


def _step(run: TrainingRun, pairs: Pairs) -> dict[str, Tensor]:
    def may_step(finite: Tensor) -> bool:
        return true_in_all(finite, run.world)

    images = (pairs.lr, pairs.hr, pairs.sharp)
    if run.request.stage == "stage1":
        return psnr_step(run.state, *images, run.options, may_step=may_step, timed=run.watch)
    return gan_step(run.state, *images, run.options, run.perceptual, may_step=may_step, timed=run.watch)


def _log_losses(run: TrainingRun, show: MessageCallback) -> None:
    """Log the means of the losses since the last record and show the status line, every so many iterations."""
    iteration = run.state.iteration
    if iteration % run.recipe.log_every and not run.is_done:
        return
    values = mean_of_all(run.losses.take(), run.world)
    run.throughput.at(iteration)
    seconds = run.watch.seconds()
    if run.log is not None:
        pace = {"iterations_per_second": run.throughput.per_second, "padded": run.padded}
        run.log.write("losses", iteration, {**values, **run.learning_rates, **pace, "seconds": seconds})
    show(status_line(iteration, run.options.iterations, values, run.throughput, seconds))


def _validate_and_save(run: TrainingRun, say: MessageCallback) -> None:
    """Validate and save, each when it is due."""
    iteration, recipe = run.state.iteration, run.recipe
    with run.watch("save"):
        if recipe.validation.every and (iteration % recipe.validation.every == 0 or run.is_done):
            validate_run(run, say)
        if iteration % recipe.save.every == 0 or run.is_done:
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
    """Collect Ctrl-C, SIGTERM, and SIGHUP of a terminal that closes, instead of ending; a second one ends at once."""
    signals: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if signals:
            raise KeyboardInterrupt
        signals.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none; `nohup` ignores it
    if hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:
        numbers.append(hang_up)
    before: dict[int, Any] = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _nothing(_: str) -> None:
    pass
