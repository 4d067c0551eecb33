"""Writes checkpoints to go on from and networks for other programs, each of them whole or not at all."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from realesr.errors import InputError, OutputError
from realesr.machine.whole_file import file_sha256, remove_unfinished, whole_file, whole_folder
from realesr.models.architecture import Architecture

FORM = 1
"""Version of the form of checkpoints. One with a higher number was written by a later realesr."""

FOLDER = "checkpoints"
STATE = "state.pt"
_FACTS = "facts.json"
_SUMS = "sha256.txt"
"""Hashes of the other files, as sha256sum writes and checks them. Older checkpoints have none."""

DISCRIMINATOR_ENDING = "-discriminator"
"""End of the names of a discriminator's files, behind that of the generator beside it: last-discriminator.pth."""

State = Mapping[str, Any]
"""Tensors, numbers, texts, and lists and dicts of them: what torch.load reads with `weights_only`."""


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file under a temporary name, flush it to the disk, and rename it to `path`.

    Raises:
        OutputError: the disk is full or cannot be written; what was there under this name is still there.
    """
    try:
        with whole_file(path) as part:
            write(part)
    except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError where the disk is full
        raise OutputError(_disk_problem(path, error)) from error


def write_checkpoint(run: Path, iteration: int, state: State, facts: Mapping[str, Any], *, keep: int) -> Path:
    """Write what is needed to go on from this iteration, then remove the oldest checkpoints beyond `keep`.

    Args:
        run: the run's folder.
        iteration: how many have been done.
        state: the tensors of networks, optimisers and pools.
        facts: recipe and counters as JSON, which people read as well.
        keep: how many checkpoints stay.

    Raises:
        OutputError: the disk is full or cannot be written; all earlier checkpoints are still there.
    """
    folder = run / FOLDER / f"{iteration:08d}"
    try:
        remove_unfinished(folder.parent)  # of a process that was killed: each has the size of a checkpoint
        with whole_folder(folder) as part:
            torch.save(dict(state), part / STATE)
            (part / _FACTS).write_text(json.dumps({"form": FORM, "iteration": iteration, **facts}, indent=1))
            sums = [f"{file_sha256(part / name)}  {name}\n" for name in (STATE, _FACTS)]
            (part / _SUMS).write_text("".join(sums))
    except (OSError, RuntimeError) as error:
        raise OutputError(_disk_problem(folder, error)) from error
    for old in checkpoints(run)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def checkpoints(run: Path) -> list[Path]:
    """Return the run's whole checkpoints, the oldest first."""
    folder = run / FOLDER
    return sorted(path for path in folder.glob("[0-9]*") if (path / _FACTS).exists()) if folder.is_dir() else []


def read_facts(checkpoint: Path) -> dict[str, Any]:
    """Return the plain facts of a checkpoint.

    Raises:
        InputError: it is damaged, or was written by a later realesr.
    """
    try:
        _check_sum(checkpoint, _FACTS)
        facts: dict[str, Any] = json.loads((checkpoint / _FACTS).read_text())
        form = int(facts["form"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{checkpoint} is no whole checkpoint: {_go_on_from(checkpoint)}") from error
    if form > FORM:
        raise InputError(f"{checkpoint} is of form {form}, expected {FORM} or lower: it needs a later realesr")
    return facts


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return the state of a checkpoint; no code in the file is run.

    Raises:
        InputError: it is damaged.
    """
    try:
        _check_sum(checkpoint, STATE)
        state: dict[str, Any] = torch.load(checkpoint / STATE, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # torch raises a dozen types for damaged files
        raise InputError(f"{checkpoint} is damaged: {_go_on_from(checkpoint)}") from error
    return state


def _check_sum(checkpoint: Path, name: str) -> None:
    """Compare a file with its hash, if the checkpoint has hashes: torch reads a tensor with a flipped bit as well.

    Raises:
        InputError: it is not what was written.
        OSError: it cannot be read.
    """
    try:
        lines = (checkpoint / _SUMS).read_bytes().splitlines()
    except FileNotFoundError:
        return
    if f"{file_sha256(checkpoint / name)}  {name}".encode() not in lines:
        raise InputError(
            f"{checkpoint} is damaged ({name} is not what {_SUMS} says was written): {_go_on_from(checkpoint)}"
        )


def _go_on_from(checkpoint: Path) -> str:
    """Say what to do without this checkpoint."""
    earlier = [path.name for path in checkpoints(checkpoint.parent.parent) if path.name < checkpoint.name]
    return f"delete this folder to {f'go on from {earlier[-1]}, the one before' if earlier else 'begin anew'}"


def write_networks(run: Path, name: str, ema: State, raw: State, architecture: Architecture) -> Path:
    """Write the generator as `name`.safetensors (its mean) and `name`.pth (mean and raw, as BasicSR names them).

    Args:
        run: the run's folder.
        name: like "last".
        ema: state dict of the generator's mean, on any device.
        raw: state dict of the generator itself.
        architecture: goes into the file's metadata where keys and shapes do not tell it.

    Returns:
        Path of the .safetensors file, which `load_model` takes.
    """
    path = write_network(run / f"{name}.safetensors", ema, architecture)
    mean, weights = _plain(ema), _plain(raw)
    write_file(run / f"{name}.pth", lambda part: _save_torch({"params": weights, "params_ema": mean}, part))
    return path


def write_discriminator(run: Path, name: str, state: State) -> Path:
    """Write a discriminator as `name`-discriminator, .safetensors and .pth ("params", as BasicSR names them).

    Returns:
        Path of the .safetensors file.

    Raises:
        OutputError: the disk is full or cannot be written.
    """
    plain = _plain(state)
    write_file(run / f"{name}{DISCRIMINATOR_ENDING}.pth", lambda part: _save_torch({"params": plain}, part))
    path = run / f"{name}{DISCRIMINATOR_ENDING}.safetensors"
    write_file(path, lambda part: part.write_bytes(save(plain)))
    return path


def write_network(path: Path, state: State, architecture: Architecture) -> Path:
    """Write one state dict as a .safetensors file, which `load_model` takes; return the path.

    Raises:
        OutputError: the disk is full or cannot be written.
    """
    # Keys and shapes do not tell all activations apart; see `realesr.models.recognition.recognise`.
    activation = getattr(architecture, "activation", None)
    content = save(_plain(state), None if activation is None else {"activation": activation})
    write_file(path, lambda part: part.write_bytes(content))
    return path


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    text = json.dumps(value, indent=1)
    write_file(path, lambda part: part.write_text(text))


def _plain(state: State) -> dict[str, Tensor]:
    """Return contiguous float32 copies on the CPU, which both file formats want."""
    return {key: value.detach().to("cpu", torch.float32).contiguous().clone() for key, value in state.items()}


def _save_torch(values: Mapping[str, Any], path: Path) -> None:
    """Write a .pth file; as torch sees no path, the temporary name does not get into it."""
    with path.open("wb") as file:
        torch.save(dict(values), file)


def _disk_problem(path: Path, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())[:120]
    folder = next(parent for parent in path.parents if parent.is_dir())
    free = shutil.disk_usage(folder).free / 1e6
    return f"{path} could not be written ({reason}; {free:,.0f} MB are free): make room and say the same command again"
