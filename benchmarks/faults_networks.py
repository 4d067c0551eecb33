"""Makes the small networks with drawn weights whose files are damaged."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from realesr.models.weights import Weights


def small_networks(scale: int) -> "list[Weights]":
    """Return one network of each family, as weights that are the same in every run."""
    from realesr.models.compact import Compact
    from realesr.models.rrdb import RRDB
    from realesr.models.weights import Weights

    networks = []
    for name, architecture in {
        "compact": Compact(scale=scale, features=8, convs=1),
        "rrdb": RRDB(scale=scale, features=4, blocks=1, growth=4),
    }.items():
        dice = np.random.default_rng(0)
        state = {key: dice.normal(0, 0.1, shape).astype(np.float32) for key, shape in architecture.shapes.items()}
        networks.append(Weights(name=name, architecture=architecture, state=state, sha256="0" * 64))
    return networks
