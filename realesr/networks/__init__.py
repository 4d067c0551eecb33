"""The networks as torch modules, for training and for the torch engine. State-dict names are those of the releases."""

import numpy as np
import torch
from torch import nn

from realesr.architectures import RRDB, Architecture, Compact, UNetDiscriminator
from realesr.networks.discriminator import UNetDiscriminatorSN
from realesr.networks.rrdb import RRDBNet
from realesr.networks.srvgg import SRVGGNetCompact
from realesr.weights import Weights

__all__ = ["RRDBNet", "SRVGGNetCompact", "UNetDiscriminatorSN", "build", "build_with"]


def build(architecture: Architecture | UNetDiscriminator) -> nn.Module:
    """Make the module, with fresh random weights. Its state dict has the keys and shapes of `architecture.shapes`."""
    match architecture:
        case RRDB():
            return RRDBNet(architecture)
        case Compact():
            return SRVGGNetCompact(architecture)
        case UNetDiscriminator():
            return UNetDiscriminatorSN(architecture)


def build_with(weights: Weights) -> nn.Module:
    """Make the module of these weights, with copies of them."""
    module = build(weights.architecture)
    module.load_state_dict({key: torch.from_numpy(np.array(array)) for key, array in weights.state.items()})
    return module
