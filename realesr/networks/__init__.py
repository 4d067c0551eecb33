"""The networks as torch modules, written out, for training and as an independent check of the lists of layers.

State-dict names are those of the releases.
"""

import numpy as np
import torch
from torch import nn

from realesr.errors import UsageError
from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.discriminator import UNetDiscriminator
from realesr.models.rrdb import RRDB
from realesr.models.span import Span
from realesr.models.weights import Weights
from realesr.networks.discriminator import UNetDiscriminatorSN
from realesr.networks.rrdb import RRDBNet
from realesr.networks.span import SPAN
from realesr.networks.srvgg import SRVGGNetCompact

__all__ = ["SPAN", "RRDBNet", "SRVGGNetCompact", "UNetDiscriminatorSN", "build", "build_with"]


def build(architecture: Architecture | UNetDiscriminator) -> nn.Module:
    """Make the module, with random initialisation. Its state dict has the keys and shapes of `architecture.shapes`.

    Raises:
        UsageError: There is no torch module for this architecture.
    """
    match architecture:
        case RRDB():
            return RRDBNet(architecture)
        case Compact():
            return SRVGGNetCompact(architecture)
        case Span():
            return SPAN(architecture)
        case UNetDiscriminator():
            return UNetDiscriminatorSN(architecture)
        case _:
            raise UsageError(f"got {architecture.title}, expected a network that realesr has a torch module for")


def build_with(weights: Weights) -> nn.Module:
    """Make the module of these weights, with copies of them."""
    module = build(weights.architecture)
    module.load_state_dict({key: torch.from_numpy(np.array(array)) for key, array in weights.state.items()})
    return module
