"""Gives networks their first weights: of the zoo, a file or another run's folder, or random ones."""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from realesr.errors import ModelError, UsageError
from realesr.models.architecture import Architecture
from realesr.models.discriminator import UNetDiscriminator
from realesr.models.recognition import recognise
from realesr.models.weights import DiscriminatorWeights, Weights, read_any_weights
from realesr.models.zoo import ZOO, load_model
from realesr.progress import AmountCallback
from realesr.train.checkpoint import DISCRIMINATOR_ENDING, STATE, checkpoints, read_state

NOTHING = "none"


def network_at(init: str) -> Architecture:
    """Return which network `init` is. One of the zoo is not fetched for it.

    Raises:
        UsageError: `init` is "none".
        ModelError: it cannot be had.
    """
    if init == NOTHING:
        raise UsageError(
            "the recipe names no network, and training starts from none: expected one to start from, or a table of "
            "the network in the recipe",
            option="init",
        )
    entry = ZOO.get(init)
    return _load(init, None).architecture if entry is None else entry.architecture


def start_generator(
    generator: nn.Module, architecture: Architecture, init: str, on_progress: AmountCallback | None = None
) -> str:
    """Give the generator the weights of `init`; "none" leaves its random initialisation.

    Of a network that differs in its scale only, all arrays of the same shape are taken; so the authors began
    RealESRGAN_x2plus, whose first convolution alone reads another number of channels than that of x4plus.

    Args:
        generator: of this architecture.
        architecture: that of the recipe.
        init: network of the zoo, a file, a run's folder, or "none".
        on_progress: called with the bytes of a download.

    Returns:
        One line that says what was done.

    Raises:
        ModelError: the network cannot be had, or is of another architecture; then nothing is fetched.
    """
    if init == NOTHING:
        return f"{architecture.title} starts from random initialisation"
    found = network_at(init)
    if not (found == architecture or _differ_in_scale(found, architecture)):
        raise ModelError(f"{init} is {found.title}, expected {architecture.title} as in the recipe")
    weights = _load(init, on_progress)
    if weights.architecture == architecture:
        generator.load_state_dict(_tensors(weights))
        return f"{architecture.title} starts from {init}"
    own = generator.state_dict()
    taken = {key: value for key, value in _tensors(weights).items() if value.shape == own[key].shape}
    generator.load_state_dict(taken, strict=False)
    left = ", ".join(key for key in own if key not in taken)
    return f"{architecture.title} starts from {init} but for {left}, which have random initialisation"


def start_discriminator(discriminator: nn.Module, architecture: UNetDiscriminator, path: Path) -> str:
    """Give the discriminator the weights of a file, of a run's folder, or of a checkpoint of a run, and say so.

    Raises:
        ModelError: the file cannot be read, or holds something else; the run has no discriminator.
        InputError: the checkpoint is damaged.
    """
    found, state = _read_discriminator(path)
    if found != architecture:
        raise ModelError(f"{path} is {found.title}, expected {architecture.title}", option="init_d")
    discriminator.load_state_dict(state)
    return f"the discriminator starts from {path}"


def _read_discriminator(path: Path) -> tuple[Architecture | UNetDiscriminator, dict[str, Tensor]]:
    """Return what network a file or run holds, and its tensors."""
    if path.is_dir():
        return _discriminator_of_run(path)
    if path.name == STATE and path.is_file():
        return _discriminator_of_checkpoint(path.parent)
    weights = read_any_weights(path)
    return weights.architecture, _tensors(weights)


def _discriminator_of_run(folder: Path) -> tuple[Architecture | UNetDiscriminator, dict[str, Tensor]]:
    """Read a run's last discriminator: its file, or its last checkpoint where an earlier realesr wrote no such file."""
    file = folder / f"last{DISCRIMINATOR_ENDING}.safetensors"
    if file.is_file():
        return _read_discriminator(file)
    there = [folder] if (folder / STATE).is_file() else checkpoints(folder)[-1:]
    if not there:
        raise ModelError(f"{folder} has neither {file.name} nor a checkpoint: expected a run of stage 2, or a file")
    return _discriminator_of_checkpoint(there[0])


def _discriminator_of_checkpoint(checkpoint: Path) -> tuple[Architecture | UNetDiscriminator, dict[str, Tensor]]:
    state = read_state(checkpoint).get("train", {}).get("discriminator")
    if state is None:
        raise ModelError(f"{checkpoint} has no discriminator: expected a run of stage 2, or a file")
    found, _ = recognise({key: value.numpy() for key, value in state.items()})
    return found, state


def _load(init: str, on_progress: AmountCallback | None) -> Weights:
    weights = load_model(init, on_progress=on_progress)
    if not isinstance(weights, Weights):
        raise ModelError(f"{init} is an .onnx file, which training cannot go on from: expected .safetensors or .pth")
    return weights


def _differ_in_scale(found: Architecture, wanted: Architecture) -> bool:
    if type(found) is not type(wanted):
        return False
    fields, others = (asdict(each) for each in (found, wanted))  # type: ignore[call-overload]  # both are dataclasses
    return {**fields, "scale": 0} == {**others, "scale": 0}


def _tensors(weights: Weights | DiscriminatorWeights) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(array.copy()) for key, array in weights.state.items()}
