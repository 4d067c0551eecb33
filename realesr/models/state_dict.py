"""Finds the state dict in a checkpoint: one flat dict of a network's arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import ModelError

Arrays = dict[str, NDArray[Any]]

_MAX_ARRAYS = 1 << 13
"""Assumption: 11 times the arrays of the largest released network."""

_CONTAINERS = ("params_ema", "params-ema", "params", "state_dict", "model_state_dict", "model", "generator", "netG")
"""Keys under which checkpoints keep the weights, in order of preference: the running average (EMA) comes first."""

_PREFIXES = ("module.", "_orig_mod.", "generator_ema.", "generator.", "netG.", "net_g.")
"""Prefixes that DataParallel, torch.compile, mmagic and others put before the generator's keys."""


def state_dict(tree: object) -> Arrays:
    """Return the state dict in a file's content, its keys without the prefixes of training programs.

    Raises:
        ModelError: There is none.
    """
    return _strip_prefixes(_arrays(_unwrap(tree)))


def _unwrap(tree: object) -> object:
    """Return the innermost container; checkpoints of whole trainings nest two of them."""
    for _ in range(3):
        inner = (
            next((tree[name] for name in _CONTAINERS if isinstance(tree.get(name), dict)), None)
            if (isinstance(tree, dict))
            else None
        )
        if inner is None:
            break
        tree = inner
    return tree


def _arrays(tree: object) -> Arrays:
    """Return the arrays alone; counters and the like beside them are no weights."""
    items = tree.items() if isinstance(tree, dict) else ()
    state = {key: value for key, value in items if isinstance(key, str) and isinstance(value, np.ndarray)}
    if not state:
        raise ModelError("holds no state dict: expected arrays under params_ema, params, state_dict or at the root")
    if len(state) > _MAX_ARRAYS:
        raise ModelError(
            f"holds a state dict of {len(state):,} arrays: expected a network's, at most {_MAX_ARRAYS:,}; "
            "save the network's alone"
        )
    return state


def _strip_prefixes(state: Arrays) -> Arrays:
    """Return the arrays whose keys carry a generator's prefix, without it; prefixes may follow each other."""
    for prefix in (*_PREFIXES, *_PREFIXES, "model."):
        inside = {key.removeprefix(prefix): array for key, array in state.items() if key.startswith(prefix)}
        # The oldest dialect's own keys begin with "model.0".
        if inside and not (prefix == "model." and "0.weight" in inside):
            state = inside
    return state
