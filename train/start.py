"""Gives networks their first weights: of the zoo, a file or another run's folder, or random ones."""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from realesr.errors import ModelError
from realesr.models.architecture import Architecture
from realesr.models.discriminator import UNetDiscriminator
from realesr.models.weights import DiscriminatorWeights, Weights, read_any_weights
from realesr.models.zoo import load_model

NOTHING = "none"


def start_generator(generator: nn.Module, architecture: Architecture, init: str) -> str:
    """Give the generator the weights of `init`; "none" leaves its random initialisation.

    Of a network that differs in its scale only, all arrays of the same shape are taken; so the authors began
    RealESRGAN_x2plus, whose first convolution alone reads another number of channels than that of x4plus.

    Returns:
        One line that says what was done.

    Raises:
        ModelError: the network cannot be had, or is of another architecture.
    """
    if init == NOTHING:
        return f"{architecture.title} starts from random initialisation"
    weights = load_model(init)
    if not isinstance(weights, Weights):
        raise ModelError(f"{init} is an .onnx file, which training cannot go on from: expected .safetensors or .pth")
    if weights.architecture == architecture:
        generator.load_state_dict(_tensors(weights))
        return f"{architecture.title} starts from {init}"
    if not _differ_in_scale(weights.architecture, architecture):
        raise ModelError(f"{init} is {weights.architecture.title}, expected {architecture.title} as in the recipe")
    own = generator.state_dict()
    taken = {key: value for key, value in _tensors(weights).items() if value.shape == own[key].shape}
    generator.load_state_dict(taken, strict=False)
    left = ", ".join(key for key in own if key not in taken)
    return f"{architecture.title} starts from {init} but for {left}, which have random initialisation"


def start_discriminator(discriminator: nn.Module, architecture: UNetDiscriminator, path: Path) -> str:
    """Give the discriminator the weights of a released or own file, and say so.

    Raises:
        ModelError: the file cannot be read, or holds something else.
    """
    weights = read_any_weights(path)
    if not isinstance(weights, DiscriminatorWeights) or weights.architecture != architecture:
        raise ModelError(f"{path} is {weights.architecture.title}, expected {architecture.title}")
    discriminator.load_state_dict(_tensors(weights))
    return f"the discriminator starts from {path}"


def _differ_in_scale(found: Architecture, wanted: Architecture) -> bool:
    if type(found) is not type(wanted):
        return False
    fields, others = (asdict(each) for each in (found, wanted))  # type: ignore[call-overload]  # both are dataclasses
    return {**fields, "scale": 0} == {**others, "scale": 0}


def _tensors(weights: Weights | DiscriminatorWeights) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(array.copy()) for key, array in weights.state.items()}
