"""Networks of our architectures, small enough to run in milliseconds, with random weights."""

import numpy as np

from realesr.models.architecture import Architecture
from realesr.models.compact import Compact
from realesr.models.rrdb import RRDB
from realesr.models.weights import Weights

SMALL: list[Architecture] = [
    RRDB(scale=4, features=8, blocks=2, growth=4),
    RRDB(scale=2, features=8, blocks=1, growth=4),
    RRDB(scale=1, features=8, blocks=1, growth=4),
    RRDB(scale=8, features=8, blocks=1, growth=4, upsamplings=3),
    RRDB(scale=2, features=8, blocks=1, growth=4, upsamplings=1),
    RRDB(scale=1, features=8, blocks=1, growth=4, upsamplings=0),
    Compact(scale=4, features=8, convs=3),
    Compact(scale=3, features=8, convs=2),
    Compact(scale=2, features=8, convs=1, activation="relu"),
    Compact(scale=1, features=8, convs=2, activation="leakyrelu"),
]


def small_state(architecture, seed=0):
    """Every array of the architecture, of a size that keeps values near 1 through all layers."""
    rng = np.random.default_rng(seed)
    return {
        key: (rng.normal(size=shape) * (np.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.2)).astype(np.float32)
        for key, shape in architecture.shapes.items()
    }


def small_weights(architecture, seed=0):
    return Weights("small", architecture, small_state(architecture, seed), f"{seed:064x}")
