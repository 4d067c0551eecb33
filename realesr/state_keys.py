"""From whatever a checkpoint holds to one flat dict of arrays with the key names of today's BasicSR."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realesr.errors import ModelError

Arrays = dict[str, NDArray[Any]]

_CONTAINERS = ("params_ema", "params-ema", "params", "state_dict", "model_state_dict", "model", "generator", "netG")
"""Where checkpoints keep the weights, the wanted first: the running average goes before the training's last step."""

_PREFIXES = ("module.", "_orig_mod.", "generator_ema.", "generator.", "netG.", "net_g.")
"""What DataParallel, torch.compile, mmagic and others put before the keys of the generator."""

_RENAMED = {
    "trunk_conv": "conv_body",
    "upconv1": "conv_up1",
    "upconv2": "conv_up2",
    "upconv3": "conv_up3",
    "HRconv": "conv_hr",
}
"""ESRGAN's second code base, RealSR and BSRGAN (chaiNNer-org/spandrel, its ESRGAN loader)."""

_TRUNK_KEY = re.compile(r"RRDB_trunk\.(\d+)\.RDB([123])\.conv([1-5])")
_SEQUENTIAL_KEY = re.compile(r"model\.1\.sub\.(\d+)\.RDB([123])\.conv([1-5])\.0")
_SEQUENTIAL_TAIL = re.compile(r"model\.(\d+)")
_SEQUENTIAL_BODY = re.compile(r"model\.1\.sub\.(\d+)")


def modern_state(tree: object) -> Arrays:
    """Find the state dict in what a file holds, and give its arrays today's names.

    Raises:
        ModelError: there is none, or its keys contradict each other.
    """
    state = _strip_prefixes(_arrays(_unwrap(tree)))
    tail = [int(match[1]) for key in state if (match := _SEQUENTIAL_TAIL.fullmatch(key.removesuffix(".weight")))]
    tail_names = _sequential_tail(sorted(tail)) if 0 in tail else {}
    renamed: Arrays = {}
    for key, array in state.items():
        name, dot, kind = key.rpartition(".")
        modern = f"{tail_names.get(name) or _modern_name(name)}{dot}{kind}"
        if modern in renamed:
            raise ModelError(f"two of the weights are {modern} (one is {key}): expected one network in the file")
        renamed[modern] = array
    return renamed


def _unwrap(tree: object) -> object:
    """Go down the containers; checkpoints of whole trainings nest two of them."""
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
    """Keep the arrays; counters and the like beside them are no weights."""
    items = tree.items() if isinstance(tree, dict) else ()
    state = {key: value for key, value in items if isinstance(key, str) and isinstance(value, np.ndarray)}
    if not state:
        raise ModelError("holds no state dict: expected arrays under params_ema, params, state_dict or at the root")
    return state


def _strip_prefixes(state: Arrays) -> Arrays:
    """Keep what carries a generator's prefix, without it; prefixes may follow each other."""
    for prefix in (*_PREFIXES, *_PREFIXES, "model."):
        inside = {key.removeprefix(prefix): array for key, array in state.items() if key.startswith(prefix)}
        # The oldest dialect's own keys begin with "model.0".
        if inside and not (prefix == "model." and "0.weight" in inside):
            state = inside
    return state


def _modern_name(name: str) -> str:
    match = _TRUNK_KEY.fullmatch(name) or _SEQUENTIAL_KEY.fullmatch(name)
    if match:
        return f"body.{match[1]}.rdb{match[2]}.conv{match[3]}"
    if _SEQUENTIAL_BODY.fullmatch(name):
        return "conv_body"
    return _RENAMED.get(name, name)


def _sequential_tail(indices: list[int]) -> dict[str, str]:
    """Names of the numbered layers around the trunk, for n doublings: 0, then 3, 6, ... 3n, then 3n + 2 and 3n + 4."""
    doublings = len(indices) - 3
    expected = [0, *(3 * k for k in range(1, doublings + 1)), 3 * doublings + 2, 3 * doublings + 4]
    if indices != expected:
        raise ModelError(f"an old sequential ESRGAN has convolutions at {indices}: expected {expected}")
    names = ["conv_first", *(f"conv_up{k}" for k in range(1, doublings + 1)), "conv_hr", "conv_last"]
    return {f"model.{index}": name for index, name in zip(indices, names, strict=True)}
