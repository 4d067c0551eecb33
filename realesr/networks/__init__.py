"""The networks as torch modules, for training and for the torch engine. State-dict names are those of the releases."""

from torch import nn

from realesr.architectures import RRDB, Architecture, Compact, UNetDiscriminator
from realesr.networks.discriminator import UNetDiscriminatorSN
from realesr.networks.rrdb import RRDBNet
from realesr.networks.srvgg import SRVGGNetCompact

__all__ = ["RRDBNet", "SRVGGNetCompact", "UNetDiscriminatorSN", "build"]


def build(architecture: Architecture | UNetDiscriminator) -> nn.Module:
    """Make the module, with fresh random weights. Its state dict has the keys and shapes of `architecture.shapes`."""
    match architecture:
        case RRDB():
            return RRDBNet(architecture)
        case Compact():
            return SRVGGNetCompact(architecture)
        case UNetDiscriminator():
            return UNetDiscriminatorSN(architecture)
